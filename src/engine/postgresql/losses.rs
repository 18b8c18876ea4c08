//! Adds up records to transactions: what each wrote, its savepoints included, told when it commits after the fork. Only what
//! is under way is remembered, so it does not grow with the WAL that is read.
//!
//! Not here: where the records come from (`lost.rs`), and what relations are called (`relations.rs`).

use super::control::record_end;
use super::waldump::{End, Record, What};
use crate::types::{LostChange, LostSummary, LostTransaction, Lsn, RelationFile};
use std::collections::{BTreeMap, BTreeSet};

/// How large segments and pages of this WAL are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub segment: u64,
    pub block: u64,
}

/// The transactions of one timeline, as its records come.
#[derive(Debug)]
pub struct Losses {
    fork: Lsn,
    sizes: Sizes,
    /// By its number, a savepoint's too.
    under_way: BTreeMap<u32, Writes>,
    /// Prepared, with the savepoints that belong to each.
    prepared: BTreeSet<u32>,
    /// Whoever has this number or a later one is seen from its beginning.
    seen_from: Option<u32>,
    /// Files of which the other side of the fork knows nothing.
    made: BTreeSet<RelationFile>,
    rolled_back: u64,
    /// Where the last record ends.
    read_to: Option<Lsn>,
}

/// What one transaction or savepoint has written so far.
#[derive(Debug, Default)]
struct Writes {
    rows: BTreeMap<RelationFile, Rows>,
    made: Vec<RelationFile>,
    catalog: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    inserted: u64,
    updated: u64,
    deleted: u64,
}

impl Writes {
    fn add(&mut self, other: Writes) {
        for (file, rows) in other.rows {
            let sum = self.rows.entry(file).or_default();
            sum.inserted += rows.inserted;
            sum.updated += rows.updated;
            sum.deleted += rows.deleted;
        }
        self.made.extend(other.made);
        self.catalog |= other.catalog;
    }
}

impl Losses {
    /// What ends after `fork` is lost.
    pub fn after(fork: Lsn, sizes: Sizes) -> Losses {
        Losses {
            fork,
            sizes,
            under_way: BTreeMap::new(),
            prepared: BTreeSet::new(),
            seen_from: None,
            made: BTreeSet::new(),
            rolled_back: 0,
            read_to: None,
        }
    }

    /// WAL is missing before the next record: of what was under way nobody knows how it went on.
    pub fn gap(&mut self) {
        self.seen_from = None;
    }

    /// Where the last record ends that came.
    pub fn read_to(&self) -> Option<Lsn> {
        self.read_to
    }

    /// The next record. Brings the transaction that it commits, if that is lost.
    pub fn take(&mut self, record: Record) -> Option<LostTransaction> {
        let Record { lsn, length, xid, what } = record;
        let end = record_end(lsn, length, self.sizes.segment, self.sizes.block);
        self.read_to = Some(end);
        // A record across the fork is not on the other side.
        let is_lost = end > self.fork;
        match what {
            What::Inserted { file, rows } => self.count(xid, file, |sum| sum.inserted += rows),
            What::Updated { file } => self.count(xid, file, |sum| sum.updated += 1),
            What::Deleted { file } => self.count(xid, file, |sum| sum.deleted += 1),
            What::TakenBack { file } => self.count(xid, file, |sum| sum.inserted = sum.inserted.saturating_sub(1)),
            What::Made { file } => {
                // The first thing that a transaction does, before it has a number, in the older builds of each version.
                if xid != 0 {
                    self.under_way.entry(xid).or_default().made.push(file);
                }
                if is_lost {
                    self.made.insert(file);
                }
            }
            // The rest of that segment is empty.
            What::Switch => self.read_to = Some(Lsn(end.0.next_multiple_of(self.sizes.segment))),
            What::Running { next } => {
                self.seen_from.get_or_insert(next);
            }
            What::Prepare(end) => {
                let writes = self.finish(xid, &end.with);
                self.under_way.insert(xid, writes);
                self.prepared.insert(xid);
            }
            What::Abort(end) => {
                let xid = end.prepared.unwrap_or(xid);
                self.finish(xid, &end.with);
                self.rolled_back += u64::from(is_lost && xid != 0);
            }
            What::Commit(end) => {
                let xid = end.prepared.unwrap_or(xid);
                let writes = self.finish(xid, &end.with);
                return (is_lost && xid != 0).then(|| self.lost(xid, lsn, end, writes));
            }
            What::Other => {}
        }
        None
    }

