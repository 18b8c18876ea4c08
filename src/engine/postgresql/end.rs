//! Where the WAL of a dead primary ends, read from its own directory: up to the end of the last record that is whole.
//! Everything that it acknowledged lies before that.
//!
//! Not here: what is done with that position (`plan/keeper/crash.rs`), and the end of a directory that is to rejoin, for
//! which a lower bound will do (`control.rs`).

use super::control::{Control, record_end, segment_name};
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::program::{OsUser, Run};
use crate::types::{Lsn, Position, Quoted};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A service without a primary waits for this: better a restart in place than a long search.
const DEADLINE: Duration = Duration::from_secs(1);
/// The reading begins in the segment that lies so far before the known position. That position may lie within a record,
/// and a reader that begins there would skip it; before it there may be nothing but the empty rest of a segment.
const BEFORE: u64 = 1 << 20;

/// The end of the WAL on disk, at or after `from`, which it had flushed. Errors: what is there cannot be told for certain.
pub async fn end_of_wal(layout: &Layout, user: &OsUser, from: Position) -> Result<Position> {
    let control = Control::read(layout, user).await?;
    let start = from.lsn.0.saturating_sub(BEFORE);
    let start = Lsn((start - start % control.segment_size).max(control.redo.0));
    let (directory, timeline) = (layout.data_dir.join("pg_wal"), from.timeline.to_string());
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
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: DEADLINE,
    };
    // It always ends with an error, which names the last record that it could read.
    let said = match run.finish().await {
        Err(EngineError::Program { output, .. }) | Ok(output) => output,
        Err(error) => return Err(error),
    };
    let malformed = |detail: String| EngineError::Malformed { path: directory.clone(), detail };
    let last = last_record(&said).ok_or_else(|| malformed(format!("pg_waldump says {}", Quoted(&said))))?;
    let path = directory.join(segment_name(from.timeline, last, control.segment_size));
    let file = File::open(&path).map_err(EngineError::file("open", &path))?;
    let mut length = [0; 4];
    file.read_exact_at(&mut length, last.0 % control.segment_size).map_err(EngineError::file("read", &path))?;
    let end = record_end(last, u32::from_ne_bytes(length), control.segment_size, control.block_size);
    Ok(Position { timeline: from.timeline, lsn: end.max(from.lsn) })
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
    }
}
