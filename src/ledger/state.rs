//! The replicated state: nodes, services, fences, incidents, refusals. Only shapes and questions about them; what
//! changes them is `apply` and the files beside it.

use super::{
    AcceptedCopy, AcceptedLoss, CheckAnswer, Claimed, CopyOrder, Incident, Machine, Maintenance, Pause, Refusal,
    RestartOrder, Settings, Shared,
};
use crate::config::LeaseTiming;
use crate::known_bugs::{self, Bug};
use crate::types::{
    AgentAction, AgentKind, AgentName, AgentOutcome, AgentRun, Boot, ChannelName, Epoch, FenceId, Incarnation,
    IncidentId, LogIndex, Lsn, NodeId, NodeName, Position, Round, ServiceName, StopLadder, SystemId, Term, Timeline,
    WallTime,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The whole replicated state. Copies of it share what none of them has changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub settings: Option<Shared<Settings>>,
    /// From Raft's membership: one set, or both halves of a joint one.
    pub voters: Vec<BTreeSet<NodeId>>,
    pub nodes: BTreeMap<NodeName, Shared<NodeRecord>>,
    pub services: BTreeMap<ServiceName, Shared<Service>>,
    pub fences: BTreeMap<FenceId, Shared<Fence>>,
    pub incidents: BTreeMap<IncidentId, Shared<Incident>>,
    /// The latest refusals, newest last.
    pub refusals: VecDeque<Shared<Refused>>,
    pub last_incarnation: Incarnation,
    /// The round of the last verdict on each node, and the term of its leader: none is used twice.
    pub rounds: BTreeMap<NodeName, (Term, Round)>,
    pub last_fence: FenceId,
    pub last_incident: IncidentId,
    /// How often any service was resumed: numbers the resumes.
    pub resumes: u64,
    /// The nodes in maintenance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maintenance: BTreeMap<NodeName, Maintenance>,
    /// How often any node was taken into maintenance: numbers the words.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub maintenances: u64,
    pub applied: LogIndex,
}

/// A refusal as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    pub index: LogIndex,
    pub at: WallTime,
    /// The refused command's name.
    pub command: String,
    pub refusal: Refusal,
}

/// Whether the present incarnation of a node counts as living.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    Up,
    /// A verdict stands. Not taken back for this incarnation.
    Dead,
}

/// One node that has joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub boot: Boot,
    pub incarnation: Incarnation,
    pub machine: Machine,
    pub life: Life,
    /// Boots before the present one, the oldest first: what they send has no effect.
    pub past_boots: VecDeque<Boot>,
    /// The request that it joined with.
    pub request: u64,
    /// How often it failed as a primary: among equals the one that failed less is chosen.
    pub failures: u32,
}

/// Who holds an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub node: NodeName,
    pub boot: Boot,
    pub incarnation: Incarnation,
}

/// How far the holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Epoch 1: the database is being made.
    Creating,
    Appointed,
    /// About to end recovery, on this timeline.
    Promoting {
        timeline: Timeline,
    },
    /// It accepted a write.
    Installed,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Phase::Creating => f.write_str("creating"),
            Phase::Appointed => f.write_str("appointed"),
            Phase::Promoting { timeline } => write!(f, "promoting to timeline {timeline}"),
            Phase::Installed => f.write_str("installed"),
        }
    }
}

/// How an epoch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    Released {
        position: Option<Position>,
        /// Said by a later boot or incarnation at its join.
        at_join: bool,
        /// Its holder could not renew its lease, and nothing else.
        #[serde(default)]
        lapsed: bool,
        /// Its holder left in order: whoever has not reached its final position would lose what that one brings back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leaving: bool,
    },
    /// Its appointee had no lease and could get none any more (`pass_over.rs`).
    PassedOver,
}

impl Over {
    /// Where its holder said that WAL ends.
    pub fn position(&self) -> Option<Position> {
        match self {
            Over::Released { position, .. } => *position,
            Over::PassedOver => None,
        }
    }

    /// Whether its holder left in order.
    pub fn is_leave(&self) -> bool {
        matches!(self, Over::Released { leaving: true, .. })
    }
}

/// A planned move of the present epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub to: Option<NodeName>,
    pub incident: IncidentId,
}

/// A past or present epoch, for lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub epoch: Epoch,
    pub node: NodeName,
    /// The timeline on which it wrote, and where that began.
    pub start: Position,
}

