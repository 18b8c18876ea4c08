//! Whether a database could serve: each thing that one can lack is found where it is missing, and no more where it is there.

use crate::blocked::{until, until_in};
use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible};
use crate::places::Volume;
use regent::config::{Command as Program, Postgresql};
use regent::engine::Engine;
use regent::types::{DbAction, Lack, Observation, Unfit};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn kinds(seen: &Observation) -> Vec<Lack> {
    seen.unfit.iter().map(Unfit::kind).collect()
}

/// Waits until it lacks something of that kind.
async fn lacks(node: &Database, kind: Lack) -> Unfit {
    let seen = node.until(&format!("without its {kind}"), |seen| kinds(seen).contains(&kind)).await;
    seen.unfit.into_iter().find(|unfit| unfit.kind() == kind).expect("just seen")
}

/// Waits until it lacks nothing of that kind any more.
async fn cured(node: &Database, kind: Lack) {
    node.until(&format!("cured of {kind}"), |seen| !kinds(seen).contains(&kind)).await;
}

fn is_of(postgresql: &Postgresql, node: &str) -> bool {
    postgresql.data_dir.ends_with(format!("{node}/main"))
}

fn set(postgresql: &mut Postgresql, name: &str, value: &str) {
    postgresql.parameters.insert(name.to_owned(), value.to_owned());
}

