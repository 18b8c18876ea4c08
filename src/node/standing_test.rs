//! Which of the things that are in force on a host the ledger does not want, and what is asked to find them.

use super::{Undo, Unwanted, in_force_orders, undone};
use crate::config::Config;
use crate::ledger::world_test::*;
use crate::ledger::{ClaimState, Command, FenceState, State};
use crate::types::{AgentAction, AgentName, AgentOutcome, AgentRun, FenceId, NodeName, Standing};
use std::time::Duration;

fn revoke() -> AgentName {
    "revoke".parse().expect("a valid name")
}

/// db1 was declared dead and is fenced (fence 1); the assistant runs on every voter.
fn fenced() -> World {
    let mut world = World::with(machine("db1"), |settings| {
        settings.agents.get_mut(&revoke()).expect("configured").everywhere = true;
    });
    world.declare_dead();
    world
}

fn assisted(name: &str, action: AgentAction) -> Command {
    let run =
        AgentRun { outcome: AgentOutcome::Succeeded, tries: 1, took: Duration::from_millis(10), output: String::new() };
    Command::Assisted { fence: FENCE, agent: revoke(), node: node(name), action, run }
}

fn found(fence: u64, target: Option<&str>) -> (AgentName, Standing) {
    let node = target.map(node);
    (revoke(), Standing { fence: FenceId(fence), node, what: "4 lines".to_owned() })
}

/// What is undone on db2 when it has lines of fence 1 of db1.
fn on_db2(state: &State) -> Vec<Unwanted> {
    undone(state, &node("db2"), &[found(1, Some("db1"))]).into_iter().map(|undo| undo.why).collect()
}

#[test]
fn a_fence_that_is_open_or_confirmed_stays_in_force() {
    let mut world = fenced();
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Open);
    assert_eq!(on_db2(&world.state), [], "before this node has said that it assisted");
    world.done(assisted("db2", AgentAction::Off));
    assert_eq!(on_db2(&world.state), []);
    world.power_off();
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Confirmed);
    assert_eq!(on_db2(&world.state), []);
}

#[test]
fn what_is_left_of_a_closed_fence_is_undone() {
    let mut world = fenced();
    world.power_off();
    world.done(assisted("db2", AgentAction::Off));
    // The node comes back: the fence is void, undone and closed, as it is after every failover that healed.
    world.done(join("db1", 2, &[(1, ClaimState::Over { position: None })]));
    world.done(assisted("db2", AgentAction::On));
    world.done(Command::CloseFence { fence: FENCE });
    assert_eq!(on_db2(&world.state), [Unwanted::Closed]);
}

#[test]
fn while_a_fence_is_taken_back_only_what_the_ledger_does_not_know_of_is_undone() {
    for state in [FenceState::Void, FenceState::Lifting] {
        let mut world = fenced();
        world.done(assisted("w1", AgentAction::Off));
        let is = |world: &mut World| world.state.fences.get_mut(&FENCE).expect("it is open").state = state;
        let mut told = World { state: world.state.clone(), ..world };
        is(&mut world);
        assert_eq!(on_db2(&world.state), [Unwanted::Untold { state }], "its run was never told, but another voter's");
        told.done(assisted("db2", AgentAction::Off));
        is(&mut told);
        assert_eq!(on_db2(&told.state), [], "the node does it from the ledger");
        told.done(assisted("db2", AgentAction::On));
        assert_eq!(on_db2(&told.state), [Unwanted::Untold { state }], "it was undone, and is there again");
    }
}

#[test]
fn while_an_order_runs_here_its_end_is_waited_for() {
    let mut world = fenced();
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    world.state.fences.get_mut(&FENCE).expect("it is open").state = FenceState::Void;
    let on = |name: &str| undone(&world.state, &node(name), &[found(1, Some("db1"))]).len();
    assert_eq!((on("w1"), on("db2")), (0, 1), "the order is w1's");
}

