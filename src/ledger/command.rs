//! The entries of the log: what may be proposed, and what is answered. Every command carries what it is based on
//! (epoch, incarnation, boot, fence, term, round), so that a late or repeated one is refused (S4).

use super::format::FIRST;
use super::{Machine, NoLease, Refusal, Settings};
use crate::types::{
    AgentAction, AgentName, AgentRun, Boot, ChannelName, Epoch, FenceId, Incarnation, IncidentId, NodeName, PeerView,
    Position, Round, Seal, ServiceName, SystemId, Term, Timeline, WallTime,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's time of day when it took the proposal: for people, never decided upon.
    pub at: WallTime,
    pub command: Command,
}

/// What a voter saw when it looked again, with how long each channel had been silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub view: PeerView,
    pub silent_ms: BTreeMap<ChannelName, u64>,
}

/// What a joining daemon says of an epoch that an earlier incarnation of its node held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub epoch: Epoch,
    pub state: ClaimState,
}

/// Adopted or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// Same boot, its lease still valid: the epoch passes on to the new incarnation.
    Adopted,
    /// The database's cgroup is empty and the tombstone is written: a release.
    Over { position: Option<Position> },
}

/// One fence order to be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOrder {
    pub agent: AgentName,
    pub action: AgentAction,
    pub executor: NodeName,
}

/// Why a node is to be fenced without a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceReason {
    /// `regent fence NODE` or `regent failover`.
    Operator { who: String },
    /// It lost its lease and says nothing; a majority relayed no renewal (`on_lapsed = "fence"`). Who says so has waited as
    /// the leader of this term: one that was deposed meanwhile may have missed a renewal.
    Lapsed { service: ServiceName, epoch: Epoch, term: Term },
}

/// A voter's answer to the check of a confirmed fence (S9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckAnswer {
    /// Watched for as long as its detector needs; nothing contradicts the fence.
    Holds,
    /// Two signs of life after the confirmation.
    Refuted { channel: ChannelName, what: String },
}

/// On what an appointment rests (S2): only these three can end the epoch before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The holder's own final word.
    Released,
    /// The holder never took over, and was passed over.
    PassedOver,
    /// A confirmed fence of the holder's boot, checked in the present term.
    Fenced { fence: FenceId, term: Term, checks: BTreeMap<NodeName, CheckAnswer> },
}

