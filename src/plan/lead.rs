//! What the coordinator looks at and what it can ask for: its inputs and its plan, as values.

use super::note::{Note, TransferReason};
use super::{Outlook, Twin};
use crate::config::{Config, MOST_MOVES};
use crate::ledger::{
    CheckAnswer, Command, Fence, FenceState, IncidentKind, Order, Phase, Service, Shared, Sighting, State,
};
use crate::types::{
    AgentName, Epoch, FenceId, Health, Incarnation, Instant, NodeName, PeerView, Round, Seal, ServiceName, Sight, Term,
};
use derive_more::Display;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A question of the coordinator to one voter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Display, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Look at this node again, now.
    #[display("look at {target}, incarnation {incarnation}, again (round {round})")]
    Look { target: NodeName, incarnation: Incarnation, term: Term, round: Round },
    /// Say when the confirmed fence holds as far as you can hear, or that it does not. `refuted` numbers the
    /// confirmations of one fence.
    #[display("does fence {fence} hold, as far as you hear?")]
    Check { fence: FenceId, refuted: u32, term: Term },
    /// Close the WAL receiver for good and say where your WAL ends.
    #[display("close your WAL receiver: where does your WAL end, for epoch {epoch}?")]
    Seal { service: ServiceName, epoch: Epoch },
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq, Display)]
pub enum Step {
    #[display("proposes {_0}")]
    Propose(Command),
    #[display("asks {to}: {question}")]
    Ask { to: NodeName, question: Question },
    /// Hand Raft leadership over.
    #[display("hands leadership to {to}: {why}")]
    Transfer { to: NodeName, why: TransferReason },
}

/// What to do, and what is said of it: steps, waits and alarms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub notes: Vec<Note>,
    /// Look again at this moment, even if nothing happens.
    pub wakeup: Option<Instant>,
}

impl Plan {
    pub(super) fn propose(&mut self, command: Command) {
        self.steps.push(Step::Propose(command));
    }

    pub(super) fn ask(&mut self, to: &NodeName, question: Question) {
        self.steps.push(Step::Ask { to: to.clone(), question });
    }

    pub(super) fn say(&mut self, note: Note) {
        self.notes.push(note);
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wakeup = Some(self.wakeup.map_or(at, |before| before.min(at)));
    }
}

/// The latest heartbeat body of one node (the leader's own row included).
#[derive(Clone, Debug)]
pub struct Row {
    pub at: Instant,
    pub incarnation: Incarnation,
    pub views: Arc<BTreeMap<NodeName, PeerView>>,
    pub health: Arc<Health>,
}

impl Row {
    /// Whether it says that its node hears no other on any network. One that doubts itself has only stood still, and has
    /// not listened yet.
    pub fn is_deaf(&self) -> bool {
        !self.views.is_empty() && !self.health.self_doubt && !self.views.values().any(on_a_network)
    }

    /// Whether its node hears the other on a network.
    pub fn hears(&self, node: &NodeName) -> bool {
        self.views.get(node).is_some_and(on_a_network)
    }
}

fn on_a_network(view: &PeerView) -> bool {
    view.channels.iter().any(|(channel, sight)| !channel.is_disk() && *sight == Sight::Up)
}

/// One round of looking again.
#[derive(Clone, Debug)]
pub struct LookRound {
    pub incarnation: Incarnation,
    pub round: Round,
    pub opened: Instant,
    pub answers: BTreeMap<NodeName, Sighting>,
}

/// An answer to a check, and when it came: a voter says what it hears at that moment.
#[derive(Clone, Debug)]
pub struct Checked {
    pub answer: CheckAnswer,
    pub at: Instant,
}

