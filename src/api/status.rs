//! The schema of everything that the command line shows, as plain data: `status --json` prints [`Status`],
//! `explain --json` prints [`IncidentReport`], `history --json` a list of [`IncidentSummary`].
//!
//! The schema is stable within one [`SCHEMA`] number: fields are added, never renamed, removed or given another
//! meaning. Durations are integers in milliseconds (`_ms`), or whole seconds where no more is known (`seconds`), times of
//! day milliseconds since 1970-01-01 UTC (`_at_ms`).
//! An absent value is `null` and means "not known" or "none", as the field says; it never means "fine".
//!
//! Not here: any judgement. Whoever fills a value has judged; whoever renders it judges nothing.

use crate::types::{
    AgentKind, AgentName, Boot, ChannelName, ClusterId, CopyStage, DbState, Epoch, FenceId, Incarnation, IncidentId,
    Lack, Leaving, Lsn, Network, NodeName, Room, ServiceName, Severity, Sight, Term, Timeline, WallTime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The number of this schema.
pub const SCHEMA: u32 = 1;

/// The cluster as one node knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cluster's name, as the configuration has it.
    pub cluster: String,
    /// Which cluster; `None` until this node knows.
    pub cluster_id: Option<ClusterId>,
    /// The node that answered.
    pub answered_by: NodeName,
    /// The program's version.
    pub version: String,
    pub answered_at_ms: WallTime,
    pub quorum: Quorum,
    /// Every configured node, and every other one that the ledger knows, by name.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
    /// The configured channels, in order.
    pub channels: Vec<ChannelName>,
    /// Observer → peer → what that observer sees of that peer. An observer of whom nothing is known is absent.
    pub matrix: BTreeMap<NodeName, BTreeMap<NodeName, Seen>>,
    pub services: BTreeMap<ServiceName, ServiceStatus>,
    /// What needs a person now; the same on every node that knows the leader.
    #[serde(default)]
    pub alarms: Vec<AlarmStatus>,
    /// Fences that are not closed, oldest first.
    pub fences: Vec<FenceStatus>,
    /// Every pair of fence device and target, by agent, then target.
    pub devices: Vec<DeviceStatus>,
    /// The latest incidents, newest first (a few; `history` has all).
    pub incidents: Vec<IncidentSummary>,
    /// What an operator should know although nothing is broken: `insecure = true`, switches that accept less, a node
    /// that was refused. One sentence each.
    pub warnings: Vec<String>,
    /// What room the volume has on which the answering node keeps its ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_volume: Option<Room>,
    /// Lines of the answering daemon's log that were dropped since it started, because nobody read the log in time.
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// Answers of that daemon that were dropped, because whoever had asked did not read.
    #[serde(default)]
    pub answers_dropped: u64,
}

/// Something that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    pub severity: Severity,
    /// The sentence, with what to do where there is one thing to do.
    pub what: String,
    pub service: Option<ServiceName>,
    pub node: Option<NodeName>,
    pub incident: Option<IncidentId>,
}

/// Raft, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// `None`: no leader is known.
    pub leader: Option<NodeName>,
    pub term: Term,
    pub voters: u32,
    /// Voters that the answering node knows to be connected, itself included.
    pub connected: u32,
    /// How many more voters may be lost before nothing can be decided. Negative: so many are missing now.
    pub margin: i32,
}

/// What the cluster thinks of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heard on a majority of channels.
    Up,
    /// The answering node sees a majority of channels lost: not yet a verdict.
    Suspect,
    /// A verdict stands in the ledger.
    Dead,
    /// It left in order, and is not back: nobody was lost, and its databases are closed unless a pause let them run.
    Left,
    /// No incarnation of it is in the ledger.
    NotJoined,
}

/// What a node is for. The same words as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    Database,
    Witness,
}

/// The watchdog of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogState {
    /// None is configured.
    Absent,
    Armed,
    /// Configured and not armed.
    Disarmed,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub role: NodeRole,
    /// Addresses, primary network first.
    pub addresses: Vec<String>,
    pub state: NodeState,
    pub leader: bool,
    pub boot: Option<Boot>,
    pub incarnation: Option<Incarnation>,
    /// It says of itself that its evidence is worth nothing at present (S10).
    pub self_doubt: bool,
    /// Its configuration file differs from the answering node's.
    pub config_differs: bool,
    /// `None`: not known (never heard).
    pub watchdog: Option<WatchdogState>,
    /// The slowest recent durable write of its Raft log.
    pub log_write_ms: Option<u64>,
    /// What its daemon must do for safety, cannot do at present, and tries again. One sentence each; the reason is told
    /// by the node itself.
    #[serde(default)]
    pub failing: Vec<String>,
    /// Why it, or something that claims to be it, was refused. One sentence each.
    pub refusals: Vec<String>,
    /// The services that are paused, as its copy of the ledger has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<ServiceName>,
    /// It leaves, or has left, in order, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// A person took it into maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
}

