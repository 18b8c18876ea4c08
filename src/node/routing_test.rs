//! Parts of one node together: its part in a fence of a node that held two services, and whom it takes for the leader.

use super::context_test::{NOW, config, start};
use super::{Effect, Event, Node, PeerRequest, PeerResponse, RunKey};
use crate::ledger::world_test::*;
use crate::ledger::{Answer, Command, Entry, Event as LedgerEvent};
use crate::types::{AgentAction, AgentOutcome, AgentRun, Epoch, ServiceName, SystemId, Term, WallTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

fn billing() -> ServiceName {
    "billing".parse().expect("a valid name")
}

/// The same command for the other service.
fn of_billing(mut command: Command) -> Command {
    match &mut command {
        Command::Create { service, .. } | Command::Appoint { service, .. } | Command::Promoting { service, .. } => {
            *service = billing();
        }
        Command::Installed { service, system, .. } => (*service, *system) = (billing(), SystemId(8)),
        other => panic!("{other:?} is about no service"),
    }
    if let Command::Appoint { seals, .. } = &mut command {
        seals.values_mut().for_each(|seal| seal.system = SystemId(8));
    }
    command
}

/// db1 holds both services; the only assistant runs everywhere.
fn two_services() -> World {
    let mut world = World::with(machine("db1"), |settings| {
        settings.services.insert(billing(), true);
        settings.agents.get_mut(&settings.assist[0]).expect("configured").everywhere = true;
    });
    let create = Command::Create { service: orders(), node: node("db1"), boot: boot("db1", 1), incarnation: DB1 };
    world.done(of_billing(create));
    world.done(of_billing(installed(1, "db1", DB1, at(1, 100))));
    world
}

fn daemon(name: &str) -> Node {
    Node::new(config(name), start(name), NOW)
}

/// Gives it an event, and answers what it asks of the others: what it proposes is applied, and its copy is current.
fn tell(node: &mut Node, world: &mut World, event: Event) -> Vec<RunKey> {
    let mut started = Vec::new();
    let mut events = VecDeque::from([event]);
    while let Some(event) = events.pop_front() {
        for effect in node.handle(NOW, event) {
            match effect {
                Effect::RunAgent { key, .. } => started.push(key),
                Effect::Ask { id, request: PeerRequest::Read { .. }, .. } => {
                    let read = PeerResponse::Read { term: TERM, applied: world.state.applied, age: None };
                    events.push_back(Event::Answered { id, response: Ok(read) });
                }
                Effect::Ask { id, request: PeerRequest::Propose(command), .. } => {
                    if !matches!(*command, Command::Assisting { .. }) {
                        continue;
                    }
                    let answer = Answer::Done(world.done(*command.clone()));
                    let (entry, state) = (Entry { at: WallTime(0), command: *command }, world.state.clone());
                    let (entry, applied, state) = (Arc::new(entry), Arc::new(answer.clone()), Arc::new(state));
                    events.push_back(Event::Applied { entry, answer: applied, state });
                    let response = Ok(PeerResponse::Proposed(Box::new(answer)));
                    events.push_back(Event::Answered { id, response });
                }
                _ => {}
            }
        }
    }
    started
}

/// For which new epochs the assistant is run, now that the ledger looks like this. Each run succeeds.
fn stages(node: &mut Node, world: &mut World) -> Vec<BTreeMap<ServiceName, Epoch>> {
    let mut stages = Vec::new();
    let ledger = Event::Ledger { state: Arc::new(world.state.clone()) };
    let mut started = tell(node, world, ledger);
    while let Some(key) = started.pop() {
        let run = AgentRun {
            outcome: AgentOutcome::Succeeded,
            tries: 1,
            took: Duration::from_millis(10),
            output: String::new(),
        };
        started.extend(tell(node, world, Event::AgentEnded { key: key.clone(), run }));
        let RunKey::Assist { stage, action: AgentAction::Off, .. } = key else { panic!("{key:?} is no assistant") };
        stages.push(stage);
    }
    stages
}

#[test]
fn what_only_a_new_primary_can_revoke_is_repeated_for_each_service_that_a_host_takes_over() {
    let mut world = two_services();
    let mut db2 = daemon("db2");
    let mut command = join("db2", 1, &[]);
    if let Command::Join { request, .. } = &mut command {
        *request = db2.membership.request();
    }
    let entry = Arc::new(Entry { at: WallTime(0), command });
    let answer = Arc::new(Answer::Done(LedgerEvent::Joined { incarnation: DB2 }));
    let state = Arc::new(world.state.clone());
    tell(&mut db2, &mut world, Event::Applied { entry, answer, state });
    world.declare_dead();
    assert_eq!(world.state.fences[&FENCE].epochs.len(), 2, "both epochs hang on the dead boot");
    assert_eq!(stages(&mut db2, &mut world), [BTreeMap::new()], "at once, before anything is confirmed");
    world.power_off();
    let checks = || by_fence(hold(&["db2", "w1"]));
    let take_over = [appoint_db2(1, checks()), promoting(2, "db2", DB2), installed(2, "db2", DB2, at(2, 2000))];
    take_over.clone().into_iter().for_each(|command| drop(world.done(of_billing(command))));
    let mut taken = BTreeMap::from([(billing(), Epoch(2))]);
    assert_eq!(stages(&mut db2, &mut world), [taken.clone()]);
    take_over.into_iter().for_each(|command| drop(world.done(command)));
    taken.insert(orders(), Epoch(2));
    assert_eq!(stages(&mut db2, &mut world), [taken], "the second service is revoked as well");
    assert_eq!(stages(&mut db2, &mut world), [], "and nothing twice");
}

/// What an operator reads on a leader that was cut off: not that it leads.
#[test]
fn whoever_has_no_quorum_does_not_say_that_it_leads() {
    let mut w1 = daemon("w1");
    let mut leads = |i_lead| {
        w1.handle(NOW, Event::Leadership { term: Term(6), leader: Some(node("w1")), i_lead });
        let (term, leader) = w1.leader();
        (term, leader.cloned())
    };
    assert_eq!(leads(true), (Term(6), Some(node("w1"))));
    assert_eq!(leads(false), (Term(6), None));
}
