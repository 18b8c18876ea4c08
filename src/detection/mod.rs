//! How long a silence may last: what the detector's settings make of it, and the shortest and longest time that follows.
//!
//! It stands below `config` and `detector`, so that the time that a file is judged by and an operator reads is the one
//! that is waited for. Not here: what was heard and what it means (`crate::detector`), and every other bound
//! (`crate::config::timing`).

mod phi;

use std::time::Duration;

/// A gap between two arrivals that is longer than this many intervals is lost heartbeats or a pause, not jitter: it is
/// no sample. So it bounds mean and deviation, and with them [`Patience::worst`].
pub const GAP_MAX: u32 = 2;

/// How much silence is borne before it is suspicious, by the detector's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    interval: Duration,
    pause: Duration,
    /// The floor of the deviation, in nanoseconds.
    deviation_min: f64,
    /// The threshold of φ, in deviations.
    deviations: f64,
}

impl Patience {
    /// From the settings of the same names; `phi_threshold` is positive.
    pub fn new(interval: Duration, acceptable_pause: Duration, min_deviation: Duration, phi_threshold: f64) -> Self {
        Patience {
            interval,
            pause: acceptable_pause,
            deviation_min: nanos(min_deviation),
            deviations: phi::deviations(phi_threshold),
        }
    }

    /// From the last heartbeat to `lost`, where arrivals had this mean and deviation (both in nanoseconds).
    pub fn after(&self, mean: f64, deviation: f64) -> Duration {
        let beyond = mean + self.deviations * deviation.max(self.deviation_min);
        self.pause + Duration::from_nanos(beyond.ceil() as u64)
    }

    /// φ after this silence, where arrivals had this mean and deviation (both in nanoseconds).
    pub fn phi(&self, silence: Duration, mean: f64, deviation: f64) -> f64 {
        phi::phi((nanos(silence) - nanos(self.pause) - mean) / deviation.max(self.deviation_min))
    }

    /// How old a heartbeat's word may be and still be of now: a pause that is borne, and three intervals for what is lost
    /// on the way. What was listened to for so long, or kept silent for so long, has had its chance to be heard.
    pub fn recent(&self) -> Duration {
        self.pause + self.interval * 3
    }

    /// From the last heartbeat to `lost` while heartbeats arrive as regularly as they are sent.
    pub fn usual(&self) -> Duration {
        self.after(nanos(self.interval), 0.0)
    }

    /// From the last heartbeat to `lost` with the most irregular arrivals that a window can hold: whatever they were like
    /// before, nobody is lost later. For samples between 0 and g, `mean + k·deviation` is at most
    /// `g·(1 + √(1 + k²)) / 2`; with the floor in force, `g + k·floor`.
    pub fn worst(&self) -> Duration {
        let gap = nanos(self.interval) * f64::from(GAP_MAX);
        let spread = gap * (1.0 + (1.0 + self.deviations * self.deviations).sqrt()) / 2.0;
        let floor = gap + self.deviations * self.deviation_min;
        self.pause + Duration::from_nanos(spread.max(floor).ceil() as u64)
    }
}

fn nanos(d: Duration) -> f64 {
    d.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// A threshold of 8, as in every profile.
    fn patience(interval: u32, pause: u32, floor: u32) -> Patience {
        Patience::new(MS * interval, MS * pause, MS * floor, 8.0)
    }

    /// The profiles `fast`, `lan` and `wan`. `docs/detector.md` and `docs/timing.md` show these times.
    #[test]
    fn the_detection_times_are_those_in_the_documentation() {
        for (interval, pause, floor, usual, worst) in
            [(50, 200, 10, 302, 516), (200, 1000, 40, 1409, 2264), (1000, 5000, 200, 7045, 11_320)]
        {
            let patience = patience(interval, pause, floor);
            assert_eq!(patience.usual().as_millis(), usual);
            assert_eq!(patience.worst().as_millis(), worst);
        }
    }

    #[test]
    fn recent_is_a_pause_and_three_intervals() {
        let recent = [(50, 200, 10), (200, 1000, 40), (1000, 5000, 200)].map(|(i, p, f)| patience(i, p, f).recent());
        assert_eq!(recent, [350, 1600, 8000].map(|ms| MS * ms));
    }

    #[test]
    fn phi_is_the_threshold_when_patience_ends() {
        let lan = patience(200, 1000, 40);
        for (mean, deviation) in [(200e6, 0.0), (300e6, 100e6), (10e6, 1e6)] {
            let ends = lan.after(mean, deviation);
            assert!((lan.phi(ends, mean, deviation) - 8.0).abs() < 1e-6);
        }
    }

    proptest! {
        /// The bound is told in `regent config check`: no window may hold samples with which anybody is lost later.
        #[test]
        fn no_samples_are_worse_than_the_worst(
            samples in proptest::collection::vec(0u64..=400, 1..60),
            floor in 1u32..400,
            threshold in 1.0f64..16.0,
        ) {
            let patience = Patience::new(MS * 200, MS * 1000, MS * floor, threshold);
            let n = samples.len() as f64;
            let mean = samples.iter().map(|ms| *ms as f64 * 1e6).sum::<f64>() / n;
            let squares = samples.iter().map(|ms| (*ms as f64 * 1e6 - mean).powi(2)).sum::<f64>();
            prop_assert!(patience.after(mean, (squares / n).sqrt()) <= patience.worst());
        }
    }
}
