//! What `regent config check` prints about a valid configuration: bounds, inequalities, single failures, warnings.
//! Not here: errors in a file (`problem.rs`).

use super::secret::is_plain_secret;
use super::survey::{SingleFailure, verdict_possible};
use super::timing::{Bounds, Inequality, bounds, inequalities, show};
use super::trouble::{self, TroubleBound};
use super::{Config, Role, access_lines, database_tls, members, values};
use crate::types::{AgentKind, AgentName};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Everything that a valid configuration implies. `Display` is the text for people, serde the one for `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    pub cluster: String,
    pub node: String,
    pub profile: String,
    /// Equal on two hosts that were given the same configuration.
    pub hash: String,
    pub bounds: Bounds,
    pub troubles: Vec<TroubleBound>,
    pub inequalities: Vec<Inequality>,
    pub single_failures: Vec<SingleFailure>,
    pub warnings: Vec<String>,
}

/// Derives the report.
pub fn report(config: &Config) -> CheckReport {
    let single_failures = verdict_possible(config);
    CheckReport {
        cluster: config.cluster.clone(),
        node: config.node.to_string(),
        profile: config.profile.name().to_owned(),
        hash: format!("{:016x}", config.hash),
        bounds: bounds(config),
        troubles: trouble::bounds(config),
        inequalities: inequalities(config),
        warnings: warnings(config, &single_failures),
        single_failures,
    }
}

fn warnings(config: &Config, failures: &[SingleFailure]) -> Vec<String> {
    let mut all = Vec::new();
    security_warnings(config, &mut all);
    node_warnings(config, &mut all);
    fencing_warnings(config, &mut all);
    all.extend(members::warnings(config));
    all.extend(access_lines::slow_logins(config));
    all.extend(values::warnings(config));
    let impossible = |row: &&SingleFailure| !row.possible;
    if failures.first().is_some_and(|healthy| !healthy.possible) {
        all.push("even with nothing broken, no verdict about some database node is possible".to_owned());
    } else if let Some(row) = failures.iter().find(impossible) {
        let count = failures.iter().filter(impossible).count();
        all.push(format!(
            "{count} of {} single failures leave some database node without a possible verdict (the first: {})",
            failures.len() - 1,
            row.failure
        ));
    }
    all
}

fn security_warnings(config: &Config, all: &mut Vec<String>) {
    if config.security.insecure {
        all.push("insecure = true: whoever reaches the gRPC port can move the primary".to_owned());
    }
    let services = config.services.iter();
    all.extend(services.filter_map(|(name, service)| database_tls::warning(name.as_str(), &service.postgresql.tls)));
    for (name, agent) in &config.fencing.agents {
        let options = agent.node.values().chain([&agent.options]).flatten();
        let plain: BTreeSet<&str> = options
            .filter(|(option, value)| is_plain_secret(option, value))
            .map(|(option, _)| option.as_str())
            .collect();
        for option in plain {
            all.push(format!(
                "agent {name}: a secret stands in the file ({option}); an option that names a file or a script, where the \
                 agent has one, keeps it out of copies"
            ));
        }
    }
}

fn node_warnings(config: &Config, all: &mut Vec<String>) {
    if config.disk.is_none() {
        all.push("no shared disk: a verdict needs both networks lost, and one that is blind prevents it".to_owned());
    } else {
        for (name, _) in config.nodes.iter().filter(|(_, node)| !node.disk) {
            all.push(format!("{name} does not use the shared disk: it needs both networks to accuse anybody"));
        }
    }
    if config.nodes.len().is_multiple_of(2) {
        all.push(format!("{} voters survive no more failures than {}", config.nodes.len(), config.nodes.len() - 1));
    }
    if config.nodes.values().filter(|node| node.role == Role::Database).count() == 1 {
        all.push("one database node: there is nowhere to move to".to_owned());
    }
    for (name, node) in config.nodes.iter().filter(|(_, node)| same_network(node.primary, node.secondary)) {
        all.push(format!(
            "{name}: {} and {} look like one network: one cut would count as two channels",
            node.primary, node.secondary
        ));
    }
}

/// The usual sizes of a network: /24 and /64. The file says no masks.
fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        _ => false,
    }
}

fn fencing_warnings(config: &Config, all: &mut Vec<String>) {
    let fencing = &config.fencing;
    let uses_lease = fencing.levels.iter().flatten().any(AgentName::is_lease);
    if fencing.levels.is_empty() {
        all.push("no fencing level: every failover waits for a person and `regent fence confirm`".to_owned());
    }
    if let [level] = fencing.levels.as_slice()
        && level.iter().any(|name| fencing.agents.get(name).is_some_and(|agent| agent.kind == AgentKind::Power))
    {
        all.push(
            "the only level needs a power device: a power cut that takes an on-board BMC with it waits for a person; \
             add a level with another device, or with \"lease\""
                .to_owned(),
        );
    }
    if fencing.lease_without_watchdog && uses_lease {
        all.push(
            "lease_without_watchdog = true: a node whose daemon hangs may go on writing after \"lease\" confirmed"
                .to_owned(),
        );
    }
    if fencing.lease_on_virtual_machine && uses_lease {
        all.push(
            "lease_on_virtual_machine = true: a paused guest that resumes may write beside the new primary".to_owned(),
        );
    }
    for (name, _) in fencing.agents.iter().filter(|(_, agent)| agent.isolates) {
        all.push(format!("agent {name}: isolates = true is taken at its word; drill it"));
    }
    let used = |name| fencing.assist.contains(name) || fencing.levels.iter().any(|level| level.contains(name));
    for name in fencing.agents.keys().filter(|name| !used(name)) {
        all.push(format!("agent {name} is in no level and assists nowhere: it never runs"));
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster {}, node {}, profile {}, file {}", self.cluster, self.node, self.profile, self.hash)?;
        writeln!(f, "\nBounds (worst case, one failure)")?;
        for (name, formula, value) in self.bounds.lines() {
            writeln!(f, "  {name:<28} {:>12}   {formula}", show(value))?;
        }
        for level in &self.bounds.levels {
            let title = format!("level {}: {}", level.level, level.agents.join(" + "));
            let give_up = show(level.give_up);
            writeln!(f, "  {title:<28} {:>12}   or fails after {give_up}", show(level.confirm))?;
        }
        for level in &self.bounds.levels {
            let title = format!("failover by level {}", level.level);
            let formula = "max(detection, election) + verdict + fence + check + choose + promote + 3 × slow_write";
            writeln!(f, "  {title:<28} {:>12}   {formula}", show(level.failover))?;
            let title = "  its database started first";
            let formula = "the same + start: no candidate runs, or a restart in place";
            writeln!(f, "  {title:<28} {:>12}   {formula}", show(level.started))?;
        }
        if self.bounds.failover_worst.is_none() {
            writeln!(f, "  {:<28} {:>12}   there is no fencing level", "failover", "no bound")?;
        }
        writeln!(
            f,
            "\n  A host may freeze for {} unnoticed. The host of a primary that freezes for longer than {} is shot.",
            show(self.bounds.freeze_tolerated),
            show(self.bounds.freeze_fatal)
        )?;
        self.fmt_troubles(f)?;
        writeln!(f, "\nTiming rules")?;
        for rule in &self.inequalities {
            let mark = if rule.holds { "ok" } else { "BROKEN" };
            let numbers = format!("{} {} {}", show(rule.left), rule.relation, show(rule.right));
            writeln!(f, "  {mark:<6} {numbers:<22} {}   ({}, {})", rule.formula, rule.name, rule.key)?;
        }
        self.fmt_failures(f)?;
        writeln!(f, "\nWarnings")?;
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        if self.warnings.is_empty() {
            writeln!(f, "  none")?;
        }
        Ok(())
    }
}

impl CheckReport {
    fn fmt_troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nLocal trouble of a primary, and for how long clients are without writes where a standby can take over"
        )?;
        for row in &self.troubles {
            let title = format!("{}: {}", row.service, row.trouble.key());
            let bound = row.without_writes_ms.map_or("no bound".to_owned(), |ms| show(Duration::from_millis(ms)));
            writeln!(f, "  {title:<28} {bound:>12}   {}", row.policy)?;
        }
        Ok(())
    }

    fn fmt_failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nIf this is broken, would a verdict about a database node that dies still be possible?")?;
        for row in &self.single_failures {
            let verdicts: Vec<String> = row
                .verdict
                .iter()
                .map(|(node, possible)| format!("{node} {}", if *possible { "yes" } else { "NO" }))
                .collect();
            writeln!(f, "  {:<28} {}", row.failure, verdicts.join("  "))?;
        }
        Ok(())
    }
}
