//! What this host has for a primary: room on the volumes of the database, memory and huge pages, and the way to the archive.
//!
//! Not here: whether the archive takes what is sent there at present; that is the primary's archiver to say (`survey.rs`).

use super::ANSWER;
use super::catalogs::Server;
use super::disk::Disk;
use crate::engine::postgresql::command::{self, Told, amiss};
use crate::engine::postgresql::core::Core;
use crate::engine::postgresql::error::{EngineError, Result};
use crate::engine::postgresql::program::Run;
use crate::engine::postgresql::{mounts, volume};
use crate::types::{Unfit, shortened};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A volume with less room is full: of a small one a twentieth, and never more than four segments of WAL.
const LEAST: u64 = 64 << 20;
const SHARE: u64 = 20;

/// What it has.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub room: Option<Unfit>,
    /// Bytes that the database may use, and those in huge pages, where the kernel says.
    pub memory: Option<u64>,
    pub huge_pages: Option<u64>,
}

/// Looks at volumes and at the kernel's figures.
pub fn look(core: &Core) -> Host {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figure = |name: &str| figure(&meminfo, name);
    let limit = core.enclosure.cgroup().and_then(memory_limit);
    Host {
        room: full_volume(core),
        memory: figure("MemTotal").map(|kib| limit.map_or(kib << 10, |limit| limit.min(kib << 10))),
        huge_pages: figure("HugePages_Total").zip(figure("Hugepagesize")).map(|(count, kib)| count * (kib << 10)),
    }
}

/// The first volume of the database's that is full.
fn full_volume(core: &Core) -> Option<Unfit> {
    let places = mounts::parts(&core.layout).unwrap_or_else(|_| vec![core.layout.data_dir.clone()]);
    places.into_iter().find_map(|place| {
        let (free, whole) = volume::room(&place).ok()?;
        // Whole units: what moves all the time is no news.
        let free_now = free >> 20 << 20;
        (free < least(whole)).then(|| Unfit::Room { place: shortened(&place.display().to_string()), free: free_now })
    })
}

fn least(whole: u64) -> u64 {
    (whole / SHARE).min(LEAST)
}

/// A number of /proc/meminfo, in its unit.
fn figure(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The least that the database's cgroup, or one above it, allows.
fn memory_limit(cgroup: &Path) -> Option<u64> {
    let limit = |at: &Path| std::fs::read_to_string(at.join("memory.max")).ok()?.trim().parse::<u64>().ok();
    cgroup.ancestors().filter_map(limit).min()
}

/// Whether WAL could be archived from here: the program of `archive_command`, and the operator's own check.
/// Error: it could not be looked at.
pub async fn archive(disk: &Disk, server: &Server) -> Result<Option<Unfit>> {
    let core = &disk.core;
    if server.archives_nowhere {
        let why = "archive_mode is on and archive_command is empty, so all WAL is kept until its volume is full";
        return Ok(Some(Unfit::Archive { why: why.to_owned() }));
    }
    let lacking = match first_word(&server.archive_command) {
        Some(word) => program_is_missing(disk, word).await?,
        None => None,
    };
    let why = match (lacking, &core.postgresql().commands.archive_check) {
        (Some(why), _) => why,
        (None, Some(check)) => {
            let wal = core.postgresql().wal_dir.clone();
            let told = Told::new(core, &core.layout.data_dir, wal.as_deref());
            match command::execute(core, "archive_check", check, &told).await {
                Ok(()) => return Ok(None),
                // A program that failed in silence has nothing after the colon.
                Err(error) => error.to_string().trim_end_matches([':', ' ']).to_owned(),
            }
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Unfit::Archive { why: shortened(&why) }))
}

/// The program that a shell command begins with, where it plainly begins with one.
fn first_word(command: &str) -> Option<&str> {
    let word = command.split_whitespace().next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+[".contains(c);
    word.chars().all(is_plain).then_some(word)
}

/// Why the shell that the server starts would not find it, with the rights of the database's user.
async fn program_is_missing(disk: &Disk, word: &str) -> Result<Option<String>> {
    if word.contains('/') {
        let path = PathBuf::from(word);
        let look = move |core: &Core| core.layout.inside.within(|| amiss(&path)).ok().flatten();
        let why = disk.on("the volume of archive_command", look).await?;
        return Ok(why.map(|why| format!("archive_command: {word}: {why}")));
    }
    let look: [&OsStr; 4] = ["-c".as_ref(), "command -v -- \"$1\"".as_ref(), "sh".as_ref(), word.as_ref()];
    let run = Run {
        user: &disk.core.user,
        program: "/bin/sh".into(),
        arguments: look.to_vec(),
        environment: Vec::new(),
        input: String::new(),
        deadline: ANSWER,
    };
    match run.finish().await {
        Ok(_) => Ok(None),
        Err(EngineError::Program { .. }) => Ok(Some(format!("archive_command: there is no program {word}"))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_volume_is_full_later_than_a_large_one() {
        assert_eq!((least(1 << 40), least(10 << 30), least(100 << 20)), (64 << 20, 64 << 20, 5 << 20));
    }

    #[test]
    fn the_kernels_figures_are_read() {
        let text = "MemTotal:       16303428 kB\nHugePages_Total:     512\nHugePages_Free:      511\nHugepagesize:       2048 kB\n";
        assert_eq!((figure(text, "MemTotal"), figure(text, "HugePages_Total")), (Some(16_303_428), Some(512)));
        assert_eq!((figure(text, "Hugepagesize"), figure(text, "HugePages")), (Some(2048), None));
    }

    #[test]
    fn the_smallest_limit_above_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        for (place, text) in [("memory.max", "4096\n"), ("a/memory.max", "1024\n"), ("a/b/memory.max", "max\n")] {
            std::fs::write(folder.path().join(place), text).expect("written");
        }
        assert_eq!(memory_limit(&below), Some(1024));
        assert_eq!(memory_limit(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn the_program_of_a_command_is_its_first_plain_word() {
        assert_eq!(first_word("/usr/bin/pgbackrest --stanza=main archive-push %p"), Some("/usr/bin/pgbackrest"));
        assert_eq!((first_word("test ! -f /x && cp %p /x"), first_word("[ -e x ]")), (Some("test"), Some("[")));
        for not_known in ["", "  ", "A=1 cp", "$HOME/bin/x", "\"/opt/a b/x\" %p", "(cp %p /x)"] {
            assert_eq!(first_word(not_known), None, "{not_known}");
        }
    }
}
