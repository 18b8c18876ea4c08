//! What openraft sees of the transport: one client a target; and, on the other side, what a Raft message from a peer does.
//!
//! Only a peer's own votes are accepted from it: the id in the message must be the id of the certificate's node.

use super::peer::CallError;
use super::proto::{RaftKind, RaftRequest};
use super::refusals::Refusals;
use crate::consensus::machine::Machine;
use crate::consensus::raft::{LedgerTypes, LogId, Snapshot, SnapshotMeta, Types, Vote};
use crate::types::NodeName;
use futures::FutureExt;
use futures::future::BoxFuture;
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
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The way to one other member. What the answer is worth openraft decides; the way only carries bytes.
pub trait Line: Send + Sync + 'static {
    /// Whom it leads to.
    fn name(&self) -> &NodeName;
    /// Where that one is, for messages to people.
    fn address(&self) -> IpAddr;
    /// Carries one message there, and its answer back. It may arrive twice, or late.
    fn carry(&self, request: RaftRequest, deadline: Duration) -> BoxFuture<'_, Result<Vec<u8>, CallError>>;
}

/// Makes clients.
pub struct Network {
    pub lines: BTreeMap<u64, Arc<dyn Line>>,
    pub kept: Arc<Kept>,
    pub refusals: Arc<Refusals>,
    /// The shortest deadline of a message that the target has to write to disk.
    pub patience: Duration,
    /// Pause between tries to replicate to a target that does not answer.
    pub backoff: Duration,
}

/// What each target has said to have on disk, by this node's present vote.
///
/// A target whose log went backwards (a disk or a virtual machine rolled back) must not be believed, and openraft ends
/// the *leader's* process when it hears of one. So it is not told: to openraft the target is unreachable, and the
/// operator sees a refusal.
#[derive(Default)]
pub struct Kept {
    by_target: Mutex<BTreeMap<u64, (Vote, Option<LogId>)>>,
}

impl Kept {
    /// The target has everything up to `last`.
    fn has(&self, target: u64, vote: Vote, last: Option<LogId>) {
        let mut by_target = self.by_target.lock().expect("a panic aborts the process");
        match by_target.get_mut(&target) {
            Some((of, known)) if *of == vote => *known = (*known).max(last),
            _ => drop(by_target.insert(target, (vote, last))),
        }
    }

    /// The target says that it does not have `prev`: whether it had said otherwise.
    fn has_lost(&self, target: u64, vote: Vote, prev: Option<LogId>) -> bool {
        let by_target = self.by_target.lock().expect("a panic aborts the process");
        by_target.get(&target).is_some_and(|(of, known)| *of == vote && prev.is_some() && *known >= prev)
    }
}

/// A client for one target.
pub struct Client {
    id: u64,
    kept: Arc<Kept>,
    refusals: Arc<Refusals>,
    line: Option<Arc<dyn Line>>,
    patience: Duration,
    backoff: Duration,
}

impl<C: LedgerTypes> RaftNetworkFactory<C> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Client {
        Client {
            id: target,
            kept: self.kept.clone(),
            refusals: self.refusals.clone(),
            line: self.lines.get(&target).cloned(),
            patience: self.patience,
            backoff: self.backoff,
        }
    }
}

fn to_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("Raft's messages have text keys")
}