/// What the present leader remembers of its own term. Forgotten with the term.
#[derive(Clone, Debug)]
pub struct Lead {
    pub term: Term,
    pub since: Instant,
    /// The number of the last round; it goes on from term to term.
    pub last_round: Round,
    pub looks: BTreeMap<NodeName, LookRound>,
    /// By fence and number of refutations before.
    pub checks: BTreeMap<(FenceId, u32), BTreeMap<NodeName, Checked>>,
    /// By service and the epoch that is over or ending. `Err`: why it cannot be a candidate.
    pub seals: BTreeMap<(ServiceName, Epoch), BTreeMap<NodeName, Result<Seal, String>>>,
    /// The last renewal granted in this term, by service.
    pub renewed: BTreeMap<ServiceName, (Epoch, Instant)>,
    pub last_transfer: Option<Instant>,
    /// When this leader said last that a node lapsed.
    pub lapse_said: BTreeMap<NodeName, Instant>,
    /// The last epoch of a service that this leader wanted to give, and so every grant of which is in this book.
    pub appointed: BTreeMap<ServiceName, Epoch>,
    /// Joins that this leader refused, because another boot of that name is heard.
    pub twins: BTreeMap<NodeName, Twin>,
}

impl Lead {
    pub fn new(term: Term, since: Instant, last_round: Round) -> Self {
        Lead {
            term,
            since,
            last_round,
            looks: BTreeMap::new(),
            checks: BTreeMap::new(),
            seals: BTreeMap::new(),
            renewed: BTreeMap::new(),
            last_transfer: None,
            lapse_said: BTreeMap::new(),
            appointed: BTreeMap::new(),
            twins: BTreeMap::new(),
        }
    }

    /// This leader proposes it: what it has to remember of that.
    pub fn note_proposed(&mut self, now: Instant, command: &Command) {
        match command {
            Command::OpenFence { target, .. } => drop(self.lapse_said.insert(target.clone(), now)),
            Command::Appoint { service, prior, .. } => {
                self.appointed.insert(service.clone(), prior.next());
            }
            _ => {}
        }
    }

    /// When this leader granted a lease of this epoch last.
    pub fn granted(&self, service: &ServiceName, epoch: Epoch) -> Option<Instant> {
        self.renewed.get(service).filter(|(of, _)| *of == epoch).map(|(_, at)| *at)
    }
}

/// When this node itself applied the entries that waiting counts from (its own clock). Kept on every node, so that a
/// new leader does not begin to wait anew.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub fence_opened: BTreeMap<FenceId, Instant>,
    pub fence_level: BTreeMap<FenceId, Instant>,
    pub fence_confirmed: BTreeMap<FenceId, Instant>,
    pub ordered: BTreeMap<(FenceId, u32), Instant>,
    /// When the present epoch of a service began, or ended.
    pub epoch: BTreeMap<ServiceName, Instant>,
    pub over: BTreeMap<ServiceName, Instant>,
    /// When its ledger heard last how far the primary has written.
    pub progress: BTreeMap<ServiceName, Instant>,
    /// When the last pause of a service ended.
    pub resumed: BTreeMap<ServiceName, Instant>,
    /// When the present pause of a service began.
    pub paused: BTreeMap<ServiceName, Instant>,
    /// When the present maintenance of a node began.
    pub maintenance: BTreeMap<NodeName, Instant>,
    /// When a node failed last as a primary.
    pub failed: BTreeMap<NodeName, Instant>,
    /// When a service moved to another node that nobody had asked for, in the last hour.
    pub moves: BTreeMap<ServiceName, VecDeque<Instant>>,
}

/// Moves are counted for so long, and no more of them than can be asked for.
const MOVES_WITHIN: Duration = Duration::from_secs(3600);

