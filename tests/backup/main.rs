//! Copies and first databases by real backup tools, as `docs/backup.md` shows them: `make backup`. Root, and the packages of
//! the page.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait for it and time it")]

#[path = "../engine/cluster.rs"]
#[allow(dead_code, reason = "what the engine's own tests use of it")]
mod cluster;
mod page;

use cluster::{Cluster, possible, timed};
use page::Part;
use regent::config::Commands;
use regent::types::{DbAction, DbDone, Epoch};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

/// Whether the tool is installed. With `CI=true` a skip is a failure.
fn has(program: &str) -> bool {
    if possible() && Path::new(program).exists() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "SKIPPED is a failure under CI=true: no {program}");
    println!("SKIPPED: no {program}; `make backup` installs it");
    false
}

/// A folder of the database's user, as the repository is one.
fn make_for_database(path: &Path) {
    fs::create_dir_all(path).expect("made");
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
}

/// db1 takes writes and has a backup, by the page; db2 has nothing, and the page's command makes its copies.
async fn backed_up(heading: &'static str) -> Cluster {
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        let folder = postgresql.data_dir.ancestors().nth(2).expect("a node's own folder is in it").to_owned();
        let config = Part::new(heading, &folder, &[]).config();
        let said = &config.services.values().next().expect("one service").postgresql;
        postgresql.hba.clone_from(&said.hba);
        postgresql.parameters.extend(said.parameters.clone());
    });
    let part = Part::new(heading, cluster.path(), &[]);
    make_for_database(&cluster.path().join("backup"));
    fs::write(cluster.path().join("tool.conf"), part.file()).expect("written");
    fs::set_permissions(cluster.path().join("tool.conf"), fs::Permissions::from_mode(0o644)).expect("mine");
    cluster.change("db2", |postgresql| postgresql.commands = part.commands());
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.node("db1").sql("insert into orders values (1)").await;
    part.follow();
    cluster
}

/// db2 is a copy of the backup, and has what came after it.
async fn a_copy_from(heading: &'static str) {
    let cluster = backed_up(heading).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (2)").await;
    db1.sql("select pg_switch_wal()").await;
    db1.sql("insert into orders values (3)").await;
    let (done, _) = timed(&format!("a copy from {heading}, until it streams"), cluster.follow("db2", "db1")).await;
    assert!(matches!(&done, DbDone::Rejoined { how, .. } if how.starts_with("cloned")), "{done:?}");
    db1.sql("insert into orders values (4)").await;
    db2.until_ids(&[1, 2, 3, 4]).await;
    let settings = fs::read_to_string(db2.postgresql().data_dir.join("postgresql.auto.conf")).expect("readable");
    println!("{settings}");
    assert!(settings.contains("restore_command = ") && !settings.contains(".regent-main.clone"), "{settings}");
}

/// A new service begins with what the backup's had at a moment, and is followed.
async fn a_restore_from(heading: &'static str, restoring: &'static str) {
    let origin = backed_up(heading).await;
    let before = origin.node("db1");
    // A backup counts for a moment after the second in which it ended.
    before.sql("select pg_sleep(1.1)").await;
    before.sql("insert into orders values (2)").await;
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')";
    let moment: String = before.client().await.expect("in").query_one(now, &[]).await.expect("asked").get(0);
    before.sql("insert into orders values (3)").await;
    before.sql("select pg_switch_wal()").await;
    archived(before, origin.path(), heading).await;
    // A service of its own: the page's file of it, and the repository of the other.
    let part = Part::new(restoring, origin.path(), &[("2026-11-30 01:45:00", &moment)]);
    let mut cluster = Cluster::new(&["db1", "db2"]);
    cluster.change("db1", |postgresql| postgresql.commands = part.commands());
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    let db1 = cluster.node("db1");
    let (done, _) = timed(restoring, db1.done(DbAction::Initdb)).await;
    assert!(matches!(done, DbDone::Created { .. }), "{done:?}");
    db1.lease(1, Duration::from_secs(3600));
    let done = db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert!(matches!(done, DbDone::Writable { position } if position.timeline.0 == 2), "{done:?}");
    assert_eq!(db1.ids().await, [1, 2], "until {moment}");
    cluster.change("db2", |postgresql| postgresql.commands = Commands::default());
    cluster.engine("db2");
    cluster.follow("db2", "db1").await;
    cluster.node("db1").sql("insert into orders values (4)").await;
    cluster.node("db2").until_ids(&[1, 2, 4]).await;
}

/// Waits until all WAL before the present segment is where the tool looks for it.
async fn archived(node: &cluster::Database, folder: &Path, heading: &str) {
    let question =
        "select coalesce(last_archived_wal >= pg_walfile_name(pg_switch_wal()), false) from pg_stat_archiver";
    let client = node.client().await.expect("in");
    let end = std::time::Instant::now() + Duration::from_secs(90);
    while !client.query_one(question, &[]).await.expect("asked").get::<_, bool>(0) {
        assert!(std::time::Instant::now() < end, "nothing is archived");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if heading == BARMAN {
        let conf = folder.join("tool.conf").display().to_string();
        let command = ["-u", "postgres", "--", "barman", "-c", &conf, "archive-wal", "orders"];
        let done = std::process::Command::new("runuser").args(command).output().expect("runuser runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

const PGBACKREST: &str = "pgBackRest";
const BARMAN: &str = "Barman";

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_pgbackrest() {
    if has("/usr/bin/pgbackrest") {
        a_copy_from(PGBACKREST).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_pgbackrest_to_a_moment() {
    if has("/usr/bin/pgbackrest") {
        a_restore_from(PGBACKREST, "A first database from pgBackRest").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_barman() {
    if has("/usr/bin/barman") {
        a_copy_from(BARMAN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_barman_to_a_moment() {
    if has("/usr/bin/barman") {
        a_restore_from(BARMAN, "A first database from Barman").await;
    }
}
