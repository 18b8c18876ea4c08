//! The log, the vote and the snapshot: one code path over a thin key/value backend, which is either a file
//! (`durable.rs`) or memory without threads (`memory.rs`, `tests/raft_sim`).
//!
//! Everything is kept in memory too (the log is short: it is cut after each snapshot), so that reads never wait for the
//! disk. Not here: the ledger itself (`machine.rs`) and whose data directory it is (`stamp.rs`).

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
pub mod durable;
#[cfg(test)]
mod format_test;
mod image;
mod log;
mod mark;
#[cfg(test)]
pub mod memory;
mod reserve;
pub mod stamp;
#[cfg(test)]
mod store_test;

pub use log::Store;

use crate::durable::FileError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open. Stop that one first.
    #[error("{path} is in use by another regent (process {holder}): stop it, or give this node a data_dir of its own")]
    InUse { path: PathBuf, holder: String },
    /// It was made for another node or cluster. Use the right directory; never rename a stamp.
    #[error("{path} belongs to {theirs}, but this is {ours}: correct data_dir or node, or use an empty directory")]
    Foreign { path: PathBuf, theirs: Box<stamp::Owner>, ours: Box<stamp::Owner> },
    /// Written by a newer regent. Nothing in it was touched.
    #[error(
        "{path} has format {found}, this regent reads formats up to {known}: a newer regent wrote it; run that version \
         or a later one on this host (nothing was changed)"
    )]
    Format { path: PathBuf, found: u32, known: u32 },
    /// What is stored does not read back. Never repaired by guessing: a voter whose log went backwards can elect two
    /// leaders. Remove the node from the cluster and add it again.
    #[error("{path} is corrupt ({what}): do not delete it while it is a voter; remove the node and add it again")]
    Corrupt { path: PathBuf, what: String },
    /// The operating system said no.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl From<FileError> for StoreError {
    fn from(FileError { doing: action, path, source }: FileError) -> Self {
        StoreError::Io { action, path, source }
    }
}

/// One change of the stored keys.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// Called once the changes are on disk. There is no failure to report: a failed write ends the process.
pub type Done = Box<dyn FnOnce() + Send>;

/// Where keys and values are kept. Writes take effect in the order of the calls, vote and log alike: a vote that is
/// overtaken by an append could be granted twice.
pub trait Backend: Send + Sync + 'static {
    /// Everything stored; asked once, at the start.
    fn load(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError>;

    /// Changes the keys. With `done`, they are made durable now and it is called then; without, they ride along with
    /// the next write that is (or are written when none comes for a while).
    fn write(&self, changes: Vec<Change>, done: Option<Done>);

    /// The slowest durable write of the last seconds, one that is still under way included.
    fn write_latency(&self) -> Duration;

    /// Whether it has room that nobody else can take, for when its volume is full.
    fn has_reserve(&self) -> bool {
        false
    }

    /// Where it is, for messages.
    fn path(&self) -> PathBuf;

    /// Writes what waits and lets go of the file. Later writes have no effect.
    fn close(&self) {}
}
