//! What is kept of a fence that finds no level for months: the beginning, the end, and whatever something is still
//! concluded from.

use super::world_test::*;
use super::{Command, Fence, Happening, Incident, IncidentKind, NewOrder, Outcome, StepRecord};
use crate::types::{
    AgentAction, AgentName, AgentOutcome, AgentRun, Epoch, IncidentId, LogIndex, NodeName, ServiceName, WallTime,
};
use std::time::Duration;

fn agent(name: &str) -> AgentName {
    name.parse().expect("a valid name")
}

fn fence(world: &World) -> &Fence {
    world.state.fences[&FENCE].get()
}

/// One round of a fence whose every level fails, with an agent that says much.
fn failed_round(world: &mut World, outcome: AgentOutcome) {
    let (round, term) = (fence(world).round, TERM);
    let levels = world.state.settings.as_ref().expect("seeded").levels.clone();
    while fence(world).round == round {
        for (level, agents) in
            (0u32..).zip(&levels).filter(|(level, _)| fence(world).is_level_due(*level)).collect::<Vec<_>>()
        {
            for agent in agents {
                let orders = vec![NewOrder { agent: agent.clone(), action: AgentAction::Off, executor: node("db2") }];
                let order = fence(world).next_order();
                world.done(Command::Order { fence: FENCE, term, level: Some(level), round, orders });
                let output = "no answer from the device ".repeat(200);
                let run = AgentRun { outcome, tries: 3, took: Duration::from_secs(20), output };
                world.done(Command::OrderDone { fence: FENCE, order, run });
            }
        }
        let (level, why) = (fence(world).level, "it did not confirm".to_owned());
        world.done(Command::NextLevel { fence: FENCE, term, level, round, why });
    }
}

#[test]
fn a_fence_that_finds_no_level_stays_small() {
    let mut world = World::dead();
    for _ in 0..2000 {
        failed_round(&mut world, AgentOutcome::TimedOut);
    }
    let given = fence(&world).next_order();
    assert!(given >= 4000, "{given} orders were given");
    assert!(fence(&world).orders.len() <= 40, "{} orders are kept", fence(&world).orders.len());
    assert_eq!(fence(&world).orders.last().map(|order| order.number), Some(given - 1), "the last of all");
    let incident = world.state.incidents.values().next().expect("one");
    assert!(incident.steps.len() <= 256, "{} steps are kept", incident.steps.len());
    assert!(incident.recorded() > 10_000, "{} steps are counted", incident.recorded());
    assert!(matches!(incident.steps[0].what, Happening::DeclaredDead { .. }), "how it began");
    let bytes = serde_json::to_vec(&world.state).expect("writes").len();
    assert!(bytes <= 1 << 20, "a snapshot has {bytes} bytes");
}

#[test]
fn what_may_be_switched_off_is_known_after_any_number_of_rounds() {
    let mut world = World::dead();
    failed_round(&mut world, AgentOutcome::TimedOut);
    let off: Vec<_> = fence(&world).to_give_back().into_iter().cloned().collect();
    assert!(off.contains(&agent("ipmi")), "{off:?}");
    // Every later order of it was never begun: the first is the last that may have acted.
    for _ in 1..200 {
        failed_round(&mut world, AgentOutcome::NotBegun);
    }
    assert!(fence(&world).orders.len() <= 40, "{} orders are kept", fence(&world).orders.len());
    assert_eq!(fence(&world).to_give_back().into_iter().cloned().collect::<Vec<_>>(), off);
}

fn incident() -> Incident {
    let (kind, subject, outcome) = (IncidentKind::Failover, node("db1"), Outcome::Open);
    let (services, opened, steps) = ([orders()].into(), WallTime(0), Vec::new());
    let settled = Default::default();
    Incident { id: IncidentId(1), kind, subject, services, settled, opened, outcome, steps, forgotten: 0 }
}

fn step(index: u64, what: Happening) -> StepRecord {
    StepRecord { at: WallTime(index), index: LogIndex(index), what }
}

#[test]
fn a_loss_is_named_however_many_rounds_come_after_it() {
    let mut incident = incident();
    let (service, by): (ServiceName, NodeName) = (orders(), node("db2"));
    for index in 0..5000 {
        let what = match index {
            100 => Happening::MayBeLost {
                service: service.clone(),
                epoch: Epoch(1),
                node: node("db1"),
                timeline: crate::types::Timeline(1),
                after: crate::types::Lsn(7),
                by: by.clone(),
            },
            _ => Happening::LevelFailed { fence: FENCE, level: 0, round: index as u32, why: String::new() },
        };
        incident.keep(step(index, what));
    }
    assert!(incident.steps.iter().any(|step| matches!(step.what, Happening::MayBeLost { .. })));
    assert_eq!((incident.steps.len(), incident.recorded()), (256, 5000));
    let new: Vec<_> = incident.steps_after(4990).map(|step| step.index.0).collect();
    assert_eq!(new, (4990..5000).collect::<Vec<_>>(), "what is new to a reader that has the first 4990");
}

#[test]
fn also_steps_that_do_not_repeat_themselves_have_an_end() {
    let mut incident = incident();
    for index in 0..3000 {
        incident.keep(step(index, Happening::FenceClosed { fence: FENCE }));
    }
    assert_eq!((incident.steps.len(), incident.recorded()), (1024, 3000));
    assert_eq!((incident.steps[63].index, incident.steps[64].index), (LogIndex(63), LogIndex(64 + 3000 - 1024)));
}
