//! Heartbeats out: when the next one is due, what it says, and by its lateness the node's doubt in itself (S10).
//!
//! Not here: what comes in (`peers.rs`).

use super::Effect;
use super::context::Context;
use super::desk::Desk;
use super::peers::Peers;
use crate::known_bugs::{self, Bug};
use crate::plan::Row;
use crate::types::{Goodbye, Heartbeat, HeartbeatBody, Instant, PeerView, ServiceHealth};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The sending side.
#[derive(Debug)]
pub(super) struct Beats {
    next: Instant,
    sequence: u64,
    goodbye: Option<Goodbye>,
    /// What was said last: a change is said at once.
    said: Option<HeartbeatBody>,
    log_write: Duration,
    rng: StdRng,
}

/// What is worth a heartbeat of its own when it changes: sights, final words, and what a database is, so that an
/// operator who sees it on its own host is not told otherwise by the leader.
fn is_news(said: &HeartbeatBody, row: &Row, goodbye: Option<Goodbye>) -> bool {
    // The very same, mostly.
    if Arc::ptr_eq(&said.views, &row.views) && Arc::ptr_eq(&said.health, &row.health) {
        return said.goodbye != goodbye;
    }
    let sights = |a: &PeerView, b: &PeerView| a.database_alive == b.database_alive && a.channels == b.channels;
    let words = |a: &ServiceHealth, b: &ServiceHealth| {
        (a.state, &a.released, a.holds, &a.streams_from) == (b.state, &b.released, b.holds, &b.streams_from)
    };
    !is_alike(&said.views, &row.views, sights)
        || !is_alike(&said.health.services, &row.health.services, words)
        || said.goodbye != goodbye
        || said.health.failing != row.health.failing
        || said.health.leaving != row.health.leaving
        || said.health.alarms != row.health.alarms
}

fn is_alike<K: Ord, V>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>, is_same: impl Fn(&V, &V) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((m, v), (n, w))| m == n && is_same(v, w))
}

impl Beats {
    pub fn new(now: Instant, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Beats { next: now, sequence: 0, goodbye: None, said: None, log_write: Duration::ZERO, rng }
    }

    /// A new incarnation counts from the beginning.
    pub fn restart(&mut self, now: Instant) {
        (self.next, self.sequence, self.said) = (now, 0, None);
    }

    /// The next pulse. Before the node has joined nothing is sent then, and it must be noticed all the same when the node
    /// itself stood still: its detector watches already.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// For how long the node itself was stopped, if so. The heartbeat timer is its pulse: when that is handled late, all
    /// else is.
    pub fn lateness(&mut self, context: &Context) -> Option<Duration> {
        let late = context.now.since(self.next);
        let is_late = late > context.timing.acceptable_pause / 2 && !known_bugs::has(Bug::DoubtIgnored);
        if is_late {
            self.next = context.now;
        }
        is_late.then_some(late)
    }

    /// This daemon is about to be restarted.
    pub fn say_goodbye(&mut self, back_within: Duration) {
        self.goodbye = Some(Goodbye::planned(back_within));
    }

    /// The slowest recent write of the Raft log, for the others to know.
    pub fn log_wrote(&mut self, took: Duration) {
        self.log_write = took;
    }

    pub fn log_write(&self) -> Duration {
        self.log_write
    }

