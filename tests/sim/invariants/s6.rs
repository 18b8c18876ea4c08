//! S6: in a synchronous mode nothing acknowledged is lost, where N - k + 1 members gave sealed reports at the choice.
//!
//! regent has no synchronous mode yet, and no rule that waits for so many reports. The model has PostgreSQL's own rule
//! of acknowledgement (k standbys have flushed) with a group that never changes: every other database node. So what is
//! checked here is the choice: among enough reports the furthest is taken. A choice on fewer is counted, not condemned.

use crate::cluster::World;

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
