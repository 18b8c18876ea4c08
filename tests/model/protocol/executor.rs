//! Orders to devices, with an end: who proposes them, what their executor needs before an agent starts, and who ends
//! them.
//!
//! Not here: what a fence is for; see `verdict`. An executor knows the ledger as far as it has applied it, which may be
//! any moment of the past. So its own copy starts nothing: it asks, or proposed the order itself.

use super::{Protocol, verdict};
use crate::state::{Agent, Deed, Fence, NODES, ORDER, Order, Stage, State};
use crate::step::{Bug, Step};

type Next = Vec<(Step, State)>;

pub fn steps(p: &Protocol, s: &State, into: &mut Next) {
    if !p.scope.executors {
        return;
    }
    for node in NODES {
        apply(p, s, node, into);
        ask(p, s, node, into);
        start(p, s, node, into);
        act(p, s, node, into);
        fail(p, s, node, into);
    }
    let Some(leader) = s.leader() else { return };
    for node in NODES {
        warrant(p, s, leader, node, into);
        report(p, s, leader, node, into);
        not_begun(p, s, leader, node, into);
    }
    expire(p, s, into);
    again(p, s, leader, into);
    on(p, s, leader, into);
}

/// Proposed and committed: one order at a time, so that an `off` waits out an `on`, and reversely. The leader that is
/// its own executor counts from its proposal and asks nobody.
pub fn order(p: &Protocol, s: &State, leader: usize, executor: usize, deed: Deed, about: u8) -> Option<State> {
    let (l, n) = (&s.ledger, &s.nodes[executor]);
    let is_living = n.joined && !l.dead[executor] && (executor != leader || n.agent == Agent::None);
    if l.running || l.ordered >= p.scope.orders || !is_living {
        return None;
    }
    let mut t = *s;
    let new = Order { deed, about, executor: executor as u8, orphaned: false, term: l.term };
    t.ledger.orders[l.ordered as usize] = new;
    (t.ledger.ordered, t.ledger.running, t.ledger.order_age) = (l.ordered + 1, true, 0);
    if executor == leader {
        let own = &mut t.nodes[executor];
        (own.agent, own.agent_order, own.agent_left) = (Agent::Warranted, l.ordered + 1, ORDER);
    }
    Some(t)
}

/// A fence whose last order ended without a success is ordered anew.
fn again(p: &Protocol, s: &State, leader: usize, into: &mut Next) {
    let (l, node) = (&s.ledger, s.holder());
    let Some(id) = s.fence_of(node).filter(|id| l.fences[*id].stage == Stage::Ordered) else { return };
    if !p.scope.power || l.pause == 1 {
        return;
    }
    for by in NODES.into_iter().filter(|by| *by != node) {
        if let Some(t) = order(p, s, leader, by, Deed::Off, id as u8) {
            p.push(into, Step::OrderAgain { fence: id, by }, t);
        }
    }
}

/// Whether nothing stands against giving a node its power back: no fence of it is open, or the one that is was confirmed.
fn may_have_power(s: &State, node: usize) -> bool {
    s.fence_of(node).is_none_or(|id| s.ledger.fences[id].stage != Stage::Ordered)
}

/// A node that was fenced gets its power back once its epoch is another's, and before that where nobody else can take over,
/// which may be so at any moment once the fence is confirmed.
fn on(p: &Protocol, s: &State, leader: usize, into: &mut Next) {
    let is_due = |node: &usize| s.fence_of(*node).is_some() || s.holder() != *node;
    for node in NODES.into_iter().filter(|node| p.scope.on && s.ledger.dead[*node] && is_due(node)) {
        for by in NODES.into_iter().filter(|by| *by != node && may_have_power(s, node)) {
            if let Some(t) = order(p, s, leader, by, Deed::On, node as u8) {
                p.push(into, Step::OrderOn { node, by }, t);
            }
        }
    }
}

