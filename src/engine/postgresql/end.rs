//! Where the WAL of a database ends that writes none, read from its own directory: up to the end of the last record that is
//! whole.
//! Everything that it acknowledged lies before that.
//!
//! Not here: what is done with that position (`plan/keeper/crash.rs`, `rejoin.rs`).
//!
//! Source: pg_waldump(1).

use super::control::{Control, record_end, segment_name};
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::program::{OsUser, Run};
use crate::types::{Lsn, Position, Quoted};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A service without a primary waits for this: better a restart in place than a long search.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A directory that is to rejoin has time: what is not known of it costs a rewind that was not needed.
const IN_GOOD_TIME: Duration = Duration::from_secs(600);
/// The reading begins in the segment that lies so far before the known position. That position may lie within a record,
/// and a reader that begins there would skip it; before it there may be nothing but the empty rest of a segment.
const BEFORE: u64 = 1 << 20;

/// The end of the WAL of a primary that died, at or after `from`, which it had flushed. Errors: what is there cannot be told
/// for certain.
pub async fn after_a_crash(layout: &Layout, user: &OsUser, from: Position) -> Result<Position> {
    let control = Control::read(layout, user).await?;
    let start = from.lsn.0.saturating_sub(BEFORE);
    let start = Lsn((start - start % control.segment_size).max(control.redo.0));
    whole_from(layout, user, &control, start, from, AT_ONCE).await
}

/// The same of a directory that is to rejoin, from the latest checkpoint on. pg_waldump follows no history, so on a later
/// timeline than the checkpoint's it begins where recovery is known to have come.
pub async fn at_rest(layout: &Layout, user: &OsUser, control: &Control) -> Result<Position> {
    let known = control.known_end();
    let start = if known.timeline > control.timeline { known.lsn } else { control.redo };
    whole_from(layout, user, control, start, known, IN_GOOD_TIME).await
}

/// The end of what a standby has received up to there on that timeline, and need not have replayed. Its WAL receiver is gone.
pub async fn of_received(layout: &Layout, user: &OsUser, replayed: Position, received: Lsn) -> Result<Position> {
    let control = Control::read(layout, user).await?;
    // What lies before the last of it was whole when it came.
    let start = received.0.saturating_sub(BEFORE).max(replayed.lsn.0);
    let start = Lsn(start - start % control.segment_size);
    whole_from(layout, user, &control, start, replayed, AT_ONCE).await
}

/// The end of the last whole record on the timeline of `known`, read from `start` on; not before `known`.
async fn whole_from(
    layout: &Layout,
    user: &OsUser,
    control: &Control,
    start: Lsn,
    known: Position,
    deadline: Duration,
) -> Result<Position> {
    let (directory, timeline) = (layout.data_dir.join("pg_wal"), known.timeline.to_string());
    // The segments are named, too: else it takes their size from any file, also from one that is still empty.
    let first = segment_name(known.timeline, start, control.segment_size);
    let last = last_segment(layout, &first).unwrap_or_else(|| first.clone());
    let start = start.to_string();
    let run = Run {
        user,
        program: layout.program("pg_waldump"),
        arguments: vec![
            "-q".as_ref(),
            "-p".as_ref(),
            directory.as_os_str(),
            "-t".as_ref(),
            timeline.as_ref(),
            "-s".as_ref(),
            start.as_ref(),
            first.as_os_str(),
            last.as_os_str(),
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline,
    };
    // It always ends with an error, which names the last record that it could read.
    let said = match run.finish().await {
        Err(EngineError::Program { output, .. }) | Ok(output) => output,
        Err(error) => return Err(error),
    };
    let malformed = |detail: String| EngineError::Malformed { path: directory.clone(), detail };
    let last = last_record(&said).ok_or_else(|| malformed(format!("pg_waldump says {}", Quoted(&said))))?;
    let path = directory.join(segment_name(known.timeline, last, control.segment_size));
    let file = layout.inside.open(&path)?;
    let mut length = [0; 4];
    file.read_exact_at(&mut length, last.0 % control.segment_size).map_err(EngineError::file("read", &path))?;
    let end = record_end(last, u32::from_ne_bytes(length), control.segment_size, control.block_size);
    Ok(Position { timeline: known.timeline, lsn: end.max(known.lsn) })
}

/// The last segment of that timeline that is there, whatever it holds.
fn last_segment(layout: &Layout, first: &Path) -> Option<PathBuf> {
    let timeline = first.to_str()?.get(..8)?;
    let is_segment = |name: &String| {
        name.len() == 24 && name.starts_with(timeline) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let names = layout.inside.names(&layout.wal()).ok()?;
    names.into_iter().filter(is_segment).max().map(PathBuf::from)
}

/// The last record that pg_waldump could read: "error in WAL record at 0/3000148: invalid record length at 0/3000180".
fn last_record(said: &str) -> Option<Lsn> {
    let (_, rest) = said.rsplit_once("error in WAL record at ")?;
    rest.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_record_is_named_whatever_follows_it() {
        let said = "first record is after 0/2F00000, at 0/2F00028, skipping over 40 bytes\n\
                    pg_waldump: error: error in WAL record at 0/3000148: invalid record length at 0/3000180: wanted 24";
        assert_eq!(last_record(said), Some(Lsn(0x300_0148)));
        let recycled = "pg_waldump: error: error in WAL record at 0/3001FB0: unexpected pageaddr 0/1000000 in log segment \
                        000000010000000000000003, offset 8192";
        assert_eq!(last_record(recycled), Some(Lsn(0x300_1FB0)));
        assert_eq!(last_record("pg_waldump: error: could not find a valid record after 0/3000000"), None);
        assert_eq!(last_record("pg_waldump: error: could not find file"), None);
    }
}
