//! What safety rests on, as ledger state: the file seeds it once, a command changes it, a differing file is reported
//! (hazard 1.7: one drifted file must not give two primaries). Not here: per-host paths and preferences.

use crate::config::{Config, Drift, LeaseTime, LeaseTiming, OnLapsed, PowerOn, Role};
use crate::known_bugs::{self, Bug};
use crate::types::{AgentKind, AgentName, ChannelName, NodeId, NodeName, ServiceName, StopLadder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The cluster-wide values that the safety rules use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub nodes: BTreeMap<NodeName, NodeSettings>,
    pub channels: BTreeSet<ChannelName>,
    /// Lease time, counted by the holder from before it asked.
    pub ttl: Duration,
    /// Allowed error of clock rates, parts per thousand.
    pub drift_permille: u32,
    /// Longest time until an armed watchdog resets its host; zero where none is configured.
    pub watchdog: Duration,
    /// The stop ladder at the end of a lease, all rungs together.
    pub stop: Duration,
    pub levels: Vec<Vec<AgentName>>,
    pub assist: Vec<AgentName>,
    pub agents: BTreeMap<AgentName, AgentSettings>,
    pub on_lapsed: OnLapsed,
    pub power_on: PowerOn,
    pub lease_without_watchdog: bool,
    pub lease_on_virtual_machine: bool,
    /// Services, and whether they may be created by initdb.
    pub services: BTreeMap<ServiceName, bool>,
}

/// What the ledger knows of a node from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    pub id: NodeId,
    pub role: Role,
}

/// What the ledger knows of a fence agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSettings {
    pub kind: AgentKind,
    pub isolates: bool,
    pub everywhere: bool,
    pub timeout: Duration,
}

impl AgentSettings {
    /// Whether a confirmation by it can end an epoch.
    pub fn ends_epoch(&self) -> bool {
        self.kind.ends_epoch(self.isolates)
    }
}

impl Settings {
    /// The settings that a configuration file seeds. Node ids count from 1 in the order of names.
    pub fn seed(config: &Config) -> Settings {
        let ids = (1..).map(NodeId);
        let mut agents: BTreeMap<_, _> = config
            .fencing
            .agents
            .iter()
            .map(|(name, a)| {
                let settings =
                    AgentSettings { kind: a.kind, isolates: a.isolates, everywhere: a.everywhere, timeout: a.timeout };
                (name.clone(), settings)
            })
            .collect();
        agents.insert(
            AgentName::lease(),
            AgentSettings { kind: AgentKind::Lease, isolates: false, everywhere: false, timeout: Duration::ZERO },
        );
        let lease_time = config.lease_time();
        Settings {
            nodes: config
                .nodes
                .iter()
                .zip(ids)
                .map(|((name, n), id)| (name.clone(), NodeSettings { id, role: n.role }))
                .collect(),
            channels: config.channels().into_iter().collect(),
            ttl: lease_time.ttl,
            drift_permille: lease_time.drift.0,
            watchdog: lease_time.watchdog,
            stop: lease_time.stop,
            levels: config.fencing.levels.clone(),
            assist: config.fencing.assist.clone(),
            agents,
            on_lapsed: config.fencing.on_lapsed,
            power_on: config.fencing.power_on,
            lease_without_watchdog: config.fencing.lease_without_watchdog,
            lease_on_virtual_machine: config.fencing.lease_on_virtual_machine,
            services: config.services.iter().map(|(name, s)| (name.clone(), s.bootstrap_initdb)).collect(),
        }
    }

    fn lease_time(&self) -> LeaseTime {
        LeaseTime { ttl: self.ttl, drift: self.drift(), watchdog: self.watchdog, stop: self.stop }
    }

    /// Allowed error of clock rates.
    pub fn drift(&self) -> Drift {
        Drift(self.drift_permille)
    }

    /// How long everybody else waits until a lease has surely ended.
    pub fn lease_wait(&self) -> Duration {
        if known_bugs::has(Bug::LeaseNotWaitedFor) {
            return self.ttl / 4;
        }
        self.lease_time().waited_for()
    }

    /// How long the holder itself may use a grant, from before it asked.
    pub fn lease_use(&self) -> Duration {
        self.lease_time().used()
    }

    /// The ladder at the end of a lease. The ledger says how long it takes in all, because that is what everybody else
    /// waits for. This host's file only divides it: `kill` gets what is written, if there is so much, and `immediate` the
    /// rest.
    pub fn lease_ladder(&self, written: &LeaseTiming) -> StopLadder {
        let kill = written.stop_kill.min(self.stop);
        StopLadder { fast: Duration::ZERO, immediate: self.stop - kill, kill }
    }

    /// The node with this Raft id.
    pub fn node_by_id(&self, id: NodeId) -> Option<&NodeName> {
        self.nodes.iter().find(|(_, n)| n.id == id).map(|(name, _)| name)
    }

    /// The names of the database nodes.
    pub fn database_nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.iter().filter(|(_, n)| n.role == Role::Database).map(|(name, _)| name)
    }

    /// Whether the level can end an epoch: every agent is known, and one of them proves it.
    pub fn level_ends_epoch(&self, level: &[AgentName]) -> bool {
        level.iter().all(|a| self.agents.contains_key(a))
            && level.iter().any(|a| self.agents.get(a).is_some_and(AgentSettings::ends_epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// One host's file was edited, and the ledger has what the cluster was seeded with.
    #[test]
    fn the_ladder_takes_what_the_ledger_says_whatever_the_file_says() {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "db1").expect("an example");
        let settings = Settings::seed(&config);
        assert_eq!(settings.stop, 2 * S);
        let with = |stop_immediate, stop_kill| LeaseTiming { stop_immediate, stop_kill, ..config.lease.clone() };
        for (written, immediate, kill) in [
            (with(S, S), S, S),
            (with(Duration::ZERO, S), S, S),
            (with(9 * S, S / 2), 3 * S / 2, S / 2),
            (with(S, 9 * S), Duration::ZERO, 2 * S),
        ] {
            let ladder = settings.lease_ladder(&written);
            assert_eq!(ladder, StopLadder { fast: Duration::ZERO, immediate, kill }, "{written:?}");
            assert_eq!(ladder.whole(), settings.stop);
        }
    }
}
