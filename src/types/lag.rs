//! How long something has been behind: since when what is ahead has been past where what follows is now, on one clock alone.
//! So no two hosts' clocks are compared, and an idle database is not behind, however old its last commit is.
//!
//! Not here: who follows whom (`engine/postgresql/observer.rs` for replay, `node/written.rs` for a primary and its standbys).
//!
//! Source: PostgreSQL's `LagTracker` in walsender.c, which keeps samples of (position, time) for the same purpose.

use super::{Instant, Lsn};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Within this time what is ahead is one sample, whatever it does.
pub const LAG_SAMPLE: Duration = Duration::from_secs(1);
/// So many samples are kept.
const SAMPLES: usize = 120;

/// From `since` on what is ahead was past the sample before; in the end it came to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    since: Instant,
    end: Lsn,
}

/// When what is ahead came to where. Bounded: the older, the coarser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagTracker {
    samples: Vec<Sample>,
}

impl LagTracker {
    /// What is ahead is at `end` now. It does not go back.
    pub fn ahead(&mut self, now: Instant, end: Lsn) {
        match self.samples.last_mut() {
            Some(last) if end <= last.end => return,
            Some(last) if now.since(last.since) < LAG_SAMPLE => {
                last.end = end;
                return;
            }
            _ => self.samples.push(Sample { since: now, end }),
        }
        if self.samples.len() > SAMPLES {
            self.thin(now);
        }
    }

    /// For how long what is ahead has been past `at`: too much by a sample at most. Zero where it is not.
    pub fn behind(&self, now: Instant, at: Lsn) -> Duration {
        let past = self.samples.iter().find(|sample| sample.end > at);
        past.map_or(Duration::ZERO, |sample| now.since(sample.since))
    }

    /// Forgets what nobody can be behind any more: everything that follows has come to `at`.
    pub fn reached(&mut self, at: Lsn) {
        // The last one tells what is new.
        let kept = self.samples.len().saturating_sub(1);
        let passed = self.samples.iter().take(kept).take_while(|sample| sample.end <= at).count();
        self.samples.drain(..passed);
    }

    /// Makes one sample of the two that lie closest together for their age.
    fn thin(&mut self, now: Instant) {
        let closeness = |at: &usize| {
            let (one, next) = (self.samples[*at], self.samples[at + 1]);
            next.since.since(one.since).as_nanos() * 1000 / now.since(one.since).as_nanos().max(1)
        };
        let closest = (0..self.samples.len().saturating_sub(1)).min_by_key(closeness);
        if let Some(at) = closest {
            let end = self.samples.remove(at + 1).end;
            self.samples[at].end = end;
        }
    }
}

/// For so long replay may stand, with something left, before it is said: a large transaction's end or a busy disk takes
/// a while.
const STANDS: u64 = 60;

/// What a standby has left to replay of what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayLag {
    pub bytes: u64,
    /// For how many seconds it has had something that it has not replayed, on its own clock.
    pub seconds: u64,
    /// For how many seconds nothing was replayed, although nothing was waited for on purpose.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub still: u64,
    /// For how many seconds it is to wait on purpose (`recovery_min_apply_delay`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delay: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ReplayLag {
    /// It does not get on, and that is not on purpose.
    pub fn stands(&self) -> bool {
        self.still >= STANDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn behind(tracker: &LagTracker, now: u64, lsn: u64) -> u64 {
        tracker.behind(at(now), Lsn(lsn)).as_secs()
    }

    #[test]
    fn what_has_everything_is_not_behind_however_long_ago_that_was() {
        let mut written = LagTracker::default();
        assert_eq!(behind(&written, 9, 0), 0, "nothing is known");
        written.ahead(at(0), Lsn(100));
        assert_eq!((behind(&written, 3600, 100), behind(&written, 3600, 99)), (0, 3600));
        written.ahead(at(3600), Lsn(200));
        assert_eq!(behind(&written, 3605, 100), 5, "it lacks something since then, and had all before");
        assert_eq!(behind(&written, 3605, 200), 0);
        written.ahead(at(3700), Lsn(150));
        assert_eq!(behind(&written, 3705, 200), 0, "what is ahead does not go back");
    }

    #[test]
    fn what_comes_within_a_second_is_one_sample_and_none_of_it_is_missed() {
        let mut written = LagTracker::default();
        for tenth in 0..100 {
            written.ahead(START + Duration::from_millis(100 * tenth), Lsn(1000 + tenth));
        }
        assert_eq!(written.samples.len(), 10);
        assert_eq!((behind(&written, 10, 1098), behind(&written, 10, 1099)), (1, 0));
        assert_eq!(behind(&written, 10, 1050), 5);
    }

    #[test]
    fn a_day_of_writes_takes_a_bounded_room_and_old_lag_is_told_nearly_right() {
        let mut written = LagTracker::default();
        for second in 0..86_400 {
            written.ahead(at(second), Lsn(second + 1));
        }
        assert_eq!(written.samples.len(), SAMPLES);
        for lag in [1, 5, 60, 600, 3600, 36_000] {
            let told = behind(&written, 86_400, 86_400 - lag);
            assert!(told >= lag && told <= lag + 2 + lag / 5, "{lag} s are told as {told} s");
        }
        written.reached(Lsn(86_399));
        assert_eq!(written.samples.len(), 1);
    }

    #[test]
    fn an_hour_without_writes_is_no_lag_where_samples_are_thinned() {
        let mut written = LagTracker::default();
        written.ahead(at(0), Lsn(1));
        for second in 0..300 {
            written.ahead(at(3600 + second), Lsn(2 + second));
        }
        assert_eq!(behind(&written, 3900, 1), 300);
    }
}
