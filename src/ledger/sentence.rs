//! Commands, and what they did, as sentences for people: what a node says that it proposes, and the golden stories.
//!
//! Not here: refusals (`refusal.rs`) and the steps of incidents (`incident.rs`), which have sentences of their own.

use super::{Basis, Claim, ClaimState, Command, Event, FenceReason, NewOrder};
use crate::types::Position;
use std::fmt::{Display, Formatter, Result};

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Event::Seeded => f.write_str("the ledger has its settings"),
            Event::Joined { incarnation } => write!(f, "accepted as incarnation {incarnation}"),
            Event::Declared { target, fence: Some(fence) } => write!(f, "{target} is dead, and fence {fence} is open"),
            Event::Declared { target, fence: None } => {
                write!(f, "{target} is dead; nothing hangs on it, nobody fences it")
            }
            Event::FenceOpened { fence, incident } => write!(f, "fence {fence} is open, incident {incident}"),
            Event::Ordered { orders, .. } => write!(f, "ordered as number {}", and(orders)),
            Event::OrderEnded { fence, confirmed: true } => write!(f, "noted, and fence {fence} is confirmed by it"),
            Event::OrderEnded { .. } => f.write_str("noted; it confirms nothing"),
            Event::Confirmed { fence } => write!(f, "fence {fence} is confirmed"),
            Event::Refuted { fence } => write!(f, "fence {fence} is refuted"),
            Event::Appointed { epoch } => write!(f, "epoch {epoch} begins"),
            Event::SwitchoverStarted { incident } => write!(f, "begun, incident {incident}"),
            Event::LossAccepted { incident } => write!(f, "recorded in incident {incident}"),
            Event::CopyAccepted { incident: Some(incident) } => write!(f, "recorded in incident {incident}"),
            Event::CopyAccepted { incident: None } => f.write_str("recorded, for when the pause ends"),
            Event::Noted => f.write_str("noted"),
        }
    }
}

impl Display for ClaimState {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            ClaimState::Adopted => f.write_str("goes on"),
            ClaimState::Over { position } => write!(f, "is over{}", at(*position)),
        }
    }
}

impl Display for Claim {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "epoch {} {}", self.epoch, self.state)
    }
}

