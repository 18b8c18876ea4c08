//! Orders, the built-in agent `lease`, new boots and joins: what a fence may do, and what takes it back.

use super::world_test::*;
use super::{Basis, ClaimState, Command, Event, FenceState, Machine, Over, Refusal};
use crate::types::{AgentAction, AgentOutcome, Epoch, Incarnation, Term};

const OFF: AgentAction = AgentAction::Off;
const ON: AgentAction = AgentAction::On;
const SUCCEEDED: AgentOutcome = AgentOutcome::Succeeded;

fn lift() -> Command {
    Command::Lift { fence: FENCE, who: "the operator".to_owned(), power_on: true }
}

/// db1 is dead and its power agent failed: the second level, `lease`, is to be tried.
fn at_lease(mut world: World) -> World {
    world.declare_dead();
    world.done(next_level(0));
    world
}

fn proves_nothing(word: &str, refusal: &Refusal) {
    let Refusal::LeaseProvesNothing { why, .. } = refusal else { panic!("{refusal}") };
    assert!(why.contains(word), "{why}");
}

// Orders.

#[test]
fn an_order_is_given_once() {
    let mut world = World::dead();
    world.done(order("ipmi", OFF, Some(0)));
    assert_eq!(world.refused(order("ipmi", OFF, Some(0))), Refusal::OldLevel { fence: FENCE });
    world.done(ended(0, AgentOutcome::Failed { status: 1 }));
    assert_eq!(world.refused(order("ipmi", OFF, Some(0))), Refusal::OldLevel { fence: FENCE }, "ended is given too");
    let twice = world.refused(ended(0, SUCCEEDED));
    assert!(matches!(twice, Refusal::FenceState { .. }), "an order ends once: {twice}");
}

#[test]
fn one_command_does_not_order_the_same_run_twice() {
    let mut world = World::dead();
    let mut command = order("ipmi", OFF, Some(0));
    let Command::Order { orders, .. } = &mut command else { unreachable!() };
    orders.push(orders[0].clone());
    assert_eq!(world.refused(command), Refusal::OldLevel { fence: FENCE });
}

#[test]
fn an_order_of_another_term_level_or_agent_is_refused() {
    let mut world = World::dead();
    let wrong_level = world.refused(order("lease", OFF, Some(1)));
    assert_eq!(wrong_level, Refusal::OldLevel { fence: FENCE });
    let not_of_this_level = world.refused(order("switch", OFF, Some(0)));
    assert!(matches!(not_of_this_level, Refusal::UnknownAgent { .. }), "{not_of_this_level}");
    let no_assistant = world.refused(order("ipmi", OFF, None));
    assert!(matches!(no_assistant, Refusal::UnknownAgent { .. }), "{no_assistant}");
    world.term = Term(6);
    let old_term = world.refused(order("ipmi", OFF, Some(0)));
    assert_eq!(old_term, Refusal::OldTerm { based_on: TERM, term: Term(6) });
}

#[test]
fn a_success_that_comes_after_its_level_was_given_up_confirms_nothing() {
    let mut world = World::dead();
    world.done(order("ipmi", OFF, Some(0)));
    let running = world.refused(next_level(0));
    assert!(matches!(running, Refusal::FenceState { .. }), "a level is not given up while an order runs: {running}");
    world.done(ended(0, AgentOutcome::TimedOut));
    world.done(next_level(0));
    let late = world.refused(ended(0, SUCCEEDED));
    assert!(matches!(late, Refusal::FenceState { .. }), "{late}");
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Open);
}

#[test]
fn an_agent_that_only_assists_confirms_nothing() {
    for (isolates, confirmed) in [(false, false), (true, true)] {
        let mut world = World::with(machine("db1"), |settings| {
            settings.agents.get_mut(&"switch".parse().expect("valid")).expect("configured").isolates = isolates;
        });
        world = at_lease(world);
        world.done(next_level(1));
        world.done(order("switch", OFF, Some(2)));
        assert_eq!(world.done(ended(0, SUCCEEDED)), Event::OrderEnded { fence: FENCE, confirmed }, "{isolates}");
    }
    // Nor does an assistant that succeeds beside the level.
    let mut world = World::dead();
    world.done(order("revoke", OFF, None));
    assert_eq!(world.done(ended(0, SUCCEEDED)), Event::OrderEnded { fence: FENCE, confirmed: false });
}

