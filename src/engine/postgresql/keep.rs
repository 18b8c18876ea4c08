//! Keeps what only this node has: the WAL after the fork, in a dated folder beside the data directory, before a
//! rewind overwrites it. What an asynchronous failover lost is never silent.

use super::aside::{DIVERGED, REPLACED};
use super::control::{Control, segment_name};
use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::timeline::history_of;
use crate::clock;
use crate::types::{Lsn, Position, Timeline};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file in such a folder that says what is in it.
pub const NOTE: &str = "README";

/// What that file says: the WAL from the fork to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub fork: Lsn,
    pub end: Position,
}

impl Note {
    fn text(&self, folder: &Path) -> String {
        let Note { fork, end: Position { timeline, lsn } } = self;
        format!(
            "WAL of timeline {timeline} from {fork} to {lsn} that no other node had when this node rejoined.\n\
             `regent lost INCIDENT` lists the transactions in it.\n\
             Read it with: pg_waldump -p {} -t {timeline} -s {fork}\n\
             (a segment that begins with another number is read with that one after -t)\n",
            folder.display(),
        )
    }

    /// The same, read; `None` where the text is another one.
    pub fn parse(text: &str) -> Option<Note> {
        let rest = text.strip_prefix("WAL of timeline ")?;
        let (timeline, rest) = rest.split_once(" from ")?;
        let (fork, rest) = rest.split_once(" to ")?;
        let lsn = rest.split_whitespace().next()?.parse().ok()?;
        let end = Position { timeline: Timeline(timeline.parse().ok()?), lsn };
        Some(Note { fork: fork.parse().ok()?, end })
    }
}

/// Copies every segment from the fork's on, of the local timeline. `None` where nothing lies beyond the fork, or there
/// is no room: a node that cannot keep its losers must still be able to come back, and says so in the log.
pub async fn divergent_wal(core: &Arc<Core>, control: &Control, fork: Lsn, end: Position) -> Result<Option<String>> {
    let segment_size = control.segment_size;
    if end.lsn <= fork {
        return Ok(None);
    }
    let copied = core.on_disk(move |core| copy(core, segment_size, fork, end)).await;
    match copied {
        Ok(folder) => Ok(Some(folder.display().to_string())),
        Err(EngineError::File { source, path, .. }) if is_no_room(source.kind()) => {
            tracing::error!(service = %core.service, path = %path.display(), %fork, %end,
                "no room to keep the divergent WAL: it will be lost");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The volume is full, or the quota of its user is used up.
fn is_no_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn copy(core: &Core, segment_size: u64, fork: Lsn, end: Position) -> Result<PathBuf> {
    let folder = core.layout.beside("", &format!("{DIVERGED}{}-{}", stamp(), end.timeline));
    core.layout.make_for_database(&folder)?;
    let outcome = fill(&core.layout, &folder, segment_size, fork, end);
    if outcome.is_err() {
        let _ = core.layout.around()?.remove_tree(&folder);
    }
    outcome.map(|()| folder)
}

fn fill(layout: &Layout, folder: &Path, segment_size: u64, fork: Lsn, end: Position) -> Result<()> {
    let (wal, inside) = (layout.wal(), &layout.inside);
    // Its own timeline first, then those that led there, the latest first.
    let led = history_of(inside, &layout.data_dir, end.timeline).0.into_iter().rev().map(|left| left.timeline);
    let timelines: Vec<_> = std::iter::once(end.timeline).chain(led).collect();
    let (mut at, mut missing) = (Lsn(fork.0 - fork.0 % segment_size), Vec::new());
    while at < end.lsn {
        // A segment from before the local timeline began has the parent's number.
        let mut names = timelines.iter().map(|timeline| segment_name(*timeline, at, segment_size));
        match names.find(|name| inside.exists(&wal.join(name))) {
            Some(name) => inside.copy(&wal.join(&name), &folder.join(&name))?,
            None => missing.push(segment_name(end.timeline, at, segment_size).display().to_string()),
        }
        at = Lsn(at.0 + segment_size);
    }
    let mut text = Note { fork, end }.text(folder);
    if !missing.is_empty() {
        let missing = missing.join(" ");
        tracing::warn!(folder = %folder.display(), missing, "the server had removed WAL that only this node had; it may be in your archive");
        text.push_str(&format!("Missing, because the server had removed them; look in your archive: {missing}\n"));
    }
    inside.replace(&folder.join(NOTE), 0o600, &text)?;
    Ok(layout.around()?.sync_directory_of(folder)?)
}

/// The folders beside the data directory whose names go on like this.
pub fn folders(layout: &Layout, suffix: &str) -> Vec<PathBuf> {
    let prefix = layout.beside("", suffix);
    let (Some(parent), Some(name)) = (prefix.parent(), prefix.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let names = layout.around().and_then(|around| Ok(around.names(parent)?)).unwrap_or_default();
    names.into_iter().filter(|found| found.starts_with(name)).map(|found| parent.join(found)).collect()
}

/// Everything that a rejoin has kept there.
pub fn kept(layout: &Layout) -> Vec<String> {
    let all = [DIVERGED, REPLACED].into_iter().flat_map(|suffix| folders(layout, suffix));
    all.map(|folder| folder.display().to_string()).collect()
}

/// The time of day for a folder's name.
pub fn stamp() -> String {
    let now = i64::try_from(clock::wall().0).unwrap_or_default();
    jiff::Timestamp::from_millisecond(now).unwrap_or_default().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_in_the_folder_is_read_as_it_was_written() {
        let end = Position { timeline: Timeline(3), lsn: Lsn(0x12_0500_0148) };
        let note = Note { fork: Lsn(0x12_0300_0148), end };
        assert_eq!(Note::parse(&note.text(Path::new("/var/lib/main.diverged"))), Some(note));
        assert_eq!(Note::parse("WAL of another time"), None);
    }

    #[test]
    fn a_quota_that_is_used_up_is_no_room_like_a_full_volume() {
        let kind = |number| std::io::Error::from_raw_os_error(number).kind();
        assert!(is_no_room(kind(libc::ENOSPC)) && is_no_room(kind(libc::EDQUOT)));
        assert!(!is_no_room(kind(libc::EIO)) && !is_no_room(kind(libc::EACCES)));
    }
}