/// What may be proposed. A field that is not known is refused: a command that was half read would be applied otherwise
/// than elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// The first entry: the safety values.
    Seed { settings: Box<Settings> },
    /// A starting daemon. Answered with its incarnation. The request says when, by the clock of this boot, the need to
    /// join arose: an entry that is committed twice, or proposed again, joins once, and one that commits late (of the
    /// daemon before, say) joins nobody.
    Join {
        node: NodeName,
        boot: Boot,
        request: u64,
        /// The incarnation of this node that it comes after, as its copy of the ledger has it; 0 where there was none. A
        /// join that commits after one of another boot is refused. `None`: it has no copy yet, and goes on in the boot that
        /// the ledger knows.
        #[serde(default)]
        succeeds: Option<Incarnation>,
        machine: Machine,
        claims: BTreeMap<ServiceName, Claim>,
    },
    /// The close of a round (S3).
    DeclareDead {
        target: NodeName,
        incarnation: Incarnation,
        term: Term,
        round: Round,
        answers: BTreeMap<NodeName, Sighting>,
        /// Voters that have not answered yet and whose last heartbeat says that they hear it.
        #[serde(default)]
        hearing: BTreeSet<NodeName>,
    },
    /// Fence a node without a verdict.
    OpenFence { target: NodeName, boot: Boot, reason: FenceReason },
    /// Runs of agents for one fence, committed before they start.
    Order { fence: FenceId, term: Term, level: Option<u32>, round: u32, orders: Vec<NewOrder> },
    /// How one order ended.
    OrderDone { fence: FenceId, order: u32, run: AgentRun },
    /// The current level is given up: go on with the next (after the last: the first, in the next round).
    NextLevel { fence: FenceId, term: Term, level: u32, round: u32, why: String },
    /// A person vouches for one open incident.
    HumanConfirm { incident: IncidentId, target: NodeName, who: String, force: bool },
    /// A check found life (S9). It names the very confirmation that it contradicts: by level and round, and by how many
    /// were refuted before it.
    Refute {
        fence: FenceId,
        level: Option<u32>,
        round: u32,
        refuted: u32,
        by: NodeName,
        channel: ChannelName,
        what: String,
        /// No life of the fenced node: this one fell silent while the level acted, which may have struck the wrong host.
        #[serde(default)]
        struck: Option<NodeName>,
    },
    /// A voter is about to run an assistant: from now on the fence is not closed before it has undone it.
    Assisting { fence: FenceId, agent: AgentName, node: NodeName, incarnation: Incarnation },
    /// What an assistant did on one voter.
    Assisted { fence: FenceId, agent: AgentName, node: NodeName, action: AgentAction, run: AgentRun },
    /// Undo the fence: assistants are lifted, `on` may be ordered.
    Lift { fence: FenceId, who: String, power_on: bool },
    /// Nothing of the fence is left.
    CloseFence { fence: FenceId },
    /// Epoch 1 of a service that does not exist yet.
    Create { service: ServiceName, node: NodeName, boot: Boot, incarnation: Incarnation },
    /// Make a node the primary of the next epoch.
    Appoint {
        service: ServiceName,
        prior: Epoch,
        node: NodeName,
        boot: Boot,
        incarnation: Incarnation,
        basis: Basis,
        seals: BTreeMap<NodeName, Seal>,
        why: String,
    },
    /// The appointee is about to end recovery.
    Promoting { service: ServiceName, epoch: Epoch, node: NodeName, incarnation: Incarnation, timeline: Timeline },
    /// The appointee accepted a write.
    Installed {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        incarnation: Incarnation,
        system: SystemId,
        position: Position,
    },
    /// The holder's final word; anyone may propose it for the holder.
    Release {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        boot: Boot,
        incarnation: Incarnation,
        position: Option<Position>,
        /// It could not renew its lease, and nothing else.
        #[serde(default)]
        lapsed: bool,
        /// Its node leaves in order, and is back some day with all that it has.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leaving: bool,
        why: String,
    },
    /// The appointee is to be passed over: it is granted no lease of this epoch any more.
    DenyLease { service: ServiceName, epoch: Epoch },
    /// The appointee was denied its lease, and surely has none: its epoch is over, and another is appointed.
    PassOver { service: ServiceName, epoch: Epoch, term: Term, no_lease: NoLease },
    /// A later boot of the holder's node says that the epoch is over, and the last lease of the boot that holds it has
    /// surely ended: who proposes it has waited as a leader.
    WaitedOut { service: ServiceName, epoch: Epoch, boot: Boot },
    /// How far the holder's WAL was heard to reach: told every few seconds while it moves.
    Progress { service: ServiceName, epoch: Epoch, end: Position },
    /// A person lets the next appointment lose more than `failover.max_lag`.
    AcceptLoss {
        service: ServiceName,
        epoch: Epoch,
        to: Option<NodeName>,
        /// How much the one who would be appointed lacked, as far as was known.
        bytes: Option<u64>,
        who: String,
    },
    /// A node's data are to be copied anew from the primary; or not any more (`cancel`).
    Reinit {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        who: String,
        #[serde(default)]
        cancel: bool,
    },
    /// A node's database is to be restarted in place; or not any more (`cancel`).
    Restart {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        who: String,
        #[serde(default)]
        cancel: bool,
    },
    /// It was, by the order of that number.
    Restarted { service: ServiceName, node: NodeName, order: u64 },
    /// The copy on this node wins, whatever it descends from; `None` takes that word back.
    AcceptCopy {
        service: ServiceName,
        epoch: Epoch,
        node: Option<NodeName>,
        /// How much of what the primary is known to have written it lacks, where that can be said.
        bytes: Option<u64>,
        who: String,
    },
    /// A planned move.
    Switchover { service: ServiceName, epoch: Epoch, to: Option<NodeName>, who: String },
    /// The planned move is given up before the holder released.
    CancelSwitchover { service: ServiceName, epoch: Epoch, why: String },
    Pause {
        service: ServiceName,
        who: String,
        /// In the person's own words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// It ends by itself after that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts: Option<Duration>,
    },
    Resume {
        service: ServiceName,
        who: String,
        /// Only of the pause whose time is over; a person ends whichever stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// The holder has renewed its lease after a `Resume` that it knew of: from now on `lease` can confirm again. The
    /// incarnation is the one that asked: a later daemon may not know of the resume yet.
    Renewed { service: ServiceName, epoch: Epoch, incarnation: Incarnation, resumed: u64 },
    /// A node is taken into maintenance; again: for another time.
    Maintenance {
        node: NodeName,
        who: String,
        /// It ends by itself after that.
        lasts: Option<Duration>,
    },
    /// And out of it. `number`: of the word whose time is over; a person ends whichever stands.
    EndMaintenance { node: NodeName, number: Option<u64>, who: String },
    /// So many failures of a node as a primary are long ago: they are forgotten, unless there were more since.
    Forgive { node: NodeName, failures: u32 },
    /// A node came back as a standby: what was done, and where divergent WAL is kept.
    Rejoined {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        how: String,
        kept: Option<String>,
        /// The order to copy it anew that was carried out so.
        #[serde(default)]
        order: Option<u64>,
    },
}

