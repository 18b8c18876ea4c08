//! Where a database is in its own history: PostgreSQL's words (LSN, timeline, history) as arithmetic.
//!
//! Source: PostgreSQL manual, 26.3.6 "Timelines" and the timeline history file format.

use super::Quoted;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A byte position in the write-ahead log. Written as PostgreSQL writes it: `16/B374D848`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Text that is not `hex/hex`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a WAL position: expected two hexadecimal numbers, as in 16/B374D848", Quoted(given))]
pub struct ParseLsnError {
    pub given: String,
}

impl std::str::FromStr for Lsn {
    type Err = ParseLsnError;
    fn from_str(given: &str) -> Result<Self, ParseLsnError> {
        let bad = || ParseLsnError { given: given.to_owned() };
        let (high, low) = given.split_once('/').ok_or_else(bad)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| bad())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| bad())?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A PostgreSQL timeline. 0 = none yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in one line of history: the timeline, and the end of the WAL that is flushed on it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub timeline: Timeline,
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.timeline, self.lsn)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The timelines that led to the present one, oldest first: each with the position at which it was left.
/// The present timeline is not in the list. Empty on timeline 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<Position>);

impl History {
    /// Whether a node at `end`, with this history, descends from `timeline`: is on it, or left it later on.
    pub fn descends_from(&self, end: Position, timeline: Timeline) -> bool {
        end.timeline == timeline || self.0.iter().any(|left| left.timeline == timeline)
    }

    /// Where `timeline` was left on the way to the present; `None` when it was never on that way.
    pub fn left_at(&self, timeline: Timeline) -> Option<Lsn> {
        self.0.iter().find(|left| left.timeline == timeline).map(|left| left.lsn)
    }

    /// Whether a node at `other` may stream from one at `end` with this history without being rewound:
    /// `other` is on the present timeline, not past `end`'s line, or on an ancestor and not past the fork.
    pub fn can_follow(&self, end: Position, other: Position) -> bool {
        match self.left_at(other.timeline) {
            Some(fork) => other.lsn <= fork,
            None => other.timeline == end.timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    #[test]
    fn lsn_is_written_as_postgresql_writes_it() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        for bad in ["", "16", "16/", "/0", "x/0", "1/2/3", "100000000/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn lineage_comes_before_amount() {
        let history = History(vec![at(1, 80), at(2, 100)]);
        assert!(history.descends_from(at(3, 120), Timeline(2)));
        assert!(!History(vec![]).descends_from(at(1, 500), Timeline(2)));
        assert!(history.can_follow(at(3, 120), at(2, 100)));
        assert!(!history.can_follow(at(3, 120), at(2, 101)), "past the fork: must be rewound");
        assert!(!history.can_follow(at(3, 120), at(4, 1)), "a foreign timeline");
    }
}
