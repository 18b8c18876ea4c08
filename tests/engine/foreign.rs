//! What the database's user puts in regent's way: links, pipes, devices and files without an end, at every name that
//! regent uses in directories of that user; and what it cannot get at.

use crate::cluster::{Cluster, Database, LADDER, possible};
use regent::engine::Engine;
use regent::types::{DbAction, DbState, Epoch, Timeline};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECRET: &str = "restore_command = 'the secret of root'\n";

fn postgres() -> (u32, u32) {
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    (user.uid.as_raw(), user.gid.as_raw())
}

/// A file of root's, in a directory of root's, that nobody else may read.
struct Victim {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Victim {
    fn new() -> Victim {
        let folder = tempfile::Builder::new().prefix("regent-root-").tempdir_in("/var/tmp").expect("a directory");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
        let file = folder.path().join("secret");
        fs::write(&file, SECRET).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mine");
        Victim { folder, file }
    }

    fn is_untouched(&self) {
        let about = fs::symlink_metadata(&self.file).expect("it is there");
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 0, 0o600));
        assert_eq!(fs::read_to_string(&self.file).expect("readable"), SECRET);
        let names = fs::read_dir(self.folder.path()).expect("readable").count();
        assert_eq!(names, 1, "something was made beside it");
        assert_eq!(fs::metadata(self.folder.path()).expect("there").uid(), 0);
    }
}

/// As on Debian: the directory above the database's is its user's too.
fn give_parent(node: &Database) {
    let (uid, gid) = postgres();
    chown(node.postgresql().data_dir.parent().expect("it has one"), Some(uid), Some(gid)).expect("root");
}

/// A link of the database's user.
fn plant(link: &Path, target: &Path) {
    let (uid, gid) = postgres();
    if fs::symlink_metadata(link).is_err() && link.parent().is_some_and(Path::exists) {
        symlink(target, link).expect("linked");
        lchown(link, Some(uid), Some(gid)).expect("root");
    }
}

/// Where regent writes a file before it has its name; and the trigger of a promotion, which the server only looks for.
fn plant_drafts(node: &Database, victim: &Victim) {
    for name in node.engine().foreign_names() {
        let mut draft = name.clone().into_os_string();
        draft.push(".regent-new");
        plant(Path::new(&draft), &victim.file);
        if name.ends_with("promote") {
            plant(&name, &victim.file);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_at_any_name_leads_regent_nowhere() {
    if !possible() {
        return;
    }
    let victim = Victim::new();
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    [db1, db2].into_iter().for_each(give_parent);
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    let on_both = || [db1, db2].into_iter().for_each(|node| plant_drafts(node, &victim));
    on_both();
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    on_both();
    db2.done(DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) }).await;
    db2.until("streaming", |seen| seen.streams_from.is_some()).await;
    on_both();
    db2.done(DbAction::Seal).await;
    db1.sql("insert into orders values (2)").await;
    db1.enclosure().kill();
    on_both();
    db2.lease(2, Duration::from_secs(3600));
    // The numbers before it are somebody else's: their placeholders are written, too.
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(4) }).await;
    on_both();
    // pg_rewind may refuse what it finds: then it is cloned.
    cluster.follow("db1", "db2").await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    fs::write(db1.postgresql().data_dir.with_file_name(".regent-main.unstartable"), "a rewind\n").expect("written");
    on_both();
    let cloned = cluster.follow("db1", "db2").await;
    assert!(format!("{cloned:?}").contains("cloned"), "{cloned:?}");
    victim.is_untouched();
}

