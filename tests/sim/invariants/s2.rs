//! S2: when an appointment commits, nobody can write under the epoch before any more, now or later; nor under one whose
//! appointee is passed over. And no join of another boot ends the epoch of one that can still write.

use crate::cluster::World;
use regent::ledger::{Claim, ClaimState, State};
use regent::types::{Boot, NodeName, ServiceName};
use std::collections::BTreeMap;

/// `what` commits, on the ledger `before`.
pub fn epoch_over(w: &mut World, before: &State, service: &ServiceName, what: &str) {
    let s = w.index(service);
    let epoch = before.services.get(service).map(|s| s.epoch);
    for host in 0..w.hosts.len() {
        // Not only the holder of the record: whoever has a postmaster that could.
        if w.could_acknowledge_later(host, s) && !w.is_excused(host, s) {
            let what = format!("{what} after epoch {epoch:?} while {} could still write", w.hosts[host].name);
            return w.violate("S2", what);
        }
    }
}

/// A daemon joined, and said what became of the epochs that its node held.
pub fn joined(w: &mut World, before: &State, node: &NodeName, boot: &Boot, claims: &BTreeMap<ServiceName, Claim>) {
    let host = w.host(node);
    for (service, claim) in claims.iter().filter(|(_, claim)| matches!(claim.state, ClaimState::Over { .. })) {
        let Some(record) = before.services.get(service).filter(|r| r.epoch == claim.epoch && r.over.is_none()) else {
            continue;
        };
        let held = record.holder.as_ref().is_some_and(|holder| &holder.node == node && &holder.boot != boot);
        let s = w.index(service);
        let lives = w.hosts[host].boot() != *boot && w.could_acknowledge_later(host, s);
        if held && lives && w.hosts[host].databases[s].epoch == claim.epoch && !w.is_excused(host, s) {
            let what =
                format!("boot {boot} joins as {node} and ends epoch {}, under which it could write", claim.epoch);
            return w.violate("S2/clone", what);
        }
    }
}
