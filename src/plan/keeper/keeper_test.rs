//! The keeper of an appointee whose promotion fails: when it gives the epoch back, and when it does not. And how long the
//! keeper takes to stop at the end of a lease.

use super::{Found, Input, Keeper, Kept, Moment, Step, keep};
use crate::config::{Config, OnCrash};
use crate::ledger::Phase;
use crate::ledger::world_test::*;
use crate::plan::goal::Me;
use crate::plan::reason::{GiveUp, StopReason, Waiting};
use crate::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, Instant, Observation, Position, Released, StopLadder, Timeline,
};
use std::collections::BTreeMap;
use std::time::Duration;

const NOW: Instant = Instant(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
/// The epoch for which db2 was appointed.
const APPOINTED: Epoch = Epoch(2);

/// What the keeper on db2 does next, which was appointed for epoch 2 and is about to promote.
fn next(keeper: &Keeper) -> Step {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    let text = include_str!("../../../config/two-databases-and-witness.toml");
    let config = Config::parse(text, "regent.toml", None, "db2").expect("an example");
    let (me, boot, name) = (node("db2"), boot("db2", 1), orders());
    keep(&Input {
        now: NOW,
        me: Me { node: &me, boot: &boot, incarnation: Some(DB2) },
        state: &world.state,
        name: &name,
        config: &config,
        keeper,
        rows: &BTreeMap::new(),
        unguarded: None,
        moves: 0,
        leaving: None,
        heir: None,
    })
}

/// A daemon that starts and finds a lease of the epoch that ends then.
fn leased_until(until: Instant) -> Keeper {
    let kept = Kept { epoch: APPOINTED, until, held_open: None, renew: SECOND };
    Keeper::found(Found { kept: Some(kept), said: None })
}

/// A moment of the epoch, a while ago.
fn earlier() -> Moment<'static> {
    Moment { now: NOW - SECOND * 5, epoch: Some((APPOINTED, Phase::Appointed)), holder: None }
}

fn seen(mut keeper: Keeper, state: DbState) -> Keeper {
    keeper.sees(Observation { state, ..Observation::unclear() }, earlier());
    keeper
}

/// Its promotion failed so often under that lease.
fn fails(mut keeper: Keeper, times: u32) -> Keeper {
    let promote = DbAction::Promote { epoch: APPOINTED, timeline: Timeline(2) };
    for _ in 0..times {
        keeper.begins(promote.clone(), earlier());
        let failed = DbOutcome::Failed { error: "it says nothing".to_owned() };
        assert_eq!(keeper.ended(&promote, failed, true, earlier()), Some("it says nothing".to_owned()));
    }
    keeper
}

/// A stop has left nothing of it.
fn closed(mut keeper: Keeper) -> Keeper {
    let stop = DbAction::Stop { ladder: StopLadder { fast: SECOND, immediate: SECOND, kill: SECOND } };
    keeper.begins(stop.clone(), earlier());
    keeper.ended(&stop, DbOutcome::Done(DbDone::Stopped { clean: false, position: None }), false, earlier());
    keeper
}

/// Its final word could not be written.
fn unsaid(mut keeper: Keeper) -> Keeper {
    assert_eq!(
        keeper.tombstone_begins(APPOINTED),
        Some(Released { epoch: APPOINTED, position: None, lapsed: false, leaving: false, why: String::new() })
    );
    assert!(keeper.tombstone_failed("no space left", earlier().now), "that is news");
    keeper
}

#[test]
fn an_appointee_whose_promotion_failed_twice_gives_the_epoch_back_before_the_deadline() {
    let failed = |state| seen(fails(leased_until(NOW + SECOND * 60), 2), state);
    let Step::StopNow(_, why) = next(&failed(DbState::Standby)) else { panic!("it goes on") };
    let error = Some("it says nothing".to_owned());
    assert_eq!(why, StopReason::GivenUp(GiveUp::NotPromoted { error }));
    // Stopped: its final word follows.
    assert!(matches!(next(&failed(DbState::Stopped)), Step::Tombstone(..)));
}

#[test]
fn one_failure_is_tried_again_and_an_open_database_is_not_given_up() {
    let leased = || leased_until(NOW + SECOND * 60);
    assert!(matches!(next(&seen(fails(leased(), 1), DbState::Standby)), Step::Db(DbAction::Promote { .. })));
    assert_eq!(next(&seen(Keeper::default(), DbState::Standby)), Step::Wait(Waiting::Lease));
    // Out of recovery: other nodes cannot follow another history any more. Without a lease it is stopped by S5 alone.
    let open = seen(fails(Keeper::default(), 2), DbState::Primary);
    let Step::StopNow(_, why) = next(&open) else { panic!("it writes on") };
    assert_eq!(why, StopReason::NoLease);
}

#[test]
fn what_was_counted_in_an_epoch_is_forgotten_with_it() {
    let mut keeper = unsaid(seen(fails(leased_until(NOW + SECOND * 60), 2), DbState::Standby));
    keeper.begins(DbAction::Seal, earlier());
    let failed = DbOutcome::Failed { error: "no".to_owned() };
    keeper.ended(&DbAction::Seal, failed, false, earlier());
    keeper.epoch_began(None, NOW);
    assert_eq!((keeper.unsaid(), keeper.last_error(), keeper.rests(NOW)), (None, None, false));
    assert_eq!(keeper.seal_report(APPOINTED), None);
    assert_eq!(keeper.opened_at(), Position::default());
    assert!(matches!(next(&keeper), Step::Db(DbAction::Promote { .. })), "it tries as often as anybody");
}

