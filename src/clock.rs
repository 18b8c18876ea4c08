//! The only reader of the clock (CLOCK_BOOTTIME), which runs through suspend and is never stepped.

use crate::types::Instant;
use std::time::Duration;

/// Now, on this host's boot clock.
pub fn now() -> Instant {
    let read = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    Instant::default() + Duration::from(read)
}
