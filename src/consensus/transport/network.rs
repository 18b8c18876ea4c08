//! What openraft sees of the transport: one client a target; and, on the other side, what a Raft message from a peer does.
//!
//! Only a peer's own votes are accepted from it: the id in the message must be the id of the certificate's node.

use super::peer::{CallError, Peer};
use super::proto::{RaftKind, RaftRequest};
use crate::consensus::machine::Machine;
use crate::consensus::raft::{LedgerTypes, Snapshot, SnapshotMeta, Types, Vote};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type C = Types;

/// Makes clients.
pub struct Network {
    pub peers: Arc<BTreeMap<u64, Arc<Peer>>>,
    /// The shortest deadline of a message that the target has to write to disk.
    pub patience: Duration,
    /// Pause between tries to replicate to a target that does not answer.
    pub backoff: Duration,
}

/// A client for one target.
pub struct Client {
    id: u64,
    peer: Option<Arc<Peer>>,
    patience: Duration,
    backoff: Duration,
}

impl RaftNetworkFactory<C> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Client {
        Client { id: target, peer: self.peers.get(&target).cloned(), patience: self.patience, backoff: self.backoff }
    }
}

fn to_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("Raft's messages have text keys")
}

impl Client {
    async fn send<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RaftKind,
        head: &Q,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<A, RPCError<C>> {
        let Some(peer) = &self.peer else {
            return Err(RPCError::Unreachable(Unreachable::from_string(format!("node {} is not configured", self.id))));
        };
        let request = RaftRequest { kind: kind.into(), head: to_json(head), body };
        let answer = peer.raft(request, deadline).await.map_err(|error| match error {
            CallError::TimedOut { .. } => RPCError::Network(NetworkError::new(&error)),
            _ => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        serde_json::from_slice(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

impl RaftNetworkV2<C> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        self.send(RaftKind::Append, &rpc, Vec::new(), option.hard_ttl().max(self.patience)).await
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        self.send(RaftKind::Vote, &rpc, Vec::new(), option.hard_ttl()).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        self.send(RaftKind::PreVote, &rpc, Vec::new(), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let head = (vote, snapshot.meta);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send(RaftKind::Snapshot, &head, snapshot.snapshot, option.hard_ttl()) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        self.send(RaftKind::Transfer, &rpc, Vec::new(), option.hard_ttl()).await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(self.backoff)))
    }
}

/// Handles a Raft message from the voter with number `from`.
pub async fn handle(raft: &Raft<C, Machine<C>>, from: u64, request: RaftRequest) -> Result<Vec<u8>, String> {
    match request.kind() {
        RaftKind::Append => {
            let rpc: AppendEntriesRequest<C> = parse(&request.head)?;
            check_sender::<C>(&rpc.vote, from)?;
            reply(raft.append_entries(rpc).await)
        }
        RaftKind::Vote => {
            let rpc: VoteRequest<C> = parse(&request.head)?;
            check_sender::<C>(&rpc.vote, from)?;
            reply(raft.vote(rpc).await)
        }
        RaftKind::PreVote => {
            let rpc: VoteRequest<C> = parse(&request.head)?;
            check_sender::<C>(&rpc.vote, from)?;
            reply(raft.pre_vote(rpc).await)
        }
        RaftKind::Snapshot => {
            let (vote, meta): (Vote, SnapshotMeta) = parse(&request.head)?;
            check_sender::<C>(&vote, from)?;
            reply(raft.install_full_snapshot(vote, Snapshot { meta, snapshot: request.body }).await)
        }
        RaftKind::Transfer => {
            let rpc: TransferLeaderRequest<C> = parse(&request.head)?;
            check_sender::<C>(rpc.from_leader(), from)?;
            reply(raft.handle_transfer_leader(rpc).await)
        }
        RaftKind::Unspecified => Err("an unknown kind of Raft message".into()),
    }
}

fn parse<T: DeserializeOwned>(head: &[u8]) -> Result<T, String> {
    serde_json::from_slice(head).map_err(|e| format!("an unreadable Raft message: {e}"))
}

fn reply<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Vec<u8>, String> {
    result.map(|answer| to_json(&answer)).map_err(|e| e.to_string())
}

fn check_sender<T: LedgerTypes>(vote: &Vote, from: u64) -> Result<(), String> {
    match vote.leader_id().voted_for {
        id if id == from => Ok(()),
        id => Err(format!("node {from} sent a message in the name of node {id}")),
    }
}
