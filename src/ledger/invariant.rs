//! What must be true of the ledger after every entry. A violation is a bug in `apply`, and aborts: the watchdog is
//! part of the design. Not a second implementation of the rules; the simulator's oracle is that.

use super::{FenceState, State};
use std::collections::BTreeSet;

/// The broken invariants, in words; empty when all hold.
pub fn violations(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, s) in &state.services {
        if s.epoch.0 == 0 || s.holder.is_none() {
            broken.push(format!("{name} exists without an epoch or a holder"));
        }
        if !s.history.is_sorted_by(|a, b| a.epoch < b.epoch) {
            broken.push(format!("epochs of {name} do not only grow (S4)"));
        }
        if s.begun.keys().next().is_some_and(|said| *said <= s.timeline) {
            broken.push(format!("a timeline of {name} is installed, and said to be unknown (S4)"));
        }
        if s.history.last().is_some_and(|last| last.epoch > s.epoch) {
            broken.push(format!("{name} remembers an epoch after its present one (S4)"));
        }
    }
    for f in state.fences.values() {
        if (f.state == FenceState::Confirmed) != f.confirmed.is_some() {
            broken.push(format!("fence {} is {} but its confirmation says otherwise", f.id, f.state));
        }
    }
    let incarnations: BTreeSet<_> = state.nodes.values().map(|n| n.incarnation).collect();
    if incarnations.len() != state.nodes.len() {
        broken.push("two nodes share an incarnation".to_owned());
    }
    if incarnations.last().is_some_and(|newest| *newest > state.last_incarnation) {
        broken.push("an incarnation was used that was never issued".to_owned());
    }
    broken
}
