//! The verdict (S3), the appointment (S2, S9) and old epochs (S4), command by command: what is accepted, and what is
//! refused for want of exactly one thing. Fences and joins are in `fence_test.rs`.

use super::world_test::*;
use super::{Basis, CheckAnswer, ClaimState, Command, Event, Happening, Life, Outcome, Refusal};
use crate::types::{AgentOutcome, Boot, Epoch, FenceId, Incarnation, IncidentId, NodeId, ServiceName, Term};

// S3: the verdict.

#[test]
fn a_majority_of_all_voters_on_a_majority_of_channels_declares_a_node_dead() {
    for (db2, w1) in [("lll", "lll"), ("llu", "ull"), ("llb", "bll")] {
        let mut world = World::new();
        let both = answers(&[("db2", sees(DB1, db2)), ("w1", sees(DB1, w1))]);
        world.done(dead(DB1, TERM, both));
        assert_eq!(world.state.nodes[&node("db1")].life, Life::Dead, "{db2} {w1}");
    }
}

#[test]
fn too_few_suspecting_voters_are_no_verdict() {
    let lost = || sees(DB1, "lll");
    let cases = [
        ("one of three voters", answers(&[("db2", lost())]), 1),
        ("the accused does not judge itself", answers(&[("db1", lost()), ("db2", lost())]), 1),
        ("one lost channel of three", answers(&[("db2", lost()), ("w1", sees(DB1, "luu"))]), 1),
        ("blind channels are no evidence", answers(&[("db2", lost()), ("w1", sees(DB1, "lbb"))]), 1),
        ("all blind", answers(&[("db2", sees(DB1, "bbb")), ("w1", sees(DB1, "bbb"))]), 0),
        ("a sight of another incarnation", answers(&[("db2", lost()), ("w1", sees(Incarnation(9), "lll"))]), 1),
        ("a stranger's answer", answers(&[("db2", lost()), ("db7", lost())]), 1),
        ("nobody", answers(&[]), 0),
    ];
    for (what, answers, suspecting) in cases {
        let refusal = World::new().refused(dead(DB1, TERM, answers));
        assert_eq!(refusal, Refusal::NoDoubleMajority { node: node("db1"), suspecting }, "{what}");
    }
}

#[test]
fn a_channel_that_is_not_configured_makes_an_answer_void() {
    let mut strange = sees(DB1, "lll");
    strange.view.channels.insert("carrier-pigeon".parse().expect("valid"), crate::types::Sight::Lost);
    let refusal = World::new().refused(dead(DB1, TERM, answers(&[("db2", strange), ("w1", sees(DB1, "lll"))])));
    assert_eq!(refusal, Refusal::NoDoubleMajority { node: node("db1"), suspecting: 1 });
}

#[test]
fn while_the_membership_changes_both_halves_must_suspect() {
    let mut world = World::new();
    let halves = [[1, 2, 3].map(NodeId).into(), [1, 3, 4].map(NodeId).into()];
    super::set_voters(&mut world.state, crate::types::LogIndex(90), halves.to_vec());
    let both = || answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "lll"))]);
    let refusal = world.refused(dead(DB1, TERM, both()));
    assert_eq!(refusal, Refusal::NoDoubleMajority { node: node("db1"), suspecting: 2 });
}

#[test]
fn a_verdict_of_another_term_or_incarnation_is_refused() {
    let lost = || answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "lll"))]);
    let mut world = World::new();
    let old_term = world.refused(dead(DB1, Term(4), lost()));
    assert_eq!(old_term, Refusal::OldTerm { based_on: Term(4), term: TERM });
    // The daemon was restarted meanwhile: the round was about its former incarnation.
    world.done(join("db1", 1, &[(1, ClaimState::Adopted)]));
    let old = world.refused(dead(DB1, TERM, lost()));
    assert_eq!(old, Refusal::OldIncarnation { node: node("db1"), incarnation: DB1 });
    assert_eq!(world.state.nodes[&node("db1")].life, Life::Up);
}

#[test]
fn a_node_dies_once_an_incarnation() {
    let mut world = World::dead();
    let again = world.refused(dead(DB1, TERM, answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "lll"))])));
    assert_eq!(again, Refusal::AlreadyDead { node: node("db1") });
}

// S2 and S9: the appointment.

#[test]
fn a_verdict_alone_appoints_nobody() {
    let mut world = World::dead();
    let released = world.refused(appoint_db2(1, Basis::Released));
    assert_eq!(released, Refusal::EpochNotOver { service: orders(), epoch: Epoch(1) });
    let unconfirmed = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(unconfirmed, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) });
    assert_eq!(world.primary(), (Epoch(1), node("db1")));
}