/// A process that is gone in the end.
struct Reader(std::process::Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that is gone in the end.
struct Mine(PathBuf);

impl Drop for Mine {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn configured(node: &Database, name: &str) -> PathBuf {
    let client = node.client().await.expect("it answers");
    let row = client.query_one("select setting from pg_config where name = $1", &[&name]).await.expect("it knows");
    PathBuf::from(row.get::<_, &str>(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_that_the_primary_alone_preloads_are_named() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    let own = folder.path().display().to_string();
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        if is_of(postgresql, "db1") {
            set(postgresql, "shared_preload_libraries", "passwordcheck, auto_explain, regent_mine");
            set(postgresql, "dynamic_library_path", &format!("$libdir:{own}"));
        }
    });
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    // One that db2 finds nowhere.
    fs::copy(packages_of(bin_dir()).join("auth_delay.so"), folder.path().join("regent_mine.so")).expect("copied");
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    let names = "passwordcheck, regent_mine".to_owned();
    assert_eq!(lacks(cluster.node("db2"), Lack::Libraries).await, Unfit::Libraries { names, installed: false });
    let watching = Unfit::Monitoring { names: "auto_explain".to_owned(), installed: true };
    assert_eq!(lacks(cluster.node("db2"), Lack::Monitoring).await, watching);
    assert_eq!(kinds(&cluster.node("db1").engine().latest()), [], "the primary lacks nothing");

    cluster.node("db2").done(DbAction::Stop { ladder: LADDER }).await;
    let stopped = cluster.node("db2").engine().latest();
    assert_eq!(kinds(&stopped), [], "what is not there is not judged: {stopped:?}");
    cluster.change("db2", |postgresql| {
        set(postgresql, "shared_preload_libraries", "passwordcheck, auto_explain");
    });
    cluster.engine("db2");
    cluster.follow("db2", "db1").await;
    let names = "regent_mine".to_owned();
    assert_eq!(lacks(cluster.node("db2"), Lack::Libraries).await, Unfit::Libraries { names, installed: false });
    cured(cluster.node("db2"), Lack::Monitoring).await;
}

/// Where the programs' libraries are: Debian's folders, or those of a build.
fn packages_of(bin: &str) -> PathBuf {
    let root = Path::new(bin).parent().expect("not the root").join("lib");
    let inner = root.join("postgresql");
    if inner.join("plpgsql.so").exists() { inner } else { root }
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_and_functions_without_their_files_are_named() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    let name = format!("regent_test_{}", std::process::id());
    {
        let db1 = cluster.node("db1");
        let folder = configured(db1, "SHAREDIR").await.join("extension");
        let files = [
            (format!("{name}.control"), "default_version = '2.1'\nrelocatable = true\n".to_owned()),
            (format!("{name}--2.1.sql"), format!("create table {name} (id int);\n")),
        ];
        let files: Vec<Mine> = files
            .into_iter()
            .map(|(file, text)| (folder.join(file), text))
            .map(|(path, text)| {
                fs::write(&path, text).expect("root");
                Mine(path)
            })
            .collect();
        let library = Mine(std::env::temp_dir().join(format!("{name}.so")));
        fs::copy(configured(db1, "PKGLIBDIR").await.join("lo.so"), &library.0).expect("copied");
        fs::set_permissions(&library.0, fs::Permissions::from_mode(0o644)).expect("mine");
        db1.sql("create database app").await;
        let client = db1.client_in("app").await.expect("it answers");
        let function =
            format!("create function t() returns trigger as '{}', 'lo_manage' language c", library.0.display());
        client.batch_execute(&format!("create extension {name}; {function}")).await.expect("made");
        until(cluster.node("db2"), "exists (select from pg_database where datname = 'app')").await;
        let there = format!("exists (select from pg_extension where extname = '{name}')");
        until_in("app", cluster.node("db2"), &there).await;
        cluster.engine("db2");
        let seen = cluster.node("db2").until("seen", |seen| seen.streams_from.is_some()).await;
        assert_eq!(kinds(&seen), [], "all of it is here");
        drop((files, library));
    }
    // It looks at once when it begins.
    cluster.engine("db2");
    let Unfit::Extensions { names } = lacks(cluster.node("db2"), Lack::Extensions).await else {
        panic!("another kind")
    };
    assert!(names.contains(&format!("{name} 2.1 (app)")) && names.contains(&format!("{name}.so (app)")), "{names}");
    // And soon again, where something was amiss.
    let app = cluster.node("db1").client_in("app").await.expect("it answers");
    app.batch_execute(&format!("drop extension {name}; drop function t()")).await.expect("dropped");
    cured(cluster.node("db2"), Lack::Extensions).await;
}

/// A folder of programs of which the server takes another version of ICU for granted.
fn with_another_icu(folder: &Path) -> Option<PathBuf> {
    let server = Path::new(bin_dir()).join("postgres");
    let symbols = Command::new("nm").arg("-D").arg(&server).output().ok()?;
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let symbol = symbols.split_whitespace().find(|word| word.starts_with("ucol_getVersion_"))?;
    let (source, library) = (folder.join("icu.c"), folder.join("icu.so"));
    let text =
        format!("void {symbol}(const void *c, unsigned char v[4]) {{ v[0] = 99; v[1] = 9; v[2] = 0; v[3] = 0; }}\n");
    fs::write(&source, text).expect("written");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-nostdlib", "-o"]).arg(&library).arg(&source).status();
    assert!(made.expect("the linker's compiler").success());
    let programs = folder.join("bin");
    fs::create_dir(&programs).expect("made");
    for entry in fs::read_dir(bin_dir()).expect("there").flatten() {
        if entry.file_name() != "postgres" {
            std::os::unix::fs::symlink(entry.path(), programs.join(entry.file_name())).expect("linked");
        }
    }
    let script = format!("#!/bin/sh\nLD_PRELOAD={} exec {} \"$@\"\n", library.display(), server.display());
    fs::write(programs.join("postgres"), script).expect("written");
    for path in [folder, &programs, &library, &programs.join("postgres")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mine");
    }
    Some(programs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collation_that_sorts_by_another_version_here_is_named() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(programs) = with_another_icu(folder.path()) else {
        println!("SKIPPED: this PostgreSQL has no ICU");
        return;
    };
    let cluster = Cluster::running_with(&["db1", "db2", "db3"], |postgresql| {
        if is_of(postgresql, "db2") {
            postgresql.bin_dir = programs.clone();
        }
    });
    let mut cluster = cluster.await;
    let db1 = cluster.node("db1");
    db1.sql("create collation german (provider = icu, locale = 'de'); create collation unused (provider = icu, locale = 'fr')")
        .await;
    db1.sql("create table names (name text collate german primary key)").await;
    for name in ["db2", "db3"] {
        until(cluster.node(name), "to_regclass('names') is not null").await;
        cluster.engine(name);
    }
    let Unfit::Collations { which } = lacks(cluster.node("db2"), Lack::Collations).await else {
        panic!("another kind")
    };
    assert!(which.starts_with("ICU 99.9, ") && which.ends_with("on the primary (de in postgres)"), "{which}");

    // What was recorded is older than what both have: an index is as good on the one as on the other.
    cluster.node("db1").sql("update pg_collation set collversion = '1' where collname = 'german'").await;
    until(cluster.node("db3"), "(select collversion = '1' from pg_collation where collname = 'german')").await;
    let db3 = cluster.node("db3");
    assert_eq!(kinds(&db3.until("seen", |seen| seen.streams_from.is_some()).await), []);
    // Where nobody can say what the primary has, it counts.
    cluster.node("db1").enclosure().kill();
    cluster.engine("db3");
    let Unfit::Collations { which } = lacks(cluster.node("db3"), Lack::Collations).await else {
        panic!("another kind")
    };
    assert!(which.ends_with(", 1 recorded (de in postgres)"), "{which}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rewind_may_not_do_on_the_primary_is_named_before_one_is_needed() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    for (revoke, words) in [
        (
            "revoke execute on function pg_read_binary_file(text) from regent_db2",
            "execute on pg_read_binary_file(text)",
        ),
        ("revoke execute on function pg_control_checkpoint() from public", "pg_control_checkpoint"),
        ("revoke connect on database postgres from public", "permission denied for database"),
        ("alter role regent_db2 connection limit 0", "too many connections"),
        ("alter role regent_db2 nologin", "is not permitted to log in"),
        ("alter database postgres connection limit 0", "too many connections"),
    ] {
        cluster.node("db1").sql(revoke).await;
        cluster.engine("db2");
        let Unfit::Rejoin { why } = lacks(cluster.node("db2"), Lack::Rejoin).await else { panic!("another kind") };
        println!("{why}");
        assert!(why.contains(words), "{why}");
        // The primary looks by itself, once a minute; what it put right it puts right once.
        let put_right = cluster.node("db1").engine().tend_roles().await.expect("it can");
        println!("{put_right:?}");
        assert!(!put_right.is_empty(), "{revoke}");
        assert_eq!(cluster.node("db1").engine().tend_roles().await.expect("it can"), [""; 0]);
        cluster.engine("db2");
        let seen = cluster.node("db2").until("a standby", |seen| seen.follows.is_some() && !seen.unfit.is_empty());
        assert!(
            tokio::time::timeout(Duration::from_secs(2), seen).await.is_err(),
            "{revoke}: it lacks something still"
        );
    }
    // A primary that is not there allows nothing either, and says nothing.
    cluster.node("db1").enclosure().kill();
    cluster.engine("db2");
    let seen = cluster.node("db2").until("a standby", |seen| seen.follows.is_some()).await;
    assert_eq!(kinds(&seen), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_senders_that_are_all_taken_are_named_before_a_copy_needs_two() {
    if !possible() {
        return;
    }
    let lets_readers_in = |postgresql: &mut Postgresql| postgresql.hba.push("local replication all trust".to_owned());
    let mut cluster = Cluster::running_with(&["db1", "db2"], lets_readers_in).await;
    let db1 = cluster.node("db1");
    let client = db1.client().await.expect("it answers");
    let senders: i32 =
        client.query_one("select current_setting('max_wal_senders')::int", &[]).await.expect("asked").get(0);
    let mut readers = Vec::new();
    for _ in 0..senders - 2 {
        // It becomes the reader itself: `runuser` would stay its parent, and be killed in its place.
        let mut reader = Command::new("setpriv");
        reader.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        reader.arg(Path::new(bin_dir()).join("pg_receivewal"));
        reader.arg("-h").arg(db1.run().join("socket")).args(["-p", "5499", "-U", "postgres", "--no-loop", "-D"]);
        let folder = tempfile::Builder::new().prefix("regent-wal-").tempdir_in("/var/tmp").expect("a directory");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("mine");
        readers.push((Reader(reader.arg(folder.path()).spawn().expect("it runs")), folder));
    }
    until(db1, &format!("(select count(*) = {senders} - 1 from pg_stat_replication)")).await;
    cluster.engine("db2");
    let Unfit::Rejoin { why } = lacks(cluster.node("db2"), Lack::Rejoin).await else { panic!("another kind") };
    assert!(why.contains("WAL senders") && why.contains("max_wal_senders"), "{why}");
    drop(readers);
    cured(cluster.node("db2"), Lack::Rejoin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_named_until_there_is_room() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        if is_of(postgresql, "db2") {
            postgresql.wal_dir = Some(postgresql.data_dir.with_file_name("wal").join("main"));
        }
    });
    Volume::mount(&cluster.path().join("db2/wal"), 400);
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    let ballast = cluster.path().join("db2/wal/ballast");
    let mut file = fs::File::create(&ballast).expect("made");
    let free = || {
        let volume = nix::sys::statvfs::statvfs(&cluster.path().join("db2/wal")).expect("asked");
        volume.blocks_available() * volume.fragment_size()
    };
    // The server may take room for WAL meanwhile.
    while free() > 10 << 20 {
        file.write_all(&[7; 1 << 20]).expect("it fits");
    }
    // What is open keeps its room when it is removed.
    drop(file);
    cluster.engine("db2");
    let Unfit::Room { place, free } = lacks(cluster.node("db2"), Lack::Room).await else { panic!("another kind") };
    assert!(place.ends_with("db2/wal/main") && free <= 10 << 20, "{place} {free}");
    fs::remove_file(&ballast).expect("removed");
    cured(cluster.node("db2"), Lack::Room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_its_checksum_is_counted() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders select generate_series(1, 1000)").await;
    db1.done(DbAction::Checkpoint).await;
    until(db2, "(select count(*) = 1000 from orders)").await;
    let client = db2.client().await.expect("it answers");
    let row = client.query_one("select pg_relation_filepath('orders')", &[]).await.expect("there");
    let file = db2.postgresql().data_dir.join(row.get::<_, &str>(0));
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    fs::File::options().write(true).open(file).expect("there").write_all_at(b"a flipped page", 4000).expect("written");
    let upstream = Some(cluster.upstream("db1"));
    db2.done(DbAction::StartStandby { upstream }).await;
    let client = db2.client().await.expect("it answers");
    let refused = client.query_one("select count(*) from orders", &[]).await.expect_err("its first page is invalid");
    assert!(refused.to_string().contains("db error"), "{refused}");
    drop(client);
    until(db2, "(select checksum_failures > 0 from pg_stat_database where datname = 'postgres')").await;
    let mut cluster = cluster;
    cluster.engine("db2");
    let Unfit::Checksums { database, failures } = lacks(cluster.node("db2"), Lack::Checksums).await else {
        panic!("another kind")
    };
    assert!(database == "postgres" && failures > 0, "{database} {failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_could_not_start_it_again_are_named() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (data, here) = (crate::cluster::version(), bin_dir());
    cluster.change("db2", |postgresql| postgresql.bin_dir = folder.path().to_owned());
    cluster.engine("db2");
    assert_eq!(lacks(cluster.node("db2"), Lack::Version).await, Unfit::Version { programs: 0, data });
    let other = if data == 14 { 15 } else { 14 };
    let server = folder.path().join("postgres");
    fs::write(&server, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {other}.1'\n")).expect("written");
    for path in [folder.path(), &server] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mine");
    }
    cluster.engine("db2");
    assert_eq!(lacks(cluster.node("db2"), Lack::Version).await, Unfit::Version { programs: other, data });
    cluster.change("db2", |postgresql| postgresql.bin_dir = here.into());
    cluster.engine("db2");
    let seen = cluster.node("db2").until("a standby", |seen| seen.streams_from.is_some()).await;
    assert_eq!(kinds(&seen), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_reached_from_here_is_named() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    let (program, reachable) = (folder.path().join("archive"), folder.path().join("reachable"));
    fs::write(&program, "#!/bin/sh\nexit 0\n").expect("written");
    let command = format!("{} %p", program.display());
    let check = Program {
        program: "/usr/bin/test".into(),
        arguments: vec!["-e".to_owned(), reachable.display().to_string()],
        timeout: Duration::from_secs(5),
    };
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| {
        set(postgresql, "archive_mode", "on");
        set(postgresql, "archive_command", &command);
        postgresql.commands.archive_check = Some(check.clone());
    });
    let cluster = cluster.await;
    for name in ["db1", "db2"] {
        let Unfit::Archive { why } = lacks(cluster.node(name), Lack::Archive).await else { panic!("another kind") };
        assert!(why.contains(&program.display().to_string()) && why.contains("cannot be executed"), "{why}");
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mine");
    let by_check = |seen: &Observation| {
        seen.unfit.iter().any(|unfit| matches!(unfit, Unfit::Archive { why } if why.starts_with("archive_check: ")))
    };
    cluster.node("db2").until("refused by the check", by_check).await;
    fs::write(&reachable, "").expect("written");
    cured(cluster.node("db2"), Lack::Archive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_is_kept_because_nothing_says_where_to_archive_it_is_named() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running_with(&["db1"], |postgresql| set(postgresql, "archive_mode", "on")).await;
    let db1 = cluster.node("db1");
    let Unfit::Archive { why } = lacks(db1, Lack::Archive).await else { panic!("another kind") };
    assert!(why.contains("archive_command is empty"), "{why}");
    db1.sql("alter system set archive_command = '/bin/true'").await;
    db1.sql("select pg_reload_conf()").await;
    cured(db1, Lack::Archive).await;
}
