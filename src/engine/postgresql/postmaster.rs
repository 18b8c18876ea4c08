//! The postmaster: the one process that a data directory belongs to, found by its own lock file and held by a pidfd.
//!
//! The lock file (postmaster.pid) is only ever read: removing it would let two servers run on one directory.

use super::error::{EngineError, Result};
use super::layout::{Layout, POSTMASTER_PID};
use crate::engine::enclosure::{Pidfd, process_state, works_in};

/// A running postmaster.
#[derive(Debug)]
pub struct Postmaster {
    pub pid: i32,
    handle: Pidfd,
}

/// What the postmaster last wrote into its lock file about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    /// Accepts connections.
    Ready,
    /// In recovery, and accepts none yet.
    Recovering,
    Stopping,
}

impl Postmaster {
    /// The postmaster of this data directory, if one lives.
    pub fn find(layout: &Layout) -> Option<Self> {
        let lock = layout.text_within(POSTMASTER_PID).ok()?;
        // A minus sign in front: a single-user server.
        let pid: i32 = lock.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        let handle = Pidfd::open(pid).ok()?;
        // The lock file outlives a killed postmaster, and its number may be another process's by now.
        let directory = layout.data_dir.canonicalize().ok()?;
        let lives = works_in(pid, &directory) && !matches!(process_state(pid), None | Some('Z' | 'X'));
        lives.then_some(Postmaster { pid, handle })
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        self.handle.ended().await;
    }

    /// Sends a signal to exactly this process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let path = format!("/proc/{}", self.pid);
        self.handle.signal(signal).map_err(EngineError::file("signal the postmaster", path))
    }

    /// Stopped by a signal: it lives and serves nobody. A debugger's halt (`t`) is a person's, and ends.
    pub fn is_frozen(&self) -> bool {
        process_state(self.pid) == Some('T')
    }

    /// Whether it still lives.
    pub fn lives(&self) -> bool {
        !matches!(process_state(self.pid), None | Some('Z' | 'X'))
    }
}

/// Whether the lock file names a dead process that its parent has not reaped yet. PostgreSQL takes such a one for alive
/// and refuses to start.
pub fn is_unreaped(layout: &Layout) -> bool {
    let lock = layout.text_within(POSTMASTER_PID).unwrap_or_default();
    let pid = lock.lines().next().and_then(|line| line.trim().parse().ok());
    pid.and_then(process_state).is_some_and(|state| matches!(state, 'Z' | 'X'))
}

/// The phase that the lock file tells of this postmaster; `None` while the file is not its own yet: a killed one leaves
/// its last word behind.
pub fn phase(layout: &Layout, pid: i32) -> Option<Phase> {
    let lock = layout.text_within(POSTMASTER_PID).ok()?;
    if lock.lines().next()?.trim() != pid.to_string() {
        return None;
    }
    match lock.lines().nth(7)?.trim() {
        "starting" => Some(Phase::Starting),
        "ready" => Some(Phase::Ready),
        "standby" => Some(Phase::Recovering),
        "stopping" => Some(Phase::Stopping),
        _ => None,
    }
}
