//! A whole node and its database over time: an appointee that replays a backlog, a daemon that starts during a pause,
//! and one that starts during a promotion.

use super::{Effect, Event, Node, Start};
use crate::config::Config;
use crate::ledger::world_test::*;
use crate::ledger::{Answer, ClaimState, Command, Entry, Event as LedgerEvent, Machine};
use crate::plan::Question;
use crate::plan::keeper::Back;
use crate::types::{
    ClusterId, CopyHealth, CopyProgress, DbAction, DbDone, DbOutcome, DbState, Epoch, Incarnation, Instant, Lsn,
    NodeName, Observation, StopLadder, WallTime,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// One node and the clock that drives it.
struct Running {
    node: Node,
    name: NodeName,
    now: Instant,
    effects: Vec<Effect>,
}

impl Running {
    /// A daemon that starts on the first boot of its host, and what it finds there of an earlier one: a lease of epoch 1.
    fn start(name: &str, kept_for: Option<Duration>) -> Running {
        Running::start_with(name, kept_for.map(|time| (Epoch(1), time)))
    }

    /// The same, with a lease of that epoch.
    fn start_with(name: &str, kept: Option<(Epoch, Duration)>) -> Running {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let mut config = Config::parse(text, "regent.toml", None, name).expect("an example");
        config.watchdog = None;
        let now = Instant(1_000_000_000_000);
        let kept = kept.map(|(epoch, time)| (orders(), (epoch, now + time))).into_iter().collect();
        let start = Start {
            cluster: ClusterId("orders".to_owned()),
            boot: boot(name, 1),
            machine: Machine { watchdog: None, ..machine(name) },
            tombstones: BTreeMap::new(),
            kept,
            watchdog: None,
            seed: 1,
        };
        let node = Node::new(Arc::new(config), start, now);
        Running { node, name: name.parse().expect("a valid name"), now, effects: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        self.effects.extend(self.node.handle(self.now, event));
    }

    fn knows(&mut self, world: &World) {
        self.tell(Event::Ledger { state: Arc::new(world.state.clone()) });
    }

    /// The ledger has taken its join.
    fn joined(&mut self, world: &World, incarnation: Incarnation) {
        let mut command = join(self.name.as_str(), 1, &[]);
        if let Command::Join { request, .. } = &mut command {
            *request = self.node.membership.request();
        }
        let entry = Arc::new(Entry { at: WallTime(0), command });
        let answer = Arc::new(Answer::Done(LedgerEvent::Joined { incarnation }));
        self.tell(Event::Applied { entry, answer, state: Arc::new(world.state.clone()) });
    }

    fn sees(&mut self, state: DbState, replayed: u64) {
        let seen = Observation { state, system: Some(SYSTEM), replayed: Some(Lsn(replayed)), ..Observation::unclear() };
        self.tell(Event::Seen { service: orders(), seen: Box::new(seen) });
    }

    /// Time passes, second by second; returns after how many its database was told to stop.
    fn pass(&mut self, seconds: u32) -> Option<u32> {
        (1..=seconds).find(|_| {
            self.now += SECOND;
            self.tell(Event::Wake);
            self.was_told_to_stop()
        })
    }

    /// The state that it claims for the epoch that it holds, if it asks to join.
    fn claim(&self) -> Option<ClaimState> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Ask { request: super::PeerRequest::Propose(command), .. } => match &**command {
                Command::Join { claims, .. } => claims.get(&orders()).map(|claim| claim.state),
                _ => None,
            },
            _ => None,
        })
    }

    /// The ladder of the stop that it was told to.
    fn ladder(&self) -> StopLadder {
        let stop = |effect: &Effect| match effect {
            Effect::Db { action: DbAction::Stop { ladder }, .. } => Some(*ladder),
            _ => None,
        };
        self.effects.iter().find_map(stop).expect("it was told to stop")
    }

    fn was_told_to_promote(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Db { action: DbAction::Promote { .. }, .. }))
    }

    fn was_told_to_stop(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Db { action: DbAction::Stop { .. }, .. }))
    }
}

#[test]
fn the_install_deadline_runs_anew_while_replay_advances() {
    let mut world = World::fenced();
    let mut db2 = Running::start("db2", None);
    db2.sees(DbState::Standby, 0);
    db2.joined(&world, DB2);
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    db2.knows(&world);
    // Thirty seconds are its deadline (profile lan): a backlog of minutes is replayed.
    for advanced in 1..=8 {
        assert_eq!(db2.pass(25), None, "given up while its replay advanced");
        db2.sees(DbState::Standby, advanced);
    }
    // Then replay stands still, and what is seen is as before.
    assert_eq!(db2.pass(29), None);
    db2.sees(DbState::Standby, 8);
    assert_eq!(db2.pass(5), Some(2), "an appointee that does not get on is given up after thirty seconds");
}

