//! The record of one switchover or failover: what happened, with the evidence, in the order of the log (S7).
//! Only data and its sentences; nothing is decided from it.

use super::{CheckAnswer, NoLease, Refusal, Shared, Sighting};
use crate::types::{
    AgentAction, AgentName, AgentOutcome, Boot, ChannelName, Epoch, FenceId, Incarnation, IncidentId, LogIndex, Lsn,
    NodeName, Position, Round, ServiceName, Timeline, WallTime,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What kind of move it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A verdict on a holder, or a holder that lapsed.
    Failover,
    /// A holder that released because its database could not go on.
    LocalFailure,
    /// Planned.
    Switchover,
    /// An operator had a node fenced.
    Fencing,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Open,
    Moved {
        to: NodeName,
        epoch: Epoch,
    },
    /// The same node went on.
    Stayed {
        on: NodeName,
        epoch: Epoch,
    },
    Ended {
        why: String,
    },
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub kind: IncidentKind,
    /// The node that it is about: the primary that was lost or moved away from.
    pub subject: NodeName,
    pub services: BTreeSet<ServiceName>,
    /// Those of them that are served again, or whose story goes on elsewhere.
    #[serde(default)]
    pub settled: BTreeSet<ServiceName>,
    pub opened: WallTime,
    pub outcome: Outcome,
    /// The first ones and the last ones. What repeats itself between them is forgotten (`bounds.rs`).
    pub steps: Vec<Shared<StepRecord>>,
    /// How many steps were forgotten.
    #[serde(default)]
    pub forgotten: u64,
}

/// One step of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub at: WallTime,
    pub index: LogIndex,
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    DeclaredDead {
        target: NodeName,
        incarnation: Incarnation,
        round: Round,
        answers: BTreeMap<NodeName, Sighting>,
    },
    FenceOpened {
        fence: FenceId,
        target: NodeName,
        boot: Boot,
        why: String,
    },
    Ordered {
        fence: FenceId,
        order: u32,
        agent: AgentName,
        action: AgentAction,
        executor: NodeName,
        level: Option<u32>,
    },
    AgentEnded {
        fence: FenceId,
        agent: AgentName,
        action: AgentAction,
        executor: NodeName,
        outcome: AgentOutcome,
        took_ms: u64,
        tries: u32,
        output: String,
    },
    LevelFailed {
        fence: FenceId,
        level: u32,
        round: u32,
        why: String,
    },
    FenceConfirmed {
        fence: FenceId,
        how: String,
    },
    FenceRefuted {
        fence: FenceId,
        by: NodeName,
        channel: ChannelName,
        what: String,
    },
    FenceVoid {
        fence: FenceId,
        why: String,
    },
    FenceLifting {
        fence: FenceId,
        who: String,
    },
    FenceClosed {
        fence: FenceId,
    },
    SwitchoverAsked {
        service: ServiceName,
        epoch: Epoch,
        to: Option<NodeName>,
        who: String,
    },
    SwitchoverCancelled {
        service: ServiceName,
        why: String,
    },
    Released {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        position: Option<Position>,
        why: String,
    },
    PassedOver {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        no_lease: NoLease,
    },
    Appointed {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        basis: String,
        positions: BTreeMap<NodeName, Position>,
        checks: BTreeMap<NodeName, CheckAnswer>,
        why: String,
    },
    /// A person let the next appointment lose more than `failover.max_lag`.
    LossAccepted {
        service: ServiceName,
        to: Option<NodeName>,
        bytes: Option<u64>,
        who: String,
    },
    /// A person let the copy on this node win, with so much lost of what the primary is known to have written.
    CopyAccepted {
        service: ServiceName,
        node: NodeName,
        bytes: Option<u64>,
        who: String,
    },
    /// The word for that copy was taken back.
    CopyTakenBack {
        service: ServiceName,
        node: NodeName,
        who: String,
    },
    /// An asynchronous service: what `node` may have acknowledged there is not known to be on `by`, which was appointed.
    MayBeLost {
        service: ServiceName,
        /// Of the epoch in which it may have been acknowledged.
        epoch: Epoch,
        node: NodeName,
        timeline: Timeline,
        after: Lsn,
        by: NodeName,
    },
    Promoting {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        timeline: Timeline,
    },
    Installed {
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        position: Position,
    },
    Joined {
        node: NodeName,
        boot: Boot,
        incarnation: Incarnation,
    },
    Rejoined {
        node: NodeName,
        how: String,
        kept: Option<String>,
    },
    Paused {
        service: ServiceName,
        who: String,
    },
    Resumed {
        service: ServiceName,
        who: String,
    },
    Refused {
        command: String,
        refusal: Refusal,
    },
}