#[test]
fn while_paused_no_fence_order_is_given_but_an_operators_own() {
    let mut world = World::dead();
    world.done(pause());
    assert_eq!(world.refused(order("ipmi", OFF, Some(0))), Refusal::Paused { service: orders() });
    let mut world = World::new();
    world.done(pause());
    world.done(open_fence("db1", 1));
    world.done(order("ipmi", OFF, Some(0)));
}

// H1.11: `on` and `off`.

#[test]
fn power_is_not_given_back_while_an_off_may_land() {
    let mut world = World::dead();
    world.done(order("revoke", OFF, None));
    world.done(order("ipmi", OFF, Some(0)));
    world.done(ended(1, SUCCEEDED));
    // The fence is confirmed, but the assistant's `off` is still under way.
    assert_eq!(world.refused(order("ipmi", ON, None)), Refusal::OppositeOrder { node: node("db1") });
    world.done(ended(0, AgentOutcome::TimedOut));
    world.done(order("ipmi", ON, None));
}

#[test]
fn power_is_not_given_back_while_another_fence_of_the_node_is_open() {
    let mut world = World::fenced();
    world.done(join("db1", 2, &[(1, ClaimState::Over { position: None })]));
    world.done(open_fence("db1", 2));
    assert_eq!(world.refused(order("ipmi", ON, None)), Refusal::OppositeOrder { node: node("db1") });
}

#[test]
fn power_is_given_back_once_for_each_off_and_again_where_that_failed() {
    let mut world = World::fenced();
    let on = || order("ipmi", ON, None);
    world.done(on());
    assert_eq!(world.refused(on()), Refusal::OldLevel { fence: FENCE });
    world.done(ended(1, AgentOutcome::Failed { status: 1 }));
    world.done(on());
    world.done(ended(2, SUCCEEDED));
    assert_eq!(world.refused(on()), Refusal::OldLevel { fence: FENCE });
}

#[test]
fn nobody_is_cut_off_while_an_on_may_land() {
    let mut world = World::fenced();
    world.done(join("db1", 2, &[(1, ClaimState::Over { position: None })]));
    world.done(order("ipmi", ON, None));
    world.done(open_fence("db1", 2));
    let new = super::NewOrder { agent: "ipmi".parse().expect("valid"), action: OFF, executor: node("w1") };
    let fence = FENCE.next();
    let off = || Command::Order { fence, term: TERM, level: Some(0), round: 0, orders: vec![new.clone()] };
    assert_eq!(world.refused(off()), Refusal::OppositeOrder { node: node("db1") });
    world.done(ended(1, SUCCEEDED));
    world.done(off());
}

#[test]
fn a_node_is_not_appointed_while_an_off_against_it_may_land() {
    let mut world = World::new();
    world.done(open_fence("db2", 1));
    world.done(order("ipmi", OFF, Some(0)));
    // It comes back with a new boot, which voids the fence but does not call the order back.
    world.done(join("db2", 2, &[]));
    world.done(release(1, 1, DB1));
    let appoint = || appoint("db2", 2, Incarnation(4), 1, Basis::Released);
    let why = "an `off` against it may still be under way".to_owned();
    assert_eq!(world.refused(appoint()), Refusal::NotEligible { node: node("db2"), why });
    world.done(ended(0, SUCCEEDED));
    world.done(appoint());
}

// H1.2: a new boot.

#[test]
fn a_new_boot_voids_a_confirmed_fence() {
    let mut world = World::fenced();
    world.done(join("db1", 2, &[(1, ClaimState::Over { position: Some(at(1, 1000)) })]));
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Void);
    let fenced = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(fenced, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) });
    // What it said at its join is a release, and that suffices.
    let over = &world.state.services[&orders()].over;
    assert_eq!(
        *over,
        Some(Over::Released { position: Some(at(1, 1000)), at_join: true, lapsed: false, leaving: false })
    );
    world.done(appoint_db2(1, Basis::Released));
}

#[test]
fn a_success_against_a_former_boot_confirms_nothing() {
    let mut world = World::new();
    world.done(open_fence("db2", 1));
    world.done(order("ipmi", OFF, Some(0)));
    world.done(join("db2", 2, &[]));
    assert_eq!(world.done(ended(0, SUCCEEDED)), Event::OrderEnded { fence: FENCE, confirmed: false });
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Void);
    let again = world.refused(order("ipmi", OFF, Some(0)));
    assert!(matches!(again, Refusal::FenceState { .. }), "a void fence orders nothing: {again}");
}

