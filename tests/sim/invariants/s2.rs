//! S2: when an appointment commits, nobody can write under the epoch before any more, now or later.

use crate::cluster::World;
use regent::ledger::State;
use regent::types::ServiceName;

pub fn appointment(w: &mut World, before: &State, service: &ServiceName) {
    let s = w.index(service);
    let epoch = before.services.get(service).map(|s| s.epoch);
    for host in 0..w.hosts.len() {
        // Not only the holder of the record: whoever has a postmaster that could.
        if w.could_acknowledge_later(host, s) && !w.is_excused(host, s) {
            let what = format!("an appointment after epoch {epoch:?} while {} could still write", w.hosts[host].name);
            return w.violate("S2", what);
        }
    }
}