/// So long that it is held open by a pause.
const HELD: Duration = Duration::from_nanos(super::HELD_OPEN.0 - 1_000_000_000_000);

/// The primary's daemon was killed during a pause; the next one finds the lease that the pause held open.
fn restarted(paused: bool) -> (World, Running) {
    let mut world = World::new();
    world.done(pause());
    if !paused {
        world.done(resume());
    }
    let mut db1 = Running::start("db1", Some(HELD));
    db1.sees(DbState::Primary, 0);
    assert_eq!(db1.pass(5), None, "before the ledger is known nothing is stopped: a pause may stand");
    db1.knows(&world);
    (world, db1)
}

#[test]
fn a_pause_is_taken_up_by_the_next_daemon() {
    let (mut world, mut db1) = restarted(true);
    assert_eq!(db1.claim(), Some(ClaimState::Adopted));
    let joined = world.done(join("db1", 1, &[(1, ClaimState::Adopted)]));
    assert_eq!(joined, LedgerEvent::Joined { incarnation: Incarnation(4) });
    db1.joined(&world, Incarnation(4));
    assert_eq!(db1.pass(300), None, "the pause holds for as long as it stands");
    assert_eq!(world.primary(), (Epoch(1), node("db1")));
    // It ends: one lease time is left to renew, and nobody grants anything here.
    world.done(resume());
    db1.knows(&world);
    assert!(db1.pass(60).is_some_and(|seconds| seconds > 1), "the resume leaves time to renew, and then none");
}

#[test]
fn a_pause_that_ended_while_no_daemon_was_there_leaves_time_to_renew() {
    let (mut world, mut db1) = restarted(false);
    assert!(!db1.was_told_to_stop(), "nothing can be concluded from its lease before it has renewed");
    assert_eq!(db1.claim(), Some(ClaimState::Adopted));
    world.done(join("db1", 1, &[(1, ClaimState::Adopted)]));
    db1.joined(&world, Incarnation(4));
    assert!(db1.pass(60).is_some_and(|seconds| seconds > 1), "one lease time to renew, and then none");
}

/// A copy of the ledger from before the pause says that the epoch goes on and no lease covers it.
#[test]
fn what_an_old_copy_of_the_ledger_says_stops_nothing() {
    let world = World::new();
    let mut db1 = Running::start("db1", Some(HELD));
    db1.sees(DbState::Primary, 0);
    db1.knows(&world);
    db1.joined(&world, Incarnation(4));
    assert_eq!(db1.pass(5), None, "its own join is not applied yet: what it reads is older than that");
}

/// An epoch of a lease time that is longer than the file's has by now: the kept lease has an end of its own.
#[test]
fn a_kept_lease_is_judged_by_its_own_end() {
    let mut db1 = Running::start("db1", Some(SECOND * 30));
    db1.sees(DbState::Primary, 0);
    let world = World::new();
    db1.knows(&world);
    assert_eq!(db1.claim(), Some(ClaimState::Adopted), "longer than this file's time, and valid");
    assert!(db1.pass(40).is_some_and(|seconds| seconds > 20), "and it ends");
}

/// The daemon of an appointee was killed while its database replayed a backlog at the end of recovery, which goes on by
/// itself and then takes writes. The next one finds a standby, and the lease under which the promotion was begun.
fn restarted_in_a_promotion(lease_left: Duration) -> (World, Running) {
    let mut world = World::fenced();
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    let mut db2 = Running::start_with("db2", Some((Epoch(2), lease_left)));
    db2.sees(DbState::Standby, 0);
    db2.knows(&world);
    (world, db2)
}

#[test]
fn a_promotion_under_way_is_taken_up_by_the_next_daemon() {
    let (mut world, mut db2) = restarted_in_a_promotion(SECOND * 8);
    assert_eq!(db2.claim(), Some(ClaimState::Adopted), "the epoch goes on: the promotion does");
    assert!(!db2.was_told_to_stop());
    let joined = world.done(join("db2", 1, &[(2, ClaimState::Adopted)]));
    assert_eq!(joined, LedgerEvent::Joined { incarnation: Incarnation(4) });
    db2.joined(&world, Incarnation(4));
    assert!(db2.was_told_to_promote());
}

