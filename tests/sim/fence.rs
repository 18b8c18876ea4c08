//! Fence devices: one power device a host and level, honest, slow, failing, lying or late, and assistants that always
//! succeed. A device acts by itself: what was asked of it happens even if whoever asked is gone.

use crate::cluster::{MS, S, World};
use rand::RngExt;
use regent::node::{Event, RunKey};
use regent::types::{AgentAction, AgentName, AgentOutcome, AgentRun, NodeName};
use std::time::Duration;

/// How a device behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Honest,
    Slow,
    Failing,
    /// Says success and does nothing.
    Lying,
    /// Runs out of time, and acts afterwards.
    Late,
}

impl World {
    pub fn device(&self, host: usize, agent: &str) -> Device {
        self.devices.get(&(host, agent.to_owned())).copied().unwrap_or(Device::Honest)
    }

    pub fn run_agent(&mut self, by: usize, key: RunKey, agent: &AgentName, action: AgentAction, target: &NodeName) {
        let target = self.host(target);
        let settings = &self.hosts[by].config.fencing.agents[agent];
        let timeout = settings.timeout.as_nanos() as u64;
        if settings.everywhere {
            let took = self.rng.random_range(20 * MS..100 * MS);
            return self.agent_ends(by, key, AgentOutcome::Succeeded, took);
        }
        let mode = self.device(target, agent.as_str());
        let took = self.rng.random_range(100 * MS..800 * MS);
        let name = agent.to_string();
        let (acts_after, outcome, ends_after) = match (mode, action) {
            (Device::Honest, _) => (Some(took / 2), AgentOutcome::Succeeded, took),
            (Device::Slow, _) => (Some(timeout * 6 / 10), AgentOutcome::Succeeded, timeout * 8 / 10),
            (Device::Late, AgentAction::Off) => (Some(timeout + took), AgentOutcome::TimedOut, timeout),
            (Device::Lying, AgentAction::Off) => (None, AgentOutcome::Succeeded, took),
            _ => (None, AgentOutcome::Failed { status: 1 }, took),
        };
        self.note(|| format!("{name} {action:?} of host {target} by host {by}: {mode:?}"));
        if let Some(delay) = acts_after {
            self.after(delay, move |w| match action {
                AgentAction::Off => w.power_off(target),
                _ => w.power_on(target),
            });
        }
        if mode == Device::Lying && action == AgentAction::Off {
            let boots = self.hosts[target].boots;
            self.after(ends_after, move |w| w.lied(target, boots));
        }
        self.agent_ends(by, key, outcome, ends_after);
    }

    fn agent_ends(&mut self, by: usize, key: RunKey, outcome: AgentOutcome, took: u64) {
        let run = AgentRun { outcome, tries: 1, took: Duration::from_nanos(took), output: String::new() };
        self.give_later(took.clamp(MS, 60 * S), by, Event::AgentEnded { key, run });
    }
}
