//! What assistants leave in force on the hosts that run them: rules of the firewall, which a reboot takes away, and lines
//! of access, which lie beside the database and stay. While one stands, the database of its target does not stream
//! from (and a firewall's: nor to) the host that has it. Not here: how an assistant runs and fails (`fence.rs`), and
//! whether what stands is right (the properties).

use crate::cluster::{MS, World};
use rand::RngExt;
use regent::node::{Event, Undo};
use regent::types::{AgentKind, AgentName, FenceId, Standing};

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

    /// What a daemon finds in force on its host. A look may fail, and then it knows a part.
    pub fn look_in_force(&mut self, host: usize) {
        let standing = |r: &Rule| Standing {
            fence: r.fence,
            node: Some(self.hosts[r.target].name.clone()),
            what: "rules of it".to_owned(),
        };
        let here = self.rules.iter().filter(|r| r.host == host);
        let standing: Vec<_> = here.map(|r| (r.agent.clone(), standing(r))).collect();
        let whole = !self.fails_at_times();
        let standing = if whole { standing } else { Vec::new() };
        let delay = self.rng.random_range(20 * MS..200 * MS);
        self.give_later(delay, host, Event::InForce { standing, whole });
    }

    /// One time in eight, as long as not everything has healed.
    fn fails_at_times(&mut self) -> bool {
        self.healings == 0 && self.rng.random_range(0..8) == 0
    }

    /// A daemon has it undone, which may fail as well.
    pub fn undo_in_force(&mut self, host: usize, undo: &Undo) {
        let rule = |r: &&Rule| r.host == host && r.fence == undo.fence && r.agent == undo.agent;
        let rules: Vec<_> = self.rules.iter().filter(rule).cloned().collect();
        let boots = self.hosts[host].boots;
        for rule in rules {
            if self.fails_at_times() {
                continue;
            }
            let delay = self.rng.random_range(20 * MS..200 * MS);
            self.after(delay, move |w| {
                if w.hosts[host].boots == boots && w.hosts[host].power {
                    w.apply_rule(rule, false);
                }
            });
        }
    }
}
