//! The local databases alone: whose lease is asked for, what the guard is told, and what the others are.

use super::context_test::{NOW, config, desk, start};
use super::desk::Desk;
use super::mail::Wanted;
use super::tenants::Tenants;
use super::{Effect, HELD_OPEN, PeerRequest, PeerResponse, Start};
use crate::lease::{Denial, Grant};
use crate::ledger::world_test::*;
use crate::types::{DbAction, DbState, Epoch, Failing, Instant, Observation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn sees(tenants: &mut Tenants, db1: &Desk, state: DbState) {
    let seen =
        Observation { state, system: Some(SYSTEM), writable: state == DbState::Primary, ..Observation::unclear() };
    tenants.database_seen(&db1.context, &orders(), seen);
}

/// db1, its database open under epoch 1, and nothing known of a lease.
fn primary(world: &World) -> (Desk, Tenants) {
    let db1 = desk("db1", DB1, &world.state);
    let mut tenants = Tenants::found(&config("db1"), &start("db1"), NOW);
    sees(&mut tenants, &db1, DbState::Primary);
    (db1, tenants)
}

/// What the guard is told, as it leaves.
fn told(db1: &mut Desk) -> Vec<Option<Instant>> {
    let until = |e| if let Effect::KeepLease { until, .. } = e { Some(until) } else { None };
    db1.mail.take().into_iter().filter_map(until).collect()
}

/// Asks for the lease of epoch 1, and has it.
fn renews(db1: &mut Desk, tenants: &mut Tenants) {
    let epoch = tenants.wants_lease(&db1.context, &orders()).expect("it holds the epoch");
    assert_eq!(tenants.renew(db1, &orders(), epoch), None, "w1 leads, and is asked");
    let ask = |e| match e {
        Effect::Ask { id, request: PeerRequest::Lease(request), .. } => Some((id, request)),
        _ => None,
    };
    let (id, request) = db1.mail.take().into_iter().find_map(ask).expect("it is asked for");
    db1.mail.answered(id).expect("under way");
    let grant = Grant { epoch, number: request.number, ..granted(&db1.context.state, &request) };
    tenants.lease_answered(db1, &Wanted::of(&request), Ok(PeerResponse::Lease(Ok(grant))));
}

fn granted(state: &crate::ledger::State, request: &crate::lease::LeaseRequest) -> Grant {
    crate::lease::decide(state, request).expect("the ledger has it for the holder")
}

#[test]
fn the_guard_is_told_of_each_lease_once_and_again_where_it_could_not_be() {
    let world = World::new();
    let (mut db1, mut tenants) = primary(&world);
    tenants.keep_leases(&mut db1);
    assert_eq!(told(&mut db1), [], "there is no lease yet");
    renews(&mut db1, &mut tenants);
    tenants.keep_leases(&mut db1);
    let until = told(&mut db1);
    assert!(matches!(until[..], [Some(until)] if until > NOW), "{until:?}");
    tenants.keep_leases(&mut db1);
    assert_eq!(told(&mut db1), [], "it knows");
    assert!(tenants.lease_kept(&mut db1, &orders(), Err("no room".to_owned())));
    assert_eq!(tenants.failing().map(|(what, _)| what).collect::<Vec<_>>(), [Failing::LeaseFile]);
    tenants.keep_leases(&mut db1);
    assert_eq!(told(&mut db1), [], "not at once");
    db1.context.now = tenants.due(&db1.context).min().expect("it is told again");
    tenants.keep_leases(&mut db1);
    assert_eq!(told(&mut db1), until);
    tenants.lease_kept(&mut db1, &orders(), Ok(until[0].expect("an end")));
    assert_eq!(tenants.failing().count(), 0);
}

#[test]
fn a_lease_that_could_not_be_kept_is_tried_where_none_is_held_until_it_can_be() {
    let world = World::new();
    let (mut db1, mut tenants) = primary(&world);
    renews(&mut db1, &mut tenants);
    tenants.lease_kept(&mut db1, &orders(), Err("no room".to_owned()));
    // The epoch is another's by now.
    let mut over = world.state.clone();
    over.services.get_mut(&orders()).expect("there").holder = None;
    db1.context.take_state(Arc::new(over));
    db1.mail.take();
    let tries = |db1: &mut Desk, tenants: &mut Tenants| {
        tenants.keep_leases(db1);
        db1.mail.take().iter().filter(|e| matches!(e, Effect::TryLease { .. })).count()
    };
    assert_eq!(tries(&mut db1, &mut tenants), 0, "not at once");
    for _ in 0..3 {
        db1.context.now += Duration::from_secs(1);
        assert_eq!(tries(&mut db1, &mut tenants), 1);
        assert_eq!(tries(&mut db1, &mut tenants), 0, "once a second");
        let now = db1.context.now;
        assert!(tenants.lease_tried(now, &orders(), Err("no room".to_owned())));
        assert_eq!(tenants.failing().map(|(what, _)| what).collect::<Vec<_>>(), [Failing::LeaseFile]);
    }
    let now = db1.context.now;
    assert!(tenants.lease_tried(now, &orders(), Ok(())), "it is a candidate again");
    assert_eq!(tenants.failing().count(), 0);
    db1.context.now += Duration::from_secs(60);
    assert_eq!(tries(&mut db1, &mut tenants), 0);
}

#[test]
fn in_a_pause_the_guard_waits_and_after_it_there_is_an_end_again() {
    let mut world = World::new();
    let (mut db1, mut tenants) = primary(&world);
    renews(&mut db1, &mut tenants);
    world.done(pause());
    let moved = |db1: &mut Desk, tenants: &mut Tenants, world: &World| {
        let state = Arc::new(world.state.clone());
        tenants.ledger_moved(db1, &state);
        db1.context.take_state(state);
        tenants.keep_leases(db1);
    };
    moved(&mut db1, &mut tenants, &world);
    assert!(told(&mut db1).iter().flatten().all(|until| *until >= HELD_OPEN));
    // However long it lasts.
    db1.context.now = NOW + Duration::from_secs(600);
    world.done(resume());
    moved(&mut db1, &mut tenants, &world);
    let until = told(&mut db1);
    let grace = world.state.settings.as_ref().expect("seeded").lease_use();
    assert_eq!(until, [Some(db1.context.now + grace)], "one lease time to renew");
}

#[test]
fn what_gives_its_epoch_up_asks_for_no_lease() {
    let world = World::new();
    let (mut db1, mut tenants) = primary(&world);
    assert_eq!(tenants.wants_lease(&db1.context, &orders()), Some(Epoch(1)));
    // Without a lease its keeper stops it.
    tenants.keep(&mut db1, &orders(), true, &BTreeMap::new(), None, (0, None));
    let stops = |e: &Effect| matches!(e, Effect::Db { action: DbAction::Stop { .. }, .. });
    assert!(db1.mail.take().iter().any(stops));
    assert_eq!(tenants.wants_lease(&db1.context, &orders()), None);
}

#[test]
fn an_earlier_daemons_lease_is_claimed_for_as_long_as_its_database_runs() {
    let world = World::new();
    let kept = BTreeMap::from([(orders(), (Epoch(1), NOW + Duration::from_secs(8)))]);
    let mut db1 = desk("db1", DB1, &world.state);
    db1.context.take_incarnation(None);
    let mut tenants = Tenants::found(&config("db1"), &Start { kept, ..start("db1") }, NOW);
    assert_eq!(tenants.claims(&mut db1, true), None, "nobody has looked at the database yet");
    sees(&mut tenants, &db1, DbState::Primary);
    let claims = tenants.claims(&mut db1, true).expect("it runs on");
    assert_eq!(claims[&orders()].state, crate::ledger::ClaimState::Adopted);
    sees(&mut tenants, &db1, DbState::Stopped);
    assert_eq!(tenants.claims(&mut db1, true), None, "its final word is written first");
    let tombstone = |e: &Effect| matches!(e, Effect::Tombstone { .. });
    assert!(db1.mail.take().iter().any(tombstone));
    tenants.tombstone_ended(&mut db1, &orders(), Epoch(1), Ok(()));
    let claims = tenants.claims(&mut db1, true).expect("it is settled");
    assert_eq!(claims[&orders()].state, crate::ledger::ClaimState::Over { position: None });
}

#[test]
fn the_others_are_told_what_each_database_is() {
    let world = World::new();
    let (mut db1, mut tenants) = primary(&world);
    renews(&mut db1, &mut tenants);
    let health = tenants.health(&db1.context).remove(&orders()).expect("it keeps one");
    assert_eq!((health.state, health.holds, health.released), (DbState::Primary, Some(Epoch(1)), None));
    db1.context.goes_on(NOW + Duration::from_secs(60));
    let later = tenants.health(&db1.context).remove(&orders()).expect("it keeps one");
    assert_eq!(later.holds, None, "the lease is over");
}

/// A quorum has given this node up, or has followed it: it stops at once, not only when its lease ends. What was said of
/// another epoch or of an earlier incarnation is no such word.
#[test]
fn a_quorums_word_ends_a_lease_at_once() {
    let world = World::new();
    let denied = |wanted: Wanted, denial: Denial| {
        let (mut db1, mut tenants) = primary(&world);
        renews(&mut db1, &mut tenants);
        tenants.lease_answered(&mut db1, &wanted, Ok(PeerResponse::Lease(Err(denial))));
        tenants.keep(&mut db1, &orders(), true, &BTreeMap::new(), None, (0, None));
        db1.mail.take().iter().any(|e| matches!(e, Effect::Db { action: DbAction::Stop { .. }, .. }))
    };
    let wanted = |epoch, incarnation| Wanted { service: orders(), epoch: Epoch(epoch), incarnation };
    let name = || node("db1");
    assert!(denied(wanted(1, DB1), Denial::Dead { node: name() }));
    assert!(denied(wanted(1, DB1), Denial::Fenced { node: name() }));
    assert!(denied(wanted(1, DB1), Denial::OldEpoch { asked: Epoch(1), current: Epoch(2) }));
    assert!(!denied(wanted(1, DB1), Denial::Unknown), "a grantor that knows nothing");
    assert!(!denied(wanted(1, DB2), Denial::Dead { node: name() }), "of another incarnation");
    assert!(!denied(wanted(0, DB1), Denial::OldEpoch { asked: Epoch(0), current: Epoch(1) }), "of another epoch");
}

/// A database on its way up or down gives no answer that another would be preferred for.
#[test]
fn a_database_on_its_way_is_not_said_to_be_no_standby() {
    let world = World::fenced();
    let mut db2 = desk("db2", DB2, &world.state);
    let mut tenants = Tenants::found(&config("db2"), &start("db2"), NOW);
    let mut asked = |state| {
        sees(&mut tenants, &db2, state);
        tenants.seal_answer(&mut db2, (&orders(), Epoch(1)), NOW, None)
    };
    for state in [DbState::Unclear, DbState::Starting, DbState::Stopping] {
        assert_eq!(asked(state), None, "{state:?}");
    }
    let Some(PeerResponse::Seal(Err(why))) = asked(DbState::Absent) else { panic!("it never will be one") };
    assert!(why.contains("no running standby"), "{why}");
}
