//! What this node knows of its peers: when each was heard last on each channel, what it said then, and whether its
//! silence counts. Heartbeats come in here, and the replay filter stands at this door.
//!
//! Not here: what is sent (`beats.rs`), and what a sign of life means for a fence (`witness.rs`).

use super::context::Context;
use crate::channel::replay::{Freshness, Replay};
use crate::config::Config;
use crate::detector::Detector;
use crate::ledger::{Phase, State};
use crate::plan::Row;
use crate::types::{
    ChannelName, DbState, Epoch, Health, HeardEnd, Heartbeat, Incarnation, Instant, NodeName, PeerView, Position,
    ServiceName, Sight,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How far a primary was heard to have written, in that epoch.
struct End {
    epoch: Epoch,
    end: Position,
    /// When it said so last, or that it is closed.
    said: Instant,
    /// When it was heard last while it held the epoch, whatever it said.
    heard: Instant,
}

/// See the module.
pub(super) struct Peers {
    detector: Detector,
    /// What the detector said when everything was compared last.
    sights: Vec<Sight>,
    replay: Replay,
    /// The last word of each node, this one included.
    rows: BTreeMap<NodeName, Row>,
    /// When each was heard last, per channel: evidence for people.
    heard: BTreeMap<NodeName, BTreeMap<ChannelName, Instant>>,
    /// When each incarnation was last known to have been heard, here or by anybody else.
    signs: BTreeMap<NodeName, (Incarnation, Instant)>,
    /// How far the WAL of each service's primary was heard to reach, here or by anybody who told.
    ends: BTreeMap<ServiceName, End>,
}

impl Peers {
    pub fn new(config: &Config, now: Instant) -> Self {
        let peers = config.nodes.keys().cloned().collect();
        let channels = config.channels();
        let mut detector = Detector::new(config.node.clone(), &peers, &channels, &config.detector, now);
        for (name, _) in config.nodes.iter().filter(|(_, n)| !n.disk) {
            if let Some(disk) = channels.iter().find(|c| c.is_disk()) {
                detector.without(name, disk);
            }
        }
        if let Some(disk) = channels.iter().find(|c| c.is_disk() && !config.me().disk) {
            detector.channel_state(now, disk, Err("this node does not use the shared disk".to_owned()));
        }
        Peers {
            detector,
            sights: Vec::new(),
            replay: Replay::new(),
            rows: BTreeMap::new(),
            heard: BTreeMap::new(),
            signs: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    pub fn rows(&self) -> &BTreeMap<NodeName, Row> {
        &self.rows
    }

    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// This node itself was stopped for so long: for a while it judges nobody by what it sees (S10).
    pub fn doubt(&mut self, now: Instant, late: Duration) {
        self.detector.doubt(now, late);
    }

    pub fn doubts_itself(&self, now: Instant) -> bool {
        self.detector.is_self_doubting(now)
    }

    /// Whether nobody is heard on any network any more, although somebody was, and this node did not just stand still.
    pub fn have_all_fallen_silent(&self, now: Instant) -> bool {
        !self.doubts_itself(now) && self.detector.is_deaf(now)
    }

    /// Whether a channel can be used at all.
    pub fn channel_state(&mut self, now: Instant, channel: &ChannelName, usable: Result<(), String>) {
        self.detector.channel_state(now, channel, usable);
    }

    /// The ledger has other incarnations than before.
    pub fn ledger_moved(&mut self, now: Instant, before: &State, after: &State) {
        for (name, record) in &after.nodes {
            if before.nodes.get(name).is_none_or(|o| o.incarnation != record.incarnation) {
                self.detector.known(now, name, &record.boot, record.incarnation);
                self.replay.told(name, record.incarnation, 0);
            }
        }
    }

    /// Whether a heartbeat is a sign of life. Only a counter that moved is one: not a recording, not what a dead node left
    /// in its slot.
    pub fn is_sign_of_life(&mut self, channel: &ChannelName, at: Instant, heartbeat: &Heartbeat) -> bool {
        if self.replay.judge(channel, heartbeat) != Freshness::Advanced {
            return false;
        }
        self.note_sign(&heartbeat.node, heartbeat.incarnation, at);
        match self.heard.get_mut(&heartbeat.node).and_then(|channels| channels.get_mut(channel)) {
            Some(last) => *last = at,
            None => drop(self.heard.entry(heartbeat.node.clone()).or_default().insert(channel.clone(), at)),
        }
        true
    }

    fn note_sign(&mut self, node: &NodeName, incarnation: Incarnation, at: Instant) {
        match self.signs.get_mut(node) {
            Some(last) => *last = (*last).max((incarnation, at)),
            None => drop(self.signs.insert(node.clone(), (incarnation, at))),
        }
    }

    /// When this incarnation was last known to have been heard by anybody.
    pub fn last_sign(&self, node: &NodeName, incarnation: Incarnation) -> Option<Instant> {
        self.signs.get(node).filter(|(of, _)| *of == incarnation).map(|(_, at)| *at)
    }

    /// Takes in a sign of life. Whether it says anything that is new here.
    pub fn hear(&mut self, context: &Context, channel: &ChannelName, at: Instant, heartbeat: &Heartbeat) -> bool {
        let Heartbeat { node, boot, incarnation, body, .. } = heartbeat;
        let incarnation = *incarnation;
        let known = context.state.nodes.get(node);
        if *node == context.config.node || known.is_some_and(|n| incarnation < n.incarnation) {
            return false;
        }
        self.detector.heard(at, channel, node, boot, incarnation);
        let Some(body) = body else { return false };
        if let Some(goodbye) = body.goodbye {
            self.detector.goodbye(context.now, node, incarnation, goodbye.back_within);
            if goodbye.left_behind {
                // It says nothing else: what that daemon saw and was is what it said last.
                return true;
            }
        }
        if self.replay.is_unread(heartbeat) {
            for (peer, (incarnation, sequence)) in &body.heard {
                if self.replay.told(peer, *incarnation, *sequence) {
                    self.note_sign(peer, *incarnation, at);
                }
            }
        }
        self.note_ends(&context.state, node, incarnation, at, &body.health);
        self.note_told_ends(&context.state, at, &body.health);
        let present = Row { at, incarnation, views: body.views.clone(), health: body.health.clone() };
        let Some(row) = self.rows.get_mut(node) else {
            self.rows.insert(node.clone(), present);
            return true;
        };
        if row.at > at && row.incarnation >= incarnation {
            return false;
        }
        // Who leaves does so for good: what says otherwise was said before, and came by a slower channel.
        if row.incarnation == incarnation && row.health.leaving.is_some() && present.health.leaving.is_none() {
            return false;
        }
        let before = std::mem::replace(row, present);
        let same_views = before.incarnation == incarnation && before.views == row.views;
        !same_views || !before.health.is_alike(&row.health) || body.goodbye.is_some()
    }

    /// Remembers how far a primary has written, also once it is gone.
    fn note_ends(&mut self, state: &State, node: &NodeName, incarnation: Incarnation, at: Instant, health: &Health) {
        for (name, service) in &state.services {
            let held = service.holder.as_ref().is_some_and(|h| &h.node == node && h.incarnation == incarnation);
            let database = health.services.get(name).filter(|_| held && service.phase == Phase::Installed);
            let Some(database) = database else { continue };
            let known = self.ends.get_mut(name).filter(|known| known.epoch == service.epoch);
            match (known, database.state) {
                (Some(known), state) => {
                    known.heard = at;
                    // Whether it writes on is not known then; what is closed reaches no further.
                    if state != DbState::Unclear {
                        known.said = at;
                    }
                    if state == DbState::Primary {
                        known.end = known.end.max(database.position);
                    }
                }
                (None, DbState::Primary) => {
                    let end = End { epoch: service.epoch, end: database.position, said: at, heard: at };
                    self.ends.insert(name.clone(), end);
                }
                (None, _) => {}
            }
        }
    }

    /// Remembers what another heard: it may have heard more, and its daemon may be gone when that counts.
    fn note_told_ends(&mut self, state: &State, at: Instant, health: &Health) {
        for (name, told) in &health.ends {
            let installed = state.services.get(name).and_then(|s| s.history.last());
            if installed.is_none_or(|installed| installed.epoch != told.epoch) {
                continue;
            }
            match self.ends.get_mut(name).filter(|known| known.epoch == told.epoch) {
                Some(known) => known.end = known.end.max(told.end),
                None => {
                    let said = at - Duration::from_millis(told.silent_ms);
                    self.ends.insert(name.clone(), End { epoch: told.epoch, end: told.end, said, heard: at });
                }
            }
        }
    }

    /// What this node knows of the ends of WAL of others.
    pub fn heard_ends(&self, state: &State) -> BTreeMap<ServiceName, HeardEnd> {
        let told = |(name, known): (&ServiceName, &End)| {
            let installed = state.services.get(name).and_then(|s| s.history.last());
            let is_present = installed.is_some_and(|installed| installed.epoch == known.epoch);
            let silent_ms = known.heard.since(known.said).as_millis() as u64;
            let heard = HeardEnd { epoch: known.epoch, end: known.end, silent_ms };
            is_present.then(|| (name.clone(), heard))
        };
        self.ends.iter().filter_map(told).collect()
    }

    /// Whether the detector says what it said when everything was compared last.
    pub fn are_as_compared(&self, now: Instant) -> bool {
        self.detector.still_sees(now, &self.sights)
    }

    /// When a view will change by itself, if before that moment.
    pub fn next_change_before(&self, now: Instant, limit: Option<Instant>) -> Option<Instant> {
        self.detector.next_change_before(now, limit.unwrap_or(Instant(u64::MAX)))
    }

    /// This node's view of its peers, with what its own databases know of theirs: `feeding` feed them.
    pub fn views<'a>(&self, now: Instant, feeding: impl Iterator<Item = &'a NodeName>) -> BTreeMap<NodeName, PeerView> {
        let mut views = self.detector.views(now);
        for upstream in feeding {
            if let Some(view) = views.get_mut(upstream) {
                view.database_alive = true;
            }
        }
        views
    }

    /// For how long the node was heard of on no channel, per channel, in milliseconds.
    pub fn silence(&self, now: Instant, target: &NodeName) -> BTreeMap<ChannelName, u64> {
        let heard = self.heard.get(target).into_iter().flatten();
        heard.map(|(channel, at)| (channel.clone(), now.since(*at).as_millis() as u64)).collect()
    }

    /// This node's own row. What did not change in it stays the very same value.
    pub fn refresh_own_row<'a>(
        &mut self,
        context: &Context,
        incarnation: Incarnation,
        feeding: impl Iterator<Item = &'a NodeName> + Clone,
        health: Health,
    ) {
        self.detector.look(context.now, &mut self.sights);
        let before = self.rows.get(&context.config.node);
        let feeds = |peer: &NodeName| feeding.clone().any(|upstream| upstream == peer);
        let views = match before {
            Some(row) if self.detector.still_shows(&self.sights, &row.views, feeds) => row.views.clone(),
            _ => Arc::new(self.views(context.now, feeding)),
        };
        let health = match before {
            Some(row) if *row.health == health => row.health.clone(),
            _ => Arc::new(health),
        };
        let row = Row { at: context.now, incarnation, views, health };
        match self.rows.get_mut(&context.config.node) {
            Some(before) => *before = row,
            None => drop(self.rows.insert(context.me(), row)),
        }
    }

    /// The newest heartbeat of each peer, for the others: what is older than that is a recording.
    pub fn newest(&self) -> BTreeMap<NodeName, (Incarnation, u64)> {
        self.replay.newest()
    }

    /// Whether another node leaves that holds an epoch: until the ledger has its final word, every vote may be needed.
    pub fn hear_a_holder_leave(&self, context: &Context) -> bool {
        let recent = |row: &&Row| context.now.since(row.at) <= context.timing.recent;
        let leaves =
            |node: &NodeName| self.rows.get(node).filter(recent).is_some_and(|row| row.health.leaving.is_some());
        let held = context.state.services.values().filter(|s| !s.paused && s.over.is_none());
        held.filter_map(|s| s.holder.as_ref()).any(|holder| holder.node != context.config.node && leaves(&holder.node))
    }

    /// Whether some voter says of itself and of others than this node, enough for a majority, that their networks work.
    pub fn have_a_quorum_without_us(&self, context: &Context) -> bool {
        let me = &context.config.node;
        let on_a_network = |(channel, sight): (&ChannelName, &Sight)| !channel.is_disk() && *sight == Sight::Up;
        let is_recent = |row: &Row| context.now.since(row.at) <= context.timing.recent;
        let others = self.rows.iter().filter(|(node, row)| *node != me && is_recent(row));
        others.into_iter().any(|(observer, row)| {
            let seen = row.views.iter().filter(|(node, view)| *node != me && view.channels.iter().any(on_a_network));
            context.state.is_majority(seen.map(|(node, _)| node).chain([observer]))
        })
    }
}