/// A timeline that an appointee said it would begin, and of which nobody knows whether it accepted a write there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub epoch: Epoch,
    pub node: NodeName,
    /// Where its WAL ended when it was chosen; 0 where it was chosen without a report.
    pub after: Lsn,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub epoch: Epoch,
    pub holder: Option<Holder>,
    /// The term of the leader that appointed it.
    #[serde(default)]
    pub appointed_in: Term,
    /// Its appointee gets no lease any more (`pass_over.rs`).
    #[serde(default)]
    pub denied: bool,
    pub phase: Phase,
    /// `None`: the epoch goes on (or it is 0).
    pub over: Option<Over>,
    /// The machine of the holder's boot.
    #[serde(default)]
    pub machine: Machine,
    /// A later boot of the holder's node says that the epoch is over, and nothing proves it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claimed>,
    pub system: Option<SystemId>,
    /// The timeline that was installed last: who is appointed descends from it. 0 before the first.
    pub timeline: Timeline,
    /// Timelines that were said in a `Promoting` and not installed. Their numbers are never given again: two timelines of
    /// one number are one to pg_rewind (H2.7). Their writes come first at a choice, and are named when they are lost.
    pub begun: BTreeMap<Timeline, Begun>,
    /// How often each node gave an appointment back before it was installed, since an epoch was installed last.
    pub failed: BTreeMap<NodeName, u32>,
    /// Where the WAL of the last installed epoch ended, if its holder said so in its final word.
    pub final_end: Option<Position>,
    /// How far it was heard to reach at least, some seconds late; the furthest is what voters remember.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_end: Option<Position>,
    /// A person's word on the next appointment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_loss: Option<AcceptedLoss>,
    /// A person's word on whose data win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_copy: Option<AcceptedCopy>,
    /// Whose data are to be copied anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub to_copy: BTreeMap<NodeName, CopyOrder>,
    /// How many such orders there were.
    #[serde(default)]
    pub copy_orders: u64,
    /// Whose database is to be restarted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub to_restart: BTreeMap<NodeName, RestartOrder>,
    /// How many such orders there were.
    #[serde(default)]
    pub restart_orders: u64,
    /// Where WAL stood when the last appointee was chosen.
    pub sealed_at: Lsn,
    pub moving: Option<Move>,
    pub paused: bool,
    /// The word for it; `None` where an earlier version paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// The number of the `Resume` after which the holder has not renewed yet: `lease` proves nothing (H1.6).
    pub unproven_resume: Option<u64>,
    pub history: Vec<EpochRecord>,
    /// The incident in which the present move or failover is recorded.
    pub incident: Option<IncidentId>,
}

impl Service {
    /// The number of the next timeline, above every one that was ever begun or said to be.
    pub fn next_timeline(&self, own: Timeline) -> Timeline {
        let said = self.begun.keys().next_back().filter(|_| !known_bugs::has(Bug::NumberGivenTwice));
        let said = said.copied().unwrap_or_default();
        Timeline(own.max(self.timeline).max(said).0 + 1)
    }
}

/// How far a fence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceState {
    /// Levels are being tried.
    Open,
    /// A level (or a person) confirmed.
    Confirmed,
    /// A new boot of the node came, or all its epochs ended otherwise: it may no longer be used.
    Void,
    /// What it set is being undone.
    Lifting,
    Closed,
}

impl std::fmt::Display for FenceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FenceState::Open => "open",
            FenceState::Confirmed => "confirmed",
            FenceState::Void => "void",
            FenceState::Lifting => "being lifted",
            FenceState::Closed => "closed",
        })
    }
}

/// What confirmed a fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    Level { level: u32, round: u32, kinds: BTreeSet<AgentKind> },
    Human { who: String, force: bool },
}

impl Confirmation {
    /// Whether any heartbeat of that boot refutes it (power, a person), or only a writable database does.
    pub fn demands_silence(&self) -> bool {
        match self {
            Confirmation::Level { kinds, .. } => kinds.contains(&AgentKind::Power),
            Confirmation::Human { .. } => true,
        }
    }

    /// Whether it rests on the wait for the lease, with or without more.
    pub fn is_by_lease(&self) -> bool {
        matches!(self, Confirmation::Level { kinds, .. } if kinds.contains(&AgentKind::Lease))
    }

    /// A forced human confirmation is not looked at again.
    pub fn is_forced(&self) -> bool {
        matches!(self, Confirmation::Human { force: true, .. })
    }
}

/// How far one order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    Running,
    Done { run: AgentRun },
}

