//! The one step that makes a new primary, and what it must find in the ledger before.
//!
//! Not here: how the ledger came to hold it.

use super::Protocol;
use super::verdict::hears_life;
use crate::state::{Deed, NODES, NoLease, Round, Stage, State, Via};
use crate::step::{Bug, Step};

pub fn steps(p: &Protocol, s: &State, into: &mut Vec<(Step, State)>) {
    let l = &s.ledger;
    let Some(leader) = s.leader() else { return };
    pass_over(p, s, leader, into);
    if l.epoch >= p.scope.epochs || l.pause == 1 {
        return;
    }
    let Some(via) = over(p, s) else { return };
    for to in NODES.into_iter().filter(|to| eligible(s, *to)) {
        let mut t = *s;
        let epoch = l.epoch + 1;
        if let Some(fence) = s.fence_of(s.holder()) {
            // After a wait for the lease the node may live on and be heard later; after its power was cut it may not.
            let heard = |voter| hears_life(s, voter, fence) && (!p.scope.lie || s.heard_steadily(voter, s.holder()));
            t.broken.s9 |= via == Via::Power && NODES.into_iter().any(heard);
            t.ledger.fences[fence].stage = Stage::Closed;
        }
        t.ledger.epoch = epoch;
        t.ledger.holder[epoch as usize] = to as u8;
        t.ledger.via[epoch as usize - 2] = via;
        (t.ledger.released, t.ledger.checks, t.ledger.verdict_age) = (false, 0, 0);
        t.ledger.round = Round::default();
        t.ledger.barred = false;
        t.ledger.passes = NoLease::Unsaid;
        (t.ledger.denied, t.ledger.own, t.ledger.granted) = (false, p.scope.passes, false);
        // Whoever has applied its appointment has applied everything before it.
        t.nodes[to].pause = l.pause;
        p.push(into, Step::Appoint { node: to, epoch }, t);
    }
}

/// The holder is denied its lease. Whoever knows by then that it has none ends the epoch: the leader that appointed it and
/// has granted none, or one that has waited for longer than any lease lasts, where that proves anything.
fn pass_over(p: &Protocol, s: &State, leader: usize, into: &mut Vec<(Step, State)>) {
    let l = &s.ledger;
    if !p.scope.passes || l.released || l.pause == 1 || s.fence_of(s.holder()).is_some() {
        return;
    }
    if !l.denied {
        let mut t = *s;
        t.ledger.denied = true;
        return p.push(into, Step::Deny, t);
    }
    let never = l.own && (!l.granted || p.scope.has(Bug::PassedOverAfterGrant));
    let waited = p.scope.lease && s.nodes[leader].book == 0;
    for (why, may) in [(NoLease::Never, never), (NoLease::Waited, waited)] {
        if may && l.passes != why {
            let mut t = *s;
            t.ledger.passes = why;
            p.push(into, Step::Passes { why }, t);
        }
    }
    let proves = l.passes == NoLease::Never || l.passes == NoLease::Waited && !l.barred;
    if proves {
        let mut t = *s;
        (t.ledger.released, t.ledger.passes) = (true, NoLease::Unsaid);
        p.push(into, Step::PassOver, t);
    }
}

/// Why the present epoch is over: its holder said so, or its boot is fenced and both other voters found that it holds.
fn over(p: &Protocol, s: &State) -> Option<Via> {
    if s.ledger.released {
        return Some(if s.ledger.denied { Via::PassedOver } else { Via::Release });
    }
    let fence = s.fence_of(s.holder())?;
    let others = !(1 << s.holder()) & 0b111;
    let checked = s.ledger.checks == others;
    match s.ledger.fences[fence].stage {
        Stage::ByPower if checked && is_unheard(s, fence) => Some(Via::Unheard),
        Stage::ByPower if checked => Some(Via::Power),
        Stage::ByLease if checked => Some(Via::Lease),
        Stage::Ordered if p.scope.has(Bug::PromoteBeforeFence) => Some(Via::Nothing),
        _ => None,
    }
}

/// The device lied, and at this moment nobody can tell: no voter has heard the node for a whole tick. This is what the
/// check cannot find. It excuses what the node does under the epoch that ends here, and nothing else.
fn is_unheard(s: &State, fence: usize) -> bool {
    let order = s.ledger.fences[fence];
    let node = order.target as usize;
    let runs = s.lied && s.nodes[node].on && s.nodes[node].boot == order.boot;
    runs && !NODES.into_iter().any(|voter| s.heard_steadily(voter, node))
}

/// A living node that has reported, against which no fence stands and no `off` may be under way.
fn eligible(s: &State, to: usize) -> bool {
    let by_device = s.ledger.fences.iter().any(|fence| fence.off && fence.target as usize == to);
    let by_order = s.running().is_some_and(|(_, order)| order.deed == Deed::Off && s.target(order) == to);
    let off = by_device || by_order;
    s.nodes[to].joined && !s.ledger.dead[to] && s.fence_of(to).is_none() && !off
}
