//! One peer, asked over whichever network works: the primary first, the other at once when it fails, and beside it when
//! it stalls. A dead host delays nobody but who asks it.

#![expect(clippy::disallowed_methods, reason = "time-outs of one question to a peer: plain I/O")]

use super::Network;
use super::network::Line;
use super::path::{Path, PathStatus};
use super::proto::peer_client::PeerClient;
use super::proto::{Answer, CallRequest, HelloReply, HelloRequest, RaftRequest};
use crate::types::{NodeName, Span};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

/// Why a peer did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0} is not a node of this cluster")]
    UnknownNode(NodeName),
    /// No network reaches it, or the connection broke: it may have heard the message.
    #[error("{node} cannot be reached: {why}")]
    Unreachable { node: NodeName, why: String },
    /// It may have heard the message.
    #[error("{node} did not answer within {}", Span(*after))]
    TimedOut { node: NodeName, after: Duration },
    /// It was reached and said no: it has not done it.
    #[error("{node} refused: {reason}")]
    Refused { node: NodeName, reason: String },
}

/// What is asked.
#[derive(Clone)]
enum Ask {
    Hello,
    Raft(RaftRequest),
    Call(CallRequest),
}

enum Said {
    Hello(HelloReply),
    Answer(Answer),
}

/// Both paths to one peer.
pub struct Peer {
    pub name: NodeName,
    paths: [Arc<Path>; 2],
    /// After this without an answer, the other path is tried as well.
    stall: Duration,
    next_call: AtomicU64,
    keepers: [AbortHandle; 2],
}

/// Paths to one peer, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PeerPaths {
    pub peer: NodeName,
    pub in_use: Option<Network>,
    pub paths: [PathStatus; 2],
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Peer {
    /// Starts to keep both paths. `first_call` makes the numbers of calls differ between two starts of this node.
    pub fn start(name: NodeName, paths: [Arc<Path>; 2], stall: Duration, first_call: u64) -> Arc<Self> {
        let keepers = [&paths[0], &paths[1]].map(|path| tokio::spawn(path.clone().keep()).abort_handle());
        Arc::new(Peer { name, paths, stall, next_call: AtomicU64::new(first_call), keepers })
    }

    /// Gives both connections up for good.
    pub fn stop(&self) {
        self.keepers.iter().for_each(AbortHandle::abort);
        self.paths.iter().for_each(|path| path.lost("this node is shutting down"));
    }

    pub async fn hello(&self, deadline: Duration) -> Result<HelloReply, CallError> {
        match self.ask(Ask::Hello, deadline).await? {
            Said::Hello(reply) => Ok(reply),
            Said::Answer(_) => unreachable!("a hello is answered with a hello"),
        }
    }

    pub async fn call(&self, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, CallError> {
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let said = self.ask(Ask::Call(CallRequest { id, body }), deadline).await?;
        self.body(said)
    }

    pub fn status(&self) -> PeerPaths {
        let in_use = self.order().first().map(|(path, _)| path.network);
        PeerPaths { peer: self.name.clone(), in_use, paths: [self.paths[0].status(), self.paths[1].status()] }
    }

    /// The peer is up: look at both paths now.
    pub fn wake(&self) {
        self.paths.iter().for_each(|path| path.wake());
    }

    fn body(&self, said: Said) -> Result<Vec<u8>, CallError> {
        match said {
            Said::Answer(answer) if answer.refused.is_empty() => Ok(answer.body),
            Said::Answer(answer) => Err(CallError::Refused { node: self.name.clone(), reason: answer.refused }),
            Said::Hello(_) => unreachable!("only a hello is answered with a hello"),
        }
    }

    /// Connected paths, best first: trusted before suspect, primary before secondary.
    fn order(&self) -> Vec<(Arc<Path>, PeerClient<Channel>)> {
        let mut paths: Vec<_> = self.paths.iter().filter_map(|p| p.client().map(|c| (p.clone(), c))).collect();
        paths.sort_by_key(|(_, (_, trusted))| !trusted);
        paths.into_iter().map(|(path, (client, _))| (path, client)).collect()
    }

    async fn ask(&self, ask: Ask, deadline: Duration) -> Result<Said, CallError> {
        let mut untried = self.order().into_iter();
        let Some((path, client)) = untried.next() else {
            let why = self
                .paths
                .iter()
                .map(|p| p.status())
                .map(|s| format!("{}: {}", s.network, s.error.unwrap_or_else(|| "not connected".into())));
            return Err(CallError::Unreachable { node: self.name.clone(), why: why.collect::<Vec<_>>().join("; ") });
        };
        // In a task of its own: openraft drops what takes too long, and what was learned about the paths must stay.
        let race = Race { ask, deadline, stall: self.stall, node: self.name.clone() };
        let raced = tokio::spawn(race.run((path, client), untried.next()));
        raced.await.unwrap_or_else(|_| {
            Err(CallError::Unreachable { node: self.name.clone(), why: "this node is shutting down".into() })
        })
    }
}

impl Line for Peer {
    fn name(&self) -> &NodeName {
        &self.name
    }

    /// On the primary network.
    fn address(&self) -> std::net::IpAddr {
        self.paths[0].address()
    }

    fn carry(&self, request: RaftRequest, deadline: Duration) -> BoxFuture<'_, Result<Vec<u8>, CallError>> {
        async move {
            let said = self.ask(Ask::Raft(request), deadline).await?;
            self.body(said)
        }
        .boxed()
    }
}