#[test]
fn a_wait_for_the_lease_ends_with_its_fence() {
    let mut world = World::new();
    world.done(open_fence("db2", 1));
    world.done(order("ipmi", OFF, Some(0)));
    world.done(ended(0, AgentOutcome::TimedOut));
    world.done(next_level(0));
    world.done(order("lease", OFF, Some(1)));
    world.done(join("db2", 2, &[]));
    assert!(!world.state.off_may_land(&node("db2")), "a wait that does nothing bars the node for ever");
}

#[test]
fn a_former_boot_is_not_fenced_again() {
    let mut world = World::new();
    world.done(join("db2", 2, &[]));
    let old = world.refused(open_fence("db2", 1));
    assert_eq!(old, Refusal::OldBoot { node: node("db2"), boot: boot("db2", 1) });
}

#[test]
fn a_fence_is_not_lifted_while_an_epoch_hangs_on_it() {
    let mut world = World::fenced();
    assert_eq!(world.refused(lift()), Refusal::EpochNotOver { service: orders(), epoch: Epoch(1) });
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(lift());
    world.done(Command::CloseFence { fence: FENCE });
}

// The built-in agent `lease`.

#[test]
fn waiting_for_the_lease_ends_an_epoch_where_the_watchdog_is_armed() {
    let mut world = at_lease(World::new());
    world.done(order("lease", OFF, Some(1)));
    assert_eq!(world.done(ended(0, SUCCEEDED)), Event::OrderEnded { fence: FENCE, confirmed: true });
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
}

#[test]
fn waiting_for_the_lease_proves_nothing_about_a_virtual_machine_unless_that_is_accepted() {
    let machine = || Machine { is_virtual: true, ..machine("db1") };
    let mut world = at_lease(World::with(machine(), |_| {}));
    proves_nothing("virtual machine", &world.refused(order("lease", OFF, Some(1))));
    let mut world = at_lease(World::with(machine(), |settings| settings.lease_on_virtual_machine = true));
    world.done(order("lease", OFF, Some(1)));
}

#[test]
fn waiting_for_the_lease_proves_nothing_without_a_watchdog_unless_that_is_accepted() {
    let machine = || Machine { watchdog: None, ..machine("db1") };
    let mut world = at_lease(World::with(machine(), |_| {}));
    proves_nothing("no armed watchdog", &world.refused(order("lease", OFF, Some(1))));
    // One that waits for longer than the ledger counts with is none, for as long as it has not reset the host.
    let slow =
        || Machine { watchdog: Some(std::time::Duration::from_secs(60)), ..crate::ledger::world_test::machine("db1") };
    let mut world = at_lease(World::with(slow(), |_| {}));
    proves_nothing("only after 60 s", &world.refused(order("lease", OFF, Some(1))));
    let mut world = at_lease(World::with(slow(), |settings| settings.lease_without_watchdog = true));
    world.done(order("lease", OFF, Some(1)));
    let mut world = at_lease(World::with(machine(), |settings| settings.lease_without_watchdog = true));
    world.done(order("lease", OFF, Some(1)));
    // One acceptance does not stand for the other.
    let both = || Machine { is_virtual: true, ..machine() };
    let mut world = at_lease(World::with(both(), |settings| settings.lease_without_watchdog = true));
    proves_nothing("virtual machine", &world.refused(order("lease", OFF, Some(1))));
}

#[test]
fn after_a_resume_the_lease_proves_nothing_until_the_holder_has_renewed() {
    let mut world = World::new();
    world.done(pause());
    world.done(resume());
    let mut world = at_lease(world);
    proves_nothing("has not renewed", &world.refused(order("lease", OFF, Some(1))));
    // The renewal after an earlier resume does not count for a later one.
    assert_eq!(world.refused(renewed(7)), Refusal::NotPaused { service: orders() });
    world.done(renewed(1));
    world.done(order("lease", OFF, Some(1)));
}

#[test]
fn a_renewal_after_an_earlier_resume_does_not_count_for_a_later_one() {
    let mut world = World::new();
    for _ in 0..2 {
        world.done(pause());
        world.done(resume());
    }
    assert_eq!(world.refused(renewed(1)), Refusal::NotPaused { service: orders() });
    world.done(renewed(2));
}