/// One committed run of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub number: u32,
    pub agent: AgentName,
    pub action: AgentAction,
    pub executor: NodeName,
    pub executor_incarnation: Incarnation,
    pub term: Term,
    pub level: Option<u32>,
    pub round: u32,
    pub state: OrderState,
}

impl Order {
    /// Whether it was begun, or may be: an order that never began says nothing about its agent.
    pub fn was_begun(&self) -> bool {
        !matches!(&self.state, OrderState::Done { run } if run.outcome == AgentOutcome::NotBegun)
    }

    /// Whether it may still act.
    pub fn is_running(&self) -> bool {
        self.state == OrderState::Running
    }

    /// Whether something may be as this order wants it. An `off` that was begun may have worked whatever it said; of an
    /// `on` only success counts.
    pub fn is_lasting(&self) -> bool {
        match self.action {
            AgentAction::Off => self.was_begun() && !self.agent.is_lease(),
            _ => self.is_running() || self.has_succeeded(),
        }
    }

    /// Whether its agent has said that it did what was ordered.
    pub fn has_succeeded(&self) -> bool {
        matches!(&self.state, OrderState::Done { run } if run.outcome == AgentOutcome::Succeeded)
    }
}

/// What a fence rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A verdict, by this round of the leader of this term.
    Verdict { term: Term, round: Round },
    /// The leader of this term waited for a renewal in vain.
    Lapse { term: Term },
    /// A person's order.
    Order,
}

