//! Consensus: the replicated ledger on one node. openraft with a durable log, gRPC with mutual TLS over both networks, and
//! one ordered stream of what happened. The only module that imports openraft.
//!
//! Not here: what entries mean (`crate::ledger`) and every decision. Whether this node leads is no authority by itself;
//! a quorum read is.

mod calls;
pub mod certs;
pub mod event;
mod founding;
mod leaders;
mod machine;
mod node;
pub mod options;
mod raft;
#[cfg(test)]
mod sim_test;
mod store;
mod transport;

pub use calls::IncomingCall;
pub use event::{Advanced, Applied, Event, Leadership};
pub use options::{Options, Security};
pub use store::StoreError;
pub use transport::network::is_readable;
pub use transport::path::PathStatus;
pub use transport::peer::{CallError, PeerPaths};
pub use transport::refusals::Refusal;
pub use transport::tls::TlsError;
pub use transport::{Addresses, Network, proto};

use crate::ledger::{Answer, Entry};
use crate::types::{ClusterId, LogIndex, NodeId, NodeName, Term};
use node::{Node, lock};
use openraft::ReadPolicy;
use openraft::error::{ClientWriteError, LinearizableReadError, RaftError};
use raft::Proposal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use store::Store;
use store::durable::Durable;
use store::stamp::{DataDir, Owner};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use transport::dial::Dial;
use transport::path::Path;
use transport::peer::Peer;
use transport::refusals::Refusals;
use transport::server::{self, Gate};
use transport::{Credentials, Identity, tls};

/// Why consensus cannot start at all. What it merely waits for is [`Consensus::waiting`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the certificate of {node} cannot be used for dialling: {what}")]
    Dial { node: NodeName, what: String },
    #[error("node {0} is not in the list of nodes")]
    NotListed(NodeName),
}

/// Why a proposal got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not taken: it will never be applied. Ask the leader.
    #[error("this node does not lead{}", .leader.as_ref().map(|l| format!(", {l} does")).unwrap_or_default())]
    NotLeader { leader: Option<NodeName> },
    /// It may be applied, now or later, or never.
    #[error("nobody knows whether the proposal was applied ({0})")]
    Unknown(String),
}

/// Why a quorum read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<NodeName> },
    #[error("no quorum confirmed this leader within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Failed(String),
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("{0} is not another voter")]
    NotAVoter(NodeName),
    #[error("{to} did not take over within {after:?}")]
    TimedOut { to: NodeName, after: Duration },
    #[error("{0}")]
    Failed(String),
}

/// An applied proposal.
#[derive(Clone, Debug)]
pub struct Proposed {
    pub index: LogIndex,
    pub term: Term,
    pub answer: Arc<Answer>,
}

/// What comes out of consensus: take both, and keep reading them.
pub struct Streams {
    pub events: mpsc::UnboundedReceiver<Event>,
    pub calls: mpsc::Receiver<IncomingCall>,
}

/// The running consensus of this node.
pub struct Consensus {
    node: Arc<Node>,
    cluster: ClusterId,
    starting: JoinHandle<()>,
    server: JoinHandle<()>,
    stop_server: oneshot::Sender<()>,
}