#[test]
fn a_pause_voids_the_waits_that_run() {
    let mut world = at_lease(World::new());
    world.done(order("lease", OFF, Some(1)));
    world.done(pause());
    proves_nothing("is paused", &world.refused(ended(0, SUCCEEDED)));
    world.done(resume());
    proves_nothing("has not renewed", &world.refused(ended(0, SUCCEEDED)));
    assert_eq!(world.state.fences[&FENCE].state, FenceState::Open);
    world.done(ended(0, AgentOutcome::Failed { status: 1 }));
    world.done(next_level(1));
}

#[test]
fn what_concerns_no_service_changes_nothing() {
    let mut world = World::new();
    let service: crate::types::ServiceName = "payroll".parse().expect("valid");
    let who = || "the operator".to_owned();
    for command in [
        Command::Pause { service: service.clone(), who: who(), why: None, lasts: None },
        Command::Resume { service: service.clone(), who: who(), number: None },
        Command::Switchover { service: service.clone(), epoch: Epoch(1), to: None, who: who() },
    ] {
        assert_eq!(world.refused(command), Refusal::UnknownService { service: service.clone() });
    }
    assert_eq!(world.refused(resume()), Refusal::NotPaused { service: orders() });
}

// Joins.

#[test]
fn a_join_that_is_committed_twice_joins_once() {
    let mut world = World::new();
    let again = join("db2", 1, &[]);
    let Event::Joined { incarnation } = world.done(again.clone()) else { unreachable!() };
    assert_eq!(world.done(again.clone()), Event::Joined { incarnation }, "it goes on under what it was given");
    let Event::Joined { incarnation: next } = world.done(join("db2", 1, &[])) else { unreachable!() };
    assert!(next > incarnation);
    assert_eq!(world.refused(again), Refusal::SpentJoin { node: node("db2") });
}

#[test]
fn two_living_hosts_do_not_share_a_name() {
    let other = |mut command| {
        let Command::Join { machine, .. } = &mut command else { unreachable!() };
        machine.id = "another machine".to_owned();
        command
    };
    let claim = [(1, ClaimState::Over { position: None })];
    let mut world = World::new();
    let refusal = world.refused(other(join("db1", 2, &claim)));
    assert_eq!(refusal, Refusal::OtherMachine { node: node("db1"), machine: "machine of db1".to_owned() });
    // A dead node's name may be taken over by the host that replaces it.
    World::fenced().done(other(join("db1", 2, &claim)));
}

#[test]
fn a_former_boot_does_not_join_again() {
    let mut world = World::new();
    world.done(join("db2", 2, &[]));
    let refusal = world.refused(join("db2", 1, &[]));
    assert_eq!(refusal, Refusal::OldBoot { node: node("db2"), boot: boot("db2", 1) });
}

#[test]
fn a_holder_says_what_became_of_its_epoch_before_it_joins() {
    let missing = Refusal::ClaimMissing { node: node("db1"), service: orders(), epoch: Epoch(1) };
    let mut world = World::new();
    assert_eq!(world.refused(join("db1", 1, &[])), missing);
    assert_eq!(world.refused(join("db1", 2, &[(9, ClaimState::Over { position: None })])), missing, "another epoch");
    assert_eq!(world.refused(join("db9", 1, &[])), Refusal::UnknownNode { node: node("db9") });
}

#[test]
fn an_epoch_is_adopted_by_the_next_daemon_of_the_same_boot() {
    let mut world = World::new();
    world.done(join("db1", 1, &[(1, ClaimState::Adopted)]));
    assert_eq!(world.primary(), (Epoch(1), node("db1")));
    let holder = world.state.services[&orders()].holder.clone().expect("held");
    assert_eq!((holder.boot, holder.incarnation), (boot("db1", 1), Incarnation(4)));
}

#[test]
fn an_epoch_is_not_adopted_by_another_boot_or_after_a_verdict() {
    let adopted = [(1, ClaimState::Adopted)];
    let not = |why: &str| Refusal::CannotAdopt { service: orders(), epoch: Epoch(1), why: why.to_owned() };
    assert_eq!(World::new().refused(join("db1", 2, &adopted)), not("it was held by another boot"));
    assert_eq!(World::dead().refused(join("db1", 1, &adopted)), not("its holder was declared dead"));
    assert_eq!(World::fenced().refused(join("db1", 1, &adopted)), not("its holder was declared dead"));
}
