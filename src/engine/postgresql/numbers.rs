//! The numbers of timelines. PostgreSQL takes the first number, counted on from its own, for which no history file is
//! in pg_wal, so two nodes that promote from the same timeline take the same one; to pg_rewind both are then one
//! timeline, and it keeps old data under new WAL. The ledger gives each number once. Here a promotion is made to take
//! exactly the given one: a placeholder stands where a number before it was given to somebody else.
//!
//! A placeholder is a history file with a comment and no entry: PostgreSQL reads it as a timeline that has nothing in
//! common with any other. A running standby that finds it newest says so in its log and stays where it is; one that
//! starts takes the newest one that it has a file for as its target, and never gets ready if that is none of its own; so
//! before each start in recovery placeholders are removed that no true history file comes after. Those before the
//! timeline of the primary stay: a standby asks its upstream for every file between its own timeline and the upstream's,
//! and one that is missing there is an error.
//!
//! Not here: which number is given to whom (the ledger).

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::timeline::{history_file, is_placeholder};
use crate::types::Timeline;

/// The first words of a placeholder, by which it is known wherever it was streamed or copied to.
pub const MARK: &str = "# regent: this number was given to a timeline that is not part of this history\n";

/// Makes `timeline` the number that the next promotion takes. `least` is a timeline at or before the one that the server
/// recovers towards: from there on it counts. Refuses where the number is taken here already.
pub fn make_next(layout: &Layout, least: Timeline, timeline: Timeline) -> Result<()> {
    let wal = layout.wal();
    let present = numbers(layout)?;
    if let Some(taken) = present.iter().copied().find(|t| *t >= timeline).or((least >= timeline).then_some(least)) {
        let why = format!(
            "timeline {timeline} was given to this promotion, but {} already has timeline {taken}",
            wal.display()
        );
        return Err(EngineError::Refused { action: "promote", why });
    }
    let mut placed = false;
    for number in (least.0 + 1..timeline.0).map(Timeline).filter(|n| !present.contains(n)) {
        // Whole, and never over a file that is there.
        layout.inside.place(&wal.join(history_file(number)), 0o644, MARK)?;
        // Into the archive with it: who restores from there counts up from number to number, and ends at the first gap.
        let ready = wal.join("archive_status").join(format!("{}.ready", history_file(number)));
        layout.inside.place(&ready, 0o600, "")?;
        placed = true;
    }
    if placed {
        layout.inside.sync_directory_of(&wal.join(history_file(timeline)))?;
    }
    Ok(())
}

/// Removes the placeholders that no true history file comes after: the server would take the newest for its target.
pub fn forget_trailing(layout: &Layout) -> Result<()> {
    let wal = layout.wal();
    let mut present = numbers(layout)?;
    present.sort_unstable();
    for number in present.into_iter().rev() {
        let path = wal.join(history_file(number));
        if !is_placeholder(&layout.inside, &path) {
            return Ok(());
        }
        layout.inside.remove(&path)?;
    }
    Ok(())
}

/// The numbers for which a history file is there, in any order.
fn numbers(layout: &Layout) -> Result<Vec<Timeline>> {
    let number = |name: String| {
        let hex = name.strip_suffix(".history").filter(|hex| hex.len() == 8)?;
        u32::from_str_radix(hex, 16).ok().map(Timeline)
    };
    Ok(layout.inside.names(&layout.wal())?.into_iter().filter_map(number).collect())
}
