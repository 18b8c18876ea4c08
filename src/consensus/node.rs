//! What this node answers to its peers, and the course of its start: ask, found or join, run. Not here: Raft itself
//! (`member.rs`) and the interface for the daemon (`mod.rs`).

#![expect(
    clippy::disallowed_methods,
    reason = "waits that a sleep of the host only makes longer, which is the safe side"
)]

use super::calls::Calls;
use super::founding::{self, Founding};
use super::member::Member;
use super::raft::Types;
use super::store::stamp::DataDir;
use super::transport::network::Line;
use super::transport::peer::Peer;
use super::transport::proto::{CallRequest, HelloReply, RaftRequest};
use super::transport::{Identity, server};
use crate::errors::with_causes;
use crate::types::{NodeId, NodeName};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A blank node asks its peers this often.
const ASK: Duration = Duration::from_millis(200);

/// The running parts of this node.
pub(super) struct Node {
    pub member: Member<Types>,
    pub me: Identity,
    pub peers: Arc<BTreeMap<u64, Arc<Peer>>>,
    pub calls: Calls,
    pub data_dir: Mutex<DataDir>,
    /// What is waited for, by subject.
    pub waiting: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Node {
    /// From blank or stored state to a running Raft.
    pub async fn start(self: Arc<Self>) {
        let mut initialise = false;
        if self.member.is_blank() {
            initialise = self.found().await;
        } else {
            self.wait_for("start", vec!["waiting out the lease that a leader may still hold from before".into()]);
        }
        let line = |(id, peer): (&u64, &Arc<Peer>)| (NodeId(*id), peer.clone() as Arc<dyn Line>);
        match self.member.start(self.peers.iter().map(line).collect(), initialise).await {
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
                    Err(error) => self.wait_for("start", vec![with_causes(&error)]),
                },
                Founding::Wait(reasons) => self.wait_for("start", reasons),
            }
            tokio::time::sleep(ASK).await;
        }
    }

    fn voters(&self) -> Vec<String> {
        self.member.options().nodes.keys().map(ToString::to_string).collect()
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
            id: self.member.id().0,
            blank: self.member.is_blank(),
            founder: self.me.founder.clone(),
            founders: founders.into_iter().map(|(name, mark)| (name.to_string(), mark)).collect(),
            voters: self.voters(),
            config_hash: self.member.options().config_hash,
        }
    }

    fn raft(&self, from: NodeName, request: RaftRequest) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        async move { self.member.handle(&from, request).await }.boxed()
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
