//! The durable log under crashes: a process that appends is killed at random points, its disk fills up, its flushes and
//! writes fail, and the power is cut with every unflushed sector in doubt. Whatever was acknowledged is there afterwards.
//!
//! The process that dies is this test once more, told so by its environment; it acknowledges on its standard output.

use super::durable::Durable;
use super::mark::Mark;
use super::store_test::{C, committed_in};
use super::{Backend, Change, Store, StoreError};
use crate::consensus::raft::{LogEntry, LogId, Payload, Proposal, SnapshotMeta, Vote};
use crate::ledger::{Command, Entry};
use crate::types::WallTime;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Set in the process that is to die: the file that it appends to.
const FILE: &str = "REGENT_TEST_LOG_FILE";
/// What goes wrong for it: `flush N` or `write N` (all from the Nth on fail).
const FAULT: &str = "REGENT_TEST_LOG_FAULT";
/// How many bytes an entry has, roughly.
const SIZE: &str = "REGENT_TEST_LOG_SIZE";

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: committed_in(term), index }
}

fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    let service = "orders".parse().expect("valid");
    let command = Command::Pause { service, who: format!("{index}").repeat(size / 4 + 1), why: None, lasts: None };
    let proposal = Proposal(Arc::new(Entry { at: WallTime(term * 1000 + index), command }));
    LogEntry { log_id: log_id(term, index), payload: Payload::Normal(proposal) }
}

/// Says a line to the parent, at once. On a line of its own: the test harness has begun one.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{line}\n").and_then(|()| out.flush()).expect("the parent listens");
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// In the process that is to die: appends, votes, cuts and purges without end, and says each step once it is flushed.
/// What takes something away is announced before.
fn die_if_told() {
    let Some(path) = env(FILE).map(PathBuf::from) else { return };
    let size = env(SIZE).map_or(0, |size| size.parse().expect("a number"));
    let mut store: Store<C> = Store::open(Arc::new(opened(&path))).expect("what is there can be used");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let image = store.image();
        let mut term = image.vote.map_or(0, |vote| vote.leader_id().term);
        let mut next = image.log.keys().next_back().map_or(image.purged.map_or(0, |p| p.index + 1), |last| last + 1);
        say("ready");
        for step in 1_u64.. {
            match step % 30 {
                7 => {
                    term += 1;
                    store.save_vote(&Vote::new(term, 2)).await.expect("saved");
                    say(&format!("vote {term}"));
                }
                17 if next > store.image().purged.map_or(0, |p| p.index + 1) + 3 => {
                    next -= 2;
                    say(&format!("cutting {next}"));
                    let last = store.image().log[&(next - 1)].log_id;
                    store.truncate_after(Some(last)).await.expect("cut");
                    say(&format!("cut {next}"));
                }
                // Whoever is to fill a disk gives nothing back.
                29 if size < 10_000 => {
                    let last = store.image().log.values().next_back().expect("just appended").log_id;
                    let meta = SnapshotMeta { last_log_id: Some(last), ..Default::default() };
                    store.save_snapshot(&meta, format!("{last}").repeat(size / 8 + 1).as_bytes()).await.expect("saved");
                    say(&format!("snapshot {}", last.index));
                    let purged = store.image().log.values().rev().nth(4).map(|entry| entry.log_id);
                    if let Some(purged) = purged {
                        say(&format!("purging {}", purged.index));
                        store.purge(purged).await.expect("purged");
                    }
                }
                _ => {
                    let batch: Vec<_> = (next..next + 1 + step % 3).map(|index| entry(term, index, size)).collect();
                    next += batch.len() as u64;
                    store.blocking_append(batch.clone()).await.expect("appended");
                    batch.iter().for_each(|entry| say(&format!("log {} {term}", entry.log_id.index)));
                }
            }
        }
    });
}

fn opened(path: &Path) -> Durable {
    let Some(fault) = env(FAULT) else { return Durable::open(path, false).expect("what is there can be used") };
    let (what, after) = fault.split_once(' ').expect("two words");
    let after = after.parse().expect("a number");
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).expect("made");
    let file = redb::backends::FileBackend::new(file).expect("a backend");
    let (count, flushes) = (AtomicU64::new(0), what == "flush");
    let failing = Failing { file, flushes, after, count, armed: Arc::default() };
    let armed = failing.armed.clone();
    let database = redb::Database::builder().create_with_backend(failing).expect("a database");
    let mark = Mark::open(&path.with_extension("mark"), false).expect("a mark");
    let durable = Durable::start(path, database, mark).expect("started");
    armed.store(true, Ordering::Relaxed);
    durable
}