    /// How it stands when no record comes any more.
    pub fn summary(&self) -> LostSummary {
        let (rolled_back, read_to) = (self.rolled_back, self.read_to);
        let prepared = self.prepared.len() as u64;
        let open = self.under_way.len() as u64 - prepared;
        LostSummary { rolled_back, open, prepared, read_to, ..LostSummary::default() }
    }

    fn count(&mut self, xid: u32, file: RelationFile, add: impl FnOnce(&mut Rows)) {
        // What belongs to no transaction is its own upkeep.
        if xid == 0 || file.is_statistics() {
            return;
        }
        let writes = self.under_way.entry(xid).or_default();
        if file.is_catalog() {
            writes.catalog = true;
        } else {
            add(writes.rows.entry(file).or_default());
        }
    }

    /// It ends, and these with it.
    fn finish(&mut self, xid: u32, with: &[u32]) -> Writes {
        self.prepared.remove(&xid);
        let mut writes = self.under_way.remove(&xid).unwrap_or_default();
        with.iter().filter_map(|sub| self.under_way.remove(sub)).for_each(|sub| writes.add(sub));
        writes
    }

    fn lost(&mut self, xid: u32, commit: Lsn, end: End, writes: Writes) -> LostTransaction {
        self.made.extend(writes.made);
        let mut changes: BTreeMap<RelationFile, LostChange> = BTreeMap::new();
        let none = |file| LostChange {
            file,
            relation: None,
            made: self.made.contains(&file),
            removed: false,
            inserted: 0,
            updated: 0,
            deleted: 0,
        };
        for (file, Rows { inserted, updated, deleted }) in writes.rows {
            if inserted + updated + deleted > 0 {
                changes.insert(file, LostChange { inserted, updated, deleted, ..none(file) });
            }
        }
        for file in end.removed.into_iter().filter(|file| !file.is_catalog()) {
            changes.entry(file).or_insert_with(|| none(file)).removed = true;
        }
        LostTransaction {
            xid,
            committed_at: end.at,
            commit,
            prepared: end.prepared.is_some(),
            subtransactions: end.with.len(),
            relations: changes.into_values().collect(),
            catalog: writes.catalog,
            // Numbers go round: the difference tells which is later.
            partly_seen: self.seen_from.is_none_or(|from| xid.wrapping_sub(from).cast_signed() < 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::waldump;
    use super::*;

    /// What pg_waldump of PostgreSQL 15 printed of these statements, without the records of indexes: three rows, a
    /// checkpoint, two rows updated, one deleted, a row with one of a savepoint and one that was rolled back, a transaction
    /// that was rolled back, one prepared with a savepoint and committed, one prepared and rolled back, one prepared and
    /// open, a COPY of three rows, a TRUNCATE, a row of the new file.
    const WAL: &str = include_str!("losses_test.txt");
    const SIZES: Sizes = Sizes { segment: 16 << 20, block: 8192 };

    fn read(fork: &str) -> (Vec<LostTransaction>, LostSummary) {
        let mut losses = Losses::after(fork.parse().expect("a position"), SIZES);
        let records = WAL.lines().filter_map(|line| waldump::record(line).expect("readable"));
        let told = records.filter_map(|record| losses.take(record)).collect();
        (told, losses.summary())
    }

    /// Number, then of each relation its file and how many rows were inserted, updated, deleted; `!` where it was removed.
    fn told(lost: &LostTransaction) -> String {
        let changes = lost.relations.iter().map(|change| {
            let LostChange { file, inserted, updated, deleted, .. } = change;
            format!(" {}:{inserted}/{updated}/{deleted}{}", file.number, if change.removed { "!" } else { "" })
        });
        format!("{}{}", lost.xid, changes.collect::<String>())
    }

    #[test]
    fn what_was_committed_after_the_fork_is_told_with_its_rows() {
        let (lost, summary) = read("0/152B3E8");
        let expected = [
            "727 16384:3/0/0",
            "728 16384:3/0/0",
            "729 16384:0/2/0",
            "730 16384:0/0/1",
            "731 16384:2/0/0",
            "735 16384:2/0/0",
            "739 16384:3/0/0",
            "742 16384:0/0/0! 16387:0/0/0! 16388:0/0/0! 16389:0/0/0!",
            "743",
            "744 16404:2/0/0",
        ];
        assert_eq!(lost.iter().map(told).collect::<Vec<_>>(), expected);
        assert_eq!(lost[0].committed_at, "2026-11-30 01:45:39.820091Z");
        let of = |xid| lost.iter().find(|lost| lost.xid == xid).expect("told above");
        assert_eq!((of(731).subtransactions, of(731).prepared), (1, false), "the savepoint that was kept");
        assert_eq!((of(735).subtransactions, of(735).prepared), (1, true));
        assert!(of(742).catalog && of(743).catalog && !of(744).catalog);
        assert!(of(744).relations[0].made, "its table was made after the fork");
        assert!(!of(742).relations[0].made, "that file was there before");
        // One savepoint, one transaction, one that was prepared; another is prepared and open.
        assert_eq!((summary.rolled_back, summary.prepared, summary.open), (3, 1, 0));
    }

    #[test]
    fn what_ends_before_the_fork_is_not_lost_and_what_crosses_it_is() {
        let first = |fork| read(fork).0[0].xid;
        assert_eq!(first("0/152B3E8"), 727, "its commit begins at the fork");
        assert_eq!(first("0/152B3F0"), 727, "and here it lies across");
        assert_eq!(first("0/152B410"), 728, "and here it ends");
        let (lost, _) = read("0/152B7B0");
        assert_eq!(told(&lost[0]), "729 16384:0/2/0", "also what it wrote before the fork went with its commit");
    }

    #[test]
    fn a_transaction_from_before_the_first_list_of_what_runs_may_have_written_more() {
        let (lost, _) = read("0/152B3E8");
        let partly: Vec<u32> = lost.iter().filter(|lost| lost.partly_seen).map(|lost| lost.xid).collect();
        assert_eq!(partly, [727], "the list after it says that 728 comes next");
    }

    #[test]
    fn a_file_that_is_made_before_its_transaction_has_a_number_leaves_none_open() {
        // As pg_waldump of PostgreSQL 16.2 printed it.
        let lines = [
            "rmgr: Storage     len (rec/tot):     42/    42, tx:          0, lsn: 0/00C00028, prev 0/00B003E8, \
             desc: CREATE base/5/16397",
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        765, lsn: 0/00C16960, prev 0/00C16708, \
             desc: INSERT+INIT off: 1, flags: 0x00, blkref #0: rel 1663/5/16397 blk 0",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        765, lsn: 0/00C169A0, prev 0/00C16960, \
             desc: COMMIT 2026-11-30 10:56:54.504329 UTC",
        ];
        let mut losses = Losses::after(Lsn(0xC0_0000), Sizes { segment: 1 << 20, block: 8192 });
        let records = lines.into_iter().filter_map(|line| waldump::record(line).expect("readable"));
        let lost: Vec<LostTransaction> = records.filter_map(|record| losses.take(record)).collect();
        assert!(lost[0].relations[0].made, "it is a file of after the fork");
        assert_eq!(losses.summary().open, 0);
    }

    #[test]
    fn after_a_gap_nothing_is_seen_whole_until_the_next_list_of_what_runs() {
        let mut losses = Losses::after(Lsn(0), SIZES);
        let mut lost = Vec::new();
        for line in WAL.lines() {
            if line.contains("tx:        729, lsn: 0/0152B7A8") {
                losses.gap();
            }
            lost.extend(waldump::record(line).expect("readable").and_then(|record| losses.take(record)));
        }
        assert!(lost.iter().find(|lost| lost.xid == 728).is_some_and(|lost| !lost.partly_seen));
        assert!(lost.iter().filter(|lost| lost.xid > 728).all(|lost| lost.partly_seen));
    }
}
