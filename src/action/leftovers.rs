//! What earlier daemons' agents left on this host: found and ended before this daemon joins.
//!
//! What they did is unknown. Nobody says so for them: their orders stay open in the ledger until their time is over,
//! and meanwhile no boot of their target is eligible.

use super::confinement::{Confinement, RunName, any_word, having_in_environment};
use super::leashes::{BY_WORD, Leashes};
use crate::clock;
use crate::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How long all of them together are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One run of an earlier daemon that was still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub run: RunName,
    /// The processes that were left of it.
    pub processes: Vec<i32>,
    /// Whether none of them is left: one in uninterruptible sleep stays until its device answers.
    pub is_gone: bool,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended what an earlier daemon had started: {}; what it did is unknown", self.run)?;
        if self.run.fence.is_some() {
            write!(f, ", and an order for it stays open until its time is over")?;
        }
        match self.is_gone {
            true => Ok(()),
            false => {
                let processes: Vec<_> = self.processes.iter().map(ToString::to_string).collect();
                write!(f, " (killed, but not gone yet: processes {} wait for a device)", processes.join(", "))
            }
        }
    }
}

/// Ends what earlier daemons with this configuration left behind. To be called before this daemon starts any agent.
pub fn end_leftovers(config: &Config) -> Vec<Leftover> {
    Leashes::of(config).end_leftovers()
}

impl Leashes {
    /// Ends what earlier daemons of this owner left behind.
    pub fn end_leftovers(&self) -> Vec<Leftover> {
        let noted: BTreeSet<String> = self.noted_before().into_iter().collect();
        let places = noted.iter().filter(|line| *line != BY_WORD).map(PathBuf::from).chain(self.parent.clone());
        let mut found: BTreeMap<String, (RunName, Confinement)> = BTreeMap::new();
        for entry in places.flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(run) = RunName::parse(&name, &self.owner) {
                let confinement = Confinement::Cgroup(entry.path());
                found.insert(entry.path().display().to_string(), (run, confinement));
            }
        }
        // Only where it was needed: to read what every process of the host has in its environment may take long.
        let words = if noted.contains(BY_WORD) { having_in_environment(any_word()) } else { Vec::new() };
        for (_, word) in words {
            if let Some(run) = RunName::parse(&word, &self.owner) {
                found.insert(word.clone(), (run, Confinement::Word(word)));
            }
        }
        let limit = clock::now() + PATIENCE;
        let found: Vec<_> = found.into_values().map(|(run, place)| (run, place.members(), place)).collect();
        found.iter().for_each(|(_, _, place)| place.kill());
        let ended = found.into_iter().filter_map(|(run, processes, place)| {
            let is_gone = place.end(Some(limit.since(clock::now())));
            (!processes.is_empty()).then_some(Leftover { run, processes, is_gone })
        });
        ended.collect()
    }
}
