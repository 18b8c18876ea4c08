//! How long a lease counts, for its holder and for everybody else, on clocks that need not run alike.
//!
//! The file's times and those that the ledger was seeded with are put through the same sums here. Not here: who may have
//! a lease (`crate::lease`), and what is done when one has ended.

use std::time::Duration;

/// How far the rates of two clocks may differ, in parts per thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift(pub u32);

impl Drift {
    /// What a clock must count until `time` has surely passed on every other one.
    pub fn lengthened(self, time: Duration) -> Duration {
        time * (1000 + self.0) / 1000
    }

    /// What a clock may count while `time` has surely not passed on any other one.
    pub fn shortened(self, time: Duration) -> Duration {
        time * (1000 - self.0.min(1000)) / 1000
    }
}

/// The times that a lease is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    pub ttl: Duration,
    pub drift: Drift,
    /// Longest time until an armed watchdog resets its host; zero where none is configured.
    pub watchdog: Duration,
    /// The stop ladder at the end of a lease, all rungs together.
    pub stop: Duration,
}

impl LeaseTime {
    /// How long the holder itself may use a grant, from before it asked: its ladder lies inside that.
    pub fn used(&self) -> Duration {
        self.drift.shortened(self.ttl)
    }

    /// How long everybody else waits until a lease has surely ended.
    pub fn waited_for(&self) -> Duration {
        self.drift.lengthened(self.ttl + self.watchdog + self.stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    /// The numbers of docs/timing.md for the profile `lan`.
    #[test]
    fn everybody_waits_for_more_than_the_holder_uses() {
        let lan = LeaseTime { ttl: 8 * S, drift: Drift(101), watchdog: 5 * S, stop: 2 * S };
        assert_eq!((lan.used().as_millis(), lan.waited_for().as_millis()), (7192, 16_515));
    }

    proptest! {
        /// `rate`: how much faster the other clock runs.
        #[test]
        fn what_one_clock_counts_is_over_on_the_other(ms in 1u32..100_000, drift in 1u32..200) {
            let time = Duration::from_millis(ms.into());
            let rate = 1.0 + f64::from(drift) / 1000.0;
            let margin = Duration::from_nanos(2);
            prop_assert!(Drift(drift).lengthened(time) + margin >= time.mul_f64(rate));
            prop_assert!(Drift(drift).shortened(time) <= time.div_f64(rate) + margin);
        }
    }
}