/// The maintenance of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// Who said so.
    pub who: String,
    /// After so long it ends by itself, as far as the answering node has counted. `None`: when a person ends it.
    pub left_ms: Option<u64>,
}

/// What one observer sees of one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// A majority of channels is lost.
    pub suspects: bool,
    pub channels: BTreeMap<ChannelName, SeenOn>,
}

/// The same on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenOn {
    pub sight: Sight,
    /// The suspicion level; only for the answering node's own observations. Capped at a finite number by the filler
    /// (JSON has no infinity).
    pub phi: Option<f64>,
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No epoch was ever begun: regent stops nothing and appoints nobody.
    Unmanaged,
    /// A primary is named and has not begun to promote.
    Appointed,
    /// The appointee promotes.
    Promoting,
    /// A primary takes writes.
    Installed,
    /// The holder's lease is not renewed: it stops by itself, and nobody may be appointed yet.
    Lapsed,
    /// The holder is being fenced.
    Fencing,
    /// The epoch is over, and nobody was appointed yet.
    Vacant,
    /// An operator paused the service: nothing is started, stopped or moved.
    Paused,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub phase: Phase,
    /// The holder or appointee of the current epoch.
    pub primary: Option<NodeName>,
    pub epoch: Epoch,
    pub lease: Option<LeaseStatus>,
    /// By database node.
    pub databases: BTreeMap<NodeName, DatabaseStatus>,
    /// The installed primary took a write within its last probe. `None`: there is none, or nothing was heard of it lately.
    #[serde(default)]
    pub takes_writes: Option<bool>,
    pub readiness: Readiness,
    /// The word for its pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStatus>,
    /// What the coordinator is doing now, and what it is waiting for. One sentence each; empty when nothing is due.
    pub what_now: Vec<String>,
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseStatus {
    /// Who said so, and why in that person's own words.
    pub who: String,
    pub reason: Option<String>,
    /// For how long it has lasted, and after how much longer it ends by itself (`null`: when a person ends it), as far as
    /// the answering node has counted.
    pub lasted_ms: Option<u64>,
    pub left_ms: Option<u64>,
}

/// The lease of the current epoch, as far as the answering node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub holder: NodeName,
    /// At most so long its holder may still write. The holder says when its own right ends; the leader, when everybody
    /// else takes it for ended, which is later: drift, the watchdog and the stop ladder are waited for too.
    /// `None`: only these two know, or a pause holds the lease open.
    pub remaining_ms: Option<u64>,
}

/// One copy of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    pub state: DbState,
    pub timeline: Timeline,
    /// Primary: end of flushed WAL. Standby: end of received and flushed WAL.
    pub position: Option<Lsn>,
    /// Bytes of WAL behind the primary; `None` for the primary itself, and where it cannot be told.
    pub lag_bytes: Option<u64>,
    pub streams_from: Option<NodeName>,
    /// Over which network it does; `None`: not known.
    #[serde(default)]
    pub network: Option<Network>,
    /// Standby: what it has left to replay of what it received; `None`: nothing, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayStatus>,
    /// One sentence.
    pub trouble: Option<String>,
    /// The rewind or copy that is to make it a standby: one is under way, or the last ones came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyStatus>,
    /// What it lacks to serve as primary, or lacks as the primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<UnfitStatus>,
    /// A line of its files that PostgreSQL does not take, with file and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_fault: Option<String>,
    /// What its next start changes (the first of it): parameters by their names, and PostgreSQL itself where other programs are
    /// installed by now than run, as in "PostgreSQL 15.9 to 15.10".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
    /// Of these, what a standby must have at least as high as its primary, and becomes lower: the primary goes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<String>,
    /// A person has ordered its restart, which is not done yet: who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_ordered: Option<String>,
    /// A person has ordered that it is copied anew, which is not done yet: who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_ordered: Option<String>,
    /// Parameters of the configuration file that something else overrides, one sentence each; only of the answering node's
    /// own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// Folders beside it that hold what only this node had; only of the answering node's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptStatus>,
}

/// How far a standby's replay is behind what it received, on its own clock, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    pub bytes: u64,
    /// For how long it has had something that it has not replayed.
    pub seconds: u64,
    /// For how long nothing was replayed, although nothing was waited for on purpose.
    pub still_seconds: u64,
    /// For how long it is to wait on purpose (`recovery_min_apply_delay`).
    pub delay_seconds: u64,
}

/// An old copy, or WAL that no other node had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStatus {
    pub folder: String,
    pub bytes: u64,
    /// By the time in its name, and the time of day of the answering node. `None`: the name has no time.
    pub age_seconds: Option<u64>,
    /// An incident names it, or what belongs to it, or that is not known: regent does not remove it.
    pub named: bool,
}

/// One thing that a database lacks to serve as primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfitStatus {
    pub kind: Lack,
    /// It keeps this database from taking over (`bars`).
    pub bars: bool,
    /// One sentence each.
    pub what: String,
    pub cure: String,
}

