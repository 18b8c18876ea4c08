//! Recoveries that take their time, as on a volume that hardly answers, or that hang: the startup process of a host's
//! database is stopped as soon as it is there, and runs for a moment now and then, or not at all.
//!
//! Not here: the WAL that is to be replayed (`postgres.rs`).

use crate::cgroup::Cgroup;
use crate::host::Host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked for a startup process.
const LOOK: Duration = Duration::from_millis(5);
/// For how long it runs at a time, and how often in all: on a busy machine each time lasts longer than this.
const RUNS: Duration = Duration::from_millis(3);
const TIMES: u32 = 40;

/// While this lives, the recoveries of one host that begin are slow, or the next one hangs.
pub struct Slowed {
    _alive: Arc<()>,
}

impl Slowed {
    /// Each recovery that begins takes at least `least`, and runs freely after that.
    pub fn to(host: &Host, least: Duration) -> Slowed {
        Self::start(host.cgroup(), move |pid, wanted| slow(pid, least, wanted))
    }

    /// The next recovery that begins comes to nothing; those after it are as ever.
    pub fn hang_next(host: &Host) -> Slowed {
        let mut hung = false;
        Self::start(host.cgroup(), move |pid, _| hung = hung || kill(pid, Signal::SIGSTOP).is_ok())
    }

    fn start(group: Cgroup, mut act: impl FnMut(Pid, &dyn Fn() -> bool) + Send + 'static) -> Slowed {
        let alive = Arc::new(());
        let watched = Arc::downgrade(&alive);
        let mut seen: BTreeSet<Pid> = startup_processes(&group).into_iter().collect();
        std::thread::spawn(move || {
            let wanted = || watched.strong_count() > 0;
            while wanted() {
                match startup_processes(&group).into_iter().find(|pid| !seen.contains(pid)) {
                    Some(pid) => {
                        seen.insert(pid);
                        act(pid, &wanted);
                    }
                    None => std::thread::sleep(LOOK),
                }
            }
        });
        Slowed { _alive: alive }
    }
}

fn slow(pid: Pid, least: Duration, wanted: &dyn Fn() -> bool) {
    let end = Instant::now() + least;
    while Instant::now() < end && wanted() && kill(pid, Signal::SIGSTOP).is_ok() {
        std::thread::sleep((least / TIMES).min(end.saturating_duration_since(Instant::now())));
        if kill(pid, Signal::SIGCONT).is_err() {
            return;
        }
        std::thread::sleep(RUNS);
    }
}

/// As this machine numbers them.
fn startup_processes(group: &Cgroup) -> Vec<Pid> {
    let is_startup = |pid: &i32| {
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // The title of a session that is just connecting ends in that word.
        title.starts_with("postgres: startup")
    };
    group.members().into_iter().filter(is_startup).map(Pid::from_raw).collect()
}