    /// Sends when it is due, and once more at once when something changed that others wait for.
    pub fn beat(&mut self, desk: &mut Desk, peers: &Peers) {
        let due = desk.context.now >= self.next;
        if due {
            let interval = desk.context.config.detector.interval;
            let jitter = interval.mul_f64(self.rng.random_range(0.0..0.1));
            // Early rather than late: the interval is what the others may count on.
            self.next = desk.context.now + (interval - jitter);
        }
        let (Some(incarnation), Some(row)) = (desk.context.incarnation, peers.rows().get(&desk.context.config.node))
        else {
            return;
        };
        let news = self.said.as_ref().is_some_and(|said| is_news(said, row, self.goodbye));
        if !due && !news {
            return;
        }
        let body = HeartbeatBody {
            views: row.views.clone(),
            health: row.health.clone(),
            heard: peers.newest(),
            goodbye: self.goodbye,
        };
        self.sequence += 1;
        self.said = Some(body.clone());
        desk.mail.push(Effect::Beat(Arc::new(Heartbeat {
            cluster: desk.context.start.cluster.clone(),
            node: desk.context.me(),
            boot: desk.context.start.boot.clone(),
            incarnation,
            sequence: self.sequence,
            body: Some(body),
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::world_test::{DB2, World};
    use crate::node::context_test::{NOW, config, desk};
    use crate::types::{DbState, Health, Incarnation, Position};

    fn row(state: DbState, upstream: Option<&str>) -> Row {
        let health = ServiceHealth {
            state,
            writable: false,
            holds: None,
            timeline: Default::default(),
            position: Position::default(),
            streams_from: upstream.map(|name| name.parse().expect("valid")),
            released: None,
            copy: None,
            network: None,
            replay: None,
            file_fault: None,
            trouble: None,
            pending_restart: Vec::new(),
            lowered: Vec::new(),
            unfit: Vec::new(),
        };
        let services = BTreeMap::from([("orders".parse().expect("valid"), health)]);
        let health = Arc::new(Health { services, ..Health::default() });
        Row { at: Instant::default(), incarnation: Incarnation(1), views: Arc::default(), health }
    }

    #[test]
    fn what_a_database_has_become_is_said_at_once_and_where_its_log_ends_is_not() {
        let before = row(DbState::Unstartable, None);
        let said = HeartbeatBody { health: before.health.clone(), ..HeartbeatBody::default() };
        assert!(!is_news(&said, &before, None));
        assert!(is_news(&said, &row(DbState::Standby, None), None), "it is a standby now");
        assert!(is_news(&said, &row(DbState::Unstartable, Some("db2")), None), "it streams now");
        let mut later = row(DbState::Unstartable, None);
        for health in Arc::make_mut(&mut later.health).services.values_mut() {
            health.position.lsn = crate::types::Lsn(7);
        }
        assert!(!is_news(&said, &later, None), "a position moves all the time");
        assert!(is_news(&said, &before, Some(Goodbye::planned(Duration::from_secs(1)))), "a goodbye");
    }

    #[test]
    fn a_pulse_is_due_within_an_interval_and_a_late_one_tells_that_the_node_stood_still() {
        let mut db2 = desk("db2", DB2, &World::new().state);
        let (mut beats, mut peers) = (Beats::new(NOW, 1), Peers::new(&config("db2"), NOW));
        peers.refresh_own_row(&db2.context, DB2, std::iter::empty(), Health::default());
        let sequences = |db2: &mut Desk| -> Vec<u64> {
            let sequence = |e| if let Effect::Beat(heartbeat) = e { Some(heartbeat.sequence) } else { None };
            db2.mail.take().into_iter().filter_map(sequence).collect()
        };
        beats.beat(&mut db2, &peers);
        assert_eq!(sequences(&mut db2), [1]);
        beats.beat(&mut db2, &peers);
        assert!(sequences(&mut db2).is_empty(), "nothing new, and nothing due");
        let interval = db2.context.config.detector.interval;
        assert!(beats.due() > NOW && beats.due() <= NOW + interval, "early rather than late");
        beats.say_goodbye(Duration::from_secs(1));
        beats.beat(&mut db2, &peers);
        assert_eq!(sequences(&mut db2), [2], "a goodbye is news");
        db2.context.now = beats.due() + db2.context.timing.acceptable_pause / 2;
        assert_eq!(beats.lateness(&db2.context), None);
        db2.context.now += Duration::from_millis(1);
        assert!(beats.lateness(&db2.context).is_some_and(|late| late > db2.context.timing.acceptable_pause / 2));
        assert_eq!(beats.lateness(&db2.context), None, "it is told once");
        beats.restart(db2.context.now);
        beats.beat(&mut db2, &peers);
        assert_eq!(sequences(&mut db2), [1], "a new incarnation counts anew");
    }
}
