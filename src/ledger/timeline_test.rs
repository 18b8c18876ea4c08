//! The numbers of timelines, and what an appointment may lose: who is bound by a timeline that was begun and never
//! installed, which numbers are taken, and what the incident names.

use super::world_test::*;
use super::{Basis, Command, Happening, Refusal};
use crate::types::{Epoch, Incarnation, Lsn, Position, Timeline};
use std::collections::BTreeMap;

/// The second start of db1.
const DB1_AGAIN: Incarnation = Incarnation(4);

fn released(by: &str, epoch: u64, incarnation: Incarnation, position: Option<Position>) -> Command {
    Command::Release {
        service: orders(),
        epoch: Epoch(epoch),
        node: node(by),
        boot: boot(by, 1),
        incarnation,
        position,
        lapsed: false,
        leaving: false,
        why: "its database ended".to_owned(),
    }
}

fn begins(epoch: u64, name: &str, incarnation: Incarnation, timeline: u32) -> Command {
    let (service, timeline) = (orders(), Timeline(timeline));
    Command::Promoting { service, epoch: Epoch(epoch), node: node(name), incarnation, timeline }
}

/// db1 lost its power, db2 was appointed and said that it begins timeline 2, and gave epoch 2 back; db1 has returned.
fn given_back_while_promoting() -> World {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(begins(2, "db2", DB2, 2));
    world.done(join("db1", 2, &[]));
    world.done(released("db2", 2, DB2, None));
    world
}

/// What incidents say may be lost: the epoch, whose, after what, and who has it not.
fn named(world: &World) -> Vec<(u64, &str, Position, &str)> {
    let steps = world.state.incidents.values().flat_map(|incident| &incident.steps);
    let lost = steps.filter_map(|step| match &step.what {
        Happening::MayBeLost { epoch, node, timeline, after, by, .. } => {
            Some((epoch.0, node.as_str(), at(timeline.0, after.0), by.as_str()))
        }
        _ => None,
    });
    lost.collect()
}

#[test]
fn a_timeline_that_was_never_installed_binds_nobody_and_is_named_when_it_is_passed_over() {
    let mut world = given_back_while_promoting();
    let service = &world.state.services[&orders()];
    assert_eq!((service.timeline, service.next_timeline(Timeline(1))), (Timeline(1), Timeline(3)));
    assert_eq!(service.failed, BTreeMap::from([(node("db2"), 1)]));
    world.done(appoint("db1", 2, DB1_AGAIN, 2, Basis::Released));
    // The first failover may have lost what came after the report. The second one loses the timeline that was begun, and
    // nothing of the first primary: it is appointed itself.
    assert_eq!(named(&world), [(1, "db1", at(1, 1000), "db2"), (2, "db2", at(2, 1000), "db1")]);
}

#[test]
fn of_a_timeline_that_was_begun_is_named_what_came_after_the_end_of_the_appointee() {
    for (final_word, loses) in [(None, true), (Some(at(2, 1300)), true), (Some(at(2, 1200)), false)] {
        let lost = lost_after(1200, final_word);
        assert_eq!(lost.contains(&at(2, 1200)), loses, "final word {final_word:?}: {lost:?}");
        assert!(!lost.contains(&at(2, 1000)), "{lost:?}");
    }
}

/// db2 was appointed after db1 had been fenced, gave the epoch back before it promoted, and is appointed again.
#[test]
fn where_an_appointee_stopped_is_not_where_the_primary_ended() {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(released("db2", 2, DB2, Some(at(1, 1000))));
    world.done(appoint("db2", 1, DB2, 2, Basis::Released));
    assert_eq!(named(&world), [(1, "db1", at(1, 1000), "db2"), (1, "db1", at(1, 1000), "db2")]);
}

/// db2 promoted and took writes, db1 followed it up to there, and nobody installed the epoch. After what something may be
/// lost, once db1 is appointed on db2's final word.
fn lost_after(end: u64, final_word: Option<Position>) -> Vec<Position> {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(begins(2, "db2", DB2, 2));
    world.done(join("db1", 2, &[]));
    world.done(released("db2", 2, DB2, final_word));
    let mut command = appoint("db1", 2, DB1_AGAIN, 2, Basis::Released);
    let Command::Appoint { seals, .. } = &mut command else { unreachable!() };
    let seal = seals.get_mut(&node("db1")).expect("its own");
    (seal.end, seal.history.0) = (at(2, end), vec![at(1, 1000)]);
    world.done(command);
    named(&world).into_iter().filter(|(epoch, ..)| *epoch == 2).map(|(_, _, after, _)| after).collect()
}

#[test]
fn a_timeline_that_was_installed_binds_everybody() {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(begins(2, "db2", DB2, 2));
    world.done(installed(2, "db2", DB2, at(2, 1000)));
    world.done(join("db1", 2, &[]));
    world.done(released("db2", 2, DB2, None));
    let refusal = world.refused(appoint("db1", 2, DB1_AGAIN, 2, Basis::Released));
    let Refusal::NotEligible { why, .. } = &refusal else { panic!("{refusal}") };
    assert!(why.contains("does not descend from timeline 2"), "{why}");
}

#[test]
fn a_number_is_never_given_to_two_timelines() {
    let mut world = given_back_while_promoting();
    world.done(appoint("db1", 2, DB1_AGAIN, 2, Basis::Released));
    for taken in [1, 2] {
        let refusal = world.refused(begins(3, "db1", DB1_AGAIN, taken));
        assert_eq!(refusal, Refusal::TimelineTaken { service: orders(), timeline: Timeline(taken) });
    }
    world.done(begins(3, "db1", DB1_AGAIN, 3));
    world.done(installed(3, "db1", DB1_AGAIN, at(3, 1000)));
    let service = &world.state.services[&orders()];
    assert!(service.begun.is_empty() && service.failed.is_empty(), "{service:?}");
    assert_eq!(service.next_timeline(Timeline(1)), Timeline(4));
}

#[test]
fn a_number_above_the_installed_one_stays_taken() {
    // db1 is appointed with timeline 3 and dies in turn; db2, which has timeline 2, goes on there.
    let mut world = given_back_while_promoting();
    world.done(appoint("db1", 2, DB1_AGAIN, 2, Basis::Released));
    world.done(begins(3, "db1", DB1_AGAIN, 3));
    let mut second = released("db1", 3, DB1_AGAIN, None);
    let Command::Release { boot: its, .. } = &mut second else { unreachable!() };
    *its = boot("db1", 2);
    world.done(second);
    world.done(appoint_db2(3, Basis::Released));
    world.done(installed(4, "db2", DB2, at(2, 1300)));
    let service = &world.state.services[&orders()];
    assert_eq!(service.begun.keys().map(|t| t.0).collect::<Vec<_>>(), [3]);
    assert_eq!(service.next_timeline(Timeline(2)), Timeline(4));
}

#[test]
fn a_final_position_that_was_reached_leaves_nothing_to_lose() {
    for (end, lost) in [(1000, vec![]), (1001, vec![(1, "db1", at(1, 1000), "db2")])] {
        let mut world = World::new();
        world.done(released("db1", 1, DB1, Some(at(1, end))));
        world.done(appoint_db2(1, Basis::Released));
        assert_eq!(named(&world), lost, "{end}");
        assert_eq!(world.state.services[&orders()].sealed_at, Lsn(1000));
    }
}
