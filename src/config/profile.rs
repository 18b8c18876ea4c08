//! The profiles: one preset of every timing each. A key that is written in the file overrides one value of it.
//!
//! Not here: the rules that the values satisfy (`timing.rs`); `docs/timing.md` shows these numbers, and a test keeps
//! it so.

use super::{Detector, Failover, LeaseTiming, Profile, RaftTiming};
use std::time::Duration;

/// Everything that a profile sets.
#[derive(Clone, Debug)]
pub(super) struct Preset {
    pub(super) detector: Detector,
    pub(super) raft: RaftTiming,
    pub(super) lease: LeaseTiming,
    /// Timeout of the watchdog device.
    pub(super) watchdog: Duration,
    pub(super) agent: AgentTiming,
    /// Pause between two rounds of fencing levels, first and largest.
    pub(super) retry: Duration,
    pub(super) retry_max: Duration,
    pub(super) failover: Failover,
    pub(super) service: ServiceTiming,
}

/// How long an agent may take, and how often its monitor runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentTiming {
    pub(super) timeout: Duration,
    pub(super) tries: u32,
    pub(super) monitor: Duration,
}

/// The ladder of a planned stop, and the probes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceTiming {
    pub(super) stop_fast: Duration,
    pub(super) stop_immediate: Duration,
    pub(super) stop_kill: Duration,
    pub(super) probe_interval: Duration,
    pub(super) probe_timeout: Duration,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The furthest that Linux lets anybody slew CLOCK_BOOTTIME, in parts per thousand: a tenth by the length of a tick, and
/// 0.05 % by frequency (adjtimex(2)), with the quartz's own error. chrony goes to 8.3 % by default. Source: MAXFREQ and
/// the limits of `tick` in the kernel's `kernel/time/ntp.c`.
const KERNEL_SLEW: u32 = 101;

const MIB: u64 = 1 << 20;

impl Profile {
    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Lan => "lan",
            Profile::Wan => "wan",
        }
    }

    pub(super) fn preset(self) -> Preset {
        match self {
            Profile::Fast => fast(),
            Profile::Lan => lan(),
            Profile::Wan => wan(),
        }
    }
}

fn detector(
    interval: Duration,
    acceptable_pause: Duration,
    min_deviation: Duration,
    startup_grace: Duration,
) -> Detector {
    Detector { interval, phi_threshold: 8.0, acceptable_pause, window: 200, min_deviation, rise: 3, startup_grace }
}

/// Idle hosts on one switch: a freeze of more than a quarter of a second is a death.
fn fast() -> Preset {
    Preset {
        detector: detector(ms(50), ms(200), ms(10), s(5)),
        raft: RaftTiming { heartbeat: ms(40), election_min: ms(150), election_max: ms(300), slow_write: ms(100) },
        lease: LeaseTiming {
            ttl: s(3),
            renew: ms(200),
            drift_permille: KERNEL_SLEW,
            grace: ms(500),
            stop_immediate: ms(500),
            stop_kill: ms(500),
        },
        watchdog: s(3),
        agent: AgentTiming { timeout: s(5), tries: 2, monitor: s(60) },
        retry: s(2),
        retry_max: s(60),
        failover: Failover {
            max_lag: 16 * MIB,
            max_silence: s(10),
            max_lag_time: s(30),
            choose: s(1),
            catch_up: s(5),
            install: s(10),
            max_per_hour: 3,
        },
        service: ServiceTiming {
            stop_fast: s(30),
            stop_immediate: s(5),
            stop_kill: s(5),
            probe_interval: ms(250),
            probe_timeout: s(1),
        },
    }
}

/// Ordinary hosts in one data centre: rides out a second of anything.
fn lan() -> Preset {
    Preset {
        detector: detector(ms(200), s(1), ms(40), s(10)),
        raft: RaftTiming { heartbeat: ms(200), election_min: ms(600), election_max: s(1), slow_write: ms(300) },
        lease: LeaseTiming {
            ttl: s(8),
            renew: ms(500),
            drift_permille: KERNEL_SLEW,
            grace: s(2),
            stop_immediate: s(1),
            stop_kill: s(1),
        },
        watchdog: s(5),
        agent: AgentTiming { timeout: s(15), tries: 2, monitor: s(60) },
        retry: s(5),
        retry_max: s(60),
        failover: Failover {
            max_lag: 16 * MIB,
            max_silence: s(10),
            max_lag_time: s(30),
            choose: s(3),
            catch_up: s(10),
            install: s(30),
            max_per_hour: 3,
        },
        service: ServiceTiming {
            stop_fast: s(60),
            stop_immediate: s(10),
            stop_kill: s(5),
            probe_interval: s(1),
            probe_timeout: s(3),
        },
    }
}

/// Several sites, or virtual machines that are moved and snapshotted: rides out five seconds.
fn wan() -> Preset {
    Preset {
        detector: detector(s(1), s(5), ms(200), s(30)),
        raft: RaftTiming { heartbeat: ms(300), election_min: ms(1500), election_max: s(3), slow_write: s(1) },
        lease: LeaseTiming {
            ttl: s(20),
            renew: ms(1500),
            drift_permille: KERNEL_SLEW,
            grace: s(5),
            stop_immediate: s(2),
            stop_kill: s(2),
        },
        watchdog: s(15),
        agent: AgentTiming { timeout: s(30), tries: 2, monitor: s(120) },
        retry: s(10),
        retry_max: s(300),
        failover: Failover {
            max_lag: 64 * MIB,
            max_silence: s(10),
            max_lag_time: s(30),
            choose: s(10),
            catch_up: s(60),
            install: s(60),
            max_per_hour: 3,
        },
        service: ServiceTiming {
            stop_fast: s(120),
            stop_immediate: s(20),
            stop_kill: s(10),
            probe_interval: s(2),
            probe_timeout: s(10),
        },
    }
}