/// A daemon that starts where the data volume stalls cannot see what the database is. It was opened for writes under a
/// lease, so a process of it may commit still.
#[test]
fn what_cannot_be_seen_is_stopped_where_it_was_opened_for_writes() {
    let Step::StopNow(_, why) = next(&leased_until(NOW)) else { panic!("it may write on without a lease") };
    assert_eq!(why, StopReason::NoLease);
    assert!(matches!(next(&Keeper::default()), Step::Wait(_)), "nothing was opened here");
}

#[test]
fn what_a_stop_has_left_nothing_of_is_not_stopped_again() {
    let keeper = closed(leased_until(NOW));
    assert!(matches!(next(&keeper), Step::Wait(_)), "it cannot be seen, and nothing of it is left");
}

/// The reason for which it was given up may be gone by the time that its final word can be written.
#[test]
fn what_was_given_up_stays_given_up_until_it_is_said() {
    assert!(matches!(next(&unsaid(seen(Keeper::default(), DbState::Stopped))), Step::Tombstone(..)));
}

/// Its volume does not answer, so that nobody sees that it is closed: to stop it again would end at once, and be wanted
/// again at once.
#[test]
fn what_is_given_up_and_closed_is_not_stopped_without_end() {
    let step = next(&unsaid(closed(leased_until(NOW))));
    assert!(matches!(step, Step::Tombstone(..)), "nothing of it is left, as the stop has said");
    assert!(matches!(next(&unsaid(leased_until(NOW))), Step::StopNow(..)), "something of it may be left");
}

/// What everybody else waits for includes the ladder that the ledger knows, 2 s, and a host that stood still writes on for
/// as long as its ladder takes. Its file was edited.
#[test]
fn the_stop_at_the_end_of_a_lease_takes_what_the_ledger_says() {
    const MS: Duration = Duration::from_millis(1);
    let world = World::new();
    let (me, boot, name) = (node("db1"), boot("db1", 1), orders());
    let text = include_str!("../../../config/two-databases-and-witness.toml");
    let mut config = Config::parse(text, "regent.toml", None, "db1").expect("an example");
    for (immediate, kill) in [(9000, 1000), (100, 100)] {
        config.lease.stop_immediate = MS * immediate;
        config.lease.stop_kill = MS * kill;
        let next = |left: u32| {
            let kept = Kept { epoch: Epoch(1), until: NOW + MS * left, held_open: None, renew: MS * 500 };
            let keeper = seen(Keeper::found(Found { kept: Some(kept), said: None }), DbState::Primary);
            keep(&Input {
                now: NOW,
                me: Me { node: &me, boot: &boot, incarnation: Some(DB1) },
                state: &world.state,
                name: &name,
                config: &config,
                keeper: &keeper,
                rows: &BTreeMap::new(),
                unguarded: None,
                moves: 0,
                leaving: None,
                heir: None,
            })
        };
        assert_eq!(next(2001), Step::Wait(Waiting::Primary), "it has the time of the ladder and more");
        let Step::StopNow(StopLadder { fast, immediate, kill }, _) = next(2000) else { panic!("it writes on") };
        assert_eq!((fast, immediate + kill), (Duration::ZERO, MS * 2000));
    }
}

/// The pause ended, the daemon of that time renewed, and its lease file took no write: the next one still finds that a
/// pause holds the lease open, and no resume waits for a renewal any more.
#[test]
fn a_pause_that_was_over_before_the_daemon_holds_no_lease_open() {
    const LEASE: Duration = Duration::from_secs(8);
    let kept = Kept { epoch: Epoch(1), until: NOW, held_open: Some(0), renew: Duration::from_millis(500) };
    let found = || Keeper::found(Found { kept: Some(kept), said: None });
    let ended = |world: &World| {
        let service = world.state.services[&orders()].get();
        found().resumed_unseen((service, world.state.resumes), NOW, LEASE, kept.renew)
    };
    let mut world = World::new();
    assert_eq!(ended(&world), None, "a copy of before the pause");
    world.done(pause());
    assert_eq!(ended(&world), None, "it lasts");
    world.done(resume());
    assert_eq!(ended(&world), Some((Epoch(1), NOW + LEASE)));
    world.done(renewed(1));
    assert_eq!(ended(&world), Some((Epoch(1), NOW + LEASE)), "an earlier daemon has renewed since");
    world.done(pause());
    assert_eq!(ended(&world), None, "another one began");
}

/// Two nodes with the same trouble would hand the service to and fro.
#[test]
fn a_database_that_dies_is_left_for_another_node_only_so_often_within_an_hour() {
    let world = World::new();
    let (me, boot, name) = (node("db1"), boot("db1", 1), orders());
    let text = include_str!("../../../config/two-databases-and-witness.toml");
    let mut config = Config::parse(text, "regent.toml", None, "db1").expect("an example");
    config.services.values_mut().for_each(|service| service.on_crash = OnCrash::Failover);
    let kept = Kept { epoch: Epoch(1), until: NOW + SECOND * 60, held_open: None, renew: SECOND };
    let keeper = seen(Keeper::found(Found { kept: Some(kept), said: None }), DbState::Stopped);
    let next = |moves| {
        keep(&Input {
            now: NOW,
            me: Me { node: &me, boot: &boot, incarnation: Some(DB1) },
            state: &world.state,
            name: &name,
            config: &config,
            keeper: &keeper,
            rows: &BTreeMap::new(),
            unguarded: None,
            leaving: None,
            moves,
            heir: None,
        })
    };
    assert_eq!(config.failover.max_per_hour, 3);
    assert_eq!(next(2), Step::Tombstone(Epoch(1), Some(GiveUp::Died)));
    let Step::Db(DbAction::StartPrimary { epoch: Epoch(1), known: Some(known) }) = next(3) else { panic!("it moves") };
    assert_eq!(known, at(1, 100), "it began there");
}