struct Race {
    ask: Ask,
    deadline: Duration,
    stall: Duration,
    node: NodeName,
}

type Route = (Arc<Path>, PeerClient<Channel>);

impl Race {
    async fn run(self, first: Route, mut second: Option<Route>) -> Result<Said, CallError> {
        let end = Instant::now() + self.deadline;
        // One timer for both moments: each costs the runtime a call to the system.
        let mut timer = pin!(tokio::time::sleep_until(end.min(Instant::now() + self.stall)));
        let mut asked = vec![first.0.clone()];
        let mut running = FuturesUnordered::from_iter([send(first, self.ask.clone())]);
        let mut failed = String::new();
        loop {
            tokio::select! {
                biased;
                answered = running.next() => match answered {
                    Some((path, Ok(said))) => {
                        path.answered();
                        for other in asked.iter().filter(|other| other.network != path.network) {
                            other.suspect("it did not answer while the other network did");
                        }
                        return Ok(said);
                    }
                    Some((path, Err(status))) => {
                        failed = format!("{}: {}", path.network, status.message());
                        path.suspect(status.message());
                        asked.retain(|other| other.network != path.network);
                    }
                    None => {}
                },
                () = &mut timer => {
                    if Instant::now() >= end {
                        asked.iter().for_each(|path| path.suspect("it did not answer"));
                        return Err(CallError::TimedOut { node: self.node, after: self.deadline });
                    }
                    timer.as_mut().reset(end);
                }
            }
            // The first has failed or stalls: the other one as well.
            match second.take() {
                Some(route) => {
                    asked.push(route.0.clone());
                    running.push(send(route, self.ask.clone()));
                }
                None if running.is_empty() => {
                    return Err(CallError::Unreachable { node: self.node, why: failed });
                }
                None => {}
            }
        }
    }
}

async fn send((path, mut client): Route, ask: Ask) -> (Arc<Path>, Result<Said, Status>) {
    let said = match ask {
        Ask::Hello => client.hello(path.sign(HelloRequest {})).await.map(|r| Said::Hello(r.into_inner())),
        Ask::Raft(request) => client.raft(path.sign(request)).await.map(|r| Said::Answer(r.into_inner())),
        Ask::Call(request) => client.call(path.sign(request)).await.map(|r| Said::Answer(r.into_inner())),
    };
    (path, said)
}
