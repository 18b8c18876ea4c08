//! Faults built in on purpose, so that the tests which must find them are tested themselves. They exist only with the
//! feature `known-bugs`, which no optimised build may have; without it every question here is the constant `false`.
//!
//! Not here: anything about the tests. A bug is asked about at the one line where the right behaviour stands.

/// A mistake that a failover manager can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Orders of a fence are said to have succeeded and are not carried out, and every check of one holds.
    FenceDisabled = 1,
}

/// Every bug with the name by which it is chosen.
pub const ALL: &[(&str, Bug)] = &[("fence_disabled", Bug::FenceDisabled)];

#[cfg(all(feature = "known-bugs", not(debug_assertions)))]
compile_error!("the feature `known-bugs` is for tests: a released binary never has it");

#[cfg(feature = "known-bugs")]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this process has that bug.
#[cfg(feature = "known-bugs")]
pub fn has(bug: Bug) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this process has that bug: no.
#[cfg(not(feature = "known-bugs"))]
pub const fn has(_: Bug) -> bool {
    false
}

/// Gives this process that bug, or none.
#[cfg(feature = "known-bugs")]
pub fn choose(bug: Option<Bug>) {
    CHOSEN.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::Relaxed);
}
