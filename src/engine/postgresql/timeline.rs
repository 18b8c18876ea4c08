//! Timelines on disk: the history files and the names of WAL segments.
//!
//! Source: PostgreSQL manual, "Timelines"; a history file has one line a timeline: its number, the position at which
//! it was left, and a reason.

use super::control::segment_name;
use super::numbers::MARK;
use crate::rights::Rights;
use crate::types::{History, Lsn, Position, Timeline};
use std::path::Path;

/// No history file is longer.
const HISTORY_LIMIT: u64 = 1 << 20;

/// The text of a history file as a history; lines that are no entries are comments.
pub fn parse_history(text: &str) -> History {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let timeline = fields.next()?.parse().ok().map(Timeline)?;
        Some(Position { timeline, lsn: fields.next()?.parse().ok()? })
    };
    History(text.lines().filter_map(entry).collect())
}

/// The name of a timeline's history file.
pub fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

/// The timelines that led to `timeline`, from the data directory. Timeline 1 has none.
pub fn history_of(rights: &Rights, data_dir: &Path, timeline: Timeline) -> History {
    let path = data_dir.join("pg_wal").join(history_file(timeline));
    rights.read_text(&path, HISTORY_LIMIT).map(|text| parse_history(&text)).unwrap_or_default()
}

/// Whether this is a placeholder of `numbers`: a number that somebody else's timeline was given.
pub fn is_placeholder(rights: &Rights, path: &Path) -> bool {
    rights.read_text(path, HISTORY_LIMIT).is_ok_and(|text| text.starts_with(MARK.trim_end()))
}

/// Whether the history of this timeline is known here: the first has none.
fn is_known(rights: &Rights, wal: &Path, timeline: Timeline) -> bool {
    let path = wal.join(history_file(timeline));
    timeline.0 <= 1 || (rights.exists(&path) && !is_placeholder(rights, &path))
}

/// The newest timeline of which the segment before `end` is on disk: the one that a standby's WAL has reached. A
/// promotion that was cut short may have left a segment without a history: that timeline was never begun.
pub fn timeline_on_disk(rights: &Rights, data_dir: &Path, end: Lsn, segment_size: u64) -> Option<Timeline> {
    let last = Lsn(end.0.checked_sub(1)?);
    let name = segment_name(Timeline(0), last, segment_size).display().to_string();
    let wal = data_dir.join("pg_wal");
    let timelines = rights.names(&wal).ok()?.into_iter().filter_map(|found| {
        (found.len() == name.len() && found[8..] == name[8..])
            .then(|| u32::from_str_radix(&found[..8], 16).ok().map(Timeline))?
    });
    timelines.filter(|timeline| is_known(rights, &wal, *timeline)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_history_file_becomes_a_history() {
        let text =
            "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000028\tno recovery target specified\n";
        let expected = vec![
            Position { timeline: Timeline(1), lsn: Lsn(0x300_0148) },
            Position { timeline: Timeline(2), lsn: Lsn(0x500_0028) },
        ];
        assert_eq!(parse_history(text).0, expected);
        assert_eq!(history_file(Timeline(26)), "0000001A.history");
    }

    #[test]
    fn the_newest_timeline_of_a_segment_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).expect("made");
        for name in ["000000010000000000000003", "000000020000000000000003", "000000030000000000000004"] {
            fs::write(wal.join(name), "").expect("written");
        }
        for timeline in [2, 3] {
            fs::write(wal.join(history_file(Timeline(timeline))), "1\t0/3000000\tpromoted\n").expect("written");
        }
        let found = |end| timeline_on_disk(&Rights::own(), dir.path(), Lsn(end), 16 << 20);
        assert_eq!(found(0x300_0148), Some(Timeline(2)));
        assert_eq!(found(0x400_0000), Some(Timeline(2)), "nothing of the next segment is there yet");
        assert_eq!(found(0x400_0001), Some(Timeline(3)));
        assert_eq!(found(0x900_0000), None);
        fs::write(wal.join("00000002.history"), MARK).expect("written");
        assert_eq!(found(0x300_0148), Some(Timeline(1)), "a number that another was given");
        fs::remove_file(wal.join("00000003.history")).expect("removed");
        assert_eq!(found(0x400_0001), None, "a promotion that was cut short");
    }
}