/// A file whose flushes or writes fail from one moment on, for good.
#[derive(Debug)]
struct Failing {
    file: redb::backends::FileBackend,
    flushes: bool,
    after: u64,
    count: AtomicU64,
    armed: Arc<AtomicBool>,
}

impl Failing {
    fn fails(&self, flush: bool) -> std::io::Result<()> {
        let counts = self.armed.load(Ordering::Relaxed) && flush == self.flushes;
        match counts && self.count.fetch_add(1, Ordering::Relaxed) >= self.after {
            true => Err(std::io::Error::from_raw_os_error(nix::libc::EIO)),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.fails(true).and_then(|()| self.file.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.fails(false).and_then(|()| self.file.write(offset, data))
    }
}

fn start(test: &str, path: &Path, more: &[(&str, &str)]) -> Child {
    let own = std::env::current_exe().expect("this test");
    let mut command = std::process::Command::new(own);
    command.args([&format!("consensus::store::crash_test::{test}"), "--exact", "--nocapture"]);
    command.env(FILE, path).envs(more.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("started")
}

/// What the process that died has acknowledged.
#[derive(Default)]
struct Acknowledged {
    vote: u64,
    log: BTreeMap<u64, u64>,
    /// Everything before this may have been purged, as was announced.
    purging: u64,
    /// Everything from here on may have been cut off.
    cutting: Option<u64>,
    snapshot: Option<u64>,
    steps: u64,
}

impl Acknowledged {
    /// The next process starts from what is stored.
    fn of(store: &Store<C>) -> Self {
        let image = store.image();
        Acknowledged {
            vote: image.vote.map_or(0, |vote| vote.leader_id().term),
            log: image.log.values().map(|entry| (entry.log_id.index, *entry.log_id.leader_id)).collect(),
            purging: image.purged.map_or(0, |purged| purged.index + 1),
            snapshot: image.snapshot.and_then(|(meta, _)| meta.last_log_id).map(|last| last.index),
            ..Acknowledged::default()
        }
    }

    fn take(&mut self, line: &str) {
        let Some(said) = line.strip_prefix('@') else { return };
        let mut words = said.split(' ');
        let what = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        self.steps += 1;
        match (what, numbers.as_slice()) {
            ("vote", [term]) => self.vote = *term,
            ("log", [index, term]) => drop(self.log.insert(*index, *term)),
            ("snapshot", [index]) => self.snapshot = Some(*index),
            ("purging", [index]) => self.purging = index + 1,
            ("cutting", [first]) => self.cutting = Some(*first),
            ("cut", [first]) => {
                drop(self.log.split_off(first));
                self.cutting = None;
            }
            ("ready", []) => {}
            other => panic!("{other:?} is nothing that it says"),
        }
    }

    fn check(&self, store: &Store<C>, when: &str) {
        let image = store.image();
        let vote = image.vote.map_or(0, |vote| vote.leader_id().term);
        assert!(vote == self.vote || vote == self.vote + 1, "{when}: the vote of term {} is {vote}", self.vote);
        let covered = image.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id).map(|last| last.index);
        assert!(covered >= self.snapshot, "{when}: the snapshot of {:?} is {covered:?}", self.snapshot);
        for (index, term) in &self.log {
            let stored = image.log.get(index).map(|entry| *entry.log_id.leader_id);
            let purged = *index < self.purging && covered >= Some(*index);
            let cut = self.cutting.is_some_and(|first| *index >= first);
            assert!(stored == Some(*term) || purged || cut, "{when}: entry {index} of term {term} is {stored:?}");
        }
    }
}

fn reopened(path: &Path, when: &str) -> Store<C> {
    let durable = Durable::open(path, true).unwrap_or_else(|e| panic!("{when}: {e}"));
    Store::open(Arc::new(durable)).unwrap_or_else(|e| panic!("{when}: {e}"))
}

#[test]
fn whoever_is_killed_while_it_appends_has_lost_nothing_that_it_acknowledged() {
    die_if_told();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("raft.redb");
    let mut rng = StdRng::seed_from_u64(7);
    let (mut known, mut steps) = (Acknowledged::default(), 0);
    for round in 0..20 {
        let test = "whoever_is_killed_while_it_appends_has_lost_nothing_that_it_acknowledged";
        let mut child = start(test, &path, &[(SIZE, ["0", "3000"][round % 2])]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let enough = known.steps + rng.random_range(1..120);
        while known.steps < enough {
            known.take(&lines.next().expect("it goes on").expect("read"));
        }
        // Somewhere in the middle of a write.
        let spun = rng.random_range(0..200_000);
        (0..spun).for_each(|_| std::hint::spin_loop());
        child.kill().expect("killed");
        lines.for_each(|line| known.take(&line.expect("read")));
        assert_eq!(child.wait().expect("ended").signal(), Some(nix::libc::SIGKILL));
        let store = reopened(&path, &format!("round {round}"));
        known.check(&store, &format!("round {round}"));
        steps += known.steps;
        known = Acknowledged::of(&store);
        store.close();
    }
    println!("20 kills, {steps} acknowledged steps");
    assert!(steps > 500, "{steps} steps are too few to show anything");
}

#[test]
fn a_flush_or_write_that_fails_ends_the_process_and_loses_nothing() {
    die_if_told();
    let mut acknowledged = 0;
    for fault in ["flush 0", "flush 1", "flush 2", "flush 9", "flush 40", "write 0", "write 1", "write 5", "write 60"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("raft.redb");
        let test = "a_flush_or_write_that_fails_ends_the_process_and_loses_nothing";
        let output = start(test, &path, &[(FAULT, fault)]).wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(nix::libc::SIGABRT), "{fault}: {said}");
        assert!(
            said.contains("raft.redb cannot be written") && said.contains("nothing that was acknowledged"),
            "{said}"
        );
        let mut known = Acknowledged::default();
        String::from_utf8_lossy(&output.stdout).lines().for_each(|line| known.take(line));
        known.check(&reopened(&path, fault), fault);
        acknowledged += known.steps - 1;
    }
    assert!(acknowledged > 20, "{acknowledged}");
}

/// A small disk of its own, gone at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "SKIPPED where CI=true: this test needs root");
            println!("SKIPPED: this test needs root, to mount a small disk");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = SmallDisk(dir);
        disk.run("mount", &["-t", "tmpfs", "-o", "size=3m", "tmpfs"]);
        Some(disk)
    }

