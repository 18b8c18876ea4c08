//! A backend in one file (redb): each write is a transaction that is on disk before it is answered, and is counted
//! beside it (`mark.rs`) before it is answered too, so that a file without it is never taken for a whole one.
//!
//! One thread does all the writing, so that vote and log share one order. What waits when it becomes free is written in
//! one transaction. A write or flush that fails ends the process: after a failed fsync nobody knows what is on disk.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a write takes while this host runs: a sleep of the host is not the disk's fault"
)]

use super::mark::Mark;
use super::reserve::Reserve;
use super::{Backend, Change, Done, StoreError};
use crate::last_words;
use crate::scheduling;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::Instant;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("raft");
/// How many transactions there were: compared with the mark, and no business of whoever writes here.
const WRITES: &[u8] = b"writes";

/// Writes that may ride along are written after this time at the latest.
const RIDE_ALONG: Duration = Duration::from_secs(1);
/// "Recent", for the latency: two windows of this length.
const WINDOW: Duration = Duration::from_secs(5);
/// The whole log is in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

struct Request {
    changes: Vec<Change>,
    done: Option<Done>,
}

/// The file and its writer.
pub struct Durable {
    path: PathBuf,
    /// What was there when it was opened; handed out once.
    stored: Mutex<Stored>,
    latency: Arc<Mutex<Latency>>,
    /// Whether the file has the room that nobody else can take.
    has_reserve: Arc<AtomicBool>,
    /// `None` once it is closed.
    requests: Mutex<Option<Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Durable {
    /// Opens or makes the file, and its mark. A file that is not regent's, does not hang together, or lacks what was
    /// acknowledged, is an error. `made`: both were there before.
    pub fn open(path: &Path, made: bool) -> Result<Self, StoreError> {
        let mark = Mark::open(&path.with_extension("mark"), made)?;
        if mark.acknowledged() > 0 && std::fs::metadata(path).map_or(0, |found| found.len()) == 0 {
            // redb would make a new one in its place.
            let what = format!("it is empty or gone, and held {} acknowledged writes", mark.acknowledged());
            return Err(StoreError::Corrupt { path: path.to_owned(), what });
        }
        let closed = if path.exists() { mark.reopen(path) } else { Ok(true) };
        if !closed.map_err(|source| StoreError::Io { action: "read", path: path.to_owned(), source })? {
            let what = "it is not what was left by the last orderly end: it was changed or damaged since".to_owned();
            return Err(StoreError::Corrupt { path: path.to_owned(), what });
        }
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        Self::start(path, database.map_err(|error| unusable(path, error.into()))?, mark)
    }

    /// Over a database that is open already.
    pub(super) fn start(path: &Path, mut database: Database, mark: Mark) -> Result<Self, StoreError> {
        // All checksums once: what is damaged must not be found later, or be read as something else. What it puts right
        // by going back in time the mark finds out.
        database.check_integrity().map_err(|error| unusable(path, error.into()))?;
        let (stored, writes) = read(&database).map_err(|error| unusable(path, error))?;
        if writes < mark.acknowledged() {
            let known = mark.acknowledged();
            let what = format!("it holds {writes} of {known} acknowledged writes: an older copy, or damaged");
            return Err(StoreError::Corrupt { path: path.to_owned(), what });
        }
        let latency = Arc::new(Mutex::new(Latency::default()));
        let (requests, received) = channel();
        let reserve = Reserve::of(path).inspect_err(|error| without_reserve(path, error)).ok();
        let (latency_of, has_reserve) = (latency.clone(), Arc::<AtomicBool>::default());
        let reserved = has_reserve.clone();
        let mut writer = Writer {
            path: path.to_owned(),
            database,
            mark,
            writes,
            latency: latency_of,
            reserve,
            has_reserve: reserved,
        };
        writer.take_room();
        let writer = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || {
                scheduling::as_the_loop();
                writer.run(&received);
                writer.end();
            })
            .map_err(|source| StoreError::Io { action: "start the writer of", path: path.to_owned(), source })?;
        Ok(Durable {
            path: path.to_owned(),
            stored: Mutex::new(stored),
            latency,
            has_reserve,
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(Some(writer)),
        })
    }
}

/// It works without, as it would on a file system that keeps no room.
fn without_reserve(path: &Path, error: &std::io::Error) {
    tracing::warn!(path = %path.display(), %error, "no room is kept for the Raft log: a full volume would end this manager at once");
}

/// Everything stored, and how many transactions made it.
fn read(database: &Database) -> Result<(Stored, u64), redb::Error> {
    let mut stored = BTreeMap::new();
    let table = match database.begin_read()?.open_table(TABLE) {
        Ok(table) => table,
        // New. A start on a full disk need not write anything.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((stored, 0)),
        Err(error) => return Err(error.into()),
    };
    for row in table.iter()? {
        let (key, value) = row?;
        stored.insert(key.value().to_vec(), value.value().to_vec());
    }
    let writes = match stored.remove(WRITES) {
        Some(count) => <[u8; 8]>::try_from(count).map(u64::from_le_bytes),
        // Written before there was a mark.
        None => Ok(0),
    };
    let writes = writes.map_err(|_| redb::Error::Corrupted("the count of its writes is no number".to_owned()))?;
    Ok((stored, writes))
}

/// Damage is told from an operating system that says no: only for the first is a node to be removed.
fn unusable(path: &Path, error: redb::Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) if !matches!(source.kind(), InvalidData | UnexpectedEof) => {
            StoreError::Io { action: "use", path, source }
        }
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path, holder: "unknown".to_owned() },
        other => StoreError::Corrupt { path, what: other.to_string() },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic aborts the process")
}

