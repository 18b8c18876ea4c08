//! What holds the processes of one run of an agent together, so that all of them can be ended, also by somebody who did
//! not start them: a cgroup of its own, whose name says what runs in it.
//!
//! Where no cgroup v2 can be made, a word in the environment takes its place: every descendant inherits it, also one
//! that begins a session of its own. Only a process that empties its environment and leaves is missed then.
//!
//! Not here: when to end a run. The runner, the leash and the next daemon decide that.

use crate::clock;
use crate::types::{AgentAction, AgentName, FenceId, NodeName};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variable in which the word stands.
pub const VARIABLE: &str = "REGENT_AGENT_RUN";
/// Begins the name of every run. No name of an agent or a node holds the character between the parts.
const BEGIN: &str = "agent+";
/// How often it looks (ms) where the kernel does not tell of an end.
const LOOK: u8 = 20;

/// What runs: enough to say afterwards what was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The fence that it belongs to, if it belongs to one.
    pub fence: Option<FenceId>,
    pub action: AgentAction,
    pub agent: AgentName,
    /// Whom it concerns; nobody, where an agent describes itself.
    pub target: Option<NodeName>,
}

impl RunName {
    /// The name of its confinement: `owner` tells daemons apart that share a cgroup, `number` the runs of one.
    pub fn file_name(&self, owner: &str, number: u64) -> String {
        let fence = self.fence.map(|fence| fence.0.to_string()).unwrap_or_default();
        let target = self.target.as_ref().map_or("", NodeName::as_str);
        format!("{BEGIN}{fence}+{}+{}+{target}+{owner}+{number}", self.action.word(), self.agent)
    }

    /// Reads the name of a confinement of this owner; `None` for anything else.
    pub fn parse(name: &str, owner: &str) -> Option<RunName> {
        let parts: Vec<&str> = name.strip_prefix(BEGIN)?.split('+').collect();
        let [fence, action, agent, target, whose, number] = parts[..] else { return None };
        number.parse::<u64>().ok()?;
        let mut actions = AgentAction::ALL.into_iter();
        let run = RunName {
            fence: if fence.is_empty() { None } else { Some(FenceId(fence.parse().ok()?)) },
            action: actions.find(|known| known.word() == action)?,
            agent: agent.parse().ok()?,
            target: if target.is_empty() { None } else { Some(target.parse().ok()?) },
        };
        (whose == owner).then_some(run)
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of agent {}", self.action.word(), self.agent)?;
        if let Some(target) = &self.target {
            write!(f, " for {target}")?;
        }
        self.fence.map_or(Ok(()), |fence| write!(f, " (fence {fence})"))
    }
}

/// The processes of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The directory of a cgroup.
    Cgroup(PathBuf),
    /// The word that they have in their environment.
    Word(String),
}

impl Confinement {
    /// Makes a cgroup for a run.
    pub fn make(path: &Path) -> io::Result<Confinement> {
        fs::create_dir(path)?;
        Ok(Confinement::Cgroup(path.to_owned()))
    }

    /// The file through which a process enters the cgroup.
    pub fn door(&self) -> Option<File> {
        let Confinement::Cgroup(path) = self else { return None };
        File::options().write(true).open(path.join("cgroup.procs")).ok()
    }

    /// Their ids. Whoever has ended and was not waited for yet is none of them.
    pub fn members(&self) -> Vec<i32> {
        match self {
            Confinement::Cgroup(path) => members_below(path),
            Confinement::Word(word) => having_in_environment(word).into_iter().map(|(pid, _)| pid).collect(),
        }
    }

    /// Whether none is left. A cgroup that is gone has none.
    pub fn is_empty(&self) -> bool {
        match self {
            Confinement::Cgroup(path) => {
                !fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
            }
            Confinement::Word(_) => self.members().is_empty(),
        }
    }

    /// SIGKILL to each of them, frozen and stopped ones too.
    pub fn kill(&self) {
        if let Confinement::Cgroup(path) = self
            && fs::write(path.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // Before Linux 5.14 there is no such file.
        for pid in self.members() {
            // SAFETY: a plain system call; a process that is gone by now is what we want.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Kills again and again until none is left and none can enter any more, for at most `patience` (for ever without).
    /// Whether that was reached: a process in uninterruptible sleep ends when its device answers.
    pub fn end(&self, patience: Option<Duration>) -> bool {
        let limit = patience.map(|patience| clock::now() + patience);
        loop {
            // Read before the look, so that no change falls between the two.
            let events = self.events();
            self.kill();
            if self.is_empty() && self.remove() {
                return true;
            }
            if limit.is_some_and(|limit| clock::now() >= limit) {
                return false;
            }
            let mut change: Vec<_> = events.iter().map(|e| PollFd::new(e.as_fd(), PollFlags::POLLPRI)).collect();
            let _ = poll(&mut change, PollTimeout::from(LOOK));
        }
    }

    /// Removes the cgroup; from then on nobody can enter it. Whether it is gone: the kernel refuses while a process is
    /// in it.
    pub fn remove(&self) -> bool {
        match self {
            Confinement::Cgroup(path) => remove_below(path),
            Confinement::Word(_) => true,
        }
    }

    /// A file that tells (POLLPRI) when the first process came or the last one ended, read as it is now. `None` where
    /// the kernel does not tell.
    pub fn events(&self) -> Option<File> {
        let Confinement::Cgroup(path) = self else { return None };
        let mut file = File::open(path.join("cgroup.events")).ok()?;
        // Only a change after a reading is told.
        file.read_to_string(&mut String::new()).ok()?;
        Some(file)
    }
}

/// An agent that may do everything may have made cgroups below its own.
fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn members_below(path: &Path) -> Vec<i32> {
    let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let own = list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    own.chain(below(path).flat_map(|path| members_below(&path))).collect()
}

fn remove_below(path: &Path) -> bool {
    for path in below(path) {
        remove_below(&path);
    }
    fs::remove_dir(path).map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

/// The processes whose word begins so, each with the whole word.
pub fn having_in_environment(begin: &str) -> Vec<(i32, String)> {
    let wanted = format!("{VARIABLE}={begin}");
    let word_of = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let found = environment.split(|byte| *byte == 0).find(|entry| entry.starts_with(wanted.as_bytes()))?;
        Some((pid, String::from_utf8_lossy(&found[VARIABLE.len() + 1..]).into_owned()))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(word_of).collect()
}

/// What the words of this owner's runs begin with, all of them.
pub fn any_word() -> &'static str {
    BEGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_its_name() {
        let off = RunName {
            fence: Some(FenceId(7)),
            action: AgentAction::Off,
            agent: "ipmi-a.b".parse().expect("a name"),
            target: Some("db-1.example".parse().expect("a name")),
        };
        let name = off.file_name("1f0c3a52", 12);
        assert_eq!(name, "agent+7+off+ipmi-a.b+db-1.example+1f0c3a52+12");
        assert_eq!(RunName::parse(&name, "1f0c3a52"), Some(off.clone()));
        assert_eq!(RunName::parse(&name, "00000000"), None, "another daemon's");
        assert_eq!(off.to_string(), "off of agent ipmi-a.b for db-1.example (fence 7)");
        let metadata = RunName { fence: None, action: AgentAction::Metadata, target: None, ..off };
        assert_eq!(RunName::parse(&metadata.file_name("x", 0), "x"), Some(metadata));
        for other in
            ["regent-orders-db1", "agent+7+off+ipmi+db1+x", "agent+7+reboot+ipmi+db1+x+0", "agent+q+off+i+d+x+0"]
        {
            assert_eq!(RunName::parse(other, "x"), None, "{other}");
        }
    }
}
