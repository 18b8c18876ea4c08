//! Time as a value. Nothing here reads a clock: `crate::clock` does, and only there.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment on this host's own CLOCK_BOOTTIME, in nanoseconds. Never compared with another host's.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// A duration for people: `30 s`, `1.5 s`, `250 ms`, `0.1 ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            long if long >= Duration::from_secs(1) => write!(f, "{} s", long.as_millis() as f64 / 1000.0),
            short => write!(f, "{} ms", short.as_micros() as f64 / 1000.0),
        }
    }
}

/// A time of day for people, in milliseconds since 1970-01-01 UTC. Written into records, never decided upon.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_at_a_glance() {
        let shown = |micros| Span(Duration::from_micros(micros)).to_string();
        assert_eq!([30_000_000, 1_500_000, 250_000, 100, 0].map(shown), ["30 s", "1.5 s", "250 ms", "0.1 ms", "0 ms"]);
    }

    #[test]
    fn instants_saturate() {
        let t = Instant(5);
        assert_eq!(t.since(Instant(9)), Duration::ZERO);
        assert_eq!(t - Duration::from_secs(1), Instant(0));
        assert_eq!((t + Duration::from_nanos(7)).since(t), Duration::from_nanos(7));
    }
}