impl Applied {
    /// This node has applied what leads from one copy of the ledger to the next.
    pub fn note(&mut self, before: &State, after: &State, now: Instant) {
        for (id, fence) in &after.fences {
            let old = before.fences.get(id);
            if old.is_none() {
                self.fence_opened.insert(*id, now);
            }
            if old.is_none_or(|o| (o.level, o.round) != (fence.level, fence.round)) {
                self.fence_level.insert(*id, now);
            }
            let confirmed = fence.state == FenceState::Confirmed;
            if confirmed && old.is_none_or(|o| o.state != FenceState::Confirmed || o.refuted != fence.refuted) {
                self.fence_confirmed.insert(*id, now);
            }
            for order in new_orders(old.map(Shared::get), fence) {
                self.ordered.insert((*id, order.number), now);
            }
        }
        for (name, service) in &after.services {
            let old = before.services.get(name);
            if old.is_none_or(|o| o.epoch != service.epoch) {
                self.epoch.insert(name.clone(), now);
            }
            if old.is_none_or(|o| o.known_end != service.known_end) {
                self.progress.insert(name.clone(), now);
            }
            if service.paused && old.is_none_or(|old| old.pause != service.pause || !old.paused) {
                self.paused.insert(name.clone(), now);
            }
            if old.is_some_and(|o| o.paused) && !service.paused {
                self.resumed.insert(name.clone(), now);
            }
            if service.over.is_some() && old.is_none_or(|o| o.over.is_none() || o.epoch != service.epoch) {
                self.over.insert(name.clone(), now);
            }
            if old.is_some_and(|old| has_moved(after, old, service)) {
                let moves = self.moves.entry(name.clone()).or_default();
                moves.push_back(now);
                if moves.len() > MOST_MOVES as usize {
                    moves.pop_front();
                }
            }
        }
        for (node, word) in &after.maintenance {
            if before.maintenance.get(node).is_none_or(|old| old.number != word.number) {
                self.maintenance.insert(node.clone(), now);
            }
        }
        for (node, record) in &after.nodes {
            if record.failures > before.nodes.get(node).map_or(0, |old| old.failures) {
                self.failed.insert(node.clone(), now);
            }
        }
        let kept = |id: &FenceId| after.fences.contains_key(id);
        self.fence_opened.retain(|id, _| kept(id));
        self.fence_level.retain(|id, _| kept(id));
        self.fence_confirmed.retain(|id, _| kept(id));
        self.ordered.retain(|(id, number), _| after.fences.get(id).is_some_and(|f| f.order(*number).is_some()));
    }
}

impl Applied {
    /// How often the service moved within the last hour although nobody had asked for it.
    pub fn moves_of(&self, service: &ServiceName, now: Instant) -> usize {
        let moves = self.moves.get(service).into_iter().flatten();
        moves.filter(|at| now.since(**at) < MOVES_WITHIN).count()
    }
}

/// Whether a node took over from another one, in no planned move.
fn has_moved(state: &State, before: &Service, service: &Service) -> bool {
    let is_new = service.phase == Phase::Installed && before.history.last() != service.history.last();
    let [.., from, to] = service.history.as_slice() else { return false };
    let incident = service.incident.and_then(|id| state.incidents.get(&id));
    is_new && from.node != to.node && incident.is_none_or(|incident| incident.kind != IncidentKind::Switchover)
}

/// What this node's own monitors found of the devices: a device that answers again after it did not is worth a round.
#[derive(Clone, Debug, Default)]
pub struct Monitored {
    failing: BTreeSet<(AgentName, NodeName)>,
    good_again: BTreeMap<NodeName, Instant>,
}

impl Monitored {
    /// How the monitor of an agent for a node ended.
    pub fn note(&mut self, agent: AgentName, target: NodeName, works: bool, now: Instant) {
        let device = (agent, target);
        if !works {
            self.failing.insert(device);
        } else if self.failing.remove(&device) {
            self.good_again.insert(device.1, now);
        }
    }

    /// Whether a device of the node was found to answer again after `since`.
    pub fn is_good_since(&self, target: &NodeName, since: Instant) -> bool {
        self.good_again.get(target).is_some_and(|at| *at > since)
    }
}

/// The orders that came to a fence since `old`.
pub fn new_orders<'a>(old: Option<&Fence>, fence: &'a Fence) -> &'a [Order] {
    let known = old.map_or(0, Fence::next_order);
    &fence.orders[fence.orders.partition_point(|order| order.number < known)..]
}

