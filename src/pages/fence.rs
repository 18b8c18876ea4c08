//! Fences and fence devices on the page.
//!
//! Not here: what is tried next (`plan/fencing.rs`), and when a device is asked how it is (`daemon`).

use super::{Known, is_ok};
use crate::api::status::{DeviceStatus, FenceStatus, MonitorStatus};
use crate::ledger::{Confirmation, Fence, FenceState, Order, OrderState};
use crate::types::{AgentRun, NodeName, WallTime};

/// One fence.
pub(super) fn status(fence: &Fence) -> FenceStatus {
    FenceStatus {
        id: fence.id,
        node: fence.target.clone(),
        boot: fence.boot.clone(),
        incident: Some(fence.incident),
        stage: stage(fence).to_owned(),
        confirmed_by: fence.confirmed.as_ref().map(|c| match c {
            Confirmation::Level { level, .. } => format!("level {}", level + 1),
            Confirmation::Human { who, .. } => who.clone(),
        }),
        attempts: fence.orders.iter().map(attempt).collect(),
    }
}

/// How far it is. An appointment rests on it where it is `checked`.
fn stage(fence: &Fence) -> &'static str {
    match fence.state {
        FenceState::Open if fence.refuted > 0 => "refuted",
        FenceState::Open => "trying",
        FenceState::Confirmed if fence.used => "checked",
        FenceState::Confirmed => "confirmed",
        FenceState::Void | FenceState::Lifting => "unfencing",
        FenceState::Closed => "closed",
    }
}

/// One order, and how it ended: of what its agent said, the last line.
fn attempt(order: &Order) -> String {
    let end = match &order.state {
        OrderState::Running => "is running".to_owned(),
        OrderState::Done { run } => format!("{}: {}", run.outcome, run.output.lines().last().unwrap_or("")),
    };
    format!("{} {} on {} {end}", order.agent, order.action.word(), order.executor)
}

/// Every pair of fence device and target. A device without targets of its own is tried with the first node.
pub(super) fn devices(known: &Known) -> Vec<DeviceStatus> {
    let config = known.seen.config;
    let mut all = Vec::new();
    for (agent, settings) in &config.fencing.agents {
        let targets: Vec<&NodeName> = match settings.node.is_empty() {
            true => config.nodes.keys().take(1).collect(),
            false => settings.node.keys().collect(),
        };
        for target in targets {
            let monitor = known.monitors.get(&(agent.clone(), target.clone())).map(monitor);
            all.push(DeviceStatus { agent: agent.clone(), kind: settings.kind, target: target.clone(), monitor });
        }
    }
    all
}

fn monitor((at, run): &(WallTime, AgentRun)) -> MonitorStatus {
    let ok = is_ok(run.outcome);
    MonitorStatus { ok, at_ms: *at, error: (!ok).then(|| run.output.clone()) }
}
