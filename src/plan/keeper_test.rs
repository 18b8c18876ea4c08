//! The keeper of an appointee whose promotion fails: when it gives the epoch back, and when it does not. And how long the
//! keeper takes to stop at the end of a lease.

use super::keeper::{Input, Local, Me, Step, keep};
use super::reason::{GiveUp, StopReason, Waiting};
use crate::config::Config;
use crate::lease;
use crate::ledger::world_test::*;
use crate::types::{DbState, Epoch, Instant, Observation, StopLadder};
use std::time::Duration;

const NOW: Instant = Instant(1_000_000_000_000);

/// What the keeper on db2 does next, which was appointed for epoch 2 and is about to promote.
fn next(local: Local) -> Step {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    let text = include_str!("../../config/two-databases-and-witness.toml");
    let config = Config::parse(text, "regent.toml", None, "db2").expect("an example");
    let (me, boot, name) = (node("db2"), boot("db2", 1), orders());
    keep(&Input {
        now: NOW,
        me: Me { node: &me, boot: &boot, incarnation: Some(DB2) },
        state: &world.state,
        name: &name,
        config: &config,
        local: &local,
        unguarded: None,
    })
}

fn after_failures(promotions_failed: u32, state: DbState) -> Local {
    let seen = Observation { state, ..Observation::unclear() };
    Local { seen, promotions_failed, last_error: Some("it says nothing".to_owned()), ..Local::default() }
}

#[test]
fn an_appointee_whose_promotion_failed_twice_gives_the_epoch_back_before_the_deadline() {
    let Step::StopNow(_, why) = next(after_failures(2, DbState::Standby)) else { panic!("it goes on") };
    let error = Some("it says nothing".to_owned());
    assert_eq!(why, StopReason::GivenUp(GiveUp::NotPromoted { error }));
    // Stopped: its final word follows.
    assert!(matches!(next(after_failures(2, DbState::Stopped)), Step::Tombstone(_)));
}

#[test]
fn one_failure_is_tried_again_and_an_open_database_is_not_given_up() {
    let waits = Step::Wait(Waiting::Lease);
    assert_eq!(next(after_failures(1, DbState::Standby)), waits);
    // Out of recovery: other nodes cannot follow another history any more. Without a lease it is stopped by S5 alone.
    let Step::StopNow(_, why) = next(after_failures(2, DbState::Primary)) else { panic!("it writes on") };
    assert_eq!(why, StopReason::NoLease);
}

/// A daemon that starts where the data volume stalls cannot see what the database is. It was opened for writes under a
/// lease, so a process of it may commit still.
#[test]
fn what_cannot_be_seen_is_stopped_where_it_was_opened_for_writes() {
    let local = |started_as_primary| Local { started_as_primary, ..after_failures(0, DbState::Unclear) };
    let Step::StopNow(_, why) = next(local(true)) else { panic!("it may write on without a lease") };
    assert_eq!(why, StopReason::NoLease);
    assert!(matches!(next(local(false)), Step::Wait(_)), "nothing was opened here");
}

#[test]
fn what_a_stop_has_left_nothing_of_is_not_stopped_again() {
    let local = Local { started_as_primary: true, closed: true, ..after_failures(0, DbState::Unclear) };
    assert!(matches!(next(local), Step::Wait(_)), "it cannot be seen, and nothing of it is left");
}

/// The reason for which it was given up may be gone by the time that its final word can be written.
#[test]
fn what_was_given_up_stays_given_up_until_it_is_said() {
    let failed = Some(("no space left".to_owned(), Instant(0)));
    let local = Local { tombstone_failed: failed, ..after_failures(0, DbState::Stopped) };
    assert!(matches!(next(local), Step::Tombstone(_)));
}

/// Its volume does not answer, so that nobody sees that it is closed: to stop it again would end at once, and be wanted
/// again at once.
#[test]
fn what_is_given_up_and_closed_is_not_stopped_without_end() {
    let failed = Some(("no space left".to_owned(), Instant(0)));
    let local = |closed| Local {
        started_as_primary: true,
        closed,
        tombstone_failed: failed.clone(),
        ..after_failures(0, DbState::Unclear)
    };
    assert!(matches!(next(local(true)), Step::Tombstone(_)), "nothing of it is left, as the stop has said");
    assert!(matches!(next(local(false)), Step::StopNow(..)), "something of it may be left");
}

/// What everybody else waits for includes the ladder that the ledger knows, 2 s, and a host that stood still writes on for
/// as long as its ladder takes. Its file was edited.
#[test]
fn the_stop_at_the_end_of_a_lease_takes_what_the_ledger_says() {
    const MS: Duration = Duration::from_millis(1);
    let world = World::new();
    let (me, boot, name) = (node("db1"), boot("db1", 1), orders());
    let text = include_str!("../../config/two-databases-and-witness.toml");
    let mut config = Config::parse(text, "regent.toml", None, "db1").expect("an example");
    for (immediate, kill) in [(9000, 1000), (100, 100)] {
        config.lease.stop_immediate = MS * immediate;
        config.lease.stop_kill = MS * kill;
        let next = |left: u32| {
            let lease = Some(lease::Holder::adopt(Epoch(1), MS * 500, NOW + MS * left));
            let seen = Observation { state: DbState::Primary, ..Observation::unclear() };
            keep(&Input {
                now: NOW,
                me: Me { node: &me, boot: &boot, incarnation: Some(DB1) },
                state: &world.state,
                name: &name,
                config: &config,
                local: &Local { seen, lease, ..Local::default() },
                unguarded: None,
            })
        };
        assert_eq!(next(2001), Step::Wait(Waiting::Primary), "it has the time of the ladder and more");
        let Step::StopNow(StopLadder { fast, immediate, kill }, _) = next(2000) else { panic!("it writes on") };
        assert_eq!((fast, immediate + kill), (Duration::ZERO, MS * 2000));
    }
}
