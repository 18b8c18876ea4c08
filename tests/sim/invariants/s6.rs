//! S6: in a synchronous mode nothing acknowledged is lost, where N - k + 1 members gave sealed reports at the choice.
//!
//! regent has no synchronous mode yet, and no rule that waits for so many reports. The model has PostgreSQL's own rule
//! of acknowledgement (k standbys have flushed) with a group that never changes: every other database node. So what is
//! checked here is the choice: among enough reports the furthest is taken. A choice on fewer is counted, not condemned.

use crate::cluster::World;
use regent::ledger::{Fence, FenceState, Life, OrderState, State};
use regent::types::{AgentAction, Failing, NodeName, Seal};
use std::collections::{BTreeMap, BTreeSet};

/// How many sealed reports the choice had of nodes that could be chosen: whoever is declared dead, is being fenced, or may
/// still be switched off by an order, cannot be, however far it got; nor can one that cannot be ended in time, because its
/// watchdog or its guard cannot be told, and that asks for no lease. Nor does it help that somebody reported who was
/// appointed since the last primary and did not take over: it comes after the others (L1).
pub fn reports(w: &World, before: &State, seals: &BTreeMap<NodeName, Seal>, tried: &BTreeSet<NodeName>) -> usize {
    let bars = |failing: &Failing| !matches!(failing, Failing::FinalWord);
    let unguarded = |node: &NodeName| {
        let daemon = w.hosts[w.host(node)].daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.failing().keys().any(bars))
    };
    let may_act = |f: &Fence| {
        let off = f.orders.iter().any(|o| o.action == AgentAction::Off && o.state == OrderState::Running);
        off || matches!(f.state, FenceState::Open | FenceState::Confirmed)
    };
    let fenced = |node: &NodeName| before.fences.values().any(|f| &f.target == node && may_act(f));
    let dead = |node: &NodeName| before.nodes.get(node).is_some_and(|record| record.life == Life::Dead);
    seals.keys().filter(|node| !dead(node) && !fenced(node) && !unguarded(node) && !tried.contains(node)).count()
}

/// Acknowledged commits are not on the new primary.
pub fn lost(w: &mut World, service: usize, what: &str) {
    let members = w.hosts.iter().filter(|h| h.databases.len() > service).count() - 1;
    let needed = members + 1 - w.sync;
    if w.facts.services[service].reports >= needed {
        w.violate("S6", format!("{what}, although {needed} of {members} members had reported"));
    } else {
        w.facts.counts.unprotected += 1;
    }
}
