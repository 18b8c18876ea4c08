//! The control file of a database at rest, read by PostgreSQL's own program, and where a record lies in its write-ahead log.
//!
//! Not here: where that log ends (`end.rs`).
//!
//! Sources: pg_controldata(1), `xlogrecord.h` and `xlog_internal.h` for the length of a record.

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::program::{OsUser, Run};
use crate::types::{Lsn, Position, Quoted, SystemId, Timeline};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// What pg_controldata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub system: SystemId,
    pub state: ControlState,
    pub checkpoint: Lsn,
    pub redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: Timeline,
    /// A database in recovery may not be opened before this; zero on a primary.
    pub min_recovery: Position,
    pub segment_size: u64,
    pub block_size: u64,
    /// The settings which the primary had and which a standby must reach: name, value.
    pub settings: BTreeMap<String, i64>,
}

/// The state that the control file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    /// A primary that was shut down in order.
    ShutDown,
    /// A standby that was shut down in order.
    ShutDownInRecovery,
    /// A standby that runs, or was killed.
    InArchiveRecovery,
    /// A primary that runs, or was killed; or one in crash recovery.
    InProduction,
}

impl Control {
    /// Reads the control file. A few milliseconds: one program.
    pub async fn read(layout: &Layout, user: &OsUser) -> Result<Self> {
        let run = Run {
            user,
            program: layout.program("pg_controldata"),
            arguments: vec!["-D".as_ref(), layout.data_dir.as_os_str()],
            environment: vec![("LC_ALL", "C".as_ref())],
            input: String::new(),
            deadline: Duration::from_secs(10),
        };
        let text = run.finish().await?;
        Self::parse(&text)
            .map_err(|detail| EngineError::Malformed { path: layout.data_dir.join("global/pg_control"), detail })
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let fields: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
        let field = |name: &str| fields.get(name).copied().ok_or_else(|| format!("no line {}", Quoted(name)));
        let lsn = |name: &str| field(name)?.parse::<Lsn>().map_err(|e| format!("{name}: {e}"));
        let number = |name: &str| field(name)?.parse::<u64>().map_err(|e| format!("{name}: {e}"));
        let timeline = |name: &str| field(name)?.parse::<u32>().map(Timeline).map_err(|e| format!("{name}: {e}"));
        let state = match field("Database cluster state")? {
            "shut down" => ControlState::ShutDown,
            "shut down in recovery" => ControlState::ShutDownInRecovery,
            "in archive recovery" => ControlState::InArchiveRecovery,
            "in production" | "in crash recovery" | "shutting down" | "starting up" => ControlState::InProduction,
            other => return Err(format!("unknown cluster state {}", Quoted(other))),
        };
        let setting = |(name, value): (&&str, &&str)| {
            let name = name.strip_suffix(" setting")?;
            value.parse().ok().map(|value| (name.to_owned(), value))
        };
        Ok(Control {
            system: SystemId(number("Database system identifier")?),
            state,
            checkpoint: lsn("Latest checkpoint location")?,
            redo: lsn("Latest checkpoint's REDO location")?,
            timeline: timeline("Latest checkpoint's TimeLineID")?,
            min_recovery: Position {
                timeline: timeline("Min recovery ending loc's timeline")?,
                lsn: lsn("Minimum recovery ending location")?,
            },
            segment_size: number("Bytes per WAL segment")?,
            block_size: number("WAL block size")?,
            settings: fields.iter().filter_map(setting).collect(),
        })
    }

    /// Shut down in order, as a primary or as a standby.
    pub fn is_clean(&self) -> bool {
        matches!(self.state, ControlState::ShutDown | ControlState::ShutDownInRecovery)
    }

    /// Whether it was a primary when it last ran.
    pub fn was_primary(&self) -> bool {
        matches!(self.state, ControlState::ShutDown | ControlState::InProduction)
    }

    /// A lower bound of the end of WAL, without reading any WAL. A primary's first checkpoint clears the end of recovery:
    /// until then, right after a promotion, that alone names the timeline on which it wrote.
    pub fn known_end(&self) -> Position {
        Position { timeline: self.timeline, lsn: self.checkpoint }.max(self.min_recovery)
    }

