//! A node that left in order is not fenced for its silence, and nobody takes over from it who lacks something that it wrote,
//! unless a person said so.
//!
//! Not here: that the service comes back (`invariants/l1.rs`).

use crate::cluster::World;
use regent::ledger::{Life, State};
use regent::types::{NodeName, Seal, ServiceName};
use std::collections::BTreeMap;

/// Its daemon ends now. Whoever could not say its final word, because nobody was there to hear it, holds an epoch still.
pub fn left(w: &mut World, host: usize) {
    let name = w.hosts[host].name.clone();
    let state = w.log.state();
    let holds = state.services.values().any(|s| s.over.is_none() && s.holder.as_ref().is_some_and(|h| h.node == name));
    let joined = state.nodes.get(&name).filter(|n| n.life == Life::Up && n.boot == w.hosts[host].boot());
    w.facts.left[host] = joined.filter(|_| !holds).map(|n| n.incarnation);
}

/// A fence was opened, and no person asked for it.
pub fn fenced(w: &mut World, before: &State, target: &NodeName) {
    let host = w.host(target);
    let incarnation = before.nodes.get(target).map(|n| n.incarnation);
    if w.facts.left[host].is_some() && w.facts.left[host] == incarnation {
        w.violate("leave", format!("{target} is fenced, and left in order"));
    }
}

/// Somebody else is appointed after an epoch whose holder left in order.
pub fn appointed(
    w: &mut World,
    before: &State,
    service: &ServiceName,
    node: &NodeName,
    seals: &BTreeMap<NodeName, Seal>,
) {
    let Some(record) = before.services.get(service).filter(|s| s.over.as_ref().is_some_and(|over| over.is_leave()))
    else {
        return;
    };
    let back = record.holder.as_ref().is_some_and(|h| h.node == *node);
    let installed = record.history.last().is_some_and(|last| last.epoch == record.epoch);
    if back || !installed || record.accepted_loss.is_some() || record.accepts_copy_of(node) {
        return;
    }
    let end = record.over.as_ref().and_then(|over| over.position());
    let has = seals.get(node).map(|seal| seal.end);
    if end.is_none() || has < end {
        w.violate("leave", format!("{node} is appointed with {has:?}, and the one that left in order has {end:?}"));
    }
}
