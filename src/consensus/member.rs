//! One member of the Raft group, under any runtime: store, state machine and openraft put together, and what may be
//! asked of them. The daemon runs it on tokio, the simulation (`tests/raft_sim`) on openraft's deterministic runtime.
//!
//! Not here: how messages travel (`transport/`), whose directory it is and how a cluster is founded (`node.rs`).

use super::event::Event;
use super::leaders::Leaders;
use super::machine::Machine;
use super::options::Options;
use super::raft::{CommittedLeaderId, LedgerTypes, Proposal};
use super::store::{Backend, Store, StoreError};
use super::transport::network::{self, Line, MessageError, Network};
use super::transport::proto::{RaftKind, RaftRequest};
use super::transport::refusals::Refusals;
use super::{ProposeError, Proposed, ReadError, TransferError};
use crate::ledger::Entry;
use crate::types::{LogIndex, NodeId, NodeName, Span, Term};
use futures::FutureExt;
use openraft::alias::InstantOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::async_runtime::{AsyncRuntime, Instant};
use openraft::error::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// One member.
pub struct Member<C: LedgerTypes> {
    id: NodeId,
    options: Options,
    store: Store<C>,
    leaders: Arc<Leaders>,
    refusals: Arc<Refusals>,
    events: mpsc::UnboundedSender<Event>,
    /// Set once Raft runs.
    raft: OnceLock<Raft<C, Machine<C>>>,
    /// Whether nothing stands any more that this member may have promised before its start.
    votes: AtomicBool,
}

impl<C: LedgerTypes> Member<C> {
    /// Reads what is stored. `options` lists this node.
    pub fn open(
        options: Options,
        backend: Arc<dyn Backend>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, StoreError> {
        let mut store = Store::open(backend)?;
        let voters = options.voters();
        let id = voters.iter().find(|(_, name)| **name == options.me).map(|(id, _)| *id);
        let id = id.expect("whoever starts a node has looked for it in its list of nodes");
        let leaders = Arc::new(Leaders::new(id, voters, events.clone(), store.image().vote));
        store.announce_votes(leaders.clone());
        let (refusals, raft, votes) = (Arc::default(), OnceLock::new(), AtomicBool::new(false));
        Ok(Member { id, options, store, leaders, refusals, events, raft, votes })
    }

    /// Runs Raft: this member takes in what a leader sends at once, and votes when this returns without an error.
    /// `initialise`: make the cluster.
    ///
    /// Before a restart it may have promised a leader its lease, and has forgotten it: nobody gets its vote, nor does it ask
    /// for one, until that lease has surely ended. What a leader sends needs no promise of it: that one was elected by others.
    pub async fn start(&self, lines: BTreeMap<NodeId, Arc<dyn Line>>, initialise: bool) -> Result<(), String> {
        let timing = &self.options.timing;
        let was_blank = self.is_blank();
        let config = self.options.raft_config().validate().map_err(|e| format!("Raft's timing is refused: {e}"))?;
        let network = Network {
            lines: lines.into_iter().map(|(id, line)| (id.0, line)).collect(),
            kept: Arc::default(),
            refusals: self.refusals.clone(),
            patience: timing.election_max,
            backoff: timing.heartbeat,
        };
        let machine = Machine::new(self.store.clone(), self.events.clone());
        let raft = Raft::build(self.id.0, Arc::new(config), network, self.store.clone(), machine).await;
        let raft = raft.map_err(|e| format!("the stored log cannot be used: {e}"))?;
        let configured: BTreeSet<u64> = self.options.voters().keys().map(|id| id.0).collect();
        let stored: BTreeSet<u64> = raft.voter_ids().collect();
        if !stored.is_empty() && stored != configured {
            return Err(format!(
                "the log says that the voters are numbers {}, the file lists {}: put the nodes back",
                list(&stored),
                list(&configured)
            ));
        }
        raft.runtime_config().elect(was_blank);
        raft.run();
        drop(C::AsyncRuntime::spawn(watch_quorum(raft.clone(), self.leaders.clone(), timing.election_max)));
        if initialise && let Err(error) = raft.initialize(configured).await {
            return Err(format!("the cluster cannot be initialised: {error}"));
        }
        // Only now does this member answer Raft messages.
        self.raft.set(raft.clone()).map_err(|_| "Raft was started twice".to_owned())?;
        if !was_blank {
            C::AsyncRuntime::sleep(timing.election_max).await;
        }
        self.votes.store(true, Ordering::Release);
        raft.runtime_config().elect(true);
        Ok(())
    }

    /// A Raft message from another member whose identity was checked. One that a newer version wrote is refused, and
    /// noted for `status`.
    pub async fn handle(&self, from: &NodeName, request: RaftRequest) -> Result<Vec<u8>, String> {
        let takes_in = matches!(request.kind(), RaftKind::Append | RaftKind::Snapshot);
        let votes = self.votes.load(Ordering::Acquire);
        let Some(raft) = self.raft.get().filter(|_| takes_in || votes) else {
            return Err(format!("{} is not voting yet", self.options.me));
        };
        let voters = self.options.voters();
        let id = voters.iter().find(|(_, name)| *name == from).map(|(id, _)| id.0);
        let id = id.ok_or("not a voter")?;
        let appends = request.kind() == RaftKind::Append;
        let answer = match network::handle(raft, id, request).await {
            Ok(answer) => answer,
            Err(error) => {
                if let MessageError::Newer(_) = error {
                    let address = self.options.nodes[from].primary.ip();
                    self.refusals.note(from.as_str(), address, &error.to_string());
                }
                return Err(error.to_string());
            }
        };
        if appends && self.leaders.current().leader.is_none() {
            let metrics = raft.metrics();
            let (term, leader) = {
                let now = metrics.borrow_watched();
                (Term(now.current_term), now.current_leader)
            };
            if leader == Some(id) {
                self.leaders.heard(term, NodeId(id));
            }
        }
        Ok(answer)
    }

    /// Puts an entry into the log and waits until it is applied here. A leader that no quorum has answered yet is waited
    /// for, within the deadline.
    pub async fn propose(&self, entry: Entry, deadline: Duration) -> Result<Proposed, ProposeError> {
        let end = InstantOf::<C>::now() + deadline;
        let proposal = Proposal(Arc::new(entry));
        loop {
            let changed = self.leaders.changed();
            let Some(raft) = self.raft.get() else {
                return Err(ProposeError::NotLeader { leader: None });
            };
            let written = C::AsyncRuntime::timeout_at(end, raft.client_write(proposal.clone())).await;
            match written {
                Err(_) => return Err(ProposeError::Unknown(format!("no answer within {}", Span(deadline)))),
                Ok(Ok(response)) => {
                    let (index, term) = (LogIndex(response.log_id.index), term_of(&response.log_id.leader_id));
                    let answer = response.data.0.expect("the machine answers every proposal");
                    return Ok(Proposed { index, term, answer });
                }
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                    let now = self.leaders.current();
                    let fresh = now.i_lead && !now.quorum_acked;
                    // Refused before it was appended, so it can be tried again without harm.
                    if !fresh || C::AsyncRuntime::timeout_at(end, changed).await.is_err() {
                        let leader = forward.leader_id.and_then(|id| self.leaders.name_of(id));
                        return Err(ProposeError::NotLeader { leader });
                    }
                }
                Ok(Err(other)) => return Err(ProposeError::Unknown(other.to_string())),
            }
        }
    }