#[test]
fn an_epoch_is_not_over_before_its_promotion_cannot_complete_any_more() {
    let (_, mut db2) = restarted_in_a_promotion(Duration::ZERO);
    assert!(db2.was_told_to_stop(), "it would open by itself");
    assert_eq!(db2.claim(), None, "a standby that is being promoted is not closed");
    db2.sees(DbState::Stopped, 0);
    let action = DbAction::Stop { ladder: db2.ladder() };
    let outcome = DbOutcome::Done(DbDone::Stopped { clean: false, position: None });
    db2.tell(Event::DbEnded { service: orders(), action, outcome });
    db2.tell(Event::Tombstoned { service: orders(), epoch: Epoch(2), result: Ok(()) });
    assert_eq!(db2.claim(), Some(ClaimState::Over { position: None }));
}

#[test]
fn a_seal_that_failed_is_not_tried_again_at_once() {
    let world = World::fenced();
    let mut db2 = Running::start("db2", None);
    db2.sees(DbState::Standby, 0);
    db2.joined(&world, DB2);
    let ask = |reply| {
        let question = Question::Seal { service: orders(), epoch: Epoch(1) };
        Event::Asked { reply, from: node("w1"), request: super::PeerRequest::Question(question) }
    };
    let seals = |db2: &Running| {
        let seal = |e: &&Effect| matches!(e, Effect::Db { action: DbAction::Seal, .. });
        db2.effects.iter().filter(seal).count()
    };
    db2.tell(ask(1));
    assert_eq!(seals(&db2), 1);
    let outcome = DbOutcome::Failed { error: "it does not answer".to_owned() };
    db2.tell(Event::DbEnded { service: orders(), action: DbAction::Seal, outcome });
    assert!(db2.effects.iter().any(|e| matches!(e, Effect::Reply { reply: 1, .. })), "the leader hears why");
    db2.tell(ask(2));
    db2.now += Duration::from_millis(499);
    db2.tell(Event::Wake);
    assert_eq!(seals(&db2), 1, "asked again at once, it would seal in a loop");
    assert!(db2.node.next_wakeup().is_some_and(|at| at <= db2.now + Duration::from_millis(1)));
    db2.now += Duration::from_millis(1);
    db2.tell(Event::Wake);
    assert_eq!(seals(&db2), 2);
}

fn follow(effect: &Effect) -> Option<DbAction> {
    match effect {
        Effect::Db { action: action @ DbAction::Follow { .. }, .. } => Some(action.clone()),
        _ => None,
    }
}

#[test]
fn a_standby_has_time_to_connect_once_it_was_told_whom_to_follow() {
    let world = World::new();
    let mut db2 = Running::start("db2", None);
    db2.knows(&world);
    db2.sees(DbState::Standby, 0);
    db2.joined(&world, DB2);
    let action = db2.effects.iter().find_map(follow).expect("it follows nobody yet");
    assert_eq!(db2.pass(30), None);
    db2.tell(Event::DbEnded { service: orders(), action, outcome: DbOutcome::Done(DbDone::Plain) });
    assert!(!db2.was_told_to_stop(), "until then it got nothing because it followed nobody");
}

#[test]
fn a_standby_that_gets_nothing_is_not_stopped_while_nobody_says_that_its_primary_takes_writes() {
    let mut db2 = Running::start("db2", None);
    // Seen once, before anything is known; nothing about it changes from then on, so nothing is told of it again.
    let (state, follows) = (DbState::Standby, Some(node("db1")));
    let seen = Observation { state, system: Some(SYSTEM), follows, awaits_wal: true, ..Observation::unclear() };
    db2.tell(Event::Seen { service: orders(), seen: Box::new(seen) });
    db2.joined(&World::new(), DB2);
    assert_eq!(db2.pass(30), None);
}

#[test]
fn a_folder_that_is_not_named_yet_is_named_after_a_later_rejoin() {
    let mut db2 = Running::start("db2", None);
    db2.sees(DbState::Stopped, 0);
    db2.joined(&World::new(), DB2);
    let rejoins = |kept: Option<&str>, db2: &mut Running| {
        let rejoin = |e: &Effect| match e {
            Effect::Db { action: action @ DbAction::Rejoin { .. }, .. } => Some(action.clone()),
            _ => None,
        };
        let action = db2.effects.iter().find_map(rejoin).expect("it is made a standby of the primary");
        db2.effects.clear();
        let done = DbDone::Rejoined { how: "so".to_owned(), kept: kept.map(str::to_owned) };
        db2.tell(Event::DbEnded { service: orders(), action, outcome: DbOutcome::Done(done) });
    };
    rejoins(Some("diverged-1"), &mut db2);
    db2.sees(DbState::Stopped, 0);
    // Nobody has answered; what it does next is over before somebody does.
    let start = |e: &Effect| match e {
        Effect::Db { action: action @ DbAction::StartStandby { .. }, .. } => Some(action.clone()),
        _ => None,
    };
    if let Some(action) = db2.effects.iter().find_map(start) {
        db2.tell(Event::DbEnded { service: orders(), action, outcome: DbOutcome::Failed { error: "no".to_owned() } });
    }
    db2.now += SECOND;
    db2.tell(Event::Wake);
    rejoins(None, &mut db2);
    let said = Back { how: "so".to_owned(), kept: Some("diverged-1".to_owned()), order: None };
    assert_eq!(db2.node.keepers()[&orders()].unsaid_rejoin(), Some(&said));
}

