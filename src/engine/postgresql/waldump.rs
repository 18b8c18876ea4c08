//! What pg_waldump prints, a line a record, as values: what a record did to rows and files, and how transactions end.
//!
//! Not here: which lines are asked for (`lost.rs`), and what they add up to (`losses.rs`).
//!
//! Sources: pg_waldump(1); `heapdesc.c`, `xactdesc.c`, `smgrdesc.c` and `standbydesc.c` of PostgreSQL 13 to 18. From 16 on
//! names are followed by a colon (`ntuples: 3, flags: 0x02`), before they were not (`3 tuples flags 0x02`).

use crate::types::{Lsn, Quoted, RelationFile};
use std::str::SplitWhitespace;

/// The default tablespace, whose files lie in `base`.
const DEFAULT_TABLESPACE: u32 = 1663;
/// The one whose files lie in `global`.
const GLOBAL_TABLESPACE: u32 = 1664;
/// Of the flags of a deletion: an insertion is taken back that met a conflict.
const IS_SUPER: u32 = 0x08;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    /// In bytes, page headers within it not counted.
    pub length: u32,
    /// Zero where it belongs to no transaction.
    pub xid: u32,
    pub what: What,
}

/// What a record says of transactions and their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Inserted {
        file: RelationFile,
        rows: u64,
    },
    Updated {
        file: RelationFile,
    },
    Deleted {
        file: RelationFile,
    },
    /// `INSERT … ON CONFLICT` takes a row back that it had put in.
    TakenBack {
        file: RelationFile,
    },
    Made {
        file: RelationFile,
    },
    Commit(End),
    Abort(End),
    Prepare(End),
    /// Every transaction with this number or a later one begins after this record.
    Running {
        next: u32,
    },
    /// Nothing comes after it in its segment.
    Switch,
    Other,
}

/// The end of a transaction, or its preparation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Of the transaction that had been prepared, where it was.
    pub prepared: Option<u32>,
    /// In UTC, as pg_waldump was told to print it.
    pub at: String,
    pub removed: Vec<RelationFile>,
    pub with: Vec<u32>,
}

/// A line that begins as a record does and goes on otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pg_waldump printed a record that regent cannot read: {}; is bin_dir of PostgreSQL 13 to 18?", Quoted(line))]
pub struct UnreadableRecord {
    pub line: String,
}

/// One line; `None` where it is no record but a remark.
pub fn record(line: &str) -> Result<Option<Record>, UnreadableRecord> {
    let Some(rest) = line.strip_prefix("rmgr: ") else { return Ok(None) };
    let shown = |line: &str| UnreadableRecord { line: line.chars().take(200).collect() };
    parse(rest).map(Some).ok_or_else(|| shown(line))
}

fn parse(rest: &str) -> Option<Record> {
    let manager = rest.split_whitespace().next()?;
    let (head, description) = rest.split_once(", desc: ")?;
    let field = |name: &str| Some(head.split_once(name)?.1.split(',').next()?.trim());
    let length = field("len (rec/tot):")?.split_once('/')?.1.trim().parse().ok()?;
    let (xid, lsn) = (field(" tx:")?.parse().ok()?, field(" lsn:")?.parse().ok()?);
    let (operation, said) = description.split_once(' ').unwrap_or((description, ""));
    let what = match manager {
        "Heap" | "Heap2" => heap(operation, said)?,
        "Transaction" => transaction(operation, said)?,
        "Storage" if operation == "CREATE" => made(said.trim()).map_or(What::Other, |file| What::Made { file }),
        "XLOG" if operation == "SWITCH" => What::Switch,
        "Standby" if operation == "RUNNING_XACTS" => What::Running { next: after(said.split_whitespace(), "nextXid")? },
        _ => What::Other,
    };
    Some(Record { lsn, length, xid, what })
}