impl Consensus {
    #[expect(
        clippy::disallowed_methods,
        reason = "a directory's mark is drawn: an I/O edge, nothing is replayed from it"
    )]
    /// Starts on the present tokio runtime, and returns at once: Raft may have to wait for peers ([`Self::waiting`]).
    pub async fn start(options: Options) -> Result<(Consensus, Streams), StartError> {
        let credentials = match &options.security {
            Security::Insecure => Credentials::Insecure { cluster: ClusterId(options.cluster.clone()) },
            Security::Tls(files) => Credentials::Tls(Arc::new(tls::Tls::load(files, &options.cluster, &options.me)?)),
        };
        let voters = options.voters();
        let id = voters.iter().find(|(_, name)| **name == options.me).map(|(id, _)| *id);
        let id = id.ok_or_else(|| StartError::NotListed(options.me.clone()))?;
        let owner = Owner { cluster: credentials.cluster().clone(), node: options.me.clone(), id };
        let data_dir = DataDir::open(&options.data_dir, &owner, format!("{:016x}", rand::random::<u64>()))?;
        let store = Store::open(Arc::new(Durable::open(&data_dir.log_file())?))?;
        let me = Identity { cluster: owner.cluster.clone(), node: owner.node, founder: data_dir.founder().to_owned() };

        let refusals = Arc::new(Refusals::default());
        let peers = Arc::new(start_peers(&options, &credentials, &me, &refusals));
        let (event_sender, events) = mpsc::unbounded_channel();
        let (call_sender, calls) = mpsc::channel(1024);
        let stored = store.image().vote;
        let node = Arc::new(Node {
            id,
            leaders: Arc::new(leaders::Leaders::new(id, voters, event_sender.clone(), stored)),
            me: me.clone(),
            peers,
            refusals: refusals.clone(),
            store,
            calls: calls::Calls::new(call_sender),
            events: event_sender,
            data_dir: Mutex::new(data_dir),
            raft: OnceLock::new(),
            waiting: Mutex::default(),
            options,
        });
        let gate = Arc::new(Gate {
            credentials,
            me,
            nodes: node.options.nodes.clone(),
            refusals,
            silence: silence(&node.options),
        });
        let (stop_server, stopped) = oneshot::channel();
        let server = tokio::spawn(server::serve(gate, node.clone(), stopped));
        let starting = tokio::spawn(node.clone().start());
        let consensus = Consensus { cluster: owner.cluster, node, starting, server, stop_server };
        Ok((consensus, Streams { events, calls }))
    }

    /// The cluster's id: from the certificate, or its name where it is insecure.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        self.node.id
    }

    #[expect(clippy::disallowed_methods, reason = "the time-out of one question: plain I/O")]
    /// Puts an entry into the log and waits until it is applied here. A leader that no quorum has answered yet is waited
    /// for, within the deadline.
    pub async fn propose(&self, entry: Entry, deadline: Duration) -> Result<Proposed, ProposeError> {
        let end = Instant::now() + deadline;
        let proposal = Proposal(Arc::new(entry));
        let mut leadership = self.node.leaders.watch();
        loop {
            let Some(raft) = self.node.raft.get() else {
                return Err(ProposeError::NotLeader { leader: None });
            };
            let written = tokio::time::timeout_at(end, raft.client_write(proposal.clone())).await;
            match written {
                Err(_) => return Err(ProposeError::Unknown(format!("no answer within {deadline:?}"))),
                Ok(Ok(response)) => {
                    let (index, term) = (LogIndex(response.log_id.index), node::term_of(&response.log_id.leader_id));
                    let answer = response.data.0.expect("the machine answers every proposal");
                    return Ok(Proposed { index, term, answer });
                }
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                    let now = leadership.borrow_and_update().clone();
                    let fresh = now.i_lead && !now.quorum_acked;
                    // Refused before it was appended, so it can be tried again without harm.
                    if !fresh || tokio::time::timeout_at(end, leadership.changed()).await.is_err() {
                        let leader = forward.leader_id.and_then(|id| self.node.leaders.name_of(id));
                        return Err(ProposeError::NotLeader { leader });
                    }
                }
                Ok(Err(other)) => return Err(ProposeError::Unknown(other.to_string())),
            }
        }
    }

    /// ReadIndex: a quorum confirms that this node leads, after the call; the answer comes when everything that was
    /// committed then is applied here (and its events are in the stream). Never answered from a lease.
    pub async fn quorum_read(&self, deadline: Duration) -> Result<LogIndex, ReadError> {
        let Some(raft) = self.node.raft.get() else {
            return Err(ReadError::NotLeader { leader: None });
        };
        match tokio::time::timeout(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Err(_) => Err(ReadError::TimedOut(deadline)),
            Ok(Ok(read)) => Ok(LogIndex(read.index())),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ReadError::NotLeader { leader: forward.leader_id.and_then(|id| self.node.leaders.name_of(id)) })
            }
            Ok(Err(other)) => Err(ReadError::Failed(other.to_string())),
        }
    }

    /// Hands leadership to `to`, and waits until it leads. The term changes as in any election, but no voter waits for
    /// the old leader's lease: whoever counts on leases must look at the term.
    pub async fn transfer_leadership(&self, to: &NodeName, deadline: Duration) -> Result<(), TransferError> {
        let voters = self.node.options.voters();
        let target = voters.iter().find(|(id, name)| *name == to && **id != self.node.id).map(|(id, _)| id.0);
        let target = target.ok_or_else(|| TransferError::NotAVoter(to.clone()))?;
        let mut leadership = self.node.leaders.watch();
        let raft = match self.node.raft.get() {
            Some(raft) if leadership.borrow().i_lead => raft,
            _ => return Err(TransferError::NotLeader),
        };
        raft.trigger().transfer_leader(target).await.map_err(|e| TransferError::Failed(e.to_string()))?;
        let taken = leadership.wait_for(|now| now.leader.as_ref() == Some(to));
        match tokio::time::timeout(deadline, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(TransferError::Failed("this node is shutting down".into())),
            Err(_) => Err(TransferError::TimedOut { to: to.clone(), after: deadline }),
        }
    }

    /// Who leads now. The events tell every change.
    pub fn leadership(&self) -> Leadership {
        self.node.leaders.current()
    }

    /// To wait for a leadership. Short terms may be skipped here; the events skip none.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leaders.watch()
    }

    /// Sends a message to a peer's daemon over whichever network works. It is handled at most once there.
    pub async fn call(&self, to: &NodeName, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, CallError> {
        match self.node.peers.values().find(|peer| peer.name == *to) {
            Some(peer) => peer.call(body, deadline).await,
            None => Err(CallError::UnknownNode(to.clone())),
        }
    }

    /// What is waited for: peers at the first start, a lease after a restart, an address to listen on. Empty when all
    /// is well.
    pub fn waiting(&self) -> Vec<String> {
        lock(&self.node.waiting).values().flatten().cloned().collect()
    }

    /// Who was refused, the latest first.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.node.refusals.list()
    }

    /// The slowest durable write of the last seconds, one that hangs right now included.
    pub fn log_write_latency(&self) -> Duration {
        self.node.store.write_latency()
    }

    /// Which networks reach each peer, and which is used.
    pub fn paths(&self) -> Vec<PeerPaths> {
        self.node.peers.values().map(|peer| peer.status()).collect()
    }

    /// Stops Raft and the transport. When it returns, everything is on disk, and the data directory is free.
    pub async fn shutdown(self) {
        self.starting.abort();
        // Aborted, or long done: there is nothing to be learned from how it ended.
        let _ = self.starting.await;
        // Dropped is stopped as well.
        let _ = self.stop_server.send(());
        let server = self.server.abort_handle();
        if tokio::time::timeout(Duration::from_secs(1), self.server).await.is_err() {
            server.abort();
        }
        if let Some(raft) = self.node.raft.get()
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(%error, "Raft did not stop in order");
        }
        self.node.peers.values().for_each(|peer| peer.stop());
        self.node.store.close();
        lock(&self.node.data_dir).release();
    }
}

