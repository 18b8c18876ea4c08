//! The slots through which standbys follow: who has which and when, that WAL is kept by them and how much, and what becomes
//! of those of others.

use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible, timed};
use crate::coming_back::fail_over;
use regent::config::Postgresql;
use regent::types::{DbAction, DbDone, Epoch, Lsn, Timeline};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One slot as a server tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    pub from: Option<Lsn>,
}

pub async fn slots(node: &Database) -> Vec<Slot> {
    let client = node.client().await.expect("the server lets us in");
    let question = "select slot_name::text, active, restart_lsn::text from pg_replication_slots order by 1";
    let rows = client.query(question, &[]).await.expect("answered");
    let from = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    rows.iter().map(|row| Slot { name: row.get(0), active: row.get(1), from: from(row.get(2)) }).collect()
}

pub fn names(slots: &[Slot]) -> Vec<&str> {
    slots.iter().map(|slot| slot.name.as_str()).collect()
}

/// Waits for slots: PostgreSQL tells nobody of them.
pub async fn until_slots(node: &Database, what: &str, holds: impl Fn(&[Slot]) -> bool) -> Vec<Slot> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let present = slots(node).await;
        if holds(&present) {
            return present;
        }
        assert!(Instant::now() < end, "{} has not {what}: {present:?}", node.config.node);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_read(present: &[Slot], name: &str) -> bool {
    present.iter().any(|slot| slot.name == name && slot.active)
}

