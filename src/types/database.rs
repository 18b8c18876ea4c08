//! What a database is seen to be, and what it can be told to do. The engine (`crate::engine`) sees and does it.

use super::{
    CopyProgress, Epoch, Files, History, Lsn, Network, NodeName, Position, ReplayLag, Timeline, Trouble, Unfit,
    WallTime,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// PostgreSQL's system identifier: the same on all copies of one database, different on every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub u64);

impl std::fmt::Display for SystemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of the local database, as the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbState {
    /// Not looked at yet, or it cannot be told.
    Unclear,
    /// The data directory is empty or missing.
    Absent,
    /// The directory must not be started: a rewind or clone is unfinished.
    Unstartable,
    /// No process of it is left (its cgroup is empty).
    Stopped,
    /// The postmaster runs, and recovery has not reached a state in which it answers.
    Starting,
    /// It answers and is in recovery.
    Standby,
    /// It answers and is out of recovery: it can be writable.
    Primary,
    /// It is on its way down: processes are left.
    Stopping,
}

impl DbState {
    /// Whether a process may be left that can commit.
    pub fn may_write(self) -> bool {
        matches!(self, DbState::Unclear | DbState::Starting | DbState::Primary | DbState::Stopping)
    }
}

impl std::fmt::Display for DbState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DbState::Unclear => "unclear",
            DbState::Absent => "absent",
            DbState::Unstartable => "unstartable",
            DbState::Stopped => "stopped",
            DbState::Starting => "starting",
            DbState::Standby => "standby",
            DbState::Primary => "primary",
            DbState::Stopping => "stopping",
        })
    }
}

/// The local database at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub state: DbState,
    pub system: Option<SystemId>,
    /// Primary: flushed end of WAL. Standby: received and flushed end. Stopped: from the control file (a lower bound,
    /// unless `clean`).
    pub position: Position,
    /// Standby: replayed so far.
    pub replayed: Option<Lsn>,
    /// Standby: what is left to replay; `None`: nothing.
    pub replay: Option<ReplayLag>,
    /// The timelines that led here.
    pub history: History,
    /// Stopped: the control file says that it was shut down in order.
    pub clean: bool,
    /// Stopped: the directory is a standby's (it has a verified standby signal), so that it starts in recovery.
    pub starts_in_recovery: bool,
    /// Standby: the upstream from which WAL arrives now.
    pub streams_from: Option<NodeName>,
    /// Standby: over which network it arrives, once that is known.
    pub network: Option<Network>,
    /// Standby: the upstream for which it is configured.
    pub follows: Option<NodeName>,
    /// Standby: it has replayed all the WAL that it has, and waits for more.
    pub awaits_wal: bool,
    /// Starting: a number that changes whenever the start gets on. What it is says nothing.
    pub progress: u64,
    /// Primary: it accepted a write within the last probe.
    pub writable: bool,
    pub trouble: Option<Trouble>,
    /// Stopped or absent: how far the rewind or copy is that runs.
    pub copy: Option<CopyProgress>,
    /// What it lacks to serve as primary, one of a kind, as it was found last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<Unfit>,
    /// The folders beside the data directory that hold what only this node had, as they were when the daemon started.
    pub kept: Vec<String>,
    /// What the server said of its files when they were read last.
    #[serde(default, skip_serializing_if = "Files::is_quiet")]
    pub files: Files,
}

impl Observation {
    /// Before the first look.
    pub fn unclear() -> Self {
        Observation {
            state: DbState::Unclear,
            system: None,
            position: Position::default(),
            replayed: None,
            replay: None,
            history: History::default(),
            clean: false,
            starts_in_recovery: false,
            streams_from: None,
            network: None,
            follows: None,
            awaits_wal: false,
            progress: 0,
            writable: false,
            trouble: None,
            copy: None,
            unfit: Vec::new(),
            kept: Vec::new(),
            files: Files::default(),
        }
    }
}

/// A folder beside a database that holds what only this node had: an old copy, or WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFolder {
    pub folder: String,
    pub bytes: u64,
    /// The time in its name.
    pub made: Option<WallTime>,
    /// An incident of the ledger names it, or what belongs to it; or that is not known. Then it is not removed.
    pub named: bool,
}

/// Where a standby gets its WAL: all addresses of the upstream, primary network first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub node: NodeName,
    pub addresses: Vec<std::net::IpAddr>,
    pub port: u16,
}

/// How long each rung of a stop may take. A rung of zero is skipped. After the last: the watchdog or the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopLadder {
    pub fast: Duration,
    pub immediate: Duration,
    /// SIGKILL of the whole cgroup, then wait for it to be empty.
    pub kill: Duration,
}

impl std::fmt::Display for StopLadder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rungs = [("fast", self.fast), ("immediate", self.immediate), ("kill", self.kill)];
        let used = rungs.iter().filter(|(_, time)| !time.is_zero());
        let words: Vec<_> = used.map(|(name, time)| format!("{name} {} s", time.as_secs_f64())).collect();
        f.write_str(&words.join(", "))
    }
}

impl StopLadder {
    /// All rungs together.
    pub fn whole(&self) -> Duration {
        self.fast + self.immediate + self.kill
    }
}