impl Display for NewOrder {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {} on {}", self.agent, self.action.word(), self.executor)
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())?;
        match self {
            Command::Seed { .. } | Command::Pause { .. } | Command::Resume { .. } => Ok(()),
            Command::Join { node, boot, claims, .. } => {
                write!(f, " {node}, boot {boot}")?;
                claims.values().try_for_each(|claim| write!(f, ", {claim}"))
            }
            Command::DeclareDead { target, incarnation, round, answers, .. } => {
                write!(f, " {target}, incarnation {incarnation}, round {round}, seen by {}", and(answers.keys()))
            }
            Command::OpenFence { target, reason: FenceReason::Operator { who }, .. } => {
                write!(f, " {target}, wanted by {who}")
            }
            Command::OpenFence { target, reason: FenceReason::Lapsed { epoch, .. }, .. } => {
                write!(f, " {target}, whose lease of epoch {epoch} lapsed")
            }
            Command::Create { node, .. } => write!(f, " on {node}"),
            Command::Appoint { prior, node, basis, why, .. } => match basis {
                Basis::Released => write!(f, " {node} after epoch {prior}, on its release: {why}"),
                Basis::PassedOver => write!(f, " {node} after epoch {prior}, whose appointee was passed over: {why}"),
                Basis::Fenced { fence, .. } => write!(f, " {node} after epoch {prior}, on fence {fence}: {why}"),
            },
            Command::Promoting { epoch, node, timeline, .. } => {
                write!(f, " {node}, epoch {epoch}, to timeline {timeline}")
            }
            Command::Installed { epoch, node, position, .. } => write!(f, " {node}, epoch {epoch}, at {position}"),
            Command::Release { epoch, node, position, why, .. } => {
                write!(f, " {node}, epoch {epoch}{}: {why}", at(*position))
            }
            Command::DenyLease { epoch, .. } => write!(f, " of epoch {epoch}"),
            Command::PassOver { epoch, no_lease, .. } => write!(f, " the appointee of epoch {epoch}: {no_lease}"),
            Command::WaitedOut { epoch, boot, .. } => write!(f, " epoch {epoch}, held by boot {boot}"),
            Command::Progress { epoch, end, .. } => write!(f, " of epoch {epoch} up to {end}"),
            Command::AcceptLoss { to, who, .. } => {
                write!(f, ", {who}")?;
                to.iter().try_for_each(|to| write!(f, ", for {to}"))
            }
            Command::Reinit { node, who, cancel: false, .. } => write!(f, " of {node}, {who}"),
            Command::Reinit { node, who, cancel: true, .. } => write!(f, " of {node} taken back, {who}"),
            Command::Restart { node, who, cancel: false, .. } => write!(f, " of {node}, {who}"),
            Command::Restart { node, who, cancel: true, .. } => write!(f, " of {node} taken back, {who}"),
            Command::Restarted { node, order, .. } => write!(f, " {node}, on order {order}"),
            Command::AcceptCopy { node: Some(node), who, .. } => write!(f, " on {node}, {who}"),
            Command::AcceptCopy { node: None, who, .. } => write!(f, " taken back, {who}"),
            Command::Switchover { to: Some(to), .. } => write!(f, " to {to}"),
            Command::Switchover { to: None, .. } => Ok(()),
            Command::CancelSwitchover { why, .. } => write!(f, " {why}"),
            Command::Renewed { epoch, resumed, .. } => write!(f, " epoch {epoch} after resume {resumed}"),
            Command::Maintenance { node, who, lasts: Some(lasts) } => {
                write!(f, " of {node} for {} s, {who}", lasts.as_secs())
            }
            Command::Maintenance { node, who, lasts: None } => write!(f, " of {node}, {who}"),
            Command::EndMaintenance { node, who, .. } => write!(f, " of {node}, {who}"),
            Command::Forgive { node, failures } => write!(f, " {node} its {failures} failures"),
            Command::Rejoined { node, how, .. } => write!(f, " {node}: {how}"),
            Command::HumanConfirm { incident, target, who, .. } => write!(f, " {target}, incident {incident}, {who}"),
            Command::Order { .. }
            | Command::OrderDone { .. }
            | Command::NextLevel { .. }
            | Command::Refute { .. }
            | Command::Assisting { .. }
            | Command::Assisted { .. }
            | Command::Lift { .. }
            | Command::CloseFence { .. } => about_a_fence(self, f),
        }
    }
}

/// What such a command says of its fence, after the command's name.
fn about_a_fence(command: &Command, f: &mut Formatter<'_>) -> Result {
    if let Some(fence) = command.fence() {
        write!(f, " fence {fence}")?;
    }
    match command {
        Command::Order { level: Some(level), orders, .. } => write!(f, ", level {}: {}", level + 1, commas(orders)),
        Command::Order { level: None, orders, .. } => write!(f, ", beside the levels: {}", commas(orders)),
        Command::OrderDone { order, run, .. } => write!(f, ", number {order}: {}: {}", run.outcome, run.output),
        Command::NextLevel { level, round, why, .. } => {
            write!(f, " after level {} of round {}: {why}", level + 1, round + 1)
        }
        Command::Refute { by, channel, what, .. } => write!(f, ", by {by} on {channel}: {what}"),
        Command::Assisting { agent, node, .. } => write!(f, ": {agent} is about to run on {node}"),
        Command::Assisted { agent, node, action, .. } => write!(f, ": {agent} {} on {node}", action.word()),
        Command::Lift { who, power_on: true, .. } => write!(f, " with power, because {who}"),
        Command::Lift { who, power_on: false, .. } => write!(f, ", because {who}"),
        _ => Ok(()),
    }
}

fn at(position: Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!(" at {position}"))
}

fn and<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<_> = all.into_iter().map(|one| one.to_string()).collect();
    all.join(" and ")
}

fn commas<T: Display>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}
