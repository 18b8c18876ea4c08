//! Confines and leashes the runs of this daemon's agents: makes the cgroup, starts the leash, and tidies both up.
//!
//! Beside it, in the run directory, stands where runs were confined, so that the next daemon finds what is left of
//! them, also when it lives in another cgroup itself.

use super::confinement::{Confinement, RunName, VARIABLE};
use super::leash::LeashOptions;
use super::spawn::{self, Beginning, Door, Program};
use crate::config::Config;
use crate::engine::enclosure::own_cgroup;
use crate::rights::Rights;
use crate::types::{Instant, Quoted};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long the end of what a run left behind is waited for. The leash stays with what takes longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The line of the record that stands for the environment.
pub(super) const BY_WORD: &str = "environment";

/// How the runs of one daemon's agents are confined.
#[derive(Debug)]
pub struct Leashes {
    /// regent itself.
    program: PathBuf,
    /// Below which cgroup they are; `None`: by a word in their environment.
    pub(super) parent: Option<PathBuf>,
    /// Tells this daemon's runs from those of others that share its cgroup.
    pub(super) owner: String,
    /// Where it stands how runs were confined.
    pub(super) record: PathBuf,
    next: AtomicU64,
    noted: Mutex<BTreeSet<String>>,
    warned: AtomicBool,
}

impl Leashes {
    /// Those of the daemon with this configuration, which runs in this process.
    pub fn of(config: &Config) -> Leashes {
        let owner = format!("{}\n{}", config.node, config.data_dir.display());
        Leashes::new("/proc/self/exe", &config.run_dir, &owner, own_cgroup())
    }

    /// With `program` as the leash, the record in `run_dir`, and a cgroup for each run below `parent`.
    pub fn new(program: impl Into<PathBuf>, run_dir: &Path, owner: &str, parent: Option<PathBuf>) -> Leashes {
        let owner = format!("{:08x}", crc32fast::hash(owner.as_bytes()));
        Leashes {
            program: program.into(),
            parent,
            owner,
            record: run_dir.join("agents"),
            next: AtomicU64::new(0),
            noted: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Makes a confinement for one run and starts its leash, which is not waited for.
    pub fn take(&self, run: &RunName, until: Instant) -> io::Result<Leash> {
        let (confinement, door) = self.confine(run)?;
        let options = LeashOptions { confinement, until };
        match self.start(&options) {
            Ok((lifeline, beginning)) => {
                let (confinement, beginning) = (options.confinement, Some(beginning));
                Ok(Leash { confinement, door, lifeline, beginning, stands: None })
            }
            Err(error) => {
                options.confinement.remove();
                Err(error)
            }
        }
    }

    fn confine(&self, run: &RunName) -> io::Result<(Confinement, Option<Door>)> {
        if let Some(parent) = &self.parent {
            match self.make_cgroup(parent, run) {
                Ok((path, door)) => {
                    self.note(&parent.display().to_string());
                    return Ok((Confinement::Cgroup(path), Some(door)));
                }
                Err(error) if !self.warned.swap(true, Ordering::Relaxed) => {
                    let parent = parent.display();
                    tracing::warn!(%parent, %error, "no cgroup for an agent: known by its environment instead");
                }
                Err(_) => {}
            }
        }
        self.note(BY_WORD);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok((Confinement::Word(run.file_name(&self.owner, number)), None))
    }

    fn make_cgroup(&self, parent: &Path, run: &RunName) -> io::Result<(PathBuf, Door)> {
        let path = loop {
            let path = parent.join(run.file_name(&self.owner, self.next.fetch_add(1, Ordering::Relaxed)));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // What an earlier daemon's run left behind, and what cannot die yet.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        let door = Door::of(&path).and_then(|door| match fs::read_to_string(path.join("cgroup.type"))?.trim() {
            "domain" => Ok(door),
            other => Err(io::Error::other(format!("a cgroup of type {} takes no process", Quoted(other)))),
        });
        if door.is_err() {
            let _ = fs::remove_dir(&path);
        }
        Ok((path, door?))
    }

    /// Starts the leash. What comes back is what it watches, and itself.
    fn start(&self, options: &LeashOptions) -> io::Result<(PipeWriter, Beginning)> {
        let (watched, lifeline) = io::pipe()?;
        let nowhere = File::options().write(true).open("/dev/null")?;
        let given = options.arguments();
        let arguments: Vec<&OsStr> =
            [OsStr::new("leash")].into_iter().chain(given.iter().map(OsString::as_os_str)).collect();
        let errors = io::stderr();
        let process = spawn::start(&Program {
            path: &self.program,
            arguments: &arguments,
            environment: &[],
            streams: [watched.as_fd(), nowhere.as_fd(), errors.as_fd()],
            door: None,
            // On a busy host the agent would wait for its leash otherwise, which has until the deadline.
            yields: true,
        })?;
        Ok((lifeline, process))
    }

    /// Notes how runs are confined, once.
    pub(super) fn note(&self, how: &str) {
        let mut noted = self.noted.lock().expect("no holder of this lock can panic");
        if !noted.insert(how.to_owned()) {
            return;
        }
        let mut lines = self.noted_before();
        if !lines.iter().any(|line| line == how) {
            lines.push(how.to_owned());
            if let Err(error) = Rights::own().replace_unflushed(&self.record, 0o600, &(lines.join("\n") + "\n")) {
                let record = self.record.display();
                tracing::warn!(%record, %error, "how agents are confined could not be noted");
            }
        }
    }

    /// How runs were confined, by this daemon and by earlier ones of this boot.
    pub(super) fn noted_before(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// One leashed run.
#[derive(Debug)]
pub struct Leash {
    confinement: Confinement,
    door: Option<Door>,
    lifeline: PipeWriter,
    /// Its process, until it is known to run its program, and from then on.
    beginning: Option<Beginning>,
    stands: Option<Pid>,
}

impl Leash {
    /// Where its processes are.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// The way in.
    pub fn door(&self) -> Option<&Door> {
        self.door.as_ref()
    }

    /// What its processes must have in their environment.
    pub fn variable(&self) -> Option<(&'static str, &str)> {
        match &self.confinement {
            Confinement::Cgroup(_) => None,
            Confinement::Word(word) => Some((VARIABLE, word)),
        }
    }

    /// Waits until the leash stands. An error: nothing but this daemon would end the run.
    pub fn confirm(&mut self) -> io::Result<()> {
        if let Some(beginning) = self.beginning.take() {
            self.stands = Some(beginning.confirm()?);
        }
        Ok(())
    }

    /// Ends the run, and its leash with it. It may take a moment: for a thread that has one.
    pub fn end(mut self) {
        self.confinement.end(Some(PATIENCE));
        let confirmed = self.confirm();
        drop(self.lifeline);
        if let (Ok(()), Some(pid)) = (confirmed, self.stands) {
            // With something left it stays until that is gone.
            let _ = waitpid(pid, None);
        }
    }
}
