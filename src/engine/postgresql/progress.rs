//! Whether a start gets on: what its startup process has read and written, the segment in its title, the place that the
//! server's own progress lines name (15 and later), and the disk's writes while it syncs the directory. A process that
//! merely exists is no progress, and neither is one that asks again and again for WAL that is not there.
//!
//! Sources: proc(5), `io`, `stat` and `syscall`; the kernel's `Documentation/block/stat.rst`; PostgreSQL manual,
//! `log_startup_progress_interval`.

use super::core::Core;
use super::layout::{Layout, STANDBY_SIGNAL};
use super::log;
use crate::clock;
use crate::types::Instant;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at: a number that moves faster helps nobody.
const EVERY: Duration = Duration::from_secs(1);
/// The system calls in which a process waits for the disk to take what was written.
const SYNCS: [libc::c_long; 3] = [libc::SYS_syncfs, libc::SYS_fsync, libc::SYS_fdatasync];

/// What was found of one postmaster's start.
#[derive(Debug, Default)]
pub struct Progress {
    looked: Option<Instant>,
    found: Evidence,
    changes: u64,
}

/// Everything that moves when a start gets on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Evidence {
    title: String,
    /// Bytes read and written, by system calls and on the disk.
    bytes: Vec<u64>,
    /// Sectors that the disk has written, while the process waits for just that.
    synced: Option<u64>,
    /// The place in the last progress line.
    place: String,
}

impl Progress {
    /// A number that changes whenever the start of this postmaster got on.
    pub async fn look(&mut self, core: &Arc<Core>, postmaster: i32) -> u64 {
        let now = clock::now();
        if self.looked.is_some_and(|at| now.since(at) < EVERY) {
            return self.changes;
        }
        self.looked = Some(now);
        let found = core.on_disk(move |core| evidence(&core.layout, postmaster)).await;
        if found != self.found {
            self.found = found;
            self.changes += 1;
        }
        self.changes
    }
}

fn evidence(layout: &Layout, postmaster: i32) -> Evidence {
    let place = last_place(layout).unwrap_or_default();
    let Some((pid, title)) = startup_process(postmaster) else { return Evidence { place, ..Evidence::default() } };
    // A standby that waits for its upstream reads the end of its WAL again and again.
    let waits = layout.has_within(STANDBY_SIGNAL) && segment(&title).is_some();
    let bytes = if waits { Vec::new() } else { bytes(pid) };
    let synced = if is_syncing(pid) { sectors_written(layout) } else { None };
    Evidence { title, bytes, synced, place }
}

/// The child of the postmaster that recovers, and its title.
fn startup_process(postmaster: i32) -> Option<(i32, String)> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).ok()?;
    let titled = |pid: i32| Some((pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?));
    let all = children.split_whitespace().filter_map(|pid| titled(pid.parse().ok()?));
    let mut trimmed = all.map(|(pid, title)| (pid, title.trim_end_matches([char::from(0), ' ']).to_owned()));
    trimmed.find(|(_, title)| recovers(title))
}

/// "postgres: startup recovering 0000…", or with the cluster's name before it. The title of a session that is just connecting
/// ends in that word: "postgres: postgres postgres [local] startup".
fn recovers(title: &str) -> bool {
    let own = title.strip_prefix("postgres: ").map(|rest| rest.rsplit_once(": ").map_or(rest, |(_, own)| own));
    own.is_some_and(|own| own.split(' ').next() == Some("startup"))
}

/// The WAL segment that a title names.
fn segment(title: &str) -> Option<&str> {
    title.split_whitespace().next_back().filter(|word| word.len() == 24 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn bytes(pid: i32) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let counted = ["rchar", "wchar", "read_bytes", "write_bytes"];
    let value = |line: &str| line.split_once(": ").filter(|(name, _)| counted.contains(name))?.1.parse().ok();
    text.lines().filter_map(value).collect()
}

/// Whether it waits until the disk has taken what was written.
fn is_syncing(pid: i32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    waits_for_the_disk(&read("syscall"), &read("stat"))
}

/// One that was stopped on its way out of such a call still names it, and waits for nothing: what the disk writes is others'.
fn waits_for_the_disk(syscall: &str, stat: &str) -> bool {
    let call = syscall.split(' ').next().and_then(|call| call.parse().ok());
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    call.is_some_and(|call| SYNCS.contains(&call)) && !matches!(state, None | Some('T' | 't'))
}

/// How many sectors the disk under the data directory has written since the boot.
fn sectors_written(layout: &Layout) -> Option<u64> {
    let device = fs::metadata(&layout.data_dir).ok()?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", libc::major(device), libc::minor(device));
    fs::read_to_string(path).ok()?.split_whitespace().nth(6)?.parse().ok()
}

/// The place in the last progress line of the server's log.
fn last_place(layout: &Layout) -> Option<String> {
    place_in(&log::since(layout, 0)).map(str::to_owned)
}

/// "redo in progress, elapsed time: 10.00 s, current LSN: 0/5000060"; "syncing data directory (fsync), elapsed time: …,
/// current path: ./base/5". The time alone is none.
fn place_in(log: &str) -> Option<&str> {
    let lines = log.lines().rev().filter(|line| line.contains(", elapsed time: "));
    lines.into_iter().find_map(|line| line.split_once(", current ")).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_progress_and_a_time_is_none() {
        let log = "LOG:  redo in progress, elapsed time: 10.00 s, current LSN: 0/5000060\n\
                   FATAL:  the database system is starting up\n\
                   LOG:  resetting unlogged relations (init), elapsed time: 20.00 s\n";
        assert_eq!(place_in(log), Some("LSN: 0/5000060"));
        assert_eq!(place_in("FATAL:  the database system is starting up\n"), None);
    }

    #[test]
    fn one_that_was_stopped_while_it_synced_waits_for_no_disk() {
        let (syncfs, fsync) = (format!("{} 0x5 0x0", libc::SYS_syncfs), format!("{} 0x5 0x0", libc::SYS_fsync));
        let stat = |state| format!("4711 (postgres) {state} 4700 4711 4711 0 -1");
        assert!(waits_for_the_disk(&syncfs, &stat('D')) && waits_for_the_disk(&fsync, &stat('R')));
        assert!(!waits_for_the_disk(&syncfs, &stat('T')), "another process's writes are no progress of this one");
        assert!(!waits_for_the_disk("running", &stat('R')) && !waits_for_the_disk("0 0x5 0x0", &stat('D')));
        assert!(!waits_for_the_disk(&syncfs, ""), "it is gone");
    }

    #[test]
    fn a_session_that_is_just_connecting_is_no_startup_process() {
        assert!(recovers("postgres: startup recovering 000000010000000000000003"));
        assert!(recovers("postgres: 15/main: startup") && recovers("postgres: startup"));
        assert!(!recovers("postgres: postgres postgres [local] startup"));
        assert!(!recovers("postgres: 15/main: postgres postgres 10.0.0.1(5000) startup"));
        assert!(!recovers("/usr/lib/postgresql/15/bin/postgres -D startup"));
    }

    #[test]
    fn a_title_names_a_segment_or_none() {
        let title = "postgres: 15/main: startup recovering 000000010000000000000003";
        assert_eq!(segment(title), Some("000000010000000000000003"));
        assert_eq!(segment("postgres: 15/main: startup"), None);
    }
}
