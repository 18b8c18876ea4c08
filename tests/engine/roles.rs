//! What single nodes are for: a standby that follows a standby, and one that replays late.

use crate::cluster::{Cluster, LADDER, possible, timed};
use crate::slots::{names, slots, until_slots};
use regent::config::Member;
use regent::types::{DbAction, DbState, Epoch, Lsn, Timeline};
use std::sync::Arc;
use std::time::Duration;

/// The same part of one node in every file, before any engine is made.
fn with_member(names: &[&'static str], node: &'static str, member: Member) -> Cluster {
    let mut cluster = Cluster::new(names);
    for database in cluster.nodes.values_mut() {
        let config = Arc::make_mut(&mut database.config);
        let service = config.services.values_mut().next().expect("one service");
        service.members.insert(node.parse().expect("a name"), member.clone());
        if config.node.as_str() == node {
            service.postgresql.apply_delay = member.apply_delay;
        }
    }
    for name in names {
        cluster.engine(name);
    }
    cluster
}

async fn end(cluster: &Cluster, name: &str) -> Lsn {
    let client = cluster.node(name).client().await.expect("it answers");
    let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("answered");
    row.get::<_, &str>(0).parse().expect("a position")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_follows_a_standby_has_its_slot_there_and_goes_on_at_the_primary() {
    if !possible() {
        return;
    }
    let member = Member { follow: Some("db2".parse().expect("a name")), ..Member::default() };
    let cluster = with_member(&["db1", "db2", "db3"], "db3", member);
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    // Copied from the primary, and fed by the standby.
    let (primary, standby) = (cluster.upstream("db1"), cluster.upstream("db2"));
    let db3 = cluster.node("db3");
    db3.done(DbAction::Rejoin { upstream: primary.clone(), order: None }).await;
    let from = |name: &'static str| {
        move |seen: &regent::types::Observation| seen.streams_from.as_ref().is_some_and(|node| node.as_str() == name)
    };
    db3.done(DbAction::StartStandby { upstream: Some(standby) }).await;
    timed("start behind a standby", db3.until("fed by db2", from("db2"))).await;
    until_slots(cluster.node("db2"), "a slot for db3", |there| names(there) == ["regent_db3"] && there[0].active).await;
    // The primary keeps what db3 would ask for, and not more.
    cluster.node("db1").sql("insert into orders select generate_series(1, 1000)").await;
    let written = end(&cluster, "db1").await;
    let slot = |there: &[crate::slots::Slot]| there.iter().find(|slot| slot.name == "regent_db3").cloned();
    let advanced = until_slots(cluster.node("db1"), "moved the slot of db3 on", |there| {
        slot(there).is_some_and(|slot| slot.from >= Some(written) && !slot.active)
    });
    advanced.await;
    db3.until("as far as the primary", |seen| seen.position.lsn >= written).await;
    // db2 is gone.
    cluster.node("db2").done(DbAction::Stop { ladder: LADDER }).await;
    timed("turned to the primary", cluster.follow_running("db3", "db1")).await;
    cluster.node("db1").sql("insert into orders values (1001)").await;
    let written = end(&cluster, "db1").await;
    db3.until("as far as the primary", |seen| seen.position.lsn >= written).await;
    assert!(slots(cluster.node("db3")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_replays_late_receives_at_once_and_comes_over_to_the_next_timeline() {
    if !possible() {
        return;
    }
    let delay = Duration::from_secs(3);
    let member = Member { apply_delay: delay, may_lead: false, follow: None };
    let cluster = with_member(&["db1", "db2", "db3"], "db3", member);
    cluster.create("db1").await;
    for name in ["db2", "db3"] {
        cluster.follow(name, "db1").await;
    }
    cluster.node("db1").sql("insert into orders values (1)").await;
    let written = end(&cluster, "db1").await;
    let db3 = cluster.node("db3");
    let seen = db3.until("as far as the primary", |seen| seen.position.lsn >= written).await;
    assert!(seen.replayed < Some(written) && !seen.awaits_wal, "it has replayed at once: {seen:?}");
    assert!(db3.ids().await.is_empty());
    // It is still at the old timeline when the next primary begins.
    let db2 = cluster.node("db2");
    db2.until("as far as the primary", |seen| seen.position.lsn >= written).await;
    db2.done(DbAction::Seal).await;
    cluster.node("db1").enclosure().kill();
    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    db2.sql("insert into orders values (2)").await;
    db3.done(DbAction::Follow { upstream: cluster.upstream("db2") }).await;
    let over = |seen: &regent::types::Observation| {
        seen.state == DbState::Standby && seen.position.timeline.0 == 2 && seen.streams_from.is_some()
    };
    timed("over to the next timeline", db3.until("on timeline 2", over)).await;
    let written = end(&cluster, "db2").await;
    db3.until("as far as the next primary", |seen| seen.replayed >= Some(written)).await;
    assert_eq!(db3.ids().await, [1, 2]);
}
