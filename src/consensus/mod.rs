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
#[cfg(test)]
mod leaders_test;
mod machine;
mod member;
mod node;
pub mod options;
mod raft;
#[cfg(test)]
mod sim_test;
pub mod snapshot;
mod store;
mod transport;

pub use calls::IncomingCall;
pub use event::{Advanced, Applied, Event, Leadership};
pub use member::Member;
pub use options::{Options, Security};
pub use raft::{LeaderId, LedgerTypes, Outcome, Proposal};
pub use store::{Backend, Change, Done, StoreError};
pub use transport::network::{Line, MessageError, is_readable};
pub use transport::path::PathStatus;
pub use transport::peer::{CallError, PeerPaths};
pub use transport::proto::{RaftKind, RaftRequest};
pub use transport::refusals::Refusal;
pub use transport::tls::TlsError;
pub use transport::{Addresses, Network, proto};

use crate::ledger::{Answer, Entry};
use crate::types::{ClusterId, LogIndex, NodeId, NodeName, Span, Term};
use node::{Node, lock};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::durable::Durable;
use store::stamp::{DataDir, Owner};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
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
    #[error("no quorum confirmed this leader within {}", Span(*.0))]
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
    #[error("{to} did not take over within {}", Span(*after))]
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
        let mut data_dir = DataDir::open(&options.data_dir, &owner, format!("{:016x}", rand::random::<u64>()))?;
        let (event_sender, events) = mpsc::unbounded_channel();
        let backend = Arc::new(Durable::open(&data_dir.log_file(), data_dir.has_log())?);
        // This flushes the directory too, with the names of the log and of its mark in it.
        data_dir.record_log()?;
        let member = Member::open(options, backend, event_sender)?;
        let (options, refusals) = (member.options(), member.refusals().clone());
        let me = Identity { cluster: owner.cluster.clone(), node: owner.node, founder: data_dir.founder().to_owned() };

        let peers = Arc::new(start_peers(options, &credentials, &me, &refusals));
        let (call_sender, calls) = mpsc::channel(1024);
        let (nodes, silence) = (options.nodes.clone(), silence(options));
        let node = Arc::new(Node {
            member,
            me: me.clone(),
            peers,
            calls: calls::Calls::new(call_sender),
            data_dir: Mutex::new(data_dir),
            waiting: Mutex::default(),
        });
        let gate = Arc::new(Gate { credentials, me, nodes, refusals, silence });
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
        self.node.member.id()
    }

    /// Puts an entry into the log and waits until it is applied here. A leader that no quorum has answered yet is waited
    /// for, within the deadline.
    pub async fn propose(&self, entry: Entry, deadline: Duration) -> Result<Proposed, ProposeError> {
        self.node.member.propose(entry, deadline).await
    }

    /// ReadIndex: a quorum confirms that this node leads, after the call; the answer comes when everything that was
    /// committed then is applied here (and its events are in the stream). Never answered from a lease.
    pub async fn quorum_read(&self, deadline: Duration) -> Result<LogIndex, ReadError> {
        self.node.member.quorum_read(deadline).await
    }

    /// Hands leadership to `to`, and waits until this node takes it for the leader: it has voted for it by then. The term changes as in any election, but no voter waits for
    /// the old leader's lease: whoever counts on leases must look at the term.
    pub async fn transfer_leadership(&self, to: &NodeName, deadline: Duration) -> Result<(), TransferError> {
        self.node.member.transfer_leadership(to, deadline).await
    }

    /// Who leads now. The events tell every change.
    pub fn leadership(&self) -> Leadership {
        self.node.member.leaders().current()
    }

    /// To wait for a leadership. Short terms may be skipped here; the events skip none.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.node.member.leaders().watch()
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
        self.node.member.refusals().list()
    }

    /// The slowest durable write of the last seconds, one that hangs right now included.
    pub fn log_write_latency(&self) -> Duration {
        self.node.member.store().write_latency()
    }

    /// Whether the log has room on its volume that nobody else can take.
    pub fn log_has_reserve(&self) -> bool {
        self.node.member.store().has_reserve()
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
        self.node.member.shutdown().await;
        self.node.peers.values().for_each(|peer| peer.stop());
        self.node.member.store().close();
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
