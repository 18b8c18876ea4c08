//! The lab's clock: CLOCK_BOOTTIME, which all hosts of one machine share, so that their stamps can be compared.
//! (The program under test never compares clocks of two hosts; only its judge does.)

use std::time::Duration;

/// Nanoseconds since the machine booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The present moment.
    pub fn now() -> Stamp {
        let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("every Linux has CLOCK_BOOTTIME");
        Stamp(t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
    }

    /// How long after `earlier` this was; zero when it was before.
    pub fn since(self, earlier: Stamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
