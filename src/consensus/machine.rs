//! openraft's state machine over the ledger: it applies, publishes, and makes snapshots. What an entry means is
//! `crate::ledger`.
//!
//! The state lives in memory; on disk are the log and the last snapshot, and a start replays what is between.

use super::event::{Advanced, Applied, Event};
use super::raft::{LedgerTypes, LogId, Outcome, Payload, Snapshot, SnapshotMeta, StoredMembership};
use super::snapshot;
use super::store::Store;
use crate::ledger::{self, State};
use crate::types::{LogIndex, NodeId, Term};
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{Membership, OptionalSend};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The replicated ledger of this node.
pub struct Machine<C> {
    store: Store<C>,
    state: Arc<State>,
    applied: Option<LogId>,
    membership: StoredMembership,
    events: mpsc::UnboundedSender<Event>,
    /// What is applied up to here was on this node's own disk when it started. The mark of what is committed lags, so
    /// some of it is applied only after a leader has named the commit index again: it is no news all the same.
    stored: Option<u64>,
}

impl<C: LedgerTypes> Machine<C> {
    /// An empty ledger; openraft restores the snapshot of `store` and replays the log while it is built.
    pub fn new(store: Store<C>, events: mpsc::UnboundedSender<Event>) -> Self {
        let stored = store.last_index();
        let membership = StoredMembership::default();
        Machine { store, state: Arc::default(), applied: None, membership, events, stored }
    }

    fn publish(&self, event: Event) {
        // Nobody listens any more during a shutdown.
        let _ = self.events.send(event);
    }

    fn apply_one(&mut self, log_id: LogId, payload: Payload) -> Outcome {
        let (index, term) = position(&log_id);
        let replay = self.stored >= Some(index.0);
        self.applied = Some(log_id);
        let mut outcome = Outcome(None);
        let event = match payload {
            Payload::Normal(proposal) => {
                // Copy on write: whoever holds the state of an earlier event keeps it unchanged.
                let answer = ledger::apply(Arc::make_mut(&mut self.state), index, term, &proposal.0);
                let answer = Arc::new(answer);
                outcome = Outcome(Some(answer.clone()));
                Event::Applied(Applied { index, term, entry: proposal.0, answer, state: self.state.clone(), replay })
            }
            Payload::Blank => self.advanced(index, term, replay),
            Payload::Membership(membership) => {
                self.set_voters(index, &membership);
                self.membership = StoredMembership::new(Some(log_id), membership);
                self.advanced(index, term, replay)
            }
        };
        self.publish(event);
        outcome
    }

    fn advanced(&self, index: LogIndex, term: Term, replay: bool) -> Event {
        Event::Advanced(Advanced { index, term, state: self.state.clone(), snapshot: false, replay })
    }

    fn set_voters(&mut self, index: LogIndex, membership: &Membership<u64, openraft::EmptyNode>) {
        let halves = membership.get_joint_config();
        let voters = halves.iter().map(|half| half.iter().copied().map(NodeId).collect()).collect();
        ledger::set_voters(Arc::make_mut(&mut self.state), index, voters);
    }
}

fn position(log_id: &LogId) -> (LogIndex, Term) {
    (LogIndex(log_id.index), Term(*log_id.leader_id))
}

impl<C: LedgerTypes> RaftStateMachine<C> for Machine<C> {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder<C>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let (log_id, payload) = (entry.log_id(), entry.payload);
            let outcome = self.apply_one(log_id, payload);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<C> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder { store: self.store.clone(), state: self.state.clone(), meta }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let state = snapshot::decode(&snapshot).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // On disk before it is in use: entries that it covers may be removed right after.
        self.store.save_snapshot(meta, &snapshot).await?;
        self.state = Arc::new(state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        if let Some(log_id) = &meta.last_log_id {
            let (index, term) = position(log_id);
            let replay = self.stored >= Some(index.0);
            self.publish(Event::Advanced(Advanced { index, term, state: self.state.clone(), snapshot: true, replay }));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.store.snapshot())
    }
}

/// Makes one snapshot of the state at the moment it was asked for, while the machine goes on.
pub struct Builder<C> {
    store: Store<C>,
    state: Arc<State>,
    meta: SnapshotMeta,
}

impl<C: LedgerTypes> RaftSnapshotBuilder<C> for Builder<C> {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let data = snapshot::encode(&self.state);
        self.store.save_snapshot(&self.meta, &data).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
