//! Fence devices and assistants, honest or not: a power device a host and agent, an assistant a voter and agent. A device
//! acts by itself: what was asked of it happens even if whoever asked is gone. A run ends at its limit, also where its
//! daemon is dead. Not here: what assistants leave in force (`rules.rs`).

use crate::cluster::{MS, S, World};
use crate::effects::Part;
use crate::host::OffBy;
use crate::rules::Rule;
use rand::RngExt;
use regent::config::PowerOn;
use regent::node::{Event, RunKey};
use regent::types::{AgentAction, AgentName, AgentOutcome, AgentRun, FenceId, NodeName};
use std::time::Duration;

/// How a device (or an assistant) behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Honest,
    Slow,
    Failing,
    /// Says success and does nothing.
    Lying,
    /// Runs out of time, and acts this much later. An assistant, which ends at its limit, leaves what it did until then.
    Late(u64),
    /// Does it and says that it failed.
    Half,
    /// Says success and lets the host boot again at once.
    Reboots,
    /// Cannot be reached while its host has no power: it hangs on the host's own supply.
    OnHostPower,
    /// Answers nobody but this voter.
    OnlyFrom(usize),
    /// Refuses at once until then: it has no free session.
    Busy(u64),
    /// Switches off and never on; an assistant does what it does and cannot take it back.
    NeverOn,
    /// Is wired to this other host, and switches that one.
    Wired(usize),
}