/// The number that follows this word.
fn after(words: SplitWhitespace<'_>, word: &str) -> Option<u32> {
    let number = words.skip_while(|w| w.trim_end_matches(':') != word).nth(1)?.trim_end_matches(',');
    number.strip_prefix("0x").map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

fn heap(operation: &str, said: &str) -> Option<What> {
    let is_of_rows = |word: &str| ["INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "DELETE"].contains(&word);
    // `+INIT`: on a page of its own.
    let operation = operation.split('+').next()?;
    if !is_of_rows(operation) {
        return Some(What::Other);
    }
    let file = said.split_once("blkref #0: rel ")?.1.split_whitespace().next()?.parse().ok()?;
    Some(match operation {
        "INSERT" => What::Inserted { file, rows: 1 },
        "MULTI_INSERT" => {
            let before = said.split_once(" tuples").and_then(|(number, _)| number.trim().parse().ok());
            let rows = after(said.split_whitespace(), "ntuples").or(before)?;
            What::Inserted { file, rows: rows.into() }
        }
        "DELETE" if after(said.split_whitespace(), "flags")? & IS_SUPER != 0 => What::TakenBack { file },
        "DELETE" => What::Deleted { file },
        _ => What::Updated { file },
    })
}

fn transaction(operation: &str, said: &str) -> Option<What> {
    Some(match operation {
        "COMMIT" => What::Commit(end(None, said)),
        "ABORT" => What::Abort(end(None, said)),
        "PREPARE" => What::Prepare(end(None, said)),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            let (xid, said) = said.split_once(": ")?;
            let end = end(Some(xid.trim().parse().ok()?), said);
            if operation == "COMMIT_PREPARED" { What::Commit(end) } else { What::Abort(end) }
        }
        _ => What::Other,
    })
}

fn end(prepared: Option<u32>, said: &str) -> End {
    let mut parts = said.split("; ");
    let at = parts.next().unwrap_or_default().trim().replace(" UTC", "Z");
    let mut end = End { prepared, at, ..End::default() };
    for part in parts {
        if let Some(list) = part.strip_prefix("rels:") {
            end.removed = list.split_whitespace().filter_map(made).collect();
        } else if let Some(list) = part.strip_prefix("subxacts:") {
            end.with = list.split_whitespace().filter_map(|xid| xid.parse().ok()).collect();
        }
    }
    end
}

/// The file behind a path below the data directory; `None` for what is no main file, as `base/5/16384_init`.
fn made(path: &str) -> Option<RelationFile> {
    let (tablespace, database, number) = match path.split('/').collect::<Vec<_>>()[..] {
        ["base", database, number] => (DEFAULT_TABLESPACE, database.parse().ok()?, number),
        ["global", number] => (GLOBAL_TABLESPACE, 0, number),
        ["pg_tblspc", tablespace, _version, database, number] => {
            (tablespace.parse().ok()?, database.parse().ok()?, number)
        }
        _ => return None,
    };
    Some(RelationFile { tablespace, database, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Record {
        record(line).expect("readable").expect("a record")
    }

    fn file(text: &str) -> RelationFile {
        text.parse().expect("three numbers")
    }

    // Every line of rmgr here is one that pg_waldump of PostgreSQL 15 printed, but where it says otherwise.

    #[test]
    fn rows_are_counted_where_a_record_has_them() {
        let line = "rmgr: Heap        len (rec/tot):     65/    65, tx:        727, lsn: 0/0152B1F0, prev 0/0152B1B0, \
                    desc: INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/5/16384 blk 0";
        let inserted = What::Inserted { file: file("1663/5/16384"), rows: 1 };
        assert_eq!(read(line), Record { lsn: Lsn(0x152_B1F0), length: 65, xid: 727, what: inserted });
        let line = "rmgr: Heap2       len (rec/tot):    110/   110, tx:        739, lsn: 0/0152C0A8, prev 0/0152BF98, \
                    desc: MULTI_INSERT 3 tuples flags 0x02, blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(read(line).what, What::Inserted { file: file("1663/5/16384"), rows: 3 });
        let line = "rmgr: Heap        len (rec/tot):     71/    71, tx:        740, lsn: 0/0152C238, prev 0/0152C200, \
                    desc: HOT_UPDATE off 7 xmax 740 flags 0x20 ; new off 19 xmax 740, blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(read(line).what, What::Updated { file: file("1663/5/16384") });
        let line = "rmgr: Heap        len (rec/tot):     54/    54, tx:        730, lsn: 0/0152B860, prev 0/0152B838, \
                    desc: DELETE off 3 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(read(line).what, What::Deleted { file: file("1663/5/16384") });
        let line = "rmgr: Heap        len (rec/tot):     54/    54, tx:        740, lsn: 0/0152C200, prev 0/0152C1D8, \
                    desc: LOCK off 7: xid 740: flags 0x00 LOCK_ONLY EXCL_LOCK , blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(read(line).what, What::Other, "a lock changes no row");
    }

    #[test]
    fn the_words_of_later_versions_mean_the_same() {
        // As heapdesc.c of PostgreSQL 16 and 17 writes it.
        let head =
            "rmgr: Heap2       len (rec/tot):    110/   110, tx:        739, lsn: 0/0152C0A8, prev 0/0152BF98, desc: ";
        let many = "MULTI_INSERT ntuples: 12, flags: 0x02, offsets: [1, 2], blkref #0: rel 1663/5/16384 blk 0";
        let what = |said: &str| read(&format!("{head}{said}")).what;
        assert_eq!(what(many), What::Inserted { file: file("1663/5/16384"), rows: 12 });
        let deleted =
            "DELETE xmax: 739, off: 3, infobits: [KEYS_UPDATED], flags: 0x00, blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(what(deleted), What::Deleted { file: file("1663/5/16384") });
        let taken = deleted.replace("flags: 0x00", "flags: 0x08");
        assert_eq!(what(&taken), What::TakenBack { file: file("1663/5/16384") });
    }

    #[test]
    fn an_insertion_that_met_a_conflict_is_taken_back() {
        let line = "rmgr: Heap        len (rec/tot):     54/    54, tx:        730, lsn: 0/0152B860, prev 0/0152B838, \
                    desc: DELETE off 3 flags 0x08 , blkref #0: rel 1663/5/16384 blk 0";
        assert_eq!(read(line).what, What::TakenBack { file: file("1663/5/16384") });
    }

    #[test]
    fn a_commit_names_its_subtransactions_and_the_files_that_go_with_it() {
        let line = "rmgr: Transaction len (rec/tot):     46/    46, tx:        731, lsn: 0/0152BA80, prev 0/0152BA58, \
                    desc: COMMIT 2026-11-30 01:45:40.059881 UTC; subxacts: 732";
        let end = End { at: "2026-11-30 01:45:40.059881Z".into(), with: vec![732], ..End::default() };
        assert_eq!(read(line).what, What::Commit(end));
        let line = "rmgr: Transaction len (rec/tot):    361/   361, tx:        742, lsn: 0/01543430, prev 0/015433A0, desc: \
                    COMMIT 2026-11-30 01:45:40.131664 UTC; rels: base/5/16388 base/5/16384; inval msgs: catcache 51 catcache 50";
        let What::Commit(end) = read(line).what else { panic!("no commit") };
        assert_eq!((end.removed, end.with), (vec![file("1663/5/16388"), file("1663/5/16384")], vec![]));
        let line = "rmgr: Transaction len (rec/tot):     50/    50, tx:          0, lsn: 0/0152BD70, prev 0/0152BC70, \
                    desc: COMMIT_PREPARED 735: 2026-11-30 01:45:40.071708 UTC; subxacts: 736";
        let What::Commit(end) = read(line).what else { panic!("no commit") };
        assert_eq!((end.prepared, end.with, end.at.as_str()), (Some(735), vec![736], "2026-11-30 01:45:40.071708Z"));
        let line = "rmgr: Transaction len (rec/tot):     42/    42, tx:          0, lsn: 0/0152BF28, prev 0/0152BE30, \
                    desc: ABORT_PREPARED 737: 2026-11-30 01:45:40.083734 UTC";
        assert!(matches!(read(line).what, What::Abort(End { prepared: Some(737), .. })));
    }

    #[test]
    fn files_are_told_by_their_paths() {
        let line = "rmgr: Storage     len (rec/tot):     42/    42, tx:        742, lsn: 0/0153CF78, prev 0/0153CF48, \
                    desc: CREATE base/5/16400";
        assert_eq!(read(line).what, What::Made { file: file("1663/5/16400") });
        assert_eq!(made("pg_tblspc/16390/PG_15_202209061/5/16391"), Some(file("16390/5/16391")));
        assert_eq!(made("global/16392"), Some(file("1664/0/16392")));
        assert_eq!(made("base/5/16384_init"), None);
    }

    #[test]
    fn what_runs_tells_from_where_on_transactions_are_seen_whole() {
        let line = "rmgr: Standby     len (rec/tot):     54/    54, tx:          0, lsn: 0/0155BD20, prev 0/0155B918, desc: \
                    RUNNING_XACTS nextXid 749 latestCompletedXid 748 oldestRunningXid 738; 1 xacts: 738";
        assert_eq!(read(line).what, What::Running { next: 749 });
    }

    #[test]
    fn a_remark_is_no_record_and_a_record_in_other_words_is_an_error() {
        let remark = "first record is after 0/1500008, at 0/15000B8, skipping over 176 bytes";
        assert_eq!(record(remark), Ok(None));
        let without_file = "rmgr: Heap        len (rec/tot):     65/    65, tx:        727, lsn: 0/0152B1F0, \
                            prev 0/0152B1B0, desc: INSERT off 1";
        let error = record(without_file).expect_err("which relation?").to_string();
        assert!(error.contains("INSERT off 1") && error.contains("bin_dir"), "{error}");
    }
}
