//! Everything that can wake a node, and everything that it may want done: two closed lists of values.

use super::said::Said;
use super::standing::Undo;
use crate::lease::{Denial, Grant, LeaseRequest};
use crate::ledger::{Answer, CheckAnswer, Command, Entry, Sighting, State};
use crate::plan::Question;
use crate::types::{
    AgentAction, AgentName, AgentRun, ChannelName, DbAction, DbOutcome, Epoch, FenceId, Heartbeat, Instant, Leaving,
    LeftGoodbye, LogIndex, NodeName, Observation, Released, Room, Seal, ServiceName, Standing, Term,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRequest {
    Question(Question),
    Lease(LeaseRequest),
    Propose(Box<Command>),
    /// To be passed on to the leader: the sender cannot reach it itself.
    Relay(Box<PeerRequest>),
    /// How far must a copy of the ledger be applied to be no older than this question? With an order: the leader's
    /// warrant for it, too.
    Read {
        order: Option<(FenceId, u32)>,
    },
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerResponse {
    Sighting(Sighting),
    Check(CheckAnswer),
    Seal(Result<Seal, String>),
    Lease(Result<Grant, Denial>),
    Proposed(Box<Answer>),
    /// A copy applied up to here has everything that was committed when the question came, in the time of this leader.
    /// `age`: for how long the order that was asked about has been running at most; `None` unless it runs and this very
    /// leader ordered it in this term.
    Read {
        term: Term,
        applied: LogIndex,
        age: Option<Duration>,
    },
    NotLeader {
        leader: Option<NodeName>,
    },
    Failed {
        why: String,
    },
}

/// One local run of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunKey {
    /// An order of the ledger.
    Order { fence: FenceId, order: u32 },
    /// An assistant on this voter; `stage` has the new epochs, by service, for which it is repeated on a new primary.
    Assist { fence: FenceId, agent: AgentName, stage: BTreeMap<ServiceName, Epoch>, action: AgentAction },
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The moment that `next_wakeup` named, or any other.
    Wake,
    /// A heartbeat that passed authentication. Whether it is new, the node's replay filter says (`peers.rs`): it goes by
    /// what the ledger and other observers know.
    Heard {
        channel: ChannelName,
        at: Instant,
        heartbeat: Arc<Heartbeat>,
    },
    /// Whether a channel can be used at all.
    Channel {
        channel: ChannelName,
        usable: Result<(), String>,
    },
    /// An entry was applied here.
    Applied {
        entry: Arc<Entry>,
        answer: Arc<Answer>,
        state: Arc<State>,
    },
    /// The ledger moved without an entry that matters (a snapshot, a membership).
    Ledger {
        state: Arc<State>,
    },
    /// `i_lead` only once a quorum has answered in this term.
    Leadership {
        term: Term,
        leader: Option<NodeName>,
        i_lead: bool,
    },
    /// The end of `Effect::Propose`. `Err`: not the leader, or unknown.
    Proposed {
        id: u64,
        result: Result<Answer, Option<NodeName>>,
    },
    /// A command that an operator asks for, checked on this node. Its end is told under this number.
    Submitted {
        number: u64,
        command: Box<Command>,
    },
    /// The end of `Effect::QuorumRead`. When `confirmed`, everything committed before the read began has come in as
    /// `Applied` or `Ledger` before this.
    QuorumRead {
        id: u64,
        confirmed: bool,
    },
    Asked {
        reply: u64,
        from: NodeName,
        request: PeerRequest,
    },
    /// The end of `Effect::Ask`.
    Answered {
        id: u64,
        response: Result<PeerResponse, String>,
    },
    AgentEnded {
        key: RunKey,
        run: AgentRun,
    },
    /// The end of a `monitor` that the daemon runs now and then: whether the device answered.
    Monitored {
        agent: AgentName,
        target: NodeName,
        works: bool,
    },
    /// The end of `Effect::LookInForce`: what agents have in force on this host.
    InForce {
        standing: Vec<(AgentName, Standing)>,
        /// Every agent that can tell has told all.
        whole: bool,
    },
    Seen {
        service: ServiceName,
        seen: Box<Observation>,
    },
    DbEnded {
        service: ServiceName,
        action: DbAction,
        outcome: DbOutcome,
    },
    /// The end of `Effect::Tombstone`; an error says why the final word is not durable.
    Tombstoned {
        service: ServiceName,
        epoch: Epoch,
        result: Result<(), String>,
    },
    /// The end of an `Effect::KeepLease` with an end: what the guard knows now, or why it could not be written.
    LeaseKept {
        service: ServiceName,
        result: Result<Instant, String>,
    },
    /// The end of `Effect::TryLease`: whether the file takes a lease.
    LeaseTried {
        service: ServiceName,
        result: Result<(), String>,
    },
    /// The slowest recent write of the Raft log.
    LogWrite {
        took: Duration,
    },
    /// What the volume of the ledger has now.
    LedgerRoom {
        room: Room,
    },
    /// What became of arming, feeding or disarming the watchdog. Feeding that works is said where that was asked for.
    Watchdog(WatchdogSaid),
    /// This node leaves in order: its daemon or its host is to stop. `Node::has_left` says when it has.
    Leave(Leaving),
    /// This daemon ends now, and is back or not.
    Goodbye {
        back_within: Duration,
    },
}

/// What the watchdog device answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogSaid {
    /// Armed. One that cannot be disarmed must be fed for as long as this host runs.
    Armed {
        can_be_disarmed: bool,
    },
    NotArmed {
        why: String,
    },
    Fed,
    NotFed {
        why: String,
    },
    Disarmed,
    NotDisarmed {
        why: String,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send it on every channel.
    Beat(Arc<Heartbeat>),
    Ask {
        id: u64,
        to: NodeName,
        request: PeerRequest,
        deadline: Duration,
    },
    Reply {
        reply: u64,
        response: PeerResponse,
    },
    /// Propose to the local Raft, which leads.
    Propose {
        id: u64,
        command: Box<Command>,
    },
    /// What became of an operator's command. `Err`: as for `Event::Proposed`.
    Told {
        number: u64,
        result: Result<Answer, Option<NodeName>>,
    },
    QuorumRead {
        id: u64,
    },
    Transfer {
        to: NodeName,
    },
    RunAgent {
        key: RunKey,
        agent: AgentName,
        action: AgentAction,
        target: NodeName,
        fence: FenceId,
        /// For how long, from now on, it may act: then it is ended, also if this daemon is dead by then.
        limit: Duration,
        /// Tried again until then, however often it fails: for an order that was given because all else failed before.
        persists: bool,
    },
    /// End this run at once: its fence is not needed any more. It is told like any other end.
    EndAgent {
        key: RunKey,
    },
    /// Look at what agents have in force on this host.
    LookInForce,
    /// Undo what the ledger does not want here. Whether it is undone shows at the next look.
    UndoInForce {
        undo: Box<Undo>,
    },
    /// Begin this action.
    Db {
        service: ServiceName,
        action: DbAction,
    },
    /// Forget the action that runs: another follows at once.
    AbortDb {
        service: ServiceName,
    },
    /// Write durably that this node never writes under the epoch again.
    Tombstone {
        service: ServiceName,
        released: Released,
    },
    /// The lease reaches to `until` (for the guard and the next daemon); `None`: nothing is held any more.
    KeepLease {
        service: ServiceName,
        epoch: Epoch,
        until: Option<Instant>,
        /// What this daemon leaves behind for as long, should it end without a word.
        goodbye: Option<Box<LeftGoodbye>>,
    },
    /// See whether the lease file takes a lease again, where none is held.
    TryLease {
        service: ServiceName,
    },
    ArmWatchdog,
    /// Feed it. A refusal is always told; that it worked only where `told` asks for it, because the last time it did not.
    FeedWatchdog {
        told: bool,
    },
    DisarmWatchdog,
    /// For the journal.
    Say(Said),
}