/// What is asked of an agent.
pub struct Wanted<'a> {
    pub key: RunKey,
    pub agent: &'a AgentName,
    pub action: AgentAction,
    pub target: &'a NodeName,
    pub fence: FenceId,
    /// For how long it may act, on the clock of its host.
    pub limit: Duration,
    /// It is tried until then, however often it fails.
    pub persists: bool,
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

    /// Of a power agent `host` is the target, of an assistant it is the voter.
    pub fn set_device(&mut self, host: usize, agent: &str, device: Device) {
        self.devices.insert((host, agent.to_owned()), device);
    }

    pub fn run_agent(&mut self, by: usize, wanted: Wanted) {
        if !self.hosts[by].works(Part::Agents) {
            return self.agent_ends(by, wanted.key, AgentOutcome::NotRun, (MS, u64::MAX));
        }
        let h = &self.hosts[by];
        // The ledger's and this host's own file may say different times; the runner knows the order's.
        let limit = (wanted.limit.as_nanos() as i64 * 1_000_000 / (1_000_000 + h.rate_ppm)) as u64;
        let assists = h.config.fencing.agents.get(wanted.agent).is_some_and(|agent| agent.everywhere);
        if assists { self.assist(by, wanted, limit) } else { self.ask_device(by, wanted, limit) }
    }

    /// An assistant works on its own host.
    fn assist(&mut self, by: usize, wanted: Wanted, limit: u64) {
        let target = self.host(wanted.target);
        let rule = Rule { host: by, fence: wanted.fence, agent: wanted.agent.clone(), target };
        let stands = wanted.action == AgentAction::Off;
        let took = self.rng.random_range(20 * MS..100 * MS);
        let mode = self.device(by, wanted.agent.as_str());
        let run = match mode {
            // It ends at its limit, and what it did until then stands.
            Device::Late(_) => Run { acts_after: Some(limit / 2), outcome: AgentOutcome::TimedOut, ends_after: limit },
            _ => self.tried(
                self.run_of(mode, wanted.action, by, true, (limit, took)),
                mode,
                wanted.persists,
                (limit, took),
            ),
        };
        if let Some(delay) = run.acts_after {
            let life = self.hosts[by].life;
            self.act_on(by, delay, limit, move |w| {
                // The next daemon ends what the last one had under way.
                if w.hosts[by].life == life || w.hosts[by].daemon.is_none() {
                    w.apply_rule(rule, stands);
                }
            });
        }
        self.agent_ends(by, wanted.key, run.outcome, (run.ends_after, limit));
    }

    fn ask_device(&mut self, by: usize, wanted: Wanted, limit: u64) {
        let (agent, action, target) = (wanted.agent, wanted.action, self.host(wanted.target));
        let mode = self.device(target, agent.as_str());
        let took = self.rng.random_range(100 * MS..800 * MS);
        let run = self.run_of(mode, action, by, self.hosts[target].power, (limit, took));
        let run = self.tried(run, mode, wanted.persists, (limit, took));
        self.note(|w| format!("{agent} {action:?} of {} by {}: {mode:?}", w.hosts[target].name, w.hosts[by].name));
        let (started, in_time) = (self.started(), !matches!(mode, Device::Late(_)));
        let run_key = (by, self.hosts[by].life, wanted.key.clone());
        let act = move |w: &mut World| {
            // A late device has the request already.
            if in_time && w.ended_runs.contains(&run_key) {
                return;
            }
            w.device_acts(started.as_ref(), in_time);
            match (action, mode) {
                (AgentAction::Off, Device::Wired(other)) => w.power_off(other),
                (_, Device::Wired(other)) => {
                    // It says that the host is on: whoever mends its wires sees that the host is not.
                    w.leave_to_operators(target);
                    w.power_on(other);
                }
                (AgentAction::Off, _) => w.switched_off(target),
                _ => w.power_on(target),
            }
        };
        match (run.acts_after, mode) {
            (Some(delay), Device::Late(_)) => self.after(delay, act),
            (Some(delay), _) => self.act_on(by, delay, limit, act),
            (None, _) => {}
        }
        if action == AgentAction::Off && mode == Device::Reboots {
            self.after(run.acts_after.unwrap_or(took) + 5 * MS, move |w| w.power_on(target));
        }
        if matches!(mode, Device::Lying | Device::Wired(_)) && action == AgentAction::Off {
            let boots = self.hosts[target].boots;
            self.after(run.ends_after, move |w| w.lied(target, boots));
        }
        self.agent_ends(by, wanted.key, run.outcome, (run.ends_after, limit));
    }

    /// What a process of this host does after a while: not if the host is off or has booted since, and not later than
    /// `limit` after its start, however long the host stood still.
    fn act_on(&mut self, host: usize, delay: u64, limit: u64, act: impl FnOnce(&mut World) + 'static) {
        let boots = self.hosts[host].boots;
        self.after(delay, move |w| {
            let h = &w.hosts[host];
            if !h.power || h.boots != boots {
                return;
            }
            match h.frozen_until {
                None => act(w),
                Some(until) => {
                    let more = until.saturating_sub(w.now) + MS / 2;
                    if delay + more <= limit {
                        w.act_on(host, more, limit - delay, act);
                    }
                }
            }
        });
    }

    /// A device took its power. Where regent is told to leave it at that, an operator gives it back.
    fn switched_off(&mut self, host: usize) {
        self.power_off_by(host, OffBy::Device);
        if self.hosts[host].config.fencing.power_on == PowerOn::Manual {
            let delay = self.rng.random_range(60 * S..180 * S);
            let boots = self.hosts[host].boots;
            self.after(delay, move |w| {
                if w.hosts[host].boots == boots {
                    w.power_on(host);
                }
            });
        }
    }

    /// The runner of this host ends a run at once: what it has not done by now it never does.
    pub fn end_agent(&mut self, by: usize, key: RunKey) {
        self.ended_runs.insert((by, self.hosts[by].life, key.clone()));
        let run = AgentRun { outcome: AgentOutcome::TimedOut, tries: 1, took: Duration::ZERO, output: String::new() };
        self.give_later(5 * MS, by, Event::AgentEnded { key, run });
    }

    /// It ends after so long, or, where its host stands still then, at its limit once the host goes on.
    fn agent_ends(&mut self, by: usize, key: RunKey, outcome: AgentOutcome, (took, limit): (u64, u64)) {
        let (life, begun) = (self.hosts[by].life, self.now);
        self.after(took.clamp(MS, 60 * S), move |w| {
            if w.hosts[by].life != life || w.ended_runs.contains(&(by, life, key.clone())) {
                return;
            }
            if let Some(until) = w.hosts[by].frozen_until {
                // What it was about to do it does first, see `act_on`.
                let more = until.saturating_sub(w.now) + MS;
                let (spent, left) = (w.now + more - begun, limit.saturating_sub(w.now - begun));
                let outcome = if spent > limit { AgentOutcome::TimedOut } else { outcome };
                return w.agent_ends(by, key, outcome, (more, left));
            }
            let took = Duration::from_nanos(w.now - begun);
            let run = AgentRun { outcome, tries: 1, took, output: String::new() };
            w.give(by, Event::AgentEnded { key, run });
        });
    }

    /// What becomes of a run that is tried until its limit: a device that refuses is asked again, at least once a second.
    fn tried(&self, run: Run, mode: Device, persists: bool, (limit, took): (u64, u64)) -> Run {
        let refused = persists && matches!(run.outcome, AgentOutcome::Failed { .. });
        match mode {
            _ if !refused => run,
            Device::Busy(until) if until + S + took <= self.now + limit => {
                let begins = until + S - self.now;
                let (acts_after, outcome) = (Some(begins + took / 2), AgentOutcome::Succeeded);
                Run { acts_after, outcome, ends_after: begins + took }
            }
            _ => Run { ends_after: limit, ..run },
        }
    }

    fn run_of(&self, mode: Device, action: AgentAction, by: usize, has_power: bool, (limit, took): (u64, u64)) -> Run {
        let off = action == AgentAction::Off;
        let failed = AgentOutcome::Failed { status: 1 };
        let (acts_after, outcome, ends_after) = match mode {
            Device::Busy(until) if self.now < until => (None, failed, took / 20),
            Device::OnlyFrom(voter) if voter != by => (None, AgentOutcome::TimedOut, limit),
            Device::NeverOn if !off => (None, failed, took),
            Device::Honest
            | Device::Reboots
            | Device::Busy(_)
            | Device::OnlyFrom(_)
            | Device::NeverOn
            | Device::Wired(_) => (Some(took / 2), AgentOutcome::Succeeded, took),
            Device::Slow => (Some(limit * 6 / 10), AgentOutcome::Succeeded, limit * 8 / 10),
            Device::Late(by) => (Some(limit + by), AgentOutcome::TimedOut, limit),
            Device::Lying if off => (None, AgentOutcome::Succeeded, took),
            Device::Half if off => (Some(took / 2), failed, took),
            Device::OnHostPower if has_power => (Some(took / 2), AgentOutcome::Succeeded, took),
            Device::Half => (Some(took / 2), AgentOutcome::Succeeded, took),
            Device::OnHostPower => (None, AgentOutcome::TimedOut, limit),
            Device::Failing | Device::Lying => (None, failed, took),
        };
        if ends_after <= limit {
            return Run { acts_after, outcome, ends_after };
        }
        let acts_after = acts_after.filter(|at| *at <= limit);
        Run { acts_after, outcome: AgentOutcome::TimedOut, ends_after: limit }
    }
}
