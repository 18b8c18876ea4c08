//! Copies and first databases by an operator's own program, here scripts: what they are told, what becomes of what they leave,
//! and of those that fail, hang, or make something else. Real backup tools: `tests/backup`.

use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible, timed};
use regent::config::{Command, Commands};
use regent::engine::Engine;
use regent::types::{CopyStage, DbAction, DbDone, DbOutcome, DbState, Epoch, Timeline};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What pg_basebackup would make, by somebody else.
const COPY: &str = "BIN/pg_basebackup -D \"$1\" -d \"$2\" -X fetch -c fast --no-sync";
const HOUR: Duration = Duration::from_secs(3600);

/// Where the database's user may make what it likes.
fn scratch(folder: &Path) -> PathBuf {
    let scratch = folder.join("scratch");
    fs::create_dir_all(&scratch).expect("made");
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).expect("mine");
    scratch
}

/// A script of the operator's, with `BIN` for PostgreSQL's programs and `SCRATCH` for that folder.
fn script(cluster: &Cluster, name: &str, text: &str) -> PathBuf {
    let (path, scratch) = (cluster.path().join(name), scratch(cluster.path()).display().to_string());
    let text = text.replace("BIN", bin_dir()).replace("SCRATCH", &scratch);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mine");
    path
}

fn command(program: PathBuf, arguments: &[&str], timeout: Duration) -> Option<Command> {
    Some(Command { program, arguments: arguments.iter().map(|word| (*word).to_owned()).collect(), timeout })
}

impl Cluster {
    /// db1 takes writes; db2 has nothing, and this script makes its copies.
    async fn beside_a_primary(text: &str) -> Cluster {
        let mut cluster = Cluster::new(&["db1", "db2"]);
        cluster.engine("db1");
        cluster.create("db1").await;
        cluster.clones_by(text, |_| {});
        cluster
    }

    fn clones_by(&mut self, text: &str, change: impl FnOnce(&mut Commands)) {
        let program = script(self, "copy", text);
        let mut commands =
            Commands { clone: command(program, &["{data_dir}", "{conninfo}"], HOUR), ..Commands::default() };
        change(&mut commands);
        self.change("db2", |postgresql| postgresql.commands = commands);
        self.engine("db2");
    }

    /// db1 alone, to be made by this script.
    fn made_by(text: &str) -> Cluster {
        let mut cluster = Cluster::new(&["db1", "db2"]);
        cluster.makes_by(text);
        cluster
    }

    fn makes_by(&mut self, text: &str) {
        let program = script(self, "make", text);
        let bootstrap = command(program, &["{data_dir}"], HOUR);
        self.change("db1", |postgresql| postgresql.commands = Commands { bootstrap, ..Commands::default() });
        self.engine("db1");
    }

    fn rejoins(&self) -> DbAction {
        DbAction::Rejoin { upstream: self.upstream("db1"), order: None }
    }
}

/// What a file in the data directory says.
fn says(node: &Database, name: &str) -> String {
    fs::read_to_string(node.postgresql().data_dir.join(name)).unwrap_or_default()
}

/// The script leaves what a backup tool may: lines that would have the copy follow somebody else, end at a moment and open
/// itself. Nothing of that counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_a_command_follows_as_regent_says_whatever_the_command_left() {
    if !possible() {
        return;
    }
    let left = "touch \"$1/recovery.signal\" && echo 4000000 > \"$1/postmaster.pid\" && rm \"$1/postgresql.conf\" &&
        cat >> \"$1/postgresql.auto.conf\" <<END