impl Client {
    async fn send<C: LedgerTypes, Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RaftKind,
        head: &Q,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<A, RPCError<C>> {
        let Some(line) = &self.line else {
            return Err(RPCError::Unreachable(Unreachable::from_string(format!("node {} is not configured", self.id))));
        };
        let request = RaftRequest { kind: kind.into(), head: to_json(head), body };
        let answer = line.carry(request, deadline).await.map_err(|error| match error {
            CallError::TimedOut { .. } => RPCError::Network(NetworkError::new(&error)),
            _ => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        serde_json::from_slice(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

impl Client {
    fn refuse_lost(&self) -> String {
        let reason = "its log went backwards: entries that it had confirmed are gone (a disk or virtual machine that was \
                      rolled back?); remove it from the cluster and add it again";
        if let Some(line) = &self.line {
            self.refusals.note(line.name().as_str(), line.address(), reason);
        }
        reason.to_owned()
    }
}

impl<C: LedgerTypes> RaftNetworkV2<C> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let answer = self.send(RaftKind::Append, &rpc, Vec::new(), option.hard_ttl().max(self.patience)).await?;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        match &answer {
            AppendEntriesResponse::Success => self.kept.has(self.id, rpc.vote, last),
            AppendEntriesResponse::PartialSuccess(matching) => self.kept.has(self.id, rpc.vote, *matching),
            AppendEntriesResponse::Conflict if self.kept.has_lost(self.id, rpc.vote, rpc.prev_log_id) => {
                return Err(RPCError::Unreachable(Unreachable::from_string(self.refuse_lost())));
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
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
        let last = snapshot.meta.last_log_id;
        let head = (vote, snapshot.meta);
        let sending = self.send(RaftKind::Snapshot, &head, snapshot.snapshot, option.hard_ttl());
        // In a fixed order: a simulation must be repeatable.
        let answer: SnapshotResponse<C> = futures::select_biased! {
            closed = pin!(cancel.fuse()) => return Err(closed.into()),
            sent = pin!(sending.fuse()) => sent?,
        };
        if answer.vote == vote {
            self.kept.has(self.id, vote, last);
        }
        Ok(answer)
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

/// A Raft message, read.
enum Message<C: LedgerTypes> {
    Append(AppendEntriesRequest<C>),
    Vote(VoteRequest<C>),
    PreVote(VoteRequest<C>),
    Snapshot(Vote, SnapshotMeta),
    Transfer(TransferLeaderRequest<C>),
}

impl<C: LedgerTypes> Message<C> {
    fn read(request: &RaftRequest) -> Result<Self, String> {
        match request.kind() {
            RaftKind::Append => parse(&request.head).map(Message::Append),
            RaftKind::Vote => parse(&request.head).map(Message::Vote),
            RaftKind::PreVote => parse(&request.head).map(Message::PreVote),
            RaftKind::Snapshot => parse(&request.head).map(|(vote, meta)| Message::Snapshot(vote, meta)),
            RaftKind::Transfer => parse(&request.head).map(Message::Transfer),
            RaftKind::Unspecified => Err("an unknown kind of Raft message".into()),
        }
    }
}

/// Whether this node can read a Raft message: all of `handle` that comes before Raft itself.
pub fn is_readable(request: &RaftRequest) -> Result<(), String> {
    Message::<Types>::read(request).map(|_| ())
}

/// Handles a Raft message from the voter with number `from`.
pub async fn handle<C: LedgerTypes>(
    raft: &Raft<C, Machine<C>>,
    from: u64,
    request: RaftRequest,
) -> Result<Vec<u8>, String> {
    match Message::read(&request)? {
        Message::Append(rpc) => {
            check_sender(&rpc.vote, from)?;
            reply(raft.append_entries(rpc).await)
        }
        Message::Vote(rpc) => {
            check_sender(&rpc.vote, from)?;
            reply(raft.vote(rpc).await)
        }
        Message::PreVote(rpc) => {
            check_sender(&rpc.vote, from)?;
            reply(raft.pre_vote(rpc).await)
        }
        Message::Snapshot(vote, meta) => {
            check_sender(&vote, from)?;
            reply(raft.install_full_snapshot(vote, Snapshot { meta, snapshot: request.body }).await)
        }
        Message::Transfer(rpc) => {
            check_sender(rpc.from_leader(), from)?;
            reply(raft.handle_transfer_leader(rpc).await)
        }
    }
}

fn parse<T: DeserializeOwned>(head: &[u8]) -> Result<T, String> {
    serde_json::from_slice(head).map_err(|e| format!("an unreadable Raft message: {e}"))
}

fn reply<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Vec<u8>, String> {
    result.map(|answer| to_json(&answer)).map_err(|e| e.to_string())
}

fn check_sender(vote: &Vote, from: u64) -> Result<(), String> {
    match vote.leader_id().voted_for {
        id if id == from => Ok(()),
        id => Err(format!("node {from} sent a message in the name of node {id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::raft::CommittedLeaderId;

    fn at(term: u64, index: u64) -> Option<LogId> {
        let leader_id = CommittedLeaderId::from(openraft::vote::leader_id_std::CommittedLeaderId::new(term));
        Some(LogId { leader_id, index })
    }

    #[test]
    fn a_log_that_went_backwards_is_told_from_one_that_never_got_there() {
        let (kept, vote) = (Kept::default(), Vote::new_committed(3, 1));
        assert!(!kept.has_lost(2, vote, at(2, 9)), "nothing is known: the usual search for the common end");
        kept.has(2, vote, at(2, 5));
        kept.has(2, vote, at(2, 4));
        assert!(!kept.has_lost(2, vote, at(3, 6)), "it never said that it has this");
        assert!(kept.has_lost(2, vote, at(2, 5)) && kept.has_lost(2, vote, at(1, 2)));
        assert!(!kept.has_lost(3, vote, at(2, 5)), "another target");
        assert!(
            !kept.has_lost(2, Vote::new_committed(4, 1), at(2, 5)),
            "another term: it may have been cut back since"
        );
    }

    #[test]
    fn nobody_votes_in_the_name_of_another() {
        assert!(check_sender(&Vote::new(3, 2), 2).is_ok());
        let text = check_sender(&Vote::new(3, 1), 2).expect_err("forged");
        assert_eq!(text, "node 2 sent a message in the name of node 1");
    }
}
