//! The scenarios 10 to 18 of the hazards page, section 6, each by its number.

use super::{Listed, Told, cut_networks, end, moved_from, nothing_happens, primary, ready, seconds, three};
use crate::cluster::{MS, S, Tell, World};
use crate::fence::Device;
use crate::setup;

/// Every story here.
pub const STORIES: &[Listed] = &[
    ("h10_a_late_on_lands_after_a_confirmed_off", late_on, 2),
    ("h11_a_confirmation_commits_after_the_power_is_back", late_confirmation, 2),
    ("h12_both_networks_lost_disk_alive_only_the_lease_is_left", disk_alone, 2),
    ("h12_cut_off_from_everything_only_the_lease_is_left", cut_off, 2),
    ("h13_daemon_killed_database_and_clients_alive_no_watchdog", daemon_killed, 2),
    ("h14_connections_of_the_holder_fail_heartbeats_are_up", unconnected, 2),
    ("h15_leader_and_holder_cut_from_each_other_both_see_the_third", bridge, 2),
    ("h16_the_leader_sleeps_between_views_and_verdict", sleeping_leader, 3),
    ("h16_views_of_a_dead_voter_do_not_count", views_of_the_dead, 2),
    ("h16_whoever_stood_still_accuses_nobody", stood_still, 2),
    ("h17_every_host_stalls_at_once_again_and_again", common_stall, 3),
    ("h18_a_diskless_witness_with_a_dead_card", diskless_witness, 2),
    ("h18_two_disk_nodes_of_which_one_stops", two_disk_nodes, 2),
    ("h18_a_majority_is_of_all_not_of_the_living", minority_of_all, 2),
    ("h18_a_blind_channel_is_not_a_lost_one", blind_disk, 2),
];

fn confirmed(w: &World) -> bool {
    w.log.state().fences.values().any(|f| f.confirmed.is_some())
}

/// Power comes back, by somebody else's order, just after it was cut by ours: before the appointment, or after it.
fn late_on(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Reboots);
    cut_networks(&mut w, old);
    w.run_while(w.now + 20 * S, confirmed);
    w.run_until(w.now + 400 * MS * seed);
    w.net.heal();
    w.rogue_start(old, 0);
    w.run_until(w.now + 60 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", "one writer, whole again".to_owned())
}

fn late_confirmation(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.power_off(old);
    w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| !f.orders.is_empty()));
    // What says that the device has succeeded is written, and not committed; power is back meanwhile.
    w.log.holds = true;
    w.run_until(w.now + 2 * S);
    w.power_on(old);
    w.run_until(w.now + 2 * S);
    w.log.inherits = Some(true);
    w.elect_now();
    w.run_until(w.now + 60 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", "one writer, whole again".to_owned())
}

fn disk_alone(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    cut_networks(&mut w, old);
    let took = moved_from(&mut w, old, 60 * S)?;
    let boots = w.hosts[old].boots;
    w.run_until(w.now + 30 * S);
    let ok = boots == 1 && w.hosts[old].power;
    end(w, ok, "the watchdog had to", format!("it stopped, said so on the disk, and moved after {}", seconds(took)))
}

/// Nobody hears it on any channel, and its clients reach it: it writes to the end of its lease.
fn cut_off(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    let took = moved_from(&mut w, old, 60 * S)?;
    end(w, took > 8 * S, "it did not wait for the lease", format!("new primary after {}", seconds(took)))
}

