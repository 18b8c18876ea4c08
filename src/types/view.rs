//! What one node sees of another. Only words: how they are arrived at is the detector's.

use super::{Boot, ChannelName, Incarnation};
use crate::known_bugs::{self, Bug};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One observer's sight of one peer on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sight {
    /// Heartbeats arrive.
    Up,
    /// They should arrive and do not.
    Lost,
    /// The observer cannot use the channel itself, or has not watched it for long enough: no evidence about anyone.
    Blind,
}

/// One observer's view of one peer: a sight per configured channel, about one incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The newest boot and incarnation heard (or known from the ledger, where nothing was heard yet).
    pub boot: Boot,
    pub incarnation: Incarnation,
    pub channels: BTreeMap<ChannelName, Sight>,
    /// The peer's database showed life to the observer's own database (it still feeds a standby here), although the
    /// peer's daemon may be silent.
    pub database_alive: bool,
}

impl PeerView {
    /// How many channels have this sight.
    pub fn count(&self, sight: Sight) -> usize {
        self.channels.values().filter(|s| **s == sight).count()
    }

    /// Suspect: a majority of the `configured` channels is lost. Blind channels count for nothing (S3).
    pub fn suspects(&self, configured: usize) -> bool {
        let blind = if known_bugs::has(Bug::BlindCountsAsLost) { self.count(Sight::Blind) } else { 0 };
        (self.count(Sight::Lost) + blind) * 2 > configured
    }

    /// Whether any channel still carries heartbeats of the peer.
    pub fn is_heard(&self) -> bool {
        self.count(Sight::Up) > 0
    }
}
