//! The heartbeat as a value. How it is written into a datagram or a disk slot is `channel::wire`.

use super::{
    Boot, ClusterId, CopyHealth, DbState, Epoch, FileFault, Goodbye, Incarnation, Leaving, Network, NodeName, PeerView,
    Position, ReplayLag, ServiceName, Timeline, Trouble, Unfit,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One heartbeat. The outer fields never change between versions; an unknown body is still a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub cluster: ClusterId,
    pub node: NodeName,
    pub boot: Boot,
    pub incarnation: Incarnation,
    /// Grows by one with every heartbeat of an incarnation, over all channels together.
    pub sequence: u64,
    /// `None` when the body is of a version that this program does not know.
    pub body: Option<HeartbeatBody>,
}

/// What rides along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatBody {
    /// The sender's view of each of its peers: everybody sees everybody's matrix. Shared, like its health: most
    /// heartbeats say what the one before said.
    #[serde(with = "super::shared")]
    pub views: Arc<BTreeMap<NodeName, PeerView>>,
    #[serde(with = "super::shared")]
    pub health: Arc<Health>,
    /// The newest heartbeat that the sender had from each peer, on any channel: a receiver that has just started learns
    /// from it which recordings are old.
    #[serde(default)]
    pub heard: BTreeMap<NodeName, (Incarnation, u64)>,
    /// Set in the last heartbeats before a planned restart of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<Goodbye>,
}

/// The sender's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub services: BTreeMap<ServiceName, ServiceHealth>,
    /// The watchdog is armed.
    pub watchdog_armed: bool,
    /// The slowest recent durable write of the Raft log.
    pub log_write: Duration,
    /// The sender doubts itself (S10): its loop ran late or its disk stalls.
    pub self_doubt: bool,
    /// Whom its Raft takes for the leader, from which it has heard lately: itself, another, or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<NodeName>,
    /// A hash of the sender's configuration file without its `node` line: differing files are reported.
    pub config_hash: u64,
    /// The sender leaves in order: it takes nothing over any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// What the sender tries again and again because it failed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failing: BTreeSet<Failing>,
    /// The furthest that the sender heard, or was told, of the end of WAL of each service's primary, itself left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<ServiceName, HeardEnd>,
    /// The services that are paused, as the sender's copy of the ledger has it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub paused: BTreeSet<ServiceName>,
    /// The leader's: what needs a person, and cannot be read from the ledger.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub alarms: BTreeSet<Alarm>,
}

/// What was heard of where a primary's WAL ends. It is remembered when the primary is gone: how much a candidate lacks is
/// counted from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardEnd {
    /// The epoch in which it wrote that.
    pub epoch: Epoch,
    pub end: Position,
    /// For how long it was heard after that and said nothing of its WAL.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub silent_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Something that only the leader knows, and that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// The holder of this epoch is not dead and does not renew its lease.
    Lapsed { service: ServiceName, epoch: Epoch },
    /// The epoch is over, or its holder is fenced, and nobody can be appointed.
    NoCandidate { service: ServiceName },
    /// Its last primary left in order, and nobody else has all of it.
    Left { service: ServiceName },
    /// This boot sends heartbeats, and another one asks to join under the same name.
    TwoMachines { node: NodeName, boot: Boot, other: Boot },
}

/// Something that a daemon must do for safety and cannot do at present, or soon. Why is in its own log and `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// The final word on an epoch cannot be made durable, so it is not said.
    FinalWord,
    /// How far the lease reaches cannot be kept for the guard.
    LeaseFile,
    /// The watchdog cannot be armed: no lease is asked for.
    WatchdogArm,
    /// The watchdog is armed and cannot be fed: it will reset the host.
    WatchdogFeed,
    /// The volume of its ledger has little room left.
    LedgerLow,
    /// It has none to speak of.
    LedgerFull,
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Failing::FinalWord => "its final word on an epoch cannot be written (is the volume of data_dir full?)",
            Failing::LeaseFile => "its lease cannot be kept for the guard (is the volume of run_dir full?)",
            Failing::WatchdogArm => "its watchdog cannot be armed",
            Failing::WatchdogFeed => "its watchdog cannot be fed and will reset it",
            Failing::LedgerLow => "the volume of its ledger (data_dir) has little room left",
            Failing::LedgerFull => "the volume of its ledger (data_dir) is full",
        })
    }
}

/// The sender's database of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    pub state: DbState,
    /// The epoch under which it may write right now (a lease is held), if any.
    pub holds: Option<Epoch>,
    /// It took a write within its last probe.
    #[serde(default)]
    pub writable: bool,
    pub timeline: Timeline,
    /// Primary: end of flushed WAL. Standby: end of received and flushed WAL.
    pub position: Position,
    /// The node from which it streams.
    pub streams_from: Option<NodeName>,
    /// Said once it is final: this node never writes again under that epoch.
    /// Over which network that is, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    pub released: Option<Released>,
    /// The rewind or copy that is to make it a standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyHealth>,
    /// Standby: what is left to replay; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayLag>,
    /// Local trouble, in brief.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// A line of its files that PostgreSQL does not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_fault: Option<FileFault>,
    /// What its next start changes: parameters, and PostgreSQL itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
    /// Of that, what standbys must have as high as the primary, and becomes lower.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<String>,
    /// What it lacks to serve as primary, one of a kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<Unfit>,
}

impl Health {
    /// Whether the two say the same but for what moves all the time and nobody waits for: where each log ends, how far
    /// replay and a copy are, and how long the last write took. Whoever decides by these reads them when it decides.
    pub fn is_alike(&self, other: &Health) -> bool {
        let (a, b) = (&self.services, &other.services);
        (self.watchdog_armed, self.self_doubt, self.config_hash)
            == (other.watchdog_armed, other.self_doubt, other.config_hash)
            && self.failing == other.failing
            && self.follows == other.follows
            && self.leaving == other.leaving
            && self.paused == other.paused
            && self.alarms == other.alarms
            && a.len() == b.len()
            && a.iter().zip(b).all(|((m, v), (n, w))| m == n && v.is_alike(w))
    }
}

impl ServiceHealth {
    /// The same but for where its log ends and how far its replay and its copy are.
    pub fn is_alike(&self, other: &ServiceHealth) -> bool {
        (self.state, self.holds, self.writable, self.timeline, &self.released)
            == (other.state, other.holds, other.writable, other.timeline, &other.released)
            && self.streams_from == other.streams_from
            && (&self.file_fault, &self.pending_restart) == (&other.file_fault, &other.pending_restart)
            && self.lowered == other.lowered
            && self.trouble == other.trouble
            && self.unfit == other.unfit
            && match (&self.copy, &other.copy) {
                (Some(one), Some(another)) => one.is_alike(another),
                (one, another) => one.is_none() && another.is_none(),
            }
    }
}

/// The holder's final word on an epoch: nothing that could commit is left, and a durable tombstone says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub epoch: Epoch,
    /// End of WAL, when it is known.
    pub position: Option<Position>,
    /// It could not renew its lease, and nothing else: its database can go on where it is reached again.
    #[serde(default)]
    pub lapsed: bool,
    /// Its node leaves in order, and is back some day with all that it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The reason, in a sentence of at most [`Released::LONGEST`] bytes; empty where an earlier version said it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Released {
    /// A heartbeat has little room.
    pub const LONGEST: usize = 120;
}
