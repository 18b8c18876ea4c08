//! Replay that is held up by somebody's session: where the WAL ends is reported all the same, and a promotion ends the
//! session, and not the service's wait for it.

use crate::cluster::{Cluster, Database, possible, timed};
use regent::types::{DbAction, DbDone, Epoch, Timeline};
use std::time::Duration;

/// Far longer than anything here takes, and shorter than the session that holds replay up would stay.
const SOON: Duration = Duration::from_secs(10);

/// The server itself ends nobody's session.
pub fn forever(postgresql: &mut regent::config::Postgresql) {
    for name in ["max_standby_streaming_delay", "max_standby_archive_delay"] {
        postgresql.parameters.insert(name.to_owned(), "-1".to_owned());
    }
}

/// Waits until a question about the node's server is answered with yes.
pub async fn until(node: &Database, what: &str) {
    until_in("postgres", node, what).await;
}

/// The same, asked in this database.
pub async fn until_in(database: &str, node: &Database, what: &str) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let client = node.client_in(database).await.expect("the server lets us in");
        let row = client.query_one(&format!("select {what}"), &[]).await.expect(what);
        if row.get::<_, bool>(0) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two nodes, the second with a session that holds replay up for ever; the first has written more since, which is there and
/// not replayed.
pub async fn held_up(cluster: &Cluster, session: &str, writes: &[&str]) -> tokio_postgres::Client {
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql(
        "insert into orders select generate_series(1, 100); create table other (id int); insert into other values (1)",
    )
    .await;
    until(db2, "to_regclass('other') is not null").await;
    let reader = db2.client().await.expect("the standby lets us in");
    reader.batch_execute(session).await.expect("a session");
    for write in writes {
        db1.sql(write).await;
    }
    let blocked = "exists (select from pg_stat_activity where backend_type = 'startup' \
                   and (wait_event like 'RecoveryConflict%' or wait_event_type = 'Lock'))";
    until(db2, blocked).await;
    db1.sql("insert into orders values (1000)").await;
    until(db2, "pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()").await;
    db1.sql("select pg_switch_wal(); insert into orders values (1001)").await;
    let client = db1.client().await.expect("the primary lets us in");
    let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("its end");
    let end: String = row.get(0);
    until(db2, &format!("pg_last_wal_receive_lsn() >= '{end}'::pg_lsn")).await;
    db1.enclosure().kill();
    reader
}

async fn takes_over(cluster: &Cluster, reader: tokio_postgres::Client) {
    let db2 = cluster.node("db2");
    let (sealed, took) = timed("seal beside a session that holds replay up", db2.done(DbAction::Seal)).await;
    let DbDone::Sealed(seal) = sealed else { panic!("{sealed:?}") };
    assert!(took < SOON, "{took:?}");
    assert!(seal.end.lsn > seal.replayed, "{} is replayed, and {} is there", seal.replayed, seal.end);
    db2.lease(2, Duration::from_secs(60));
    let promotion = db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) });
    let (_, took) = timed("promotion beside a session that holds replay up", promotion).await;
    assert!(took < SOON, "{took:?}");
    let ids = db2.ids().await;
    assert_eq!(ids[ids.len() - 2..], [1000, 1001], "what was received is there");
    assert!(reader.query("select 1", &[]).await.is_err(), "the session was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_holds_replay_up_is_ended_by_a_promotion() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], forever).await;
    let report = "begin isolation level repeatable read; select count(*) from orders";
    let reader = held_up(&cluster, report, &["delete from orders where id <= 100", "vacuum orders"]).await;
    takes_over(&cluster, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_holds_replay_up_is_ended_by_a_promotion() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1", "db2"], forever).await;
    let reader = held_up(&cluster, "begin; select count(*) from other", &["drop table other"]).await;
    takes_over(&cluster, reader).await;
}