#[test]
fn a_stop_that_fails_is_ordered_again_after_a_pause_that_grows() {
    let (_, mut db2) = restarted_in_a_promotion(Duration::ZERO);
    let mut stops = 0;
    for _ in 0..300 {
        while let Some(at) = db2.effects.iter().position(|e| matches!(e, Effect::Db { .. })) {
            let Effect::Db { service, action } = db2.effects.remove(at) else { continue };
            assert!(matches!(action, DbAction::Stop { .. }), "{action:?}");
            stops += 1;
            let outcome = DbOutcome::Failed { error: "input/output error".to_owned() };
            db2.tell(Event::DbEnded { service, action, outcome });
        }
        db2.now += Duration::from_millis(10);
        db2.tell(Event::Wake);
    }
    assert_eq!(stops, 6, "in three seconds, at 0, 0.1, 0.3, 0.7, 1.5 and 2.5");
}

/// Nothing wakes it but its own timers: it must know when the next one is due. The others hear that it failed.
#[test]
fn a_copy_that_fails_is_ordered_again_after_a_pause_that_grows_and_told_to_everybody() {
    let mut db2 = Running::start("db2", None);
    db2.sees(DbState::Unstartable, 0);
    db2.joined(&World::new(), DB2);
    let (start, mut copies) = (db2.now, Vec::new());
    let copy = |db2: &Running| db2.node.rows()[&node("db2")].health.services[&orders()].copy;
    while db2.now.since(start) < SECOND * 70 {
        while let Some(at) = db2.effects.iter().position(|e| matches!(e, Effect::Db { .. })) {
            let Effect::Db { service, action } = db2.effects.remove(at) else { continue };
            assert!(matches!(action, DbAction::Rejoin { .. }), "{action:?}");
            copies.push(db2.now.since(start).as_secs());
            let outcome = DbOutcome::Failed { error: "it ended".to_owned() };
            db2.tell(Event::DbEnded { service, action, outcome });
            assert_eq!(copy(&db2), Some(CopyHealth::Failed(copies.len() as u32)));
        }
        db2.now = db2.node.next_wakeup().expect("something is always due").max(db2.now);
        db2.tell(Event::Wake);
    }
    assert_eq!(copies, [0, 1, 3, 7, 15, 31, 63]);
    let progress = CopyProgress::copied(1, 4, SECOND);
    let seen = Observation { state: DbState::Unstartable, copy: Some(progress), ..Observation::unclear() };
    db2.tell(Event::Seen { service: orders(), seen: Box::new(seen) });
    assert_eq!(copy(&db2), Some(CopyHealth::UnderWay(progress)));
}

/// The daemon that made a folder died before it had said so: the next one finds it, and says so unless an incident names it.
#[test]
fn a_folder_that_an_earlier_daemon_made_is_named_once() {
    let folder = "/srv/orders.diverged-1";
    let is_unsaid = |world: &World| {
        let mut db2 = Running::start("db2", None);
        let kept = vec![folder.to_owned()];
        let seen = Observation { state: DbState::Stopped, system: Some(SYSTEM), kept, ..Observation::unclear() };
        db2.tell(Event::Seen { service: orders(), seen: Box::new(seen) });
        db2.joined(world, DB2);
        db2.node.keepers()[&orders()].unsaid_rejoin().is_some()
    };
    let mut world = World::dead();
    assert!(is_unsaid(&world), "it is said until the ledger has it");
    let (how, kept) = ("rewound".to_owned(), Some(folder.to_owned()));
    world.done(Command::Rejoined {
        service: orders(),
        epoch: crate::types::Epoch(1),
        node: node("db2"),
        how,
        kept,
        order: None,
    });
    assert!(!is_unsaid(&world), "an incident names it");
}
