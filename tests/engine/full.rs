//! Volumes that take no writes under a server that runs, its tablespaces' too, and a directory that is taken away: seen by regent's own writes
//! beside the data, in time, and forgotten when it is over.

use crate::cluster::{Cluster, Database, LADDER, possible};
use crate::places::Volume;
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbState, Fails, Observation, StopLadder, Trouble};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the volume of a node is: its database is in a directory of it.
fn volume_of(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.path().join(name).join("volume")
}

fn on_a_volume(p: &mut regent::config::Postgresql) {
    p.data_dir = p.data_dir.with_file_name("volume").join("main");
}

fn run(program: &str, arguments: &[&str], last: &Path) {
    let done = Command::new(program).args(arguments).arg(last).status().expect("it runs");
    assert!(done.success(), "{program} {arguments:?} {}: {done}", last.display());
}

/// An ext4 in a file below a cluster's folder. What is left of it the cluster unmounts.
fn ext4(at: &Path, mebibytes: u64) {
    let image = at.with_extension("image");
    fs::create_dir_all(at).expect("made");
    fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("made");
    run("mkfs.ext4", &["-q", "-F", "-m", "5"], &image);
    let done = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at).status().expect("it runs");
    assert!(done.success());
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    std::os::unix::fs::chown(at, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
}

/// As the database's user, for whom no root's reserve is.
fn fill(volume: &Path) -> PathBuf {
    let ballast = volume.join("ballast");
    fs::create_dir_all(&ballast).expect("made");
    let why = fs::File::create(ballast.join("bytes"))
        .and_then(|mut file| io::copy(&mut io::repeat(1), &mut file))
        .expect_err("it was filled");
    assert_eq!(why.kind(), io::ErrorKind::StorageFull);
    ballast
}

async fn primary(cluster: &mut Cluster, name: &'static str) {
    cluster.engine(name);
    cluster.create(name).await;
    cluster.node(name).until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
}

