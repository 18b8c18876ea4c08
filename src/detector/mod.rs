//! The failure detector: from arrivals of heartbeats to this node's view of its peers. Pure: it is told the time and
//! reads no clock, and φ, a float, never leaves it but to be shown.
//!
//! It suspects; it never concludes that anybody is dead. That takes a majority of voters (`crate::plan`).
//!
//! ```text
//! heard(channel, node) ─► link: window, φ, rise ─► fusion: blind? ─► view: up, lost or blind per channel
//! ```

mod fusion;
mod link;
mod window;

use crate::config;
use crate::types::{Boot, ChannelName, Incarnation, Instant, NodeName, PeerView, Sight};
use fusion::{Ear, Kind};
use link::{Link, Tuning};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One node's failure detector.
#[derive(Clone, Debug)]
pub struct Detector {
    tuning: Tuning,
    ears: Vec<Ear>,
    peers: BTreeMap<NodeName, Peer>,
    /// The end of the present or last self-doubt.
    doubt_until: Instant,
}

/// The newest known incarnation of one peer.
#[derive(Clone, Debug)]
struct Peer {
    boot: Boot,
    incarnation: Incarnation,
    /// In the order of `Detector::ears`; `None` where the peer does not use the channel.
    links: Vec<Option<Link>>,
    /// It said that it would be back: no suspicion until then. Kept afterwards, because it may be said once only.
    back_until: Option<Instant>,
}

impl Peer {
    fn is_known(&self) -> bool {
        self.incarnation > Incarnation(0) || self.links.iter().flatten().any(|link| link.last().is_some())
    }

    /// Another incarnation: nothing that was seen of the one before says anything about it.
    fn become_new(&mut self, tuning: &Tuning, now: Instant, boot: &Boot, incarnation: Incarnation) {
        self.boot = boot.clone();
        self.incarnation = incarnation;
        self.back_until = None;
        for link in self.links.iter_mut().flatten() {
            *link = Link::new(tuning, now);
        }
    }
}

impl Detector {
    /// A detector on node `me` that has heard nothing yet. Every channel counts as usable until
    /// [`Self::channel_state`] says otherwise; every peer as using every channel until [`Self::without`] does.
    pub fn new(
        me: NodeName,
        peers: &BTreeSet<NodeName>,
        channels: &[ChannelName],
        cfg: &config::Detector,
        started: Instant,
    ) -> Self {
        let tuning = Tuning::new(cfg);
        let ear =
            |name: &ChannelName| Ear { name: name.clone(), kind: Kind::of(name), unusable: None, again_since: None };
        let peer = || Peer {
            boot: Boot("".into()),
            incarnation: Incarnation(0),
            links: channels.iter().map(|_| Some(Link::new(&tuning, started))).collect(),
            back_until: None,
        };
        Detector {
            ears: channels.iter().map(ear).collect(),
            peers: peers.iter().filter(|name| **name != me).map(|name| (name.clone(), peer())).collect(),
            doubt_until: Instant(0),
            tuning,
        }
    }

    /// `node` does not use `channel` (a diskless witness): it is never seen there, and that is no evidence.
    pub fn without(&mut self, node: &NodeName, channel: &ChannelName) {
        if let (Some(ear), Some(peer)) = (self.ear(channel), self.peers.get_mut(node)) {
            peer.links[ear] = None;
        }
    }

    /// A heartbeat, new by the replay filter, that arrived at `at` (a moment in the past, after a backlog). Those of
    /// older incarnations, strange nodes and strange channels are ignored. A newer incarnation starts afresh.
    pub fn heard(
        &mut self,
        at: Instant,
        channel: &ChannelName,
        node: &NodeName,
        boot: &Boot,
        incarnation: Incarnation,
    ) {
        let Some(ear) = self.ear(channel) else { return };
        let Some(peer) = self.peers.get(node) else { return };
        if incarnation < peer.incarnation || peer.links[ear].is_none() {
            return;
        }
        if self.ears[ear].kind == Kind::Network && fusion::is_deaf(at, self.links(ear)) {
            self.watch_again(ear, at, at);
        }
        let tuning = &self.tuning;
        let Some(peer) = self.peers.get_mut(node) else { return };
        if incarnation > peer.incarnation || peer.boot != *boot {
            // Incarnation 0 (not joined yet) may have any boot; a joined one is of one boot by the ledger's word.
            peer.become_new(tuning, at, boot, incarnation);
        }
        if let Some(link) = &mut peer.links[ear] {
            link.heard(tuning, at);
        }
    }

