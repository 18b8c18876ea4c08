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

#[cfg(test)]
mod tests {
    use super::super::durable::Durable;
    use super::super::{Backend, Change};
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;

    /// A volume of its own, unmounted when it goes; `None`: it takes root to make that.
    struct Volume {
        folder: tempfile::TempDir,
    }

    impl Volume {
        fn mount() -> Option<Volume> {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let (image, place) = (folder.path().join("image"), folder.path().join("volume"));
            std::fs::create_dir(&place).expect("made");
            File::create(&image).and_then(|file| file.set_len(48 << 20)).expect("sparse");
            let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).status();
            let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).status();
            let works = |status: io::Result<std::process::ExitStatus>| status.is_ok_and(|status| status.success());
            if works(made) && works(mounted) {
                return Some(Volume { folder });
            }
            println!("SKIPPED: no volume of a test's own can be mounted here");
            assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
            None
        }

        fn place(&self) -> PathBuf {
            self.folder.path().join("volume")
        }

        /// To the last block.
        fn fill(&self, name: &str) {
            let mut file = File::create(self.place().join(name)).expect("a name is free");
            for size in [1 << 20, 4096, 1] {
                while io::Write::write(&mut file, &vec![0; size]).is_ok_and(|written| written > 0) {}
            }
            file.sync_all().expect("what fits is written");
        }
    }

    impl Drop for Volume {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.place()).status();
        }
    }

    fn write(log: &Durable, number: u64) {
        let (sender, done) = std::sync::mpsc::channel();
        let key = |number: u64| number.to_be_bytes().to_vec();
        let mut changes = vec![Change::Put(key(number), vec![7; 500])];
        // As a log is purged: it stays as long as it was.
        changes.extend(number.checked_sub(500).map(|old| Change::Delete(key(old))));
        log.write(changes, Some(Box::new(move || sender.send(()).expect("somebody waits"))));
        done.recv().expect("written: a failed write ends the process");
    }

    /// Without the reserve the first write that needs a block ends the process, and with it this test.
    #[test]
    fn a_volume_that_others_fill_does_not_end_the_log() {
        let Some(volume) = Volume::mount() else { return };
        let path = volume.place().join("raft.redb");
        let log = Durable::open(&path, false).expect("new");
        write(&log, 0);
        assert!(log.has_reserve());
        volume.fill("ballast");
        for number in 1..2000 {
            write(&log, number);
        }
        assert!(log.has_reserve(), "it has what it had");
        // An orderly end cuts the file short, and the next manager finds its room all the same.
        log.close();
        drop(log);
        volume.fill("more");
        let log = Durable::open(&path, true).expect("whole");
        for number in 2000..3000 {
            write(&log, number);
        }
        assert_eq!(log.load().expect("read").len(), 500, "what was there at the start");
    }

    #[test]
    fn where_there_is_no_room_left_it_is_said() {
        let Some(volume) = Volume::mount() else { return };
        let path = volume.place().join("raft.redb");
        volume.fill("ballast");
        std::fs::remove_file(volume.place().join("ballast")).expect("there");
        let file = File::create(volume.place().join("ballast")).expect("made");
        let free = nix::sys::statvfs::statvfs(&volume.place()).expect("asked");
        let most = free.blocks_free() * free.fragment_size() - (4 << 20);
        // SAFETY: a system call on an open descriptor.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, most.cast_signed()) }, 0);
        let log = Durable::open(&path, false).expect("there is room for a file");
        write(&log, 0);
        assert!(!log.has_reserve());
        drop(file);
        std::fs::remove_file(volume.place().join("ballast")).expect("there");
        write(&log, 1);
        assert!(log.has_reserve(), "it takes it as soon as it can");
    }
}