/// The coordinator's times.
#[derive(Clone, Debug)]
pub struct Timing {
    pub acceptable_pause: Duration,
    /// How old a heartbeat's word may be and still be of now.
    pub recent: Duration,
    /// From the last heartbeat to `lost`, at the worst.
    pub detection: Duration,
    pub retry: Duration,
    pub retry_max: Duration,
    /// How long to wait for sealed reports of further candidates once one is there.
    pub choose: Duration,
    /// How long a planned move may take from the release to a candidate that has reached the final position.
    pub catch_up: Duration,
    /// The same of a holder that gave its epoch up by itself.
    pub reach: Duration,
    /// How long after leadership was handed over it is not handed over again, and how long a join that was refused is told.
    pub transfer: Duration,
    pub slow_write: Duration,
    pub renew: Duration,
    pub grace: Duration,
    pub install: Duration,
}

impl Timing {
    /// From the configuration.
    pub fn new(config: &Config) -> Self {
        let patience = config.detector.patience();
        let long = long_after_a_pause(config);
        Timing {
            acceptable_pause: config.detector.acceptable_pause,
            recent: patience.recent(),
            detection: patience.worst(),
            retry: config.fencing.retry,
            retry_max: config.fencing.retry_max,
            choose: config.failover.choose,
            catch_up: config.failover.catch_up,
            reach: long,
            transfer: long,
            slow_write: config.raft.slow_write,
            renew: config.lease.renew,
            grace: config.lease.grace,
            install: config.failover.install,
        }
    }
}

impl Timing {
    /// How long a living node may take to answer.
    pub fn answer(&self) -> Duration {
        self.acceptable_pause * 2 + self.detection
    }
}

/// So long after a pause that is acceptable whatever it delayed has been made up for.
fn long_after_a_pause(config: &Config) -> Duration {
    config.detector.acceptable_pause * 5
}

/// How long a standby may get nothing before it is stopped and made to rejoin.
pub fn stuck_after(config: &Config) -> Duration {
    long_after_a_pause(config).max(Duration::from_secs(5))
}

/// Everything that the coordinator sees.
pub struct Input<'a> {
    pub now: Instant,
    pub me: &'a NodeName,
    pub state: &'a State,
    pub config: &'a Config,
    pub timing: &'a Timing,
    pub lead: &'a Lead,
    pub applied: &'a Applied,
    pub rows: &'a BTreeMap<NodeName, Row>,
    pub monitored: &'a Monitored,
    /// S10: this leader doubts itself and judges nobody.
    pub doubts_itself: bool,
}

impl Input<'_> {
    /// What any node in this leader's place would see.
    pub fn outlook(&self) -> Outlook<'_> {
        let Input { now, me, state, config, timing, applied, rows, .. } = *self;
        Outlook { now, me, state, config, timing, applied, rows }
    }

    /// A node's row, if it is recent and of its present incarnation.
    pub fn fresh(&self, node: &NodeName) -> Option<&Row> {
        self.outlook().fresh(node)
    }

    /// Whether this leader sees the node as living: up in the ledger, and not suspected by its own view.
    pub fn is_living(&self, node: &NodeName) -> bool {
        self.outlook().is_living(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Basis;
    use crate::ledger::world_test::*;

    #[test]
    fn moves_that_nobody_asked_for_count_for_an_hour() {
        let minutes = |n: u64| Instant(0) + Duration::from_secs(60 * n);
        let (service, epoch, to, who) = (orders(), Epoch(1), Some(node("db2")), String::new());
        let asked = Command::Switchover { service, epoch, to, who };
        for (first, counted) in [(None, [1, 1, 0]), (Some(asked), [0, 0, 0])] {
            let (mut world, mut applied) = (World::new(), Applied::default());
            applied.note(&State::default(), &world.state, minutes(0));
            let installed = [promoting(2, "db2", DB2), installed(2, "db2", DB2, at(2, 2000))];
            let moves = [release(1, 1, DB1), appoint_db2(1, Basis::Released)].into_iter().chain(installed);
            for command in first.into_iter().chain(moves) {
                let before = world.state.clone();
                world.done(command);
                applied.note(&before, &world.state, minutes(1));
            }
            assert_eq!([1, 60, 61].map(|then| applied.moves_of(&orders(), minutes(then))), counted);
        }
    }
}