fn is_none_yet(count: &u64) -> bool {
    *count == 0
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One fence of one boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fence {
    pub id: FenceId,
    pub target: NodeName,
    pub boot: Boot,
    pub incident: IncidentId,
    pub cause: Cause,
    /// The epochs that hung on this boot when it was opened.
    pub epochs: BTreeMap<ServiceName, Epoch>,
    pub state: FenceState,
    pub level: u32,
    pub round: u32,
    /// By number, ascending. What is over and tells nothing any more is forgotten (`bounds.rs`).
    pub orders: Vec<Order>,
    /// How many times `on` failed.
    #[serde(default)]
    pub on_failed: u32,
    pub confirmed: Option<Confirmation>,
    /// Voters that still heard the node on some channel when it was declared dead: the check needs each of them.
    pub heard_by: BTreeMap<NodeName, Incarnation>,
    /// Assistants that were tried, per voter; removed when undone there.
    pub assisted: BTreeMap<NodeName, BTreeSet<AgentName>>,
    /// An appointment rests on it.
    pub used: bool,
    /// It was lifted by a rule or a person that leaves off what is off.
    pub stays_off: bool,
    /// What was ordered before this number gave no power back: a person has said so since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_power_at: u32,
    pub refuted: u32,
    /// Refuted after an appointment rested on it: from this round on every level is tried at once.
    pub all_levels_from: Option<u32>,
    /// The wait for the lease had confirmed it, and was refuted then: it proves nothing about that boot any more.
    #[serde(default)]
    pub lease_refuted: bool,
    /// Levels that said they had succeeded while another node fell silent, and which: until that one joins again they
    /// are neither tried nor believed.
    #[serde(default)]
    pub struck: BTreeMap<u32, NodeName>,
    /// The last check answers, for the explanation.
    pub checks: BTreeMap<NodeName, CheckAnswer>,
    /// The channel on which life was seen last after a confirmation.
    pub last_life: Option<ChannelName>,
}

impl Fence {
    /// The number of the next order. The last one is always kept.
    pub fn next_order(&self) -> u32 {
        self.orders.last().map_or(0, |last| last.number + 1)
    }

    /// The order of this number, where it is kept.
    pub fn order(&self, number: u32) -> Option<&Order> {
        let at = self.orders.binary_search_by_key(&number, |order| order.number).ok()?;
        self.orders.get(at)
    }

    pub(super) fn order_mut(&mut self, number: u32) -> Option<&mut Order> {
        let at = self.orders.binary_search_by_key(&number, |order| order.number).ok()?;
        self.orders.get_mut(at)
    }

    /// Whether an order of this action may still act.
    pub fn has_running(&self, action: AgentAction) -> bool {
        self.orders.iter().any(|o| o.action == action && o.is_running())
    }

    /// Agents that may have switched something off and have not switched it on since: `on` is ordered once for each `off`,
    /// and again where it failed.
    pub fn to_give_back(&self) -> BTreeSet<&AgentName> {
        let counts = |o: &&Order| o.is_lasting() && !(o.has_succeeded() && self.is_doubted(o));
        let lasting = self.orders.iter().filter(counts);
        let last: BTreeMap<_, _> = lasting.map(|order| (&order.agent, order.action)).collect();
        last.into_iter().filter(|(_, action)| *action == AgentAction::Off).map(|(agent, _)| agent).collect()
    }

    /// Whether a person has said since that the node has no power all the same.
    fn is_doubted(&self, order: &Order) -> bool {
        order.action == AgentAction::On && order.number < self.without_power_at
    }

    /// Whether an agent of this level may be told to act in the present round.
    pub fn is_level_due(&self, level: u32) -> bool {
        self.tries_every_level() || level == self.level
    }

    /// No level waits for another any more: each has failed once, or was refuted under an appointment.
    pub fn tries_every_level(&self) -> bool {
        self.round > 0 || self.all_levels_from.is_some()
    }

    /// Whether no agent was ever told to act for it.
    pub fn is_untouched(&self) -> bool {
        self.orders.is_empty() && self.assisted.is_empty()
    }

    /// Whether it still needs work (levels, lifting).
    pub fn is_open(&self) -> bool {
        self.state != FenceState::Closed
    }
}

impl State {
    /// The ladder at the end of a lease on a host whose file says this: what the ledger makes of it, and the file's own
    /// where this copy knows no settings yet.
    pub fn lease_ladder(&self, written: &LeaseTiming) -> StopLadder {
        self.settings.as_ref().map_or(written.ladder(), |settings| settings.lease_ladder(written))
    }

    /// How long one run of this agent may take; nothing where the cluster was seeded without it.
    pub fn agent_timeout(&self, agent: &AgentName) -> Duration {
        self.settings.as_ref().and_then(|s| s.agents.get(agent)).map_or(Duration::ZERO, |a| a.timeout)
    }

    /// The present record of a node if `incarnation` is its present one.
    pub fn present(&self, node: &NodeName, incarnation: Incarnation) -> Option<&NodeRecord> {
        self.nodes.get(node).map(Shared::get).filter(|n| n.incarnation == incarnation)
    }

    /// Whether this boot of the node may be under a fence that acts or has acted.
    pub fn is_fenced(&self, node: &NodeName, boot: &Boot) -> bool {
        self.fences.values().any(|f| {
            &f.target == node && &f.boot == boot && matches!(f.state, FenceState::Open | FenceState::Confirmed)
        })
    }

    /// Whether an `off` against this node may still land (H1.11), whatever boot it was meant for.
    pub fn off_may_land(&self, node: &NodeName) -> bool {
        self.fences.values().any(|f| &f.target == node && f.has_running(AgentAction::Off))
    }

    /// The services whose present epoch hangs on this boot of this node: held, or appointed, and not over.
    pub fn epochs_of(&self, node: &NodeName, boot: &Boot) -> BTreeMap<ServiceName, Epoch> {
        self.services
            .iter()
            .filter(|(_, s)| s.over.is_none())
            .filter(|(_, s)| s.holder.as_ref().is_some_and(|h| &h.node == node && &h.boot == boot))
            .map(|(name, s)| (name.clone(), s.epoch))
            .collect()
    }

    /// Whether what confirmed the fence, or is being tried, takes the power of its node away.
    pub fn takes_power(&self, fence: &Fence) -> bool {
        if let Some(confirmation) = &fence.confirmed {
            return confirmation.demands_silence();
        }
        let Some(settings) = &self.settings else { return false };
        let is_power = |agent| settings.agents.get(agent).is_some_and(|a| a.kind == AgentKind::Power);
        let tried = (0u32..).zip(&settings.levels).filter(|(level, _)| fence.is_level_due(*level));
        tried.flat_map(|(_, agents)| agents).any(is_power)
    }

    /// Whether the service's holder is being fenced by what leaves it alive: what it acknowledges is still received.
    pub fn is_received_from(&self, service: &Service) -> bool {
        let fence = self.fence_of(service).filter(|_| service.over.is_none());
        fence.is_some_and(|fence| fence.state == FenceState::Open && !self.takes_power(fence))
    }

    /// The fence that stands between a service and its next epoch.
    pub fn fence_of(&self, service: &Service) -> Option<&Fence> {
        let holder = service.holder.as_ref()?;
        self.fences.values().rev().map(Shared::get).find(|f| {
            f.target == holder.node
                && f.boot == holder.boot
                && matches!(f.state, FenceState::Open | FenceState::Confirmed)
        })
    }
}
