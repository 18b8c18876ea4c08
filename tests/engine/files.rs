//! Files that people change: a wrong line in one of them, parameters and access lines that are changed while the server runs,
//! and what PostgreSQL would refuse.

use crate::cluster::{Cluster, Database, LADDER, possible, timed};
use regent::config::Postgresql;
use regent::engine::postgresql::Taken;
use regent::types::{DbAction, DbDone, DbState, Epoch, Timeline};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A misspelt name, as somebody leaves it behind.
const WRONG: &str = "\nidle_sesion_timeout = 5min\n";
/// A line that cannot be read, and behind it another misspelt name, which does not show while the first is there.
const WORSE: &str = "\nlog_line_prefix 'x' 'y'\nidle_sesion_timeout = 5min\n";

fn conf(node: &Database) -> PathBuf {
    node.postgresql().data_dir.join("postgresql.conf")
}

fn append(node: &Database, lines: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(conf(node)).expect("it is there");
    file.write_all(lines.as_bytes()).expect("written");
}

fn put_right(node: &Database) {
    let text = std::fs::read_to_string(conf(node)).expect("text");
    std::fs::write(conf(node), text.replace(WORSE, "\n").replace(WRONG, "\n")).expect("written");
}

async fn setting(node: &Database, name: &str) -> String {
    let client = node.client().await.expect("the server lets us in");
    client.query_one(&format!("show {name}"), &[]).await.expect("shown").get(0)
}

