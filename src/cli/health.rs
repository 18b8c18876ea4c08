//! One word for a whole status, for exit codes and monitoring systems. It sums up what the daemon said of each service
//! and node; it judges nothing anew.

use crate::api::status::{NodeState, Phase, Status};
use crate::plan::readiness::Reason;

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
/// `strict`: also where one more failure would not be survived, which three voters never promise.
pub fn health(status: &Status, strict: bool) -> (Health, Vec<String>) {
    let mut found: Vec<(Health, String)> = Vec::new();
    if status.quorum.margin < 0 || status.quorum.leader.is_none() {
        found.push((Health::Down, "no quorum: nothing can be decided".into()));
    }
    for (name, service) in &status.services {
        match service.phase {
            Phase::Installed if service.takes_writes == Some(false) => {
                let primary = service.primary.as_ref();
                let database = primary.and_then(|primary| service.databases.get(primary));
                let why = database.and_then(|database| database.trouble.as_ref());
                let primary = primary.map_or("its primary", |primary| primary.as_str());
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                found.push((Health::Down, format!("{name}: {primary} takes no writes{why}")));
            }
            Phase::Installed => {
                // It takes writes, and not for ever.
                let primary = service.primary.as_ref().and_then(|node| Some((node, service.databases.get(node)?)));
                let troubled = primary.and_then(|(node, database)| Some((node, database.trouble.as_ref()?)));
                found.extend(troubled.map(|(node, why)| (Health::Degraded, format!("{name}: {node}: {why}"))));
            }
            Phase::Unmanaged => found.push((Health::Degraded, format!("{name} is not managed"))),
            Phase::Paused => found.push((Health::Degraded, format!("{name} is paused"))),
            phase => found.push((Health::Down, format!("{name} has no primary ({})", super::render::phase(phase)))),
        }
        let ready = &service.readiness;
        let once = Reason::OnlyOnce.to_string();
        let counts = |reason: &&String| strict || **reason != once;
        let reasons: Vec<&str> = ready.reasons.iter().filter(counts).map(String::as_str).collect();
        match ready.failover_ready {
            false => {
                let why = reasons.join(", ");
                found.push((Health::Degraded, format!("{name} is not ready for a failure: {why}")));
            }
            true => found.extend(reasons.iter().map(|what| (Health::Degraded, format!("{name}: {what}")))),
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

#[cfg(test)]
mod tests {
    use super::super::render::scenes_test::status_of;
    use super::*;

    #[test]
    fn three_voters_that_are_well_are_healthy_and_strictly_not() {
        let status = status_of("status_one_standby");
        assert!(status.services.values().all(|s| s.readiness.failover_ready && !s.readiness.survives_one_more));
        assert_eq!(health(&status, false), (Health::Healthy, Vec::new()));
        assert_eq!(health(&status, true).0, Health::Degraded);
    }

    #[test]
    fn a_primary_that_takes_no_writes_is_down_on_every_node_and_says_why() {
        let mut status = status_of("status_one_standby");
        let service = status.services.values_mut().next().expect("one");
        let primary = service.primary.clone().expect("there is one");
        service.takes_writes = Some(false);
        service.databases.get_mut(&primary).expect("its database").trouble = Some("its volume is full".to_owned());
        let (worst, why) = health(&status, false);
        assert_eq!(
            (worst, why),
            (Health::Down, vec![format!("orders: {primary} takes no writes: its volume is full")])
        );
    }

    #[test]
    fn trouble_that_stops_the_primary_in_time_is_told_before_it_does() {
        let mut status = status_of("status_one_standby");
        let service = status.services.values_mut().next().expect("one");
        let primary = service.primary.clone().expect("there is one");
        service.databases.get_mut(&primary).expect("its database").trouble = Some("wraparound is near".to_owned());
        let why = vec![format!("orders: {primary}: wraparound is near")];
        assert_eq!(health(&status, false), (Health::Degraded, why));
    }
}