fn left_behind(node: &Database) -> Vec<String> {
    let names = fs::read_dir(&node.postgresql().data_dir).expect("there").flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.contains("regent")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_seen_before_the_server_notices_and_forgotten_when_there_is_room() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], on_a_volume);
    let volume = volume_of(&cluster, "db1");
    let _mounted = Volume::mount(&volume, 400);
    primary(&mut cluster, "db1").await;
    let db1 = cluster.node("db1");
    let ballast = fill(&volume);
    let from = Instant::now();
    let seen = db1.until("full", |seen| seen.trouble == Some(Trouble::VolumeFull)).await;
    println!("TIME full volume seen: {:?}", from.elapsed());
    assert_eq!((seen.state, seen.writable), (DbState::Primary, false));
    assert!(from.elapsed() < Duration::from_secs(3), "two probes: {:?}", from.elapsed());
    // The server itself has not noticed: a commit still finds its place.
    db1.sql("create temporary table notices_nothing (id int)").await;
    fs::remove_dir_all(ballast).expect("removed");
    db1.until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
    let stopped = db1.done(DbAction::Stop { ladder: LADDER }).await;
    assert!(matches!(stopped, DbDone::Stopped { clean: true, .. }), "{stopped:?}");
    assert_eq!(left_behind(db1), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_stalls_and_one_that_became_read_only_are_told_apart() {
    if !possible() {
        return;
    }
    // An idle server that is not asked to commit: one that commits on a read-only volume ends with a panic of its own.
    let idle = |p: &mut regent::config::Postgresql| {
        on_a_volume(p);
        p.parameters.insert("archive_timeout".to_owned(), "1h".to_owned());
    };
    let mut cluster = Cluster::with(&["db1"], idle);
    let volume = volume_of(&cluster, "db1");
    ext4(&volume, 500);
    primary(&mut cluster, "db1").await;
    let db1 = cluster.node("db1");
    run("fsfreeze", &["-f"], &volume);
    let frozen = Instant::now();
    let stalls = |seen: &Observation| matches!(seen.trouble, Some(Trouble::VolumeStalled { since_ms: 3000.. }));
    db1.until("stalled", stalls).await;
    println!("TIME stalled for 3 s seen: {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < Duration::from_secs(6), "{:?}", frozen.elapsed());
    run("fsfreeze", &["-u"], &volume);
    db1.until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
    // As after an error of the device.
    run("mount", &["-o", "remount,abort"], &volume);
    let seen = db1.until("read-only", |seen| matches!(seen.trouble, Some(Trouble::VolumeReadOnly { .. }))).await;
    println!("{:?}", seen.trouble);
    assert!(!seen.writable);
    // In order it cannot end; what it acknowledged is in its directory.
    let ms = Duration::from_millis;
    let ladder = StopLadder { fast: ms(1500), immediate: ms(1000), kill: ms(1000) };
    let from = Instant::now();
    let stopped = db1.done(DbAction::Stop { ladder }).await;
    println!("TIME stop on a read-only volume: {:?}, {stopped:?}", from.elapsed());
    assert!(matches!(stopped, DbDone::Stopped { clean: false, .. }), "{stopped:?}");
    let ends = db1.done(DbAction::FindEnd { from: seen.position }).await;
    assert!(matches!(ends, DbDone::Ends { at } if at >= seen.position), "{ends:?}, {:?}", seen.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_taken_away_from_a_running_server_is_gone_and_can_be_killed() {
    if !possible() {
        return;
    }
    let told = |p: &mut regent::config::Postgresql| drop(p.parameters.insert("log_checkpoints".into(), "on".into()));
    let mut cluster = Cluster::with(&["db1"], told);
    primary(&mut cluster, "db1").await;
    let db1 = cluster.node("db1");
    // A checkpoint finds its directory by name, and would end the server by itself: also the one of a new primary, which nobody
    // waits for.
    let end = Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(db1.log()).is_ok_and(|log| log.contains("checkpoint complete")) {
        assert!(Instant::now() < end, "a new primary writes a checkpoint");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let data = db1.postgresql().data_dir.clone();
    fs::rename(&data, data.with_file_name("away")).expect("moved");
    let gone = |seen: &Observation| matches!(seen.trouble, Some(Trouble::DirectoryGone { .. }));
    let seen = db1.until("gone", gone).await;
    assert_eq!((seen.state, seen.writable), (DbState::Primary, false));
    // Another one in its place is none of its.
    fs::create_dir(&data).expect("made");
    tokio::time::sleep(db1.postgresql().probe_interval * 3).await;
    assert!(gone(&db1.engine().latest()), "{:?}", db1.engine().latest());
    assert_eq!(fs::read_dir(&data).expect("there").count(), 0, "nothing is written there");
    let ladder = StopLadder { fast: Duration::ZERO, immediate: Duration::ZERO, ..LADDER };
    db1.done(DbAction::Stop { ladder }).await;
    db1.until_state(DbState::Absent).await;
    assert!(db1.enclosure().is_empty());
}

/// Segments that the server has finished, whoever wants them.
async fn segments(node: &Database) -> u64 {
    let client = node.client().await.expect("it answers");
    let row = client.query_one("select pg_walfile_name(pg_current_wal_insert_lsn())", &[]).await.expect("answered");
    u64::from_str_radix(&row.get::<_, &str>(0)[16..], 16).expect("a segment")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_primary_makes_no_segments_for_the_probe_and_the_first_failure_is_noticed() {
    if !possible() {
        return;
    }
    let timed = |p: &mut regent::config::Postgresql| {
        p.parameters.insert("archive_timeout".to_owned(), "1s".to_owned());
        p.probe_interval = Duration::from_millis(250);
        p.probe_timeout = Duration::from_millis(800);
    };
    let mut cluster = Cluster::with(&["db1"], timed);
    primary(&mut cluster, "db1").await;
    let db1 = cluster.node("db1");
    // The checkpointer looks at the time for the first time when something wakes it.
    db1.done(DbAction::Checkpoint).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = segments(db1).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let made = segments(db1).await - before;
    println!("segments of an idle primary in 8 s with archive_timeout = 1s: {made}");
    assert!(made <= 1, "{made} segments in 8 s");
    assert!(db1.engine().latest().writable, "{:?}", db1.engine().latest());
    // A commit that hangs is noticed by the next probe: the table is locked by one who writes.
    let client = db1.client().await.expect("it answers");
    client.batch_execute("begin; lock table regent.probe; select pg_current_xact_id()").await.expect("locked");
    let from = Instant::now();
    db1.until("not writable", |seen| !seen.writable).await;
    println!("TIME of the notice: {:?}", from.elapsed());
    assert!(from.elapsed() < 2 * Duration::from_millis(1050), "{:?}", from.elapsed());
    client.batch_execute("rollback").await.expect("ended");
    db1.until("writable", |seen| seen.writable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_of_a_tablespace_is_named_and_nothing_else_stops_for_it() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1"]);
    primary(&mut cluster, "db1").await;
    let db1 = cluster.node("db1");
    let bulk = cluster.path().join("bulk");
    let _mounted = Volume::mount(&bulk, 64);
    // One on the volume of the data, which has no probe of its own.
    let near = cluster.path().join("near");
    fs::create_dir(&near).expect("made");
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    std::os::unix::fs::chown(&near, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    for (name, place) in [("bulk", &bulk), ("near", &near)] {
        db1.sql(&format!("create tablespace {name} location '{}'", place.display())).await;
    }
    db1.sql("create table many (text text) tablespace bulk").await;
    let ballast = fill(&bulk);
    let full = Trouble::Tablespace { place: bulk.display().to_string(), fails: Fails::Full };
    let seen = db1.until("full", |seen| seen.trouble.as_ref() == Some(&full)).await;
    println!("{full}");
    assert!(seen.writable, "all else goes on: {seen:?}");
    db1.sql("insert into orders values (1)").await;
    let client = db1.client().await.expect("it answers");
    client
        .batch_execute("insert into many select repeat('x', 8000) from generate_series(1, 9000)")
        .await
        .expect_err("no room");
    fs::remove_dir_all(ballast).expect("removed");
    db1.until("well", |seen| seen.writable && seen.trouble.is_none()).await;
    db1.sql("insert into many values ('y')").await;
    // One that is dropped is asked no more, whatever becomes of its volume.
    db1.sql("drop table many").await;
    db1.sql("drop tablespace bulk").await;
    fill(&bulk);
    tokio::time::sleep(db1.postgresql().probe_interval * 14).await;
    assert_eq!(db1.engine().latest().trouble, None);
    let left =
        |place: &Path| fs::read_dir(place).expect("there").flatten().any(|e| e.file_name() == "pgsql_tmp.regent");
    assert!(!left(&bulk) && !left(&near));
}
