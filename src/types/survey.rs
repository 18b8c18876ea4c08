//! What a planned move would meet: each server's own words about itself, asked for a dry run.
//!
//! Not here: the questions (`engine`), and what they mean for the move (`pages/survey.rs`).

use serde::{Deserialize, Serialize};

/// The answer of one server. What does not concern a server of its role is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    pub checkpoint: Option<LastCheckpoint>,
    /// Where one runs.
    pub archiver: Option<Archiver>,
    pub prepared: Option<Prepared>,
    /// Client sessions in a transaction that is older than a second, the oldest first.
    pub open: Sessions,
    /// Who gets its WAL and is far behind, or copies the database.
    pub readers: Vec<WalReader>,
    /// Logical slots that a promoted standby will not have.
    pub stranded_slots: Vec<String>,
    pub replay: Option<Replay>,
}

/// The last checkpoint of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheckpoint {
    /// Seconds since it began.
    pub age: u64,
    /// Bytes of WAL since then.
    pub wal: u64,
}

/// How the archive gets its WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archiver {
    /// Files that wait for it.
    pub waiting: u64,
    /// The file that failed last, where nothing was archived since, and how many seconds ago that was.
    pub failing: Option<(String, u64)>,
}

/// Transactions that were prepared and are open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    pub count: u64,
    /// Of the oldest: its name and its age in seconds.
    pub oldest: (String, u64),
}

/// So many sessions, of which some are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    pub count: u64,
    pub named: Vec<OpenSession>,
}

/// One session of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application: String,
    /// As the server says it: `active`, `idle in transaction`.
    pub state: String,
    /// Seconds since its transaction began.
    pub age: u64,
}

/// Who reads the WAL of a primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalReader {
    pub application: String,
    pub address: Option<String>,
    /// A base backup is under way.
    pub copies: bool,
    /// Bytes of WAL that it has not confirmed.
    pub behind: u64,
}

/// How far a standby has replayed what it received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Bytes that are left.
    pub bytes: u64,
    /// For how many seconds something has been left, on the standby's own clock.
    pub age: Option<u64>,
    /// For how many seconds it is to wait on purpose (`recovery_min_apply_delay`).
    #[serde(default)]
    pub delay: u64,
    /// The sessions that hold it up.
    pub held_by: Sessions,
}
