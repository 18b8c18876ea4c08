//! The only reader of clocks. Every other module is told the time.
//!
//! Deadlines use CLOCK_BOOTTIME: it runs on while the host is suspended and nobody can set it. The time of day is read
//! for records only. Not here: any decision about what a moment means.

use crate::types::{Instant, WallTime};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The newest moment that `now` has given out.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// The present moment on this host's CLOCK_BOOTTIME. Never earlier than a moment given out before, by any thread: a
/// hypervisor that restores a guest's clock has been seen to step it back.
pub fn now() -> Instant {
    let read = nanos(ClockId::CLOCK_BOOTTIME);
    Instant(read.max(NEWEST.fetch_max(read, Ordering::Relaxed)))
}

/// The time of day, for records. It may jump either way: nothing is decided by it.
pub fn wall() -> WallTime {
    WallTime(nanos(ClockId::CLOCK_REALTIME) / 1_000_000)
}

/// The moment that the kernel stamped with the time of day `stamp` (since 1970): for received datagrams, whose
/// stamps exist in no other clock. A stamp in the future counts as now. The caller bounds it from below, because the
/// time of day may have been set forward since.
pub fn at_stamp(stamp: Duration) -> Instant {
    let age = Duration::from_nanos(nanos(ClockId::CLOCK_REALTIME)).saturating_sub(stamp);
    now() - age
}

fn nanos(clock: ClockId) -> u64 {
    let read = clock_gettime(clock).expect("Linux has had both clocks since 2.6.39");
    u64::try_from(read.num_nanoseconds()).unwrap_or(0)
}

/// Wakes an async task at a moment of CLOCK_BOOTTIME, also after a suspend. One moment at a time.
#[derive(Debug)]
pub struct BootTimer {
    timer: AsyncFd<Descriptor>,
    /// The moment that the kernel knows and that has not come: to set it again would cost a call and change nothing.
    pending: Option<Instant>,
}

#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl BootTimer {
    /// A timer that is not set. Must be called within a tokio runtime with I/O. Fails only when the process or the
    /// host has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(TimerClock::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: the descriptor is owned by what is registered, is always the same one, and is closed with it.
        let timer = unsafe { AsyncFd::register_with_interest(Descriptor(timer), Interest::READABLE)? };
        Ok(BootTimer { timer, pending: None })
    }

    /// Fires at `at`, or at once when that has passed. Replaces the moment set before, fired or not.
    pub fn set(&mut self, at: Instant) {
        if self.pending == Some(at) {
            return;
        }
        // Zero would disarm it.
        let nanos = i64::try_from(at.0.max(1)).unwrap_or(i64::MAX);
        let expiration = Expiration::OneShot(TimeSpec::nanoseconds(nanos));
        let set = self.timer.get_ref().0.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        set.expect("a valid time on a descriptor of our own");
        self.pending = Some(at);
    }

    /// Does not fire until it is set again.
    pub fn unset(&mut self) {
        self.pending = None;
        self.timer.get_ref().0.unset().expect("a descriptor of our own");
    }

    /// Resolves when the moment set has come, once; never while none is set. Cancel-safe: dropping the future loses
    /// nothing.
    pub async fn fired(&mut self) {
        loop {
            let mut ready = self.timer.readable().await.expect("the runtime is there: we run on it");
            let read = ready.try_io(|timer| {
                let mut expirations = [0u8; 8];
                match nix::unistd::read(timer.get_ref().0.as_fd(), &mut expirations) {
                    Ok(_) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            });
            // Otherwise interrupted, or set anew meanwhile: wait for the moment that stands now.
            if let Ok(Ok(())) = read {
                self.pending = None;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn the_clock_never_goes_back_between_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let mut before = now();
                    for _ in 0..10_000 {
                        let next = now();
                        assert!(next >= before);
                        before = next;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_stamp_becomes_a_moment_in_the_past() {
        let stamp = Duration::from_nanos(nanos(ClockId::CLOCK_REALTIME)) - Duration::from_secs(1);
        let age = now().since(at_stamp(stamp));
        assert!(age >= Duration::from_millis(999) && age < Duration::from_secs(3), "{age:?}");
        let future = stamp + Duration::from_secs(3600);
        assert!(now().since(at_stamp(future)) < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn the_timer_fires_at_its_moment_and_once() {
        let mut timer = BootTimer::new().unwrap();
        let at = now() + Duration::from_millis(30);
        timer.set(at);
        timer.fired().await;
        assert!(now() >= at);
        let again = pin!(timer.fired()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(again, Poll::Pending, "it fired twice for one moment");
    }

    #[tokio::test]
    async fn a_past_moment_fires_at_once_and_a_new_one_replaces_it() {
        let mut timer = BootTimer::new().unwrap();
        timer.set(Instant(0));
        timer.fired().await;
        timer.set(Instant(0));
        let later = now() + Duration::from_millis(40);
        timer.set(later);
        timer.fired().await;
        assert!(now() >= later, "the replaced moment fired");
    }
}
