//! What assistants leave behind (S4): each fence has rules of its own, and takes its own back. Once everything has come to
//! rest, no rule of a fence that is closed is in force on any host.
//!
//! In force is what was begun and was not undone since with success on that boot: an assistant may act before it fails.

use crate::cluster::World;
use regent::ledger::Fence;
use regent::node::{Effect, Event, RunKey};
use regent::types::{AgentAction, AgentName, AgentOutcome, FenceId};
use std::collections::BTreeSet;

/// Rules in force: host, fence, assistant.
pub type Rules = BTreeSet<(usize, FenceId, AgentName)>;

/// An assistant is started.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    if let Effect::RunAgent { key: RunKey::Assist { fence, agent, action: AgentAction::Off, .. }, .. } = effect {
        w.facts.rules.insert((host, *fence, agent.clone()));
    }
}

/// An assistant ended.
pub fn given(w: &mut World, host: usize, event: &Event) {
    if let Event::AgentEnded { key: RunKey::Assist { fence, agent, action: AgentAction::On, .. }, run } = event
        && run.outcome == AgentOutcome::Succeeded
    {
        w.facts.rules.remove(&(host, *fence, agent.clone()));
    }
}

/// Whether a rule of this fence is in force on this host.
pub fn stands(w: &World, host: usize, fence: FenceId) -> bool {
    w.facts.rules.iter().any(|(h, f, _)| (*h, *f) == (host, fence))
}

/// At the end, when everything has come to rest.
pub fn at_the_end(w: &mut World, rest: &[usize]) {
    let open = |fence: &FenceId| w.log.state().fences.get(fence).is_some_and(Fence::is_open);
    let left = w.facts.rules.iter().find(|(host, fence, _)| !rest.contains(host) && !open(fence)).cloned();
    if let Some((host, fence, agent)) = left {
        let what = format!("{agent} of fence {fence}, which is closed, is in force on {}", w.hosts[host].name);
        w.violate("rules", what);
    }
}