/// A rewind or copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// What is done now; `None`: nothing at present.
    pub stage: Option<CopyStage>,
    /// Of a copy: bytes that arrived, how many will in all, and how long that takes if it goes on as until now. `None`: not
    /// known.
    pub done_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub percent: Option<u8>,
    pub left_ms: Option<u64>,
    /// How many came to nothing in a row.
    pub failed: u32,
    /// Why the last of them did, and when the next one may begin; only of the answering node's own.
    pub error: Option<String>,
    pub next_ms: Option<u64>,
    /// All of it in one sentence.
    pub what: String,
}

/// The standing answer: what if it died now? (Design, section 4.12.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// A failover of this service would succeed now.
    pub failover_ready: bool,
    /// The cluster would survive one more failure.
    pub survives_one_more: bool,
    /// How many bytes of WAL a failover would lose now, of what the primary is known to have written; what was committed
    /// since the last heartbeat comes on top. `None`: not known.
    #[serde(default)]
    pub would_lose_bytes: Option<u64>,
    /// For how many seconds the best standby has lacked something of that, by the answering node's clock: at most so old is the
    /// first commit that would be lost. `None`: not known.
    #[serde(default)]
    pub would_lose_seconds: Option<u64>,
    /// Why not. One sentence each.
    pub reasons: Vec<String>,
}

/// A fence that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceStatus {
    pub id: FenceId,
    pub node: NodeName,
    pub boot: Boot,
    /// The incident that it belongs to: what `regent fence confirm` wants to be told.
    pub incident: Option<IncidentId>,
    /// `trying`, `confirmed`, `checked`, `refuted`, `unfencing`, or a later word.
    pub stage: String,
    /// How it was confirmed, if it was: the agents of the level, or the person.
    pub confirmed_by: Option<String>,
    /// What was tried and how it ended. One sentence each.
    pub attempts: Vec<String>,
}

/// One fence device and one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub agent: AgentName,
    pub kind: AgentKind,
    pub target: NodeName,
    /// `None`: it was not monitored yet, or its monitor is switched off.
    pub monitor: Option<MonitorStatus>,
}

/// The last monitor of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStatus {
    pub ok: bool,
    pub at_ms: WallTime,
    /// What the agent said, when it failed.
    pub error: Option<String>,
}

/// What an incident was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// The first primary of a service.
    Bootstrap,
    /// Unplanned, after a fence or a holder's own release.
    Failover,
    /// Planned, with a release.
    Switchover,
    /// A node was fenced without being a primary.
    Fence,
}

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentOutcome {
    /// Not ended.
    Open,
    Succeeded,
    /// It ended without what it was for; the old state stands or was restored.
    Failed,
    /// An operator or another incident took its place.
    Abandoned,
}

/// One line of `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentSummary {
    pub id: IncidentId,
    pub kind: IncidentKind,
    pub services: Vec<ServiceName>,
    /// The node that it is about: the old primary, the fenced node.
    pub subject: Option<NodeName>,
    pub opened_at_ms: WallTime,
    pub closed_at_ms: Option<WallTime>,
    pub outcome: IncidentOutcome,
    /// One sentence.
    pub headline: String,
}

/// One incident, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentReport {
    /// [`SCHEMA`].
    pub schema: u32,
    pub summary: IncidentSummary,
    /// In the order of the ledger.
    pub steps: Vec<IncidentStep>,
    pub durations: Durations,
    /// What may be lost with it, in the order of the ledger.
    #[serde(default)]
    pub losses: Vec<MayBeLost>,
}

/// What a node may have acknowledged that is not in the database that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayBeLost {
    pub service: ServiceName,
    /// Of the epoch in which it may have been acknowledged.
    pub epoch: Epoch,
    pub node: NodeName,
    pub timeline: Timeline,
    /// Whatever comes after it is not on `by`, which was appointed.
    pub after: Lsn,
    pub by: NodeName,
    /// `None`: the node has not come back as a standby since.
    pub came_back: Option<CameBack>,
}

/// How a node came back as a standby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameBack {
    pub at_ms: WallTime,
    pub how: String,
    /// Folders on that node with the WAL that no other node had; none where nothing was kept.
    pub kept: Vec<String>,
}

/// One step: an entry of the ledger, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStep {
    pub at_ms: WallTime,
    /// Since the incident was opened, by the clock of the leader that wrote the entry. Negative for what came before.
    pub since_open_ms: i64,
    /// One sentence.
    pub what: String,
    /// Evidence: votes and their channels, agent output, positions. One line each.
    pub details: Vec<String>,
}

/// Where the time went. `None`: that part did not happen, or its ends are not in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// From the last sign of life to the first suspicion of a majority.
    pub detect_ms: Option<u64>,
    /// The round of looking again.
    pub verdict_ms: Option<u64>,
    /// From the first order to a confirmation.
    pub fence_ms: Option<u64>,
    /// Watching that the fence holds.
    pub check_ms: Option<u64>,
    /// Sealed reports and the choice.
    pub choose_ms: Option<u64>,
    /// From the appointment to the first accepted write.
    pub promote_ms: Option<u64>,
    pub total_ms: Option<u64>,
}