    /// See [`super::Consensus::quorum_read`].
    pub async fn quorum_read(&self, deadline: Duration) -> Result<LogIndex, ReadError> {
        let Some(raft) = self.raft.get() else {
            return Err(ReadError::NotLeader { leader: None });
        };
        match C::AsyncRuntime::timeout(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Err(_) => Err(ReadError::TimedOut(deadline)),
            Ok(Ok(read)) => Ok(LogIndex(read.index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ReadError::NotLeader { leader: forward.leader_id.and_then(|id| self.leaders.name_of(id)) })
            }
            Ok(Err(other)) => Err(ReadError::Failed(other.to_string())),
        }
    }

    /// See [`super::Consensus::transfer_leadership`].
    pub async fn transfer_leadership(&self, to: &NodeName, deadline: Duration) -> Result<(), TransferError> {
        let voters = self.options.voters();
        let target = voters.iter().find(|(id, name)| *name == to && **id != self.id).map(|(id, _)| id.0);
        let target = target.ok_or_else(|| TransferError::NotAVoter(to.clone()))?;
        let raft = match self.raft.get() {
            Some(raft) if self.leaders.current().i_lead => raft,
            _ => return Err(TransferError::NotLeader),
        };
        let end = InstantOf::<C>::now() + deadline;
        raft.trigger().transfer_leader(target).await.map_err(|e| TransferError::Failed(e.to_string()))?;
        loop {
            let changed = self.leaders.changed();
            if self.leaders.current().leader.as_ref() == Some(to) {
                return Ok(());
            }
            if C::AsyncRuntime::timeout_at(end, changed).await.is_err() {
                return Err(TransferError::TimedOut { to: to.clone(), after: deadline });
            }
        }
    }

    /// Stops Raft, where it runs. The store stays open.
    pub async fn shutdown(&self) {
        if let Some(raft) = self.raft.get()
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(%error, "Raft did not stop in order");
        }
    }

    /// Nothing was ever voted or logged here.
    pub fn is_blank(&self) -> bool {
        self.store.image_is_blank()
    }

    /// This member's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    pub(super) fn store(&self) -> &Store<C> {
        &self.store
    }

    pub(super) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }
}

/// The term of a log position.
fn term_of(leader: &CommittedLeaderId) -> Term {
    Term(**leader)
}

/// Follows openraft's metrics: does a quorum answer this leader?
async fn watch_quorum<C: LedgerTypes>(raft: Raft<C, Machine<C>>, leaders: Arc<Leaders>, lease: Duration) {
    let mut metrics = raft.metrics();
    drop(raft);
    loop {
        // Copied out at once: while it is borrowed, Raft stands still.
        let (term, acked) = {
            let now = metrics.borrow_watched();
            (Term(now.current_term), now.last_quorum_acked.as_ref().map(|at| at.elapsed()))
        };
        let rest = acked.and_then(|ago| lease.checked_sub(ago)).filter(|rest| !rest.is_zero());
        leaders.acked(term, rest.is_some());
        let pause = C::AsyncRuntime::sleep(rest.unwrap_or(lease));
        // In a fixed order: under the deterministic runtime nothing may hang on tokio's dice.
        futures::select_biased! {
            changed = metrics.changed().fuse() => if changed.is_err() { return },
            () = pause.fuse() => {}
        }
    }
}
fn list(numbers: &BTreeSet<u64>) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(", ")
}
