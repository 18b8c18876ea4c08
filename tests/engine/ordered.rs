//! What a person decides on a node's data: they are copied anew, whatever they are, or what is there wins.

use crate::cluster::{Cluster, LADDER, bin_dir, possible};
use regent::types::{DbAction, DbDone, DbState, Epoch, Timeline};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_copied_anew_on_order_whatever_it_is() {
    if !possible() {
        return;
    }
    let (cluster, other) = (Cluster::running(&["db1", "db2"]).await, Cluster::running(&["db1"]).await);
    let (db2, another) = (cluster.node("db2"), other.node("db1"));
    let upstream = cluster.upstream("db1");
    // A standby that could go on as it is.
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    let done = db2.done(DbAction::Rejoin { upstream: upstream.clone(), order: Some(1) }).await;
    let DbDone::Rejoined { how, .. } = done else { panic!("{done:?}") };
    assert_eq!(how, "cloned: on order");
    db2.done(DbAction::StartStandby { upstream: Some(upstream.clone()) }).await;
    db2.until("streaming", |seen| seen.streams_from.as_ref() == Some(&"db1".parse().expect("valid"))).await;
    // Another cluster's: without an order it is refused.
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    another.done(DbAction::Stop { ladder: LADDER }).await;
    let main = db2.postgresql().data_dir.clone();
    std::fs::rename(&main, cluster.path().join("right")).expect("it is there");
    std::fs::rename(&another.postgresql().data_dir, &main).expect("it is there");
    let refused = db2.refuses(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
    assert!(refused.contains("regent reinit") && refused.contains("regent accept"), "{refused}");
    let done = db2.done(DbAction::Rejoin { upstream: upstream.clone(), order: Some(2) }).await;
    assert!(matches!(&done, DbDone::Rejoined { how, .. } if how == "cloned: on order"), "{done:?}");
    db2.done(DbAction::StartStandby { upstream: Some(upstream) }).await;
    db2.until("streaming", |seen| seen.streams_from.as_ref() == Some(&"db1".parse().expect("valid"))).await;
}

/// It begins a timeline of its own, with the number that the service gives it.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_opened_once_it_was_accepted() {
    if !possible() {
        return;
    }
    let (cluster, other) = (Cluster::running(&["db1"]).await, Cluster::running(&["db1"]).await);
    let (db1, another) = (cluster.node("db1"), other.node("db1"));
    let client = another.client().await.expect("it answers");
    client.batch_execute("create table kept as select 42 as answer").await.expect("it takes writes");
    drop(client);
    let stop = || DbAction::Stop { ladder: LADDER };
    db1.done(stop()).await;
    another.done(stop()).await;
    let main = db1.postgresql().data_dir.clone();
    std::fs::rename(&main, cluster.path().join("right")).expect("it is there");
    std::fs::rename(&another.postgresql().data_dir, &main).expect("it is there");
    let start = DbAction::StartStandby { upstream: None };
    let why = db1.fails(start.clone()).await;
    assert!(why.contains("regent accept") && why.contains("regent reinit"), "{why}");
    db1.done(DbAction::AcceptCopy { order: 1 }).await;
    db1.done(start).await;
    db1.until_state(DbState::Standby).await;
    assert!(matches!(db1.done(DbAction::Seal).await, DbDone::Sealed(_)));
    db1.lease(5, Duration::from_secs(600));
    let done = db1.done(DbAction::Promote { epoch: Epoch(5), timeline: Timeline(7) }).await;
    assert!(matches!(done, DbDone::Writable { position } if position.timeline == Timeline(7)), "{done:?}");
    let client = db1.client().await.expect("it answers");
    let row = client.query_one("select answer from kept", &[]).await.expect("it has the other's table");
    assert_eq!(row.get::<_, i32>(0), 42);
}

/// It was looked at by hand with the server's own settings, which are above those of the service: recovery needs as much.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_ran_with_higher_settings_is_started_all_the_same() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let control = || {
        let data = db1.postgresql().data_dir.clone();
        let server = Command::new("runuser")
            .args(["-u", "postgres", "--"])
            .arg(Path::new(bin_dir()).join("postgres"))
            .args(["--single", "-c", "max_connections=500", "-D"])
            .arg(data)
            .arg("postgres")
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert!(server.status.success(), "{server:?}");
    };
    control();
    db1.done(DbAction::StartStandby { upstream: None }).await;
    db1.until_state(DbState::Standby).await;
    let client = db1.client().await.expect("it answers");
    let row = client.query_one("show max_connections", &[]).await.expect("answered");
    assert_eq!(row.get::<_, &str>(0), "500");
}
