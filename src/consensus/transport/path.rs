//! One path to one peer: keeps a connection over one network, says whether it works, and dials again when it does not.

#![expect(clippy::disallowed_methods, reason = "when to dial and probe again: plain I/O")]

use super::dial::{Dial, DialError};
use super::proto::peer_client::PeerClient;
use super::proto::{HelloReply, HelloRequest};
use super::refusals::Refusals;
use super::{HEADER_CLUSTER, HEADER_FOUNDER, HEADER_NODE, Identity, Network};
use crate::clock;
use crate::types::{Instant, Span};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// How a path stands, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PathStatus {
    pub network: Network,
    pub connected: bool,
    /// Why not, or why it is not trusted right now.
    pub error: Option<String>,
}

/// First pause before dialling again; doubles up to [`REDIAL_MAX`].
const REDIAL: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_millis(500);
/// A path that has answered nothing for so long is tried.
const PROBE: Duration = Duration::from_secs(2);

/// One path.
pub struct Path {
    pub network: Network,
    dial: Dial,
    me: Identity,
    /// Who asks, as it stands in the head of each request.
    headers: Vec<(&'static str, MetadataValue<Ascii>)>,
    state: Mutex<State>,
    /// Something is to be looked at now: a request failed here, or the peer has just come by.
    wake: Notify,
    refusals: Arc<Refusals>,
}

#[derive(Default)]
struct State {
    client: Option<PeerClient<Channel>>,
    /// A request got no answer here while the other path answered. Cleared by a probe that succeeds.
    suspect: bool,
    error: Option<String>,
    /// When it answered last.
    answered: Option<Instant>,
}

impl Path {
    pub fn new(network: Network, dial: Dial, me: Identity, refusals: Arc<Refusals>) -> Arc<Self> {
        let state = State { error: Some("not connected yet".into()), ..State::default() };
        let said = [
            (HEADER_CLUSTER, me.cluster.0.as_str()),
            (HEADER_NODE, me.node.as_str()),
            (HEADER_FOUNDER, me.founder.as_str()),
        ];
        let headers = said.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect();
        Arc::new(Path { network, dial, me, headers, state: Mutex::new(state), wake: Notify::new(), refusals })
    }

    /// The client, where there is a connection; and whether it may be trusted to answer.
    pub fn client(&self) -> Option<(PeerClient<Channel>, bool)> {
        let state = self.lock();
        state.client.clone().map(|client| (client, !state.suspect))
    }

    pub fn address(&self) -> std::net::IpAddr {
        self.dial.remote.ip()
    }

    pub fn status(&self) -> PathStatus {
        let state = self.lock();
        PathStatus { network: self.network, connected: state.client.is_some(), error: state.error.clone() }
    }

    /// A request found no answer here: used last until a probe succeeds.
    pub fn suspect(&self, reason: &str) {
        let mut state = self.lock();
        if state.client.is_some() {
            state.suspect = true;
            state.error = Some(reason.to_owned());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A request was answered here: there is no need to try the path for a while.
    pub fn answered(&self) {
        self.lock().answered = Some(clock::now());
    }

    /// The peer is up: dial at once, if there is no connection.
    pub fn wake(&self) {
        if self.lock().client.is_none() {
            self.wake.notify_one();
        }
    }

    /// A request with this node's name on it.
    pub fn sign<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(*name, value.clone());
        }
        request
    }

    /// Keeps the path, until it is aborted.
    pub async fn keep(self: Arc<Self>) {
        let mut pause = REDIAL;
        loop {
            match self.dial.connect().await {
                Ok((client, gone)) => {
                    if self.use_connection(client, gone).await {
                        pause = REDIAL;
                    }
                }
                Err(error) => self.failed(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(REDIAL_MAX),
                () = self.wake.notified() => {}
            }
        }
    }

    /// Probes until it fails. Answers whether it ever worked.
    async fn use_connection(
        &self,
        mut client: PeerClient<Channel>,
        mut gone: tokio::sync::oneshot::Receiver<()>,
    ) -> bool {
        let mut worked = false;
        loop {
            match tokio::time::timeout(self.dial.silence, client.hello(self.sign(HelloRequest {}))).await {
                Ok(Ok(reply)) if self.is_expected(reply.get_ref()) => {
                    worked = true;
                    let mut state = self.lock();
                    *state = State {
                        client: Some(client.clone()),
                        suspect: false,
                        error: None,
                        answered: Some(clock::now()),
                    };
                }
                Ok(Ok(_)) => break,
                Ok(Err(status)) => {
                    self.lost(status.message());
                    break;
                }
                Err(_) => {
                    self.lost(&format!("no answer within {}", Span(self.dial.silence)));
                    break;
                }
            }
            tokio::select! {
                () = self.quiet() => {}
                () = self.wake.notified() => {}
                _ = &mut gone => {
                    self.lost("the connection ended");
                    break;
                }
            }
        }
        worked
    }

    /// Ends when nothing has been answered here for [`PROBE`].
    async fn quiet(&self) {
        loop {
            let Some(due) = self.lock().answered.map(|last| last + PROBE) else { return };
            if due <= clock::now() {
                return;
            }
            tokio::time::sleep(due.since(clock::now())).await;
        }
    }

    fn is_expected(&self, reply: &HelloReply) -> bool {
        if reply.cluster == self.me.cluster.0 && reply.node == self.dial.peer.as_str() {
            return true;
        }
        let reason = format!(
            "expected {} of cluster {}, found {} of cluster {}",
            self.dial.peer, self.me.cluster, reply.node, reply.cluster
        );
        self.refusals.note(self.dial.peer.as_str(), self.dial.remote.ip(), &reason);
        self.lost(&reason);
        false
    }

    fn failed(&self, error: &DialError) {
        if let DialError::Refused(reason) = error {
            self.refusals.note(self.dial.peer.as_str(), self.dial.remote.ip(), reason);
        }
        self.lost(&error.to_string());
    }

    /// There is no connection any more.
    pub fn lost(&self, reason: &str) {
        *self.lock() = State { error: Some(reason.to_owned()), ..State::default() };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("a panic aborts the process")
    }
}
