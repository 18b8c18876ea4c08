//! The guard: the database does not outlive its lease, whatever has become of the daemon.

use crate::cluster::{Cluster, LADDER, possible};
use regent::types::{DbAction, DbState, Epoch};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_kills_the_database_at_the_end_of_the_lease_with_the_daemon_gone() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    // The guard of the hour's lease hears of a shorter one, and of its renewal.
    db1.lease(1, Duration::from_millis(600));
    db1.lease(1, Duration::from_millis(2000));
    let end = Instant::now() + Duration::from_millis(2000);
    let enclosure = db1.enclosure();
    cluster.nodes.get_mut("db1").expect("there").drop_engine();
    let early = end - Duration::from_millis(100);
    tokio::time::sleep(early.saturating_duration_since(Instant::now())).await;
    assert!(!enclosure.is_empty(), "killed before the renewed lease had ended");
    tokio::time::timeout(Duration::from_secs(3), enclosure.emptied()).await.expect("killed by the guard");
    println!("TIME lease end to empty: {:?}", end.elapsed());
    assert!(end.elapsed() < Duration::from_millis(500), "{:?}", end.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_leaves_a_database_alone_that_was_stopped_and_started_as_a_standby() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_millis(2500));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1) }).await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.done(DbAction::StartStandby { upstream: None }).await;
    tokio::time::sleep(Duration::from_millis(3000)).await;
    assert_eq!(db1.until_state(DbState::Standby).await.state, DbState::Standby);
    assert!(!db1.enclosure().is_empty());
}
