//! What a server says of itself before a planned move: each thing that a move meets, once it is there and not before.

use crate::blocked::{forever, held_up, until};
use crate::cluster::{Cluster, Database, bin_dir, possible};
use crate::slots::Reader;
use regent::types::{Observation, Survey};
use std::process::{Command, Stdio};

async fn survey(node: &Database) -> Survey {
    node.engine().survey().await.expect("it answers")
}

/// Prepared transactions and logical slots are possible, and every file fails in the archive until `fixed` is there.
fn burdened(fixed: &std::path::Path) -> impl Fn(&mut regent::config::Postgresql) {
    let archive = format!("test -e {}", fixed.display());
    move |postgresql| {
        let settings = [
            ("max_prepared_transactions", "10"),
            ("wal_level", "logical"),
            ("archive_mode", "on"),
            ("archive_command", archive.as_str()),
        ];
        for (name, value) in settings {
            postgresql.parameters.insert(name.to_owned(), value.to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_says_what_its_stop_would_meet() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let fixed = folder.path().join("fixed");
    let cluster = Cluster::running_with(&["db1", "db2"], burdened(&fixed)).await;
    let db1 = cluster.node("db1");
    let quiet = survey(db1).await;
    assert!(quiet.checkpoint.is_some(), "{quiet:?}");
    assert_eq!((quiet.prepared, quiet.open.count, quiet.readers.len()), (None, 0, 0));
    assert_eq!((quiet.stranded_slots, quiet.replay), (Vec::<String>::new(), None));

    // It would wait for whatever transaction is open.
    db1.sql("select pg_create_logical_replication_slot('search', 'test_decoding')").await;
    let client = db1.client().await.expect("a session");
    client.batch_execute("set application_name = 'ledger'; begin; insert into orders values (1)").await.expect("open");
    db1.sql("begin; insert into orders values (2); prepare transaction 'transfer 17'").await;
    db1.sql("select pg_switch_wal(); insert into orders values (3); select pg_switch_wal()").await;
    until(db1, "exists (select from pg_stat_archiver where failed_count > 0)").await;
    until(db1, "exists (select from pg_stat_activity where xact_start < clock_timestamp() - interval '2 seconds')")
        .await;
    let burdened = survey(db1).await;
    let prepared = burdened.prepared.expect("one is prepared");
    assert_eq!((prepared.count, prepared.oldest.0.as_str()), (1, "transfer 17"));
    let open = &burdened.open.named[0];
    assert_eq!((burdened.open.count, open.application.as_str()), (1, "ledger"));
    assert_eq!(open.state, "idle in transaction");
    assert!(open.age >= 2, "{open:?}");
    assert_eq!(burdened.stranded_slots, ["search"]);
    let archiver = burdened.archiver.expect("there is one");
    assert!(archiver.waiting > 0 && archiver.failing.is_some(), "{archiver:?}");
    assert!(burdened.checkpoint.is_some_and(|last| last.wal > 0));

    std::fs::write(&fixed, "").expect("written");
    db1.sql("select pg_switch_wal()").await;
    until(
        db1,
        "exists (select from pg_stat_archiver where archived_count > 0 and last_archived_time > last_failed_time)",
    )
    .await;
    assert_eq!(survey(db1).await.archiver.and_then(|archiver| archiver.failing), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_named_and_the_own_standby_is_not() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db1 = cluster.node("db1");
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = cluster.upstream("db1");
    let mut command = Command::new(format!("{}/pg_basebackup", bin_dir()));
    command.args(["-h", &upstream.addresses[0].to_string(), "-p", &upstream.port.to_string(), "-U", "regent_db2"]);
    command.args(["--max-rate=64", "-Xnone", "-cfast", "-D"]).arg(folder.path().join("copy")).stderr(Stdio::null());
    let slow = Reader(command.spawn().expect("it starts"));
    until(db1, "exists (select from pg_stat_replication where state = 'backup')").await;
    let survey = survey(db1).await;
    drop(slow);
    let readers: Vec<_> = survey.readers.iter().map(|reader| (reader.application.as_str(), reader.copies)).collect();
    assert_eq!(readers, [("pg_basebackup", true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_says_who_holds_its_replay_up() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], forever).await;
    let quiet = survey(cluster.node("db2")).await;
    assert_eq!(quiet.checkpoint, None, "that is a primary's");
    let replay = quiet.replay.expect("it is a standby");
    assert_eq!(replay.held_by.count, 0, "{replay:?}");
    let session = "set application_name = 'report'; begin isolation level repeatable read; select count(*) from orders";
    let reader = held_up(&cluster, session, &["delete from orders", "vacuum orders"]).await;
    let replay = survey(cluster.node("db2")).await.replay.expect("it is a standby");
    assert!(replay.bytes > 0 && replay.age.is_some(), "{replay:?}");
    assert_eq!((replay.held_by.count, replay.held_by.named[0].application.as_str()), (1, "report"));
    let lags = |seen: &Observation| seen.replay.is_some_and(|lag| lag.bytes > 0 && lag.seconds >= 2 && lag.still >= 2);
    let seen = cluster.node("db2").until("standing still", lags).await;
    assert_eq!(seen.replay.map(|lag| lag.delay), Some(0));
    reader.batch_execute("commit").await.expect("it ends");
    cluster.node("db2").until("done with it", |seen| seen.replay.is_none()).await;
}
