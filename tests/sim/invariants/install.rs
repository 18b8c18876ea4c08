//! Who has taken over is not stopped for having been late (L1): a database that takes writes in the present epoch, under a
//! lease that runs, is left alone by its own daemon. A planned move stops it, and so do an answer that stays away and a
//! fence, which ends its incarnation.

use crate::cluster::World;
use crate::database::Process;
use regent::ledger::Phase;
use regent::node::Effect;
use regent::types::DbAction;

/// A daemon stops its database.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    let Effect::Db { service, action: DbAction::Stop { .. } } = effect else { return };
    let s = w.index(service);
    let (h, Some(record)) = (&w.hosts[host], w.log.state().services.get(service)) else { return };
    let Some(db) = h.databases.get(s) else { return };
    // A later boot may have taken its name, and calls the epoch over.
    let holds = record.over.is_none() && record.claimed.is_none() && record.moving.is_none() && !record.paused;
    let holds = holds && w.log.state().fence_of(record).is_none();
    let holds = holds && record.holder.as_ref().is_some_and(|holder| holder.node == h.name && holder.boot == h.boot());
    // Its copy of the ledger may not know yet that the epoch is its own, or that it is no more.
    let knows =
        h.state.services.get(service).is_some_and(|own| own.epoch == record.epoch && own.holder == record.holder);
    let writes = db.process == Process::Primary && db.epoch == record.epoch && w.acknowledges(host, s);
    let ladder = h.config.lease.stop_immediate + h.config.lease.stop_kill;
    let lease = w.facts.leases.until(host, s, record.epoch).is_some_and(|until| h.local(w.now) + ladder * 2 < until);
    // A daemon that has just started knows of it what was kept, and only that.
    let kept = h
        .kept
        .get(service)
        .is_some_and(|(epoch, until)| *epoch == record.epoch && h.local(w.now) + ladder * 2 < *until);
    if holds && knows && writes && lease && kept && record.phase != Phase::Installed {
        let what = format!("{} is stopped by its own daemon, and takes writes in epoch {}", h.name, record.epoch);
        w.violate("L1/deadline", what);
    }
}
