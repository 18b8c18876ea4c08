//! A planned silence, and the one that a daemon leaves behind for the case that it ends without a word. Pure.
//!
//! What is left behind is signed in advance, and its reader counts from when it comes. So it is left in parts of the time
//! that is left, and whoever sends it takes the longest that still fits: it never promises more than the lease has.

use super::{Heartbeat, HeartbeatBody, Instant};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// "Back within": a planned silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    pub back_within: Duration,
    /// Its daemon is gone and left it behind: the body says nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_behind: bool,
}

impl Goodbye {
    /// Said by a daemon that is about to be restarted.
    pub fn planned(back_within: Duration) -> Goodbye {
        Goodbye { back_within, left_behind: false }
    }
}

/// In how many parts it is left.
const PARTS: u32 = 16;
/// No heartbeat of the same incarnation comes after it.
const LAST: u64 = u64::MAX;

/// What a daemon that holds a lease leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftGoodbye {
    /// With neither sequence nor body.
    from: Heartbeat,
    /// The end of the lease, on the clock of this host.
    end: Instant,
    /// How long it lasts on this host's clock, and what may be promised to a slower one.
    left: Duration,
    promised: Duration,
}

impl LeftGoodbye {
    /// Of the node, boot and incarnation of `from`; for what is `left` until `end`, which is `promised` to readers.
    pub fn new(from: Heartbeat, end: Instant, (left, promised): (Duration, Duration)) -> LeftGoodbye {
        LeftGoodbye { from, end, left, promised }
    }

    pub fn end(&self) -> Instant {
        self.end
    }

    /// One heartbeat for each part of the time, the shortest first, with the time that it needs until the end.
    pub fn letters(&self) -> impl Iterator<Item = (Duration, Heartbeat)> {
        (1..=PARTS).map(|part| {
            let back_within = self.promised * part / PARTS;
            let goodbye = Some(Goodbye { back_within, left_behind: true });
            let body = Some(HeartbeatBody { goodbye, ..HeartbeatBody::default() });
            (self.left * part / PARTS, Heartbeat { sequence: LAST, body, ..self.from.clone() })
        })
    }
}

/// The longest of the letters that may still be sent at `now`; `None` when the end is too near for any.
pub fn fitting<T>(letters: impl IntoIterator<Item = (Duration, T)>, end: Instant, now: Instant) -> Option<T> {
    let fits = letters.into_iter().filter(|(needs, _)| now + *needs <= end);
    fits.max_by_key(|(needs, _)| *needs).map(|(_, letter)| letter)
}

#[cfg(test)]
mod tests {
    use super::super::{Boot, ClusterId, Incarnation};
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn left(end: Instant, left: Duration) -> LeftGoodbye {
        let from = Heartbeat {
            cluster: ClusterId("c".into()),
            node: "db1".parse().expect("valid"),
            boot: Boot("b".into()),
            incarnation: Incarnation(3),
            sequence: 17,
            body: None,
        };
        LeftGoodbye::new(from, end, (left, left * 9 / 10))
    }

    fn promised(heartbeat: &Heartbeat) -> Duration {
        let goodbye = heartbeat.body.as_ref().and_then(|body| body.goodbye).expect("it is a goodbye");
        assert!(goodbye.left_behind);
        goodbye.back_within
    }

    proptest! {
        #[test]
        fn it_never_promises_more_than_is_left_and_never_much_less(later in 0u64..9_000) {
            let (now, whole) = (Instant(5_000_000_000), 8 * S);
            let end = now + whole;
            let sent = now + Duration::from_millis(later);
            match fitting(left(end, whole).letters(), end, sent) {
                Some(letter) => {
                    let rest = end.since(sent);
                    prop_assert!(promised(&letter) <= rest * 9 / 10, "{:?} of {rest:?}", promised(&letter));
                    prop_assert!(promised(&letter) + S >= rest * 9 / 10, "{:?} of {rest:?}", promised(&letter));
                    prop_assert_eq!(letter.sequence, u64::MAX, "nothing of that incarnation comes after it");
                }
                None => prop_assert!(end.since(sent) < S, "nothing fits, and {:?} is left", end.since(sent)),
            }
        }
    }
}