/// Waits until a setting has this value.
async fn until_set(node: &Database, name: &str, value: &str) {
    let from = Instant::now();
    while setting(node, name).await != value {
        assert!(from.elapsed() < Duration::from_secs(20), "{name} is {}", setting(node, name).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn parameter(name: &'static str, value: &'static str) -> impl Fn(&mut Postgresql) {
    move |p: &mut Postgresql| {
        p.parameters.insert(name.to_owned(), value.to_owned());
    }
}

async fn sealed(node: &Database) -> regent::types::Seal {
    let done = timed("seal", tokio::time::timeout(Duration::from_secs(15), node.done(DbAction::Seal))).await;
    let DbDone::Sealed(seal) = done.0.expect("it has an end") else { panic!("no seal") };
    seal
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_wrong_line_is_sealed_and_promoted_all_the_same() {
    if !possible() {
        return;
    }
    for wrong in [WRONG, WORSE] {
        let cluster = Cluster::running_with(&["db1", "db2"], parameter("work_mem", "7MB")).await;
        let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
        append(db2, "\nmaintenance_work_mem = '77MB'\n");
        db2.engine().look_at_files();
        db2.sql("select pg_reload_conf()").await;
        until_set(db2, "maintenance_work_mem", "77MB").await;
        append(db2, wrong);
        db1.sql("insert into orders values (1)").await;
        db2.until_ids(&[1]).await;
        let seal = sealed(db2).await;
        // Nothing arrives any more.
        db1.sql("insert into orders values (2)").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(db2.ids().await, [1]);
        // It has what its files said, but for the wrong line, and says so.
        assert_eq!(setting(db2, "maintenance_work_mem").await, "77MB");
        assert_eq!(setting(db2, "work_mem").await, "7MB");
        let seen = db2.until("in fault", |seen| seen.files.fault.is_some()).await;
        let fault = seen.files.fault.expect("waited for").to_string();
        assert!(fault.contains("postgresql.conf line "), "{fault}");
        db2.lease(2, Duration::from_secs(3600));
        db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(seal.end.timeline.0 + 1) }).await;
        db2.sql("insert into orders values (3)").await;
        // It goes back to its files by itself.
        put_right(db2);
        append(db2, "\nmaintenance_work_mem = '78MB'\n");
        db2.engine().look_at_files();
        until_set(db2, "maintenance_work_mem", "78MB").await;
        db2.until("in order", |seen| seen.files.fault.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_wrong_line_follows_another_upstream() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let (db2, db3) = (cluster.node("db2"), cluster.node("db3"));
    append(db3, WRONG);
    cluster.node("db1").done(DbAction::Stop { ladder: LADDER }).await;
    let seal = sealed(db2).await;
    db2.lease(2, Duration::from_secs(3600));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(seal.end.timeline.0 + 1) }).await;
    let (_, took) = timed("follow with a wrong line", cluster.follow_running("db3", "db2")).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    db2.sql("insert into orders values (5)").await;
    db3.until_ids(&[5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_line_in_the_file_that_alter_system_writes_is_left_out() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db2 = cluster.node("db2");
    let auto = db2.postgresql().data_dir.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&auto).expect("text");
    std::fs::write(&auto, format!("no_such_thing = 1\nhot_standby_feedback = 'on'\n{text}")).expect("written");
    sealed(db2).await;
    assert_eq!(setting(db2, "hot_standby_feedback").await, "on", "the other lines are in force");
}

/// As an earlier version started it: with the database's own file alone.
async fn start_without_the_file_of_regents(node: &Database) {
    let words = std::fs::read(format!("/proc/{}/cmdline", node.postmaster())).expect("it runs");
    let words = String::from_utf8(words).expect("text");
    let words: Vec<&str> = words.trim_end_matches('\0').split('\0').collect();
    let kept = words[1..].chunks(2).filter(|pair| !pair[1].starts_with("config_file=")).flatten();
    let mut command = std::process::Command::new("runuser");
    command.args(["-u", &node.postgresql().os_user, "--", words[0]]).args(kept);
    node.done(DbAction::Stop { ladder: LADDER }).await;
    command.current_dir(&node.postgresql().data_dir).stderr(std::process::Stdio::null());
    let _outlives_us = tokio::process::Command::from(command).spawn().expect("runuser runs");
    node.until_state(DbState::Standby).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_an_earlier_version_that_takes_over_nothing_is_restarted_without_an_upstream() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db2 = cluster.node("db2");
    start_without_the_file_of_regents(db2).await;
    db2.until("streaming", |seen| seen.streams_from.is_some()).await;
    append(db2, WRONG);
    let before = db2.postmaster();
    sealed(db2).await;
    assert_ne!(db2.postmaster(), before);
    cluster.node("db1").sql("insert into orders values (1)").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(db2.ids().await, [0; 0], "nothing arrives");
    cluster.follow_running("db2", "db1").await;
    db2.until_ids(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_not_start_again_is_not_stopped_for_a_seal() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db2 = cluster.node("db2");
    db2.engine().look_at_files();
    let kept = db2.config.data_dir.join("orders/postgresql.kept");
    let from = Instant::now();
    while !kept.exists() {
        assert!(from.elapsed() < Duration::from_secs(20), "what the files say is not kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = db2.postmaster();
    append(db2, WRONG);
    let conf = db2.run().join("postgresql.conf");
    std::fs::remove_file(&conf).expect("there");
    std::fs::create_dir(&conf).expect("a directory, which no server reads and nobody replaces");
    let sealing = db2.fails(DbAction::Seal);
    let error = tokio::time::timeout(Duration::from_secs(20), sealing).await.expect("it has an end");
    assert!(error.contains("postgresql.conf"), "{error}");
    assert_eq!(db2.postmaster(), before, "one that would not start again is not stopped");
    std::fs::remove_dir(&conf).expect("removed");
    sealed(db2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_wrong_line_goes_on_with_what_the_files_said_before() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    append(db1, "\nmaintenance_work_mem = '77MB'\n");
    db1.sql("select pg_reload_conf()").await;
    until_set(db1, "maintenance_work_mem", "77MB").await;
    db1.engine().look_at_files();
    let kept = db1.config.data_dir.join("orders/postgresql.kept");
    let from = Instant::now();
    while !std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("77MB")) {
        assert!(from.elapsed() < Duration::from_secs(20), "what the files say is not kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    append(db1, WRONG);
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_secs(3600));
    timed("start with a wrong line", db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None })).await;
    assert_eq!(setting(db1, "maintenance_work_mem").await, "77MB");
    let seen = db1.until("in fault", |seen| seen.files.fault.is_some()).await;
    let fault = seen.files.fault.expect("waited for").to_string();
    assert!(fault.contains("idle_sesion_timeout") && fault.contains("postgresql.conf line "), "{fault}");
    // Without anything that was kept the start says what is wrong, at once.
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_secs(3600));
    std::fs::remove_file(&kept).expect("there");
    let error = db1.fails(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert!(error.contains("idle_sesion_timeout") && error.contains("postgresql.conf\" line "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_parameters_are_in_a_file_and_on_no_command_line() {
    if !possible() {
        return;
    }
    let secret = |p: &mut Postgresql| {
        p.parameters.insert("log_line_prefix".to_owned(), "it's-secret %m ".to_owned());
        p.parameters.insert("app.note".to_owned(), "a \\ b".to_owned());
    };
    let cluster = Cluster::running_with(&["db1", "db2"], secret).await;
    for node in [cluster.node("db1"), cluster.node("db2")] {
        let words = std::fs::read(format!("/proc/{}/cmdline", node.postmaster())).expect("it runs");
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(!words.contains("secret") && words.contains("restart_after_crash=off"), "{words}");
        assert_eq!(setting(node, "log_line_prefix").await, "it's-secret %m ");
        assert_eq!(setting(node, "app.note").await, "a \\ b");
        // Nor does anybody else read the file.
        let about = std::fs::metadata(node.run().join("postgresql.conf")).expect("there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o007, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_parameters_and_access_lines_are_taken_by_a_reload() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], parameter("work_mem", "7MB")).await;
    let db1 = cluster.node("db1");
    db1.sql("create role app login").await;
    let postmaster = db1.postmaster();
    let mut new = db1.postgresql().clone();
    new.parameters.insert("work_mem".to_owned(), "9MB".to_owned());
    new.parameters.insert("max_connections".to_owned(), "77".to_owned());
    new.hba.push("local postgres app trust".to_owned());
    db1.engine().try_out(&new).await.expect("PostgreSQL takes it");
    let waits = db1.engine().take(new).await.expect("taken");
    assert_eq!(waits, Taken::default());
    until_set(db1, "work_mem", "9MB").await;
    let seen = db1.until("waiting for a restart", |seen| !seen.files.pending_restart.is_empty()).await;
    assert_eq!(seen.files.pending_restart, ["max_connections"]);
    assert_eq!((seen.files.fault, db1.postmaster()), (None, postmaster));
    let mut app = tokio_postgres::Config::new();
    app.host_path(db1.run().join("socket")).port(db1.postgresql().port).user("app").dbname("postgres");
    drop(app.connect(tokio_postgres::NoTls).await.expect("the new line lets it in"));
    // What was taken is what the next start has, and nothing waits for it any more.
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let stopped = db1.until_state(DbState::Stopped).await;
    assert_eq!(stopped.files.pending_restart, Vec::<String>::new());
    db1.lease(1, Duration::from_secs(3600));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert_eq!(setting(db1, "max_connections").await, "77");
    db1.until("in order", |seen| seen.files.pending_restart.is_empty()).await;
}

/// A file that is wrong ends no daemon, and takes nothing from a server that runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_with_wrong_lines_leaves_the_server_those_that_it_has() {
    if !possible() {
        return;
    }
    let good = |p: &mut Postgresql| {
        p.parameters.insert("work_mem".to_owned(), "7MB".to_owned());
        p.hba.push("local postgres all peer".to_owned());
    };
    let mut cluster = Cluster::running_with(&["db1"], good).await;
    let hba = cluster.node("db1").run().join("pg_hba.conf");
    let before = std::fs::read_to_string(&hba).expect("text");
    cluster.change("db1", |p| {
        p.hba.push("host all all 10.0.0.0/8 scram".to_owned());
        p.parameters.insert("work_mem".to_owned(), "9MB".to_owned());
    });
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    let seen = db1.until("in fault", |seen| seen.files.fault.is_some()).await;
    let fault = seen.files.fault.expect("waited for").to_string();
    assert!(fault.contains("invalid authentication method \"scram\""), "{fault}");
    assert_eq!(std::fs::read_to_string(&hba).expect("text"), before);
    assert_eq!(setting(db1, "work_mem").await, "7MB");
    // Nor does a start that the server needs fail for it.
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_secs(3600));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert_eq!(setting(db1, "work_mem").await, "7MB");
    // The next file is right, and is taken.
    cluster.change("db1", |p| drop(p.hba.pop()));
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    until_set(db1, "work_mem", "9MB").await;
    db1.until("in order", |seen| seen.files.fault.is_none() && seen.state == DbState::Primary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alter_system_overrides_is_told_with_its_place() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], parameter("work_mem", "7MB")).await;
    let db1 = cluster.node("db1");
    db1.sql("alter system set work_mem = '8MB'").await;
    db1.sql("alter system set restart_after_crash = on").await;
    db1.sql("select pg_reload_conf()").await;
    until_set(db1, "work_mem", "8MB").await;
    db1.engine().look_at_files();
    let seen = db1.until("overridden", |seen| !seen.files.overridden.is_empty()).await;
    let told = seen.files.overridden.join("\n");
    assert!(told.contains("work_mem is 8MB by ") && told.contains("postgresql.auto.conf line "), "{told}");
    assert!(told.contains("not 7MB as in regent.toml"), "{told}");
    assert_eq!(setting(db1, "restart_after_crash").await, "off", "what safety rests on nobody overrides");
}

/// Each is a file that passes every rule of regent's own, and that no server of this host starts with.
#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_refuses_is_refused_with_its_words_before_it_is_in_force() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], parameter("work_mem", "7MB")).await;
    let db1 = cluster.node("db1");
    let key = cluster.path().join("key.pem");
    std::fs::write(&key, "no key").expect("written");
    let key = key.display().to_string();
    let tried = |change: &[(&str, &str)], hba: &str| {
        let mut new = db1.postgresql().clone();
        let change = change.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        new.parameters.extend(change);
        new.hba.push(hba.to_owned());
        async move { db1.engine().try_out(&new).await.expect_err("it is refused").to_string() }
    };
    for (change, words) in [
        (&[("work_mem", "64 megabytes")][..], "invalid value for parameter \"work_mem\""),
        (&[("max_connctions", "500")], "unrecognized configuration parameter \"max_connctions\""),
        (&[("shared_preload_libraries", "pg_stat_statments")], "pg_stat_statments"),
        (&[("wal_level", "minimal")], "wal_level"),
        (&[("superuser_reserved_connections", "100")], "superuser_reserved_connections"),
        (&[("shared_buffers", "900GB")], "more than the memory"),
        (&[("ssl", "on"), ("ssl_cert_file", &key), ("ssl_key_file", &key)], "key.pem"),
        (&[("local_preload_libraries", "nope")], "nope"),
    ] {
        let error = tried(change, "local all nobody reject").await;
        println!("{change:?}: {error}");
        assert!(error.contains(words), "{change:?}: {error}");
    }
    let error = tried(&[], "host all all 10.0.0.0/8 scram").await;
    println!("{error}");
    assert!(error.contains("scram") && error.contains("pg_hba.conf"), "{error}");
    tried(&[("wal_keep_segments", "8")], "local all nobody reject").await;
    assert_eq!(setting(db1, "work_mem").await, "7MB", "nothing was changed");
    let good = db1.postgresql().clone();
    timed("a trial", db1.engine().try_out(&good)).await.0.expect("what is in force is taken");
}
