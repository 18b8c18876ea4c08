//! Where the programs of one service's actions run (copy, rewind, initdb, control): each run in a cgroup of its own, which
//! is ended with the action, also what left the program's session; and by the next daemon, where this one dies.
//!
//! Where no cgroup can be made, a run is ended by its session alone (`program.rs`).

use crate::action::confinement::Confinement;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long what was killed is waited for: a process in uninterruptible sleep ends when its disk answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// The cgroups of one service's runs.
#[derive(Clone, Debug)]
pub struct Runs {
    parent: Option<PathBuf>,
    /// Begins the name of each: tells services and daemons that share a parent apart.
    name: String,
    count: Arc<AtomicU64>,
}

/// One run. What is left of it is killed when this is dropped.
#[derive(Debug)]
pub struct Place {
    confinement: Confinement,
}

impl Runs {
    /// Beside the cgroup of the database, where it has one.
    pub fn beside(cgroup: Option<&Path>) -> Runs {
        let parent = cgroup.and_then(Path::parent).map(Path::to_owned);
        let name = cgroup.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Runs { parent, name: format!("{name}+run+"), count: Arc::default() }
    }

    /// A place for one run.
    pub fn begin(&self) -> Option<Place> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.parent.as_ref()?.join(format!("{}{}+{number}", self.name, std::process::id()));
        let confinement = Confinement::make(&path).ok()?;
        Some(Place { confinement })
    }

    /// Ends what an earlier daemon's actions left here, and names its processes. To be called before this one's begin.
    pub fn end_leftovers(&self) -> Vec<i32> {
        let entries = self.parent.iter().flat_map(fs::read_dir).flatten().flatten();
        let is_run = |name: &str| name.starts_with(&self.name);
        let left: Vec<_> = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(is_run))
            .map(|entry| Confinement::Cgroup(entry.path()))
            .collect();
        let processes: Vec<i32> = left.iter().flat_map(Confinement::members).collect();
        left.iter().for_each(Confinement::kill);
        for confinement in left {
            confinement.end(Some(PATIENCE));
        }
        processes
    }
}

impl Place {
    /// The file through which a process enters.
    pub fn door(&self) -> Option<fs::File> {
        self.confinement.door()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.confinement.kill();
        if self.confinement.is_empty() && self.confinement.remove() {
            return;
        }
        // Gone in a moment: whoever goes on need not wait for that.
        let confinement = self.confinement.clone();
        // Where no thread can be had, the next daemon ends it.
        let _ = std::thread::Builder::new().spawn(move || confinement.end(Some(PATIENCE)));
    }
}