impl Backend for Durable {
    fn load(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        Ok(std::mem::take(&mut *lock(&self.stored)))
    }

    fn write(&self, changes: Vec<Change>, done: Option<Done>) {
        // After `close` nothing is written and nothing is answered.
        if let Some(requests) = lock(&self.requests).as_ref() {
            requests.send(Request { changes, done }).expect("the writer ends only after the sender was dropped");
        }
    }

    fn write_latency(&self) -> Duration {
        lock(&self.latency).slowest(Instant::now())
    }

    fn has_reserve(&self) -> bool {
        self.has_reserve.load(Ordering::Relaxed)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn close(&self) {
        drop(lock(&self.requests).take());
        if let Some(writer) = lock(&self.writer).take() {
            // It cannot have panicked: that would have aborted the process.
            let _ = writer.join();
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    path: PathBuf,
    database: Database,
    mark: Mark,
    writes: u64,
    latency: Arc<Mutex<Latency>>,
    /// `None`: its file system cannot.
    reserve: Option<Reserve>,
    has_reserve: Arc<AtomicBool>,
}

impl Writer {
    fn take_room(&mut self) {
        let Some(reserve) = &self.reserve else { return };
        match reserve.top_up() {
            Ok(whole) => self.has_reserve.store(whole, Ordering::Relaxed),
            Err(error) => {
                without_reserve(&self.path, &error);
                self.has_reserve.store(false, Ordering::Relaxed);
                self.reserve = None;
            }
        }
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        let mut waiting: Vec<Change> = Vec::new();
        loop {
            let first = match waiting.is_empty() {
                true => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => requests.recv_timeout(RIDE_ALONG),
            };
            let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
            let timed_out = matches!(first, Err(RecvTimeoutError::Timeout));
            let mut done = Vec::new();
            for request in first.into_iter().chain(requests.try_iter()) {
                waiting.extend(request.changes);
                done.extend(request.done);
            }
            if !done.is_empty() || timed_out || (ended && !waiting.is_empty()) {
                self.commit(std::mem::take(&mut waiting));
            }
            done.into_iter().for_each(|done| done());
            if ended {
                return;
            }
        }
    }

    /// An orderly end. Without its note the next start relies on redb alone, as after a crash.
    fn end(self) {
        let Writer { path, database, mark, reserve, .. } = self;
        drop(database);
        // Its orderly end has cut the file short.
        let _ = reserve.map(|reserve| reserve.top_up());
        if let Err(error) = mark.close(&path) {
            tracing::warn!(path = %path.display(), %error, "the orderly end of the Raft log could not be noted");
        }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        lock(&self.latency).begin(Instant::now());
        if let Err(error) = self.try_commit(changes) {
            let path = self.path.display();
            tracing::error!(%path, %error, "the Raft log cannot be written: ending, because what is on disk is not known");
            last_words::say(&format!(
                "regent: the Raft log {path} cannot be written: {error}. Ending, because what is on disk is not known; \
                 nothing that was acknowledged is lost. Make room or mend the disk, then start again"
            ));
            std::process::abort();
        }
        lock(&self.latency).end(Instant::now());
        self.take_room();
    }

    fn try_commit(&mut self, changes: Vec<Change>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for change in changes {
                match change {
                    Change::Put(key, value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    Change::Delete(key) => drop(table.remove(key.as_slice())?),
                }
            }
            table.insert(WRITES, (self.writes + 1).to_le_bytes().as_slice())?;
        }
        // The default durability: `commit` returns after fsync.
        transaction.commit()?;
        self.writes += 1;
        // Before anybody is answered. Behind the file in a crash, never ahead of it.
        self.mark.set(self.writes)?;
        Ok(())
    }
}

/// How long durable writes took of late.
#[derive(Default)]
struct Latency {
    under_way: Option<Instant>,
    window: Option<Instant>,
    current: Duration,
    previous: Duration,
}

impl Latency {
    fn begin(&mut self, now: Instant) {
        self.turn(now);
        self.under_way = Some(now);
    }

    fn end(&mut self, now: Instant) {
        self.turn(now);
        if let Some(began) = self.under_way.take() {
            self.current = self.current.max(now.duration_since(began));
        }
    }

    fn turn(&mut self, now: Instant) {
        let began = *self.window.get_or_insert(now);
        let age = now.duration_since(began);
        if age >= WINDOW {
            self.previous = if age < 2 * WINDOW { self.current } else { Duration::ZERO };
            self.current = Duration::ZERO;
            self.window = Some(now);
        }
    }

    fn slowest(&mut self, now: Instant) -> Duration {
        self.turn(now);
        let under_way = self.under_way.map_or(Duration::ZERO, |began| now.duration_since(began));
        self.current.max(self.previous).max(under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latency_shows_a_write_that_hangs_and_forgets_an_old_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut latency = Latency::default();
        latency.begin(at(0));
        assert_eq!(latency.slowest(at(700)), Duration::from_millis(700), "one that is still under way counts");
        latency.end(at(800));
        assert_eq!(latency.slowest(at(900)), Duration::from_millis(800));
        assert_eq!(latency.slowest(at(6_000)), Duration::from_millis(800), "still in the window before this one");
        assert_eq!(latency.slowest(at(17_000)), Duration::ZERO);
    }
}