/// Keeps 32 MB of WAL by itself, and so much for a slot.
fn small(for_a_slot: &'static str) -> impl Fn(&mut Postgresql) {
    move |postgresql| {
        let sizes = [
            ("wal_keep_size", "32MB"),
            ("min_wal_size", "32MB"),
            ("max_wal_size", "32MB"),
            ("max_slot_wal_keep_size", for_a_slot),
        ];
        for (name, value) in sizes {
            postgresql.parameters.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// Eight rows, with a segment of 16 MB and a checkpoint for each.
async fn write_much(node: &Database) {
    for _ in 0..8 {
        node.sql("insert into orders select coalesce(max(id), 0) + 1 from orders").await;
        node.sql("select pg_switch_wal()").await;
        node.sql("checkpoint").await;
    }
}

const ROWS: [i64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_away_for_more_than_wal_keep_size_streams_again_without_a_copy() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], small("1GB")).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    write_much(db1).await;
    db2.done(DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) }).await;
    db2.until_ids(&ROWS).await;
    until_slots(db1, "a slot that db2 reads from", |slots| is_read(slots, "regent_db2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_has_slots_for_all_others_and_a_standby_has_none() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let (db1, db2, db3) = (cluster.node("db1"), cluster.node("db2"), cluster.node("db3"));
    assert_eq!(names(&slots(db1).await), ["regent_db2", "regent_db3"]);
    // It must not get what only the first primary has.
    db3.done(DbAction::Seal).await;
    fail_over(&cluster).await;
    let of_db2 = slots(db2).await;
    assert_eq!(names(&of_db2), ["regent_db1", "regent_db3"], "with the end of the promotion, not some time later");
    assert!(of_db2.iter().all(|slot| slot.from.is_some()), "{of_db2:?}");
    cluster.follow_running("db3", "db2").await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("rewound"), "{how}");
    let both = |slots: &[Slot]| is_read(slots, "regent_db1") && is_read(slots, "regent_db3");
    until_slots(db2, "slots that both read from", both).await;
    assert_eq!((slots(db1).await, slots(db3).await), (Vec::new(), Vec::new()));

    // Moved in order: the one that was stopped starts as it is, with the slots that it had.
    db2.sql("select pg_create_physical_replication_slot('backup', true)").await;
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    for node in [db1, db3] {
        node.done(DbAction::Seal).await;
    }
    db1.lease(3, Duration::from_secs(60));
    timed("promotion", db1.done(DbAction::Promote { epoch: Epoch(3), timeline: Timeline(3) })).await;
    assert_eq!(names(&slots(db1).await), ["regent_db2", "regent_db3"]);
    cluster.follow_running("db3", "db1").await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db2", "db1").await else { panic!("it did not rejoin") };
    assert!(how.contains("nothing to do"), "{how}");
    assert_eq!(names(&slots(db2).await), ["backup"], "only what is not regent's is left");
    let both = |slots: &[Slot]| is_read(slots, "regent_db2") && is_read(slots, "regent_db3");
    until_slots(db1, "slots that both read from", both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_past_its_bound_is_made_anew_and_its_standby_is_copied() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], small("48MB")).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let position = db2.done(DbAction::Stop { ladder: LADDER }).await;
    let DbDone::Stopped { position: Some(at), .. } = position else { panic!("{position:?}") };
    write_much(db1).await;
    let anew = |slots: &[Slot]| slots.iter().any(|slot| slot.from.is_some_and(|from| from > at.lsn));
    until_slots(db1, "a slot in the lost one's place", anew).await;
    let upstream = cluster.upstream("db1");
    db2.done(DbAction::StartStandby { upstream: Some(upstream.clone()) }).await;
    db2.until("waiting for WAL", |seen| seen.awaits_wal && seen.streams_from.is_none()).await;
    let compared = db2.done(DbAction::Compare { upstream }).await;
    let DbDone::Compared { unfit: Some(why) } = compared else { panic!("it goes on asking: {compared:?}") };
    assert!(why.contains("has removed the WAL after"), "{why}");
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db2", "db1").await else { panic!("it did not rejoin") };
    assert!(how.contains("cloned"), "{how}");
    db2.until_ids(&ROWS).await;
    until_slots(db1, "a slot that db2 reads from", |slots| is_read(slots, "regent_db2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_moves_its_slot_along_and_has_the_wal_after_it_kept() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], small("1GB"));
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    // Made beside the start, which does not wait for it.
    until_slots(db1, "a slot of db2", |slots| names(slots) == ["regent_db2"]).await;
    let before = slots(db1).await;
    for _ in 0..2 {
        db1.sql("insert into orders select coalesce(max(id), 0) + 1 from orders").await;
        db1.sql("select pg_switch_wal()").await;
    }
    let upstream = cluster.upstream("db1");
    db2.done(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    let after = slots(db1).await;
    // It reads whole segments.
    let begun = Lsn(backup_start(db2).0 & !0xff_ffff);
    assert_eq!((names(&before), names(&after)), (vec!["regent_db2"], vec!["regent_db2"]));
    assert!(before[0].from < Some(begun), "it has something to move over: {before:?}");
    assert!(after[0].from >= Some(begun), "the copy, from {begun}, has read from it: {after:?}");
    write_much(db1).await;
    db2.done(DbAction::StartStandby { upstream: Some(upstream) }).await;
    db2.until("streaming", |seen| seen.streams_from.is_some()).await;
    db2.until_ids(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
}

/// Where the copy that has not run yet begins.
fn backup_start(node: &Database) -> Lsn {
    let label = std::fs::read_to_string(node.postgresql().data_dir.join("backup_label")).expect("a copy");
    let line = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: ")).expect("it says so");
    line.split(' ').next().and_then(|lsn| lsn.parse().ok()).expect("a place")
}

/// Somebody who reads from the slot of a node by its role; ended when dropped.
pub struct Reader(pub Child);

impl Reader {
    async fn of(node: &'static str, cluster: &Cluster) -> Self {
        let upstream = cluster.upstream("db1");
        let folder = cluster.path().join(format!("read-for-{node}"));
        std::fs::create_dir(&folder).expect("made");
        let name = format!("regent_{node}");
        let mut command = Command::new(format!("{}/pg_receivewal", bin_dir()));
        command.args(["-h", &upstream.addresses[0].to_string(), "-p", &upstream.port.to_string(), "-U", &name]);
        command.args(["--no-loop", "--slot", &name, "-D"]).arg(folder).stderr(Stdio::null());
        until_slots(cluster.node("db1"), "its slot", |slots| names(slots).contains(&name.as_str())).await;
        let reader = Reader(command.spawn().expect("it starts"));
        until_slots(cluster.node("db1"), "somebody who reads", |slots| is_read(slots, &name)).await;
        reader
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_slot_is_in_use_is_refused_and_names_the_user() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2"]);
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let reader = Reader::of("db2", &cluster).await;
    let upstream = cluster.upstream("db1");
    let error = cluster.node("db2").refuses(DbAction::Rejoin { upstream, order: None }).await;
    assert!(error.contains("reads from its slot regent_db2") && error.contains("another copy of db2"), "{error}");
    drop(reader);
    let db1 = cluster.node("db1");
    until_slots(db1, "a free slot", |slots| !is_read(slots, "regent_db2")).await;
    // What it finds missing it asks for.
    db1.sql("select pg_drop_replication_slot('regent_db2')").await;
    cluster.follow("db2", "db1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_a_node_that_is_none_any_more_is_dropped_once_nobody_reads_from_it() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2", "db3"]);
    cluster.engine("db1");
    cluster.create("db1").await;
    for slot in ["backup", "regent_of_old"] {
        cluster.node("db1").sql(&format!("select pg_create_physical_replication_slot('{slot}', true)")).await;
    }
    let reader = Reader::of("db3", &cluster).await;
    let db1 = cluster.nodes.get_mut("db1").expect("there");
    let gone = "db3".parse().expect("a name");
    Arc::make_mut(&mut db1.config).nodes.remove(&gone).expect("it was one");
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    let left = |slots: &[Slot]| names(slots) == ["backup", "regent_db2", "regent_db3"];
    until_slots(db1, "only what is needed or in use", left).await;
    drop(reader);
    until_slots(db1, "only what is needed", |slots| names(slots) == ["backup", "regent_db2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_regent_needs_of_slots_and_connections_comes_on_top_of_what_others_have() {
    if !possible() {
        return;
    }
    let others = |postgresql: &mut Postgresql| {
        postgresql.parameters.insert("max_replication_slots".to_owned(), "1".to_owned());
    };
    let mut cluster = Cluster::with(&["db1", "db2", "db3"], others);
    cluster.engine("db1");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    db1.sql("select pg_create_physical_replication_slot('backup', true)").await;
    let client = db1.client().await.expect("in");
    let setting = "select current_setting('max_replication_slots'), current_setting('max_wal_senders')";
    let row = client.query_one(setting, &[]).await.expect("answered");
    assert_eq!((row.get(0), row.get(1)), ("4", "10"), "one for each of three nodes; PostgreSQL's own number is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_free_before_a_standby_gives_a_silent_connection_up() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    until_slots(db1, "a slot that db2 reads from", |slots| is_read(slots, "regent_db2")).await;
    let client = db2.client().await.expect("in");
    let pid: i32 = client.query_one("select pid from pg_stat_wal_receiver", &[]).await.expect("one").get(0);
    let signal = |signal: i32| {
        // SAFETY: a plain system call on a process of this test's own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "process {pid}");
    };
    signal(libc::SIGSTOP);
    let free = until_slots(db1, "a free slot", |slots| !is_read(slots, "regent_db2"));
    let (_, took) = timed("a silent standby's slot is free", free).await;
    signal(libc::SIGCONT);
    assert!(took < Duration::from_secs(6), "{took:?}");
    until_slots(db1, "a slot that db2 reads from again", |slots| is_read(slots, "regent_db2")).await;
}
