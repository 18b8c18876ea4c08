//! Directed stories of a primary that hears nobody on any network: no answer to its renewals can come.

use super::{Listed, Told, end, moved_from, primary, ready, seconds, three};
use crate::cluster::{S, Tell, World};
use crate::setup;

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_primary_that_hears_nobody_and_is_heard_stops_at_once", heard_on_networks, 4),
    ("a_primary_that_hears_nobody_and_has_no_disk_stops_with_its_lease", without_disk, 4),
    ("after_a_network_that_failed_for_all_the_former_holder_goes_on", failed_for_all, 4),
    ("a_deaf_primary_of_five_is_followed_by_another", of_five, 2),
];

/// Nothing gets to this host on either network; what it sends arrives.
fn deafen(w: &mut World, host: usize) {
    for from in 0..w.hosts.len() {
        (0..2).for_each(|channel| w.net.cut(channel, from, host));
    }
}

/// Moves without a fence, within this time; and everything is whole again when the network is.
fn moves(mut w: World, old: usize, within: u64) -> Told {
    let took = moved_from(&mut w, old, 40 * S)?;
    let shot = w.facts.counts.fences;
    w.run_until(w.now + 20 * S);
    w.net.heal();
    w.run_until(w.now + 60 * S);
    let (whole, lost) = (w.is_whole(), w.facts.counts.lost);
    let told = format!("moved after {}, {shot} fences, {lost} lost, whole {whole}", seconds(took));
    end(w, took < within && shot == 0 && whole, &told, told.clone())
}

fn heard_on_networks(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    deafen(&mut w, old);
    moves(w, old, 3 * S)
}

fn of_five(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    deafen(&mut w, old);
    moves(w, old, 3 * S)
}

fn without_disk(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.net.set_disk(old, true);
    w.run_until(w.now + 5 * S);
    deafen(&mut w, old);
    moves(w, old, 10 * S)
}

/// Twenty seconds without any network, and with the disk.
fn failed_for_all(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    (0..w.hosts.len()).for_each(|host| deafen(&mut w, host));
    w.run_until(w.now + 20 * S);
    let stopped = w.primary().is_none();
    w.net.heal();
    let since = w.now;
    w.run_while(w.now + 60 * S, |w| w.primary().is_some());
    let took = w.now - since;
    w.run_until(w.now + 20 * S);
    let ok =
        stopped && w.primary() == Some(old) && w.facts.counts.fences == 0 && w.facts.counts.lost == 0 && w.is_whole();
    let told = format!("writes again {} after the network, {} lost", seconds(took), w.facts.counts.lost);
    end(w, ok && took < 10 * S, &told, told.clone())
}
