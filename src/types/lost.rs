//! What a failover lost, as values: one transaction that the former primary committed after the fork, what it changed,
//! and how complete the list is. `regent lost --json` prints them as they are, so a field keeps its name and meaning.
//!
//! Not here: how they are found in the WAL (`engine/postgresql/losses.rs`), and their words (`cli/render/lost.rs`).

use super::{Lsn, Quoted};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Objects with lower numbers are PostgreSQL's own. Below 16384 there are others as well: what was made in single-user mode.
const FIRST_OF_OTHERS: u32 = 12000;
/// The tablespace of what all databases share: nothing but catalogs.
const GLOBAL: u32 = 1664;
/// `pg_largeobject`: users' data, although it is among the catalogs.
const LARGE_OBJECTS: u32 = 2613;
/// `pg_statistic` and `pg_statistic_ext_data` with their large values: what ANALYZE writes.
const STATISTICS: [u32; 4] = [2619, 2840, 3429, 3430];

/// The file of a relation, by the numbers that WAL has. Written `1663/5/16384`: tablespace, database, file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelationFile {
    pub tablespace: u32,
    pub database: u32,
    pub number: u32,
}

impl RelationFile {
    /// A catalog's, as far as the numbers tell: one that was rewritten has a number like any other.
    pub fn is_catalog(self) -> bool {
        self.tablespace == GLOBAL || self.number < FIRST_OF_OTHERS && self.number != LARGE_OBJECTS
    }

    /// The planner's statistics, which are made anew.
    pub fn is_statistics(self) -> bool {
        self.tablespace != GLOBAL && STATISTICS.contains(&self.number)
    }
}

/// Text that is not three numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not the file of a relation: expected three numbers, as in 1663/5/16384", Quoted(given))]
pub struct ParseFileError {
    pub given: String,
}

impl std::str::FromStr for RelationFile {
    type Err = ParseFileError;
    fn from_str(given: &str) -> Result<Self, ParseFileError> {
        let mut numbers = given.split('/').map(|number| number.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
            (Some(tablespace), Some(database), Some(number), None) => Ok(RelationFile { tablespace, database, number }),
            _ => Err(ParseFileError { given: given.to_owned() }),
        }
    }
}

impl fmt::Display for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl fmt::Debug for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RelationFile {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationFile {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which relation a file is, by the word of a running database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationName {
    pub database: String,
    pub schema: String,
    pub name: String,
    pub sort: RelationSort,
}

/// What sort of relation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationSort {
    Table,
    /// The large values of the table that is named; its rows are pieces of values.
    Toast,
    /// An index, or a sequence: nothing of it is a row.
    Other,
    /// One of PostgreSQL's own.
    Catalog,
    /// The table of regent's own probe.
    Probe,
}

/// One transaction that was committed after the fork, and so is not in the database that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTransaction {
    /// Of the top-level transaction.
    pub xid: u32,
    /// By the clock of the former primary, in UTC, to the microsecond: `2026-11-30 01:45:39.795690Z`.
    pub committed_at: String,
    /// Where its commit stands in the WAL.
    pub commit: Lsn,
    /// Committed with `COMMIT PREPARED`.
    pub prepared: bool,
    /// Savepoints and blocks that had a number of their own and were committed with it; their rows are counted.
    pub subtransactions: usize,
    pub relations: Vec<LostChange>,
    /// It changed the catalog as well: DDL, roles, databases.
    pub catalog: bool,
    /// Not seen from its beginning: it may have written more, before the WAL that was read.
    pub partly_seen: bool,
}

/// What a transaction did to one relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostChange {
    pub file: RelationFile,
    /// `None`: the database that runs has no such file, or could not be asked.
    pub relation: Option<RelationName>,
    /// The file was made after the fork, so the database that runs cannot know it; a file there with these numbers is
    /// another one.
    pub made: bool,
    /// The file was removed with the commit: TRUNCATE, DROP, or a rewrite.
    pub removed: bool,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// How a list of lost transactions ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSummary {
    /// Transactions that were told.
    pub transactions: u64,
    /// Transactions that were committed and are not told, because nothing of users' is lost with them: regent's own
    /// probe, the planner's statistics, locks, sequences.
    pub without_rows: u64,
    /// Transactions and savepoints that were rolled back after the fork.
    pub rolled_back: u64,
    /// Transactions and savepoints that had written and neither committed nor rolled back when the WAL ends.
    pub open: u64,
    /// Transactions that were prepared and not decided when the WAL ends.
    pub prepared: u64,
    /// Where the last record ends that could be read.
    pub read_to: Option<Lsn>,
    /// WAL that is not there or cannot be read: what was committed in it is not told, nor wholly what reaches over it.
    pub missing: Vec<MissingWal>,
    /// Why names are missing, where the database that runs could not be asked.
    pub unnamed: Option<String>,
}

/// Segments in a row that are not there, or one that cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingWal {
    pub first: String,
    /// The same as `first` where it is one.
    pub last: String,
    /// Where the last record ends that can be read in it; `None` where nothing of it can.
    pub after: Option<Lsn>,
    /// What pg_waldump says of it; `None` where it is not there.
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let file: RelationFile = "1663/5/16384".parse().expect("three numbers");
        assert_eq!(file, RelationFile { tablespace: 1663, database: 5, number: 16384 });
        assert_eq!(file.to_string(), "1663/5/16384");
        for wrong in ["1663/5", "1663/5/16384/1", "1663/5/x", ""] {
            assert!(wrong.parse::<RelationFile>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn catalogs_are_known_by_their_numbers() {
        let is_catalog = |text: &str| text.parse::<RelationFile>().expect("three numbers").is_catalog();
        assert!(is_catalog("1663/5/1259") && is_catalog("1664/0/1262") && is_catalog("1664/0/16500"));
        assert!(!is_catalog("1663/5/16384") && !is_catalog("16400/5/16385"));
        assert!(!is_catalog("1663/5/13573"), "regent's own probe is made in single-user mode");
        assert!(!is_catalog("1663/5/2613"), "large objects are users' data");
    }
}
