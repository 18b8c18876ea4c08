//! How far the rewind or copy is that runs here, by the lines that `pg_basebackup --progress` writes; whether one got so far
//! that it cost the upstream something; and how large the database was whose copy this host refused, so that what a person
//! is to cure can be looked at again and again without another question.
//!
//! Not here: the copy (`clone.rs`), and when the next one is tried (`plan/keeper/rejoins.rs`).
//!
//! Source: PostgreSQL manual, pg_basebackup, `--progress`; its `progress_report` for the form of the lines.

use super::places::Extent;
use crate::types::{CopyProgress, CopyStage, Instant, Upstream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For how long the size of an upstream's database counts: it grows, and shrinks.
const SIZE_COUNTS: Duration = Duration::from_secs(300);

/// The rewind or copy of one service's database.
#[derive(Debug, Default)]
pub struct Copying {
    at_present: Mutex<Present>,
    refused: Mutex<Option<Refused>>,
}

/// What was found too large, or to have parts that have no place here.
#[derive(Debug)]
struct Refused {
    upstream: Upstream,
    extent: Extent,
    asked: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Present {
    progress: Option<CopyProgress>,
    /// When the first byte arrived.
    since: Option<Instant>,
    /// The upstream was asked for more than answers, since the action began.
    costs: bool,
}

/// Ends what is said of it, however it ends.
pub struct Shown<'a>(&'a Copying);

impl Copying {
    /// An action begins that may come to copy something. What is shown of it goes with what is returned.
    pub fn begins(&self) -> Shown<'_> {
        self.change(|present| *present = Present::default());
        Shown(self)
    }

    /// This is what is done now.
    pub fn is_at(&self, stage: CopyStage) {
        self.change(|present| {
            present.progress = Some(CopyProgress::begins(stage));
            (present.since, present.costs) = (None, true);
        });
    }

    /// A line that pg_basebackup wrote; whether it tells how far it is, and nothing else.
    pub fn says(&self, line: &str, now: Instant) -> bool {
        if line.trim() == WAITING {
            return true;
        }
        let Some((done, total)) = numbers(line) else { return false };
        self.has(done, total, now);
        true
    }

    /// So much of it is there, however it comes.
    pub fn has(&self, done: u64, total: u64, now: Instant) {
        self.change(|present| {
            let since = *present.since.get_or_insert(now);
            present.progress = Some(CopyProgress::copied(done, total, now.since(since)));
        });
    }

    /// How far it is, while one runs.
    pub fn progress(&self) -> Option<CopyProgress> {
        locked(&self.at_present).progress
    }

    /// Whether the last one has cost the upstream something.
    pub fn has_cost(&self) -> bool {
        locked(&self.at_present).costs
    }

    /// A copy of such a database has no place on this host.
    pub fn is_refused(&self, upstream: &Upstream, extent: &Extent, now: Instant) {
        let mut refused = locked(&self.refused);
        // What is refused again by what is known already makes that no newer.
        if refused.as_ref().is_none_or(|refused| refused.counts(upstream, now).is_none()) {
            *refused = Some(Refused { upstream: upstream.clone(), extent: extent.clone(), asked: now });
        }
    }

    /// How large that upstream's database is, if a copy of it was refused for that a while ago.
    pub fn refused(&self, upstream: &Upstream, now: Instant) -> Option<Extent> {
        locked(&self.refused).as_ref()?.counts(upstream, now).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Present)) {
        change(&mut locked(&self.at_present));
    }
}

impl Refused {
    fn counts(&self, upstream: &Upstream, now: Instant) -> Option<&Extent> {
        let counts = self.upstream == *upstream && now.since(self.asked) < SIZE_COUNTS;
        counts.then_some(&self.extent)
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.change(|present| present.progress = None);
    }
}

/// What it says before the first byte.
const WAITING: &str = "waiting for checkpoint";

/// The bytes that arrived and those that will, of "  1234/56789 kB (2%), 0/1 tablespace".
fn numbers(line: &str) -> Option<(u64, u64)> {
    let (done, rest) = line.trim_start().split_once('/')?;
    let (total, rest) = rest.split_once(" kB (")?;
    let bytes = |number: &str| number.parse::<u64>().ok()?.checked_mul(1024);
    rest.contains("tablespace").then_some((bytes(done)?, bytes(total)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);
    const KIB: u64 = 1024;

    #[test]
    fn the_lines_of_pg_basebackup_say_how_far_it_is() {
        let copying = Copying::default();
        {
            let _shown = copying.begins();
            assert!(copying.progress().is_none() && !copying.has_cost(), "it may yet be refused");
            copying.is_at(CopyStage::Copying);
            assert!(copying.says("waiting for checkpoint\n", START));
            assert!(copying.says("    0/40000 kB (0%), 0/1 tablespace\n", START));
            let later = START + Duration::from_secs(10);
            assert!(copying.says("10000/40000 kB (25%), 0/2 tablespaces\n", later));
            let expected = CopyProgress::copied(10_000 * KIB, 40_000 * KIB, Duration::from_secs(10));
            assert_eq!((copying.progress(), expected.left), (Some(expected), Some(30)));
        }
        assert!(copying.progress().is_none() && copying.has_cost());
        drop(copying.begins());
        assert!(!copying.has_cost(), "that was the last one");
    }

    #[test]
    fn the_size_of_what_was_refused_counts_for_a_while_and_for_its_upstream() {
        let upstream = |port| Upstream { node: "db1".parse().expect("valid"), addresses: Vec::new(), port };
        let extent = |size| Extent { size: Some(size), ..Extent::default() };
        let copying = Copying::default();
        assert_eq!(copying.refused(&upstream(1), START), None);
        copying.is_refused(&upstream(1), &extent(5), START);
        let later = START + SIZE_COUNTS - Duration::from_secs(1);
        copying.is_refused(&upstream(1), &extent(5), later);
        assert_eq!(copying.refused(&upstream(1), later), Some(extent(5)));
        assert_eq!(copying.refused(&upstream(2), later), None);
        assert_eq!(copying.refused(&upstream(1), START + SIZE_COUNTS), None, "it is asked for again");
        copying.is_refused(&upstream(1), &extent(6), START + SIZE_COUNTS);
        assert_eq!(copying.refused(&upstream(1), START + SIZE_COUNTS), Some(extent(6)));
    }

    #[test]
    fn what_is_no_progress_is_left_for_the_report() {
        let copying = Copying::default();
        let errors = [
            "pg_basebackup: error: could not write to file \"a/b\": No space left on device",
            "pg_basebackup: removing contents of data directory \"/var/lib/1/2 kB (x\"",
            "1/2 kB",
            "18446744073709551615/1 kB (0%), 0/1 tablespace",
            "",
        ];
        assert!(errors.into_iter().all(|line| !copying.says(line, START)));
        assert_eq!(copying.progress(), None);
    }
}
