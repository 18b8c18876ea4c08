//! Stories of two boots under one name: an image of the primary's disk, or a second start of its guest, beside the primary.

use super::{Listed, Told, end, primary, three};
use crate::clones::Hardware;
use crate::cluster::{MS, S, Tell, World};
use regent::types::{Alarm, Boot};

/// Every story here.
pub const STORIES: &[Listed] = &[
    ("an_image_of_the_primary_is_started_beside_it", image_asks, 3),
    ("a_second_start_of_the_primary_reaches_the_log", guest_joins, 3),
    ("an_image_of_a_primary_that_stands_still_joins", image_of_frozen_joins, 3),
];

/// The leader's word that two machines use one name, as every other node has it from its heartbeats.
fn are_told(w: &World, leader: usize) -> bool {
    let name = &w.hosts[leader].name;
    let mut others = w.hosts.iter().enumerate().filter(|(host, _)| *host != leader);
    others.all(|(_, host)| {
        let row = host.daemon.as_ref().and_then(|d| d.rows().get(name));
        row.is_some_and(|row| row.health.alarms.iter().any(|alarm| matches!(alarm, Alarm::TwoMachines { .. })))
    })
}

/// Last night's image of the primary boots on another machine, finds its database stopped, and asks to join, again and
/// again. The primary is heard, and goes on.
fn image_asks(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (epoch, boot) = (w.log.state().services[&w.services[0]].epoch, Boot("the image".into()));
    let hardware = [Hardware::Other, Hardware::Unknown, Hardware::SameGuest][seed as usize % 3];
    for _ in 0..50 {
        let join = w.join_of_copy(old, &boot, hardware);
        w.knock(join);
        w.run_until(w.now + 100 * MS);
    }
    let (leader, _) = w.log.leader.ok_or("no leader")?;
    let told = are_told(&w, leader);
    w.run_until(w.now + 20 * S);
    let same = w.log.state().services[&w.services[0]].epoch == epoch && w.primary() == Some(old);
    let joined = w.log.state().nodes[&w.hosts[old].name].boot == boot;
    let what = format!("told {told}, the same primary {same}, joined {joined}");
    end(w, told && same && !joined, &what.clone(), what)
}

/// A guest is started twice, and the leader has heard nothing of the first: the join is committed. The epoch does not end
/// before the first can write no more, and the service comes back.
fn guest_joins(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (epoch, boot) = (w.log.state().services[&w.services[0]].epoch, Boot("the second start".into()));
    let hardware = [Hardware::Unknown, Hardware::SameGuest][seed as usize % 2];
    let join = w.join_of_copy(old, &boot, hardware);
    w.order(join);
    w.run_until(w.now + S);
    let waits = w.log.state().services[&w.services[0]].over.is_none();
    let moved = w.run_while(w.now + 60 * S, |w| {
        let service = &w.log.state().services[&w.services[0]];
        service.epoch > epoch && w.is_served(S)
    });
    let what = format!("waits {waits}, is served again {moved}");
    end(w, waits && moved, &what.clone(), what)
}

/// The primary stands still for longer than its lease, with no watchdog to reset it. An image of it joins, which says that
/// the epoch is over; when the primary goes on, its database is still open for a moment. It is fenced before anybody follows.
fn image_of_frozen_joins(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (epoch, boot) = (w.log.state().services[&w.services[0]].epoch, Boot("the image".into()));
    w.freeze(old, 40 * S, false);
    let join = w.join_of_copy(old, &boot, Hardware::Unknown);
    w.order(join);
    let moved = w.run_while(w.now + 60 * S, |w| {
        let service = &w.log.state().services[&w.services[0]];
        service.epoch > epoch && w.is_served(S)
    });
    let fenced = w.log.state().fences.values().any(|f| f.target == w.hosts[old].name && f.boot != boot);
    let what = format!("the primary's own boot was fenced {fenced}, is served again {moved}");
    end(w, fenced && moved, &what.clone(), what)
}
