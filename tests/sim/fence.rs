//! Fence devices: one power device a host and agent, honest or not, and assistants that always succeed. A device acts
//! by itself: what was asked of it happens even if whoever asked is gone.

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
    /// Runs out of time, and acts this much later.
    Late(u64),
    /// Switches off and says that it failed.
    Half,
    /// Says success and lets the host boot again at once.
    Reboots,
    /// Cannot be reached while its host has no power: it hangs on the host's own supply.
    OnHostPower,
}

/// What one run does, how it is told, and when.
struct Run {
    acts_after: Option<u64>,
    outcome: AgentOutcome,
    ends_after: u64,
}

impl World {
    pub fn device(&self, host: usize, agent: &str) -> Device {
        self.devices.get(&(host, agent.to_owned())).copied().unwrap_or(Device::Honest)
    }

    pub fn set_device(&mut self, host: usize, agent: &str, device: Device) {
        self.devices.insert((host, agent.to_owned()), device);
    }

    pub fn run_agent(
        &mut self,
        by: usize,
        key: RunKey,
        agent: &AgentName,
        action: AgentAction,
        target: &NodeName,
        limit: Duration,
    ) {
        let target = self.host(target);
        let settings = &self.hosts[by].config.fencing.agents[agent];
        let timeout = settings.timeout.min(limit).as_nanos() as u64;
        if settings.everywhere {
            let took = self.rng.random_range(20 * MS..100 * MS);
            return self.agent_ends(by, key, AgentOutcome::Succeeded, took);
        }
        let mode = self.device(target, agent.as_str());
        let took = self.rng.random_range(100 * MS..800 * MS).min(timeout);
        let run = run_of(mode, action, self.hosts[target].power, (timeout, took));
        self.note(|w| format!("{agent} {action:?} of {} by {}: {mode:?}", w.hosts[target].name, w.hosts[by].name));
        if let Some(delay) = run.acts_after {
            let started = self.started();
            self.after(delay, move |w| {
                w.device_acts(started.as_ref(), !matches!(mode, Device::Late(_)));
                match action {
                    AgentAction::Off => w.power_off(target),
                    _ => w.power_on(target),
                }
            });
        }
        if action == AgentAction::Off && mode == Device::Reboots {
            self.after(run.acts_after.unwrap_or(took) + 5 * MS, move |w| w.power_on(target));
        }
        if mode == Device::Lying && action == AgentAction::Off {
            let boots = self.hosts[target].boots;
            self.after(run.ends_after, move |w| w.lied(target, boots));
        }
        self.agent_ends(by, key, run.outcome, run.ends_after);
    }

    fn agent_ends(&mut self, by: usize, key: RunKey, outcome: AgentOutcome, took: u64) {
        let run = AgentRun { outcome, tries: 1, took: Duration::from_nanos(took), output: String::new() };
        self.give_later(took.clamp(MS, 60 * S), by, Event::AgentEnded { key, run });
    }
}

fn run_of(mode: Device, action: AgentAction, has_power: bool, (timeout, took): (u64, u64)) -> Run {
    let off = action == AgentAction::Off;
    let failed = AgentOutcome::Failed { status: 1 };
    let (acts_after, outcome, ends_after) = match mode {
        Device::Honest | Device::Reboots => (Some(took / 2), AgentOutcome::Succeeded, took),
        Device::Slow => (Some(timeout * 6 / 10), AgentOutcome::Succeeded, timeout * 8 / 10),
        Device::Late(by) => (Some(timeout + by), AgentOutcome::TimedOut, timeout),
        Device::Lying if off => (None, AgentOutcome::Succeeded, took),
        Device::Half if off => (Some(took / 2), failed, took),
        Device::OnHostPower if has_power => (Some(took / 2), AgentOutcome::Succeeded, took),
        Device::Half => (Some(took / 2), AgentOutcome::Succeeded, took),
        Device::OnHostPower => (None, AgentOutcome::TimedOut, timeout),
        Device::Failing | Device::Lying => (None, failed, took),
    };
    Run { acts_after, outcome, ends_after }
}
