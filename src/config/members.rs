//! What one node is for in one service: `[service.NAME.node.NODE]`. Whether it may lead, how late it replays, whom it
//! follows, and its own parameters.
//!
//! Not here: what a node is for in the cluster (`[nodes.NAME]`), and who follows whom at a moment (`plan/cascade.rs`).

use super::problem::{Problems, suggest};
use super::{Config, Role, Service, parameters, raw};
use crate::types::{NodeName, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A database node's part in a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// It may be appointed. Never where it replays late.
    pub may_lead: bool,
    /// It replays what it receives so much later. Zero: at once.
    pub apply_delay: Duration,
    /// It gets its WAL from this standby while that one follows the primary; else, and by default, from the primary.
    pub follow: Option<NodeName>,
}

impl Default for Member {
    fn default() -> Self {
        Member { may_lead: true, apply_delay: Duration::ZERO, follow: None }
    }
}

impl Service {
    /// Whether the node may be appointed, as far as the file says.
    pub fn may_lead(&self, node: &NodeName) -> bool {
        self.members.get(node).is_none_or(|member| member.may_lead)
    }
}

impl Config {
    /// The database nodes that may lead the service.
    pub fn leaders_of(&self, service: &ServiceName) -> impl Iterator<Item = &NodeName> {
        let service = self.services.get(service);
        let databases = self.nodes.iter().filter(|(_, node)| node.role == Role::Database).map(|(name, _)| name);
        databases.filter(move |node| service.is_some_and(|service| service.may_lead(node)))
    }
}

/// What is written of the nodes of a service, as far as it can be read.
pub(super) fn of(written: &raw::Service) -> BTreeMap<NodeName, Member> {
    let all = written.node.iter().flatten();
    all.filter_map(|(node, member)| Some((node.parse().ok()?, member_of(member)))).collect()
}

fn member_of(written: &raw::Member) -> Member {
    let apply_delay = written.apply_delay.unwrap_or_default();
    Member {
        may_lead: written.may_lead.unwrap_or(apply_delay.is_zero()),
        apply_delay,
        follow: written.follow.as_ref().and_then(|node| node.parse().ok()),
    }
}

/// How late the node replays.
pub(super) fn delay_of(written: &raw::Service, node: &str) -> Duration {
    written.node.as_ref().and_then(|all| all.get(node)).and_then(|member| member.apply_delay).unwrap_or_default()
}

/// The node's own parameters, which win over those of all.
pub(super) fn parameters_of(written: &raw::Service, node: &str) -> impl Iterator<Item = (String, String)> {
    let own = written.node.as_ref().and_then(|all| all.get(node)).and_then(|member| member.parameters.as_ref());
    own.into_iter().flatten().map(|(name, value)| (name.clone(), value.0.clone()))
}

/// Adds a problem for every rule that the tables break.
pub(super) fn rules(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    for (name, service) in &config.services {
        let Some(written) = file.service.as_ref().and_then(|all| all.get(name.as_str())) else { continue };
        for (node, member) in written.node.iter().flatten() {
            one(config, (&format!("service.{name}.node"), node), member, problems);
        }
        let has_databases = config.nodes.values().any(|node| node.role == Role::Database);
        if has_databases && config.leaders_of(name).next().is_none() {
            let key = format!("service.{name}.node");
            problems.add_hint(&key, "no node may lead the service", "let one lead, better two: may_lead = true");
        }
        for node in service.members.keys().filter(|node| follows_itself(service, node)) {
            let key = format!("service.{name}.node.{node}.follow");
            problems.add_hint(&key, "follows itself, by way of others", "let one of them follow the primary");
        }
    }
}

fn one(config: &Config, (table, node): (&str, &str), member: &raw::Member, problems: &mut Problems<'_>) {
    let key = format!("{table}.{node}");
    let databases: Vec<&str> =
        config.nodes.iter().filter(|(_, n)| n.role == Role::Database).map(|(name, _)| name.as_str()).collect();
    let is_database = |name: &str| databases.contains(&name);
    if !is_database(node) {
        let hint = suggest(node, databases.iter().copied());
        problems.add_hint(&key, format!("no database node is called {node}"), hint);
    }
    if member.may_lead == Some(true) && member.apply_delay.is_some_and(|delay| !delay.is_zero()) {
        problems.add_hint(
            &format!("{key}.may_lead"),
            "a standby that replays late never leads: it would open without what it has not replayed",
            "remove apply_delay, or may_lead",
        );
    }
    if let Some(followed) = member.follow.as_deref()
        && !is_database(followed)
    {
        let hint = suggest(followed, databases.iter().copied());
        problems.add_hint(&format!("{key}.follow"), format!("no database node is called {followed}"), hint);
    }
    for (name, value) in member.parameters.iter().flatten() {
        if let Some((why, remedy)) = parameters::refused(name, &value.0) {
            problems.add_hint(&format!("{key}.parameters.{name}"), why, remedy);
        }
    }
}

fn follows_itself(service: &Service, node: &NodeName) -> bool {
    let next = |node: &NodeName| service.members.get(node).and_then(|member| member.follow.as_ref());
    let (mut at, mut seen) = (next(node), BTreeSet::new());
    while let Some(followed) = at.filter(|followed| seen.insert(*followed)) {
        if followed == node {
            return true;
        }
        at = next(followed);
    }
    false
}

/// What a service of this file would have to live with.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let databases = config.nodes.values().filter(|node| node.role == Role::Database).count();
    let alone = |name: &&ServiceName| databases > 1 && config.leaders_of(name).count() == 1;
    config
        .services
        .keys()
        .filter(alone)
        .map(|name| format!("one node may lead {name}: there is nowhere to move to"))
        .collect()
}
