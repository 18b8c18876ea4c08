//! One cgroup (version 2): what is started in it, or below it, is frozen, thawed and killed as a whole.
//! Not here: which cgroup belongs to whom.

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where this machine has cgroup version 2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .context("no cgroup2 file system is mounted: hosts cannot be frozen or killed as a whole")
}

/// A cgroup by its path.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup, or takes the one that is there.
    pub fn create(path: PathBuf) -> Result<Cgroup> {
        match fs::create_dir(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(e).with_context(|| format!("create the cgroup {}", path.display()))
            }
            _ => Ok(Cgroup { path }),
        }
    }

    /// The cgroup at a path that may be gone by now.
    pub fn at(path: PathBuf) -> Cgroup {
        Cgroup { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a cgroup below this one.
    pub fn child(&self, name: &str) -> Result<Cgroup> {
        Cgroup::create(self.path.join(name))
    }

    /// The file through which a process joins.
    pub fn procs(&self) -> Result<OwnedFd> {
        let path = self.path.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(file.into())
    }

    /// Stops every process where it stands, and returns when all stand still.
    pub fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        self.wait_event("frozen 1", Duration::from_secs(5))
    }

    /// Lets them run on.
    pub fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")?;
        self.wait_event("frozen 0", Duration::from_secs(5))
    }

    /// Sends SIGKILL to every process at once, frozen ones too. Does not wait.
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Returns when no process is left.
    pub fn wait_empty(&self, within: Duration) -> Result<()> {
        self.wait_event("populated 0", within)
    }

    /// Removes it and all below it. Fails while a process is left.
    pub fn remove(&self) -> Result<()> {
        for below in self.children() {
            below.remove()?;
        }
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove the cgroup {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn children(&self) -> Vec<Cgroup> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        entries.flatten().filter(|e| e.path().is_dir()).map(|e| Cgroup { path: e.path() }).collect()
    }

    /// Every process in it and below it, as this machine numbers them.
    pub fn members(&self) -> Vec<i32> {
        let own = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let own = own.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>();
        own.into_iter().chain(self.children().iter().flat_map(Cgroup::members)).collect()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("write {text:?} to {}", path.display()))
    }

    /// The kernel wakes whoever polls `cgroup.events` when one of its lines changes.
    fn wait_event(&self, wanted: &str, within: Duration) -> Result<()> {
        let path = self.path.join("cgroup.events");
        let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let end = Instant::now() + within;
        loop {
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            if text.lines().any(|line| line == wanted) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} did not say {wanted:?} within {within:?}; it says {text:?}", path.display());
            }
            let timeout = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            nix::poll::poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout)?;
        }
    }
}
