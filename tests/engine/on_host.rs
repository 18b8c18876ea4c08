//! What of a database lies outside its directory: its log, its sockets and addresses, its environment, and how the kernel
//! weighs it when memory is short.

use crate::cluster::{Cluster, Database, LADDER, possible};
use regent::types::{DbAction, Epoch};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const START: DbAction = DbAction::StartPrimary { epoch: Epoch(1), known: None };

fn postgres() -> u32 {
    nix::unistd::User::from_name("postgres").expect("asked").expect("there").uid.as_raw()
}

async fn stop(node: &Database) {
    node.done(DbAction::Stop { ladder: LADDER }).await;
    // Its lease went with it.
    node.lease(1, Duration::from_secs(3600));
}

async fn restart(node: &Database) {
    stop(node).await;
    node.done(START).await;
}

/// The bytes that the log and what was kept of it take.
fn logged(log: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |about| about.len());
    ["log", "log.1", "log.new"].iter().map(|ending| length(&log.with_extension(ending))).sum()
}

/// Statements of 8 kB as fast as they go, until that moment.
async fn chatter(cluster: &Cluster, end: Instant) -> u64 {
    let client = cluster.node("db1").client().await.expect("it lets us in");
    client.batch_execute("set log_min_duration_statement = 0").await.expect("a superuser");
    let statement = format!("select 1 /* {} */", "x".repeat(8000));
    let (many, mut sent) = (vec![statement.as_str(); 50].join(";"), 0);
    while Instant::now() < end {
        client.batch_execute(&many).await.expect("it takes them");
        sent += many.len() as u64;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_log_is_bounded_while_it_runs_and_its_group_reads_it() {
    if !possible() {
        return;
    }
    let limit = 2 * MIB;
    let cluster = Cluster::running_with(&["db1"], |postgresql| postgresql.on_host.log_limit = limit).await;
    let (db1, log) = (cluster.node("db1"), cluster.node("db1").log());
    let about = fs::metadata(&log).expect("there");
    assert_eq!((about.permissions().mode() & 0o777, about.uid()), (0o640, postgres()));
    let directory = fs::metadata(log.parent().expect("one")).expect("there");
    assert_eq!((directory.permissions().mode() & 0o777, directory.uid()), (0o750, postgres()));
    assert!(!db1.config.data_dir.join("orders/postgresql.log").exists(), "it lies beside the ledger");
    let sent = chatter(&cluster, Instant::now() + Duration::from_secs(4)).await;
    // What a quarter of a second brings is beside the limit; then it is quiet, and the bound holds.
    let end = Instant::now() + Duration::from_secs(5);
    while fs::metadata(&log).expect("there").len() > limit && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = logged(&log);
    println!("LOG {} MiB were logged, {} KiB are kept", sent / MIB, kept >> 10);
    assert!(sent > 8 * limit, "only {sent} bytes were logged");
    assert!(kept <= 3 * limit, "{kept} bytes are kept");
    assert!(kept > limit / 2, "what was logged last is kept: {kept} bytes");
    // The server writes on where the file begins anew.
    db1.sql("do $$ begin raise log 'after that'; end $$").await;
    assert!(fs::read_to_string(&log).expect("text").contains("after that"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_of_the_log_stops_neither_the_server_nor_its_next_start() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], |postgresql| postgresql.on_host.log_limit = 64 * MIB);
    let directory = cluster.node("db1").log().parent().expect("one").to_owned();
    fs::create_dir_all(&directory).expect("made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&directory).status();
    assert!(mounted.expect("mount runs").success());
    std::os::unix::fs::chown(&directory, Some(postgres()), None).expect("root");
    cluster.engine("db1");
    cluster.create("db1").await;
    chatter(&cluster, Instant::now() + Duration::from_secs(1)).await;
    let full = fs::write(directory.join("more"), vec![0; 64 << 10]);
    assert!(full.is_err(), "the volume has room left");
    let db1 = cluster.node("db1");
    db1.sql("insert into orders values (1)").await;
    restart(db1).await;
    assert_eq!(db1.ids().await, [1]);
    // Where no file can be opened at all it starts without a log.
    stop(db1).await;
    fs::remove_file(db1.log()).expect("there");
    fs::create_dir(db1.log()).expect("made");
    db1.done(START).await;
    assert_eq!(db1.ids().await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_the_log_is_not_written_through() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], |postgresql| postgresql.on_host.log_limit = MIB).await;
    let (db1, log, secret) = (cluster.node("db1"), cluster.node("db1").log(), cluster.path().join("secret"));
    stop(db1).await;
    fs::write(&secret, "mine").expect("written");
    for name in [log.clone(), log.with_extension("log.new"), log.with_extension("log.1")] {
        let _ = fs::remove_file(&name);
        symlink(&secret, &name).expect("linked");
    }
    db1.done(START).await;
    fs::remove_file(&log).expect("a link");
    restart(db1).await;
    chatter(&cluster, Instant::now() + Duration::from_secs(1)).await;
    let end = Instant::now() + Duration::from_secs(5);
    while fs::metadata(&log).expect("there").len() > MIB && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (fs::read_to_string(&secret).expect("there").as_str(), fs::metadata(&secret).expect("there").uid()),
        ("mine", 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_does_not_start_is_told_also_by_its_own_logging() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], |postgresql| {
        for (name, value) in [("logging_collector", "on"), ("log_directory", "logs"), ("log_filename", "own.log")] {
            postgresql.parameters.insert(name.to_owned(), value.to_owned());
        }
    })
    .await;
    let db1 = cluster.node("db1");
    db1.sql("do $$ begin raise log 'by its own logging'; end $$").await;
    let own = db1.postgresql().data_dir.join("logs/own.log");
    let end = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(&own).is_ok_and(|text| text.contains("by its own logging")) {
        assert!(Instant::now() < end, "the operator's own logging does not work");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(db1).await;
    let wal = db1.postgresql().data_dir.join("pg_wal");
    fs::rename(&wal, wal.with_extension("away")).expect("moved");
    let failed = db1.fails(START).await;
    assert!(failed.contains("pg_wal"), "{failed}");
    fs::rename(wal.with_extension("away"), &wal).expect("moved");
    db1.done(START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_more_sockets_and_the_addresses_that_are_named_and_no_others() {
    if !possible() {
        return;
    }
    let named: IpAddr = [127, 250, 1, 7].into();
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| postgresql.on_host.listen = Some([named].into()));
    let [more, unusable] = ["sockets/deep", "mine"].map(|name| cluster.path().join(name));
    fs::create_dir(&unusable).expect("made");
    cluster.change("db1", |postgresql| postgresql.on_host.socket_dirs = vec![more.clone(), unusable.clone()]);
    cluster.change("db2", |postgresql| postgresql.on_host.listen = Some(BTreeSet::new()));
    cluster.engine("db1");
    cluster.engine("db2");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    assert_eq!(fs::metadata(&more).expect("made").uid(), postgres());
    let told = db1.until("with a fault", |seen| seen.files.fault.is_some()).await.files.fault.expect("one");
    assert!(told.file == "socket_dirs" && told.what.contains("/mine"), "{told}");
    let port = db1.postgresql().port;
    for place in [&more, &db1.run().join("socket")] {
        let said = Command::new("runuser")
            .args(["-u", "postgres", "--", "psql", "-XAtc", "select 1", "-p", &port.to_string(), "-h"])
            .arg(place)
            .output()
            .expect("it runs");
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "1", "{}: {said:?}", place.display());
    }
    let is_heard = |address: IpAddr| std::net::TcpStream::connect((address, port)).is_ok();
    let me = db1.config.me();
    assert!([me.primary, me.secondary, named].into_iter().all(is_heard), "one of its addresses is not served");
    assert!(!is_heard([127, 250, 1, 8].into()), "an address is served that nobody named");
    // A standby streams from it over its own two addresses.
    cluster.follow("db2", "db1").await;
    let own = fs::read_to_string(db1.postgresql().data_dir.join("postmaster.pid")).expect("it runs");
    assert_eq!(own.lines().nth(4).map(PathBuf::from), Some(db1.run().join("socket")), "regent's own comes first");
    // A boot empties what lies in /run: each start makes it again.
    stop(db1).await;
    fs::remove_dir_all(cluster.path().join("sockets")).expect("there");
    db1.done(START).await;
    assert!(more.join(format!(".s.PGSQL.{port}")).exists());
}

/// What a process found in its environment.
fn environment(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/environ")).expect("root");
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_tools_find_what_the_file_says_in_their_environment() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], |postgresql| {
        postgresql.parameters.insert("archive_mode".to_owned(), "on".to_owned());
        postgresql.on_host.environment.insert("AWS_PROFILE".to_owned(), "backup".to_owned());
    });
    let (file, told) = (cluster.path().join("db1.env"), cluster.path().join("told"));
    fs::write(&file, "AWS_SECRET_ACCESS_KEY='hush hush'\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mine");
    fs::write(&told, "").expect("written");
    fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).expect("mine");
    let command = format!("echo \"$AWS_PROFILE/$AWS_SECRET_ACCESS_KEY\" > {}", told.display());
    cluster.change("db1", |postgresql| {
        postgresql.on_host.environment_file = Some(file.clone());
        postgresql.parameters.insert("archive_command".to_owned(), command.clone());
    });
    cluster.engine("db1");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    db1.sql("select pg_switch_wal()").await;
    let end = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(&told).expect("there").trim() != "backup/hush hush" {
        assert!(Instant::now() < end, "the archive command was told {:?}", fs::read_to_string(&told));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = environment(db1.postmaster());
    assert_eq!(found.get("AWS_PROFILE").map(String::as_str), Some("backup"));
    let line = fs::read_to_string(format!("/proc/{}/cmdline", db1.postmaster())).expect("root");
    assert!(!line.contains("hush"), "a secret is on the command line");
    // Where others can read it, it is no secret: the server starts without, and it is said.
    stop(db1).await;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mine");
    db1.done(START).await;
    let told = db1.until("with a fault", |seen| seen.files.fault.is_some()).await.files.fault.expect("one");
    assert!(told.what.contains("mode 644") && !told.what.contains("hush"), "{told}");
    assert!(!environment(db1.postmaster()).contains_key("AWS_SECRET_ACCESS_KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_killed_for_memory_before_its_postmaster() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let postmaster = db1.postmaster();
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("root").trim().to_owned();
    let found = environment(postmaster);
    let said = ["PG_OOM_ADJUST_FILE", "PG_OOM_ADJUST_VALUE"].map(|name| found.get(name).map(String::as_str));
    assert_eq!(said, [Some("/proc/self/oom_score_adj"), Some("0")]);
    let backend: i32 =
        db1.client().await.expect("in").query_one("select pg_backend_pid()", &[]).await.expect("asked").get(0);
    assert_eq!(score(backend), "0");
    // Whoever may not lower a score leaves it as it is.
    let lowers =
        Command::new("sh").args(["-c", "echo -900 > /proc/self/oom_score_adj"]).status().expect("it runs").success();
    println!("OOM scores can be lowered here: {lowers}");
    assert_eq!(score(postmaster), if lowers { "-900" } else { "0" });
}
