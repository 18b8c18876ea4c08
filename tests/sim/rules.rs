//! What assistants leave in force on the hosts that run them: rules of the firewall, which a reboot takes away, and lines
//! of access, which lie beside the database and stay. While one stands, the database of its target does not stream
//! from (and a firewall's: nor to) the host that has it. Not here: how an assistant runs and fails (`fence.rs`), and
//! whether what stands is right (the properties).

use crate::cluster::World;
use regent::ledger::FenceState;
use regent::types::{AgentKind, AgentName, FenceId};

/// One rule in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Where it is.
    pub host: usize,
    pub fence: FenceId,
    pub agent: AgentName,
    /// Against whom.
    pub target: usize,
}

impl World {
    /// An assistant is at the point where it changes something.
    pub fn apply_rule(&mut self, rule: Rule, stands: bool) {
        let changed = match stands {
            true => self.rules.insert(rule.clone()),
            false => self.rules.remove(&rule),
        };
        if changed {
            self.note(|w| {
                let (host, target) = (&w.hosts[rule.host].name, &w.hosts[rule.target].name);
                let now = if stands { "has" } else { "has no longer" };
                format!("{host} {now} {} against {target} ({})", rule.agent, rule.fence)
            });
        }
    }

    fn is_access(&self, rule: &Rule) -> bool {
        let settings = self.hosts[rule.host].config.fencing.agents.get(&rule.agent);
        settings.is_some_and(|agent| agent.kind == AgentKind::Access)
    }

    /// The kernel's rules are gone after a reboot.
    pub fn rules_after_boot(&mut self, host: usize) {
        let rules = std::mem::take(&mut self.rules);
        self.rules = rules.into_iter().filter(|r| r.host != host || self.is_access(r)).collect();
    }

    /// Whether a rule keeps the database of `host` from that of `up`.
    pub fn is_barred(&self, host: usize, up: usize) -> bool {
        let bars =
            |r: &Rule| (r.host, r.target) == (up, host) || (r.host, r.target) == (host, up) && !self.is_access(r);
        !self.rules.is_empty() && self.rules.iter().any(bars)
    }

    /// Each daemon once, when it has joined and its copy of the ledger has that: what stands here is taken back, but for
    /// what the ledger knows of and still wants. The real daemon's shell does it, not the node. A line of access outlives
    /// a boot, at which the ledger forgets it: so it is not enough to look for fences that are closed.
    pub fn sweep_rules(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].swept == self.hosts[host].life || !self.has_applied_its_join(host) {
                continue;
            }
            self.hosts[host].swept = self.hosts[host].life;
            let (state, name) = (self.hosts[host].state.clone(), self.hosts[host].name.clone());
            let wanted = |r: &Rule| {
                state.fences.get(&r.fence).is_some_and(|f| {
                    let knows = f.assisted.get(&name).is_some_and(|agents| agents.contains(&r.agent));
                    knows && matches!(f.state, FenceState::Open | FenceState::Confirmed)
                })
            };
            let left: Vec<_> = self.rules.iter().filter(|r| r.host == host && !wanted(r)).cloned().collect();
            left.into_iter().for_each(|rule| self.apply_rule(rule, false));
        }
    }

    fn has_applied_its_join(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        let own = h.state.nodes.get(&h.name).map(|n| n.incarnation);
        let mine = h.daemon.as_ref().and_then(|d| d.incarnation());
        self.is_alive(host) && mine.is_some_and(|mine| own.is_some_and(|own| own >= mine))
    }
}