#[test]
fn without_release_or_fence_the_epoch_goes_on() {
    let mut world = World::new();
    let released = world.refused(appoint_db2(1, Basis::Released));
    assert_eq!(released, Refusal::EpochNotOver { service: orders(), epoch: Epoch(1) });
    let fenced = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(fenced, Refusal::UnknownFence { fence: FENCE });
}

#[test]
fn a_failed_fence_appoints_nobody() {
    for outcome in
        [AgentOutcome::Failed { status: 1 }, AgentOutcome::IsOff, AgentOutcome::TimedOut, AgentOutcome::NotRun]
    {
        let mut world = World::dead();
        world.done(order("ipmi", crate::types::AgentAction::Off, Some(0)));
        let event = world.done(ended(0, outcome));
        assert_eq!(event, Event::OrderEnded { fence: FENCE, confirmed: false }, "{outcome:?}");
        let refusal = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
        assert_eq!(refusal, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) }, "{outcome:?}");
    }
}

#[test]
fn a_confirmed_and_checked_fence_ends_an_epoch() {
    let mut world = World::fenced();
    let event = world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(event, Event::Appointed { epoch: Epoch(2) });
    assert_eq!(world.primary(), (Epoch(2), node("db2")));
    assert!(world.state.fences[&FENCE].used);
}

#[test]
fn a_release_ends_an_epoch() {
    let mut world = World::new();
    world.done(release(1, 1, DB1));
    world.done(appoint_db2(1, Basis::Released));
    assert_eq!(world.primary(), (Epoch(2), node("db2")));
}

#[test]
fn a_fence_of_another_boot_or_node_does_not_end_the_epoch() {
    // The standby is fenced, on an operator's order; that says nothing about the primary.
    let mut world = World::new();
    world.done(open_fence("db2", 1));
    world.power_off();
    let refusal = world.refused(appoint("db1", 1, DB1, 1, by_fence(hold(&["db1", "w1"]))));
    assert_eq!(refusal, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) });
    // A fence of the primary's node, but of another boot than the one that holds the epoch.
    let mut world = World::fenced();
    world.state.fences.get_mut(&FENCE).expect("open").boot = Boot("db1-boot-0".into());
    let refusal = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(refusal, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) });
}

#[test]
fn a_fence_that_was_not_checked_by_a_majority_does_not_end_the_epoch() {
    let majority = || "a majority of all voters".to_owned();
    for checks in [hold(&[]), hold(&["db2"]), hold(&["db1", "w1"]), hold(&["db2", "db9"])] {
        let refusal = World::fenced().refused(appoint_db2(1, by_fence(checks.clone())));
        assert_eq!(refusal, Refusal::NotChecked { fence: FENCE, missing: majority() }, "{checks:?}");
    }
}

#[test]
fn a_refuted_check_does_not_end_the_epoch() {
    let channel = "secondary".parse().expect("valid");
    let mut checks = hold(&["db1", "db2"]);
    checks.insert(node("w1"), CheckAnswer::Refuted { channel, what: "two heartbeats".to_owned() });
    let refusal = World::fenced().refused(appoint_db2(1, by_fence(checks)));
    assert_eq!(refusal, Refusal::CheckRefuted { fence: FENCE, node: node("w1"), what: "two heartbeats".to_owned() });
}

#[test]
fn a_check_of_another_term_does_not_end_the_epoch() {
    let mut world = World::fenced();
    world.term = Term(6);
    let refusal = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(refusal, Refusal::OldTerm { based_on: TERM, term: Term(6) });
}

#[test]
fn a_voter_that_still_heard_the_node_must_have_looked_again() {
    // Four voters, so that a majority can do without the one that heard it.
    let world = || {
        let mut world = World::with(machine("db1"), |settings| {
            let w2 = super::NodeSettings { id: NodeId(4), role: crate::config::Role::Witness };
            settings.nodes.insert(node("w2"), w2);
            settings.nodes.insert(node("w3"), super::NodeSettings { id: NodeId(5), ..w2 });
        });
        let voters = [1, 2, 3, 4, 5].map(NodeId).into();
        super::set_voters(&mut world.state, crate::types::LogIndex(90), vec![voters]);
        world.done(join("w2", 1, &[]));
        world.done(join("w3", 1, &[]));
        let lost = || sees(DB1, "lll");
        let seen = [("db2", lost()), ("w1", lost()), ("w2", sees(DB1, "llu")), ("w3", lost())];
        world.done(dead(DB1, TERM, answers(&seen)));
        world.power_off();
        world
    };
    let without = || appoint_db2(1, by_fence(hold(&["db2", "w1", "w3"])));
    let refusal = world().refused(without());
    assert_eq!(refusal, Refusal::NotChecked { fence: FENCE, missing: "w2, which still heard the node".to_owned() });
    world().done(appoint_db2(1, by_fence(hold(&["db2", "w1", "w2"]))));
    // A daemon that was restarted since then no longer watches on from the verdict, and is not waited for.
    let mut restarted = world();
    restarted.done(join("w2", 1, &[]));
    restarted.done(without());
}

