//! Which heartbeats are new: strictly newer incarnation and sequence than the last on the same channel. Pure.
//!
//! One heartbeat goes out on every channel under one sequence number, so each channel has a last one of its own. A
//! first sample on a channel is a baseline and no sign of life: it may be a recording, or what a dead node left in its
//! disk slot. What is far behind the newest known on any channel, or known to other observers, is old wherever it
//! comes from: that keeps a recording from fooling a receiver that has just started.

use crate::types::{Boot, ChannelName, Heartbeat, Incarnation, NodeName};
use std::collections::BTreeMap;

/// How many heartbeats a channel may be behind the newest known. A disk write that lands later than that is no sign
/// of life.
pub const BEHIND_MAX: u64 = 64;

/// What a heartbeat is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// The first on this channel since this receiver started: not a sign of life.
    Baseline,
    /// The counter moved: a sign of life.
    Advanced,
    /// It moved, and the sender has not joined the ledger yet (incarnation 0): a sign of life of that boot, but of no
    /// incarnation.
    Unjoined,
    /// Seen before, out of order, of an older incarnation, or far behind.
    Stale,
    /// The same incarnation under another boot: two hosts believe to be this node.
    Impostor,
}

/// The newest of each peer.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    peers: BTreeMap<NodeName, Peer>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// Of any channel, own or told.
    newest: (Incarnation, u64),
    /// The boot of `newest`'s incarnation, once it was heard.
    boot: Option<Boot>,
    channels: BTreeMap<ChannelName, (Incarnation, u64)>,
    /// The newest whose body was read.
    read: (Incarnation, u64),
    /// The last before it joined.
    unjoined: BTreeMap<ChannelName, (Boot, u64)>,
}

impl Replay {
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges an authentic heartbeat that arrived on `channel`, and remembers it.
    pub fn judge(&mut self, channel: &ChannelName, heartbeat: &Heartbeat) -> Freshness {
        let peer = self.peer(&heartbeat.node);
        if heartbeat.incarnation == Incarnation(0) {
            let this = (heartbeat.boot.clone(), heartbeat.sequence);
            let before = peer.unjoined.insert(channel.clone(), this.clone());
            return match before {
                None => Freshness::Baseline,
                // It counts from 1 again at each start of the daemon, so "newer" cannot be asked; "again" can.
                Some(same) if same == this => Freshness::Stale,
                Some(_) => Freshness::Unjoined,
            };
        }
        let this = (heartbeat.incarnation, heartbeat.sequence);
        let (newest, sequence) = peer.newest;
        if this.0 < newest || (this.0 == newest && this.1.saturating_add(BEHIND_MAX) < sequence) {
            return Freshness::Stale;
        }
        if this.0 > newest {
            peer.boot = None;
        }
        if peer.boot.get_or_insert_with(|| heartbeat.boot.clone()) != &heartbeat.boot {
            return Freshness::Impostor;
        }
        peer.newest = peer.newest.max(this);
        match peer.channels.get_mut(channel) {
            Some(last) if this <= *last => Freshness::Stale,
            Some(last) => {
                *last = this;
                Freshness::Advanced
            }
            None => {
                peer.channels.insert(channel.clone(), this);
                Freshness::Baseline
            }
        }
    }

    fn peer(&mut self, node: &NodeName) -> &mut Peer {
        if !self.peers.contains_key(node) {
            self.peers.insert(node.clone(), Peer::default());
        }
        self.peers.get_mut(node).expect("just made where it was missing")
    }

    /// Whether this heartbeat's body has not been read yet: the same one comes on every channel.
    pub fn is_unread(&mut self, heartbeat: &Heartbeat) -> bool {
        let this = (heartbeat.incarnation, heartbeat.sequence);
        let peer = self.peer(&heartbeat.node);
        let unread = this > peer.read;
        peer.read = peer.read.max(this);
        unread
    }

    /// Another observer, or the ledger (then with sequence 0), has seen `node` this far: what is older is old.
    ///
    /// Whether that node has sent more since than anybody had told here of the same incarnation: it lives.
    pub fn told(&mut self, node: &NodeName, incarnation: Incarnation, sequence: u64) -> bool {
        let peer = self.peer(node);
        if incarnation > peer.newest.0 {
            peer.boot = None;
        }
        let before = peer.newest;
        peer.newest = before.max((incarnation, sequence));
        before.0 == incarnation && (1..sequence).contains(&before.1)
    }

