//! S5: when a lease ends by the holder's own clock, nothing that could commit is left.

use crate::cluster::{S, World};
use regent::types::Instant;

pub fn check(world: &mut World) {
    let service = world.service();
    for host in 0..world.hosts.len() {
        if !world.acknowledges(host) {
            continue;
        }
        let h = &world.hosts[host];
        let paused = |state: &regent::ledger::State| state.services.get(&service).is_some_and(|s| s.paused);
        // Whoever was frozen is stopped when it goes on, within the time that stopping may take.
        let just_thawed = h.thawed_at > 0 && world.now < h.thawed_at + 2 * S;
        // A lease may have ended during the pause: one lease time (8 s here) is left to renew it.
        let just_resumed = h.resumed_at.is_some_and(|at| world.now < at + 8 * S);
        if paused(&h.state) || just_thawed || just_resumed {
            continue;
        }
        let until = h.kept.get(&service).map_or(Instant(0), |(_, until)| *until);
        let now = h.local(world.now);
        if now > until {
            return world.violate("S5", format!("host {host} acknowledges at {now:?}, its lease ended at {until:?}"));
        }
    }
}
