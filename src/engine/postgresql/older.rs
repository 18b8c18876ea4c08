//! Before a database is started, its directory is compared with what this node remembers that it had, and with what is known
//! of it in the cluster where the whole host was set back. An older copy is
//! not opened as the primary: what was acknowledged after it would be lost, and standbys that are ahead of it would take
//! WAL that does not continue theirs. A directory of another cluster is not started at all.
//!
//! A standby may be an older copy: it gets the rest from the primary. Where the directory cannot be looked at, that is an
//! error like any other, and no refusal.
//!
//! Not here: what is remembered, and since when (`remembered.rs`).

use super::control::{Control, ControlState, segment_name};
use super::core::Core;
use super::error::{EngineError, Result};
use super::label;
use super::layout::Layout;
use super::reach::{Cut, Wal};
use super::remembered::{self, Remembered};
use super::timeline::history_of;
use crate::types::{History, Lsn, Position, Timeline};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Refuses a directory that lacks what this node had, or is known to have had, that is another cluster's, or that would be
/// recovered as a copy although this node's database has run there.
pub async fn refuse_as_primary(core: &Arc<Core>, control: &Control, known: Option<Position>) -> Result<()> {
    let control = control.clone();
    core.on_disk(move |core| {
        let remembered = remembered::recall(&core.layout)?;
        remembered.map_or(Ok(()), |had| refuse_other(core, &control, had))?;
        let Some(had) = remembered.map(|had| had.end).max(known) else { return Ok(()) };
        // One that was shut down is opened where its last checkpoint is, whatever WAL lies beside it.
        let ended = control.state == ControlState::ShutDown;
        let holds = if ended { control.final_end(&core.layout)? } else { control.known_end() };
        let history = history_of(&core.layout.inside, &core.layout.data_dir, had.timeline);
        let has = |at: Position| if ended { Ok(false) } else { has_wal(&core.layout, &control, at) };
        if is_complete(holds, had, &history, has)? {
            return remembered.map_or(Ok(()), |_| label::refuse_left(&core.layout));
        }
        Err(EngineError::OlderCopy { data_dir: core.layout.data_dir.clone(), holds, had })
    })
    .await
}

/// Refuses a directory that is another cluster's.
pub async fn refuse_as_standby(core: &Arc<Core>) -> Result<()> {
    let Some(had) = core.on_disk(|core| remembered::recall(&core.layout)).await? else { return Ok(()) };
    let control = Control::read(&core.layout, &core.user).await?;
    refuse_other(core, &control, had)
}

fn refuse_other(core: &Core, control: &Control, had: Remembered) -> Result<()> {
    if control.system == had.system {
        return Ok(());
    }
    let data_dir = core.layout.data_dir.clone();
    Err(EngineError::OtherCluster { data_dir, holds: control.system, had: had.system })
}

/// Whether a directory that is known to end at `holds`, or later, has everything up to `had`. `history`: the one that it
/// knows of the timeline of `had`. `has` says whether its WAL reaches a position.
fn is_complete(
    holds: Position,
    had: Position,
    history: &History,
    mut has: impl FnMut(Position) -> Result<bool>,
) -> Result<bool> {
    // A standby may have named a timeline whose first record it was still to get: the position is an earlier one's.
    let owner = history.0.iter().find(|left| left.lsn >= had.lsn).map_or(had.timeline, |left| left.timeline);
    let same = Position { timeline: owner, lsn: had.lsn };
    let known = holds >= had || (holds.timeline == owner && holds.lsn >= had.lsn);
    Ok(known || has(had)? || (same != had && has(same)?))
}

/// Whether the WAL of that timeline in the directory reaches the position.
pub fn has_wal(layout: &Layout, control: &Control, at: Position) -> Result<bool> {
    let (cut, mut open) = (Cut { segment: control.segment_size, block: control.block_size }, None);
    let read = |lsn: Lsn, into: &mut [u8]| read_at(layout, (at.timeline, cut.segment), &mut open, lsn, into);
    Wal { cut, read }.reaches(at.lsn)
}

/// Reads from the segment that holds `lsn`, which stays open; whether so much is there.
fn read_at(
    layout: &Layout,
    (timeline, size): (Timeline, u64),
    open: &mut Option<(PathBuf, File)>,
    lsn: Lsn,
    into: &mut [u8],
) -> Result<bool> {
    let path = layout.wal().join(segment_name(timeline, lsn, size));
    if open.as_ref().is_none_or(|(opened, _)| *opened != path) {
        *open = match layout.inside.open(&path) {
            Ok(file) => Some((path.clone(), file)),
            Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
    }
    let Some((_, file)) = open else { return Ok(false) };
    match file.read_exact_at(into, lsn.0 % size) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(EngineError::file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    /// With WAL on these timelines, each up to its position.
    fn complete(holds: Position, had: Position, history: &[Position], wal: &[Position]) -> bool {
        let has = |asked: Position| Ok(wal.iter().any(|to| to.timeline == asked.timeline && to.lsn >= asked.lsn));
        is_complete(holds, had, &History(history.to_vec()), has).expect("nothing is read")
    }

    #[test]
    fn what_ends_before_the_remembered_end_is_older() {
        assert!(complete(at(1, 100), at(1, 100), &[], &[]) && complete(at(1, 120), at(1, 100), &[], &[]));
        assert!(!complete(at(1, 99), at(1, 100), &[], &[]));
        assert!(complete(at(1, 50), at(1, 100), &[], &[at(1, 100)]), "its own WAL has the rest");
        assert!(!complete(at(1, 50), at(1, 100), &[], &[at(1, 99)]));
    }

    #[test]
    fn an_earlier_timeline_is_older_however_far_it_came() {
        assert!(!complete(at(1, 900), at(2, 100), &[], &[at(1, 900)]));
        assert!(!complete(at(1, 900), at(2, 100), &[at(1, 80)], &[at(1, 900)]), "it left that one before");
        assert!(complete(at(1, 80), at(2, 100), &[at(1, 80)], &[at(2, 100)]));
        assert!(complete(at(3, 90), at(2, 100), &[at(1, 80)], &[]), "a later one is later");
    }

    #[test]
    fn a_timeline_of_which_nothing_had_arrived_begins_where_the_one_before_was_left() {
        assert!(complete(at(1, 80), at(2, 80), &[at(1, 80)], &[]));
        assert!(complete(at(1, 50), at(2, 80), &[at(1, 80)], &[at(1, 80)]));
        assert!(!complete(at(1, 50), at(2, 80), &[at(1, 80)], &[at(1, 70)]));
    }
}
