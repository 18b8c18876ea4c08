//! A whole node and its database over time: an appointee that replays a backlog, and a daemon that starts during a
//! pause.

use super::{Effect, Event, Node, Start};
use crate::config::Config;
use crate::ledger::world_test::*;
use crate::ledger::{Answer, ClaimState, Command, Entry, Event as LedgerEvent, Machine};
use crate::types::{ClusterId, DbAction, DbState, Epoch, Incarnation, Instant, Lsn, NodeName, Observation, WallTime};
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
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let mut config = Config::parse(text, "regent.toml", None, name).expect("an example");
        config.watchdog = None;
        let now = Instant(1_000_000_000_000);
        let kept = kept_for.map(|time| (orders(), (Epoch(1), now + time))).into_iter().collect();
        let start = Start {
            cluster: ClusterId("orders".to_owned()),
            boot: boot(name, 1),
            machine: Machine { watchdog: None, ..machine(name) },
            tombstones: BTreeMap::new(),
            kept,
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
        let command = join(self.name.as_str(), 1, &[]);
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

/// The primary's daemon was killed during a pause; the next one finds the lease that the pause held open.
fn restarted(paused: bool) -> (World, Running) {
    let mut world = World::new();
    world.done(pause());
    if !paused {
        world.done(resume());
    }
    let mut db1 = Running::start("db1", Some(SECOND * 100_000));
    db1.sees(DbState::Primary, 0);
    assert_eq!(db1.pass(5), None, "before the ledger is known nothing is stopped: a pause may stand");
    db1.knows(&world);
    (world, db1)
}

#[test]
fn a_pause_is_taken_up_by_the_next_daemon() {
    let (mut world, mut db1) = restarted(true);
    let claims = |effect: &Effect| match effect {
        Effect::Ask { request: super::PeerRequest::Propose(command), .. } => match &**command {
            Command::Join { claims, .. } => claims.get(&orders()).map(|claim| claim.state),
            _ => None,
        },
        _ => None,
    };
    assert_eq!(db1.effects.iter().find_map(claims), Some(ClaimState::Adopted));
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
fn without_a_pause_the_next_daemon_stops_what_the_lease_no_longer_covers() {
    let (_, db1) = restarted(false);
    assert!(db1.was_told_to_stop());
}
