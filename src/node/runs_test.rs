//! The runs of agents on one host: what is begun, once and for how long, and what is said of its end.

use super::context_test::{NOW, desk};
use super::desk::Desk;
use super::reading::Reading;
use super::runs::Runs;
use super::{Effect, PeerRequest, PeerResponse, RunKey};
use crate::ledger::world_test::*;
use crate::ledger::{ClaimState, Command};
use crate::types::{AgentAction, AgentOutcome, AgentRun, Instant};
use std::sync::Arc;
use std::time::Duration;

/// The parts of w1 that an order takes; db2 leads.
struct Executor {
    world: World,
    desk: Desk,
    reading: Reading,
    runs: Runs,
}

impl Executor {
    /// db1 is fenced, and w1 is to switch it off.
    fn new() -> Executor {
        let mut world = World::dead();
        world.done(order("ipmi", AgentAction::Off, Some(0)));
        let mut desk = desk("w1", W1, &world.state);
        (desk.context.leader, desk.context.leads) = (Some(node("db2")), None);
        Executor { world, desk, reading: Reading::default(), runs: Runs::default() }
    }

    /// What leaves when everything is compared; the leader answers that the order has been running for so long.
    fn settle(&mut self, age: Option<Duration>) -> Vec<Effect> {
        self.desk.context.state = Arc::new(self.world.state.clone());
        let mut left = Vec::new();
        for _ in 0..2 {
            self.reading.finish(&self.desk.context);
            self.reading.tidy(&self.desk.context);
            self.runs.settle(&mut self.desk, &mut self.reading);
            self.runs.bring_results(&mut self.desk);
            for effect in self.desk.mail.take() {
                if let Effect::Ask { id, request: PeerRequest::Read { .. }, .. } = &effect {
                    let answer = PeerResponse::Read { term: TERM, applied: self.desk.context.state.applied, age };
                    self.reading.answered(&self.desk.context, *id, Ok(answer));
                }
                left.push(effect);
            }
        }
        left
    }
}

/// The limits of the runs that begin.
fn begun(effects: &[Effect]) -> Vec<Duration> {
    let limit = |e: &Effect| if let Effect::RunAgent { limit, .. } = e { Some(*limit) } else { None };
    effects.iter().filter_map(limit).collect()
}

/// How the order ended, as it is proposed.
fn said(effects: &[Effect]) -> Vec<AgentOutcome> {
    let done = |e: &Effect| match e {
        Effect::Ask { request: PeerRequest::Propose(command), .. } => match &**command {
            Command::OrderDone { run, .. } => Some(run.outcome),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(done).collect()
}

fn run(outcome: AgentOutcome) -> AgentRun {
    AgentRun { outcome, tries: 1, took: Duration::from_millis(10), output: String::new() }
}

const ORDER: RunKey = RunKey::Order { fence: FENCE, order: 0 };

#[test]
fn an_order_is_begun_once_and_for_the_rest_of_its_time() {
    let mut w1 = Executor::new();
    let timeout = w1.desk.context.state.agent_timeout(&"ipmi".parse().expect("a valid name"));
    let age = Duration::from_secs(1);
    let limits = begun(&w1.settle(Some(age)));
    assert_eq!(limits.len(), 1);
    assert!(limits[0] < timeout - age, "drift and what it has spent: {:?} of {timeout:?}", limits[0]);
    assert!(begun(&w1.settle(Some(age))).is_empty(), "it runs");
}

#[test]
fn an_order_whose_time_is_over_is_never_begun_and_that_is_said() {
    let mut w1 = Executor::new();
    let effects = w1.settle(Some(Duration::from_secs(8)));
    assert_eq!((begun(&effects), said(&effects)), (vec![], vec![AgentOutcome::NotBegun]));
}

#[test]
fn an_order_that_the_leader_does_not_know_is_never_begun() {
    let mut w1 = Executor::new();
    let effects = w1.settle(None);
    assert_eq!((begun(&effects), said(&effects)), (vec![], vec![AgentOutcome::NotBegun]));
}

#[test]
fn a_result_is_said_until_the_ledger_has_it() {
    let mut w1 = Executor::new();
    w1.settle(Some(Duration::ZERO));
    w1.runs.ended(NOW, ORDER, run(AgentOutcome::Succeeded));
    assert_eq!(said(&w1.settle(None)), [AgentOutcome::Succeeded]);
    // Its proposal is lost with its leader.
    w1.desk.mail.forget();
    assert_eq!(said(&w1.settle(None)), [AgentOutcome::Succeeded]);
    w1.world.done(ended(0, AgentOutcome::Succeeded));
    w1.desk.mail.forget();
    assert_eq!(said(&w1.settle(None)), []);
}

#[test]
fn an_off_is_ended_when_its_node_is_back() {
    let mut w1 = Executor::new();
    w1.settle(Some(Duration::ZERO));
    w1.world.done(join("db1", 2, &[(1, ClaimState::Over { position: None })]));
    let ends = |effects: &[Effect]| effects.iter().filter(|e| **e == Effect::EndAgent { key: ORDER }).count();
    assert_eq!(ends(&w1.settle(None)), 1);
    assert_eq!(ends(&w1.settle(None)), 0, "once");
}

/// Every voter announces what it is going to put in place, and begins only when the ledger has that.
#[test]
fn an_assistant_that_failed_is_tried_again_after_a_pause() {
    let mut w1 = Executor::new();
    let revoke = "revoke".parse().expect("a valid name");
    w1.world = World::with(machine("db1"), |s| s.agents.get_mut(&revoke).expect("configured").everywhere = true);
    w1.world.declare_dead();
    assert_eq!(begun(&w1.settle(None)).len(), 0, "it is announced first");
    w1.world.done(Command::Assisting { fence: FENCE, agent: revoke.clone(), node: node("w1"), incarnation: W1 });
    assert_eq!(begun(&w1.settle(None)).len(), 1);
    let key = RunKey::Assist { fence: FENCE, agent: revoke, stage: Default::default(), action: AgentAction::Off };
    w1.runs.ended(NOW, key, run(AgentOutcome::TimedOut));
    assert_eq!(begun(&w1.settle(None)).len(), 0);
    let due: Vec<Instant> = w1.runs.due().collect();
    assert_eq!(due.len(), 1);
    w1.desk.context.now = due[0];
    assert_eq!(begun(&w1.settle(None)).len(), 1);
}
