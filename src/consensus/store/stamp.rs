//! Whose data directory it is: a lock that one process at a time can hold, and a stamp that names cluster, node, node
//! number, the directory itself, and the format of everything in it.
//!
//! The directory's own mark (`founder`) is what tells a voter that lost its disk from one that never had any state: a
//! wiped voter comes back with another mark, and must not vote again (two quorums could stand).

use super::StoreError;
use crate::durable;
use crate::ledger::format::{FIRST, FORMAT};
use crate::types::{ClusterId, NodeId, NodeName};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: ClusterId,
    pub node: NodeName,
    pub id: NodeId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (number {}) of cluster {}", self.node, self.id, self.cluster)
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    /// The newest format in which anything here may be written; an older version reads no part of it then.
    #[serde(default = "first")]
    format: u32,
    cluster: ClusterId,
    node: NodeName,
    id: NodeId,
    /// Drawn when this directory was made.
    founder: String,
    /// The marks of all voters' directories, once every voter was seen blank: the cluster's founding.
    #[serde(default)]
    founders: BTreeMap<NodeName, String>,
    /// The log was made here: from then on an empty directory is a loss, and no beginning.
    #[serde(default)]
    log: bool,
}

/// Of a directory that was made before there was a number.
fn first() -> u32 {
    FIRST
}

/// A locked, stamped data directory.
pub struct DataDir {
    path: PathBuf,
    stamp: Stamp,
    lock: Option<Flock<File>>,
}

impl DataDir {
    /// Locks the directory and checks its stamp; makes both when there are none. `founder` is the mark for a new one.
    /// From then on it has the present format; one of a newer format is refused, and nothing in it is touched.
    pub fn open(path: &Path, owner: &Owner, founder: String) -> Result<Self, StoreError> {
        Self::open_as(path, owner, founder, FORMAT)
    }

    /// As a program that reads formats up to `known`.
    fn open_as(path: &Path, owner: &Owner, founder: String, known: u32) -> Result<Self, StoreError> {
        // Before the lock, which writes.
        if let Some(bytes) = read(path)? {
            check_format(path, &parse(path, &bytes)?, known)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make", path))?;
        let lock = lock(path)?;
        let stamp = match read(path)? {
            Some(bytes) => check(path, &bytes, owner, known)?,
            None => {
                if let Some(file) = ["raft.redb", "raft.mark"].into_iter().find(|file| path.join(file).exists()) {
                    let what = format!("{file} is there, but stamp.json is not");
                    return Err(StoreError::Corrupt { path: path.to_owned(), what });
                }
                let stamp = Stamp {
                    format: known,
                    cluster: owner.cluster.clone(),
                    node: owner.node.clone(),
                    id: owner.id,
                    founder,
                    founders: BTreeMap::new(),
                    log: false,
                };
                write(path, &stamp)?;
                stamp
            }
        };
        let mut dir = DataDir { path: path.to_owned(), stamp, lock: Some(lock) };
        if dir.stamp.format < known {
            // Before anything is written in it: an older version must not come upon what it cannot read.
            dir.keep(Stamp { format: known, ..dir.stamp.clone() })?;
        }
        Ok(dir)
    }

    fn keep(&mut self, stamp: Stamp) -> Result<(), StoreError> {
        write(&self.path, &stamp)?;
        self.stamp = stamp;
        Ok(())
    }

    /// Where the log is kept.
    pub fn log_file(&self) -> PathBuf {
        self.path.join("raft.redb")
    }

    /// This directory's own mark.
    pub fn founder(&self) -> &str {
        &self.stamp.founder
    }

    /// The marks of all voters at the founding; empty when it was not seen here.
    pub fn founders(&self) -> &BTreeMap<NodeName, String> {
        &self.stamp.founders
    }

    /// Another process may have it now.
    pub fn release(&mut self) {
        drop(self.lock.take());
    }

    /// The log was made here before.
    pub fn has_log(&self) -> bool {
        self.stamp.log
    }

    /// Keeps that the log was made, durably: before anything is acknowledged in it.
    pub fn record_log(&mut self) -> Result<(), StoreError> {
        if self.stamp.log { Ok(()) } else { self.keep(Stamp { log: true, ..self.stamp.clone() }) }
    }

    /// Keeps the founding, durably.
    pub fn record_founders(&mut self, founders: BTreeMap<NodeName, String>) -> Result<(), StoreError> {
        self.keep(Stamp { founders, ..self.stamp.clone() })
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

fn lock(path: &Path) -> Result<Flock<File>, StoreError> {
    let name = path.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = file.map_err(io("open", &name))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people only: who holds it.
            let written = lock.set_len(0).and_then(|()| write!(*lock, "{}", std::process::id()));
            written.map_err(io("write", &name))?;
            Ok(lock)
        }
        Err((mut file, nix::Error::EWOULDBLOCK)) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(io("read", &name))?;
            let holder = if holder.is_empty() { "unknown".into() } else { holder };
            Err(StoreError::InUse { path: path.to_owned(), holder })
        }
        Err((_, errno)) => Err(io("lock", &name)(errno.into())),
    }
}

const FILE: &str = "stamp.json";

/// The stamp's bytes; `None` where there is none.
fn read(dir: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = dir.join(FILE);
    match std::fs::read(&file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { action: "read", path: file, source }),
    }
}

fn corrupt(dir: &Path, what: impl ToString) -> StoreError {
    StoreError::Corrupt { path: dir.join(FILE), what: what.to_string() }
}