/// What an accepted command did, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Seeded,
    Joined {
        incarnation: Incarnation,
    },
    Declared {
        target: NodeName,
        fence: Option<FenceId>,
    },
    FenceOpened {
        fence: FenceId,
        incident: IncidentId,
    },
    Ordered {
        fence: FenceId,
        orders: Vec<u32>,
    },
    OrderEnded {
        fence: FenceId,
        confirmed: bool,
    },
    Confirmed {
        fence: FenceId,
    },
    Refuted {
        fence: FenceId,
    },
    Appointed {
        epoch: Epoch,
    },
    SwitchoverStarted {
        incident: IncidentId,
    },
    LossAccepted {
        incident: IncidentId,
    },
    /// `None`: it is carried out when the pause ends.
    CopyAccepted {
        incident: Option<IncidentId>,
    },
    /// Recorded; nothing more to say.
    Noted,
}

/// The answer to a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done(Event),
    Refused(Refusal),
}

impl Command {
    /// The command's name, as logs and refusals show it.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Seed { .. } => "Seed",
            Command::Join { .. } => "Join",
            Command::DeclareDead { .. } => "DeclareDead",
            Command::OpenFence { .. } => "OpenFence",
            Command::Order { .. } => "Order",
            Command::OrderDone { .. } => "OrderDone",
            Command::NextLevel { .. } => "NextLevel",
            Command::HumanConfirm { .. } => "HumanConfirm",
            Command::Refute { .. } => "Refute",
            Command::Assisting { .. } => "Assisting",
            Command::Assisted { .. } => "Assisted",
            Command::Lift { .. } => "Lift",
            Command::CloseFence { .. } => "CloseFence",
            Command::Create { .. } => "Create",
            Command::Appoint { .. } => "Appoint",
            Command::Promoting { .. } => "Promoting",
            Command::Installed { .. } => "Installed",
            Command::Release { .. } => "Release",
            Command::DenyLease { .. } => "DenyLease",
            Command::PassOver { .. } => "PassOver",
            Command::WaitedOut { .. } => "WaitedOut",
            Command::Progress { .. } => "Progress",
            Command::AcceptLoss { .. } => "AcceptLoss",
            Command::Reinit { .. } => "Reinit",
            Command::Restart { .. } => "Restart",
            Command::Restarted { .. } => "Restarted",
            Command::AcceptCopy { .. } => "AcceptCopy",
            Command::Switchover { .. } => "Switchover",
            Command::CancelSwitchover { .. } => "CancelSwitchover",
            Command::Pause { .. } => "Pause",
            Command::Resume { .. } => "Resume",
            Command::Renewed { .. } => "Renewed",
            Command::Maintenance { .. } => "Maintenance",
            Command::EndMaintenance { .. } => "EndMaintenance",
            Command::Forgive { .. } => "Forgive",
            Command::Rejoined { .. } => "Rejoined",
        }
    }

    /// The lowest format whose readers understand it: it is written with this number. Members of an older version
    /// refuse an entry above their own, and take all the others.
    pub fn format(&self) -> u32 {
        FIRST
    }

    /// The fence that it is about.
    pub fn fence(&self) -> Option<FenceId> {
        match self {
            Command::Order { fence, .. }
            | Command::OrderDone { fence, .. }
            | Command::NextLevel { fence, .. }
            | Command::Refute { fence, .. }
            | Command::Assisting { fence, .. }
            | Command::Assisted { fence, .. }
            | Command::Lift { fence, .. }
            | Command::CloseFence { fence } => Some(*fence),
            _ => None,
        }
    }

    /// The service that it is about.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Command::Create { service, .. }
            | Command::Appoint { service, .. }
            | Command::Promoting { service, .. }
            | Command::Installed { service, .. }
            | Command::Release { service, .. }
            | Command::DenyLease { service, .. }
            | Command::PassOver { service, .. }
            | Command::WaitedOut { service, .. }
            | Command::Progress { service, .. }
            | Command::AcceptLoss { service, .. }
            | Command::Reinit { service, .. }
            | Command::Restart { service, .. }
            | Command::Restarted { service, .. }
            | Command::AcceptCopy { service, .. }
            | Command::Switchover { service, .. }
            | Command::CancelSwitchover { service, .. }
            | Command::Pause { service, .. }
            | Command::Resume { service, .. }
            | Command::Renewed { service, .. }
            | Command::Rejoined { service, .. } => Some(service),
            _ => None,
        }
    }
}