primary_conninfo = 'host=nowhere.invalid user=somebody'
restore_command = 'echo %f >> $REGENT_DATA_DIR/asked; exit 1'
recovery_target_time = '2000-01-01 00:00:00+00'
recovery_target_action = 'promote'
END
        env | grep ^REGENT_ > \"$1/told\"";
    let mut cluster = Cluster::beside_a_primary(&format!("{COPY} &&\n{left}")).await;
    cluster.node("db1").sql("insert into orders values (1)").await;
    let (done, _) = timed("a copy by a command", cluster.follow("db2", "db1")).await;
    assert!(matches!(&done, DbDone::Rejoined { how, .. } if how.contains("the directory was empty")), "{done:?}");
    let db2 = cluster.node("db2");
    cluster.node("db1").sql("insert into orders values (2)").await;
    db2.until_ids(&[1, 2]).await;
    let settings = says(db2, "postgresql.auto.conf");
    assert!(!settings.contains("nowhere.invalid") && !settings.contains("recovery_target"), "{settings}");
    let data_dir = db2.postgresql().data_dir.display().to_string();
    assert!(settings.contains(&format!("restore_command = 'echo %f >> {data_dir}/asked; exit 1'")), "{settings}");
    assert!(!says(db2, "asked").is_empty(), "it is in force while the standby follows");
    let told = says(db2, "told");
    for expected in [
        "REGENT_SERVICE=orders",
        "REGENT_NODE=db2",
        "REGENT_UPSTREAM=db1",
        "REGENT_UPSTREAM_PORT=5499",
        "REGENT_USER=regent_db2",
        "REGENT_WAL_DIR=\n",
        "REGENT_TABLESPACES=\n",
        "main.clone\n",
    ] {
        assert!(told.contains(expected), "no {expected:?} in {told}");
    }

    db2.done(DbAction::Seal).await;
    let settings = says(db2, "postgresql.auto.conf");
    assert!(!settings.contains("restore_command"), "what arrived is final: {settings}");
    db2.lease(2, HOUR);
    cluster.node("db1").done(DbAction::Stop { ladder: LADDER }).await;
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    // Without the program there is nothing of it either.
    cluster.change("db2", |postgresql| postgresql.commands = Commands::default());
    cluster.engine("db2");
    assert!(!cluster.path().join("db2/regent/orders/restore_command").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_told_with_its_last_words_and_nothing_takes_its_place() {
    if !possible() {
        return;
    }
    let fails = "setsid sleep 4713.1 &\necho 'the repository is locked' >&2\nseq 100000\nexit 37";
    let mut cluster = Cluster::beside_a_primary(fails).await;
    let error = cluster.node("db2").fails(cluster.rejoins()).await;
    println!("{error}");
    assert!(error.starts_with("clone_command: ") && error.contains("exit status: 37"), "{error}");
    assert!(error.contains("the repository is locked") && error.len() < 400, "{error}");
    assert!(!cluster.node("db2").postgresql().data_dir.exists());
    until("ended with it", || !runs("4713.1")).await;

    cluster.clones_by(fails, |commands| commands.clone_falls_back = true);
    cluster.node("db2").until_state(DbState::Unstartable).await;
    cluster.follow("db2", "db1").await;
}

/// Whether a process with this word is left.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("readable").flatten();
    let mut words = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    words.any(|words| words.split(|byte| *byte == 0).any(|found| found == word.as_bytes()))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < end, "not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    if !possible() {
        return;
    }
    let hangs = "echo 'waiting for the tape'\nsetsid sleep 4711.1 &\nsleep 4711.2";
    let mut cluster = Cluster::beside_a_primary(hangs).await;
    cluster.clones_by(hangs, |commands| {
        commands.clone.as_mut().expect("there").timeout = Duration::from_secs(2);
    });
    let error = cluster.node("db2").fails(cluster.rejoins()).await;
    println!("{error}");
    assert!(error.contains("killed after 2 s") && error.ends_with("waiting for the tape"), "{error}");
    until("killed", || !runs("4711.1") && !runs("4711.2")).await;
}