/// The executor's copy learns of the next beginning or end of an order, as late as it likes.
fn apply(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.up && n.applied < s.order_steps() {
        let mut t = *s;
        t.nodes[node].applied += 1;
        // An order that it sees end is none of its business any more, unless its agent runs.
        let ended = n.applied % 2 == 1 && n.agent_order == n.applied.div_ceil(2);
        if ended && matches!(n.agent, Agent::Asked | Agent::Warranted) {
            t.nodes[node].agent = Agent::None;
        }
        p.push(into, Step::Apply { node }, t);
    }
}

/// The order that this node's own copy tells it to execute.
fn own_order(s: &State, node: usize) -> Option<(u8, &Order)> {
    let n = &s.nodes[node];
    s.running_by_the_copy_of(node).filter(|(_, o)| n.up && n.joined && o.executor as usize == node && !o.orphaned)
}

fn ask(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let Some((number, _)) = own_order(s, node) else { return };
    if s.nodes[node].agent == Agent::None {
        let mut t = *s;
        let asks = &mut t.nodes[node];
        (asks.agent, asks.agent_order, asks.agent_left) = (Agent::Asked, number, ORDER);
        p.push(into, Step::AskWarrant { node }, t);
    }
}

/// A leader that a quorum answers says of an order of its own, of this very term, that it still runs, and how old it is.
/// What is left is counted from before the question.
fn warrant(p: &Protocol, s: &State, by: usize, to: usize, into: &mut Next) {
    let n = &s.nodes[to];
    let Some((_, order)) = s.running().filter(|(number, _)| *number == n.agent_order) else { return };
    let is_own = order.term == s.ledger.term;
    let wanted = match order.deed {
        Deed::Off => s.ledger.fences[order.about as usize].stage == Stage::Ordered,
        Deed::On => may_have_power(s, order.about as usize),
        Deed::Nothing => false,
    };
    let trusted = is_own || p.scope.has(Bug::InheritedOrderStarted);
    if n.agent != Agent::Asked || !s.reaches(by, to) || !wanted || !trusted {
        return;
    }
    let mut t = *s;
    let counted = if p.scope.has(Bug::AgeFromTheAnswer) { ORDER } else { n.agent_left };
    // A leader that inherited the order would count from its own apply.
    let age = if is_own { s.ledger.order_age } else { 0 };
    (t.nodes[to].agent, t.nodes[to].agent_left) = (Agent::Warranted, counted.saturating_sub(age));
    if t.nodes[to].agent_left == 0 {
        t.nodes[to].agent = Agent::None;
    }
    p.push(into, Step::Warrant { by, to }, t);
}

/// The agent starts: the own copy agrees, and the executor knows no later term than the warrant's.
fn start(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let Some((number, order)) = own_order(s, node) else { return };
    let n = &s.nodes[node];
    let in_term = n.term == order.term || p.scope.has(Bug::InheritedOrderStarted);
    let warranted = n.agent == Agent::Warranted && n.agent_order == number && in_term;
    let unasked = match order.deed {
        Deed::Off => p.scope.has(Bug::OrderActsOnApply),
        Deed::On => p.scope.has(Bug::OnWithoutWarrant),
        Deed::Nothing => false,
    };
    let left = if unasked { ORDER } else { n.agent_left };
    if warranted || unasked && n.agent == Agent::None {
        let mut t = *s;
        let starts = &mut t.nodes[node];
        (starts.agent, starts.agent_order, starts.agent_left) = (Agent::Running, number, left);
        p.push(into, Step::StartAgent { node }, t);
    }
}

