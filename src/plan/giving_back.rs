//! What a fence took is given back: power and storage under the policy once nothing hangs on their absence, and all of it
//! when the fence is lifted.
//!
//! Not here: when a fence is lifted, and how its node is switched off (`fencing.rs`).

use super::fencing::{has_failed, is_replaced, pause, took, voter};
use super::note::Passing;
use super::{Input, Note, Plan};
use crate::ledger::{AgentSettings, Command, Fence, FenceState, NewOrder, Order, Phase, Service};
use crate::types::{AgentAction, AgentKind};

/// Once the service is back, the fenced node gets its power back where the policy says so. A node
/// that was making the database gets it as soon as it is off: nobody can be appointed in its place, because there is
/// nothing yet that another could have, so the service needs it to come back (or to say at its join that it gives up).
pub(super) fn power_on(input: &Input, fence: &Fence, plan: &mut Plan) {
    let all =
        |want: fn(&Service) -> bool| fence.epochs.keys().all(|s| input.state.services.get(s).is_some_and(|s| want(s)));
    let back = fence.used && all(|s| s.over.is_none() && s.phase == Phase::Installed);
    let creating = !fence.epochs.is_empty() && all(|s| s.over.is_none() && s.phase == Phase::Creating);
    if back || creating {
        give_back(input, fence, Given::Everything, plan);
    }
}

/// Nobody can be appointed: the fenced node has the data, and its power is given back as soon as the fence is known to hold.
/// It comes back with another boot, whose join says what became of the epoch; one that lives all the same does not notice.
/// Storage that was taken from a boot which may live is given back only once the service is.
pub(super) fn without_candidate(input: &Input, fence: &Fence, plan: &mut Plan) {
    if fence.state == FenceState::Confirmed {
        give_back(input, fence, Given::Power, plan);
    }
}

/// What is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Power,
    Everything,
}

pub(super) fn is_power_given_back(input: &Input) -> bool {
    input.state.settings.as_ref().is_some_and(|s| s.power_on == crate::config::PowerOn::Auto)
}

fn give_back(input: &Input, fence: &Fence, what: Given, plan: &mut Plan) {
    if is_power_given_back(input) && !is_replaced(input, fence) && !fence.has_running(AgentAction::Off) {
        order_on(input, fence, what, plan);
    }
}

/// `on` goes to every agent that may have switched something off; where it fails, again after a pause, by another voter,
/// until the node lives. Whether there is anything left to wait for.
fn order_on(input: &Input, fence: &Fence, what: Given, plan: &mut Plan) -> bool {
    let Some(settings) = &input.state.settings else { return false };
    let is_meant = |a: &AgentSettings| !a.everywhere && (what == Given::Everything || a.kind == AgentKind::Power);
    let agents: Vec<_> =
        fence.to_give_back().into_iter().filter(|a| settings.agents.get(*a).is_some_and(is_meant)).cloned().collect();
    if agents.is_empty() {
        return false;
    }
    let is_recent = |o: &&Order| o.action == AgentAction::On && o.number >= fence.without_power_at;
    let last = fence.orders.iter().filter(is_recent).rfind(|o| has_failed(o));
    if let Some(last) = last {
        // Heard, that is: a join may commit after its node was switched off.
        if input.is_living(&fence.target) && input.fresh(&fence.target).is_some() {
            plan.say(Note::LivesWithoutPower { target: fence.target.clone() });
            return false;
        }
        let ordered = input.applied.ordered.get(&(fence.id, last.number)).copied().unwrap_or(input.lead.since);
        let ended = ordered + took(last);
        let at = ended + pause(input, fence, fence.on_failed, took(last));
        if input.now < at && !input.monitored.is_good_since(&fence.target, ended) {
            plan.wake_at(at);
            let wait = Passing(at.since(input.now));
            plan.say(Note::PowerTriedAgain { target: fence.target.clone(), wait });
            return true;
        }
    }
    let Some(executor) = voter(input, fence, (fence.round + fence.on_failed) as usize) else { return true };
    plan.say(Note::GivesPowerBack { target: fence.target.clone() });
    let orders = agents
        .into_iter()
        .map(|agent| NewOrder { agent, action: AgentAction::On, executor: executor.clone() })
        .collect();
    plan.propose(Command::Order { fence: fence.id, term: input.lead.term, level: None, round: fence.round, orders });
    true
}

pub(super) fn lift(input: &Input, fence: &Fence, plan: &mut Plan) {
    if !fence.stays_off && !fence.has_running(AgentAction::Off) && order_on(input, fence, Given::Everything, plan) {
        return;
    }
    if fence.assisted.is_empty() && !fence.orders.iter().any(Order::is_running) {
        return plan.propose(Command::CloseFence { fence: fence.id });
    }
    if fence.assisted.is_empty() {
        return plan.say(Note::AwaitsLastOrder { fence: fence.id, target: fence.target.clone() });
    }
    let by = fence.assisted.keys().cloned().collect();
    plan.say(Note::AwaitsUndoing { fence: fence.id, target: fence.target.clone(), by });
}
