//! openraft's own storage suite, on both backends; and what only ours must do: survive a restart, refuse what is broken.

use super::durable::Durable;
use super::image::{self, Image};
use super::memory::Memory;
use super::{Backend, Change, Store, StoreError};
use crate::consensus::machine::Machine;
use crate::consensus::raft::{CommittedLeaderId, LogEntry, LogId, Payload, SnapshotMeta, Types, Vote};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

type C = Types;

fn pair(backend: Arc<dyn Backend>) -> (Store<C>, Machine<C>) {
    let store = Store::open(backend).expect("opened");
    let (events, _) = mpsc::unbounded_channel();
    (store.clone(), Machine::new(store, events, Arc::default()))
}

struct OnDisk;
impl StoreBuilder<C, Store<C>, Machine<C>, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Store<C>, Machine<C>), StorageError<C>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, machine) = pair(Arc::new(Durable::open(&dir.path().join("raft.redb")).expect("opened")));
        Ok((dir, store, machine))
    }
}

struct InMemory;
impl StoreBuilder<C, Store<C>, Machine<C>> for InMemory {
    async fn build(&self) -> Result<((), Store<C>, Machine<C>), StorageError<C>> {
        let (store, machine) = pair(Arc::new(Memory::default()));
        Ok(((), store, machine))
    }
}

#[tokio::test]
async fn the_durable_store_passes_the_suite_of_openraft() {
    Suite::test_all(OnDisk).await.expect("the suite");
}

#[tokio::test]
async fn the_memory_store_passes_the_suite_of_openraft() {
    Suite::test_all(InMemory).await.expect("the suite");
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::from(openraft::vote::leader_id_std::CommittedLeaderId::new(term)), index }
}

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { log_id: log_id(term, index), payload: Payload::Blank }
}

fn open(path: &Path) -> Result<Store<C>, StoreError> {
    Store::open(Arc::new(Durable::open(path)?))
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("raft.redb");
    let mut store = open(&path).expect("new");
    store.save_vote(&Vote::new(3, 2)).await.expect("saved");
    store.blocking_append([entry(1, 0), entry(1, 1), entry(3, 2), entry(3, 3)]).await.expect("appended");
    store.truncate_after(Some(log_id(3, 2))).await.expect("truncated");
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1)), ..Default::default() };
    store.save_snapshot(&meta, b"ledger").await.expect("saved");
    store.purge(log_id(1, 0)).await.expect("purged");
    store.save_committed(Some(log_id(1, 1))).await.expect("noted");
    store.close();
    assert!(store.save_vote(&Vote::new(9, 9)).await.is_err(), "nothing is answered after the end");

    let mut store = open(&path).expect("again");
    assert_eq!(store.read_vote().await.expect("read"), Some(Vote::new(3, 2)));
    let log = store.try_get_log_entries(0..99).await.expect("read");
    assert_eq!(log, [entry(1, 1), entry(3, 2)]);
    assert_eq!(store.read_committed().await.expect("read"), Some(log_id(1, 1)));
    assert_eq!(store.snapshot().map(|s| s.snapshot), Some(b"ledger".to_vec()));
    let state = store.get_log_state().await.expect("read");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 0)), Some(log_id(3, 2))));
}

#[tokio::test]
async fn an_older_snapshot_does_not_replace_a_newer_one() {
    let (store, _) = pair(Arc::new(Memory::default()));
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..Default::default() };
    store.save_snapshot(&meta(9), b"new").await.expect("saved");
    store.save_snapshot(&meta(5), b"old").await.expect("ignored");
    assert_eq!(store.snapshot().map(|s| s.snapshot), Some(b"new".to_vec()));
}

fn refusal(changes: Vec<Change>) -> String {
    let memory = Memory::default();
    memory.write(changes, None);
    Image::load(&memory).err().expect("refused").to_string()
}

#[test]
fn a_hole_a_flipped_bit_and_an_unknown_key_are_refused() {
    let hole = refusal(vec![image::put_entry(&entry(1, 4)), image::put_entry(&entry(1, 6))]);
    assert!(hole.contains("log entry 5 is missing"), "{hole}");

    let Change::Put(key, mut value) = image::put_vote(&Vote::new(1, 1)) else { panic!("a put") };
    value[9] ^= 1;
    let flipped = refusal(vec![Change::Put(key, value)]);
    assert!(flipped.contains("vote: a checksum does not match"), "{flipped}");

    let unknown = refusal(vec![Change::Put(b"wal".into(), image::seal(b"1"))]);
    assert!(unknown.contains("unknown key"), "{unknown}");

    let purged = refusal(vec![image::put_purged(&log_id(1, 3))]);
    assert!(purged.contains("no snapshot covers"), "{purged}");
}

#[test]
fn a_file_that_is_not_regents_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("raft.redb");
    std::fs::write(&path, vec![7_u8; 20_000]).expect("written");
    let text = open(&path).err().expect("refused").to_string();
    assert!(text.contains("raft.redb is corrupt") && text.contains("do not delete it"), "{text}");
}

/// A file whose flushes fail, once it is told so.
#[derive(Debug)]
struct FailingFlush {
    file: redb::backends::FileBackend,
    fails: Arc<AtomicBool>,
}

impl redb::StorageBackend for FailingFlush {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("the disk is gone")),
            false => self.file.sync_data(),
        }
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write(offset, data)
    }
}

/// Set in the process that is to end.
const VICTIM: &str = "REGENT_TEST_FLUSH_VICTIM";

#[test]
fn a_failed_flush_ends_the_process_before_anything_is_answered() {
    if std::env::var_os(VICTIM).is_some() {
        lose_the_disk();
    }
    let name = "consensus::store::store_test::a_failed_flush_ends_the_process_before_anything_is_answered";
    let own = std::env::current_exe().expect("this test");
    let child = std::process::Command::new(own).args([name, "--exact", "--nocapture"]).env(VICTIM, "1").output();
    let child = child.expect("started");
    assert_eq!(child.status.signal(), Some(nix::libc::SIGABRT), "{child:?}");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("the Raft log cannot be written") && !said.contains("ANSWERED"), "{said}");
}

fn lose_the_disk() -> ! {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("raft.redb");
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("made");
    let fails = Arc::new(AtomicBool::new(false));
    let file = redb::backends::FileBackend::new(file).expect("a backend");
    let database = redb::Database::builder().create_with_backend(FailingFlush { file, fails: fails.clone() });
    let durable = Durable::start(&path, database.expect("a database")).expect("started");
    fails.store(true, Ordering::Relaxed);
    durable.write(vec![image::put_vote(&Vote::new(1, 1))], Some(Box::new(|| eprintln!("ANSWERED"))));
    durable.close();
    std::process::exit(0)
}