/// What stands at a name instead of what belongs there.
fn put(kind: usize, name: &Path, victim: &Victim) {
    let (uid, gid) = postgres();
    match kind {
        0 => symlink(&victim.file, name).expect("linked"),
        1 => symlink("/dev/zero", name).expect("linked"),
        2 => nix::unistd::mkfifo(name, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("made"),
        _ => File::create(name).and_then(|file| file.set_len(1 << 40)).expect("sparse"),
    }
    lchown(name, Some(uid), Some(gid)).expect("root");
}

/// The files of the database's user that hold the secret.
fn leaks(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let about = entry.metadata().expect("there");
        if about.is_file() && about.len() < 1 << 20 {
            let text = fs::read(entry.path()).unwrap_or_default();
            found.extend(String::from_utf8_lossy(&text).contains("the secret of root").then(|| entry.path()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_or_has_no_end_is_not_waited_for_and_no_secret_is_read() {
    if !possible() {
        return;
    }
    let victim = Victim::new();
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db2 = cluster.node("db2");
    give_parent(db2);
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    let data_dir = db2.postgresql().data_dir.clone();
    let is_first =
        |name: &PathBuf| name.extension().is_none_or(|e| e != "history") || name.ends_with("00000002.history");
    for (i, name) in db2.engine().foreign_names().into_iter().filter(is_first).enumerate() {
        let aside =
            victim.folder.path().parent().expect("/var/tmp").join(format!("regent-aside-{}", std::process::id()));
        for kind in [0, 1 + i % 3] {
            let there = fs::symlink_metadata(&name).is_ok();
            if there {
                fs::rename(&name, &aside).expect("moved");
            }
            put(kind, &name, &victim);
            let start = DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) };
            let outcome = tokio::time::timeout(Duration::from_secs(60), db2.engine().perform(start)).await;
            assert!(outcome.is_ok(), "it waits for {} ({kind})", name.display());
            db2.enclosure().kill();
            db2.until("at rest", |seen| !matches!(seen.state, DbState::Standby | DbState::Stopping)).await;
            assert_eq!(leaks(&data_dir), Vec::<PathBuf>::new(), "by {} ({kind})", name.display());
            let _ = fs::remove_file(&name);
            if there {
                fs::rename(&aside, &name).expect("back");
            }
        }
    }
    victim.is_untouched();
    db2.done(DbAction::StartStandby { upstream: Some(cluster.upstream("db1")) }).await;
    db2.until("streaming", |seen| seen.streams_from.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_statement_no_log_and_no_argument() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("replication.pw");
    fs::write(&file, "it's:a\\secret\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mine");
    let path = file.clone();
    let logs_all = move |postgresql: &mut regent::config::Postgresql| {
        postgresql.replication_password_file = Some(path.clone());
        postgresql.parameters.insert("log_statement".to_owned(), "all".to_owned());
        postgresql.parameters.insert("log_min_error_statement".to_owned(), "debug5".to_owned());
    };
    let cluster = Cluster::running_with(&["db1", "db2"], logs_all).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    // A new primary makes the roles that are missing.
    db1.sql("drop owned by regent_db1; drop role regent_db1; insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db2.lease(2, Duration::from_secs(3600));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let client = db2.client().await.expect("it answers");
    let kept = "select rolpassword from pg_authid where rolname = 'regent_db1'";
    let mut rows = client.query(kept, &[]).await.expect("a list");
    while rows.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rows = client.query(kept, &[]).await.expect("a list");
    }
    assert!(rows[0].get::<_, &str>(0).starts_with("SCRAM-SHA-256$4096:"));
    // The password opens the connection that it is for.
    cluster.follow("db1", "db2").await;
    for node in [db1, db2] {
        let log = node.log();
        let text = fs::read_to_string(&log).expect("the server's log");
        assert!(!text.contains("a\\secret"), "{} holds the password", log.display());
        let arguments = node.engine().processes().into_iter().map(|pid| fs::read(format!("/proc/{pid}/cmdline")));
        let arguments: Vec<u8> = arguments.flatten().flatten().collect();
        assert!(!String::from_utf8_lossy(&arguments).contains("a\\secret"), "it is in an argument list");
    }
    let text = fs::read_to_string(db2.log()).expect("the server's log");
    assert!(text.contains("create role \"regent_db1\""), "nothing was logged: {text}");
    // Where others can read it, it is none.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mine");
    let refused = db2.fails(DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None }).await;
    assert!(refused.contains("running") || refused.contains("chmod o="), "{refused}");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    let refused = db1.fails(DbAction::StartStandby { upstream: Some(cluster.upstream("db2")) }).await;
    assert!(refused.contains("replication.pw") && refused.contains("mode 644"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_safety_rests_on_is_out_of_the_database_users_reach() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1"]).await;
    let ((uid, gid), run) = (postgres(), cluster.node("db1").run());
    let rights = regent::rights::Rights::of(uid, gid, Vec::new());
    for name in fs::read_dir(&run).expect("readable").flatten() {
        let about = name.metadata().expect("there");
        let (own, shown) = (name.file_name(), name.path());
        // libpq takes no password file of anybody else's; the socket's directory is the one place of its own.
        let theirs = [std::ffi::OsStr::new("socket"), std::ffi::OsStr::new("pgpass")].contains(&own.as_os_str());
        assert_eq!(about.uid(), if theirs { uid } else { 0 }, "{}", shown.display());
        let writes = rights.within(|| File::options().append(true).open(&shown)).expect("root");
        assert!(theirs || writes.is_err(), "{} can be written", shown.display());
        let moves = rights.within(|| fs::rename(&shown, run.join("elsewhere"))).expect("root");
        assert!(moves.is_err(), "{} can be renamed", shown.display());
    }
    let made = rights.within(|| File::create(run.join("new"))).expect("root");
    assert!(made.is_err(), "a file can be made there");
    let reads = rights.within(|| fs::read_to_string(run.join("pg_hba.conf"))).expect("root");
    assert!(reads.is_ok(), "its access file cannot be read");
    // A cgroup that somebody else names is not believed.
    cluster.nodes.get_mut("db1").expect("there").drop_engine();
    let (note, postmaster) = (run.join("cgroup"), cluster.node("db1").postmaster());
    let right = fs::read_to_string(&note).expect("noted");
    for (text, owner) in [(right.as_str(), uid), ("/sys/fs/cgroup", 0)] {
        fs::write(&note, text).expect("written");
        chown(&note, Some(owner), None).expect("root");
        let processes = cluster.engine("db1").processes();
        assert!(processes.contains(&postmaster), "its own processes are known by their directory");
        assert!(!processes.contains(&1) && processes.len() < 40, "{processes:?}");
    }
    fs::write(&note, right).expect("written");
    chown(&note, Some(0), None).expect("root");
}

fn runs(pattern: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("readable").flatten().filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned())
    });
    processes.filter(|words| words.contains(pattern)).collect()
}

/// A program of the engine leaves a process in a session of its own, and an earlier daemon left one, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_engines_programs_end_with_their_action_and_with_the_next_daemon() {
    if !possible() {
        return;
    }
    let bin = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    let path = bin.path().to_owned();
    for program in fs::read_dir(crate::cluster::bin_dir()).expect("programs").flatten() {
        if program.file_name() != "pg_controldata" {
            symlink(program.path(), path.join(program.file_name())).expect("linked");
        }
    }
    // As long as no other process of this machine: it is known by that.
    let [stray, left] = [700_000 + std::process::id(), 800_000 + std::process::id()].map(|s| format!("sleep {s}"));
    let real = format!("{}/pg_controldata", crate::cluster::bin_dir());
    let script = format!("#!/bin/sh\nsetsid {stray} </dev/null >/dev/null 2>&1 &\nexec {real} \"$@\"\n");
    fs::write(path.join("pg_controldata"), script).expect("written");
    for name in ["", "pg_controldata"] {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o755)).expect("mine");
    }
    let mut cluster = Cluster::running_with(&["db1"], |postgresql| postgresql.bin_dir.clone_from(&path)).await;
    let gone = async |pattern: &str| {
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while !runs(pattern).is_empty() && std::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(runs(pattern), Vec::<String>::new());
    };
    cluster.node("db1").done(DbAction::Stop { ladder: LADDER }).await;
    gone(&stray).await;
    let Ok(note) = fs::read_to_string(cluster.node("db1").run().join("cgroup")) else {
        return println!("SKIPPED: no cgroup can be made here");
    };
    let place = PathBuf::from(format!("{note}+run+1+0"));
    fs::create_dir(&place).expect("a cgroup");
    let mut words = left.split(' ');
    let mut child = std::process::Command::new(words.next().expect("a program")).args(words).spawn().expect("started");
    fs::write(place.join("cgroup.procs"), child.id().to_string()).expect("entered");
    cluster.nodes.get_mut("db1").expect("there").drop_engine();
    cluster.engine("db1");
    assert!(child.wait().expect("waited for").code().is_none(), "it was not killed");
    assert!(!place.exists(), "its cgroup is left");
}
