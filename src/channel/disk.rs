//! Heartbeats over a shared disk: each node writes its own slot and reads all the others'.
//!
//! All disk I/O happens on one thread of its own (never tokio's pool), which may hang in the kernel for as long as the
//! disk likes. It leaves word of its progress, and an async task watches that word by time: nothing else ever waits
//! for the disk. What each turn of the thread does is `disk_turn.rs`.

use super::disk_format::DiskId;
use super::disk_turn::Turn;
use super::intake::Intake;
use crate::clock::{self, BootTimer};
use crate::config;
use crate::scheduling;
use crate::types::{ChannelName, Instant};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// The slots are read at least this seldom, however short the interval.
const POLL_MIN: Duration = Duration::from_millis(10);

/// The disk channel. Dropping it ends its thread at the next turn, without waiting for it.
#[derive(Debug)]
pub struct Disk {
    name: ChannelName,
    shared: Arc<Shared>,
    state: watch::Receiver<Result<(), String>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    outbox: Mutex<Outbox>,
    filled: Condvar,
    progress: Mutex<Progress>,
    /// The progress changed in a way that may change the state.
    changed: Notify,
    /// Own writes that have not read back for so long make the channel blind.
    patience: Duration,
}

/// What the thread is to write: the newest only.
#[derive(Debug, Default)]
struct Outbox {
    heartbeat: Option<Vec<u8>>,
    stop: bool,
}

/// The thread's word.
#[derive(Debug, Default)]
struct Progress {
    /// When the own slot last read back as written.
    read_back_at: Option<Instant>,
    /// What failed last, until it succeeds.
    trouble: Option<String>,
    /// What it is doing right now, if that is with the disk.
    doing: Option<&'static str>,
    disk: Option<(DiskId, u64)>,
}

/// What a turn of the thread came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// The own slot reads back.
    ReadBack { disk: DiskId, generation: u64 },
    /// All was read, but there is nothing of our own on the disk yet.
    NothingWritten,
    /// It did not work this time: the channel is blind when this lasts.
    Failed { why: String },
    /// It is not our disk: blind at once.
    Foreign { why: String },
    /// Nobody takes arrivals any more.
    Closed,
}

impl Disk {
    /// Starts the channel, within a tokio runtime. The disk is opened now, or later when it cannot: see
    /// [`Self::state`]. `expected` is the disk that the ledger names, where it names one. Fails only when the
    /// operating system gives no thread or file descriptor.
    pub fn start(
        name: ChannelName,
        path: PathBuf,
        cfg: &config::Detector,
        expected: Option<DiskId>,
        intake: Intake,
    ) -> io::Result<Self> {
        let timer = BootTimer::new()?;
        let shared = Arc::new(Shared {
            outbox: Mutex::default(),
            filled: Condvar::new(),
            progress: Mutex::default(),
            changed: Notify::new(),
            // Shorter than any detection: an own path that fails makes the others blind before it makes them lost.
            patience: cfg.acceptable_pause * 3 / 4,
        });
        let (publish, state) = watch::channel(Err("not opened yet".to_owned()));
        let poll = (cfg.interval / 2).max(POLL_MIN);
        let turn = Turn::new(name.clone(), path, expected, intake);
        let thread_shared = shared.clone();
        std::thread::Builder::new().name("regent-disk".to_owned()).spawn(move || {
            scheduling::as_the_loop();
            work(&thread_shared, turn, poll);
        })?;
        let task = tokio::spawn(watch_over(shared.clone(), timer, publish, name.clone()));
        Ok(Disk { name, shared, state, task })
    }

    /// Has one encoded heartbeat written. Never waits; one that was not written yet is replaced.
    pub fn send(&self, bytes: &[u8]) {
        lock(&self.shared.outbox).heartbeat = Some(bytes.to_vec());
        self.shared.filled.notify_one();
    }

    /// Whether the disk is usable: the own slot read back lately, and the header is right. `Err` says why it is blind.
    pub fn state(&self) -> watch::Receiver<Result<(), String>> {
        self.state.clone()
    }

    /// The id and generation of the disk in use, once it was read: to be compared with other nodes'.
    pub fn disk(&self) -> Option<(DiskId, u64)> {
        lock(&self.shared.progress).disk
    }

    pub fn name(&self) -> &ChannelName {
        &self.name
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&self.shared.outbox).stop = true;
        self.shared.filled.notify_one();
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread: one turn whenever there is a heartbeat to write, and at least once every `poll`.
fn work(shared: &Shared, mut turn: Turn, poll: Duration) {
    loop {
        let outbox = lock(&shared.outbox);
        let nothing = |outbox: &mut Outbox| outbox.heartbeat.is_none() && !outbox.stop;
        let (mut outbox, _) =
            shared.filled.wait_timeout_while(outbox, poll, nothing).unwrap_or_else(PoisonError::into_inner);
        if outbox.stop {
            return;
        }
        let heartbeat = outbox.heartbeat.take();
        drop(outbox);
        let end = turn.run(heartbeat, |doing| lock(&shared.progress).doing = Some(doing));
        if end == TurnEnd::Closed {
            return;
        }
        report(shared, end);
    }
}

fn report(shared: &Shared, end: TurnEnd) {
    let mut progress = lock(&shared.progress);
    progress.doing = None;
    let was_usable = progress.verdict(clock::now(), shared.patience).is_ok();
    match end {
        TurnEnd::ReadBack { disk, generation } => {
            progress.read_back_at = Some(clock::now());
            progress.trouble = None;
            progress.disk = Some((disk, generation));
        }
        TurnEnd::NothingWritten => progress.trouble = None,
        TurnEnd::Failed { why } => progress.trouble = Some(why),
        TurnEnd::Foreign { why } => {
            progress.read_back_at = None;
            progress.trouble = Some(why);
        }
        TurnEnd::Closed => return,
    }
    let usable = progress.verdict(clock::now(), shared.patience).is_ok();
    if !usable || !was_usable {
        shared.changed.notify_one();
    }
}

impl Progress {
    /// The state, and until when it stands if the thread says nothing more.
    fn verdict(&self, now: Instant, patience: Duration) -> Result<Instant, String> {
        let until = self.read_back_at.map(|at| at + patience).filter(|until| now < *until);
        until.ok_or_else(|| match (&self.trouble, self.doing) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(doing)) => format!("{doing} hangs"),
            (None, None) => "no heartbeat of this node was written yet".to_owned(),
        })
    }
}

/// The async side: publishes the state when the thread reports a change, and when it stops reporting.
async fn watch_over(
    shared: Arc<Shared>,
    mut timer: BootTimer,
    publish: watch::Sender<Result<(), String>>,
    name: ChannelName,
) {
    loop {
        let verdict = lock(&shared.progress).verdict(clock::now(), shared.patience);
        match &verdict {
            Ok(until) => timer.set(*until),
            Err(_) => timer.unset(),
        }
        let state = verdict.map(|_| ());
        publish.send_if_modified(|present| {
            let changed = *present != state;
            if changed {
                match &state {
                    Ok(()) => tracing::info!(channel = %name, "usable"),
                    Err(why) => tracing::warn!(channel = %name, "blind: {why}"),
                }
                *present = state;
            }
            changed
        });
        tokio::select! {
            () = shared.changed.notified() => {}
            () = timer.fired() => {}
        }
    }
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
