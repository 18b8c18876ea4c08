//! Readers of WAL that are no nodes: what they read has no gap, whoever is promoted in the middle of it.

use crate::blocked::until;
use crate::cluster::{Cluster, Database, bin_dir, possible};
use crate::slots::Reader;
use regent::config::Postgresql;
use regent::types::{DbAction, DbState, Epoch, Lsn, Timeline};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 16 << 20;

fn archived(postgresql: &mut Postgresql) {
    postgresql.outsider_slots = vec!["barman".to_owned()];
    let sizes = [("wal_keep_size", "0"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")];
    for (name, value) in sizes {
        postgresql.parameters.insert(name.to_owned(), value.to_owned());
    }
}

/// A real pg_receivewal on that slot, by a role that may.
fn receive(cluster: &Cluster, from: &'static str, role: &str, into: &Path) -> Reader {
    let upstream = cluster.upstream(from);
    let mut command = Command::new(format!("{}/pg_receivewal", bin_dir()));
    command.args(["-h", &upstream.addresses[0].to_string(), "-p", &upstream.port.to_string(), "-U", role]);
    command.args(["--no-loop", "--status-interval=1", "--slot=barman", "-D"]).arg(into).stderr(Stdio::inherit());
    Reader(command.spawn().expect("it starts"))
}

/// Where the slot on this node holds WAL from.
async fn slot(node: &Database) -> Option<Lsn> {
    let client = node.client().await.expect("in");
    let question = "select restart_lsn::text from pg_replication_slots where slot_name = 'barman'";
    let row = client.query_opt(question, &[]).await.expect("answered")?;
    row.get::<_, Option<&str>>(0).and_then(|lsn| lsn.parse().ok())
}

async fn until_slot(node: &Database, what: &str, holds: impl Fn(Option<Lsn>) -> bool) -> Lsn {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let present = slot(node).await;
        if holds(present) {
            return present.unwrap_or_default();
        }
        assert!(Instant::now() < end, "{}: the slot is not {what}: {present:?}", node.config.node);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One segment after the other.
async fn write_segments(node: &Database, segments: u32) {
    for _ in 0..segments {
        node.sql("insert into orders select coalesce(max(id), 0) + 1 from orders; select pg_switch_wal()").await;
        node.sql("checkpoint").await;
    }
}

/// The numbers of the whole segments that were received, and their timelines.
fn received(into: &Path) -> Vec<(u64, u32)> {
    let names = std::fs::read_dir(into).expect("there").flatten().map(|entry| entry.file_name());
    let number = |name: &str| {
        let hex = |range| u64::from_str_radix(name.get(range)?, 16).ok();
        (name.len() == 24).then_some(())?;
        Some((hex(8..16)? * (0x1_0000_0000 / SEGMENT) + hex(16..24)?, u32::try_from(hex(0..8)?).ok()?))
    };
    let mut all: Vec<_> = names.filter_map(|name| number(&name.to_string_lossy())).collect();
    all.sort_unstable();
    all
}

async fn until_received(into: &Path, what: &str, holds: impl Fn(&[(u64, u32)]) -> bool) -> Vec<(u64, u32)> {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let all = received(into);
        if holds(&all) {
            return all;
        }
        assert!(Instant::now() < end, "not {what}: {all:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_receives_wal_goes_on_without_a_gap_from_the_node_that_was_promoted() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], archived).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path();
    for node in [db1, db2] {
        until_slot(node, "there, with WAL from now on", |from| from.is_some()).await;
    }
    let reader = receive(&cluster, "db1", "regent_db2", into);
    // Before version 15 it begins where the server is when it connects.
    until(db1, "exists (select from pg_replication_slots where slot_name = 'barman' and active)").await;
    write_segments(db1, 3).await;
    let before = until_received(into, "three segments", |all| all.len() >= 3).await;
    let reached = Lsn(before.last().expect("some").0 * SEGMENT);
    let has_come = |from: Option<Lsn>| from.is_some_and(|from| from >= reached);
    until_slot(db1, "where the reader is", has_come).await;
    until_slot(db2, "moved along", has_come).await;

    // It is away while much is written, and while its server dies.
    drop(reader);
    let here = slot(db1).await.expect("there");
    write_segments(db1, 6).await;
    db2.until_ids(&(1..=9).collect::<Vec<_>>()).await;
    db2.sql("checkpoint").await;
    assert!(slot(db2).await.is_some_and(|from| from <= here), "it holds what the reader has not");
    db2.done(DbAction::Seal).await;
    db1.enclosure().kill();
    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    db1.until_state(DbState::Stopped).await;
    write_segments(db2, 2).await;
    let _reader = receive(&cluster, "db2", "regent_db1", into);
    let all = until_received(into, "on the new timeline", |all| all.iter().any(|(_, timeline)| *timeline == 2)).await;
    let first = all[0].0;
    let numbers: std::collections::BTreeSet<u64> = all.iter().map(|(number, _)| *number).collect();
    let last = *numbers.last().expect("some");
    assert!(last > before.last().expect("some").0 + 6, "{all:?}");
    assert_eq!(numbers.len() as u64, last - first + 1, "a segment is missing: {all:?}");

    // The node that comes back has it too, and moves it along.
    cluster.follow("db1", "db2").await;
    until_slot(db2, "past what it was promoted with", |from| from > Some(here)).await;
    let now = slot(db2).await.expect("there");
    until_slot(db1, "behind the new primary's, or made anew", |from| from.is_some()).await;
    write_segments(db2, 2).await;
    until_slot(db1, "moved along", |from| from > Some(now)).await;
}