    /// The newest of each peer that has joined, to tell others.
    pub fn newest(&self) -> BTreeMap<NodeName, (Incarnation, u64)> {
        let joined = self.peers.iter().filter(|(_, peer)| peer.newest.0 > Incarnation(0));
        joined.map(|(node, peer)| (node.clone(), peer.newest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Freshness::*;
    use super::*;
    use crate::types::ClusterId;

    fn beat(incarnation: u64, sequence: u64) -> Heartbeat {
        let boot = format!("boot-{}", incarnation / 10);
        Heartbeat {
            cluster: ClusterId("orders".into()),
            node: "db1".parse().unwrap(),
            boot: Boot(boot.into()),
            incarnation: Incarnation(incarnation),
            sequence,
            body: None,
        }
    }

    fn name(text: &str) -> ChannelName {
        text.parse().unwrap()
    }

    fn play(replay: &mut Replay, rows: &[(&str, u64, u64, Freshness)]) {
        for (channel, incarnation, sequence, expected) in rows {
            let found = replay.judge(&name(channel), &beat(*incarnation, *sequence));
            assert_eq!(found, *expected, "incarnation {incarnation}, sequence {sequence} on {channel}");
        }
    }

    #[test]
    fn only_what_moves_is_a_sign_of_life() {
        play(
            &mut Replay::new(),
            &[
                ("primary", 5, 100, Baseline),
                ("primary", 5, 100, Stale),
                ("primary", 5, 101, Advanced),
                ("primary", 5, 99, Stale),
                ("secondary", 5, 101, Baseline),
                ("secondary", 5, 102, Advanced),
                ("primary", 5, 102, Advanced),
            ],
        );
    }

    #[test]
    fn a_new_incarnation_counts_anew_and_ends_the_old_one() {
        play(
            &mut Replay::new(),
            &[
                ("primary", 5, 900, Baseline),
                ("disk", 5, 900, Baseline),
                ("primary", 16, 1, Advanced),
                ("primary", 5, 901, Stale),
                ("disk", 5, 902, Stale),
                ("disk", 16, 2, Advanced),
            ],
        );
    }

    #[test]
    fn a_recording_does_not_fool_a_receiver_that_has_just_started() {
        let mut replay = Replay::new();
        let db1 = "db1".parse().unwrap();
        assert!(!replay.told(&db1, Incarnation(5), 5000), "it may have been sent long ago");
        play(&mut replay, &[("primary", 5, 4000, Stale), ("primary", 5, 4001, Stale), ("primary", 4, 9000, Stale)]);
        play(&mut replay, &[("primary", 5, 5001, Baseline), ("primary", 5, 5002, Advanced)]);
        // A recording of one channel, played into another.
        play(&mut replay, &[("disk", 5, 4000, Stale), ("disk", 5, 4990, Baseline)]);
    }

    #[test]
    fn what_others_hear_of_a_node_tells_that_it_lives() {
        let mut replay = Replay::new();
        let db1 = "db1".parse().unwrap();
        let told =
            [(5, 10, false), (5, 10, false), (5, 11, true), (5, 9, false), (6, 0, false), (6, 3, false), (6, 4, true)];
        for (incarnation, sequence, lives) in told {
            assert_eq!(replay.told(&db1, Incarnation(incarnation), sequence), lives, "{incarnation}, {sequence}");
        }
    }

    #[test]
    fn one_incarnation_has_one_boot() {
        let mut replay = Replay::new();
        play(&mut replay, &[("primary", 5, 1, Baseline), ("primary", 5, 2, Advanced)]);
        let mut twin = beat(5, 3);
        twin.boot = Boot("twin".into());
        assert_eq!(replay.judge(&name("primary"), &twin), Impostor);
        play(&mut replay, &[("primary", 5, 3, Advanced)]);
    }

    #[test]
    fn a_node_that_has_not_joined_is_marked() {
        let mut replay = Replay::new();
        play(&mut replay, &[("disk", 0, 7, Baseline), ("disk", 0, 7, Stale), ("disk", 0, 8, Unjoined)]);
        play(&mut replay, &[("disk", 0, 1, Unjoined), ("disk", 3, 1, Baseline), ("disk", 3, 2, Advanced)]);
        assert_eq!(replay.newest().values().copied().collect::<Vec<_>>(), vec![(Incarnation(3), 2)]);
    }
}
