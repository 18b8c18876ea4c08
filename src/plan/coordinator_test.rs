//! The coordinator in three situations that a cluster meets seldom: a slow log under the leader, an executor that says
//! nothing more, and a fenced boot that is heard after its successor was appointed.

use super::note::TransferReason;
use super::{Applied, Input, Lead, Monitored, Plan, Row, Step, Timing, coordinate};
use crate::config::Config;
use crate::ledger::world_test::*;
use crate::ledger::{Command, Confirmation, FenceState};
use crate::types::{AgentAction, AgentOutcome, Epoch, Health, Incarnation, Instant, NodeName, PeerView, Round};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const START: Instant = Instant(1_000_000_000_000);
const MS: Duration = Duration::from_millis(1);

/// The leader's place: the ledger's world, and what this node sees and remembers.
struct Leader {
    world: World,
    me: NodeName,
    config: Config,
    timing: Timing,
    lead: Lead,
    applied: Applied,
    rows: BTreeMap<NodeName, Row>,
    monitored: Monitored,
    now: Instant,
}

impl Leader {
    /// `me` leads since long; it hears everybody now.
    fn new(me: &str, world: World) -> Leader {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, me).expect("an example");
        let timing = Timing::new(&config);
        let (lead, applied) = (Lead::new(TERM, Instant(0), Round(0)), Applied::default());
        let (rows, monitored) = (BTreeMap::new(), Monitored::default());
        let mut leader = Leader { world, me: node(me), config, timing, lead, applied, rows, monitored, now: START };
        leader.hears(&[("db1", DB1), ("db2", DB2), ("w1", W1)]);
        leader
    }

    /// Fresh rows of these, and of nobody else.
    fn hears(&mut self, nodes: &[(&str, Incarnation)]) {
        let row =
            |incarnation| Row { at: self.now, incarnation, views: Default::default(), health: Default::default() };
        self.rows = nodes.iter().map(|(name, incarnation)| (node(name), row(*incarnation))).collect();
    }

    fn row(&mut self, name: &str) -> &mut Row {
        self.rows.get_mut(&node(name)).expect("it is heard")
    }

    fn is_slow(&mut self, name: &str) {
        let slow = self.timing.slow_write + MS;
        Arc::make_mut(&mut self.row(name).health).log_write = slow;
    }

    fn plan(&self) -> Plan {
        coordinate(&Input {
            now: self.now,
            me: &self.me,
            state: &self.world.state,
            config: &self.config,
            timing: &self.timing,
            lead: &self.lead,
            applied: &self.applied,
            rows: &self.rows,
            monitored: &self.monitored,
            doubts_itself: false,
        })
    }

    fn proposals(&self) -> Vec<Command> {
        let command = |step| if let Step::Propose(command) = step { Some(command) } else { None };
        self.plan().steps.into_iter().filter_map(command).collect()
    }

    /// Carries the only proposal out.
    fn propose(&mut self) -> Command {
        let mut all = self.proposals();
        let command = all.pop().filter(|_| all.is_empty()).expect("exactly one proposal");
        self.world.done(command.clone());
        command
    }

    /// What the plan would order, by level and agent.
    fn orders(&self) -> Vec<(Option<u32>, String)> {
        let orders = self.proposals().into_iter().flat_map(|command| match command {
            Command::Order { level, orders, .. } => {
                orders.into_iter().map(|o| (level, o.agent.to_string())).collect::<Vec<_>>()
            }
            other => panic!("no order: {other:?}"),
        });
        orders.collect()
    }
}

// A slow log.

#[test]
fn a_leader_whose_log_writes_are_slow_steps_aside() {
    let mut leader = Leader::new("w1", World::new());
    assert_eq!(leader.plan().steps, []);
    leader.is_slow("w1");
    // Not to db1, where the primary is.
    let expected = Step::Transfer { to: node("db2"), why: TransferReason::SlowLog };
    assert_eq!(leader.plan().steps, [expected]);
    leader.lead.last_transfer = Some(leader.now);
    assert_eq!(leader.plan().steps, [], "not again and again: the other may be as slow");
}

#[test]
fn a_slow_leader_stays_where_it_would_do_harm_to_go() {
    let mut leader = Leader::new("w1", World::new());
    leader.is_slow("w1");
    leader.is_slow("db2");
    assert_eq!(leader.plan().steps, [], "nobody is better");
    leader.row("db2").health = Health { self_doubt: true, ..Health::default() }.into();
    assert_eq!(leader.plan().steps, [], "who doubts itself leads no better");
    leader.row("db2").health = Health::default().into();
    assert_eq!(leader.plan().steps.len(), 1);
    let to = Some(node("db2"));
    leader.world.done(Command::Switchover { service: orders(), epoch: Epoch(1), to, who: "a test".to_owned() });
    assert_eq!(leader.plan().steps, [], "never in the middle of a move");
}

// Orders that nobody answers for.

fn ordered_from(executor: &str) -> Leader {
    let mut world = World::dead();
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    assert_eq!(world.state.fences[&FENCE].orders[0].executor, node(executor));
    let mut leader = Leader::new("db2", world);
    leader.hears(&[("db2", DB2), ("w1", W1)]);
    leader.applied.ordered.insert((FENCE, 0), START);
    leader
}