/// Only the guard is left to stop the database; nobody is appointed before that.
fn daemon_killed(seed: u64, tell: Tell) -> Told {
    let mut config = setup::with_watchdog(setup::config(2, 1));
    config.watchdog = None;
    config.fencing.lease_without_watchdog = true;
    let mut w = ready(config, tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    w.kill_daemon(old);
    let took = moved_from(&mut w, old, 60 * S)?;
    w.run_until(w.now + 10 * S);
    end(w, took > 8 * S, "it did not wait for the lease", format!("new primary after {}", seconds(took)))
}

/// An expired certificate, a full disk under the Raft log: every heartbeat says `up`, no lease is renewed. The holder
/// stops and says so in its heartbeats; the service moves without a fence.
fn unconnected(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.net.unconnected[old] = true;
    let took = moved_from(&mut w, old, 60 * S)?;
    let ok = w.log.state().fences.is_empty();
    w.run_until(w.now + 10 * S);
    end(w, ok, "it was fenced", format!("moved on its own word after {}", seconds(took)))
}

fn bridge(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let other = 1 - old;
    w.transfer(other);
    w.run_until(w.now + S);
    w.facts.services[0].longest_gap = 0;
    w.net.cut_pair(old, other);
    w.run_until(w.now + 60 * S);
    if w.facts.services[0].longest_gap > 2 * S {
        return Err("the lease was not relayed: writes stopped".to_owned());
    }
    nothing_happens(w, 60 * S)
}

/// The holder is lost for as long as it takes to suspect it, then the leader sleeps; the holder recovers meanwhile.
fn sleeping_leader(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (leader, _) = w.log.leader.ok_or("no leader")?;
    cut_networks(&mut w, old);
    w.run_until(w.now + 1000 * MS + seed * 40 * MS);
    if !w.log.state().fences.is_empty() {
        return Err("too late: the verdict fell before the leader slept".to_owned());
    }
    w.freeze(leader, 5 * S, false);
    w.net.heal();
    w.run_until(w.now + 30 * S);
    nothing_happens(w, 30 * S)
}

/// Two of five suspect the holder, and die; much later a third one loses it for a moment. That is one voter, not three.
fn views_of_the_dead(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.transfer(4);
    w.run_until(w.now + S);
    // Everybody has lost the holder on the disk; two also on the primary network.
    w.net.disk_mute[old] = true;
    let dying: Vec<_> = (0..3).filter(|h| *h != old).collect();
    dying.iter().for_each(|h| w.net.cut(0, old, *h));
    w.run_until(w.now + 6 * S);
    dying.iter().for_each(|h| w.power_off(*h));
    w.run_until(w.now + 10 * S);
    w.net.cut(0, old, 3);
    w.run_until(w.now + 20 * S);
    nothing_happens(w, 20 * S)
}

/// The primary dies, and just after it another voter stands still for a moment: when it goes on, that silence is as long
/// as a death, and it may not say so before it has watched again.
fn stood_still(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.transfer(2);
    w.run_until(w.now + S);
    w.power_off(old);
    w.run_until(w.now + 200 * MS);
    w.freeze(1 - old, 1300 * MS, false);
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

fn common_stall(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let lasts = [700 * MS, 4 * S, 60 * S][(seed as usize - 1) % 3];
    for turn in 0..5 {
        for h in 0..3 {
            w.freeze(h, lasts + (turn + h as u64) * 7 * MS, false);
        }
        w.run_until(w.now + lasts + 4 * S);
    }
    let verdicts = w.facts.counts.verdicts;
    let back = w.run_while(w.now + 60 * S, |w| w.is_whole());
    w.run_until(w.now + 5 * S);
    end(w, back && verdicts == 0, "a verdict, or it did not come back", format!("five stalls of {}", seconds(lasts)))
}

/// What `config check` says beforehand: one dead card at the diskless witness, and no verdict is possible. It must be
/// neither guessed nor forgotten: nothing happens until the card works, then the service moves.
fn diskless_witness(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::diskless_witnesses(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.net.set_card(1, 2, true);
    w.run_until(w.now + 10 * S);
    w.power_off(old);
    w.run_until(w.now + 30 * S);
    if w.facts.counts.verdicts > 0 {
        return Err("a verdict of one voter".to_owned());
    }
    w.net.set_card(1, 2, false);
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("moved {} after the card worked again", seconds(took)))
}

fn two_disk_nodes(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::diskless_witnesses(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// Two of five are dead; two more suspect the holder, which is two of five.
fn minority_of_all(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    let dead: Vec<_> = (0..3).filter(|h| *h != old).collect();
    dead.iter().for_each(|h| w.power_off(*h));
    w.run_until(w.now + 10 * S);
    if w.facts.counts.verdicts != 2 {
        return Err("the two dead were not declared dead".to_owned());
    }
    w.net.disk_mute[old] = true;
    w.net.cut(0, old, 3);
    w.net.cut(0, old, 4);
    w.run_until(w.now + 30 * S);
    nothing_happens(w, 30 * S)
}

/// The disk hangs for everybody, and the holder loses one network: one channel is lost, one is blind.
fn blind_disk(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    for h in 0..3 {
        w.net.set_disk(h, true);
        w.report_disk(h, 500 * MS, Err("the disk hangs"));
    }
    w.run_until(w.now + 5 * S);
    w.net.set_card(0, old, true);
    w.run_until(w.now + 30 * S);
    nothing_happens(w, 30 * S)
}
