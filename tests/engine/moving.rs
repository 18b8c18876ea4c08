//! The primary moves: by force (seal, promote, follow) and in order (the final position), with times.

use crate::cluster::{Cluster, LADDER, possible, timed};
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbState, Epoch, Seal, Timeline};
use std::time::Duration;

async fn seal(node: &crate::cluster::Database) -> Seal {
    match timed("seal", node.done(DbAction::Seal)).await.0 {
        DbDone::Sealed(seal) => seal,
        other => panic!("not sealed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_standby_receives_nothing_until_it_follows_again() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    let first = seal(db2).await;
    assert_eq!((first.end.timeline.0, first.end.lsn, first.history.0.len()), (1, first.replayed, 0));
    db1.sql("insert into orders values (2)").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let second = seal(db2).await;
    assert_eq!(second.end, first.end, "it grew after it was sealed");
    assert_eq!(db2.ids().await, [1]);
    timed("follow", db2.done(DbAction::Follow { upstream: cluster.upstream("db1") })).await;
    db2.until_ids(&[1, 2]).await;
    assert!(seal(db2).await.end.lsn > first.end.lsn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_and_the_others_follow_it_without_a_restart() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let (db1, db2, db3) = (cluster.node("db1"), cluster.node("db2"), cluster.node("db3"));
    db1.sql("insert into orders select generate_series(1, 1000)").await;
    let mut ids: Vec<i64> = (1..=1000).collect();
    db2.until_ids(&ids).await;
    db1.enclosure().kill();
    let end = seal(db2).await.end;
    assert!(db2.fails(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await.contains("no lease"));
    assert!(db2.engine().latest().state == DbState::Standby);
    db2.lease(2, Duration::from_secs(60));
    let promoted = timed("promote", db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) })).await.0;
    let DbDone::Writable { position } = promoted else { panic!("{promoted:?}") };
    assert_eq!(position.timeline.0, 2);
    assert!(position.lsn > end.lsn);
    db2.sql("insert into orders values (2000)").await;
    let seen = db2.until("writable", |seen| seen.writable).await;
    assert_eq!(seen.history.left_at(Timeline(1)), Some(end.lsn), "the fork is where it was sealed");
    let before = db3.postmaster();
    db3.done(DbAction::Follow { upstream: cluster.upstream("db2") }).await;
    let seen = db3.until("on timeline 2", |seen| seen.position.timeline.0 == 2 && seen.streams_from.is_some()).await;
    assert_eq!(seen.streams_from, Some("db2".parse().expect("a name")));
    assert_eq!(db3.postmaster(), before);
    ids.push(2000);
    db3.until_ids(&ids).await;
    // The new primary makes the roles and grants that are missing, and knows its own timeline by a checkpoint.
    let client = db2.client().await.expect("it answers");
    let roles = client.query("select 1 from pg_roles where rolname like 'regent\\_db_'", &[]).await.expect("roles");
    assert_eq!(roles.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_names_exactly_the_position_that_the_standby_reaches() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    for round in 0..3 {
        // Different lengths of WAL, so that the last record lies differently in its page.
        db1.sql(&format!("insert into orders select generate_series({0}, {0} + 37 * {round})", round * 1000 + 1)).await;
        let stopped = timed("fast stop, idle", db1.done(DbAction::Stop { ladder: LADDER })).await.0;
        let DbDone::Stopped { clean: true, position: Some(end) } = stopped else { panic!("{stopped:?}") };
        assert_eq!(seal(db2).await.end, end);
        let seen = db1.until_state(DbState::Stopped).await;
        assert_eq!((seen.clean, seen.position), (true, end));
        db1.lease(1, Duration::from_secs(60));
        timed("start", db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None })).await;
        db2.done(DbAction::Follow { upstream: cluster.upstream("db1") }).await;
        db2.until("streaming", |seen| seen.streams_from.is_some()).await;
    }
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    seal(db2).await;
    db2.lease(2, Duration::from_secs(60));
    timed("promote", db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) })).await;
    let rejoined = cluster.follow("db1", "db2").await;
    let DbDone::Rejoined { how, kept: None } = rejoined else { panic!("{rejoined:?}") };
    assert!(how.contains("nothing to do"), "{how}");
}
