//! What consensus tells the daemon: one ordered stream of applied entries and of leadership. Not here: any decision.

use crate::ledger::{Answer, Entry, State};
use crate::types::{LogIndex, NodeName, Term};
use std::sync::Arc;

/// One thing that happened. Events are never dropped or merged, and stand in the order in which they happened here.
#[derive(Clone, Debug)]
pub enum Event {
    /// A committed proposal was applied. Sent before its proposer gets the answer.
    Applied(Applied),
    /// The applied index moved without a proposal: a leader's first entry, a membership, or a snapshot.
    Advanced(Advanced),
    /// Who leads.
    Leadership(Leadership),
}

/// One applied proposal.
#[derive(Clone, Debug)]
pub struct Applied {
    pub index: LogIndex,
    pub term: Term,
    pub entry: Arc<Entry>,
    pub answer: Arc<Answer>,
    /// The ledger right after it.
    pub state: Arc<State>,
    /// From this node's own log as it was at the start: it may have been applied here before, and whatever this node did
    /// in it concerned an earlier daemon.
    pub replay: bool,
}

/// The applied index moved without a proposal.
#[derive(Clone, Debug)]
pub struct Advanced {
    pub index: LogIndex,
    pub term: Term,
    pub state: Arc<State>,
    /// The whole state was replaced by a snapshot: entries up to `index` were not applied one by one.
    pub snapshot: bool,
    pub replay: bool,
}

/// Who leads, as this node knows it. Each term that this node votes in or hears of is told, even one without a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub term: Term,
    /// Elected by a quorum in `term`; `None` while that is open.
    pub leader: Option<NodeName>,
    pub i_lead: bool,
    /// This node leads and a quorum has answered it within the longest election timeout. Until then it accepts no
    /// proposals. No authority for anything else: that is a quorum read.
    pub quorum_acked: bool,
}