/// Nobody waits for it any more: it is as if its daemon had been killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_killed_daemon_is_ended_before_another_begins() {
    if !possible() {
        return;
    }
    let text = "test -e \"${1%/*}/slow\" || exec COPY\nsetsid sleep 4712.1 &\nsleep 4712.2";
    let mut cluster = Cluster::beside_a_primary(&text.replace("COPY", COPY)).await;
    if cluster.node("db1").enclosure().cgroup().is_none() {
        return println!("SKIPPED: no cgroup can be made here");
    }
    let slow = cluster.path().join("db2/slow");
    fs::write(&slow, "").expect("written");
    let (action, killed) = (cluster.rejoins(), cluster.nodes.get_mut("db2").expect("there").take_engine());
    let left = tokio::spawn(async move { (killed.perform(action).await, killed) });
    until("begun", || runs("4712.1") && runs("4712.2")).await;
    cluster.engine("db2");
    assert!(!runs("4712.1") && !runs("4712.2"), "it is ended by the time that the next daemon has its engine");
    let (outcome, _killed) = left.await.expect("no panic");
    assert!(matches!(outcome, DbOutcome::Failed { .. }), "{outcome:?}");
    fs::remove_file(slow).expect("removed");
    cluster.follow("db2", "db1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_none_of_this_database_is_refused_and_says_why() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::beside_a_primary("exit 0").await;
    let data_dir = cluster.node("db2").postgresql().data_dir.clone();
    let cases = [
        // It was to be told where.
        (
            "BIN/pg_basebackup -D SCRATCH/elsewhere -d \"$2\" -X fetch -c fast",
            "holds no database (global/pg_control and PG_VERSION)",
        ),
        ("BIN/initdb -D \"$1\" >&2", "has system identifier"),
        ("BIN/initdb -D \"$1\" >&2; echo 14 > \"$1/PG_VERSION\"", "of PostgreSQL 14, and the programs in"),
        ("COPY; mv \"$1/pg_wal\" SCRATCH/wal; ln -s SCRATCH/wal \"$1/pg_wal\"", "expected a directory"),
    ];
    for (text, expected) in cases {
        cluster.clones_by(&text.replace("COPY", COPY), |_| {});
        let error = cluster.node("db2").fails(cluster.rejoins()).await;
        println!("{error}");
        assert!(error.contains(expected), "{error}");
        assert!(!data_dir.exists(), "nothing took the place of the database");
    }
}

/// A backup of the primary, taken by hand, and then WAL is removed that comes after it.
async fn old_backup(cluster: &Cluster) {
    let db1 = cluster.node("db1");
    let backup = scratch(cluster.path()).join("backup");
    let socket = db1.run().join("socket").display().to_string();
    let take = format!("BIN/pg_basebackup -h {socket} -p 5499 -U postgres -D {} -X none -c fast", backup.display());
    as_postgres(&take);
    for id in 1..=4 {
        db1.sql(&format!("insert into orders values ({id})")).await;
        db1.sql("select pg_switch_wal()").await;
    }
    db1.sql("checkpoint").await;
}

fn as_postgres(line: &str) {
    let line = line.replace("BIN", bin_dir());
    let done = std::process::Command::new("runuser").args(["-u", "postgres", "--", "sh", "-c", &line]).output();
    let done = done.expect("runuser runs");
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A primary with an archive, that keeps no WAL itself, and lets its own user take backups.
async fn with_an_archive() -> Cluster {
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        let folder = postgresql.data_dir.ancestors().nth(2).expect("a node's own folder is in it");
        postgresql.hba = vec!["local replication postgres peer".to_owned()];
        let parameters = [
            ("archive_mode", "on".to_owned()),
            ("archive_command", format!("cp %p {}/%f", archive(folder).display())),
            ("wal_keep_size", "0".to_owned()),
            ("max_slot_wal_keep_size", "16MB".to_owned()),
            ("max_wal_size", "32MB".to_owned()),
            ("min_wal_size", "32MB".to_owned()),
        ];
        postgresql.parameters.extend(parameters.map(|(name, value)| (name.to_owned(), value)));
    });
    cluster.engine("db1");
    cluster.create("db1").await;
    cluster
}

fn archive(folder: &Path) -> PathBuf {
    let archive = scratch(folder).join("archive");
    fs::create_dir_all(&archive).expect("made");
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).expect("mine");
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_becomes_a_standby_by_the_archive_and_is_refused_without_one() {
    if !possible() {
        return;
    }
    let mut cluster = with_an_archive().await;
    let (folder, origin_backup) = (archive(cluster.path()), scratch(cluster.path()).join("backup"));
    old_backup(&cluster).await;
    let restore = format!("cp -a {}/. \"$1\"", origin_backup.display());
    cluster.clones_by(&restore, |_| {});
    let error = cluster.node("db2").fails(cluster.rejoins()).await;
    println!("{error}");
    assert!(error.contains("has removed the WAL from") && error.contains("no restore_command"), "{error}");

    let archived = format!("echo \"restore_command = 'cp {}/%f %p'\" >> \"$1/postgresql.auto.conf\"", folder.display());
    cluster.clones_by(&format!("{restore} && {archived}"), |_| {});
    let (_, _) = timed("a standby from an old backup", cluster.follow("db2", "db1")).await;
    cluster.node("db1").sql("insert into orders values (5)").await;
    cluster.node("db2").until_ids(&[1, 2, 3, 4, 5]).await;
}

