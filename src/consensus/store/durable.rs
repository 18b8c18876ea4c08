//! A backend in one file (redb): each write is a transaction that is on disk before it is answered.
//!
//! One thread does all the writing, so that vote and log share one order. What waits when it becomes free is written in
//! one transaction. A write or flush that fails ends the process: after a failed fsync nobody knows what is on disk.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a write takes while this host runs: a sleep of the host is not the disk's fault"
)]

use super::{Backend, Change, Done, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::Instant;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("raft");

/// Writes that may ride along are written after this time at the latest.
const RIDE_ALONG: Duration = Duration::from_secs(1);
/// "Recent", for the latency: two windows of this length.
const WINDOW: Duration = Duration::from_secs(5);
/// The whole log is in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

struct Request {
    changes: Vec<Change>,
    done: Option<Done>,
}

/// The file and its writer.
pub struct Durable {
    path: PathBuf,
    /// What was there when it was opened; handed out once.
    stored: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    latency: Arc<Mutex<Latency>>,
    /// `None` once it is closed.
    requests: Mutex<Option<Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Durable {
    /// Opens or makes the file. A file that is not regent's, or does not hang together, is an error.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        let database = database.map_err(|e| StoreError::Corrupt { path: path.to_owned(), what: e.to_string() })?;
        Self::start(path, database)
    }

    /// Over a database that is open already.
    pub(super) fn start(path: &Path, database: Database) -> Result<Self, StoreError> {
        let stored = read(&database);
        let stored = stored.map_err(|e| StoreError::Corrupt { path: path.to_owned(), what: e.to_string() })?;
        let latency = Arc::new(Mutex::new(Latency::default()));
        let (requests, received) = channel();
        let writer = Writer { database, latency: latency.clone() };
        let writer = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || writer.run(&received))
            .map_err(|source| StoreError::Io { action: "start the writer of", path: path.to_owned(), source })?;
        Ok(Durable {
            path: path.to_owned(),
            stored: Mutex::new(stored),
            latency,
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(Some(writer)),
        })
    }
}

fn read(database: &Database) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, redb::Error> {
    let made = database.begin_write()?;
    made.open_table(TABLE)?;
    made.commit()?;
    let mut stored = BTreeMap::new();
    for row in database.begin_read()?.open_table(TABLE)?.iter()? {
        let (key, value) = row?;
        stored.insert(key.value().to_vec(), value.value().to_vec());
    }
    Ok(stored)
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
    database: Database,
    latency: Arc<Mutex<Latency>>,
}

impl Writer {
    fn run(&self, requests: &Receiver<Request>) {
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

    fn commit(&self, changes: Vec<Change>) {
        lock(&self.latency).begin(Instant::now());
        if let Err(error) = self.try_commit(changes) {
            tracing::error!(%error, "the Raft log cannot be written: ending, because what is on disk is not known");
            eprintln!("regent: the Raft log cannot be written: {error}");
            std::process::abort();
        }
        lock(&self.latency).end(Instant::now());
    }

    fn try_commit(&self, changes: Vec<Change>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for change in changes {
                match change {
                    Change::Put(key, value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    Change::Delete(key) => drop(table.remove(key.as_slice())?),
                }
            }
        }
        // The default durability: `commit` returns after fsync.
        transaction.commit()?;
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
