//! The guard's eye on the daemon: when that process ends and its database goes on, the goodbye that it left is sent, so
//! that a crash of the daemon alone is not taken for the death of its host while its lease lasts.
//!
//! Nothing here may hold up the guard: sending, which may wait for a disk, has a thread of its own. Where the kernel
//! cannot tell of a process's end nothing is sent, and the host is suspected as ever. Not here: what was left, and how it
//! is sent (`channel/goodbye.rs`).

use crate::channel::goodbye::Prepared;
use crate::engine::enclosure::Enclosure;
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// One daemon after the other.
#[derive(Debug)]
pub(super) struct DaemonWatch {
    goodbye: Option<PathBuf>,
    /// The process that is watched, or was until it ended.
    process: Option<u32>,
    /// Readable when it has ended; `None` once that is known.
    ends: Option<OwnedFd>,
}

impl DaemonWatch {
    pub fn new(goodbye: Option<PathBuf>) -> DaemonWatch {
        DaemonWatch { goodbye, process: None, ends: None }
    }

    /// The lease is of this process now.
    pub fn look_at(&mut self, process: Option<u32>, enclosure: &Enclosure) {
        let Some(process) = process.filter(|_| self.goodbye.is_some() && self.process != process) else { return };
        self.process = Some(process);
        match open(process) {
            Ok(ends) => self.ends = Some(ends),
            // It was quicker.
            Err(Errno::ESRCH) => self.has_ended(enclosure),
            Err(_) => {}
        }
    }

    /// The lease file was written anew: whoever did it lived, also under the number of one that ended.
    pub fn has_written(&mut self) {
        if self.ends.is_none() {
            self.process = None;
        }
    }

    /// What tells of its end.
    pub fn ends(&self) -> Option<BorrowedFd<'_>> {
        self.ends.as_ref().map(AsFd::as_fd)
    }

    /// It has ended. Where its database ended too, nobody needs to wait for it.
    pub fn has_ended(&mut self, enclosure: &Enclosure) {
        self.ends = None;
        let Some(path) = self.goodbye.clone().filter(|_| !enclosure.is_empty()) else { return };
        let process = self.process;
        let sending = move || {
            // What an earlier daemon left is not for the end of this one.
            if let Ok(left) = Prepared::find(&path)
                && Some(left.daemon) == process
            {
                left.send();
            }
        };
        // Without a thread it stays unsaid.
        let _ = std::thread::Builder::new().stack_size(1024 * 1024).spawn(sending);
    }
}

fn open(process: u32) -> Result<OwnedFd, Errno> {
    let process = libc::pid_t::try_from(process).map_err(|_| Errno::ESRCH)?;
    // SAFETY: a system call on numbers; the descriptor is new and nobody else's.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, process, 0) {
            -1 => Err(Errno::last()),
            raw => Ok(OwnedFd::from_raw_fd(libc::c_int::try_from(raw).map_err(|_| Errno::EBADF)?)),
        }
    }
}
