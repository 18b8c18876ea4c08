//! Heartbeats out and in, and the node's doubt in itself (S10).

use super::{Effect, Node, Said};
use crate::channel::replay::Freshness;
use crate::known_bugs::{self, Bug};
use crate::plan::{Row, alarm};
use crate::types::{
    ChannelName, Goodbye, Health, Heartbeat, HeartbeatBody, Instant, NodeName, PeerView, ServiceHealth,
};
use rand::RngExt;
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
}

impl Beats {
    pub fn new(now: Instant) -> Self {
        Beats { next: now, sequence: 0, goodbye: None, said: None }
    }

    pub fn restart(&mut self, now: Instant) {
        *self = Beats { goodbye: self.goodbye, ..Beats::new(now) };
    }

    /// The next pulse. Before the node has joined nothing is sent then, and it must be noticed all the same when the node
    /// itself stood still: its detector watches already.
    pub fn due(&self) -> Instant {
        self.next
    }
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
        (a.state, a.released, a.holds, &a.streams_from) == (b.state, b.released, b.holds, &b.streams_from)
    };
    !is_alike(&said.views, &row.views, sights)
        || !is_alike(&said.health.services, &row.health.services, words)
        || said.goodbye != goodbye
        || said.health.failing != row.health.failing
        || said.health.alarms != row.health.alarms
}

fn is_alike<K: Ord, V>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>, is_same: impl Fn(&V, &V) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((m, v), (n, w))| m == n && is_same(v, w))
}

impl Node {
    /// The heartbeat timer is the node's pulse: when it is handled late, the node itself was stopped.
    pub(super) fn notice_lateness(&mut self) {
        let late = self.context.now.since(self.beats.due());
        if late > self.context.timing.acceptable_pause / 2 && !known_bugs::has(Bug::DoubtIgnored) {
            self.mail.say(Said::RanLate { late });
            self.detector.doubt(self.context.now, late);
            self.beats.next = self.context.now;
        }
    }

    /// Whether it says anything that somebody here may wait for.
    pub(super) fn hear(&mut self, channel: &ChannelName, at: Instant, heartbeat: &Heartbeat) -> bool {
        // Only a counter that moved is a sign of life: not a recording, not what a dead node left in its slot.
        if self.replay.judge(channel, heartbeat) != Freshness::Advanced {
            return false;
        }
        let Heartbeat { node, boot, incarnation, body, .. } = heartbeat;
        // A fence that is looked at, or a question that waits for life or silence.
        let awaited = !self.watches.is_empty() || !self.pending.is_empty();
        let incarnation = *incarnation;
        let known = self.context.state.nodes.get(node);
        let is_old = *node == self.context.config.node || known.is_some_and(|n| incarnation < n.incarnation);
        self.watch_life(node, boot, channel, at, body.as_ref());
        if is_old {
            return awaited;
        }
        self.detector.heard(at, channel, node, boot, incarnation);
        let Some(body) = body else { return awaited };
        if let Some(goodbye) = body.goodbye {
            self.detector.goodbye(self.context.now, node, incarnation, goodbye.back_within);
        }
        if self.replay.is_unread(heartbeat) {
            body.heard.iter().for_each(|(peer, (incarnation, sequence))| {
                self.replay.told(peer, *incarnation, *sequence);
            });
        }
        let present = Row { at, incarnation, views: body.views.clone(), health: body.health.clone() };
        let Some(row) = self.rows.get_mut(node) else {
            self.rows.insert(node.clone(), present);
            return true;
        };
        if row.at > at && row.incarnation >= incarnation {
            return awaited;
        }
        let before = std::mem::replace(row, present);
        let same_views = before.incarnation == incarnation && before.views == row.views;
        let is_new = !same_views || !before.health.is_alike(&row.health);
        awaited || is_new || body.goodbye.is_some()
    }

