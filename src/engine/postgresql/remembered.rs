//! What this node remembers of its own database: the furthest end that it was seen to have. The note lies in the daemon's
//! own directory, where neither the database's user nor whoever replaces the data directory takes it along.
//!
//! It only grows, until regent itself makes another directory of this one (`initdb.rs`, `clone.rs`, a rewind): then it is
//! removed before the first touch, and nothing is remembered until the new database has been seen.
//!
//! Not here: what is compared with it (`older.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::looks::Seen;
use crate::clock;
use crate::rights::{self, Rights};
use crate::types::{DbState, Instant, Lsn, Position, SystemId, Timeline};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A database that moves is written down no more often.
const PAUSE: Duration = Duration::from_secs(10);
/// A stop waits no longer for the note: the database is down by then.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// No note is longer.
const LIMIT: u64 = 1 << 12;

/// What the note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub system: SystemId,
    pub end: Position,
}

impl Remembered {
    fn text(&self) -> String {
        format!("system {}\ntimeline {}\nlsn {}\n", self.system, self.end.timeline, self.end.lsn)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let end = Position { timeline: Timeline(field("timeline")?.parse().ok()?), lsn: field("lsn")?.parse().ok()? };
        Some(Remembered { system: SystemId(field("system")?.parse().ok()?), end })
    }

    /// Whether this says more of the same database than `before`.
    fn is_news(&self, before: Option<Remembered>) -> bool {
        before.is_none_or(|before| before.system == self.system && before.end < self.end)
    }

    /// What a look saw; `None` where no server said where it is.
    fn seen(seen: &Seen) -> Option<Self> {
        let observation = &seen.observation;
        let runs = matches!(observation.state, DbState::Primary | DbState::Standby);
        let end = Some(observation.position).filter(|at| runs && at.timeline > Timeline(0) && at.lsn > Lsn(0))?;
        Some(Remembered { system: observation.system?, end })
    }
}

/// Where the note lies.
pub fn file(layout: &Layout) -> PathBuf {
    layout.keep.join("furthest")
}

/// What is remembered; `None` where nothing is. Read anew each time: an operator may have removed it.
pub fn recall(layout: &Layout) -> Result<Option<Remembered>> {
    let path = file(layout);
    let bytes = match rights::read_own(&path, LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EngineError::File { doing: "read", path, source }),
    };
    let said = std::str::from_utf8(&bytes).ok().and_then(Remembered::parse);
    let detail = "it names no position; remove it if the database is the one that belongs here".to_owned();
    said.map(Some).ok_or(EngineError::Malformed { path, detail })
}

/// Writes down what was seen by the look of that number, if it is further than what is remembered.
fn raise(core: &Core, looks: u64, what: Remembered) -> Result<()> {
    let counts_from = core.remembers_from.lock().unwrap_or_else(PoisonError::into_inner);
    if looks < *counts_from || !what.is_news(recall(&core.layout)?) {
        return Ok(());
    }
    Ok(Rights::own().replace(&file(&core.layout), 0o600, &what.text())?)
}

/// Forgets everything: the directory becomes another one. What a look saw that began before this counts no more.
pub fn forget(core: &Core) -> Result<()> {
    let mut counts_from = core.remembers_from.lock().unwrap_or_else(PoisonError::into_inner);
    // One look may be under way already.
    *counts_from = core.seen.borrow().looks + 2;
    Ok(Rights::own().remove(&file(&core.layout))?)
}

/// Forgets what was another cluster's: the primary of this one has the same database as this directory.
pub fn forget_others(core: &Core, system: SystemId) -> Result<()> {
    match recall(&core.layout)? {
        Some(had) if had.system != system => forget(core),
        _ => Ok(()),
    }
}

/// Writes down what an action saw, as of `looks`; a failure is logged.
pub async fn note(core: &Arc<Core>, looks: u64, system: SystemId, end: Position) {
    let what = Remembered { system, end };
    if let Err(error) = core.on_disk(move |core| raise(core, looks, what)).await {
        let service = &core.service;
        tracing::warn!(%service, %error, "what the database has is not remembered: an older copy of it would be opened");
    }
}

