//! An old primary becomes a standby again: rewound, cloned, or refused; what only it had is kept.

use crate::cluster::{Cluster, LADDER, bin_dir, possible, timed};
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbState, Epoch, Timeline};
use std::path::Path;
use std::time::Duration;

/// The first node is killed with row 2 that nobody else has; the second takes over and writes row 3.
pub async fn fail_over(cluster: &Cluster) {
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db2.done(DbAction::Seal).await;
    db1.sql("insert into orders values (2)").await;
    db1.enclosure().kill();
    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    db2.sql("insert into orders values (3)").await;
    db1.until_state(DbState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_is_rewound_and_its_own_wal_is_kept() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    fail_over(&cluster).await;
    let db1 = cluster.node("db1");
    let rejoined = timed("rejoin by rewind", cluster.follow("db1", "db2")).await.0;
    let DbDone::Rejoined { how, kept: Some(kept) } = rejoined else { panic!("{rejoined:?}") };
    assert!(how.contains("rewound"), "{how}");
    db1.until_ids(&[1, 3]).await;
    let seen = db1.until_state(DbState::Standby).await;
    assert_eq!((seen.position.timeline.0, seen.writable), (2, false));
    let folder = kept.clone();
    let kept = Path::new(&kept);
    assert!(kept.join("000000010000000000000001").exists() || kept.read_dir().expect("a folder").count() > 1);
    let note = std::fs::read_to_string(kept.join("README")).expect("it says what it is");
    assert!(note.contains("timeline 1"), "{note}");
    assert!(!cluster.path().join("db1/.regent-main.unstartable").exists());
    // What came with the rewind is the other node's, and was put right.
    let conf = std::fs::read_to_string(db1.postgresql().data_dir.join("postgresql.auto.conf")).expect("there");
    assert!(conf.contains("application_name=''db1''") && conf.matches("primary_conninfo").count() == 1, "{conf}");
    // The next daemon finds it, whether or not this one has said so.
    assert_eq!(seen.kept, Vec::<String>::new(), "nothing lay there when this one started");
    cluster.engine("db1");
    assert_eq!(cluster.node("db1").until_state(DbState::Standby).await.kept, [folder]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_is_cloned_when_the_rewind_fails() {
    if !possible() {
        return;
    }
    let bin = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    let path = bin.path().to_owned();
    for program in std::fs::read_dir(bin_dir()).expect("programs").flatten() {
        let target = if program.file_name() == "pg_rewind" { "/bin/false".into() } else { program.path() };
        std::os::unix::fs::symlink(target, path.join(program.file_name())).expect("linked");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("readable");
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| postgresql.bin_dir.clone_from(&path)).await;
    fail_over(&cluster).await;
    let rejoined = timed("rejoin by clone", cluster.follow("db1", "db2")).await.0;
    let DbDone::Rejoined { how, kept: Some(kept) } = rejoined else { panic!("{rejoined:?}") };
    assert!(how.contains("cloned: the rewind failed"), "{how}");
    assert!(Path::new(&kept).join("README").exists(), "the divergent WAL was kept before the rewind was tried");
    cluster.node("db1").until_ids(&[1, 3]).await;
    let aside = std::fs::read_dir(cluster.path().join("db1")).expect("there").flatten();
    let aside = aside.filter(|e| e.file_name().to_string_lossy().starts_with("main.replaced-")).count();
    assert_eq!(aside, 1, "the old directory is aside");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_rewind_ends_in_a_clone() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    fail_over(&cluster).await;
    let db1 = cluster.node("db1");
    std::fs::write(cluster.path().join("db1/.regent-main.unstartable"), "a rewind\n").expect("written");
    std::fs::remove_file(db1.postgresql().data_dir.join("global/pg_control")).expect("torn");
    let rejoined = cluster.follow("db1", "db2").await;
    let DbDone::Rejoined { how, .. } = rejoined else { panic!("{rejoined:?}") };
    assert!(how.contains("a rewind was unfinished"), "{how}");
    db1.until_ids(&[1, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_database_is_refused_and_named() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1"]).await;
    let mut other = Cluster::new(&["db1", "db2"]);
    other.engine("db2");
    other.node("db2").done(DbAction::Initdb).await;
    let upstream = cluster.upstream("db1");
    // The role of db2 does not exist in the first database: it is made, so that only the identifier differs.
    let role = "create role regent_db2 login replication; grant pg_read_server_files to regent_db2";
    cluster.node("db1").sql(role).await;
    let hba = cluster.node("db1").run().join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).expect("there");
    std::fs::write(&hba, format!("host all regent_db2 127.0.0.0/8 trust\n{text}")).expect("written");
    cluster.node("db1").sql("select pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = other.node("db2").fails(DbAction::Rejoin { upstream, order: None }).await;
    assert!(error.contains("system identifier") && error.contains("no copy of its database"), "{error}");
    other.node("db2").until_state(DbState::Stopped).await;
    cluster.engine("db1");
    cluster.node("db1").done(DbAction::Stop { ladder: LADDER }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_standby_is_compared_with_its_upstream_and_left_as_it_is() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let (db1, db2, db3) = (cluster.node("db1"), cluster.node("db2"), cluster.node("db3"));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db2.done(DbAction::Seal).await;
    db2.until("waiting for WAL", |seen| seen.awaits_wal && seen.streams_from.is_none()).await;
    let compare = |upstream| DbAction::Compare { upstream: cluster.upstream(upstream) };
    assert_eq!(db2.done(compare("db1")).await, DbDone::Compared { unfit: None });
    // What only db3 gets lies past the point at which db2 leaves.
    db1.sql("insert into orders values (2)").await;
    db3.until_ids(&[1, 2]).await;
    db1.enclosure().kill();
    let failed = db3.fails(compare("db1")).await;
    assert!(failed.contains("upstream"), "{failed}");
    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let postmaster = db3.postmaster();
    let DbDone::Compared { unfit: Some(why) } = db3.done(compare("db2")).await else { panic!("it cannot follow") };
    assert!(why.contains("db2 left it at"), "{why}");
    assert_eq!((db3.engine().latest().state, db3.postmaster()), (DbState::Standby, postmaster));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_upstream_has_removed_the_wal_that_it_needs_is_told_apart_and_cloned() {
    if !possible() {
        return;
    }
    let keeps_nothing = |postgresql: &mut regent::config::Postgresql| {
        let sizes = [
            ("wal_keep_size", "0"),
            ("max_slot_wal_keep_size", "16MB"),
            ("min_wal_size", "32MB"),
            ("max_wal_size", "32MB"),
        ];
        for (name, value) in sizes {
            postgresql.parameters.insert(name.to_owned(), value.to_owned());
        }
    };
    let cluster = Cluster::running_with(&["db1", "db2"], keeps_nothing).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    for _ in 0..8 {
        db1.sql("insert into orders select max(id) + 1 from orders").await;
        db1.sql("select pg_switch_wal()").await;
        db1.sql("checkpoint").await;
    }
    let upstream = cluster.upstream("db1");
    db2.done(DbAction::StartStandby { upstream: Some(upstream.clone()) }).await;
    db2.until("waiting for WAL", |seen| seen.awaits_wal && seen.streams_from.is_none()).await;
    let compared = db2.done(DbAction::Compare { upstream: upstream.clone() }).await;
    let DbDone::Compared { unfit: Some(why) } = compared else { panic!("it goes on asking: {compared:?}") };
    assert!(why.contains("has removed the WAL after"), "{why}");
    // Stopped, it is no other: its history fits, and it lacks what is gone.
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    let rejoined = cluster.follow("db2", "db1").await;
    let DbDone::Rejoined { how, .. } = rejoined else { panic!("{rejoined:?}") };
    assert!(how.contains("cloned: the upstream has removed the WAL after"), "{how}");
    db2.until_ids(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    assert_eq!(db2.done(DbAction::Compare { upstream }).await, DbDone::Compared { unfit: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_works_where_a_transaction_was_prepared() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| {
        postgresql.parameters.insert("max_prepared_transactions".into(), "5".into());
    })
    .await;
    cluster.node("db1").sql("begin; insert into orders values (7); prepare transaction 'open'").await;
    fail_over(&cluster).await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("rewound"), "{how}");
    cluster.node("db2").sql("commit prepared 'open'").await;
    cluster.node("db1").until_ids(&[1, 3, 7]).await;
}
