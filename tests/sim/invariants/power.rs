//! What fence devices do, and for which order. Three questions, none of them of regent's own code:
//! - an agent is started only for an order that runs in the committed ledger at that very moment, however far the
//!   executor's own copy is (S4). The attempt counts, also where the device then fails;
//! - a device acts only while that order runs: nobody ends an order whose agent may still act (S4). One that acts after
//!   its agent's deadline breaks an assumption, and is counted;
//! - nobody is fenced by itself who was heard well when the first order was begun: not when the verdict was proposed, which
//!   may be minutes earlier (S8).

use crate::cluster::{MS, S, World};
use regent::ledger::{Cause, Fence, Order, OrderState};
use regent::node::{Effect, RunKey};
use regent::types::{AgentAction, AgentOutcome, FenceId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One agent that was started for an order.
#[derive(Clone, Debug)]
pub struct Started {
    fence: FenceId,
    order: u32,
    action: AgentAction,
    target: usize,
}

/// What this property remembers.
#[derive(Default)]
pub struct Power {
    /// The agent that was started last: what the device does with it comes later.
    last: Option<Started>,
    /// Fences of which an order to switch off was begun.
    begun: BTreeSet<FenceId>,
    /// When verdicts were committed, by fence.
    judged: BTreeMap<FenceId, u64>,
    /// The boot of each host that a device ended in time for an order: regent's own act, and regent's to take back; and when.
    cut: BTreeMap<usize, (u64, u64)>,
    /// Hosts of which that was for a fence that an operator ordered.
    by_order: BTreeSet<usize>,
}

impl Power {
    /// A fence was opened.
    pub fn opened(&mut self, now: u64, fence: FenceId) {
        self.judged.insert(fence, now);
    }
}

fn find(w: &World, fence: FenceId, number: u32) -> Option<(&Fence, &Order)> {
    let fence = w.log.state().fences.get(&fence)?;
    Some((fence, fence.order(number)?))
}

fn runs(w: &World, run: &Started) -> bool {
    find(w, run.fence, run.order).is_some_and(|(_, order)| order.is_running() && order.action == run.action)
}

/// An agent is started.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    let Effect::RunAgent { key, agent, action, target, .. } = effect else { return };
    match key {
        RunKey::Order { fence, order } => {
            let run = Started { fence: *fence, order: *order, action: *action, target: w.host(target) };
            // A guest whose clock stood still with it cannot know that what it was told before is old.
            let h = &w.hosts[host];
            let slept = h.last_still > 0 && w.now < h.thawed_at + S;
            if !runs(w, &run) && !slept {
                let name = &w.hosts[host].name;
                let what = format!("{name} begins {agent} {action:?} of {target}: its order {order} runs no more");
                w.violate("S4", what);
            }
            if *action == AgentAction::Off {
                first_order(w, &run);
            }
            w.facts.power.last = Some(run);
        }
        RunKey::Assist { fence, action: AgentAction::Off, .. } => {
            if !w.log.state().fences.get(fence).is_some_and(|f| f.is_open()) {
                let name = &w.hosts[host].name;
                let what = format!("{name} begins {agent} against {target}: fence {fence} is closed");
                w.violate("S4", what);
            }
        }
        RunKey::Assist { .. } => {}
    }
}

/// How old at most what a fence rests on may be when its first agent is started: the leader looked at most a pause before
/// it gave the order, and an order is begun only while a quarter of its agent's time is left. To have heard a node well is
/// to have heard it for longer than that.
fn evidence_lasts(w: &World, run: &Started) -> u64 {
    let agent = find(w, run.fence, run.order).map(|(_, order)| order.agent.clone());
    let settings = w.log.state().settings.as_ref();
    let timeout = agent.and_then(|agent| settings?.agents.get(&agent).map(|a| a.timeout)).unwrap_or_default();
    w.facts.times.pause + timeout.as_nanos() as u64 * 3 / 4 + 100 * MS
}