#[test]
fn a_refuted_fence_is_open_again_and_appoints_nobody() {
    let mut world = World::fenced();
    let channel = "disk".parse().expect("valid");
    let (by, what) = (node("w1"), "alive".to_owned());
    let life = Command::Refute { fence: FENCE, level: Some(0), round: 0, refuted: 0, by, channel, what, struck: None };
    assert_eq!(world.done(life), Event::Refuted { fence: FENCE });
    assert_eq!(world.state.fences[&FENCE].level, 1, "the next level is tried");
    let refusal = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(refusal, Refusal::NotFenced { fence: FENCE, epoch: Epoch(1) });
}

#[test]
fn only_a_living_database_node_of_the_present_incarnation_is_appointed() {
    let checked = || by_fence(hold(&["db2", "w1"]));
    let mut world = World::fenced();
    let not = |node, why: &str| Refusal::NotEligible { node, why: why.to_owned() };
    assert_eq!(world.refused(appoint("w1", 1, W1, 1, checked())), not(node("w1"), "it is a witness"));
    assert_eq!(world.refused(appoint("db1", 1, DB1, 1, checked())), not(node("db1"), "it is declared dead"));
    let old = Refusal::OldIncarnation { node: node("db2"), incarnation: Incarnation(9) };
    assert_eq!(world.refused(appoint("db2", 1, Incarnation(9), 1, checked())), old);
    let other_boot = Refusal::OldIncarnation { node: node("db2"), incarnation: DB2 };
    assert_eq!(world.refused(appoint("db2", 2, DB2, 1, checked())), other_boot);
    assert_eq!(world.refused(appoint("db9", 1, DB2, 1, checked())), Refusal::UnknownNode { node: node("db9") });
}