/// Unanswered bytes break a connection after this: well after a fail-over to the other network, well before an operator
/// would wonder.
fn silence(options: &Options) -> Duration {
    (options.timing.election_max * 2).max(Duration::from_millis(500))
}

#[expect(clippy::disallowed_methods, reason = "the number of a peer's first question is drawn: an I/O edge")]
fn start_peers(
    options: &Options,
    credentials: &Credentials,
    me: &Identity,
    refusals: &Arc<Refusals>,
) -> BTreeMap<u64, Arc<Peer>> {
    let own = options.nodes[&options.me];
    let silence = silence(options);
    // Early enough that a heartbeat still gets through over the other network before openraft gives it up.
    let stall = options.timing.heartbeat / 3;
    let path = |peer: &NodeName, network: Network, remote: SocketAddr| {
        let dial = Dial {
            credentials: credentials.clone(),
            peer: peer.clone(),
            local: own.on(network).ip(),
            remote,
            timeout: silence.max(Duration::from_secs(1)),
            silence,
        };
        Path::new(network, dial, me.clone(), refusals.clone())
    };
    let others = options.voters().into_iter().filter(|(_, name)| *name != options.me);
    others
        .map(|(id, name)| {
            let addresses = options.nodes[&name];
            let paths = [Network::Primary, Network::Secondary].map(|n| path(&name, n, addresses.on(n)));
            (id.0, Peer::start(name, paths, stall, rand::random()))
        })
        .collect()
}