/// The same at the end of a stop.
pub async fn note_stopped(core: &Arc<Core>, system: SystemId, end: Position) {
    let looks = core.seen.borrow().looks;
    // What hangs goes on by itself.
    let _ = tokio::time::timeout(STOP_PATIENCE, note(core, looks, system, end)).await;
}

/// Remembers what is seen: a new timeline and the last look at a server that ended at once, else every [`PAUSE`].
pub async fn run(core: Arc<Core>) {
    let mut looks = core.seen.subscribe();
    let mut pace = Pace::default();
    while looks.changed().await.is_ok() {
        let (number, seen) = {
            let seen = looks.borrow_and_update();
            (seen.looks, Remembered::seen(&seen))
        };
        if let Some((number, due)) = pace.due(number, seen, clock::now()) {
            note(&core, number, due.system, due.end).await;
        }
    }
}

/// When what was seen is written down.
#[derive(Default)]
struct Pace {
    /// What was seen last and is not written yet, and by which look.
    waits: Option<(u64, Remembered)>,
    written: Option<(Instant, Remembered)>,
}

impl Pace {
    fn due(&mut self, look: u64, seen: Option<Remembered>, now: Instant) -> Option<(u64, Remembered)> {
        let runs = seen.is_some();
        let written = self.written.map(|(_, what)| what);
        self.waits =
            seen.filter(|what| Some(*what) != written).map(|what| (look, what)).or(self.waits.take_if(|_| !runs));
        let (_, what) = self.waits?;
        let rests = |(at, last): (Instant, Remembered)| {
            runs && now < at + PAUSE && last.system == what.system && last.end.timeline == what.end.timeline
        };
        if self.written.is_some_and(rests) {
            return None;
        }
        self.written = Some((now, what));
        self.waits.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(system: u64, timeline: u32, lsn: u64) -> Remembered {
        Remembered { system: SystemId(system), end: Position { timeline: Timeline(timeline), lsn: Lsn(lsn) } }
    }

    #[test]
    fn the_note_is_read_as_it_was_written() {
        let noted = at(7_412_345_678_901_234_567, 3, 0x12_0500_0148);
        assert_eq!(noted.text(), "system 7412345678901234567\ntimeline 3\nlsn 12/5000148\n");
        assert_eq!(Remembered::parse(&noted.text()), Some(noted));
        for damaged in ["", "system 7\ntimeline 3\n", "system 7\ntimeline x\nlsn 1/0\n", "timeline 3\nlsn 1/0\n"] {
            assert_eq!(Remembered::parse(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn the_note_only_grows_and_is_never_another_cluster_s() {
        let had = Some(at(1, 2, 100));
        assert!(at(1, 1, 5).is_news(None));
        assert!(at(1, 2, 101).is_news(had) && at(1, 3, 5).is_news(had));
        assert!(!at(1, 2, 100).is_news(had) && !at(1, 2, 99).is_news(had) && !at(1, 1, 500).is_news(had));
        assert!(!at(2, 9, 900).is_news(had));
    }

    #[test]
    fn what_moves_is_written_with_pauses_and_what_ended_at_once() {
        let mut pace = Pace::default();
        let after = |seconds| Instant(0) + Duration::from_secs(seconds);
        assert_eq!(pace.due(1, Some(at(1, 1, 10)), after(0)), Some((1, at(1, 1, 10))));
        assert_eq!(pace.due(2, Some(at(1, 1, 20)), after(1)), None);
        assert_eq!(pace.due(3, Some(at(1, 1, 30)), after(10)), Some((3, at(1, 1, 30))), "the pause is over");
        assert_eq!(pace.due(4, Some(at(1, 1, 30)), after(30)), None, "it did not move");
        assert_eq!(pace.due(5, Some(at(1, 1, 40)), after(31)), Some((5, at(1, 1, 40))));
        assert_eq!(pace.due(6, Some(at(1, 2, 40)), after(32)), Some((6, at(1, 2, 40))), "a new timeline");
        assert_eq!(pace.due(7, Some(at(1, 2, 50)), after(33)), None);
        assert_eq!(pace.due(8, None, after(34)), Some((7, at(1, 2, 50))), "it ended");
        assert_eq!(pace.due(9, None, after(60)), None, "once");
    }
}