#[test]
fn an_appointee_without_a_sealed_report_of_this_lineage_is_refused() {
    let with = |change: &dyn Fn(&mut crate::types::Seal)| {
        let mut command = appoint_db2(1, by_fence(hold(&["db2", "w1"])));
        let Command::Appoint { seals, .. } = &mut command else { unreachable!() };
        change(seals.get_mut(&node("db2")).expect("its own"));
        command
    };
    let mut unsealed = with(&|_| {});
    let Command::Appoint { seals, .. } = &mut unsealed else { unreachable!() };
    seals.clear();
    let foreign = with(&|seal| seal.system = crate::types::SystemId(8));
    let elsewhere = with(&|seal| seal.end = at(3, 1000));
    for (command, word) in [(unsealed, "sealed report"), (foreign, "another one"), (elsewhere, "does not descend")] {
        let refusal = World::fenced().refused(command);
        let Refusal::NotEligible { why, .. } = &refusal else { panic!("{refusal}") };
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn while_paused_nobody_is_appointed() {
    let mut world = World::fenced();
    world.done(pause());
    let refusal = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(refusal, Refusal::Paused { service: orders() });
}

// S4: what is based on the past.

#[test]
fn an_epoch_is_appointed_once() {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    let again = world.refused(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(again, Refusal::OldEpoch { service: orders(), epoch: Epoch(1), current: Epoch(2) });
    let spent = world.refused(appoint_db2(2, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(spent, Refusal::NotFenced { fence: FENCE, epoch: Epoch(2) });
}

#[test]
fn what_an_old_epoch_says_is_refused() {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    let old = Refusal::OldEpoch { service: orders(), epoch: Epoch(1), current: Epoch(2) };
    for late in [release(1, 1, DB1), promoting(1, "db1", DB1), installed(1, "db1", DB1, at(1, 2000))] {
        assert_eq!(world.refused(late), old);
    }
    // The former holder cannot speak for the present epoch either.
    let foreign = Refusal::NotHolder { service: orders(), epoch: Epoch(2), node: node("db1") };
    for late in [release(2, 1, DB1), promoting(2, "db1", DB1), installed(2, "db1", DB1, at(2, 2000))] {
        assert_eq!(world.refused(late), foreign);
    }
    world.done(promoting(2, "db2", DB2));
    world.done(installed(2, "db2", DB2, at(2, 1000)));
}

#[test]
fn an_earlier_incarnation_of_the_holder_cannot_release_its_epoch() {
    let mut world = World::new();
    let joined = world.done(join("db1", 1, &[(1, ClaimState::Adopted)]));
    assert_eq!(joined, Event::Joined { incarnation: Incarnation(4) });
    let refusal = world.refused(release(1, 1, DB1));
    assert_eq!(refusal, Refusal::NotHolder { service: orders(), epoch: Epoch(1), node: node("db1") });
    let other_boot = world.refused(release(1, 2, Incarnation(4)));
    assert_eq!(other_boot, Refusal::OldBoot { node: node("db1"), boot: boot("db1", 2) });
    world.done(release(1, 1, Incarnation(4)));
}

#[test]
fn a_person_vouches_for_the_incident_that_is_open_and_no_other() {
    let confirm = |incident, target: &str| Command::HumanConfirm {
        incident: IncidentId(incident),
        target: node(target),
        who: "the operator".to_owned(),
        force: false,
    };
    let mut world = World::dead();
    let incident = world.state.fences[&FENCE].incident.0;
    let not = |incident, target| Refusal::NotThatIncident { incident: IncidentId(incident), node: node(target) };
    assert_eq!(world.refused(confirm(incident + 1, "db1")), not(incident + 1, "db1"));
    assert_eq!(world.refused(confirm(incident, "db2")), not(incident, "db2"));
    assert_eq!(world.done(confirm(incident, "db1")), Event::Confirmed { fence: FenceId(1) });
    let unchecked = world.refused(appoint_db2(1, by_fence(hold(&["db2"]))));
    assert!(matches!(unchecked, Refusal::NotChecked { .. }), "a person's word is checked like a device's: {unchecked}");
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(world.refused(confirm(incident, "db1")), not(incident, "db1"), "spent");
}

// S7: what is refused, too.

#[test]
fn a_refused_appointment_stands_in_the_incident_of_the_fence_that_it_rests_on() {
    let mut world = World::fenced();
    let appoint = appoint_db2(1, by_fence(hold(&["db2", "w1"])));
    world.done(appoint.clone());
    world.done(promoting(2, "db2", DB2));
    world.done(installed(2, "db2", DB2, at(2, 0x2000)));
    // Another incident of the service is under way when the same is proposed once more.
    world.done(Command::Switchover { service: orders(), epoch: Epoch(2), to: None, who: "dba".to_owned() });
    for _ in 0..2 {
        let refusal = world.refused(appoint.clone());
        let said = |incident: u64| {
            let steps = &world.state.incidents[&IncidentId(incident)].steps;
            let about = |what: &Happening| matches!(what, Happening::Refused { refusal: r, .. } if *r == refusal);
            steps.iter().filter(|step| about(&step.what)).count()
        };
        assert_eq!((said(1), said(2)), (1, 0), "once, and where it belongs");
    }
}

/// db1 held two services: its incident ends when the second of them is served again, and not with the first.
#[test]
fn an_incident_of_two_services_ends_with_the_last_of_them() {
    let stock: ServiceName = "stock".parse().expect("a valid name");
    let mut world = World::with(machine("db1"), |settings| {
        settings.services.insert(stock.clone(), true);
    });
    let of_stock = |command| of_service(command, &stock);
    let db1 = Command::Create { service: orders(), node: node("db1"), boot: boot("db1", 1), incarnation: DB1 };
    world.done(of_stock(db1));
    world.done(of_stock(installed(1, "db1", DB1, at(1, 100))));
    world.declare_dead();
    world.power_off();
    let outcome = |world: &World| world.state.incidents.values().next_back().map(|i| i.outcome.clone());
    let moves = |world: &mut World, of: &dyn Fn(Command) -> Command| {
        world.done(of(appoint_db2(1, by_fence(hold(&["db2", "w1"])))));
        world.done(of(promoting(2, "db2", DB2)));
        world.done(of(installed(2, "db2", DB2, at(2, 200))));
    };
    moves(&mut world, &|command| command);
    assert_eq!(outcome(&world), Some(Outcome::Open), "nobody serves the other one yet");
    // What happens to the first now is a story of its own, and does not end the incident either.
    let (position, why) = (None, "its database ended".to_owned());
    let (service, node, boot, incarnation) = (orders(), node("db2"), boot("db2", 1), DB2);
    world.done(Command::Release {
        service,
        epoch: Epoch(2),
        node,
        boot,
        incarnation,
        position,
        lapsed: false,
        leaving: false,
        why,
    });
    assert_eq!(world.state.incidents.len(), 2);
    moves(&mut world, &of_stock);
    let first = world.state.incidents.values().next().expect("of both");
    assert!(matches!(&first.outcome, Outcome::Moved { epoch: Epoch(2), .. }), "{:?}", first.outcome);
}

/// What was decided against an appointee does not outlive its taking over: it would never be granted a lease again.
#[test]
fn an_appointee_that_took_over_while_it_was_denied_its_lease_is_granted_it_again() {
    let mut world = World::new();
    world.done(release(1, 1, DB1));
    world.done(appoint_db2(1, Basis::Released));
    world.done(promoting(2, "db2", DB2));
    world.done(Command::DenyLease { service: orders(), epoch: Epoch(2) });
    assert!(world.state.services[&orders()].denied);
    world.done(installed(2, "db2", DB2, at(2, 1000)));
    assert!(!world.state.services[&orders()].denied);
}
