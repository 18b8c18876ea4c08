//! An older copy of a database, or another cluster's, that was put in the place of the directory of this node: it is
//! refused before it is opened, and what regent itself made of the directory is not.

use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible, timed, version};
use crate::coming_back::fail_over;
use regent::types::{DbAction, DbDone, DbState, Epoch, Lsn, Position, Timeline};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

fn note(node: &Database) -> PathBuf {
    node.config.data_dir.join("orders/furthest")
}

/// Waits until the node remembers that its database came so far.
async fn until_noted(node: &Database, lsn: Lsn) {
    let from = Instant::now();
    let noted = || {
        let text = std::fs::read_to_string(note(node)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("lsn ").and_then(|lsn| lsn.parse::<Lsn>().ok()));
        line.is_some_and(|noted| noted >= lsn)
    };
    while !noted() {
        assert!(from.elapsed() < Duration::from_secs(20), "{lsn} is not remembered: {:?}", std::fs::read(note(node)));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The end of the WAL that the primary has flushed, once it was seen.
async fn seen_end(node: &Database) -> Lsn {
    let client = node.client().await.expect("it answers");
    let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("answered");
    let lsn: Lsn = row.get::<_, &str>(0).parse().expect("a position");
    node.until("seen there", |seen| seen.position.lsn >= lsn).await;
    lsn
}

/// Kills the primary after its end was seen, and waits until that is remembered.
async fn crash(node: &Database) {
    let end = seen_end(node).await;
    node.enclosure().kill();
    node.until_state(DbState::Stopped).await;
    until_noted(node, end).await;
}

async fn stop(node: &Database) {
    node.done(DbAction::Stop { ladder: LADDER }).await;
    node.until_state(DbState::Stopped).await;
}

async fn open(node: &Database, epoch: u64) -> DbDone {
    node.lease(epoch, HOUR);
    node.done(DbAction::StartPrimary { epoch: Epoch(epoch), known: None }).await
}

async fn refused(node: &Database, epoch: u64) -> String {
    node.lease(epoch, HOUR);
    node.fails(DbAction::StartPrimary { epoch: Epoch(epoch), known: None }).await
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().expect("every system has it");
    assert!(done.success());
}

/// Puts a directory in the place of another, which is kept under that name.
fn put(from: &Path, to: &Path, aside: &Path) {
    std::fs::rename(to, aside).expect("it is there");
    std::fs::rename(from, to).expect("it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_copy_from_before_is_refused_and_the_right_directory_opens() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let (main, older, right) =
        (db1.postgresql().data_dir.clone(), cluster.path().join("older"), cluster.path().join("right"));
    db1.sql("insert into orders values (1)").await;
    stop(db1).await;
    copy(&main, &older);
    open(db1, 1).await;
    db1.sql("insert into orders values (2)").await;
    stop(db1).await;
    put(&older, &main, &right);
    let why = refused(db1, 1).await;
    let said = |word: &str| why.contains(word);
    assert!(said("is an older copy and is not opened") && said("regent reinit") && said("regent accept"), "{why}");
    assert!(said(&main.display().to_string()), "{why}");
    assert_eq!(refused(db1, 1).await, why, "a refusal changes nothing");
    assert!(db1.engine().processes().is_empty());
    put(&right, &main, &older);
    timed("start of the right directory", open(db1, 1)).await;
    assert_eq!(db1.ids().await, [1, 2]);
    // The way out that the refusal names.
    stop(db1).await;
    put(&older, &main, &right);
    assert!(refused(db1, 1).await.contains("an older copy"));
    std::fs::remove_file(note(db1)).expect("it is there");
    open(db1, 1).await;
    assert_eq!(db1.ids().await, [1]);
}

/// The whole host was set back, what it remembers with it: the cluster knows better.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lacks_what_the_cluster_knows_of_it_is_not_opened() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.sql("insert into orders values (1)").await;
    let end = seen_end(db1).await;
    stop(db1).await;
    std::fs::remove_file(note(db1)).expect("it is there");
    db1.lease(1, HOUR);
    let open = |lsn: u64| {
        let known = Some(Position { timeline: Timeline(1), lsn: Lsn(lsn) });
        DbAction::StartPrimary { epoch: Epoch(1), known }
    };
    let why = db1.fails(open(end.0 + (1 << 20))).await;
    assert!(why.contains("is an older copy and is not opened") && why.contains("regent accept"), "{why}");
    assert!(db1.engine().processes().is_empty());
    assert!(matches!(db1.done(open(end.0)).await, DbDone::Writable { .. }), "it has what is known of it");
    // The same after a crash, where the control file says less than the WAL holds.
    db1.sql("insert into orders values (2)").await;
    let end = seen_end(db1).await;
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
    _ = std::fs::remove_file(note(db1));
    assert!(db1.fails(open(end.0 + (1 << 20))).await.contains("is an older copy"));
    assert!(matches!(db1.done(open(end.0)).await, DbDone::Writable { .. }));
    assert_eq!(db1.ids().await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_before_a_crash_is_refused_and_the_crashed_directory_recovers() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let at = |name: &str| cluster.path().join(name);
    let (main, stopped, crashed, right) =
        (db1.postgresql().data_dir.clone(), at("stopped"), at("crashed"), at("right"));
    db1.sql("insert into orders values (1)").await;
    stop(db1).await;
    copy(&main, &stopped);
    open(db1, 1).await;
    crash(db1).await;
    copy(&main, &crashed);
    open(db1, 1).await;
    db1.sql("insert into orders values (2)").await;
    crash(db1).await;
    put(&stopped, &main, &right);
    assert!(refused(db1, 1).await.contains("an older copy"));
    // Its control file says less than its WAL holds, as that of the right one does.
    put(&crashed, &main, &stopped);
    assert!(refused(db1, 1).await.contains("an older copy"));
    put(&right, &main, &crashed);
    timed("start of the crashed directory", open(db1, 1)).await;
    assert_eq!(db1.ids().await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused_as_primary_and_as_standby() {
    if !possible() {
        return;
    }
    let (cluster, other) = (Cluster::running(&["db1"]).await, Cluster::running(&["db1"]).await);
    let (db1, another) = (cluster.node("db1"), other.node("db1"));
    stop(db1).await;
    stop(another).await;
    let main = db1.postgresql().data_dir.clone();
    put(&another.postgresql().data_dir, &main, &cluster.path().join("right"));
    let why = refused(db1, 1).await;
    assert!(why.contains("belongs to another cluster") && why.contains(&main.display().to_string()), "{why}");
    let why = db1.fails(DbAction::StartStandby { upstream: None }).await;
    assert!(why.contains("belongs to another cluster"), "{why}");
    assert!(db1.engine().processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_regent_made_of_the_directory_is_never_refused() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    fail_over(&cluster).await;
    // A crash right after the promotion, and the restart in place.
    db2.enclosure().kill();
    db2.until_state(DbState::Stopped).await;
    assert!(matches!(open(db2, 2).await, DbDone::Writable { .. }));
    // A rewind, a crash right after it, and a start for an epoch: a standby that waits for its promotion.
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("rewound"), "{how}");
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
    assert_eq!(open(db1, 3).await, DbDone::Plain);
    // A copy, and the same.
    stop(db1).await;
    std::fs::remove_dir_all(&db1.postgresql().data_dir).expect("it is there");
    db1.until_state(DbState::Absent).await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("cloned"), "{how}");
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
    assert_eq!(open(db1, 3).await, DbDone::Plain);
    db2.enclosure().kill();
    db1.done(DbAction::Promote { epoch: Epoch(3), timeline: Timeline(3) }).await;
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
    open(db1, 3).await;
    // Restarts in place: after crashes, one of them behind a switch of the segment, and after orderly stops.
    for statement in ["insert into orders values (10)", "insert into orders values (11)", "select pg_switch_wal()"] {
        db1.sql(statement).await;
        crash(db1).await;
        open(db1, 3).await;
        stop(db1).await;
        open(db1, 3).await;
    }
    assert_eq!(db1.ids().await, [1, 3, 10, 11]);
    // A new database.
    stop(db1).await;
    std::fs::remove_dir_all(&db1.postgresql().data_dir).expect("it is there");
    db1.until_state(DbState::Absent).await;
    db1.done(DbAction::Initdb).await;
    assert!(matches!(open(db1, 4).await, DbDone::Writable { .. }));
}

/// Opens a standby's directory as somebody would by hand, and makes it look like a standby's again.
async fn write_by_hand(node: &Database, statements: &str) {
    let data_dir = &node.postgresql().data_dir;
    std::fs::remove_file(data_dir.join("standby.signal")).expect("a standby's");
    let mut single = Command::new("runuser");
    single
        .args(["-u", "postgres", "--", &format!("{}/postgres", bin_dir()), "--single", "-D"])
        .arg(data_dir)
        .arg("postgres");
    single.current_dir(data_dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut single = single.spawn().expect("it can be started");
    single.stdin.take().expect("piped").write_all(statements.as_bytes()).expect("it reads");
    assert!(single.wait().expect("it ends").success());
    node.done(DbAction::StartStandby { upstream: None }).await;
    node.until("all replayed", |seen| seen.state == DbState::Standby && seen.awaits_wal).await;
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_wrote_on_its_primary_s_timeline_is_copied_however_far_either_came() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (1)").await;
    for (rows, expected) in [(0, "it is ahead of the upstream"), (20_000, "is another one than the upstream's")] {
        db2.until_ids(&[1]).await;
        stop(db2).await;
        write_by_hand(db2, "insert into orders select generate_series(100, 5000)\n").await;
        let written = format!("create table more{rows} as select generate_series(1, {rows})");
        db1.sql(&written).await;
        // Also while it runs.
        db2.done(DbAction::StartStandby { upstream: None }).await;
        db2.until("all replayed", |seen| seen.state == DbState::Standby && seen.awaits_wal).await;
        let compared = db2.done(DbAction::Compare { upstream: cluster.upstream("db1") }).await;
        let DbDone::Compared { unfit: Some(why) } = compared else { panic!("it may follow: {compared:?}") };
        assert!(why.contains(expected), "{why}");
        stop(db2).await;
        let DbDone::Rejoined { how, .. } = cluster.follow("db2", "db1").await else { panic!("it did not rejoin") };
        assert!(how.contains("cloned") && how.contains(expected), "{how}");
        db2.until_ids(&[1]).await;
    }
    // One that did nothing of its own has nothing to do, whatever its primary wrote meanwhile.
    stop(db2).await;
    db1.sql("insert into orders values (2)").await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db2", "db1").await else { panic!("it did not rejoin") };
    assert!(how.contains("nothing to do"), "{how}");
    db2.until_ids(&[1, 2]).await;
}

/// What a backup of the primary's own files leaves behind that its host does not outlive.
const LABEL: &str = "START WAL LOCATION: START (file 000000010000000000000001)\nCHECKPOINT LOCATION: START\n\
    BACKUP METHOD: METHOD\nBACKUP FROM: primary\nSTART TIME: 2026-11-30 02:00:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";

/// Of one that began with the last checkpoint.
async fn label_of_a_backup(node: &Database) -> String {
    let client = node.client().await.expect("it answers");
    let question = "select checkpoint_lsn::text from pg_control_checkpoint()";
    let start: String = client.query_one(question, &[]).await.expect("asked").get(0);
    let method = if version() < 15 { "pg_start_backup" } else { "streamed" };
    LABEL
        .replace("START (", &format!("{start} ("))
        .replace("LOCATION: START", &format!("LOCATION: {start}"))
        .replace("METHOD: METHOD", &format!("METHOD: {method}"))
}

fn leave(node: &Database, label: &str) {
    let data = &node.postgresql().data_dir;
    let (path, owner) = (data.join("backup_label"), std::fs::metadata(data).expect("there"));
    std::fs::write(&path, label).expect("written");
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).expect("root");
}

/// The service went on elsewhere: what the label says is of no use there.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_comes_back_although_a_backup_left_its_label() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db1 = cluster.node("db1");
    let text = label_of_a_backup(db1).await;
    fail_over(&cluster).await;
    leave(db1, &text);
    let DbDone::Rejoined { how, kept: Some(_) } = cluster.follow("db1", "db2").await else {
        panic!("it did not rejoin")
    };
    println!("{how}");
    db1.until_ids(&[1, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_a_backup_left_in_the_primarys_directory_is_named_and_stays() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Checkpoint).await;
    let text = label_of_a_backup(db1).await;
    let label = db1.postgresql().data_dir.join("backup_label");
    for (round, clean) in [(1, true), (2, false)] {
        db1.sql(&format!("insert into orders values ({round})")).await;
        if clean {
            stop(db1).await
        } else {
            crash(db1).await
        }
        leave(db1, &text);
        let why = refused(db1, 1).await;
        println!("{why}");
        let said = |word: &str| why.contains(word);
        assert!(said("backup_label is left from a backup (called \"nightly\", begun \"2026-11-30"), "{why}");
        assert!(said("remove that file") && said("regent accept") && said("regent reinit"), "{why}");
        assert_eq!(refused(db1, 1).await, why, "a refusal changes nothing");
        assert_eq!(std::fs::read_to_string(&label).expect("it stays"), text);
        assert!(db1.engine().processes().is_empty());
        // The cure that it names.
        std::fs::remove_file(&label).expect("there");
        assert!(matches!(open(db1, 1).await, DbDone::Writable { .. }));
    }
    assert_eq!(db1.ids().await, [1, 2]);
}