    fn grow(&self) {
        self.run("mount", &["-o", "remount,size=64m"]);
    }

    fn run(&self, program: &str, args: &[&str]) {
        let ran = std::process::Command::new(program).args(args).arg(self.0.path()).status();
        assert!(ran.is_ok_and(|status| status.success()), "{program} {args:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &["--lazy"]);
    }
}

#[test]
fn a_full_disk_ends_the_process_says_so_and_loses_nothing() {
    die_if_told();
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("raft.redb");
    let test = "a_full_disk_ends_the_process_says_so_and_loses_nothing";
    let output = start(test, &path, &[(SIZE, "20000")]).wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(nix::libc::SIGABRT), "{said}");
    assert!(said.contains("raft.redb cannot be written") && said.contains("Make room"), "{said}");
    let mut known = Acknowledged::default();
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| known.take(line));
    assert!(known.steps > 20, "{}", known.steps);
    // Nobody is told to remove a node because its disk is full.
    match Durable::open(&path, true) {
        Ok(durable) => known.check(&Store::open(Arc::new(durable)).expect("whole"), "still full"),
        Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
    }
    disk.grow();
    let mut store = reopened(&path, "with room again");
    known.check(&store, "with room again");
    let next = store.image().log.keys().next_back().map_or(0, |last| last + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(store.blocking_append([entry(99, next, 20_000)])).expect("appended");
    store.close();
}

/// A disk in memory with a cache that the power takes: what was not flushed is there, or not, sector by sector.
#[derive(Debug, Default)]
struct Volatile {
    platter: Mutex<Vec<u8>>,
    cache: Mutex<Vec<Unflushed>>,
    /// So many operations until the power is gone; then everything is pretended.
    left: AtomicU64,
    gone: AtomicBool,
    /// The mark is a file of the test's: how it stood when the power went.
    mark: Mutex<(PathBuf, Vec<u8>)>,
}

#[derive(Debug)]
enum Unflushed {
    Length(u64),
    Sector(u64, Vec<u8>),
}

#[derive(Debug, Clone)]
struct Power(Arc<Volatile>);

impl Unflushed {
    fn reach(&self, platter: &mut Vec<u8>) {
        match self {
            Unflushed::Length(length) => platter.resize(*length as usize, 0),
            Unflushed::Sector(offset, data) => {
                let (from, to) = (*offset as usize, *offset as usize + data.len());
                if platter.len() < to {
                    platter.resize(to, 0);
                }
                platter[from..to].copy_from_slice(data);
            }
        }
    }
}

