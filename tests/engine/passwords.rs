//! The replication password: set where somebody began without, changed while everything runs, put right where somebody changed
//! it; odd ones and odd users through a full round.

use crate::blocked::until;
use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible};
use crate::coming_back::fail_over;
use regent::config::Postgresql;
use regent::types::{DbAction, DbState, Epoch, Lack, Timeline, Unfit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const NAMES: [&str; 2] = ["db1", "db2"];

fn file(node: &Database) -> PathBuf {
    node.postgresql().data_dir.with_file_name("replication.pw")
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mine");
}

fn with_password(postgresql: &mut Postgresql) {
    postgresql.replication_password_file = Some(postgresql.data_dir.with_file_name("replication.pw"));
}

async fn cluster(names: &[&'static str], password: &str, change: impl Fn(&mut Postgresql)) -> Cluster {
    let mut cluster = Cluster::with(names, |postgresql| {
        with_password(postgresql);
        change(postgresql);
    });
    for name in names {
        put(&file(cluster.node(name)), password);
        cluster.engine(name);
    }
    cluster.create(names[0]).await;
    for name in &names[1..] {
        cluster.follow(name, names[0]).await;
    }
    cluster
}

/// As `regent reload` does it.
async fn reload(node: &Database, postgresql: &Postgresql) -> Vec<String> {
    node.engine().try_out(postgresql).await.expect("PostgreSQL takes it");
    node.engine().take(postgresql.clone()).await.expect("taken").roles
}

/// Ends every stream, and waits for the next one: what a standby logs in with now is let in.
async fn streams_anew(primary: &Database, standby: &Database) {
    let sender = "select pid::text from pg_stat_replication where state = 'streaming'";
    until(primary, &format!("exists ({sender})")).await;
    let client = primary.client().await.expect("it answers");
    let before: String = client.query_one(sender, &[]).await.expect("one stream").get(0);
    client.batch_execute("select pg_terminate_backend(pid) from pg_stat_replication").await.expect("ended");
    let begun = Instant::now();
    until(primary, &format!("exists (select from ({sender}) s (pid) where pid <> '{before}')")).await;
    println!("TIME until it streams again: {:?}", begun.elapsed());
    standby.until("streaming", |seen| seen.streams_from.is_some()).await;
}

/// Whether the primary lets db2's role in with this password.
fn lets_in(primary: &Database, role: &str, password: &str) -> Result<(), String> {
    let (address, port) = (primary.config.me().primary, primary.postgresql().port);
    let mut command = Command::new(Path::new(bin_dir()).join("psql"));
    command.args([
        "-XtA",
        "-h",
        &address.to_string(),
        "-p",
        &port.to_string(),
        "-U",
        role,
        "-c",
        "select 1",
        "postgres",
    ]);
    command.env("PGPASSWORD", password).env("HOME", "/nonexistent").current_dir("/");
    let output = command.output().expect("psql runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_in_operation_on_the_hosts_in_any_order() {
    if !possible() {
        return;
    }
    for order in [["db1", "db2"], ["db2", "db1"]] {
        let cluster = cluster(&NAMES, "old", |_| {}).await;
        let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
        let postmasters = (db1.postmaster(), db2.postmaster());
        for text in ["old\nnew\n", "new\nold\n", "new\n"] {
            for name in order {
                let node = cluster.node(name);
                put(&file(node), text);
                let said = reload(node, node.postgresql()).await;
                println!("{order:?} {text:?} {name}: {said:?}");
                assert_eq!(!said.is_empty(), name == "db1" && text == "new\nold\n", "{said:?}");
                streams_anew(db1, db2).await;
            }
        }
        lets_in(db1, "regent_db2", "new").expect("the new one");
        let refused = lets_in(db1, "regent_db2", "old").expect_err("the old one is none any more");
        assert!(refused.contains("password authentication failed"), "{refused}");
        assert_eq!((db1.postmaster(), db2.postmaster()), postmasters, "nothing was restarted");
        // And a rewind logs in with it.
        fail_over(&cluster).await;
        let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
        assert!(rewound.contains("rewound"), "{rewound}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_the_new_password_streams_on_and_says_that_it_could_not_come_back() {
    if !possible() {
        return;
    }
    let mut cluster = cluster(&NAMES, "old", |_| {}).await;
    put(&file(cluster.node("db1")), "new\n");
    let said = reload(cluster.node("db1"), cluster.node("db1").postgresql()).await;
    assert_eq!(said.len(), 2, "{said:?}");
    cluster.engine("db2");
    let lacks = |unfit: &[Unfit]| unfit.iter().any(|unfit| unfit.kind() == Lack::Rejoin);
    let db2 = cluster.node("db2");
    let seen = db2.until("told apart", |seen| lacks(&seen.unfit)).await;
    let told = seen.unfit.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("password authentication failed") && seen.streams_from.is_some(), "{told}");
    cluster.node("db1").sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    put(&file(db2), "new\n");
    reload(db2, db2.postgresql()).await;
    streams_anew(cluster.node("db1"), db2).await;
    db2.until("cured", |seen| !lacks(&seen.unfit)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_began_without_a_password_gets_one_while_it_runs() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&NAMES).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let postmasters = (db1.postmaster(), db2.postmaster());
    lets_in(db1, "regent_db2", "").expect("nothing is asked for");
    // The standbys first, then the primary.
    for node in [db2, db1] {
        let mut new = node.postgresql().clone();
        with_password(&mut new);
        put(&file(node), "secret\n");
        reload(node, &new).await;
        streams_anew(db1, db2).await;
    }
    let refused = lets_in(db1, "regent_db2", "").expect_err("one is asked for");
    assert!(refused.contains("password"), "{refused}");
    lets_in(db1, "regent_db2", "secret").expect("this one");
    assert_eq!((db1.postmaster(), db2.postmaster()), postmasters, "nothing was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_of_the_replication_roles_the_primary_puts_right() {
    if !possible() {
        return;
    }
    let cluster = cluster(&NAMES, "secret", |_| {}).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let role = "regent_db2";
    for change in [
        "alter role regent_db2 password 'another'",
        "set password_encryption = 'md5'; alter role regent_db2 password 'secret'",
        "alter role regent_db2 password null",
        "alter role regent_db2 valid until '2001-01-01'",
        "alter role regent_db2 nologin noreplication noinherit connection limit 0",
        "alter role regent_db2 set default_transaction_read_only = on",
        "alter role regent_db2 set statement_timeout = '1ms'",
        "alter role regent_db2 in database postgres set search_path = nowhere",
        "revoke pg_read_all_stats, pg_read_all_settings from regent_db2",
        "alter default privileges revoke execute on functions from public; \
         revoke execute on function pg_control_system(), pg_control_init(), pg_walfile_name(pg_lsn) from public",
        "revoke select on pg_stat_wal_receiver, pg_settings, pg_roles from public",
        "revoke connect on database postgres from public",
        "alter database postgres connection limit 1",
        "revoke all on all functions in schema pg_catalog from regent_db2; drop owned by regent_db2; drop role regent_db2",
    ] {
        db1.sql(change).await;
        let said = db1.engine().tend_roles().await.expect("it can");
        println!("{change}: {said:?}");
        assert!(!said.is_empty(), "{change}");
        assert_eq!(db1.engine().tend_roles().await.expect("it can"), [""; 0], "{change}");
        streams_anew(db1, db2).await;
        lets_in(db1, role, "secret").unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    // What a fence took stays taken, and is told.
    db1.sql("comment on role regent_db2 is 'regent fence 7 of node db2: NOLOGIN'; alter role regent_db2 nologin").await;
    assert_eq!(db1.engine().tend_roles().await.expect("it can"), [""; 0]);
    db1.sql("comment on role regent_db2 is 'mine'").await;
    assert_eq!(db1.engine().tend_roles().await.expect("it can").len(), 1);
    // A standby changes nothing.
    assert_eq!(db2.engine().tend_roles().await.expect("it can"), [""; 0]);
    fail_over(&cluster).await;
    let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
    assert!(rewound.contains("rewound"), "{rewound}");
}

/// Start, loss of the primary, rewind, copy, and back in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_round_with_an_odd_password_and_odd_users() {
    if !possible() {
        return;
    }
    let password = "it's \"a\" \\ : = # 100% $1 {one}; pässwörd ½";
    let cluster = cluster(&["db1", "db2", "db3"], password, |postgresql| {
        postgresql.replication_user = "Replikator-Größe.1".to_owned();
        postgresql.parameters.insert("password_encryption".to_owned(), "md5".to_owned());
        postgresql.parameters.insert("log_statement".to_owned(), "all".to_owned());
    });
    let cluster = cluster.await;
    fail_over(&cluster).await;
    let (db1, db2, db3) = (cluster.node("db1"), cluster.node("db2"), cluster.node("db3"));
    lets_in(db2, "Replikator-Größe.1_db3", password).expect("it is the role's");
    let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
    assert!(rewound.contains("rewound"), "{rewound}");
    db3.done(DbAction::Stop { ladder: LADDER }).await;
    fs::remove_dir_all(&db3.postgresql().data_dir).expect("removed");
    let cloned = format!("{:?}", cluster.follow("db3", "db2").await);
    assert!(cloned.contains("cloned"), "{cloned}");
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    db1.done(DbAction::Seal).await;
    db1.lease(3, Duration::from_secs(3600));
    db1.done(DbAction::Promote { epoch: Epoch(3), timeline: Timeline(3) }).await;
    cluster.follow("db2", "db1").await;
    cluster.follow_running("db3", "db1").await;
    db1.sql("insert into orders values (4)").await;
    db3.until_ids(&[1, 3, 4]).await;
    assert_eq!(db2.until_state(DbState::Standby).await.unfit, []);
    for node in [db1, db2, db3] {
        let log = fs::read_to_string(node.log()).expect("there");
        assert!(log.contains("statement: ") && !log.contains("pässwörd"), "it is in a log");
    }
}
