//! How far replay is behind what a standby received, by what each look at the server brings, and on this node's own clock:
//! the time of the last commit that was replayed is the primary's.
//!
//! Not here: what holds replay up (`unblock.rs`).

use super::session::Place;
use crate::types::{Instant, LagTracker, Lsn, ReplayLag};

/// What was seen of one server's replay.
#[derive(Debug, Default)]
pub struct Replay {
    received: LagTracker,
    /// Where it was last, and since when it is there without waiting on purpose.
    stands: Option<(Lsn, Instant)>,
}

impl Replay {
    /// What is left to replay; `None`: nothing.
    pub fn look(&mut self, place: &Place, now: Instant) -> Option<ReplayLag> {
        let replayed = place.replayed.filter(|_| place.in_recovery)?;
        let received = place.end();
        self.received.ahead(now, received);
        self.received.reached(replayed);
        let bytes = received.0 - replayed.0;
        let moved = self.stands.is_none_or(|(at, _)| at != replayed);
        if moved || bytes == 0 || place.waits_for_delay {
            self.stands = Some((replayed, now));
        }
        let still = self.stands.map_or(0, |(_, since)| now.since(since).as_secs());
        let seconds = self.received.behind(now, replayed).as_secs();
        (bytes > 0).then_some(ReplayLag { bytes, seconds, still, delay: place.delay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn place(received: u64, replayed: u64) -> Place {
        Place {
            in_recovery: true,
            flushed: None,
            received: Some(Lsn(received)),
            replayed: Some(Lsn(replayed)),
            awaits_wal: false,
            waits_for_delay: false,
            delay: 0,
            receiver: None,
            conninfo: String::new(),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant(1_000_000_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn replay_is_behind_since_something_was_left_and_stands_since_it_moved() {
        let mut replay = Replay::default();
        assert_eq!(replay.look(&place(100, 100), at(0)), None);
        assert_eq!(replay.look(&place(100, 100), at(500)), None, "an idle standby has nothing left");
        let lag = |bytes, seconds, still| Some(ReplayLag { bytes, seconds, still, delay: 0 });
        assert_eq!(
            replay.look(&place(200, 100), at(501)),
            lag(100, 0, 1),
            "it may have stood for as long as that look"
        );
        assert_eq!(replay.look(&place(300, 100), at(510)), lag(200, 9, 10));
        assert_eq!(replay.look(&place(300, 150), at(520)), lag(150, 19, 0), "it moves, and is behind all the same");
        assert_eq!(replay.look(&place(300, 250), at(530)), lag(50, 20, 0));
        assert_eq!(replay.look(&place(300, 250), at(600)), lag(50, 90, 70));
        assert!(replay.look(&place(300, 250), at(600)).is_some_and(|lag| lag.stands()));
        assert_eq!(replay.look(&place(300, 300), at(601)), None);
    }

    #[test]
    fn replay_that_waits_on_purpose_does_not_stand_still() {
        let mut replay = Replay::default();
        let waits = |received| Place { waits_for_delay: true, delay: 3600, ..place(received, 100) };
        replay.look(&place(100, 100), at(0));
        replay.look(&waits(200), at(1));
        let lag = replay.look(&waits(300), at(1000)).expect("something is left");
        assert_eq!(lag, ReplayLag { bytes: 200, seconds: 999, still: 0, delay: 3600 });
        assert!(!lag.stands());
    }
}
