//! One of the two networks of each node.
//!
//! Not here: the channels of heartbeats (`ChannelName`), of which the shared disk is one too.

use serde::{Deserialize, Serialize};
use std::fmt;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    Primary,
    Secondary,
}

impl Network {
    pub fn other(self) -> Network {
        match self {
            Network::Primary => Network::Secondary,
            Network::Secondary => Network::Primary,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::Primary => "primary network",
            Network::Secondary => "secondary network",
        })
    }
}