fn parse(dir: &Path, bytes: &[u8]) -> Result<serde_json::Value, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| corrupt(dir, error))
}

/// The number alone: the rest of a newer stamp may be of any shape.
fn check_format(dir: &Path, stamp: &serde_json::Value, known: u32) -> Result<(), StoreError> {
    let Some(number) = stamp.get("format") else { return Ok(()) };
    match number.as_u64().and_then(|number| u32::try_from(number).ok()) {
        Some(found) if found > known => Err(StoreError::Format { path: dir.to_owned(), found, known }),
        Some(found) if found >= FIRST => Ok(()),
        _ => Err(corrupt(dir, format!("its format is {number}"))),
    }
}

fn check(dir: &Path, bytes: &[u8], owner: &Owner, known: u32) -> Result<Stamp, StoreError> {
    let any = parse(dir, bytes)?;
    check_format(dir, &any, known)?;
    let stamp: Stamp = serde_json::from_value(any).map_err(|error| corrupt(dir, error))?;
    let theirs = Owner { cluster: stamp.cluster.clone(), node: stamp.node.clone(), id: stamp.id };
    if theirs != *owner {
        let path = dir.to_owned();
        return Err(StoreError::Foreign { path, theirs: Box::new(theirs), ours: Box::new(owner.clone()) });
    }
    Ok(stamp)
}

/// One or the other stamp is there after a crash.
fn write(dir: &Path, stamp: &Stamp) -> Result<(), StoreError> {
    let text = serde_json::to_vec_pretty(stamp).expect("a stamp has text keys");
    durable::replace(&dir.join("stamp.json"), 0o600, |file| file.write_all(&text))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(cluster: &str, node: &str, id: u64) -> Owner {
        Owner { cluster: ClusterId(cluster.into()), node: node.parse().expect("valid"), id: NodeId(id) }
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let me = owner("orders-1", "db1", 1);
        let held = DataDir::open(dir.path(), &me, "a".into()).expect("new");
        let second = DataDir::open(dir.path(), &me, "b".into()).err().expect("refused").to_string();
        assert!(
            second.contains("in use by another regent") && second.contains(&std::process::id().to_string()),
            "{second}"
        );
        drop(held);
        let again = DataDir::open(dir.path(), &me, "c".into()).expect("free again");
        assert_eq!(again.founder(), "a", "the mark stays with the directory");
    }

    #[test]
    fn a_directory_of_another_node_number_or_cluster_is_refused_naming_both() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        drop(DataDir::open(dir.path(), &owner("orders-1", "db1", 1), "a".into()).expect("new"));
        for other in [owner("orders-1", "db2", 1), owner("billing-2", "db1", 1), owner("orders-1", "db1", 2)] {
            let text = DataDir::open(dir.path(), &other, "b".into()).err().expect("refused").to_string();
            for part in ["db1 (number 1) of cluster orders-1", &format!("{} (number {})", other.node, other.id)] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn a_missing_or_broken_stamp_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let me = owner("orders-1", "db1", 1);
        let open = || DataDir::open(dir.path(), &me, "a".into()).err().expect("refused").to_string();
        std::fs::write(dir.path().join("raft.redb"), b"").expect("written");
        assert!(open().contains("stamp.json is not"));
        std::fs::write(dir.path().join("stamp.json"), b"{").expect("written");
        assert!(open().contains("corrupt"));
        for number in ["0", "-1", "\"1\""] {
            std::fs::write(dir.path().join("stamp.json"), format!("{{\"format\":{number}}}")).expect("written");
            assert!(open().contains(&format!("corrupt (its format is {number})")), "{}", open());
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_nothing_is_touched() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let me = owner("orders-1", "db1", 1);
        let newer = FORMAT + 1;
        let stamp = format!("{{\"format\":{newer},\"shape\":\"nobody knows\"}}");
        std::fs::write(dir.path().join("stamp.json"), &stamp).expect("written");
        let text = DataDir::open(dir.path(), &me, "a".into()).err().expect("refused").to_string();
        let path = dir.path().display();
        assert_eq!(
            text,
            format!(
                "{path} has format {newer}, this regent reads formats up to {FORMAT}: a newer regent wrote it; run that \
                 version or a later one on this host (nothing was changed)"
            )
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("stamp.json")).expect("there"), stamp);
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1, "a file was made, the lock perhaps");
    }

    #[test]
    fn a_directory_takes_on_the_format_of_the_version_that_opens_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let me = owner("orders-1", "db1", 1);
        let stamp = r#"{"cluster":"orders-1","node":"db1","id":1,"founder":"a","log":true}"#;
        std::fs::write(dir.path().join("stamp.json"), stamp).expect("written");
        let old = DataDir::open_as(dir.path(), &me, "b".into(), FIRST).expect("before the number: the first format");
        assert!(old.founder() == "a" && old.has_log());
        drop(old);
        drop(DataDir::open_as(dir.path(), &me, "b".into(), FIRST + 1).expect("a later version"));
        let back = DataDir::open_as(dir.path(), &me, "b".into(), FIRST).err().expect("refused");
        assert!(matches!(back, StoreError::Format { found, known, .. } if (found, known) == (FIRST + 1, FIRST)));
        let again = DataDir::open_as(dir.path(), &me, "b".into(), FIRST + 1).expect("again");
        assert!(again.founder() == "a" && again.has_log(), "nothing else changed");
    }
}
