//! Keeps what only this node has: the WAL after the fork, in a dated folder beside the data directory, before a
//! rewind overwrites it. What an asynchronous failover lost is never silent.

use super::control::{Control, segment_name};
use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::timeline::history_of;
use crate::clock;
use crate::types::{Lsn, Position};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let folder = core.layout.beside("", &format!(".diverged-{}-{}", stamp(), end.timeline));
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
    let mut at = Lsn(fork.0 - fork.0 % segment_size);
    while at < end.lsn {
        // A segment from before the local timeline began has the parent's number; what is not there was archived.
        let names = timelines.iter().map(|timeline| segment_name(*timeline, at, segment_size));
        if let Some(name) = names.into_iter().find(|name| inside.exists(&wal.join(name))) {
            inside.copy(&wal.join(&name), &folder.join(&name))?;
        }
        at = Lsn(at.0 + segment_size);
    }
    let note = format!(
        "WAL of timeline {} from {fork} to {} that no other node had when this node rejoined.\n\
         Read it with: pg_waldump -p {} -t {} -s {fork}\n\
         (a segment that begins with another number is read with that one after -t)\n",
        end.timeline,
        end.lsn,
        folder.display(),
        end.timeline,
    );
    inside.replace(&folder.join("README"), 0o600, &note)?;
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
    let all = [".diverged-", ".replaced-"].into_iter().flat_map(|suffix| folders(layout, suffix));
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
    fn a_quota_that_is_used_up_is_no_room_like_a_full_volume() {
        let kind = |number| std::io::Error::from_raw_os_error(number).kind();
        assert!(is_no_room(kind(libc::ENOSPC)) && is_no_room(kind(libc::EDQUOT)));
        assert!(!is_no_room(kind(libc::EIO)) && !is_no_room(kind(libc::EACCES)));
    }
}