/// The first order of a fence is begun: what it rests on is so now.
fn first_order(w: &mut World, run: &Started) {
    if !w.facts.power.begun.insert(run.fence) {
        return;
    }
    let Some((fence, _)) = find(w, run.fence, run.order) else { return };
    // One whose executor is gone with it, and that ran out of time, may have struck: what was begun goes on.
    let ran_out =
        |order: &Order| matches!(&order.state, OrderState::Done { run } if run.outcome == AgentOutcome::TimedOut);
    if fence.orders.iter().any(ran_out) {
        return;
    }
    let cause = fence.cause;
    let name = w.hosts[run.target].name.clone();
    match cause {
        // Who was refused for as long as its lease could last holds nothing any more, and did not come back for it.
        Cause::Verdict { .. } if stands_for(w, run.fence) > refused_for(w) => {}
        Cause::Verdict { .. } if w.is_heard_well(run.target, evidence_lasts(w, run)) => {
            w.facts.counts.false_failovers += 1;
            w.violate("S8", format!("{name} is to be switched off on an old verdict, and a majority hears it well"));
        }
        Cause::Lapse { .. } => {
            let (epochs, target) = (super::s8::holds(w, run.fence), run.target);
            // One of its services lapsed, and the fence is of the host: another's lease may run.
            let runs = |(s, epoch): &(usize, _)| super::s8::lease_runs(w, target, *s, *epoch);
            if !epochs.is_empty() && epochs.iter().all(runs) {
                w.facts.counts.false_failovers += 1;
                w.violate("S8", format!("{name} is to be switched off as lapsed, and every lease of its runs"));
            }
        }
        Cause::Verdict { .. } | Cause::Order => {}
    }
}

fn stands_for(w: &World, fence: FenceId) -> u64 {
    w.facts.power.judged.get(&fence).map_or(0, |at| w.now - at)
}

/// A lease time, with what the holder's clock may be slow.
fn refused_for(w: &World) -> u64 {
    w.log.state().settings.as_ref().map_or(Duration::MAX, |s| s.ttl).as_nanos() as u64
}

impl World {
    /// The agent that was started just now, for the device that will act for it.
    pub fn started(&self) -> Option<Started> {
        self.facts.power.last.clone()
    }

    /// The device acts, in time or after its agent's deadline.
    pub fn device_acts(&mut self, run: Option<&Started>, in_time: bool) {
        let Some(run) = run else { return };
        let (still, target) = (runs(self, run), run.target);
        let name = self.hosts[target].name.clone();
        if !still && in_time {
            let what = format!("a device switches {name} {:?}, and its order has ended", run.action);
            self.violate("S4", what);
        }
        let h = &self.hosts[target];
        if run.action != AgentAction::Off || !h.power {
            return;
        }
        let boots = h.boots;
        let cause = find(self, run.fence, run.order).map(|(fence, _)| fence.cause);
        if in_time {
            self.facts.power.cut.insert(target, (boots, self.now));
            match cause {
                Some(Cause::Order) => self.facts.power.by_order.insert(target),
                _ => self.facts.power.by_order.remove(&target),
            };
        }
        let why = match cause {
            _ if !in_time => "after the agent's deadline",
            Some(Cause::Verdict { .. }) if stands_for(self, run.fence) > refused_for(self) => {
                "refused for a lease time"
            }
            Some(Cause::Verdict { .. }) => "verdict",
            Some(Cause::Lapse { .. }) => "lapse",
            Some(Cause::Order) => "operator",
            None => "stale",
        };
        *self.facts.counts.cuts.entry(why).or_default() += 1;
    }

    /// Whether this host has no power because regent had it switched off.
    pub fn is_off_by_regent(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        let cut = self.facts.power.cut.get(&host).map(|(boots, _)| *boots);
        !h.power && !h.unplugged && cut == Some(h.boots)
    }

    /// That it has no power is for people to see and to mend from here on.
    pub fn leave_to_operators(&mut self, host: usize) {
        self.facts.power.cut.remove(&host);
    }

    /// Whether the last device that ended a boot of it did so for a fence that an operator ordered.
    pub fn is_off_by_order(&self, host: usize) -> bool {
        self.facts.power.by_order.contains(&host)
    }

    /// For how long it has been off for that reason.
    pub fn off_by_regent_for(&self, host: usize) -> u64 {
        let at = self.facts.power.cut.get(&host).filter(|_| self.is_off_by_regent(host));
        at.map_or(0, |(_, at)| self.now - at)
    }

    /// Whether it is off, or boots, because regent had it switched off.
    pub fn is_down_by_regent(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        let cut = self.facts.power.cut.get(&host).map(|(boots, _)| boots + 1);
        let boots_again = h.power && h.daemon.is_none() && cut == Some(h.boots);
        self.is_off_by_regent(host) || boots_again
    }
}