#[test]
fn a_fence_that_the_ledger_does_not_have_is_undone() {
    let world = fenced();
    let all = [found(1, Some("db1")), found(2, Some("db1")), found(900, None)];
    let undo = undone(&world.state, &node("db2"), &all);
    let expected = |fence, node: Option<NodeName>| Undo {
        agent: revoke(),
        fence: FenceId(fence),
        node,
        what: "4 lines".to_owned(),
        why: Unwanted::Unknown,
    };
    assert_eq!(undo, [expected(2, Some(node("db1"))), expected(900, None)]);
    assert_eq!(
        undo[1].to_string(),
        "4 lines: of fence 900 of an unknown node, by revoke; the ledger has no such fence, or none any more"
    );
}

#[test]
fn each_thing_is_undone_by_an_on_of_its_agent_under_its_fence() {
    let example = include_str!("../../config/two-databases-and-witness.toml");
    let config = Config::parse(example, "regent.toml", None, "db2").expect("a valid file");
    let undo = |agent: &str, node: Option<NodeName>| {
        let agent = agent.parse().expect("a valid name");
        Undo { agent, fence: FenceId(3), node, what: String::new(), why: Unwanted::Closed }.order(&config)
    };
    let on = undo("firewall", Some(node("db1"))).expect("it is configured");
    assert_eq!((on.action, &on.target, on.fence), (AgentAction::On, &node("db1"), Some(FenceId(3))));
    assert_eq!(on.options["offer:fence_id"], "3");
    assert_eq!(undo("credentials", None).expect("it is configured").target, node("db2"));
    assert_eq!(undo("nobody", None), None);
}

#[test]
fn a_node_has_nothing_of_its_own_fence_in_force() {
    let world = fenced();
    let undo = undone(&world.state, &node("db1"), &[found(1, None)]);
    assert_eq!(undo.len(), 1);
    assert_eq!((&undo[0].why, &undo[0].node), (&Unwanted::Own, &Some(node("db1"))), "the ledger knows whose it is");
}

#[test]
fn a_ledger_that_is_not_there_yet_and_a_hand_at_the_agent_undo_nothing() {
    assert_eq!(on_db2(&State::default()), []);
    assert_eq!(undone(&fenced().state, &node("db2"), &[found(0, None)]), []);
}

/// A fence that is opened after the host was looked at has a higher number than any that was found: nothing is said of
/// it, and what was found is judged as before.
#[test]
fn a_fence_that_is_opened_after_the_look_changes_nothing() {
    let mut world = fenced();
    let seen = [found(1, Some("db1"))];
    world.done(open_fence("w1", 1));
    assert_eq!(world.state.last_fence, FenceId(2));
    assert_eq!(undone(&world.state, &node("db2"), &seen), []);
    assert_eq!(undone(&world.state, &node("db1"), &seen).len(), 1);
}

#[test]
fn agents_that_run_on_every_voter_are_asked_once_for_each_set_of_options() {
    let example = include_str!("../../config/two-databases-and-witness.toml");
    let orders = |text: &str| {
        let config = Config::parse(text, "regent.toml", None, "db2").expect("a valid file");
        let orders = in_force_orders(&config);
        assert!(orders.iter().all(|o| o.action == AgentAction::InForce && o.fence.is_none()));
        orders.into_iter().map(|o| (o.agent.to_string(), o.target.to_string(), o.options)).collect::<Vec<_>>()
    };
    let names = |text: &str| orders(text).into_iter().map(|(agent, target, _)| (agent, target)).collect::<Vec<_>>();
    let pair = |agent: &str, target: &str| (agent.to_owned(), target.to_owned());
    assert_eq!(names(example), [pair("credentials", "db2"), pair("firewall", "db2")], "no power agent");
    assert!(orders(example)[0].2.contains_key("offer:hba_file"));
    let lists = "\n[fencing.agents.credentials.node.db1]\ncrl_file = \"/a\"\n\
                 [fencing.agents.credentials.node.db2]\ncrl_file = \"/a\"\n\
                 [fencing.agents.credentials.node.w1]\ncrl_file = \"/b\"\n";
    let text = format!("{example}{lists}");
    assert_eq!(
        names(&text),
        [pair("credentials", "db2"), pair("credentials", "w1"), pair("firewall", "db2")],
        "what db1 has is asked with db2's"
    );
}