/// The programs know nothing of `wal_dir`, and leave the WAL in the directory.
#[tokio::test(flavor = "multi_thread")]
async fn wal_that_a_command_left_in_the_directory_is_moved_to_where_it_belongs() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| {
        let wal = postgresql.data_dir.with_file_name("wal");
        postgresql.wal_dir = Some(wal);
    });
    cluster.makes_by("BIN/initdb -D \"$1\" -U postgres >&2");
    cluster.create("db1").await;
    cluster.clones_by(COPY, |_| {});
    cluster.follow("db2", "db1").await;
    cluster.node("db1").sql("insert into orders values (1)").await;
    cluster.node("db2").until_ids(&[1]).await;
    for name in ["db1", "db2"] {
        let data_dir = &cluster.node(name).postgresql().data_dir;
        let wal = fs::read_link(data_dir.join("pg_wal")).expect("a link");
        assert_eq!(wal, data_dir.with_file_name("wal"));
        assert!(wal.join("archive_status").is_dir());
    }
}

/// As the database's user, for whom a program of root's alone is none.
#[test]
fn config_check_looks_whether_the_host_has_the_programs() {
    if !possible() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("regent-check-").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    let of_root = folder.path().join("of-root");
    fs::write(&of_root, "#!/bin/sh\n").expect("written");
    fs::set_permissions(&of_root, fs::Permissions::from_mode(0o700)).expect("mine");
    let variables = folder.path().join("ledger.env");
    fs::write(&variables, "PGBACKREST_REPO1_S3_KEY=hush\n").expect("written");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).expect("mine");
    let check_with = |clone: &Path, node: &str, option: &str| {
        let file = folder.path().join("regent.toml");
        let example = include_str!("../../config/five-voters.toml");
        let text = example
            .replace("clone_command = [\"/usr/bin/pgbackrest\"", &format!("clone_command = [\"{}\"", clone.display()));
        assert_ne!(text, example, "the example has a clone_command");
        let text = text.replace("/usr/local/sbin/fence_site_gateway", "fence_regent_firewall");
        let text = text.replace("lanplus ", option);
        let text = text.replace("/etc/regent/ledger.env", &variables.display().to_string());
        let text = text.replace("bootstrap_command = [\"/usr/bin/pgbackrest\"", "bootstrap_command = [\"/bin/true\"");
        fs::write(&file, text).expect("written");
        let regent = std::process::Command::new(env!("CARGO_BIN_EXE_regent"))
            .args(["config", "check", "--host", "--node", node])
            .arg(&file)
            .output()
            .expect("regent runs");
        let said = String::from_utf8_lossy(&regent.stderr);
        // Beside what it is doing.
        let found: Vec<&str> = said.lines().filter(|line| !line.starts_with("… ")).collect();
        (regent.status.code(), found.join("\n"))
    };
    let check = |clone: &Path, node: &str| check_with(clone, node, "lanplus ");
    assert_eq!(check(Path::new("/bin/true"), "db1"), (Some(0), String::new()));
    let (status, said) = check_with(Path::new("/bin/true"), "w1", "lanpluss ");
    assert!(status == Some(2) && said.contains("option \"lanpluss\" is not declared"), "{said}");
    for (program, why) in [
        (of_root.as_path(), "cannot be executed: Permission denied (as user postgres)"),
        (Path::new("/nowhere"), "No such file or directory"),
        (folder.path(), "is no file"),
    ] {
        let (status, said) = check(program, "db1");
        println!("{said}");
        let place = format!("service.ledger.postgresql.clone_command: {}: ", program.display());
        assert!(status == Some(2) && said.contains(&place) && said.contains(why), "{said}");
    }
    assert_eq!(check(Path::new("/nowhere"), "w1").0, Some(0), "a witness has no databases");
    // What lies outside the data directory is tried as well: db2 has an address of its own, which this host has not.
    let (status, said) = check(Path::new("/bin/true"), "db2");
    assert!(status == Some(2) && said.contains("service.archive.postgresql.listen: 10.20.0.12"), "{said}");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o644)).expect("mine");
    let (status, said) = check(Path::new("/bin/true"), "db1");
    assert!(status == Some(2) && said.contains("environment_file") && said.contains("mode 644"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

/// How far a copy is is seen by what it takes, since nobody says it.
#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_copy_by_a_command_is_can_be_seen() {
    if !possible() {
        return;
    }
    let cluster = Cluster::beside_a_primary(&format!("{COPY} --max-rate=4096")).await;
    let db2 = cluster.node("db2");
    let seen = db2.until("copied", |seen| seen.copy.is_some_and(|copy| copy.done > 1 << 20 && copy.total.is_some()));
    let (_, seen) = tokio::join!(db2.done(cluster.rejoins()), seen);
    let copy = seen.copy.expect("looked for");
    println!("{copy}");
    assert!(copy.stage == CopyStage::Copying && copy.percent().is_some_and(|percent| percent > 0), "{copy:?}");
}

/// A first database from a backup of another one, which goes on under the very same number of a timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_database_by_a_command_has_roles_and_a_timeline_of_its_own() {
    if !possible() {
        return;
    }
    let origin = with_an_archive().await;
    let (folder, origin_backup) = (archive(origin.path()), scratch(origin.path()).join("backup"));
    let before = origin.node("db1");
    before.sql("alter role regent_db2 nologin").await;
    old_backup(&origin).await;
    before.sql("select pg_create_restore_point('here')").await;
    before.sql("insert into orders values (5)").await;
    before.sql("select pg_switch_wal()").await;
    until("archived", || fs::read_dir(&folder).expect("there").count() > 6).await;
    let restore = format!(
        "test -e SCRATCH/first || {{ touch SCRATCH/first \"$1/half\"; exit 9; }}\n\
         test ! -e \"$1/half\" && cp -a {}/. \"$1\" && touch \"$1/standby.signal\" &&\n\
         cat >> \"$1/postgresql.auto.conf\" <<END\n\
         restore_command = 'cp {}/%f %p'\nrecovery_target_name = 'here'\nrecovery_target_action = 'pause'\nEND",
        origin_backup.display(),
        folder.display(),
    );
    let mut cluster = Cluster::made_by(&restore);
    cluster.engine("db2");
    let error = cluster.node("db1").fails(DbAction::Initdb).await;
    assert!(error.contains("exit status: 9"), "{error}");
    assert_eq!(cluster.node("db1").engine().latest().state, DbState::Unstartable);
    let db1 = cluster.node("db1");
    let (made, _) = timed("a first database by a command", db1.done(DbAction::Initdb)).await;
    assert!(matches!(made, DbDone::Created { .. }), "{made:?}");
    assert!(!says(db1, "postgresql.auto.conf").contains("recovery_target"));
    db1.lease(1, HOUR);
    let done = db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    let DbDone::Writable { position } = done else { panic!("{done:?}") };
    assert_eq!(position.timeline, Timeline(2), "the other one goes on on the first");
    assert_eq!(db1.ids().await, [1, 2, 3, 4], "up to the point that was named");
    cluster.follow("db2", "db1").await;
    db1.sql("insert into orders values (6)").await;
    cluster.node("db2").until_ids(&[1, 2, 3, 4, 6]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_left_that_cannot_be_a_first_database_is_refused_and_says_why() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::made_by("exit 0");
    let cases = [
        ("touch \"$1/something\"", "holds no database"),
        ("BIN/initdb -D \"$1\" >&2; echo 14 > \"$1/PG_VERSION\"", "of PostgreSQL 14, and the programs in"),
        ("BIN/initdb -D \"$1\" -U other >&2", "has no superuser called postgres"),
        (
            "BIN/initdb -D \"$1\" >&2; echo \"recovery_target_name = 'nowhere'\" >> \"$1/postgresql.auto.conf\"",
            "cannot end its recovery (exit status: 1): ",
        ),
    ];
    for (text, expected) in cases {
        cluster.makes_by(text);
        let error = cluster.node("db1").fails(DbAction::Initdb).await;
        println!("{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(cluster.node("db1").engine().latest().state, DbState::Unstartable, "it is not started");
    }
    // At rest, and by a program that knows nothing of backups: a dump that was read in, say.
    cluster.makes_by("BIN/initdb -D \"$1\" -U postgres >&2");
    cluster.node("db1").done(DbAction::Initdb).await;
    cluster.node("db1").lease(1, HOUR);
    let done = cluster.node("db1").done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert!(matches!(done, DbDone::Writable { position } if position.timeline == Timeline(2)), "{done:?}");
}