    /// Whether the observer itself can use `channel`: a disk whose own slot reads back, a socket that is bound. From
    /// `Err` to `Ok` it must be watched for `acceptable_pause` and three intervals before it is evidence (S10).
    pub fn channel_state(&mut self, now: Instant, channel: &ChannelName, usable: Result<(), String>) {
        let Some(ear) = self.ear(channel) else { return };
        let was_unusable = self.ears[ear].unusable.is_some();
        if usable.is_err() != was_unusable {
            // What was lost before the channel failed stays lost; what fell silent since is not held against anyone.
            let until = if was_unusable { Instant(0) } else { now };
            self.watch_again(ear, until, now);
        }
        self.ears[ear].unusable = usable.err();
    }

    /// S10: the own loop ran late, or the own disk stalled, for `late_by` until `now`. Every view is blind until it
    /// has been watched for `acceptable_pause` and three intervals again.
    pub fn doubt(&mut self, now: Instant, late_by: Duration) {
        for ear in 0..self.ears.len() {
            self.watch_again(ear, now - late_by, now);
        }
        self.doubt_until = self.doubt_until.max(now + self.tuning.settle);
    }

    /// Whether the observer doubts itself, and should say so in its heartbeats.
    pub fn is_self_doubting(&self, now: Instant) -> bool {
        now < self.doubt_until
    }

    /// What the ledger says about a node: whom to accuse if it is never heard. It counts as lost only
    /// `startup_grace` after this was first told of that incarnation, on channels where others are heard.
    pub fn known(&mut self, now: Instant, node: &NodeName, boot: &Boot, incarnation: Incarnation) {
        let tuning = &self.tuning;
        if let Some(peer) = self.peers.get_mut(node)
            && incarnation > peer.incarnation
        {
            peer.become_new(tuning, now, boot, incarnation);
        }
    }

    /// The node said that its daemon restarts and is back within this time: no suspicion until then, once an
    /// incarnation, and for `startup_grace` at most.
    pub fn goodbye(&mut self, now: Instant, node: &NodeName, incarnation: Incarnation, back_within: Duration) {
        let grace = self.tuning.grace;
        if let Some(peer) = self.peers.get_mut(node)
            && incarnation == peer.incarnation
        {
            peer.back_until.get_or_insert(now + back_within.min(grace));
        }
    }

    /// Whether `views` is what these sights show, with `feeds` for the peers whose databases show life.
    pub fn still_shows(
        &self,
        sights: &[Sight],
        views: &BTreeMap<NodeName, PeerView>,
        feeds: impl Fn(&NodeName) -> bool,
    ) -> bool {
        let rows = sights.chunks(self.ears.len().max(1));
        let same_channels = |view: &PeerView, row: &[Sight]| {
            let shown = |ear: &Ear| view.channels.get(&ear.name);
            view.channels.len() == row.len() && self.ears.iter().map(shown).eq(row.iter().map(Some))
        };
        let same = |((name, peer), row): ((&NodeName, &Peer), &[Sight]), (seen, view): (&NodeName, &PeerView)| {
            name == seen
                && peer.incarnation == view.incarnation
                && peer.boot == view.boot
                && view.database_alive == feeds(name)
                && same_channels(view, row)
        };
        views.len() == self.peers.len()
            && self.peers.iter().zip(rows).zip(views).all(|(ours, theirs)| same(ours, theirs))
    }

    /// This node's view of every peer. `database_alive` is for the caller to fill in.
    pub fn views(&self, now: Instant) -> BTreeMap<NodeName, PeerView> {
        let sights = self.sights(now);
        let rows = sights.chunks(self.ears.len().max(1));
        let view = |(peer, row): (&Peer, &[Sight])| PeerView {
            boot: peer.boot.clone(),
            incarnation: peer.incarnation,
            channels: self.ears.iter().map(|ear| ear.name.clone()).zip(row.iter().copied()).collect(),
            database_alive: false,
        };
        self.peers.iter().zip(rows).map(|((name, peer), row)| (name.clone(), view((peer, row)))).collect()
    }

    /// Whether nobody is heard on any network any more, although somebody was.
    pub fn is_deaf(&self, now: Instant) -> bool {
        let networks = (0..self.ears.len()).filter(|ear| self.ears[*ear].kind == Kind::Network);
        fusion::is_deaf(now, networks.flat_map(|ear| self.links(ear)))
    }

    /// How suspicious the silence of `node` on `channel` is now; `None` when it was never heard there. For people.
    pub fn phi(&self, now: Instant, node: &NodeName, channel: &ChannelName) -> Option<f64> {
        let link = self.peers.get(node)?.links[self.ear(channel)?].as_ref()?;
        link.phi(&self.tuning, now)
    }

