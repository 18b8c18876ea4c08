//! What is asked of PostgreSQL's versions: which programs are refused, and that nothing that a version brings keeps regent
//! out of its own database. That everything else works on each version, every other file here shows (`scripts/versions`).

use crate::cluster::{Cluster, LADDER, bin_dir, possible, version};
use crate::coming_back::fail_over;
use regent::types::{DbAction, DbState, Epoch, Observation};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

/// PostgreSQL's programs, of which the server gives itself out for another version.
fn programs_of(version: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    for program in fs::read_dir(bin_dir()).expect("programs").flatten().filter(|p| p.file_name() != "postgres") {
        symlink(program.path(), folder.path().join(program.file_name())).expect("linked");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    install(folder.path(), version);
    folder
}

/// Puts a server there that gives itself out for this version, as an update does under one that runs.
fn install(programs: &Path, version: &str) {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) {version}' && exit\nexec {}/postgres \"$@\"\n",
        bin_dir()
    );
    let new = programs.join("postgres.new");
    fs::write(&new, script).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("mine");
    fs::rename(&new, programs.join("postgres")).expect("in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_work_are_refused_before_anything_is_made_or_copied() {
    if !possible() {
        return;
    }
    let (old, new) = (programs_of("12.3"), programs_of("99.1 (from tomorrow)"));
    let mut cluster = Cluster::with(&["db1", "db2", "db3"], |postgresql| {
        for (node, programs) in [("db2", &old), ("db3", &new)] {
            if postgresql.data_dir.components().any(|part| part.as_os_str() == node) {
                postgresql.bin_dir = programs.path().to_owned();
            }
        }
    });
    for name in ["db1", "db2", "db3"] {
        cluster.engine(name);
    }
    let (db2, db3) = (cluster.node("db2"), cluster.node("db3"));
    let refused = db2.fails(DbAction::Initdb).await;
    assert!(refused.contains("is of PostgreSQL 12") && refused.contains("works with 13 to 18"), "{refused}");
    assert!(!db2.postgresql().data_dir.exists());
    cluster.create("db1").await;
    let rejoin = DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None };
    let refused = db2.refuses(rejoin.clone()).await;
    assert!(refused.contains("is of PostgreSQL 12") && refused.contains("correct bin_dir"), "{refused}");
    let refused = db3.refuses(rejoin).await;
    let says = format!("is of PostgreSQL 99, and db1 runs {}", version());
    assert!(refused.contains(&says), "{refused}");
    // A newer one that knows what it does is let be: an upgrade is not to be what takes the service down.
    db3.done(DbAction::Initdb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_version_that_is_too_old_is_not_started() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1"]);
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    db1.done(DbAction::Initdb).await;
    fs::write(db1.postgresql().data_dir.join("PG_VERSION"), "12\n").expect("written");
    let refused = db1.fails(DbAction::StartStandby { upstream: None }).await;
    assert!(refused.contains("main is of PostgreSQL 12"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_installed_under_a_running_server_waits_for_its_restart() {
    if !possible() {
        return;
    }
    let said = std::process::Command::new(Path::new(bin_dir()).join("postgres")).arg("--version").output();
    let said = String::from_utf8(said.expect("it runs").stdout).expect("text");
    let (_, present) = said.trim().split_once("(PostgreSQL) ").expect("a version");
    let programs = programs_of(present);
    let cluster = Cluster::running_with(&["db1"], |p| p.bin_dir = programs.path().to_owned()).await;
    let db1 = cluster.node("db1");
    // A parameter waits as well, so that it shows that the look is over.
    db1.sql("alter system set max_connections = 77").await;
    db1.sql("select pg_reload_conf()").await;
    db1.engine().look_at_files();
    let waits = |seen: &Observation| seen.files.pending_restart.contains(&"max_connections".to_owned());
    let seen = db1.until("waiting for a restart", waits).await;
    assert_eq!(seen.files.pending_restart, ["max_connections"], "what is installed is what runs");
    install(programs.path(), &format!("{}.99", version()));
    db1.engine().look_at_files();
    let seen = db1.until("updated", |seen| seen.files.pending_restart.len() == 2).await;
    let number = present.split(' ').next().expect("a number");
    assert_eq!(seen.files.pending_restart[0], format!("PostgreSQL {number} to {}.99", version()));
    // Taken back, it is none.
    install(programs.path(), present);
    db1.engine().look_at_files();
    db1.until("as before", |seen| seen.files.pending_restart == ["max_connections"]).await;
}

/// What roles and databases are given counts for everybody who connects, and would end regent's sessions or refuse them.
#[tokio::test(flavor = "multi_thread")]
async fn no_setting_and_no_trigger_keeps_regent_out() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    let mut all = vec![
        "alter role postgres set statement_timeout = '1ms'",
        "alter role postgres set default_transaction_read_only = on",
    ];
    if version() >= 14 {
        all.push("alter role postgres set idle_session_timeout = '1ms'");
    }
    if version() >= 17 {
        all.push(
            "create function refuse() returns event_trigger language plpgsql as \
             $$ begin raise exception 'nobody'; end $$",
        );
        all.push("create event trigger refuse on login execute function refuse()");
        all.push("alter event trigger refuse enable always");
        all.push("alter role postgres set transaction_timeout = '1ms'");
    }
    cluster.node("db1").sql(&all.join("; ")).await;
    if version() >= 17 {
        cluster.node("db1").client().await.expect_err("everybody else is kept out");
    }
    // Another daemon, which connects anew; and what it does with the database from here on.
    cluster.engine("db1");
    cluster.engine("db2");
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
    cluster.node("db2").until("a standby", |seen| seen.state == DbState::Standby && seen.streams_from.is_some()).await;
    // It holds its session, and goes on with it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    db1.done(DbAction::Checkpoint).await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_secs(60));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    db1.until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
}

/// The slot of a logical subscriber is copied to the standby, which goes on serving it as the primary.
#[tokio::test(flavor = "multi_thread")]
async fn the_logical_slots_of_a_primary_outlive_it_where_the_version_copies_them() {
    if !possible() {
        return;
    }
    if version() < 17 {
        return println!("SKIPPED: PostgreSQL {} copies no logical slots to a standby", version());
    }
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| {
        for (name, value) in
            [("wal_level", "logical"), ("sync_replication_slots", "on"), ("hot_standby_feedback", "on")]
        {
            postgresql.parameters.insert(name.to_owned(), value.to_owned());
        }
    })
    .await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("create publication every for all tables").await;
    db1.sql("select pg_create_logical_replication_slot('reader', 'pgoutput', false, false, true)").await;
    let copied = "select count(*) from pg_replication_slots where slot_name = 'reader' and synced and not temporary";
    let client = db2.client().await.expect("in");
    let end = Instant::now() + Duration::from_secs(40);
    while client.query_one(copied, &[]).await.expect("asked").get::<_, i64>(0) == 0 {
        let log = || fs::read_to_string(db2.log()).unwrap_or_default();
        assert!(Instant::now() < end, "the standby has no copy of the slot: {}", log());
        // As a subscriber reads on. The copy becomes lasting once the standby has what the slot goes on from.
        db1.sql("select pg_log_standby_snapshot(); select pg_replication_slot_advance('reader', pg_current_wal_lsn())")
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fail_over(&cluster).await;
    let question = "select count(*) from pg_logical_slot_peek_binary_changes('reader', null, null, \
        'proto_version', '1', 'publication_names', 'every')";
    db2.sql("insert into orders values (1000)").await;
    let client = db2.client().await.expect("in");
    let changes = client.query_one(question, &[]).await.expect("the slot is served").get::<_, i64>(0);
    assert!(changes > 0, "nothing was decoded");
}
