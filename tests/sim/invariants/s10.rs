//! S10: whoever stood still itself accuses nobody and judges nobody until it has watched again for the acceptable pause
//! and three intervals.

use crate::cluster::{MS, World};
use regent::ledger::Command;
use regent::node::{Effect, PeerResponse};
use regent::types::Sight;

/// Whether this host went on a moment ago after more than it may overlook.
fn just_stood_still(w: &World, host: usize) -> bool {
    let (h, times) = (&w.hosts[host], &w.facts.times);
    // Half a pause is what a loop may be late; the freeze may have begun just after a heartbeat.
    let long = h.frozen_for > times.pause / 2 + times.interval * 11 / 10 + 10 * MS;
    // The same daemon: a new one has watched nobody yet, and sees nobody. By the host's own clock.
    let same = h.thawed_at > 0 && h.started_at < h.thawed_at;
    long && same
        && h.local(w.now) < h.local(h.thawed_at) + std::time::Duration::from_nanos(times.pause + 3 * times.interval)
}

pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    let Effect::Reply { response: PeerResponse::Sighting(said), .. } = effect else { return };
    if said.view.channels.values().any(|s| *s == Sight::Lost) && just_stood_still(w, host) {
        w.violate("S10", format!("{} accuses somebody just after it stood still", w.hosts[host].name));
    }
}

pub fn proposed(w: &mut World, leader: usize, command: &Command) {
    if matches!(command, Command::DeclareDead { .. }) && just_stood_still(w, leader) {
        w.violate("S10", format!("{} judges just after it stood still", w.hosts[leader].name));
    }
}