    /// This node's row. What did not change in it stays the very same value.
    pub(super) fn refresh_own_row(&mut self) {
        let Some(incarnation) = self.context.incarnation else { return };
        self.detector.look(self.context.now, &mut self.sights);
        let before = self.rows.get(&self.context.config.node);
        let feeds =
            |peer: &NodeName| self.tenants.keepers().values().any(|k| k.seen().streams_from.as_ref() == Some(peer));
        let views = match before {
            Some(row) if self.detector.still_shows(&self.sights, &row.views, feeds) => row.views.clone(),
            _ => Arc::new(self.views()),
        };
        let health = self.health();
        let health = match before {
            Some(row) if *row.health == health => row.health.clone(),
            _ => Arc::new(health),
        };
        let row = Row { at: self.context.now, incarnation, views, health };
        match self.rows.get_mut(&self.context.config.node) {
            Some(before) => *before = row,
            None => drop(self.rows.insert(self.context.me(), row)),
        }
    }

    /// This node's view of its peers, with what its own database knows of theirs.
    pub(super) fn views(&self) -> BTreeMap<NodeName, PeerView> {
        let mut views = self.detector.views(self.context.now);
        for keeper in self.tenants.keepers().values() {
            if let Some(view) = keeper.seen().streams_from.as_ref().and_then(|up| views.get_mut(up)) {
                view.database_alive = true;
            }
        }
        views
    }

    fn health(&self) -> Health {
        let services = self.tenants.keepers().iter().map(|(name, keeper)| {
            let seen = keeper.seen();
            let holds = keeper.lease().filter(|l| l.is_valid(self.context.now)).map(|l| l.epoch());
            let health = ServiceHealth {
                state: seen.state,
                holds,
                timeline: seen.position.timeline,
                position: seen.position,
                streams_from: seen.streams_from.clone(),
                released: keeper.released(),
            };
            (name.clone(), health)
        });
        Health {
            services: services.collect(),
            watchdog_armed: self.watchdog.is_armed(),
            log_write: self.log_write,
            self_doubt: self.detector.is_self_doubting(self.context.now),
            config_hash: self.context.config.hash,
            failing: self.failing().into_keys().collect(),
            alarms: alarm::carried(&self.plan),
        }
    }

    /// Sends when it is due, and once more at once when something changed that others wait for.
    pub(super) fn beat(&mut self) {
        let due = self.context.now >= self.beats.next;
        if due {
            let interval = self.context.config.detector.interval;
            let jitter = interval.mul_f64(self.rng.random_range(0.0..0.1));
            // Early rather than late: the interval is what the others may count on.
            self.beats.next = self.context.now + (interval - jitter);
        }
        let (Some(incarnation), Some(row)) = (self.context.incarnation, self.rows.get(&self.context.config.node))
        else {
            return;
        };
        let news = self.beats.said.as_ref().is_some_and(|said| is_news(said, row, self.beats.goodbye));
        if !due && !news {
            return;
        }
        let body = HeartbeatBody {
            views: row.views.clone(),
            health: row.health.clone(),
            heard: self.replay.newest(),
            goodbye: self.beats.goodbye,
        };
        self.beats.sequence += 1;
        self.beats.said = Some(body.clone());
        self.mail.push(Effect::Beat(Arc::new(Heartbeat {
            cluster: self.context.start.cluster.clone(),
            node: self.context.me(),
            boot: self.context.start.boot.clone(),
            incarnation,
            sequence: self.beats.sequence,
            body: Some(body),
        })));
    }

    pub(super) fn say_goodbye(&mut self, back_within: Duration) {
        self.beats.goodbye = Some(Goodbye { back_within });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DbState, Incarnation, Position};

    fn row(state: DbState, upstream: Option<&str>) -> Row {
        let health = ServiceHealth {
            state,
            holds: None,
            timeline: Default::default(),
            position: Position::default(),
            streams_from: upstream.map(|name| name.parse().expect("valid")),
            released: None,
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
        assert!(is_news(&said, &before, Some(Goodbye { back_within: Duration::from_secs(1) })), "a goodbye");
    }
}
