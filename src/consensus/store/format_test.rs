//! The data directory of each format that this program reads, stored as files under `fixtures/`.
//!
//! Not here: the encoding of every command (`tests/golden/encoding.rs`).

use super::durable::Durable;
use super::stamp::{DataDir, Owner};
use super::store_test::{C, log_id};
use super::{Store, StoreError};
use crate::consensus::raft::{LogEntry, Payload, Proposal, SnapshotMeta, Vote};
use crate::consensus::snapshot;
use crate::ledger::format::{FIRST, FORMAT};
use crate::ledger::world_test::{
    DB1, TERM, World, answers, appoint_db2, at, boot, by_fence, dead, ended, hold, installed, machine, node, order,
    orders, sees,
};
use crate::ledger::{self, Command, Entry, Machine, State};
use crate::types::{AgentAction, AgentOutcome, ClusterId, LogIndex, NodeId, Term, WallTime};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the fixture's ledger lives through: db1 is the primary, dies, is fenced, and one appointment is refused.
fn commands() -> Vec<Command> {
    let settings = Box::new(World::new().state.settings.expect("seeded").get().clone());
    let lost = answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "lll"))]);
    vec![
        Command::Seed { settings },
        joined("db1", 4),
        joined("db2", 5),
        joined("w1", 6),
        Command::Create { service: orders(), node: node("db1"), boot: boot("db1", 1), incarnation: DB1 },
        installed(1, "db1", DB1, at(1, 100)),
        dead(DB1, TERM, lost),
        order("ipmi", AgentAction::Off, Some(0)),
        ended(0, AgentOutcome::Succeeded),
        appoint_db2(1, by_fence(hold(&["db2"]))),
    ]
}

fn joined(name: &str, request: u64) -> Command {
    Command::Join {
        node: node(name),
        boot: boot(name, 1),
        request,
        succeeds: None,
        // As it was written before a daemon said what its machine is made of.
        machine: Machine { hardware: Default::default(), ..machine(name) },
        claims: BTreeMap::new(),
    }
}

/// The log of it: the membership, a leader's blank entry, and the commands.
fn log() -> Vec<LogEntry> {
    let voters = [1, 2, 3].into_iter().collect();
    let membership =
        openraft::Membership::new(vec![voters], BTreeMap::from([1, 2, 3].map(|id| (id, Default::default()))));
    let payloads = [Payload::Membership(membership.expect("consistent")), Payload::Blank];
    let normal = |command| Payload::Normal(Proposal(Arc::new(Entry { at: WallTime(1_700_000_000_000), command })));
    let payloads = payloads.into_iter().chain(commands().into_iter().map(normal));
    (0..)
        .zip(payloads)
        .map(|(index, payload)| LogEntry { log_id: log_id(u64::from(index > 0) * TERM.0, index), payload })
        .collect()
}

/// The ledger after these entries.
fn replay(mut state: State, entries: &[LogEntry]) -> State {
    for entry in entries {
        let index = LogIndex(entry.log_id.index);
        match &entry.payload {
            Payload::Blank => {}
            Payload::Membership(_) => ledger::set_voters(&mut state, index, vec![[1, 2, 3].map(NodeId).into()]),
            Payload::Normal(proposal) => {
                drop(ledger::apply(&mut state, index, Term(*entry.log_id.leader_id), &proposal.0));
            }
        }
    }
    state
}

/// The snapshot covers the log up to here, which is removed up to `PURGED`.
const COVERED: u64 = 7;
const PURGED: u64 = 4;

fn owner() -> Owner {
    Owner { cluster: ClusterId("orders-1".into()), node: node("db1"), id: NodeId(1) }
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/consensus/store/fixtures/format-{format}"))
}

/// Writes the fixture of the present format.
async fn write_fixture(path: &Path) {
    let mut data_dir = DataDir::open(path, &owner(), "the mark of db1".into()).expect("new");
    let mut store: Store<C> =
        Store::open(Arc::new(Durable::open(&data_dir.log_file(), false).expect("new"))).expect("empty");
    data_dir.record_log().expect("written");
    data_dir.record_founders(BTreeMap::from([(node("db1"), "the mark of db1".into())])).expect("written");
    let log = log();
    store.save_vote(&Vote::new_committed(TERM.0, 1)).await.expect("saved");
    store.blocking_append(log.clone()).await.expect("appended");
    let covered = log[COVERED as usize].log_id;
    let meta = SnapshotMeta { last_log_id: Some(covered), ..Default::default() };
    let state = replay(State::default(), &log[..=COVERED as usize]);
    store.save_snapshot(&meta, &snapshot::encode(&state)).await.expect("saved");
    store.purge(log[PURGED as usize].log_id).await.expect("purged");
    store.save_committed(log.last().map(|entry| entry.log_id)).await.expect("noted");
    store.close();
    drop(data_dir);
    std::fs::remove_file(path.join("lock")).expect("there");
}

/// A copy of a fixture: opening one writes in it.
fn copy_of(format: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for file in ["stamp.json", "raft.redb", "raft.mark"] {
        let stored = fixture(format).join(file);
        let copied = std::fs::copy(&stored, dir.path().join(file));
        copied.unwrap_or_else(|error| panic!("{}: {error}; REWRITE=1 writes that of a new format", stored.display()));
    }
    dir
}

#[tokio::test]
async fn the_data_directory_of_every_format_is_read() {
    // What is there stays: it was released.
    if std::env::var_os("REWRITE").is_some() && !fixture(FORMAT).exists() {
        write_fixture(&fixture(FORMAT)).await;
    }
    let whole = log();
    for format in FIRST..=FORMAT {
        let dir = copy_of(format);
        let data_dir = DataDir::open(dir.path(), &owner(), "another mark".into()).expect("read");
        assert!(data_dir.has_log() && data_dir.founder() == "the mark of db1", "format {format}");
        let durable = Durable::open(&data_dir.log_file(), data_dir.has_log()).expect("whole");
        let store: Store<C> = Store::open(Arc::new(durable)).expect("readable");
        let image = store.image();
        assert_eq!(image.vote, Some(Vote::new_committed(TERM.0, 1)), "format {format}");
        assert_eq!(image.committed, whole.last().map(|entry| entry.log_id), "format {format}");
        let entries: Vec<_> = image.log.into_values().collect();
        assert_eq!(entries, whole[PURGED as usize + 1..], "format {format}");
        let (meta, bytes) = image.snapshot.expect("there");
        assert_eq!(meta.last_log_id, Some(whole[COVERED as usize].log_id), "format {format}");
        let covered = snapshot::decode(&bytes).expect("readable");
        let after = &whole[COVERED as usize + 1..];
        assert_eq!(replay(covered, after), replay(State::default(), &whole), "format {format}");
    }
}

#[test]
fn a_directory_of_a_newer_format_is_left_as_it_is() {
    let dir = copy_of(FORMAT);
    let read = || -> BTreeMap<PathBuf, Vec<u8>> {
        let files = std::fs::read_dir(dir.path()).expect("there").map(|file| file.expect("readable").path());
        files.map(|file| (file.clone(), std::fs::read(file).expect("readable"))).collect()
    };
    let stamp = std::fs::read_to_string(dir.path().join("stamp.json")).expect("there");
    let raised = stamp.replace(&format!("\"format\": {FORMAT}"), &format!("\"format\": {}", FORMAT + 1));
    assert_ne!(raised, stamp);
    std::fs::write(dir.path().join("stamp.json"), raised).expect("written");
    let before = read();
    let error = DataDir::open(dir.path(), &owner(), "another mark".into()).err().expect("refused");
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
    assert_eq!(read(), before);
}