/// One thing to do with the local database. Each may be asked for twice; each ends in a [`DbOutcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DbAction {
    /// Make a new database in the empty directory, with the roles that regent needs. Does not leave it running.
    Initdb,
    /// Start it out of recovery: it becomes writable, on the timeline that it has. Only under a lease for `epoch`. A
    /// directory that is a standby's, or an unused copy, needs a timeline of its own: it is only started in recovery.
    /// `known`: how far its WAL is known to have reached; one that ends before is an older copy, and is refused.
    StartPrimary { epoch: Epoch, known: Option<Position> },
    /// Start it in recovery, following `upstream` (or nobody, when `None`).
    StartStandby { upstream: Option<Upstream> },
    /// Let a running standby follow another upstream, without a restart where the version allows.
    Follow { upstream: Upstream },
    /// Ask the upstream whether a running standby can follow it as it is. Gives way to whatever is asked for next.
    Compare { upstream: Upstream },
    /// Close the WAL receiver for good (until the next `Follow`), read the local WAL to its end, report that end.
    Seal,
    /// End recovery, on exactly this new timeline. Only under a lease for `epoch`. Done when it accepted a write.
    Promote { epoch: Epoch, timeline: Timeline },
    /// Write a checkpoint now, so that a following stop is short.
    Checkpoint,
    /// Stop it, rung by rung. Done when its cgroup is empty.
    Stop { ladder: StopLadder },
    /// Find the end of a dead primary's WAL in its own directory, from a position that it had reached. Bounded in time.
    FindEnd { from: Position },
    /// Make the stopped (or absent) directory a standby of `upstream`: nothing to do, rewind, or clone; divergent WAL
    /// is kept. Does not start it. With the number of a person's order it is cloned, whatever there is.
    Rejoin { upstream: Upstream, order: Option<u64> },
    /// A person accepted what is in the directory: what this node had before is forgotten, and forbids nothing.
    AcceptCopy { order: u64 },
}

impl DbAction {
    /// Its name alone.
    pub fn name(&self) -> &'static str {
        match self {
            DbAction::Initdb => "initdb",
            DbAction::StartPrimary { .. } => "start as primary",
            DbAction::StartStandby { .. } => "start as standby",
            DbAction::Follow { .. } => "follow",
            DbAction::Compare { .. } => "compare",
            DbAction::Seal => "seal",
            DbAction::Promote { .. } => "promote",
            DbAction::Checkpoint => "checkpoint",
            DbAction::Stop { .. } => "stop",
            DbAction::FindEnd { .. } => "look for the end of its WAL",
            DbAction::Rejoin { .. } => "rejoin",
            DbAction::AcceptCopy { .. } => "accept the copy",
        }
    }
}

impl std::fmt::Display for DbAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name();
        match self {
            DbAction::StartPrimary { epoch, .. } => write!(f, "{name} under epoch {epoch}"),
            DbAction::Promote { epoch, timeline } => write!(f, "{name} to timeline {timeline} under epoch {epoch}"),
            DbAction::StartStandby { upstream: Some(up) } | DbAction::Follow { upstream: up } => {
                write!(f, "{name} of {}", up.node)
            }
            DbAction::Compare { upstream } => write!(f, "asks {} whether it can follow as it is", upstream.node),
            DbAction::Rejoin { upstream, order: None } => {
                write!(f, "make it a standby of {}: nothing, rewind or clone", upstream.node)
            }
            DbAction::Rejoin { upstream, order: Some(_) } => write!(f, "copy it anew from {}, on order", upstream.node),
            DbAction::Stop { ladder } => write!(f, "stop in order ({ladder})"),
            DbAction::FindEnd { from } => write!(f, "looks for the end of its WAL, from {from} on"),
            DbAction::Initdb
            | DbAction::StartStandby { upstream: None }
            | DbAction::Seal
            | DbAction::AcceptCopy { .. }
            | DbAction::Checkpoint => f.write_str(name),
        }
    }
}

/// A sealed report: the local WAL has been read to its end and cannot grow until the next `Follow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    pub system: SystemId,
    pub history: History,
    pub end: Position,
    pub replayed: Lsn,
}

/// What a finished action found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DbDone {
    /// Nothing more to say.
    Plain,
    /// `Initdb`.
    Created { system: SystemId },
    /// `Compare`: why it cannot follow as it is, if so.
    Compared { unfit: Option<String> },
    /// `Seal`.
    Sealed(Seal),
    /// `StartPrimary` and `Promote`, where it was opened: the timeline and position at which it accepted its first write.
    Writable { position: Position },
    /// `Stop`: nothing is left; `clean` when the control file says so, then `position` is the final end of WAL.
    Stopped { clean: bool, position: Option<Position> },
    /// `FindEnd`: where it ends.
    Ends { at: Position },
    /// `Rejoin`: what was done, and the folder that keeps divergent WAL, if there was any.
    Rejoined { how: String, kept: Option<String> },
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DbOutcome {
    Done(DbDone),
    /// It did not work; `error` says what, where and what to do. The state afterwards is what the next observation says.
    Failed {
        error: String,
    },
    /// The same of a `Rejoin` that was not begun: it took nothing of the upstream but answers to questions.
    Refused {
        error: String,
    },
}