    /// Why `channel` cannot be used at all; `None` when it can (it may still be blind: deaf, or not settled).
    pub fn unusable(&self, channel: &ChannelName) -> Option<&str> {
        self.ears[self.ear(channel)?].unusable.as_deref()
    }

    /// The next moment at which a view changes if nothing more is heard; `None` when none ever does. Exact: up to one
    /// nanosecond before it, the views are those of now.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.next_change_before(now, Instant(u64::MAX))
    }

    /// The same, if it comes before `limit`: mostly something else is due first, and then there is little to compare.
    pub fn next_change_before(&self, now: Instant, limit: Instant) -> Option<Instant> {
        let mut after = now;
        let mut present = None;
        loop {
            let moment = self.next_moment(after).filter(|moment| *moment < limit)?;
            let present = present.get_or_insert_with(|| self.sights(now));
            if !self.still_sees(moment, present) {
                return Some(moment);
            }
            after = moment;
        }
    }

    /// The next moment at which a view may change by itself.
    fn next_moment(&self, after: Instant) -> Option<Instant> {
        let tuning = &self.tuning;
        let links = self.peers.values().flat_map(|peer| peer.links.iter().flatten());
        let overdue = links.map(Link::overdue_at);
        let settled = self.ears.iter().filter_map(|ear| ear.settled_at(tuning));
        let back = self.peers.values().filter_map(|peer| peer.back_until);
        overdue.chain(settled).chain(back).filter(|moment| *moment > after).min()
    }

    fn ear(&self, channel: &ChannelName) -> Option<usize> {
        self.ears.iter().position(|ear| ear.name == *channel)
    }

    /// Every peer's link on one channel.
    fn links(&self, ear: usize) -> impl Iterator<Item = &Link> + Clone {
        self.peers.values().filter_map(move |peer| peer.links[ear].as_ref())
    }

    fn watch_again(&mut self, ear: usize, until: Instant, now: Instant) {
        for peer in self.peers.values_mut() {
            if let Some(link) = &mut peer.links[ear] {
                link.watch_again(until, now);
            }
        }
        let again = &mut self.ears[ear].again_since;
        *again = (*again).max(Some(now));
    }

    /// Every peer's sight on every channel, peer by peer in the order of names, channel by channel as configured: what
    /// changes when a view does.
    fn every_sight(&self, now: Instant) -> impl Iterator<Item = Sight> {
        let peers = self.peers.values();
        peers.flat_map(move |peer| (0..self.ears.len()).map(move |ear| self.sight(now, peer, ear)))
    }

    fn sights(&self, now: Instant) -> Vec<Sight> {
        self.every_sight(now).collect()
    }

    /// Writes every sight into `sights`.
    pub fn look(&self, now: Instant, sights: &mut Vec<Sight>) {
        sights.clear();
        sights.extend(self.every_sight(now));
    }

    /// Whether these are the sights now.
    pub fn still_sees(&self, now: Instant, sights: &[Sight]) -> bool {
        self.every_sight(now).eq(sights.iter().copied())
    }

    fn sight(&self, now: Instant, peer: &Peer, ear: usize) -> Sight {
        let Some(link) = &peer.links[ear] else { return Sight::Blind };
        let own = &self.ears[ear];
        if own.is_blind(&self.tuning, now) || !peer.is_known() {
            return Sight::Blind;
        }
        let others = self.peers.values().filter(|other| !std::ptr::eq(*other, peer));
        let others = others.filter_map(|other| other.links[ear].as_ref());
        let sight = fusion::sight(now, own.kind, link, others);
        let excused = peer.back_until.is_some_and(|until| now < until);
        if sight == Sight::Lost && excused { Sight::Blind } else { sight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANNELS: [&str; 3] = ["primary", "secondary", "disk"];
    const NODES: [&str; 3] = ["a", "b", "c"];

    /// Profile `lan`.
    fn lan() -> config::Detector {
        config::Detector {
            interval: Duration::from_millis(200),
            phi_threshold: 8.0,
            acceptable_pause: Duration::from_secs(1),
            window: 100,
            min_deviation: Duration::from_millis(40),
            rise: 3,
            startup_grace: Duration::from_secs(10),
        }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn channel(name: &str) -> ChannelName {
        name.parse().unwrap()
    }

    fn detector() -> Detector {
        let peers = NODES.iter().map(|n| node(n)).collect();
        let channels: Vec<ChannelName> = CHANNELS.iter().map(|c| channel(c)).collect();
        Detector::new(node("me"), &peers, &channels, &lan(), Instant(0))
    }

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    #[test]
    fn suspicion_comes_when_phi_reaches_the_threshold() {
        let mut d = detector();
        for beat in 0..20 {
            for name in ["a", "b"] {
                // An uneven rhythm, so that mean and deviation are not the prior's.
                let uneven = if beat % 2 == 0 { 0 } else { 120 };
                d.heard(at(beat * 200 + uneven), &channel("primary"), &node(name), &Boot("x".into()), Incarnation(1));
            }
        }
        d.heard(at(4100), &channel("primary"), &node("b"), &Boot("x".into()), Incarnation(1));
        d.heard(at(5000), &channel("primary"), &node("b"), &Boot("x".into()), Incarnation(1));
        let lost = d.next_change(at(5000)).unwrap();
        assert_eq!(d.views(lost)[&node("a")].channels[&channel("primary")], Sight::Lost);
        let phi = d.phi(lost, &node("a"), &channel("primary")).unwrap();
        assert!((phi - lan().phi_threshold).abs() < 1e-6, "phi is {phi} when a is lost");
        assert!(lost.since(at(3920)) > lan().patience().usual(), "an uneven rhythm earns more patience");
        assert!(lost.since(at(3920)) <= lan().patience().worst());
    }

    #[test]
    fn a_node_is_deaf_once_nobody_is_heard_on_any_network_whatever_its_disk_says() {
        let mut d = detector();
        let hears = |d: &mut Detector, on: &str, name: &str, beats: std::ops::Range<u64>| {
            beats.for_each(|n| d.heard(at(n * 200), &channel(on), &node(name), &Boot("x".into()), Incarnation(1)));
        };
        assert!(!d.is_deaf(at(60_000)), "nobody was ever heard");
        hears(&mut d, "primary", "a", 0..20);
        hears(&mut d, "secondary", "b", 0..30);
        hears(&mut d, "disk", "a", 0..60);
        assert!(!d.is_deaf(at(7000)), "one is heard on one network");
        assert!(d.is_deaf(at(9000)));
        hears(&mut d, "primary", "b", 50..55);
        assert!(!d.is_deaf(at(11_000)));
    }

    #[test]
    fn the_heartbeat_that_ends_a_silence_of_everybody_accuses_nobody() {
        let mut d = detector();
        for beat in 0..20 {
            // The uneven rhythm of b earns it more patience than a's.
            let uneven = if beat % 2 == 0 { 0 } else { 120 };
            for (name, at_ms) in [("a", beat * 200), ("b", beat * 200 + uneven)] {
                d.heard(at(at_ms), &channel("primary"), &node(name), &Boot("x".into()), Incarnation(1));
            }
        }
        let sight = |d: &Detector, now| d.views(now)[&node("a")].channels[&channel("primary")];
        // a falls silent with b, and is overdue first: nobody was heard since, so it is the own cable.
        assert_eq!(sight(&d, at(5350)), Sight::Blind);
        d.heard(at(5400), &channel("primary"), &node("a"), &Boot("x".into()), Incarnation(1));
        assert_eq!(sight(&d, at(5400)), Sight::Blind, "nor does its own heartbeat prove anything");
        // Where b goes on meanwhile, the silence is a's: until it has risen, it is lost.
        for beat in 27..40 {
            d.heard(at(beat * 200 + 20), &channel("primary"), &node("b"), &Boot("x".into()), Incarnation(1));
        }
        assert_eq!(sight(&d, at(7900)), Sight::Lost);
        d.heard(at(7910), &channel("primary"), &node("a"), &Boot("x".into()), Incarnation(1));
        assert_eq!(sight(&d, at(7910)), Sight::Lost);
    }

    #[test]
    fn a_stale_or_strange_heartbeat_is_no_sign_of_life() {
        let mut d = detector();
        d.known(at(0), &node("a"), &Boot("new".into()), Incarnation(5));
        for beat in 0..10 {
            d.heard(at(beat * 200), &channel("disk"), &node("a"), &Boot("old".into()), Incarnation(4));
            d.heard(at(beat * 200), &channel("disk"), &node("stranger"), &Boot("x".into()), Incarnation(9));
            d.heard(at(beat * 200), &channel("carrier-pigeon"), &node("a"), &Boot("new".into()), Incarnation(5));
        }
        assert_eq!(d.phi(at(2000), &node("a"), &channel("disk")), None);
        assert_eq!(d.views(at(2000)).len(), 3, "only configured peers are seen");
    }

    #[test]
    fn goodbye_is_bounded() {
        let mut d = detector();
        for beat in 0..5 {
            d.heard(at(beat * 200), &channel("disk"), &node("a"), &Boot("x".into()), Incarnation(1));
        }
        d.goodbye(at(800), &node("a"), Incarnation(1), Duration::from_secs(3600));
        let disk = |d: &Detector, now| d.views(now)[&node("a")].channels[&channel("disk")];
        assert_eq!(disk(&d, at(10_799)), Sight::Blind);
        assert_eq!(disk(&d, at(10_800)), Sight::Lost);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Beat { node: usize, channel: usize, incarnation: u64, gap: u64 },
        Doubt { late: u64 },
        Channel { channel: usize, usable: bool },
        Goodbye { node: usize, within: u64 },
        Known { node: usize, incarnation: u64 },
        Wait { millis: u64 },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            20 => (0..3usize, 0..3usize, 1..3u64, 0..300u64)
                .prop_map(|(node, channel, incarnation, gap)| Act::Beat { node, channel, incarnation, gap }),
            1 => (0..4000u64).prop_map(|late| Act::Doubt { late }),
            1 => (0..3usize, any::<bool>()).prop_map(|(channel, usable)| Act::Channel { channel, usable }),
            1 => (0..3usize, 0..5000u64).prop_map(|(node, within)| Act::Goodbye { node, within }),
            1 => (0..3usize, 1..4u64).prop_map(|(node, incarnation)| Act::Known { node, incarnation }),
            2 => (0..15_000u64).prop_map(|millis| Act::Wait { millis }),
        ]
    }

    fn play(d: &mut Detector, acts: &[Act]) -> Instant {
        let mut now = at(1);
        for act in acts {
            match act {
                Act::Beat { node: n, channel: c, incarnation, gap } => {
                    now += Duration::from_micros(gap * 1001);
                    let boot = Boot(incarnation.to_string().into());
                    d.heard(now, &channel(CHANNELS[*c]), &node(NODES[*n]), &boot, Incarnation(*incarnation));
                }
                Act::Doubt { late } => d.doubt(now, Duration::from_millis(*late)),
                Act::Channel { channel: c, usable } => {
                    d.channel_state(now, &channel(CHANNELS[*c]), if *usable { Ok(()) } else { Err("gone".into()) });
                }
                Act::Goodbye { node: n, within } => {
                    d.goodbye(now, &node(NODES[*n]), Incarnation(1), Duration::from_millis(*within));
                }
                Act::Known { node: n, incarnation } => {
                    d.known(now, &node(NODES[*n]), &Boot(incarnation.to_string().into()), Incarnation(*incarnation));
                }
                Act::Wait { millis } => now += Duration::from_millis(*millis),
            }
        }
        now
    }

    proptest! {
        #[test]
        fn the_next_change_is_exact(acts in proptest::collection::vec(act(), 0..80), part in 0.0f64..1.0) {
            let mut d = detector();
            let mut now = play(&mut d, &acts);
            // Follow the changes to the last one: each must be where it was foretold, and none between.
            for _ in 0..100 {
                let present = d.views(now);
                let Some(next) = d.next_change(now) else {
                    prop_assert_eq!(d.views(now + Duration::from_secs(86_400)), present);
                    return Ok(());
                };
                prop_assert!(next > now);
                let between = now + Duration::from_nanos((next.since(now).as_nanos() as f64 * part * 0.999) as u64);
                prop_assert_eq!(&d.views(between), &present);
                prop_assert_eq!(&d.views(next - Duration::from_nanos(1)), &present);
                prop_assert_ne!(&d.views(next), &present);
                now = next;
            }
            prop_assert!(false, "views never come to rest");
        }

        #[test]
        fn nobody_is_lost_sooner_than_the_pause_or_later_than_the_worst_case(
            gaps in proptest::collection::vec(0u64..500, 3..150),
        ) {
            let mut d = detector();
            let mut now = at(1);
            for gap in gaps {
                now += Duration::from_millis(gap + 1);
                d.heard(now, &channel("disk"), &node("a"), &Boot("x".into()), Incarnation(1));
            }
            let lost = d.next_change(now).unwrap().since(now);
            prop_assert!(lost > lan().acceptable_pause);
            prop_assert!(lost <= lan().patience().worst(), "{lost:?}");
        }

        #[test]
        fn whoever_doubts_itself_sees_nothing(acts in proptest::collection::vec(act(), 0..60), late in 0u64..10_000) {
            let mut d = detector();
            let now = play(&mut d, &acts);
            d.doubt(now, Duration::from_millis(late));
            for moment in [now, now + Duration::from_nanos(1_599_999_999)] {
                prop_assert!(d.is_self_doubting(moment));
                let views = d.views(moment);
                prop_assert!(views.values().all(|view| view.count(Sight::Blind) == 3), "{:?}", views);
            }
        }
    }
}
