//! A copy as the primary and people see it: how often it is asked for where it cannot succeed, how far it is, and what
//! becomes of one that a killed daemon left. Where its parts lie: `places.rs`.

use crate::cluster::{Cluster, bin_dir, possible};
use regent::engine::Engine;
use regent::ledger::Phase;
use regent::plan::keeper::{Keeper, Moment};
use regent::types::{CopyStage, DbAction, DbOutcome, Epoch, Instant};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PostgreSQL's programs, of which one is a script; `REAL` in it is the program itself.
struct Programs(tempfile::TempDir);

impl Programs {
    fn with(name: &str, script: &str) -> Programs {
        let folder = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
        for program in fs::read_dir(bin_dir()).expect("programs").flatten() {
            let place = folder.path().join(program.file_name());
            if program.file_name() != name {
                symlink(program.path(), place).expect("linked");
                continue;
            }
            let script = script.replace("REAL", &program.path().display().to_string());
            fs::write(&place, format!("#!/bin/sh\n{script}\n")).expect("written");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("mine");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
        Programs(folder)
    }

    /// db1 takes writes, and db2 has nothing.
    async fn beside_a_primary(&self) -> Cluster {
        let path: PathBuf = self.0.path().to_owned();
        let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| postgresql.bin_dir.clone_from(&path));
        for name in ["db1", "db2"] {
            cluster.engine(name);
        }
        cluster.create("db1").await;
        cluster
    }
}

/// Each copy is made and then lost, the pauses pass in no time, and ten minutes of them are counted at the primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_succeed_is_asked_of_the_primary_less_and_less_often() {
    if !possible() {
        return;
    }
    let programs = Programs::with("pg_basebackup", "REAL \"$@\" || exit\necho 'the disk is gone' >&2\nexit 1");
    let cluster = programs.beside_a_primary().await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    // A new primary writes one of its own, beside everything else.
    while db1.checkpoints().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = db1.checkpoints().await;
    let action = DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None };
    let (start, mut keeper) = (Instant(1_000_000_000_000), Keeper::default());
    let (mut now, mut begun) = (start, Vec::new());
    while now.since(start) < Duration::from_secs(600) {
        let at = Moment { now, epoch: Some((Epoch(1), Phase::Installed)), holder: None };
        begun.push(now.since(start).as_secs());
        keeper.begins(action.clone(), at);
        let outcome = db2.engine().perform(action.clone()).await;
        let DbOutcome::Failed { error } = &outcome else { panic!("{outcome:?}") };
        assert!(error.ends_with("the disk is gone"), "its progress is no part of why it failed: {error}");
        keeper.ended(&action, outcome, false, at);
        now = keeper.failed_copy().and_then(|failed| failed.again_at).expect("it is tried again");
    }
    assert_eq!(begun, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]);
    assert_eq!(db1.checkpoints().await - before, 10, "each of them asks for one");
}

fn running(pattern: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("readable").flatten().filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned())
    });
    processes.filter(|words| words.contains(pattern) && words.contains("pg_basebackup")).collect()
}

/// The first try takes as long as it may, and the daemon that waits for it is gone in the middle of it. What another
/// one finds of it is ended before it does anything, and its half copy is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_killed_daemon_left_is_ended_before_another_begins() {
    if !possible() {
        return;
    }
    let slowly = "test -e \"${2%/*}/slow\" && exec REAL --max-rate=32 \"$@\"\nexec REAL \"$@\"";
    let programs = Programs::with("pg_basebackup", slowly);
    let mut cluster = programs.beside_a_primary().await;
    if cluster.node("db1").enclosure().cgroup().is_none() {
        return println!("SKIPPED: no cgroup can be made here");
    }
    let slow = cluster.path().join("db2/slow");
    fs::write(&slow, "").expect("written");
    let half = cluster.path().join("db2/.regent-main.clone");
    let mark = half.display().to_string();
    let action = DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None };
    // Nobody waits for it any more, and nobody ends it: it is as if its daemon had been killed.
    let killed = cluster.nodes.get_mut("db2").expect("there").take_engine();
    let left = tokio::spawn({
        let action = action.clone();
        async move {
            let outcome = killed.perform(action).await;
            (killed, outcome)
        }
    });
    let begun = || fs::read_dir(&half).is_ok_and(|mut copied| copied.next().is_some());
    wait(begun).await;
    assert!(!running(&mark).is_empty(), "it runs");

    cluster.engine("db2");
    assert_eq!(running(&mark), Vec::<String>::new(), "it is ended by the time that the next daemon has its engine");
    let (_killed, outcome) = left.await.expect("no panic");
    assert!(matches!(outcome, DbOutcome::Failed { .. }), "{outcome:?}");
    assert!(begun(), "its half copy is there still");
    fs::write(half.join("of-the-first-try"), "").expect("written");
    fs::remove_file(slow).expect("removed");
    cluster.follow("db2", "db1").await;
    let data_dir = &cluster.node("db2").postgresql().data_dir;
    assert!(!half.exists() && !data_dir.join("of-the-first-try").exists(), "nothing of it is used");
}

async fn wait(holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < end, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_copy_is_can_be_seen_while_it_runs() {
    if !possible() {
        return;
    }
    let programs = Programs::with("pg_basebackup", "exec REAL --max-rate=4096 \"$@\"");
    let cluster = programs.beside_a_primary().await;
    let db2 = cluster.node("db2");
    assert_eq!(db2.engine().latest().copy, None);
    let upstream = cluster.upstream("db1");
    let copied = async {
        let done = db2.done(DbAction::Rejoin { upstream, order: None }).await;
        (done, db2.engine().latest().copy)
    };
    let seen = async {
        let moves = |at: u64| move |seen: &regent::types::Observation| seen.copy.is_some_and(|copy| copy.done > at);
        let first = db2.until("copied", moves(0)).await.copy.expect("looked for");
        let next = db2.until("copied further", moves(first.done)).await.copy.expect("looked for");
        (first, next)
    };
    let ((_, after), (first, next)) = tokio::join!(copied, seen);
    let total = next.total.expect("pg_basebackup asks for it");
    assert_eq!((first.stage, next.stage), (CopyStage::Copying, CopyStage::Copying));
    assert!(first.done < next.done && next.done <= total, "{first:?}, {next:?}");
    assert!(total > size(&cluster.path().join("db1/main/base")), "{next:?}: all of it is counted");
    assert!(next.left.is_some_and(|left| left < 60) && next.percent().is_some_and(|percent| percent > 0), "{next:?}");
    assert_eq!(after, None, "it is over");
}

/// The bytes of all files of a database's folders.
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("readable").flatten().filter_map(|e| fs::read_dir(e.path()).ok());
    files.flat_map(|folder| folder.flatten().filter_map(|file| file.metadata().ok())).map(|about| about.len()).sum()
}
