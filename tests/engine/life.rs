//! Start, adoption, and what must never be started.

use crate::cluster::{Cluster, LADDER, bin_dir, possible, timed};
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbOutcome, DbState, Epoch, Timeline};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_is_opened_only_under_a_lease_for_its_epoch() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1", "db2"]);
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    db1.until_state(DbState::Absent).await;
    let DbDone::Created { system } = timed("initdb", db1.done(DbAction::Initdb)).await.0 else { panic!("created") };
    let again = db1.done(DbAction::Initdb).await;
    assert_eq!(again, DbDone::Created { system }, "asked by who has not seen it yet");
    let seen = db1.until_state(DbState::Stopped).await;
    assert_eq!((seen.system, seen.clean), (Some(system), true));
    let start = DbAction::StartPrimary { epoch: Epoch(1), known: None };
    assert!(db1.fails(start.clone()).await.contains("no lease"));
    db1.lease(2, Duration::from_secs(60));
    assert!(db1.fails(start.clone()).await.contains("for epoch 2"));
    db1.lease(1, Duration::ZERO);
    assert!(db1.fails(start.clone()).await.contains("has ended"));
    assert_eq!(db1.engine().latest().state, DbState::Stopped);
    db1.lease(1, Duration::from_secs(60));
    let DbDone::Writable { position } = db1.done(start.clone()).await else { panic!("writable") };
    assert_eq!(position.timeline.0, 1);
    let seen = db1.until("writable", |seen| seen.writable).await;
    assert_eq!((seen.state, seen.trouble, seen.system), (DbState::Primary, None, Some(system)));
    db1.done(start).await;
    assert!(db1.fails(DbAction::Initdb).await.contains("running"));
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    assert!(db1.fails(DbAction::Initdb).await.contains("not empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_half_made_is_made_anew() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1"]);
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    let begun = db1.postgresql().data_dir.join("PG_VERSION");
    let interrupt = async {
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        db1.engine().perform(DbAction::Stop { ladder: LADDER }).await
    };
    let (making, _) = tokio::join!(db1.engine().perform(DbAction::Initdb), interrupt);
    assert!(matches!(making, DbOutcome::Failed { .. }), "{making:?}");
    db1.until_state(DbState::Unstartable).await;
    db1.lease(1, Duration::from_secs(60));
    db1.fails(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    db1.done(DbAction::Initdb).await;
    assert!(matches!(db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await, DbDone::Writable { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_start_never_opens_a_former_primary_for_writes() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db1 = cluster.node("db1");
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
    let signal = db1.postgresql().data_dir.join("standby.signal");
    assert!(!signal.exists());
    db1.done(DbAction::StartStandby { upstream: None }).await;
    assert!(signal.exists());
    let seen = db1.until_state(DbState::Standby).await;
    assert!(!seen.writable && seen.follows.is_none());
    let refused = db1.client().await.expect("it answers").batch_execute("insert into orders values (1)").await;
    assert_eq!(refused.expect_err("read-only").code().map(|c| c.code()), Some("25006"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_never_ran_opens_on_a_timeline_of_its_own() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db2 = cluster.node("db2");
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    // Its control file is its source's: "in production", on timeline 1.
    std::fs::remove_dir_all(&db2.postgresql().data_dir).expect("removed");
    db2.done(DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None }).await;
    cluster.node("db1").enclosure().kill();
    db2.lease(2, Duration::from_secs(60));
    // It is only started in recovery: the number of its timeline comes with a promotion.
    assert_eq!(db2.done(DbAction::StartPrimary { epoch: Epoch(2), known: None }).await, DbDone::Plain);
    db2.until_state(DbState::Standby).await;
    assert_eq!(db2.done(DbAction::StartPrimary { epoch: Epoch(2), known: None }).await, DbDone::Plain);
    let promote = DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) };
    let DbDone::Writable { position } = db2.done(promote).await else { panic!("writable") };
    assert_eq!(position.timeline.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_the_marker_is_not_started_by_anyone() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let marker = cluster.path().join("db1/.regent-main.unstartable");
    std::fs::write(&marker, "a rewind\n").expect("written");
    db1.until_state(DbState::Unstartable).await;
    db1.lease(1, Duration::from_secs(60));
    for action in [DbAction::StartStandby { upstream: None }, DbAction::StartPrimary { epoch: Epoch(1), known: None }] {
        let error = db1.fails(action).await;
        assert!(error.contains(".regent-main.unstartable") && error.contains("a rewind"), "{error}");
    }
    assert!(db1.engine().processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_database_is_adopted_by_the_next_engine() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1"]).await;
    let before = cluster.node("db1").postmaster();
    cluster.nodes.get_mut("db1").expect("there").drop_engine();
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    let seen = db1.until("writable", |seen| seen.writable).await;
    assert_eq!((seen.state, db1.postmaster()), (DbState::Primary, before));
    // Without a cgroup the same processes are found by their directory.
    let by_directory = regent::engine::enclosure::Enclosure::at(None, &db1.postgresql().data_dir);
    assert!(by_directory.members().len() > 4 && by_directory.members().contains(&before));
    // Backends come and go between two looks; among a few, two agree.
    let agree = || by_directory.members() == db1.enclosure().members();
    assert!((0..50).any(|_| agree()), "{:?} {:?}", by_directory.members(), db1.enclosure().members());
    let DbDone::Stopped { clean, position } = db1.done(DbAction::Stop { ladder: LADDER }).await else {
        panic!("stopped")
    };
    assert!(clean && position.is_some() && db1.enclosure().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_in_the_access_file_outlive_a_restart_and_close_the_role() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let hba = db1.run().join("pg_hba.conf");
    let block = "# regent fence 7 begin\nhost all,replication \"regent_db2\" all reject\n# regent fence 7 end\n";
    let text = std::fs::read_to_string(&hba).expect("written by the engine");
    std::fs::write(&hba, format!("{block}{text}")).expect("written");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_secs(60));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert!(std::fs::read_to_string(&hba).expect("there").starts_with(block));
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    let error = db2.fails(DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None }).await;
    assert!(error.contains("rejects connection"), "{error}");
    db2.until_state(DbState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postmaster_works_in_its_directory_from_the_beginning() {
    if !possible() {
        return;
    }
    let bin = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    let path = bin.path().to_owned();
    for program in std::fs::read_dir(bin_dir()).expect("programs").flatten().filter(|p| p.file_name() != "postgres") {
        std::os::unix::fs::symlink(program.path(), path.join(program.file_name())).expect("linked");
    }
    // In the place of the server: says where it begins, and is the server then.
    let said = "$(dirname \"$0\")/said/where";
    let real = bin_dir();
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *hba_file*) pwd > \"{said}\";; esac\nexec {real}/postgres \"$@\"\n");
    std::fs::write(path.join("postgres"), script).expect("written");
    std::fs::create_dir(path.join("said")).expect("made");
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    std::fs::set_permissions(&path, mode(0o755)).expect("readable");
    std::fs::set_permissions(path.join("postgres"), mode(0o755)).expect("executable");
    std::fs::set_permissions(path.join("said"), mode(0o777)).expect("writable");
    let cluster = Cluster::running_with(&["db1"], |postgresql| postgresql.bin_dir.clone_from(&path)).await;
    let where_it_began = std::fs::read_to_string(path.join("said/where")).expect("it was started");
    assert_eq!(where_it_began.trim(), cluster.node("db1").postgresql().data_dir.display().to_string());
}
