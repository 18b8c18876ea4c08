//! The guard: the database does not outlive its lease, whatever has become of the daemon.

use crate::cluster::{Cluster, LADDER, possible};
use regent::action::guard::{GuardOptions, LeaseFile, read_lease, spawn, write_lease};
use regent::clock;
use regent::types::{Boot, DbAction, DbState, Epoch};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const REGENT: &str = env!("CARGO_BIN_EXE_regent");

/// Something called `postgres` that works in a data directory: a database, for a guard.
pub struct Victim(Child);

impl Victim {
    pub fn in_directory(directory: &Path) -> Self {
        let program = directory.join("postgres");
        std::fs::copy("/bin/sleep", &program).expect("every system has it");
        Victim(Command::new(program).arg("600").current_dir(directory).spawn().expect("it can be started"))
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("our own child").is_some()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lease_of(ttl: Duration) -> LeaseFile {
    LeaseFile { boot: Boot("b".into()), epoch: Epoch(1), end: clock::now() + ttl, released: false, daemon: None }
}

/// A small file system in memory, mounted for one test.
struct Small(tempfile::TempDir);

impl Small {
    fn mounted() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "small"]).arg(directory.path());
        let done = mount.status().expect("mount is there");
        assert!(done.success(), "{done}");
        Small(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Not one more page.
    fn fill(&self) {
        let mut file = File::create(self.path().join("full")).expect("a name takes no space");
        while file.write(&[1; 4096]).is_ok_and(|n| n > 0) {}
        let error = std::fs::write(self.path().join("more"), "x").expect_err("it is full");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_go_on_where_the_run_directory_is_full_and_the_guard_kills_nobody() {
    if !possible() {
        return;
    }
    let (small, data) = (Small::mounted(), tempfile::tempdir().expect("a directory"));
    let lease = small.path().join("lease");
    let ttl = Duration::from_millis(700);
    write_lease(&lease, &lease_of(ttl)).expect("there is room");
    let mut victim = Victim::in_directory(data.path());
    let options = GuardOptions { lease: lease.clone(), goodbye: None, cgroup: None, data_dir: data.path().to_owned() };
    spawn(Path::new(REGENT), &options).await.expect("the guard stands");
    small.fill();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let renewed = lease_of(ttl);
        write_lease(&lease, &renewed).expect("a renewal takes no space");
        assert_eq!(read_lease(&lease).expect("a lease file"), renewed);
        assert!(!victim.has_ended(), "killed under a lease that was renewed");
    }
    // The last one ends: the guard has heard of each, and of no more.
    tokio::time::sleep(ttl + Duration::from_millis(500)).await;
    assert!(victim.has_ended(), "the guard did not kill at the end of the lease");
}

/// A pipe that nobody reads and that takes not one byte more: its reading end, and its writing one.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: system calls on a descriptor that is open.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    while (&writer).write(&[b'x'; 512]).is_ok() {}
    while (&writer).write(b"x").is_ok() {}
    // SAFETY: as above.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, 0) };
    (reader, writer)
}

#[test]
fn a_guard_whose_words_nobody_reads_kills_all_the_same_and_goes() {
    if !possible() {
        return;
    }
    let (run, data) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let lease = run.path().join("lease");
    write_lease(&lease, &lease_of(Duration::from_millis(500))).expect("written");
    let mut victim = Victim::in_directory(data.path());
    let (_reader, writer) = full_pipe();
    let mut guard = Command::new(REGENT);
    guard.args(["guard", "--lease"]).arg(&lease).arg("--data-dir").arg(data.path());
    let mut guard = Victim(guard.stdout(Stdio::null()).stderr(writer).spawn().expect("the guard starts"));
    let begun = Instant::now();
    while !(victim.has_ended() && guard.has_ended()) {
        let late = begun.elapsed() > Duration::from_secs(3);
        assert!(!late, "victim ended: {}, guard ended: {}", victim.has_ended(), guard.has_ended());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("TIME lease end to both gone: {:?}", begun.elapsed().saturating_sub(Duration::from_millis(500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_kills_the_database_at_the_end_of_the_lease_with_the_daemon_gone() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    // The guard of the hour's lease hears of a shorter one, and of its renewal.
    db1.lease(1, Duration::from_millis(600));
    db1.lease(1, Duration::from_millis(2000));
    let end = Instant::now() + Duration::from_millis(2000);
    let enclosure = db1.enclosure();
    cluster.nodes.get_mut("db1").expect("there").drop_engine();
    let early = end - Duration::from_millis(100);
    tokio::time::sleep(early.saturating_duration_since(Instant::now())).await;
    assert!(!enclosure.is_empty(), "killed before the renewed lease had ended");
    tokio::time::timeout(Duration::from_secs(3), enclosure.emptied()).await.expect("killed by the guard");
    println!("TIME lease end to empty: {:?}", end.elapsed());
    assert!(end.elapsed() < Duration::from_millis(500), "{:?}", end.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_leaves_a_database_alone_that_was_stopped_and_started_as_a_standby() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.lease(1, Duration::from_millis(2500));
    db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db1.done(DbAction::StartStandby { upstream: None }).await;
    tokio::time::sleep(Duration::from_millis(3000)).await;
    assert_eq!(db1.until_state(DbState::Standby).await.state, DbState::Standby);
    assert!(!db1.enclosure().is_empty());
}