impl Incident {
    /// One of its services is served again, or goes on elsewhere. The incident ends, so, with the last of them.
    pub(super) fn settle(&mut self, service: &ServiceName, so: Outcome) {
        self.settled.insert(service.clone());
        if self.outcome == Outcome::Open && self.services.is_subset(&self.settled) {
            self.outcome = so;
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::DeclaredDead { target, incarnation, round, answers } => {
                let seen = seen_by(answers);
                write!(f, "{target} (incarnation {incarnation}) declared dead in round {round}, seen by {seen}")
            }
            Happening::FenceOpened { fence, target, boot, why } => {
                write!(f, "fence {fence} of {target}, boot {boot}: {why}")
            }
            Happening::Ordered { agent, action, executor, level, .. } => {
                write!(f, "{agent} {} ordered on {executor}", word(*action))?;
                if let Some(level) = level { write!(f, ", level {}", level + 1) } else { Ok(()) }
            }
            Happening::AgentEnded { agent, action, executor, outcome, took_ms, .. } => {
                write!(f, "{agent} {} on {executor}: {} after {took_ms} ms", word(*action), outcome_words(*outcome))
            }
            Happening::LevelFailed { level, round, why, .. } => {
                write!(f, "level {} failed in round {}: {why}", level + 1, round + 1)
            }
            Happening::FenceConfirmed { fence, how } => write!(f, "fence {fence} confirmed by {how}"),
            Happening::FenceRefuted { fence, by, channel, what } => {
                write!(f, "fence {fence} refuted by {by} on {channel}: {what}")
            }
            Happening::FenceVoid { fence, why } => write!(f, "fence {fence} is void: {why}"),
            Happening::FenceLifting { fence, who } => write!(f, "fence {fence} is being lifted ({who})"),
            Happening::FenceClosed { fence } => write!(f, "fence {fence} closed: nothing of it is left"),
            Happening::SwitchoverAsked { service, to, who, .. } => match to {
                Some(to) => write!(f, "switchover of {service} to {to} asked for by {who}"),
                None => write!(f, "switchover of {service} to the best candidate asked for by {who}"),
            },
            Happening::SwitchoverCancelled { service, why } => write!(f, "switchover of {service} given up: {why}"),
            Happening::Released { service, epoch, node, position, why } => {
                write!(f, "{node} released epoch {epoch} of {service}")?;
                if let Some(position) = position {
                    write!(f, " at {position}")?;
                }
                write!(f, ": {why}")
            }
            Happening::PassedOver { service, epoch, node, no_lease: why } => {
                write!(f, "{node} passed over as primary of {service}, epoch {epoch}: it never took over, and {why}")
            }
            Happening::Appointed { service, epoch, node, basis, why, .. } => {
                write!(f, "{node} appointed primary of {service}, epoch {epoch}, on {basis}: {why}")
            }
            Happening::LossAccepted { .. } | Happening::CopyAccepted { .. } | Happening::MayBeLost { .. } => {
                of_a_loss(self, f)
            }
            Happening::CopyTakenBack { service, node, who } => {
                write!(f, "the copy on {node} is not waited for any more for {service}: {who}")
            }
            Happening::Promoting { node, timeline, .. } => write!(f, "{node} promotes to timeline {timeline}"),
            Happening::Installed { service, epoch, node, position } => {
                write!(f, "{node} accepts writes for {service} in epoch {epoch}, from {position}")
            }
            Happening::Joined { node, boot, incarnation } => {
                write!(f, "{node} joined as incarnation {incarnation}, boot {boot}")
            }
            Happening::Rejoined { node, how, kept } => {
                write!(f, "{node} came back as a standby: {how}")?;
                if let Some(kept) = kept { write!(f, "; divergent WAL kept in {kept}") } else { Ok(()) }
            }
            Happening::Paused { service, who } => write!(f, "{service} paused by {who}"),
            Happening::Resumed { service, who } => write!(f, "{service} resumed by {who}"),
            Happening::Refused { command, refusal } => write!(f, "{command} refused: {refusal}"),
        }
    }
}

/// What may be lost, and who said that it may.
fn of_a_loss(what: &Happening, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match what {
        Happening::LossAccepted { service, to, bytes, who } => {
            let bytes = bytes.map_or("what nobody can count".to_owned(), |bytes| format!("{bytes} bytes of WAL"));
            let to = to.as_ref().map_or("whoever has most".to_owned(), ToString::to_string);
            write!(f, "{who} lets {service} go to {to} and lose what that lacks: {bytes}, as far as is known")
        }
        Happening::CopyAccepted { service, node, bytes, who } => {
            let bytes = bytes.map_or("nobody can count it".to_owned(), |bytes| format!("{bytes} bytes of WAL"));
            write!(
                f,
                "{who} lets the copy on {node} win for {service}: what only the others have is given up ({bytes})"
            )
        }
        Happening::MayBeLost { service, epoch, node, timeline, after, by } => {
            write!(f, "may be lost to {service}: what {node} acknowledged in epoch {epoch}")?;
            may_be_lost(f, node, by, (*timeline, *after))
        }
        _ => Ok(()),
    }
}

/// Those who saw the node lost.
fn seen_by(answers: &BTreeMap<NodeName, Sighting>) -> String {
    let channels: BTreeSet<_> = answers.values().flat_map(|s| s.view.channels.keys()).collect();
    let saw = answers.iter().filter(|(_, s)| s.view.suspects(channels.len()));
    saw.map(|(voter, _)| voter.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where it was acknowledged, and why `by` may not have it.
fn may_be_lost(f: &mut fmt::Formatter<'_>, node: &NodeName, by: &NodeName, after: (Timeline, Lsn)) -> fmt::Result {
    if node == by {
        return f.write_str(": it is another machine by now, and nobody knows what that has");
    }
    let (timeline, after) = after;
    write!(f, " after {timeline}:{after}, which {by} has not; its WAL is kept when {node} comes back")
}

fn word(action: AgentAction) -> &'static str {
    match action {
        AgentAction::Off => "off",
        AgentAction::On => "on",
        AgentAction::Status => "status",
        AgentAction::Monitor => "monitor",
        AgentAction::Metadata => "metadata",
        AgentAction::InForce => "in-force",
    }
}

fn outcome_words(outcome: AgentOutcome) -> String {
    match outcome {
        AgentOutcome::Succeeded => "succeeded".to_owned(),
        AgentOutcome::IsOff => "is off".to_owned(),
        AgentOutcome::Failed { status } => format!("failed with exit status {status}"),
        AgentOutcome::TimedOut => "ran out of time".to_owned(),
        AgentOutcome::NotRun => "could not be run".to_owned(),
        AgentOutcome::NotBegun => "was never begun".to_owned(),
    }
}
