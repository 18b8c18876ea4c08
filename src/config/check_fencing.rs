//! Rules about fencing: agents that are named exist, levels can end an epoch, every database node can be a target,
//! and no two nodes share a device.

use super::parse::shipped;
use super::problem::{Problems, suggest};
use super::{Agent, Config, Role};
use crate::types::{AgentKind, AgentName, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Options that the runner itself writes.
const OWN_OPTIONS: [&str; 3] = ["action", "nodename", "fence_id"];

/// Adds a problem for every rule about fencing that the configuration breaks.
pub(super) fn rules(config: &Config, problems: &mut Problems<'_>) {
    for (i, level) in config.fencing.levels.iter().enumerate() {
        self::level(config, &format!("fencing.level[{}]", i + 1), level, problems);
    }
    assist(config, problems);
    for (name, agent) in &config.fencing.agents {
        let key = format!("fencing.agents.{name}");
        options(&key, agent, problems);
        targets(config, &key, agent, problems);
        if agent.isolates && !matches!(agent.kind, AgentKind::Network | AgentKind::Access) {
            problems.add(
                &format!("{key}.isolates"),
                "is for the kinds \"network\" and \"access\" alone: this one ends an epoch anyway",
            );
        }
        if agent.everywhere && matches!(agent.kind, AgentKind::Power | AgentKind::Storage) {
            problems.add(&format!("{key}.everywhere"), "is for the kinds \"network\" and \"access\" alone: one power or storage device is asked by one node at a time");
        }
    }
}

fn ends_epoch(agent: &Agent) -> bool {
    agent.kind.ends_epoch(agent.isolates)
}

fn level(config: &Config, key: &str, level: &[AgentName], problems: &mut Problems<'_>) {
    let agents_key = format!("{key}.agents");
    if level.is_empty() {
        // A list whose names were all bad has been complained about.
        if !problems.touch_under(&agents_key) {
            problems.add(&agents_key, "expected the name of at least one agent");
        }
        return;
    }
    known(config, &agents_key, level, true, problems);
    let mut ends = false;
    let mut unknown = false;
    for (i, name) in level.iter().enumerate() {
        if level[..i].contains(name) {
            problems.add(&format!("{agents_key}[{}]", i + 1), format!("\"{name}\" is named twice in one level"));
        }
        match config.fencing.agents.get(name) {
            Some(agent) => ends |= ends_epoch(agent),
            None if name.is_lease() => ends = true,
            None => unknown = true,
        }
    }
    if !ends && !unknown {
        problems.add_hint(
            &agents_key,
            "this level can never end an epoch: all its agents only assist",
            "add an agent of kind \"power\" or \"storage\" or the built-in \"lease\", move these to fencing.assist, or \
             declare isolates = true on one that truly cuts the node off",
        );
    }
    let unguarded = config.watchdog.is_none() && !config.fencing.lease_without_watchdog;
    if unguarded && level.iter().any(AgentName::is_lease) {
        problems.add_hint(
            &agents_key,
            "\"lease\" needs an armed watchdog: without one a node whose daemon hangs goes on writing",
            "add [watchdog], or accept that with fencing.lease_without_watchdog = true",
        );
    }
}

fn assist(config: &Config, problems: &mut Problems<'_>) {
    known(config, "fencing.assist", &config.fencing.assist, false, problems);
    for (i, name) in config.fencing.assist.iter().enumerate() {
        let key = format!("fencing.assist[{}]", i + 1);
        if name.is_lease() {
            problems.add(&key, "\"lease\" cannot assist: it only waits. It belongs into a level");
        }
        if config.fencing.assist[..i].contains(name) {
            problems.add(&key, format!("\"{name}\" is named twice"));
        }
        if config.fencing.levels.iter().any(|level| level.contains(name)) {
            problems.add(&key, format!("\"{name}\" is also in a level: it would run twice for one fence"));
        }
        if config.fencing.agents.get(name).is_some_and(ends_epoch) {
            problems.add_hint(
                &key,
                format!("\"{name}\" ends an epoch, but an assistant's word never counts"),
                "put it into a level",
            );
        }
    }
}

fn known(config: &Config, key: &str, names: &[AgentName], lease: bool, problems: &mut Problems<'_>) {
    for (i, name) in names.iter().enumerate() {
        if !name.is_lease() && !config.fencing.agents.contains_key(name) {
            let defined = config.fencing.agents.keys().map(AgentName::as_str);
            let there: BTreeSet<&str> = defined.chain(shipped()).chain(lease.then_some(AgentName::LEASE)).collect();
            let hint = suggest(name.as_str(), there);
            problems.add_hint(&format!("{key}[{}]", i + 1), format!("there is no agent \"{name}\""), hint);
        }
    }
}

fn options(key: &str, agent: &Agent, problems: &mut Problems<'_>) {
    let common = agent.options.keys().map(|option| (format!("{key}.options.{option}"), option));
    let own = agent
        .node
        .iter()
        .flat_map(|(node, options)| options.keys().map(move |option| (format!("{key}.node.{node}.{option}"), option)));
    for (key, option) in common.chain(own) {
        if OWN_OPTIONS.contains(&option.as_str()) {
            problems.add_hint(&key, "regent writes this option itself", "remove it");
        }
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if option.is_empty() || !option.chars().all(word) {
            problems.add(&key, "is not the name of an option: expected letters, digits, '_' and '-'");
        }
    }
}

fn targets(config: &Config, key: &str, agent: &Agent, problems: &mut Problems<'_>) {
    for target in agent.node.keys().filter(|target| !config.nodes.contains_key(*target)) {
        let hint = suggest(target.as_str(), config.nodes.keys().map(NodeName::as_str));
        problems.add_hint(&format!("{key}.node.{target}"), format!("there is no node \"{target}\""), hint);
    }
    let databases = || config.nodes.iter().filter(|(_, node)| node.role == Role::Database).map(|(name, _)| name);
    let needs_table = agent.command.file_name().is_some_and(|name| name == "fence_regent_ipmi");
    if !agent.node.is_empty() || needs_table {
        for target in databases().filter(|target| !agent.node.contains_key(*target)) {
            problems.add_hint(
                &format!("{key}.node.{target}"),
                format!("missing: this agent could not fence {target}"),
                format!("add node.{target} = {{ … }} with the options that are its own"),
            );
        }
    }
    if matches!(agent.kind, AgentKind::Power | AgentKind::Storage) {
        let mut devices: BTreeMap<_, &NodeName> = BTreeMap::new();
        for (target, options) in &agent.node {
            if let Some(other) = devices.insert(options, target) {
                problems.add(
                    &format!("{key}.node.{target}"),
                    format!("has the same options as {other}: to fence one would hit the other"),
                );
            }
        }
    }
}
