//! What this node answers to its peers, and the course of its start: ask, found or join, wait, run. Not here: the
//! interface for the daemon (`mod.rs`).

#![expect(
    clippy::disallowed_methods,
    reason = "waits that a sleep of the host only makes longer, which is the safe side"
)]

use super::calls::Calls;
use super::event::Event;
use super::founding::{self, Founding};
use super::leaders::Leaders;
use super::machine::Machine;
use super::options::Options;
use super::raft::{CommittedLeaderId, Types};
use super::store::stamp::DataDir;
use super::store::{Store, StoreError};
use super::transport::network::{self, Network};
use super::transport::peer::Peer;
use super::transport::proto::{CallRequest, HelloReply, RaftRequest};
use super::transport::refusals::Refusals;
use super::transport::{Identity, server};
use crate::types::{NodeId, NodeName, Term};
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, Raft};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// A blank node asks its peers this often.
const ASK: Duration = Duration::from_millis(200);

pub(super) type RaftNode = Raft<Types, Machine<Types>>;

/// The running parts of this node.
pub(super) struct Node {
    pub options: Options,
    pub id: NodeId,
    pub me: Identity,
    pub peers: Arc<BTreeMap<u64, Arc<Peer>>>,
    pub refusals: Arc<Refusals>,
    pub leaders: Arc<Leaders>,
    pub store: Store<Types>,
    pub calls: Calls,
    pub events: mpsc::UnboundedSender<Event>,
    pub data_dir: Mutex<DataDir>,
    /// Set once Raft runs.
    pub raft: OnceLock<RaftNode>,
    /// What is waited for, by subject.
    pub waiting: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Node {
    /// From blank or stored state to a running Raft.
    pub async fn start(self: Arc<Self>) {
        let mut initialise = false;
        if self.store.image().is_blank() {
            initialise = self.found().await;
        } else {
            // Before a restart this node may have promised a leader its lease, and has forgotten it: nobody may get its
            // vote until that lease has surely ended.
            self.wait_for("start", vec!["waiting out the lease that a leader may still hold from before".into()]);
            tokio::time::sleep(self.options.timing.election_max).await;
        }
        match self.run(initialise).await {
            Ok(()) => self.wait_for("start", Vec::new()),
            Err(reason) => {
                tracing::error!(reason, "consensus does not run");
                self.wait_for("start", vec![reason]);
            }
        }
    }

    pub fn wait_for(&self, subject: &str, reasons: Vec<String>) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(subject) != Some(&reasons) {
            reasons.iter().for_each(|reason| tracing::info!(reason, "waiting"));
        }
        match reasons.is_empty() {
            true => drop(waiting.remove(subject)),
            false => drop(waiting.insert(subject.to_owned(), reasons)),
        }
    }

    /// Asks until the founding is settled. Answers whether this node is to initialise the cluster.
    async fn found(&self) -> bool {
        let peers: Vec<_> = self.peers.values().cloned().collect();
        let voters = self.voters();
        loop {
            let answers = founding::ask_all(&peers).await;
            match founding::decide(&self.me.node, &self.me.founder, &voters, &answers) {
                Founding::Join => return false,
                Founding::Found { founders, lead } => match lock(&self.data_dir).record_founders(founders) {
                    Ok(()) => return lead,
                    Err(error) => self.wait_for("start", vec![describe(&error)]),
                },
                Founding::Wait(reasons) => self.wait_for("start", reasons),
            }
            tokio::time::sleep(ASK).await;
        }
    }

    fn voters(&self) -> Vec<String> {
        self.options.nodes.keys().map(ToString::to_string).collect()
    }

    async fn run(&self, initialise: bool) -> Result<(), String> {
        let config = self.options.raft_config().validate().map_err(|e| format!("Raft's timing is refused: {e}"))?;
        let timing = &self.options.timing;
        let network = Network {
            peers: self.peers.clone(),
            kept: Arc::default(),
            refusals: self.refusals.clone(),
            patience: timing.election_max,
            backoff: timing.heartbeat,
        };
        let mut store = self.store.clone();
        store.announce_votes(self.leaders.clone());
        let starting = Arc::new(AtomicBool::new(true));
        let machine = Machine::new(self.store.clone(), self.events.clone(), starting.clone());
        let raft = RaftNode::build(self.id.0, Arc::new(config), network, store, machine).await;
        let raft = raft.map_err(|e| format!("the stored log cannot be used: {e}"))?;
        let configured: BTreeSet<u64> = self.options.voters().keys().map(|id| id.0).collect();
        let stored: BTreeSet<u64> = raft.voter_ids().collect();
        if !stored.is_empty() && stored != configured {
            return Err(format!(
                "the log says that the voters are numbers {stored:?}, the file lists {configured:?}: put the nodes back"
            ));
        }
        starting.store(false, Ordering::Release);
        raft.run();
        tokio::spawn(watch_quorum(raft.clone(), self.leaders.clone(), timing.election_max));
        if initialise && let Err(error) = raft.initialize(configured).await {
            return Err(format!("the cluster cannot be initialised: {error}"));
        }
        // Only now does this node answer Raft messages.
        if self.raft.set(raft).is_err() {
            return Err("Raft was started twice".into());
        }
        Ok(())
    }
}

/// The error with its causes, on one line.
pub(super) fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Follows openraft's metrics: does a quorum answer this leader?
async fn watch_quorum(raft: RaftNode, leaders: Arc<Leaders>, lease: Duration) {
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
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(rest.unwrap_or(lease)) => {}
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic aborts the process")
}

impl server::Service for Node {
    fn hello(&self) -> HelloReply {
        let founders = lock(&self.data_dir).founders().clone();
        HelloReply {
            cluster: self.me.cluster.0.clone(),
            node: self.me.node.to_string(),
            id: self.id.0,
            blank: self.store.image_is_blank(),
            founder: self.me.founder.clone(),
            founders: founders.into_iter().map(|(name, mark)| (name.to_string(), mark)).collect(),
            voters: self.voters(),
            config_hash: self.options.config_hash,
        }
    }

    fn raft(&self, from: NodeName, request: RaftRequest) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        async move {
            let Some(raft) = self.raft.get() else {
                return Err(format!("{} is not voting yet", self.me.node));
            };
            let voters = self.options.voters();
            let id = voters.iter().find(|(_, name)| **name == from).map(|(id, _)| id.0);
            network::handle(raft, id.ok_or("not a voter")?, request).await
        }
        .boxed()
    }

    fn call(&self, from: NodeName, request: CallRequest) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        self.calls.take(from, request.id, request.body).boxed()
    }

    fn seen(&self, from: &NodeName) {
        if let Some(peer) = self.peers.values().find(|peer| peer.name == *from) {
            peer.wake();
        }
    }

    fn founder_of(&self, node: &NodeName) -> Option<String> {
        lock(&self.data_dir).founders().get(node).cloned()
    }

    fn listening(&self, address: SocketAddr, error: Option<String>) {
        let reasons = error.map(|error| format!("cannot listen on {address}: {error}"));
        self.wait_for(&format!("listen {address}"), reasons.into_iter().collect());
    }
}

/// The term of a log position.
pub(super) fn term_of(leader: &CommittedLeaderId) -> Term {
    Term(**leader)
}
