//! From links to sights: when a silence is evidence about the peer, and when only about the observer's own ears.
//!
//! A network on which nobody is heard is blind: the observer's own cable is the simpler explanation. A silence counts
//! there only while somebody else is still heard, and was heard well after that silence began. On the disk it counts
//! whenever the own slot reads back, because that proves the path. Not here: time of arrival (`link.rs`) and what
//! follows from a view (the coordinator).

use super::link::{Link, Tuning, Word};
use crate::types::{ChannelName, Instant, Sight};

/// What may be concluded from a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Silence of everybody means: deaf.
    Network,
    /// The own write reads back or it does not: silence of everybody means just that.
    Disk,
}

impl Kind {
    /// What the channel of this name is.
    pub fn of(channel: &ChannelName) -> Kind {
        if channel.is_disk() { Kind::Disk } else { Kind::Network }
    }
}

/// One channel as the observer's own: can it be used, and since when.
#[derive(Clone, Debug)]
pub struct Ear {
    pub name: ChannelName,
    pub kind: Kind,
    /// Why it cannot be used at all.
    pub unusable: Option<String>,
    /// Watched again since then: blind until `settle` has passed. `None` when it never failed.
    pub again_since: Option<Instant>,
}

impl Ear {
    /// The end of the time for which it must be watched before it is evidence again.
    pub fn settled_at(&self, tuning: &Tuning) -> Option<Instant> {
        self.again_since.map(|since| since + tuning.settle)
    }

    pub fn is_blind(&self, tuning: &Tuning, now: Instant) -> bool {
        self.unusable.is_some() || self.settled_at(tuning).is_some_and(|at| now < at)
    }
}

/// Nobody is heard on this channel any more, although somebody was.
pub fn is_deaf<'a>(now: Instant, mut links: impl Iterator<Item = &'a Link> + Clone) -> bool {
    !links.clone().any(|link| link.is_heard(now)) && links.any(|link| link.was_heard(now))
}

/// What `link` shows on a channel that is not blind; `others` are the links of the other peers there.
pub fn sight<'a>(now: Instant, kind: Kind, link: &Link, mut others: impl Iterator<Item = &'a Link>) -> Sight {
    let after = match link.word(now) {
        Word::Up => return Sight::Up,
        Word::New => return Sight::Blind,
        Word::Silent => link.proof_after(),
        Word::Fallen => link.fell_after(),
    };
    let heard_since = |other: &Link| other.is_heard(now) && after.is_none_or(|after| other.last() >= Some(after));
    if kind == Kind::Disk || others.any(heard_since) { Sight::Lost } else { Sight::Blind }
}
