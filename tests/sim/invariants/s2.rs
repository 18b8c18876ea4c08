//! S2: when an appointment commits, nobody can write under the epoch before any more, now or later; nor under one whose
//! appointee is passed over. And no join of another boot ends the epoch of one that can still write.

use crate::cluster::World;
use regent::ledger::{Over, State};
use regent::types::ServiceName;

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

/// A later boot said that an epoch of its node is over, at its join or some time before: no boot of it could write under
/// that epoch when that was believed.
pub fn believed(w: &mut World, before: &State, after: &State) {
    for (service, record) in before.services.iter().filter(|(_, r)| r.over.is_none()) {
        let ended = after.services.get(service).filter(|r| r.epoch == record.epoch);
        let ended = ended.is_some_and(|r| matches!(r.over, Some(Over::Released { at_join: true, .. })));
        let Some(holder) = record.holder.as_ref().filter(|_| ended) else { continue };
        let (host, s) = (w.host(&holder.node), w.index(service));
        let writes = w.could_acknowledge_later(host, s) && w.hosts[host].databases[s].epoch == record.epoch;
        if writes && !w.is_excused(host, s) {
            let what = format!(
                "a join ends epoch {} of {service}, under which {} could still write",
                record.epoch, holder.node
            );
            return w.violate("S2", what);
        }
    }
}

/// An appointee is passed over: it has no lease of that epoch by then, not even one under which it has not opened yet.
pub fn passed_over(w: &mut World, before: &State, service: &ServiceName) {
    epoch_over(w, before, service, "its appointee is passed over");
    let (s, now) = (w.index(service), w.now);
    let Some(record) = before.services.get(service) else { return };
    let Some(host) = record.holder.as_ref().map(|h| w.host(&h.node)) else { return };
    if w.facts.leases.until_elsewhere(host, s, record.epoch).is_some_and(|until| until > now) {
        w.violate("S2", format!("{} is passed over with a lease of epoch {}", w.hosts[host].name, record.epoch));
    }
}
