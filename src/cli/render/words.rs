//! The words and units in which values are written for people.

use crate::api::status::{IncidentKind, IncidentOutcome, NodeRole, NodeState, Phase, WatchdogState};
use crate::types::{AgentKind, Sight, WallTime};

/// `2026-11-20 12:18:14.123Z`: always UTC, so that hosts can be compared.
pub fn time_of_day(at: WallTime) -> String {
    let timestamp = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| format!("{} ms", at.0), |t| t.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string())
}

/// `350 ms`, `1.52 s`, `3 min 20 s`.
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// What is shown for "none" and "not known".
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unmanaged => "unmanaged",
        Phase::Appointed => "appointed",
        Phase::Promoting => "promoting",
        Phase::Installed => "installed",
        Phase::Lapsed => "lapsed",
        Phase::Fencing => "fencing",
        Phase::Vacant => "vacant",
        Phase::Paused => "paused",
    }
}

pub fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Suspect => "SUSPECT",
        NodeState::Dead => "DEAD",
        NodeState::Left => "left in order",
        NodeState::NotJoined => "not joined",
    }
}

pub fn node_role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Database => "database",
        NodeRole::Witness => "witness",
    }
}

pub fn watchdog(state: WatchdogState) -> &'static str {
    match state {
        WatchdogState::Absent => "none",
        WatchdogState::Armed => "armed",
        WatchdogState::Disarmed => "not armed",
    }
}

pub fn sight(sight: Sight) -> &'static str {
    match sight {
        Sight::Up => "up",
        Sight::Lost => "LOST",
        Sight::Blind => "blind",
    }
}

pub fn agent_kind(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::Power => "power",
        AgentKind::Storage => "storage",
        AgentKind::Lease => "lease",
        AgentKind::Network => "network",
        AgentKind::Access => "access",
    }
}

pub fn incident_kind(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::Bootstrap => "bootstrap",
        IncidentKind::Failover => "failover",
        IncidentKind::Switchover => "switchover",
        IncidentKind::Fence => "fence",
    }
}

pub fn incident_outcome(outcome: IncidentOutcome) -> &'static str {
    match outcome {
        IncidentOutcome::Open => "OPEN",
        IncidentOutcome::Succeeded => "succeeded",
        IncidentOutcome::Failed => "FAILED",
        IncidentOutcome::Abandoned => "abandoned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_people_expect_it() {
        let times = [0, 999, 1_000, 1_529, 59_999, 200_000, 3_720_000].map(milliseconds);
        assert_eq!(times, ["0 ms", "999 ms", "1.00 s", "1.52 s", "59.99 s", "3 min 20 s", "1 h 2 min"]);
    }

    #[test]
    fn times_of_day_are_utc_and_never_panic() {
        assert_eq!(time_of_day(WallTime(1_795_176_894_123)), "2026-11-20 12:14:54.123Z");
        assert_eq!(time_of_day(WallTime(u64::MAX)), "18446744073709551615 ms");
    }
}
