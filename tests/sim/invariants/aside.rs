//! Nobody takes over who stands aside by a person's word: a node in maintenance, or one of which the file says that it
//! never leads, unless it goes on where it held the epoch itself.
//!
//! Not here: that a service without anybody else waits for a person (`invariants/l1.rs`).

use crate::cluster::World;
use regent::ledger::State;
use regent::types::{NodeName, ServiceName};

/// An appointment, or the making of the database.
pub fn appointed(w: &mut World, before: &State, service: &ServiceName, node: &NodeName) {
    if before.maintenance.contains_key(node) {
        w.violate("aside", format!("{node} is appointed, and is in maintenance"));
    }
    let leads = w.hosts[0].config.services[service].members.get(node).is_none_or(|member| member.may_lead);
    let held = before.services.get(service).and_then(|s| s.holder.as_ref()).is_some_and(|h| h.node == *node);
    if !leads && !held {
        w.violate("aside", format!("{node} is appointed, and never leads"));
    }
}
