//! Everything that can wake the daemon's loop, in one closed list.

use crate::api::admin::{Request, Response};
use crate::config::{Config, Written};
use crate::node;
use crate::types::{AgentName, AgentRun, Leaving, NodeName, ServiceName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// One reason to wake up.
pub enum Wakeup {
    /// For the node itself.
    Node(node::Event),
    /// An operator on this host.
    Operator(Request, mpsc::Sender<Response>),
    /// What became of an operator's command.
    Told { number: u64, result: Submitted },
    /// A device's `monitor` ended.
    Monitored { agent: AgentName, target: NodeName, run: AgentRun },
    /// A reload ended: what counts from here on, where anything was taken.
    Reloaded { taken: Option<(Arc<Config>, Written)> },
    /// Once a second: systemd is told that the loop still turns.
    Pulse,
    /// The process is to end, and is back soon; the database goes on.
    Terminate,
    /// The process is to end, and this node leaves in order before.
    Leave(Leaving),
}

/// What became of an operator's command. `Err`: it did not reach the leader (who that is, if known), or nobody knows.
pub type Submitted = Result<crate::ledger::Answer, Option<NodeName>>;

/// What travels between daemons besides Raft.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Node(node::PeerRequest),
    /// An operator's request, passed on to the leader, with who asked.
    Operator {
        request: Request,
        who: String,
    },
    /// What a planned move would meet on the database there.
    Survey {
        service: ServiceName,
    },
}

/// Where a peer's call is answered.
pub type CallReply = oneshot::Sender<Vec<u8>>;
