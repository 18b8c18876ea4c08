//! Settings of which a standby must have as much as its primary: raised and lowered in any order, and none of it costs a
//! candidate.

use crate::cluster::{Cluster, Database, LADDER, possible, version};
use regent::config::Postgresql;
use regent::types::{DbAction, DbDone, DbState, Epoch, Observation, Timeline};
use std::time::{Duration, Instant};

/// Other parameters, which only a start brings into force.
async fn take(node: &Database, max_connections: &str) {
    let mut new = node.postgresql().clone();
    new.parameters.insert("max_connections".to_owned(), max_connections.to_owned());
    node.engine().try_out(&new).await.expect("PostgreSQL takes it");
    node.engine().take(new).await.expect("taken");
}

async fn has(node: &Database) -> String {
    let client = node.client().await.expect("it answers");
    client.query_one("show max_connections", &[]).await.expect("answered").get(0)
}

async fn restart_primary(node: &Database) {
    node.done(DbAction::Stop { ladder: LADDER }).await;
    node.lease(1, Duration::from_secs(3600));
    node.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
}

fn fifty(p: &mut Postgresql) {
    p.parameters.insert("max_connections".to_owned(), "50".to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lowered_a_standby_has_once_its_primary_has_less() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], fifty).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let restart_standby = async || {
        db2.done(DbAction::Stop { ladder: LADDER }).await;
        db2.done(DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) }).await;
        db2.until("streaming", |seen| seen.streams_from.is_some()).await;
    };
    take(db2, "40").await;
    let waits = |seen: &Observation| seen.files.lowered == ["max_connections"];
    db2.until("waiting", waits).await;
    restart_standby().await;
    assert_eq!(has(db2).await, "50", "it would not run with less than its primary");
    // Something else waits since then, so that it was looked anew.
    db2.sql("alter system set shared_buffers = '20MB'").await;
    db2.sql("select pg_reload_conf()").await;
    db2.engine().look_at_files();
    let both = |seen: &Observation| seen.files.pending_restart == ["max_connections", "shared_buffers"];
    let seen = db2.until("waiting for both", both).await;
    assert_eq!(seen.files.lowered, ["max_connections"]);
    take(db1, "40").await;
    db1.until("waiting", waits).await;
    restart_primary(db1).await;
    db1.until("in order", |seen| seen.files.pending_restart.is_empty()).await;
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    restart_standby().await;
    assert_eq!((has(db1).await, has(db2).await), ("40".to_owned(), "40".to_owned()));
    db2.until("in order", |seen| seen.files.pending_restart.is_empty() && seen.files.lowered.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_replay_stands_because_its_primary_got_more_takes_over_with_as_much() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], fifty).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    take(db1, "80").await;
    restart_primary(db1).await;
    let ends_there = version() < 14;
    match ends_there {
        // Its next start has as much.
        true => {
            db2.until_state(DbState::Stopped).await;
            db2.done(DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) }).await;
            db2.until("streaming", |seen| seen.streams_from.is_some()).await;
        }
        false => until_paused(db2).await,
    }
    db1.sql("insert into orders values (1)").await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    assert!(ends_there || db2.ids().await.is_empty(), "nothing is replayed");
    let DbDone::Sealed(seal) = db2.done(DbAction::Seal).await else { panic!("no seal") };
    db2.lease(2, Duration::from_secs(3600));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(seal.end.timeline.0 + 1) }).await;
    assert_eq!((db2.ids().await, has(db2).await), (vec![1], "80".to_owned()));
}

async fn until_paused(node: &Database) {
    let client = node.client().await.expect("it answers");
    let end = Instant::now() + Duration::from_secs(30);
    while !client.query_one("select pg_is_wal_replay_paused()", &[]).await.expect("asked").get::<_, bool>(0) {
        assert!(Instant::now() < end, "its replay goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
