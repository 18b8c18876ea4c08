//! A final word that could not be written is tried again (L1): while its epoch is not over, its database is closed and its
//! daemon lives, no failure is the last try.

use crate::cluster::{S, World};
use crate::database::{Database, Process};
use regent::node::{Effect, Event};
use regent::types::Epoch;
use std::collections::BTreeMap;

/// Words that could not be written and were not tried again yet: by host, daemon and service, of which epoch, since when.
pub type Unsaid = BTreeMap<(usize, u64, usize), (Epoch, u64)>;

/// The longest pause before the next try.
const PATIENCE: u64 = 5 * S;

/// A daemon is told that it failed.
pub fn given(w: &mut World, host: usize, event: &Event) {
    if let Event::Tombstoned { service, epoch, result: Err(_) } = event {
        let key = (host, w.hosts[host].life, w.index(service));
        w.facts.unsaid.insert(key, (*epoch, w.now));
    }
}

/// A daemon tries again, or does something else with that database.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    if let Effect::Tombstone { service, .. } | Effect::Db { service, .. } = effect {
        let key = (host, w.hosts[host].life, w.index(service));
        w.facts.unsaid.remove(&key);
    }
}

/// After every event.
pub fn check(w: &mut World) {
    if w.facts.unsaid.is_empty() {
        return;
    }
    let state = w.log.state();
    let forgotten = w.facts.unsaid.iter().find(|((host, life, s), (epoch, since))| {
        let h = &w.hosts[*host];
        let lives = h.life == *life && w.is_alive(*host) && w.now > h.thawed_at.max(*since) + PATIENCE;
        // Before it has joined it says all of its words at once, so each database must be closed, and be seen to be.
        let settled = |db: &Database| db.process == Process::None && w.now > db.ails.unclear.1.max(*since) + PATIENCE;
        let free = h.is_sending() || h.databases.iter().all(settled);
        let hangs = state.services.get(&w.services[*s]).is_some_and(|s| s.epoch == *epoch && s.over.is_none());
        lives && free && hangs && h.databases.get(*s).is_some_and(|db| db.process == Process::None)
    });
    if let Some(((host, ..), (epoch, _))) = forgotten {
        let what =
            format!("{} could not write its final word for epoch {epoch}, and does not try again", w.hosts[*host].name);
        w.violate("L1", what);
    }
}
