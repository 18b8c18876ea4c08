//! What people do to the database in which regent is at home, and to the superuser's settings, costs no primary and no standby.

use crate::cluster::{Cluster, Database, possible};
use crate::coming_back::fail_over;
use regent::types::DbState;
use std::time::{Duration, Instant};

/// As somebody whom no setting of a role or a database touches.
async fn sql_elsewhere(node: &Database, statement: &str) {
    let mut config = tokio_postgres::Config::new();
    config.host_path(node.run().join("socket")).port(node.postgresql().port).user("postgres").dbname("template1");
    config
        .options("-c role=none -c statement_timeout=0 -c search_path=pg_catalog -c default_transaction_read_only=off");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// It writes, also after every session that was open has ended.
async fn still_serves(cluster: &Cluster, what: &str) {
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    for node in [db1, db2] {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' \
            and pid <> pg_backend_pid()";
        sql_elsewhere(node, end).await;
    }
    let is_open =
        |seen: &regent::types::Observation| seen.state == DbState::Primary && seen.writable && seen.trouble.is_none();
    tokio::time::sleep(Duration::from_millis(700)).await;
    db1.until(&format!("serving after {what}"), is_open).await;
    let follows = |seen: &regent::types::Observation| seen.state == DbState::Standby && seen.streams_from.is_some();
    db2.until(&format!("following after {what}"), follows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_postgres_that_is_gone_or_closed_is_there_again_and_nobody_stops_for_it() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let postmasters = (db1.postmaster(), db2.postmaster());
    for change in [
        "alter database postgres allow_connections false",
        "alter database postgres connection limit 0",
        "drop database postgres with (force)",
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'; \
         alter database postgres rename to app",
    ] {
        let client = db1.client_in("template1").await.expect("it answers");
        for statement in change.split("; ") {
            // Somebody may have come in between.
            let mut done = client.batch_execute(statement).await;
            while done.is_err() {
                let away = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'";
                client.batch_execute(away).await.expect("ended");
                done = client.batch_execute(statement).await;
            }
        }
        drop(client);
        still_serves(&cluster, change).await;
        let begun = Instant::now();
        while let Err(error) = db1.client().await {
            assert!(begun.elapsed() < Duration::from_secs(10), "{change}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        db1.engine().tend_roles().await.expect("it can");
    }
    assert_eq!((db1.postmaster(), db2.postmaster()), postmasters, "nothing was restarted");
    // Every new database is free of what is regent's, and can be made.
    sql_elsewhere(db1, "create database fresh").await;
    let fresh = db1.client_in("fresh").await.expect("it answers");
    let row = fresh.query_one("select to_regnamespace('regent') is null", &[]).await.expect("asked");
    assert!(row.get::<_, bool>(0));
    db1.sql("create table orders (id bigint primary key)").await;
    let replayed = db2.client().await.expect("it answers");
    while replayed.query_one("select to_regclass('orders') is null", &[]).await.expect("asked").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(replayed);
    fail_over(&cluster).await;
    let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
    assert!(rewound.contains("rewound"), "{rewound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_superuser_and_of_its_database_change_nothing_for_regent() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    for whose in ["role postgres", "database postgres", "role all"] {
        for setting in [
            "default_transaction_read_only = on",
            "default_transaction_isolation = serializable",
            "statement_timeout = 1",
            "idle_in_transaction_session_timeout = 1",
            "search_path = nowhere",
            "log_statement = 'all'",
            "role = pg_monitor",
            "datestyle = 'German'",
            "lc_messages = 'C'",
            "bytea_output = 'escape'",
            "intervalstyle = 'iso_8601'",
            "synchronous_commit = on",
            "client_min_messages = debug5",
        ] {
            sql_elsewhere(cluster.node("db1"), &format!("alter {whose} set {setting}")).await;
        }
        cluster.engine("db1");
        cluster.engine("db2");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let seen = cluster.node("db1").until("serving", |seen| seen.writable && seen.trouble.is_none()).await;
        assert_eq!(seen.state, DbState::Primary);
        cluster.node("db2").until("following", |seen| seen.streams_from.is_some() && seen.trouble.is_none()).await;
        sql_elsewhere(cluster.node("db1"), &format!("alter {whose} reset all")).await;
    }
    cluster.node("db1").engine().tend_roles().await.expect("it can");
    fail_over(&cluster).await;
    let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
    assert!(rewound.contains("rewound"), "{rewound}");
}