impl Power {
    /// Whether the power is still there for this operation.
    fn is_on(&self) -> bool {
        let disk = &self.0;
        if disk.gone.load(Ordering::Relaxed) {
            return false;
        }
        if disk.left.fetch_sub(1, Ordering::Relaxed) > 1 {
            return true;
        }
        let mut mark = disk.mark.lock().expect("whole");
        mark.1 = std::fs::read(&mark.0).expect("the mark");
        disk.gone.store(true, Ordering::Relaxed);
        false
    }

    fn present(&self) -> Vec<u8> {
        let mut present = self.0.platter.lock().expect("whole").clone();
        self.0.cache.lock().expect("whole").iter().for_each(|write| write.reach(&mut present));
        present
    }

    fn cached(&self, write: Unflushed) {
        self.0.cache.lock().expect("whole").push(write);
    }
}

impl redb::StorageBackend for Power {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.present().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        out.copy_from_slice(&self.present()[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        if self.is_on() {
            self.cached(Unflushed::Length(len));
        }
        Ok(())
    }
    fn sync_data(&self) -> std::io::Result<()> {
        if self.is_on() {
            let mut platter = self.0.platter.lock().expect("whole");
            self.0.cache.lock().expect("whole").drain(..).for_each(|write| write.reach(&mut platter));
        }
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if self.is_on() {
            for (number, sector) in data.chunks(512).enumerate() {
                self.cached(Unflushed::Sector(offset + number as u64 * 512, sector.to_vec()));
            }
        }
        Ok(())
    }
}

/// Where the disk is modelled, or damaged by hand, the real one would only cost time.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// Writes until the power goes; answers what was acknowledged before, by key.
fn write_until_dark(power: &Power, durable: &Durable, rng: &mut StdRng) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    for number in 0..400_u64 {
        let key = format!("key {}", number % 50).into_bytes();
        let value = vec![number as u8; rng.random_range(8..3000)];
        let (said, told) = std::sync::mpsc::channel();
        let (power, acknowledged, kept) = (power.clone(), acknowledged.clone(), (key.clone(), value.clone()));
        let done = move || {
            if !power.0.gone.load(Ordering::Relaxed) {
                acknowledged.lock().expect("whole").insert(kept.0, kept.1);
            }
            let _ = said.send(());
        };
        durable.write(vec![Change::Put(key, value)], Some(Box::new(done)));
        if told.recv_timeout(Duration::from_secs(60)).is_err() {
            panic!("it does not answer");
        }
    }
    std::mem::take(&mut *acknowledged.lock().expect("whole"))
}

#[test]
fn a_power_cut_tears_only_what_was_not_acknowledged() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut torn = 0;
    for round in 0..25 {
        let dir = in_memory();
        let path = dir.path().join("raft.redb");
        let power = Power(Arc::default());
        power.0.left.store(u64::MAX, Ordering::Relaxed);
        let database = redb::Database::builder().set_cache_size(1 << 20).create_with_backend(power.clone());
        let mark = path.with_extension("mark");
        let durable = Durable::start(&path, database.expect("a database"), Mark::open(&mark, false).expect("a mark"));
        let durable = durable.expect("started");
        power.0.mark.lock().expect("whole").0.clone_from(&mark);
        power.0.left.store(rng.random_range(1..2500), Ordering::Relaxed);
        let acknowledged = write_until_dark(&power, &durable, &mut rng);
        durable.close();
        assert!(power.0.gone.load(Ordering::Relaxed), "the power was never cut");

        let mark_then = power.0.mark.lock().expect("whole").1.clone();
        let cache = std::mem::take(&mut *power.0.cache.lock().expect("whole"));
        for _ in 0..6 {
            let mut platter = power.0.platter.lock().expect("whole").clone();
            let share = rng.random_range(0..101);
            let reached = cache.iter().filter(|_| rng.random_range(0..100) < share);
            torn += u32::from(reached.map(|write| write.reach(&mut platter)).count() < cache.len());
            std::fs::write(&path, &platter).expect("written");
            std::fs::write(&mark, &mark_then).expect("written");
            let found = Durable::open(&path, true).unwrap_or_else(|e| panic!("round {round}: {e}"));
            let found = found.load().expect("read");
            for (key, value) in &acknowledged {
                let name = String::from_utf8_lossy(key);
                let same = found.get(key) == Some(value);
                // The write that the power cut may have got through.
                let newer = found.get(key).is_some_and(|f| f.first() == Some(&(value[0].wrapping_add(50))));
                assert!(same || newer, "round {round}: {name} is lost");
            }
        }
    }
    println!("25 power cuts, {torn} torn images");
    assert!(torn > 50, "{torn}");
}
