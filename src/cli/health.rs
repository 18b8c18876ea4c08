//! One word for a whole status, for exit codes and monitoring systems. It sums up what the daemon said of each service
//! and node; it judges nothing anew.

use crate::api::status::{NodeState, Phase, Status};

/// From good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Healthy,
    /// Every service has its primary, and something needs attention.
    Degraded,
    /// A service has no primary that takes writes, or nothing can be decided.
    Down,
}

/// The word, and the sentences for everything that is not as it should be, worst first.
pub fn health(status: &Status) -> (Health, Vec<String>) {
    let mut found: Vec<(Health, String)> = Vec::new();
    if status.quorum.margin < 0 || status.quorum.leader.is_none() {
        found.push((Health::Down, "no quorum: nothing can be decided".into()));
    }
    for (name, service) in &status.services {
        match service.phase {
            Phase::Installed => {}
            Phase::Unmanaged => found.push((Health::Degraded, format!("{name} is not managed"))),
            Phase::Paused => found.push((Health::Degraded, format!("{name} is paused"))),
            phase => found.push((Health::Down, format!("{name} has no primary ({})", super::render::phase(phase)))),
        }
        if !service.readiness.failover_ready || !service.readiness.survives_one_more {
            let why = service.readiness.reasons.join(", ");
            found.push((Health::Degraded, format!("{name} is not ready for a failure: {why}")));
        }
    }
    found.extend(status.alarms.iter().map(|alarm| (Health::Degraded, alarm.what.clone())));
    for (name, node) in &status.nodes {
        if node.state != NodeState::Up {
            found.push((Health::Degraded, format!("{name} is {}", super::render::node_state(node.state))));
        }
        let failing = node.failing.iter().map(|what| format!("{name}: {what}"));
        // A service that is not ready for this reason has said so.
        let said = |what: &String| status.services.values().any(|service| service.readiness.reasons.contains(what));
        found.extend(failing.filter(|what| !said(what)).map(|what| (Health::Degraded, what)));
        if node.config_differs {
            found.push((Health::Degraded, format!("{name} has another configuration file")));
        }
    }
    for device in &status.devices {
        if device.monitor.as_ref().is_some_and(|monitor| !monitor.ok) {
            found.push((Health::Degraded, format!("fence device {} of {} fails", device.agent, device.target)));
        }
    }
    for fence in &status.fences {
        found.push((Health::Degraded, format!("{} is fenced ({})", fence.node, fence.stage)));
    }
    found.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let worst = found.first().map_or(Health::Healthy, |(health, _)| *health);
    (worst, found.into_iter().map(|(_, sentence)| sentence).collect())
}
