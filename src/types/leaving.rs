//! That a node leaves in order: for which reason it hands over what it holds and stops its databases.
//!
//! Not here: what is done for it (`plan/keeper/leave.rs`, `node/leave.rs`). A restart of the daemon is no such thing: its
//! database goes on under its lease.

use derive_more::Display;
use serde::{Deserialize, Serialize};

/// Why it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// Its host goes on: what a person is at work on may go on too.
    #[display("its daemon was asked to stop")]
    DaemonStops,
    #[display("its host goes down")]
    HostGoesDown,
}
