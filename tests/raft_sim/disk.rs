//! What a host's Raft log is written to: memory that outlives the daemon, behind the same code path as the file. Writes
//! take time and stall; what was not yet written when the daemon is killed is gone, or is there without having been
//! acknowledged.

use openraft::async_runtime::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use rand::RngExt;
use rand::rngs::SmallRng;
use regent::consensus::{Backend, Change, Done, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What survives.
pub type Platter = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// As the durable log: what may ride along waits no longer than this.
const RIDE_ALONG: Duration = Duration::from_secs(1);

type Request = (Vec<Change>, Option<Done>);

/// One life of a daemon with its platter.
pub struct Disk {
    platter: Platter,
    requests: mpsc::UnboundedSender<Request>,
    gone: Arc<AtomicBool>,
    /// The slowest write, in nanoseconds.
    slowest: Arc<AtomicU64>,
}

impl Disk {
    /// Inside the runtime.
    pub fn start(platter: Platter, stalls: impl Fn() -> bool + Send + 'static) -> Arc<Disk> {
        let (requests, received) = mpsc::unbounded_channel();
        let (gone, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = Writer { platter: platter.clone(), gone: gone.clone(), rng: SimRuntime::thread_rng() };
        drop(SimRuntime::spawn(writer.run(received, stalls, slowest.clone())));
        Arc::new(Disk { platter, requests, gone, slowest })
    }

    /// The daemon is killed: nothing more is acknowledged.
    pub fn cut(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Backend for Disk {
    fn load(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        Ok(self.platter.lock().expect("one thread").clone())
    }

    fn write(&self, changes: Vec<Change>, done: Option<Done>) {
        // Whoever is gone is not answered: the request is dropped.
        if !self.gone.load(Ordering::Relaxed) {
            let _ = self.requests.send((changes, done));
        }
    }

    fn write_latency(&self) -> Duration {
        Duration::from_nanos(self.slowest.load(Ordering::Relaxed))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}

struct Writer {
    platter: Platter,
    gone: Arc<AtomicBool>,
    rng: SmallRng,
}

impl Writer {
    async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        stalls: impl Fn() -> bool,
        slowest: Arc<AtomicU64>,
    ) {
        let mut waiting = Vec::new();
        loop {
            let first = match waiting.is_empty() {
                true => requests.recv().await,
                false => match SimRuntime::timeout(RIDE_ALONG, requests.recv()).await {
                    Ok(first) => first,
                    Err(_) => Some((Vec::new(), Some(Box::new(|| {}) as Done))),
                },
            };
            let Some((changes, done)) = first else { return };
            let mut done: Vec<Done> = done.into_iter().collect();
            waiting.extend(changes);
            while let Ok((changes, more)) = requests.try_recv() {
                waiting.extend(changes);
                done.extend(more);
            }
            if done.is_empty() {
                continue;
            }
            let took = self.delay();
            slowest.fetch_max(took.as_nanos() as u64, Ordering::Relaxed);
            SimRuntime::sleep(took).await;
            while stalls() && !self.gone.load(Ordering::Relaxed) {
                SimRuntime::sleep(Duration::from_millis(5)).await;
            }
            if self.gone.load(Ordering::Relaxed) {
                // It may have reached the platter all the same; nobody was told.
                if self.rng.random_range(0..2) == 0 {
                    self.commit(&mut waiting);
                }
                return;
            }
            self.commit(&mut waiting);
            done.into_iter().for_each(|done| done());
        }
    }

    /// Mostly a flush of a healthy disk; now and then it stalls.
    fn delay(&mut self) -> Duration {
        Duration::from_micros(match self.rng.random_range(0..1000) {
            0 => self.rng.random_range(100_000..900_000),
            1..20 => self.rng.random_range(5_000..60_000),
            _ => self.rng.random_range(150..1_500),
        })
    }

    fn commit(&self, changes: &mut Vec<Change>) {
        let mut stored = self.platter.lock().expect("one thread");
        for change in changes.drain(..) {
            match change {
                Change::Put(key, value) => drop(stored.insert(key, value)),
                Change::Delete(key) => drop(stored.remove(&key)),
            }
        }
    }
}
