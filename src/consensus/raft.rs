//! What openraft is told about regent's types: one set, declared once for tokio and once (in tests) for openraft's
//! deterministic runtime, so that the same store and state machine run under both.
//!
//! Not here: any behaviour. Peers' addresses are not part of the membership either: they come from the configuration, so
//! that an address can never be changed behind Raft's back (`SetNodes` can split a cluster).

use crate::ledger::format::Format;
use crate::ledger::{Answer, Command, Entry};
use crate::types::WallTime;
use openraft::vote::RaftLeaderId;
use openraft::{EmptyNode, EntryPayload, RaftTypeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// One leader a term, so that a term can be a fencing epoch (the default mode of openraft allows several).
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
/// The part of a leader id that log entries carry: the term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// A vote: for whom, in which term, and whether a quorum granted it.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// Term and index of one log entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// What a log entry holds: a proposal, a membership, or nothing.
pub type Payload = EntryPayload<Proposal, u64, EmptyNode>;
/// One entry of the Raft log.
pub type LogEntry = openraft::Entry<CommittedLeaderId, Payload>;
/// The membership, with the entry that set it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, EmptyNode>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, EmptyNode>;
/// A snapshot: what it covers, and the encoded ledger.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, EmptyNode, Vec<u8>>;

/// A ledger entry on its way through the log. Shared, because the log, the state machine and the events all hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal(pub Arc<Entry>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.command.fmt(f)
    }
}

/// How an entry is written, in the log and to peers: its format comes first, so that what a newer version wrote is
/// refused before the rest is read.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    at: WallTime,
    command: &'a Command,
}

/// The same, read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(default, rename = "format")]
    _format: Format,
    at: WallTime,
    command: Command,
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Entry { at, command } = self.0.as_ref();
        Written { format: command.format(), at: *at, command }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { at, command, .. } = Read::deserialize(deserializer)?;
        Ok(Proposal(Arc::new(Entry { at, command })))
    }
}

/// What the state machine hands back to the proposer; `None` for entries that hold no proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome(pub Option<Arc<Answer>>);

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<Answer>::deserialize(deserializer).map(|answer| Outcome(answer.map(Arc::new)))
    }
}

/// The types above, under any runtime.
pub trait LedgerTypes:
    RaftTypeConfig<
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = EmptyNode,
        Term = u64,
        LeaderId = LeaderId,
        Vote = Vote,
        Payload = Payload,
        Entry = LogEntry,
    >
{
}

macro_rules! ledger_types {
    ($(#[$meta:meta])* $name:ident, $runtime:ty) => {
        openraft::declare_raft_types!(
            $(#[$meta])*
            pub $name:
                D = Proposal,
                R = Outcome,
                NodeId = u64,
                Node = EmptyNode,
                LeaderId = LeaderId,
                AsyncRuntime = $runtime,
        );
        impl LedgerTypes for $name {}
    };
}

ledger_types!(
    /// On tokio: what the daemon runs.
    Types,
    openraft::impls::TokioRuntime
);

#[cfg(test)]
ledger_types!(
    /// On openraft's deterministic runtime: one thread, virtual time, one seed.
    SimTypes,
    openraft_rt_sim::SimRuntime
);
