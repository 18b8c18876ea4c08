//! openraft's own storage suite, on both backends; and what only ours must do: survive a restart, refuse what is broken.

use super::durable::Durable;
use super::image::{self, Image};
use super::memory::Memory;
use super::{Backend, Change, Done, Store, StoreError};
use crate::consensus::machine::Machine;
use crate::consensus::raft::{CommittedLeaderId, LogEntry, LogId, Payload, SnapshotMeta, Types, Vote};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) type C = Types;

fn pair(backend: Arc<dyn Backend>) -> (Store<C>, Machine<C>) {
    let store = Store::open(backend).expect("opened");
    let (events, _) = mpsc::unbounded_channel();
    (store.clone(), Machine::new(store, events))
}

struct OnDisk;
impl StoreBuilder<C, Store<C>, Machine<C>, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Store<C>, Machine<C>), StorageError<C>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, machine) = pair(Arc::new(Durable::open(&dir.path().join("raft.redb"), false).expect("opened")));
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

pub(super) fn committed_in(term: u64) -> CommittedLeaderId {
    CommittedLeaderId::from(openraft::vote::leader_id_std::CommittedLeaderId::new(term))
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: committed_in(term), index }
}

pub(super) fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { log_id: log_id(term, index), payload: Payload::Blank }
}

fn open(path: &Path) -> Result<Store<C>, StoreError> {
    Store::open(Arc::new(Durable::open(path, false)?))
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

/// A backend on which the first write has to let another one pass, if that one can come.
struct SlowFirst {
    kept: Memory,
    first: AtomicBool,
    second: std::sync::Condvar,
    passed: Mutex<bool>,
}

impl Backend for SlowFirst {
    fn load(&self) -> Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        self.kept.load()
    }
    fn write(&self, changes: Vec<Change>, done: Option<Done>) {
        if self.first.swap(false, Ordering::Relaxed) {
            let passed = self.passed.lock().expect("whole");
            // It cannot pass where both are in order: then this is how long the test takes.
            let waited = self.second.wait_timeout_while(passed, Duration::from_millis(300), |passed| !*passed);
            drop(waited.expect("whole"));
            self.kept.write(changes, done);
        } else {
            self.kept.write(changes, done);
            *self.passed.lock().expect("whole") = true;
            self.second.notify_all();
        }
    }
    fn write_latency(&self) -> Duration {
        Duration::ZERO
    }
    fn path(&self) -> std::path::PathBuf {
        "memory".into()
    }
}

#[test]
fn of_two_snapshots_at_the_same_time_the_newer_one_stays_on_disk() {
    let (first, passed) = (AtomicBool::new(true), Mutex::new(false));
    let slow = Arc::new(SlowFirst { kept: Memory::default(), first, second: Default::default(), passed });
    let store: Store<C> = Store::open(slow.clone()).expect("empty");
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, index)), ..Default::default() };
    std::thread::scope(|scope| {
        let older = store.clone();
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(older.save_snapshot(&meta(5), b"old")).expect("saved");
        });
        while slow.first.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(store.save_snapshot(&meta(9), b"new")).expect("saved");
    });
    let stored = Image::load(slow.as_ref()).expect("read").snapshot.expect("there");
    assert_eq!((stored.0.last_log_id, stored.1.as_slice()), (Some(log_id(1, 9)), b"new".as_slice()));
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