    /// After an orderly shutdown of a primary: the end of the shutdown checkpoint's record, which is exactly what a
    /// standby that has replayed everything reports.
    pub fn final_end(&self, layout: &Layout) -> Result<Position> {
        let path = layout.data_dir.join("pg_wal").join(segment_name(self.timeline, self.checkpoint, self.segment_size));
        let file = layout.inside.open(&path)?;
        let mut length = [0; 4];
        // A record begins with its total length, and never so that this would cross a page.
        file.read_exact_at(&mut length, self.checkpoint.0 % self.segment_size)
            .map_err(EngineError::file("read", &path))?;
        let end = record_end(self.checkpoint, u32::from_ne_bytes(length), self.segment_size, self.block_size);
        Ok(Position { timeline: self.timeline, lsn: end })
    }
}

/// The name of the segment file that holds `lsn`.
pub fn segment_name(timeline: Timeline, lsn: Lsn, segment_size: u64) -> PathBuf {
    let (number, per_id) = (lsn.0 / segment_size, (1 << 32) / segment_size);
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_id, number % per_id).into()
}

/// Where the segment begins whose file has this name without its timeline, in 16 hexadecimal digits.
pub fn segment_start(name: &str, segment_size: u64) -> Option<Lsn> {
    let (id, number) = name.split_at_checked(8)?;
    let (id, number) = (u64::from_str_radix(id, 16).ok()?, u64::from_str_radix(number, 16).ok()?);
    Some(Lsn((id << 32) + number * segment_size))
}

/// Where a record of `length` bytes ends that begins at `start`: aligned to 8, with the headers of the pages that it
/// runs into (24 bytes; 40 on the first page of a segment).
pub fn record_end(start: Lsn, length: u32, segment_size: u64, block_size: u64) -> Lsn {
    let mut rest = u64::from(length).next_multiple_of(8);
    let mut at = start.0;
    loop {
        let room = block_size - at % block_size;
        if rest <= room {
            return Lsn(at + rest);
        }
        rest -= room;
        at += room;
        at += if at.is_multiple_of(segment_size) { 40 } else { 24 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_record_counts_alignment_and_page_headers() {
        let (segment, block) = (16 << 20, 8192);
        assert_eq!(record_end(Lsn(0x300_0028), 114, segment, block), Lsn(0x300_0028 + 120));
        let near_the_end_of_a_page = Lsn(0x300_2000 - 16);
        assert_eq!(record_end(near_the_end_of_a_page, 114, segment, block), Lsn(0x300_2000 + 24 + 104));
        let near_the_end_of_a_segment = Lsn(0x400_0000 - 64);
        assert_eq!(record_end(near_the_end_of_a_segment, 114, segment, block), Lsn(0x400_0000 + 40 + 56));
        assert_eq!(
            record_end(Lsn(0x300_2000 - 120), 114, segment, block),
            Lsn(0x300_2000),
            "exactly to the page's end"
        );
    }

    #[test]
    fn segment_files_are_named_as_postgresql_names_them() {
        let name = |t, l, s| segment_name(Timeline(t), Lsn(l), s).display().to_string();
        assert_eq!(name(1, 0x300_0028, 16 << 20), "000000010000000000000003");
        assert_eq!(name(10, 0x12_FF00_0000, 16 << 20), "0000000A00000012000000FF");
        assert_eq!(name(1, 0x1_0000_0000, 1 << 20), "000000010000000100000000");
        assert_eq!(segment_start("00000012000000FF", 16 << 20), Some(Lsn(0x12_FF00_0000)));
        assert_eq!(segment_start("0000000100000000", 1 << 20), Some(Lsn(0x1_0000_0000)));
        assert_eq!(segment_start("short", 16 << 20), None);
    }

    /// What pg_controldata says of a primary that was killed after its promotion, with the timelines of its last
    /// checkpoint and of the end of its recovery.
    fn killed(checkpoint: u32, recovery: &str, at: &str) -> Control {
        let text = format!(
            "Database system identifier: 7\nDatabase cluster state: in production\n\
             Latest checkpoint location: 0/3000060\nLatest checkpoint's REDO location: 0/3000028\n\
             Latest checkpoint's TimeLineID: {checkpoint}\nMinimum recovery ending location: {at}\n\
             Min recovery ending loc's timeline: {recovery}\nWAL block size: 8192\nBytes per WAL segment: 16777216\n"
        );
        Control::parse(&text).expect("complete")
    }

    #[test]
    fn a_primary_that_was_killed_before_its_first_checkpoint_had_written_on_its_new_timeline() {
        let at = |timeline: u32, lsn| Position { timeline: Timeline(timeline), lsn: Lsn(lsn) };
        assert_eq!(killed(1, "2", "0/5000148").known_end(), at(2, 0x500_0148));
        assert_eq!(killed(2, "0", "0/0").known_end(), at(2, 0x300_0060), "the first checkpoint clears it");
    }
}
