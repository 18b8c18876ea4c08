//! What openraft sees of the transport: one client a target; and, on the other side, what a Raft message from a peer does.
//!
//! Only a peer's own votes are accepted from it: the id in the message must be the id of the certificate's node. What a
//! peer wrote in a newer format is refused whole: it waits until this host is upgraded.

use super::peer::CallError;
use super::proto::{RaftKind, RaftRequest};
use super::refusals::Refusals;
use crate::consensus::machine::Machine;
use crate::consensus::raft::{LedgerTypes, LogId, Snapshot, SnapshotMeta, Types, Vote};
use crate::consensus::snapshot::{self, SnapshotError};
use crate::ledger::format::{Format, NewerFormat};
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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
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

/// Why a Raft message was not answered.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Entries or a snapshot of a newer version: nothing of the message was taken in, and the log here stays as it is.
    #[error("what it sends has {0}")]
    Newer(NewerFormat),
    #[error("an unknown kind of Raft message")]
    UnknownKind,
    #[error("an unreadable Raft message: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("an unreadable Raft message: {0}")]
    Snapshot(SnapshotError),
    #[error("node {from} sent a message in the name of node {named}")]
    Forged { from: u64, named: u64 },
    /// openraft's own reason.
    #[error("{0}")]
    Raft(String),
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
    fn read(request: &RaftRequest) -> Result<Self, MessageError> {
        let head = request.head.as_slice();
        Ok(match request.kind() {
            RaftKind::Append => {
                Message::Append(serde_json::from_slice(head).map_err(|e| newer_or_unreadable(head, e))?)
            }
            RaftKind::Vote => Message::Vote(serde_json::from_slice(head)?),
            RaftKind::PreVote => Message::PreVote(serde_json::from_slice(head)?),
            RaftKind::Snapshot => {
                let (vote, meta) = serde_json::from_slice(head)?;
                // Before Raft sees it: openraft ends itself over a snapshot that cannot be installed.
                snapshot::decode(&request.body).map_err(|error| match error {
                    SnapshotError::Newer(newer) => MessageError::Newer(newer),
                    error @ SnapshotError::Unreadable(_) => MessageError::Snapshot(error),
                })?;
                Message::Snapshot(vote, meta)
            }
            RaftKind::Transfer => Message::Transfer(serde_json::from_slice(head)?),
            RaftKind::Unspecified => return Err(MessageError::UnknownKind),
        })
    }
}

/// Of a message of entries only what says in which format they are written.
#[derive(Deserialize)]
struct Formats {
    entries: Vec<EntryFormat>,
}

#[derive(Deserialize)]
struct EntryFormat {
    payload: serde_json::Value,
}

/// Entries that cannot be read are of a newer version, or garbage.
fn newer_or_unreadable(head: &[u8], error: serde_json::Error) -> MessageError {
    let entries = serde_json::from_slice::<Formats>(head).map(|found| found.entries).unwrap_or_default();
    let format = |entry: &EntryFormat| u32::try_from(entry.payload.get("Normal")?.get("format")?.as_u64()?).ok();
    let newer = entries.iter().filter_map(format).max().and_then(|found| Format::try_from(found).err());
    newer.map_or(MessageError::Unreadable(error), MessageError::Newer)
}

/// Whether this node can read a Raft message: all of `handle` that comes before Raft itself.
pub fn is_readable(request: &RaftRequest) -> Result<(), MessageError> {
    Message::<Types>::read(request).map(|_| ())
}

/// Handles a Raft message from the voter with number `from`.
pub async fn handle<C: LedgerTypes>(
    raft: &Raft<C, Machine<C>>,
    from: u64,
    request: RaftRequest,
) -> Result<Vec<u8>, MessageError> {
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

fn reply<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Vec<u8>, MessageError> {
    result.map(|answer| to_json(&answer)).map_err(|e| MessageError::Raft(e.to_string()))
}

fn check_sender(vote: &Vote, from: u64) -> Result<(), MessageError> {
    match vote.leader_id().voted_for {
        id if id == from => Ok(()),
        named => Err(MessageError::Forged { from, named }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::raft::CommittedLeaderId;
    use crate::ledger::State;
    use crate::ledger::format::FORMAT;

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
        let text = check_sender(&Vote::new(3, 1), 2).expect_err("forged").to_string();
        assert_eq!(text, "node 2 sent a message in the name of node 1");
    }

    fn append(payload: serde_json::Value) -> RaftRequest {
        let (vote, prev) = (Vote::new_committed(3, 1), at(2, 5));
        let entry = serde_json::json!({ "log_id": at(3, 6), "payload": payload });
        let head = serde_json::json!({ "vote": vote, "prev_log_id": prev, "entries": [entry], "leader_commit": prev });
        RaftRequest { kind: RaftKind::Append.into(), head: to_json(&head), body: Vec::new() }
    }

    #[test]
    fn entries_of_a_newer_format_are_refused_by_its_number() {
        let pause = serde_json::json!({ "pause": { "service": "orders", "who": "the operator" } });
        let written = |format: u32, command: &serde_json::Value| {
            append(serde_json::json!({ "Normal": { "format": format, "at": 7, "command": command } }))
        };
        assert!(is_readable(&written(FORMAT, &pause)).is_ok());
        assert!(is_readable(&append(serde_json::json!({ "Normal": { "at": 7, "command": pause } }))).is_ok(), "before");
        // A command that nobody knows here, and one whose meaning a new field may have changed.
        let unknown = serde_json::json!({ "retire": { "node": "db3" } });
        let changed = serde_json::json!({ "pause": { "service": "orders", "who": "the operator", "until": 9 } });
        for command in [&unknown, &changed, &pause] {
            let error = is_readable(&written(FORMAT + 1, command)).expect_err("newer");
            assert!(matches!(error, MessageError::Newer(NewerFormat { found }) if found == FORMAT + 1), "{error}");
            assert!(error.to_string().ends_with("upgrade regent on this host"), "{error}");
        }
        // Without the number they are no better: never half read.
        for command in [&unknown, &changed] {
            let error = is_readable(&written(FORMAT, command)).expect_err("unreadable");
            assert!(matches!(error, MessageError::Unreadable(_)), "{error}");
        }
    }

    #[test]
    fn a_snapshot_of_a_newer_format_is_refused_before_raft_sees_it() {
        let head = to_json(&(Vote::new_committed(3, 1), SnapshotMeta::default()));
        let with = |body: Vec<u8>| RaftRequest { kind: RaftKind::Snapshot.into(), head: head.clone(), body };
        assert!(is_readable(&with(snapshot::encode(&State::default()))).is_ok());
        let newer = with(format!("{{\"format\":{}}}", FORMAT + 1).into_bytes());
        let error = is_readable(&newer).expect_err("newer");
        assert!(matches!(error, MessageError::Newer(NewerFormat { found }) if found == FORMAT + 1), "{error}");
        assert!(matches!(is_readable(&with(b"{}".to_vec())), Err(MessageError::Snapshot(_))));
    }
}