#[test]
fn an_order_whose_executor_says_nothing_expires_and_the_level_goes_on() {
    let mut leader = ordered_from("w1");
    // The agent's own nine seconds on a clock that may be slower, and a second for the report.
    let limit = START + Duration::from_millis(10_090);
    leader.now = limit - MS;
    leader.hears(&[("db2", DB2), ("w1", W1)]);
    assert_eq!(leader.proposals(), []);
    assert!(leader.plan().wakeup.is_some_and(|at| at <= limit), "it would sleep through the end");
    leader.now = limit;
    let Command::OrderDone { run, order: 0, .. } = leader.propose() else { panic!("the order goes on") };
    assert_eq!((run.outcome, run.output.as_str()), (AgentOutcome::TimedOut, "w1 did not report in time"));
    assert!(matches!(leader.propose(), Command::NextLevel { level: 0, .. }));
    assert_eq!(leader.orders(), [(Some(1), "lease".to_owned())]);
}

#[test]
fn an_executor_that_is_gone_may_have_left_an_agent_that_acts() {
    let mut leader = ordered_from("w1");
    // A new start of the daemon knows nothing of the agent that the last one ran.
    leader.world.done(join("w1", 1, &[]));
    leader.now = START + Duration::from_millis(10_089);
    leader.hears(&[("db2", DB2)]);
    assert_eq!(leader.proposals(), []);
    leader.now += MS;
    assert!(matches!(leader.propose(), Command::OrderDone { order: 0, .. }));
}

// Late life.

/// db1 was fenced by its power device, and db2 is installed in epoch 2. w1 leads.
fn succeeded() -> Leader {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    world.done(installed(2, "db2", DB2, at(2, 2000)));
    let mut leader = Leader::new("w1", world);
    leader.applied.fence_confirmed.insert(FENCE, START);
    leader
}

impl Leader {
    /// w1 hears that boot of db1 on one channel.
    fn hears_the_dead(&mut self, boot_number: u32) {
        self.hears(&[("db2", DB2), ("w1", W1)]);
        let view = PeerView { boot: boot("db1", boot_number), ..sees(DB1, "lul").view };
        Arc::make_mut(&mut self.row("w1").views).insert(node("db1"), view);
    }

    /// Refutes the used fence, and carries the orders out that follow.
    fn refuted(mut self) -> Leader {
        self.now = START + Duration::from_secs(60);
        self.hears_the_dead(1);
        let Command::Refute { level: Some(0), by, channel, .. } = self.propose() else { panic!("not refuted") };
        assert_eq!((by, channel.as_str()), (node("w1"), "secondary"));
        self
    }
}

#[test]
fn life_after_the_appointment_fences_at_every_level_at_once_and_the_new_primary_stays() {
    let mut leader = succeeded();
    leader.hears_the_dead(1);
    assert_eq!(leader.proposals(), [], "what was on its way when the power went is no life");
    let mut leader = leader.refuted();
    assert_eq!(leader.world.primary(), (Epoch(2), node("db2")));
    assert_eq!(leader.world.state.fences[&FENCE].state, FenceState::Open);
    let all = [(0, "ipmi"), (1, "lease"), (2, "switch")].map(|(level, agent)| (Some(level), agent.to_owned()));
    assert_eq!(leader.orders(), all);
    leader.proposals().into_iter().for_each(|command| drop(leader.world.done(command)));
    assert_eq!(leader.world.state.fences[&FENCE].orders.len(), 4, "each once");
    leader.applied.ordered.extend((1..=3).map(|order| ((FENCE, order), leader.now)));
    // The lease has ended long ago: its level confirms while the others still run.
    let Command::OrderDone { order: 2, .. } = leader.propose() else { panic!("the lease level says nothing") };
    let fence = &leader.world.state.fences[&FENCE];
    assert!(matches!(fence.confirmed, Some(Confirmation::Level { level: 1, round: 1, .. })), "{:?}", fence.confirmed);
    assert_eq!(leader.world.primary(), (Epoch(2), node("db2")));
}

#[test]
fn a_later_boot_of_the_fenced_node_refutes_nothing() {
    let mut leader = succeeded();
    leader.now = START + Duration::from_secs(60);
    leader.hears_the_dead(2);
    assert_eq!(leader.proposals(), []);
}

#[test]
fn when_every_level_failed_all_are_tried_again_after_a_pause() {
    let mut leader = succeeded().refuted();
    leader.proposals().into_iter().for_each(|command| drop(leader.world.done(command)));
    let failed = |order| ended(order, AgentOutcome::Failed { status: 1 });
    leader.world.done(failed(1));
    leader.world.done(failed(2));
    leader.world.refused(Command::NextLevel {
        fence: FENCE,
        term: TERM,
        level: 0,
        round: 1,
        why: "one of them still runs".to_owned(),
    });
    leader.world.done(failed(3));
    // Both devices failed at once: the other voter has its turn, and then the round is over.
    leader.proposals().into_iter().for_each(|command| drop(leader.world.done(command)));
    leader.world.done(failed(4));
    leader.world.done(failed(5));
    assert!(matches!(leader.propose(), Command::NextLevel { level: 0, round: 1, .. }));
    leader.applied.fence_level.insert(FENCE, leader.now);
    assert_eq!(leader.proposals(), [], "not at once");
    leader.now += leader.timing.retry_max;
    leader.hears_the_dead(1);
    assert_eq!(leader.orders().len(), 3);
}

#[test]
fn before_an_appointment_a_refutation_tries_the_next_level_alone() {
    let mut leader = Leader::new("w1", World::fenced());
    leader.applied.fence_confirmed.insert(FENCE, START);
    let mut leader = leader.refuted();
    assert_eq!(leader.orders(), [(Some(1), "lease".to_owned())]);
    leader.propose();
    let other = leader.world.refused(Command::Order {
        fence: FENCE,
        term: TERM,
        level: Some(2),
        round: 0,
        orders: vec![crate::ledger::NewOrder {
            agent: "switch".parse().expect("valid"),
            action: AgentAction::Off,
            executor: node("w1"),
        }],
    });
    assert_eq!(other, crate::ledger::Refusal::OldLevel { fence: FENCE });
}
