//! A final word that could not be written is tried again (L1): while its epoch is not over, its database is closed and its
//! daemon lives, no failure is the last try.

use crate::cluster::{S, World};
use crate::database::{Database, Process};
use crate::host::Host;
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
    // It counts from the moment at which the daemon can say it: its database is closed, nothing is done with it, and that is
    // to be seen. Before it has joined it says all of its words at once, so that holds of each database; and it cannot join,
    // and has nothing to say, while another machine is taken for it. Nor has it between its join and the moment at which
    // its own copy of the ledger has that: what it claimed to go on with may be its again.
    let now = w.now;
    let copies: Vec<bool> = (0..w.hosts.len()).map(|host| w.is_a_copy_present(host)).collect();
    let settled = |db: &Database| db.process == Process::None && !db.is_busy() && now > db.ails.unclear.1;
    for ((host, _, s), (_, since)) in &mut w.facts.unsaid {
        let h = &w.hosts[*host];
        let waits = if h.is_sending() { &h.databases[*s..=*s] } else { &h.databases[..] };
        if copies[*host] || joins_in_the_dark(h) || !waits.iter().all(settled) {
            *since = now;
        }
    }
    let state = w.log.state();
    let forgotten = w.facts.unsaid.iter().find(|((host, life, s), (epoch, since))| {
        let h = &w.hosts[*host];
        let lives = h.life == *life && w.is_alive(*host) && w.now > h.thawed_at.max(*since) + PATIENCE;
        let hangs = state.services.get(&w.services[*s]).is_some_and(|s| s.epoch == *epoch && s.over.is_none());
        lives && hangs
    });
    if let Some(((host, ..), (epoch, _))) = forgotten {
        let what =
            format!("{} could not write its final word for epoch {epoch}, and does not try again", w.hosts[*host].name);
        w.violate("L1", what);
    }
}

/// It knows that it has joined, and its copy of the ledger does not show it yet.
fn joins_in_the_dark(h: &Host) -> bool {
    let own = h.daemon.as_ref().and_then(|d| d.incarnation());
    let shown = h.state.nodes.get(&h.name).map(|node| node.incarnation);
    own.is_some() && shown < own
}
