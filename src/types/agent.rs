//! Fence agents as values: their kinds, one order, one outcome. How an agent is run is `crate::action::fence`.

use super::{AgentName, FenceId, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a confirmation by an agent of this kind proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// The host has no power. Ends an epoch.
    Power,
    /// The host cannot reach its storage. Ends an epoch.
    Storage,
    /// Lease and watchdog time have surely passed (built in). Ends an epoch where its conditions hold.
    Lease,
    /// Traffic is cut. Assists, unless the operator declares `isolates = true`.
    Network,
    /// Access is revoked. Assists, likewise.
    Access,
}

impl AgentKind {
    /// Whether a confirmation by an agent of this kind can end an epoch; `isolates`: the operator declares that it truly
    /// cuts the node off.
    pub fn ends_epoch(self, isolates: bool) -> bool {
        match self {
            AgentKind::Power | AgentKind::Storage | AgentKind::Lease => true,
            AgentKind::Network | AgentKind::Access => isolates,
        }
    }
}

/// An action of the FenceAgentAPI, as regent uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentAction {
    Off,
    On,
    Status,
    Monitor,
    Metadata,
    /// Not of the API, and asked only of agents that declare it: which fences have something in force on this host.
    #[serde(rename = "in-force")]
    InForce,
}

impl AgentAction {
    pub const ALL: [AgentAction; 6] = [
        AgentAction::Off,
        AgentAction::On,
        AgentAction::Status,
        AgentAction::Monitor,
        AgentAction::Metadata,
        AgentAction::InForce,
    ];

    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            AgentAction::Off => "off",
            AgentAction::On => "on",
            AgentAction::Status => "status",
            AgentAction::Monitor => "monitor",
            AgentAction::Metadata => "metadata",
            AgentAction::InForce => "in-force",
        }
    }
}

/// Begins the names of options that are only offered: they are handed over, without it, to agents that declare them.
pub const OFFER: &str = "offer:";

/// One run of one agent against one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOrder {
    pub agent: AgentName,
    pub action: AgentAction,
    pub target: NodeName,
    /// The fence that this run belongs to; `None` for `monitor` and `metadata`.
    pub fence: Option<FenceId>,
    /// Everything that is handed over, but for `action` and `nodename`. A name that begins with
    /// [`OFFER`] is handed over only to an agent that declares it.
    pub options: BTreeMap<String, String>,
    /// After this everything that it started is killed: a failure.
    pub deadline: Duration,
}

/// What one fence has in force on this host, as an agent found it in the kernel, in a file or in a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    pub fence: FenceId,
    /// The node that was fenced, where that is written down.
    pub node: Option<NodeName>,
    /// For people.
    pub what: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentOutcome {
    /// Exit status 0. For `status`: on.
    Succeeded,
    /// `status` or `monitor`, exit status 2: reachable and off.
    IsOff,
    /// Any other exit status.
    Failed { status: i32 },
    /// Killed at the deadline.
    TimedOut,
    /// It could not be started, or its input could not be written completely.
    NotRun,
    /// Its executor never began it and never will: the leader that ordered it leads no more, or its time was over before
    /// it could begin. The same agent may be ordered once more.
    NotBegun,
}

impl std::fmt::Display for AgentOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AgentOutcome::Succeeded => f.write_str("succeeded"),
            AgentOutcome::IsOff => f.write_str("is off"),
            AgentOutcome::Failed { status } => write!(f, "failed with exit status {status}"),
            AgentOutcome::TimedOut => f.write_str("timed out"),
            AgentOutcome::NotRun => f.write_str("could not be run"),
            AgentOutcome::NotBegun => f.write_str("was not begun"),
        }
    }
}

/// A finished run, with what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRun {
    pub outcome: AgentOutcome,
    /// How often it was tried within the deadline.
    pub tries: u32,
    pub took: Duration,
    /// The last lines of standard output and standard error, passwords removed.
    pub output: String,
}

impl AgentRun {
    /// A success that never was: only `known_bugs` makes one.
    pub fn pretended() -> Self {
        AgentRun { outcome: AgentOutcome::Succeeded, tries: 0, took: Duration::ZERO, output: "not run".to_owned() }
    }
}
