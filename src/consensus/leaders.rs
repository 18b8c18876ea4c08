//! Who leads, told without gaps: each vote that is saved is an event, in order with the applied entries. openraft's own
//! metrics keep only the newest value, so a short term would go unseen there.

use super::event::{Event, Leadership};
use super::raft::Vote;
use crate::types::{NodeId, NodeName, Term};
use std::collections::BTreeMap;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, watch};

/// The present leadership, and its events.
pub struct Leaders {
    me: NodeId,
    names: BTreeMap<NodeId, NodeName>,
    events: mpsc::UnboundedSender<Event>,
    current: watch::Sender<Leadership>,
    /// Wakes in the order of waiting, which tokio's `watch` does not: a simulation must be repeatable.
    changes: Notify,
}

impl Leaders {
    /// Starts from the vote that is stored. Whoever led then may not lead now: nobody does, until a vote says so.
    pub fn new(
        me: NodeId,
        names: BTreeMap<NodeId, NodeName>,
        events: mpsc::UnboundedSender<Event>,
        stored: Option<Vote>,
    ) -> Self {
        let term = Term(stored.map_or(0, |vote| vote.leader_id().term));
        let current = Leadership { term, leader: None, i_lead: false, quorum_acked: false };
        Leaders { me, names, events, current: watch::Sender::new(current), changes: Notify::new() }
    }

    /// A vote was saved: this node follows, leads, or has voted in a term that is open.
    pub fn voted(&self, vote: &Vote) {
        let id = NodeId(vote.leader_id().voted_for);
        let elected = vote.is_committed();
        self.tell(Leadership {
            term: Term(vote.leader_id().term),
            leader: elected.then(|| self.names.get(&id).cloned()).flatten(),
            i_lead: elected && id == self.me,
            quorum_acked: false,
        });
    }

    /// The leader that was elected in `term` has sent something. Mostly its vote was told before; after a restart it is
    /// stored already and not saved again.
    pub fn heard(&self, term: Term, leader: NodeId) {
        let now = self.current.borrow().clone();
        if now.leader.is_none() && now.term == term && leader != self.me {
            self.tell(Leadership { leader: self.names.get(&leader).cloned(), ..now });
        }
    }

    /// A quorum answers this leader of `term`, or does not any more.
    pub fn acked(&self, term: Term, quorum_acked: bool) {
        let now = self.current.borrow().clone();
        if now.i_lead && now.term == term && now.quorum_acked != quorum_acked {
            self.tell(Leadership { quorum_acked, ..now });
        }
    }

    /// The present one.
    pub fn current(&self) -> Leadership {
        self.current.borrow().clone()
    }

    /// To wait for changes. May skip short ones: the events do not.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.current.subscribe()
    }

    /// Ends with the next change after this call.
    pub fn changed(&self) -> Notified<'_> {
        self.changes.notified()
    }

    /// The name of a voter.
    pub fn name_of(&self, id: u64) -> Option<NodeName> {
        self.names.get(&NodeId(id)).cloned()
    }

    fn tell(&self, leadership: Leadership) {
        let changed = self.current.send_if_modified(|current| {
            let changed = *current != leadership;
            current.clone_from(&leadership);
            changed
        });
        if changed {
            tracing::info!(
                term = leadership.term.0,
                leader = leadership.leader.as_ref().map(NodeName::as_str),
                acked = leadership.quorum_acked,
                "leadership"
            );
            // Nobody listens any more during a shutdown.
            let _ = self.events.send(Event::Leadership(leadership));
            self.changes.notify_waiters();
        }
    }
}