/// The device does what the agent tells it, on the host and not on a boot; or it does nothing and lies.
fn act(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.agent != Agent::Running {
        return;
    }
    let order = s.ledger.orders[n.agent_order as usize - 1];
    let target = s.target(&order);
    let mut t = *s;
    t.broken.order |= s.running().is_none_or(|(number, _)| number != n.agent_order);
    // Without its daemon nobody hears how the agent ended.
    t.nodes[node].agent = if n.up { Agent::Succeeded } else { Agent::None };
    if order.deed == Deed::Off {
        let fence = s.ledger.fences[order.about as usize];
        if p.scope.lie && !s.lied && s.nodes[target].on && n.up {
            let mut t = t;
            (t.lied, t.broken) = (true, s.broken);
            p.push(into, Step::Lie { fence: order.about as usize, node: target }, t);
        }
        t.broken.s8 |= verdict::shoots_somebody_heard(s, &fence);
        t.nodes[target].on = false;
        p.push(into, Step::Off { fence: order.about as usize, node: target }, t);
    } else if s.nodes[target].on || s.nodes[target].boot < 3 {
        if !s.nodes[target].on {
            (t.nodes[target].on, t.nodes[target].boot) = (true, s.nodes[target].boot + 1);
        }
        p.push(into, Step::On { node: target }, t);
    }
}

fn fail(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    if s.nodes[node].agent == Agent::Running && s.nodes[node].up {
        let mut t = *s;
        t.nodes[node].agent = Agent::Failed;
        p.push(into, Step::Fail { node }, t);
    }
}

/// How the agent ended reaches the ledger; for an order that has ended before, it changes nothing.
fn report(p: &Protocol, s: &State, leader: usize, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if !matches!(n.agent, Agent::Succeeded | Agent::Failed) || !n.up || !s.reaches(leader, node) {
        return;
    }
    let mut t = *s;
    t.nodes[node].agent = Agent::None;
    if let Some((_, order)) = s.running().filter(|(number, o)| *number == n.agent_order && !o.orphaned) {
        t.end_order();
        let fence: &mut Fence = &mut t.ledger.fences[order.about as usize];
        let off = order.deed == Deed::Off && n.agent == Agent::Succeeded;
        if off && fence.stage == Stage::Ordered && fence.boot == s.ledger.boot[fence.target as usize] {
            fence.stage = Stage::ByPower;
            t.ledger.checks = 0;
        }
    }
    p.push(into, Step::Report { node }, t);
}

/// An order of an earlier leader is never started: its executor says so, and never starts it.
fn not_begun(p: &Protocol, s: &State, leader: usize, node: usize, into: &mut Next) {
    let Some((number, order)) = own_order(s, node) else { return };
    let is_idle = matches!(s.nodes[node].agent, Agent::None | Agent::Asked | Agent::Warranted);
    let runs = s.running().is_some_and(|(running, _)| running == number);
    if is_idle && runs && order.term < s.ledger.term && s.reaches(leader, node) {
        let mut t = *s;
        t.nodes[node].agent = Agent::None;
        t.end_order();
        // Whoever says so knows of its own word.
        t.nodes[node].applied += 1;
        p.push(into, Step::NotBegun { node }, t);
    }
}

/// Nobody but the executor ends an order before its agent has surely ended.
fn expire(p: &Protocol, s: &State, into: &mut Next) {
    let after = if p.scope.has(Bug::OrderEndedEarly) { ORDER - 1 } else { ORDER };
    if s.ledger.running && s.ledger.order_age >= after {
        let mut t = *s;
        t.end_order();
        p.push(into, Step::Expire, t);
    }
}

/// One tick for questions, warrants and agents. The runner ends an agent at its time, whether or not its daemon runs.
pub fn tick(p: &Protocol, t: &mut State) {
    if t.ledger.running {
        t.ledger.order_age = (t.ledger.order_age + 1).min(ORDER);
    }
    for n in &mut t.nodes {
        let waits = n.agent == Agent::Warranted && p.scope.has(Bug::AgeFromTheAnswer);
        if !waits {
            n.agent_left = n.agent_left.saturating_sub(1);
        }
        if n.agent_left == 0 {
            n.agent = match n.agent {
                Agent::None | Agent::Asked | Agent::Warranted => Agent::None,
                Agent::Running if !n.up => Agent::None,
                Agent::Running | Agent::Failed => Agent::Failed,
                Agent::Succeeded => Agent::Succeeded,
            };
        }
    }
}
