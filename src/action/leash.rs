//! The leash: a small process of its own, beside one run of an agent, that ends the run at its deadline, also while the
//! daemon is dead, stopped or starved. Whoever waits for that run's time to be over may then rely on it.
//!
//! While the daemon lives it only watches the clock. The daemon holds the other end of its standard input: when that
//! is closed, the run is over or the daemon is dead. What is left then may go on until the deadline; when nothing is
//! left the cgroup is removed, so that a child that was about to enter it never can.
//!
//! Not here: what the daemon itself does at the deadline (`process`), and what the next daemon ends (`leftovers`).

use super::confinement::Confinement;
use crate::types::Instant;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

/// How often it looks where the kernel does not tell that nothing is left.
const LOOK: u16 = 500;

/// What a leash needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeashOptions {
    pub confinement: Confinement,
    /// The deadline, on CLOCK_BOOTTIME.
    pub until: Instant,
}

impl LeashOptions {
    /// As the arguments of `regent leash`.
    pub fn arguments(&self) -> [OsString; 4] {
        let (name, value) = match &self.confinement {
            Confinement::Cgroup(path) => ("--cgroup", path.clone().into_os_string()),
            Confinement::Word(word) => ("--word", word.into()),
        };
        [name.into(), value, "--until".into(), self.until.0.to_string().into()]
    }
}

/// The leash's whole life. For `main`: it takes over the process.
pub fn run(options: &LeashOptions) -> ExitCode {
    close_the_rest();
    wait_for_nobody();
    let confinement = &options.confinement;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC).ok().filter(|timer| {
        // An absolute time in the past lets the timer fire at once: no clock needs to be read.
        let at = TimeSpec::from_duration(Duration::from_nanos(options.until.0.max(1)));
        timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_ok()
    });
    let Some(timer) = timer else {
        // Better no fence by this agent than one that nothing ends.
        eprintln!("regent leash: the kernel has no timer on CLOCK_BOOTTIME");
        confinement.end(None);
        return ExitCode::FAILURE;
    };
    if !daemon_let_go(&timer) {
        confinement.end(None);
        return ExitCode::SUCCESS;
    }
    loop {
        // Read before the look, so that no change falls between the two.
        let events = confinement.events();
        if confinement.is_empty() && confinement.remove() {
            return ExitCode::SUCCESS;
        }
        let mut both = vec![PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        both.extend(events.as_ref().map(|events| PollFd::new(events.as_fd(), PollFlags::POLLPRI)));
        let _ = poll(&mut both, PollTimeout::from(LOOK));
        if both[0].any().unwrap_or(false) {
            let left = confinement.members().len();
            eprintln!(
                "regent leash: {left} processes of an agent outlived their daemon and reached their deadline: killed"
            );
            confinement.end(None);
            return ExitCode::SUCCESS;
        }
    }
}

/// Waits until the daemon closes its end, or the deadline. Whether it was the daemon.
fn daemon_let_go(timer: &TimerFd) -> bool {
    let input = io::stdin();
    loop {
        let mut both = [PollFd::new(timer.as_fd(), PollFlags::POLLIN), PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut both, PollTimeout::NONE);
        if both[0].any().unwrap_or(false) {
            return false;
        }
        if both[1].any().unwrap_or(false) {
            return true;
        }
    }
}

/// Only its start had to wait for others (see `leashes`). Where that cannot be taken back it goes on so.
fn wait_for_nobody() {
    // SAFETY: a system call on numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
}

/// Nothing of the daemon's is held open: no socket, no lock, no file.
fn close_the_rest() {
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}
