//! The two networks over which another node's database is reached, and which of them comes first: the one over which a
//! connection worked last. It is the same for the stream, a copy, a rewind and every question, whoever is followed.
//!
//! Not here: what finds out which one works (`stream.rs`, `upstream.rs`, `clone.rs`).

use crate::config::{Config, Node};
use crate::types::Upstream;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// One of the two networks of each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The one that this address of a node belongs to.
    pub fn of(config: &Config, address: IpAddr) -> Option<Network> {
        let of = |node: &Node| match address {
            _ if node.primary == address => Some(Network::Primary),
            _ if node.secondary == address => Some(Network::Secondary),
            _ => None,
        };
        config.nodes.values().find_map(of)
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

/// Which network comes first. It is forgotten with the daemon, but for what the file of a server that runs says.
#[derive(Debug, Default)]
pub struct Networks {
    secondary_first: AtomicBool,
}

impl Networks {
    pub fn first(&self) -> Network {
        if self.secondary_first.load(Ordering::Relaxed) { Network::Secondary } else { Network::Primary }
    }

    /// From here on connections begin with this one. Whether that is new.
    pub fn prefer(&self, network: Network) -> bool {
        let secondary = network == Network::Secondary;
        self.secondary_first.swap(secondary, Ordering::Relaxed) != secondary
    }

    /// The same upstream, with its addresses in the order in which they are tried.
    pub fn ordered(&self, config: &Config, upstream: &Upstream) -> Upstream {
        let (first, mut ordered) = (self.first(), upstream.clone());
        ordered.addresses.sort_by_key(|address| Network::of(config, *address) != Some(first));
        ordered
    }
}
