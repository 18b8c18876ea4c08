//! Room for the Raft log that nobody else can take: blocks of its volume that belong to its file before it needs them. So the
//! manager goes on where others fill that volume, and there is time to make room.
//!
//! The file is not longer for it. What cuts the file short (its own end in order, above all) gives the blocks beyond back, so
//! they are taken again afterwards.
//!
//! Not here: what is said of the volume (`daemon/room.rs`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// So much it has, used or not: a log of a running cluster takes a few MiB, and its pages are used again.
const WHOLE: u64 = 32 << 20;
/// On a small volume this part of it.
const PART: u64 = 8;
/// The unit in which the kernel counts blocks.
const BLOCK: u64 = 512;

/// The log's file, and how much of its volume it is to have.
pub struct Reserve {
    file: File,
    whole: u64,
}

impl Reserve {
    /// Of a file that is there. It must not be let go of before the database is closed, whose locks hang on the process.
    pub fn of(path: &Path) -> io::Result<Reserve> {
        let file = OpenOptions::new().write(true).open(path)?;
        let about = nix::sys::statvfs::fstatvfs(&file)?;
        let whole = WHOLE.min(about.blocks() * about.fragment_size() / PART);
        Ok(Reserve { file, whole })
    }

    /// Takes what is missing. Whether it has all of it now: not every file system can do that, and a full one has none left.
    pub fn top_up(&self) -> io::Result<bool> {
        let about = self.file.metadata()?;
        let wanted = self.whole.max(about.len());
        if about.blocks() * BLOCK >= wanted {
            return Ok(true);
        }
        let length = libc::off_t::try_from(wanted).map_err(io::Error::other)?;
        // SAFETY: a system call on an open descriptor; no byte of the file and not its length is changed.
        let taken = unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, length) };
        if taken == 0 {
            return Ok(true);
        }
        match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => Ok(false),
            error => Err(error),
        }
    }
}
