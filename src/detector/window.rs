//! The last arrival intervals of one peer on one channel, and their mean and deviation. No clock, no opinion.

use crate::detection::GAP_MAX;
use std::collections::VecDeque;
use std::time::Duration;

/// A sliding window of arrival intervals. Sums are whole nanoseconds, so nothing drifts however long it slides.
#[derive(Clone, Debug)]
pub struct Window {
    samples: VecDeque<u64>,
    len_max: usize,
    gap_max: u64,
    sum: u64,
    squares: u128,
}

impl Window {
    /// It starts with one sample, the configured interval: before anything is known, that is what is expected.
    pub fn new(interval: Duration, len_max: usize) -> Self {
        assert!(len_max > 0, "a window of no samples has no mean");
        let interval = nanos(interval);
        let mut window = Window {
            samples: VecDeque::with_capacity(len_max),
            len_max,
            gap_max: interval.saturating_mul(u64::from(GAP_MAX)),
            sum: 0,
            squares: 0,
        };
        window.push(interval);
        window
    }

    /// Takes the gap between two arrivals as a sample, unless it is too long to be one.
    pub fn sample(&mut self, gap: Duration) {
        let gap = nanos(gap);
        if gap <= self.gap_max {
            self.push(gap);
        }
    }

    fn push(&mut self, gap: u64) {
        if self.samples.len() == self.len_max
            && let Some(oldest) = self.samples.pop_front()
        {
            self.sum -= oldest;
            self.squares -= u128::from(oldest) * u128::from(oldest);
        }
        self.samples.push_back(gap);
        self.sum += gap;
        self.squares += u128::from(gap) * u128::from(gap);
    }

    /// The mean of the samples, in nanoseconds.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.samples.len() as f64
    }

    /// The deviation of the samples (of the population: divided by their number), in nanoseconds.
    pub fn deviation(&self) -> f64 {
        let n = self.samples.len() as u128;
        let sum = u128::from(self.sum);
        // n·Σx² ≥ (Σx)² for whole numbers, so this cannot wrap.
        let scaled = n * self.squares - sum * sum;
        (scaled as f64).sqrt() / n as f64
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    #[test]
    fn a_new_window_expects_the_interval() {
        let window = Window::new(INTERVAL, 10);
        assert_eq!(window.mean(), 200e6);
        assert_eq!(window.deviation(), 0.0);
    }

    #[test]
    fn a_long_gap_is_no_sample() {
        let mut window = Window::new(INTERVAL, 10);
        window.sample(INTERVAL * GAP_MAX + Duration::from_nanos(1));
        assert_eq!(window.mean(), 200e6);
        window.sample(INTERVAL * GAP_MAX);
        assert_eq!(window.mean(), 300e6);
        assert_eq!(window.deviation(), 100e6);
    }

    proptest! {
        #[test]
        fn sliding_sums_equal_sums_made_anew(gaps in proptest::collection::vec(0u64..400_000_000, 1..60)) {
            let mut window = Window::new(INTERVAL, 8);
            for gap in &gaps {
                window.sample(Duration::from_nanos(*gap));
            }
            let mut all = vec![200_000_000];
            all.extend(&gaps);
            let last: Vec<f64> = all[all.len().saturating_sub(8)..].iter().map(|gap| *gap as f64).collect();
            let n = last.len() as f64;
            let mean = last.iter().sum::<f64>() / n;
            let deviation = (last.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
            prop_assert!((window.mean() - mean).abs() < 1.0);
            prop_assert!((window.deviation() - deviation).abs() < 1.0);
        }
    }
}
