//! Directed stories of what a cluster does every day: creation, failover, switchover, restarts, pauses.

use super::{
    Listed, Told, ask_switchover, command, end, moved_from, nothing_happens, primary, ready, restarting, seconds, three,
};
use crate::cluster::{MS, S, Setup, Tell, World};
use crate::fence::Device;
use crate::setup;
use regent::ledger::Command;

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("bootstrap_by_initdb_from_empty_directories", bootstrap, 2),
    ("whoever_dies_while_it_makes_the_database_does_not_block_the_service", dies_in_initdb, 2),
    ("a_power_cut_of_the_primary_ends_in_a_failover", power_cut, 2),
    ("a_switchover_moves_the_primary", switchover, 2),
    ("the_primary_network_alone_moves_nothing", one_network, 1),
    ("both_networks_cut_with_the_disk_alive_is_death_by_two_of_three", two_networks, 2),
    ("a_dead_standby_is_not_fenced", standby_dies, 1),
    ("a_leader_that_dies_between_fence_and_promotion_is_succeeded", leader_dies, 2),
    ("a_daemon_that_is_back_within_a_second_is_not_fenced", daemon_restart, 1),
    ("a_daemon_that_is_back_within_its_lease_is_not_suspected", back_within_the_lease, 3),
    ("a_daemon_that_stays_away_is_waited_for_until_its_lease_ends", stays_away, 3),
    ("a_daemon_that_dies_with_its_database_is_not_waited_for", dies_with_its_database, 2),
    ("a_planned_restart_of_the_daemon_is_not_a_death", planned_restart, 2),
    ("the_whole_cluster_loses_power_and_comes_back", whole_cluster, 6),
    ("a_lying_device_is_refuted_and_the_next_level_is_tried", lying_device, 2),
    ("a_short_freeze_is_nothing", short_freeze, 1),
    ("a_long_freeze_is_fenced", long_freeze, 2),
    ("a_primary_cut_off_from_everything_stops_in_time", isolated, 1),
    ("a_database_that_dies_is_started_again_in_place", crash_in_place, 2),
    ("the_lease_level_confirms_with_a_watchdog", lease_level, 2),
    ("a_fenced_node_comes_back_as_a_standby", comes_back, 2),
    ("a_resume_that_the_holder_never_heard_of_proves_no_lease", unheard_resume, 6),
    ("a_resume_after_the_lease_ran_out_does_not_stop_the_primary", late_resume, 2),
];

fn bootstrap(seed: u64, tell: Tell) -> Told {
    let w = three(seed, tell)?;
    let at = w.now - 15 * S;
    let ok = w.primary() == Some(0);
    end(w, ok, "the primary is not db1", format!("all replicate after {}", seconds(at)))
}

fn power_cut(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.power_off(old);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 5 * S);
    end(w, took < 5 * S, "it took too long", format!("new primary after {}", seconds(took)))
}

fn switchover(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.facts.services[0].longest_gap = 0;
    ask_switchover(&mut w)?;
    moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 20 * S);
    let (gap, ok) = (w.facts.services[0].longest_gap, w.is_whole() && w.facts.counts.verdicts == 0);
    end(w, ok, "the old primary does not follow", format!("no writes for {}", seconds(gap)))
}

fn one_network(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for channel in 0..2 {
        w.net.set_card(channel, 0, true);
        w.run_until(w.now + 60 * S);
        w.net.set_card(channel, 0, false);
        w.run_until(w.now + 10 * S);
    }
    w.net.set_disk(0, true);
    w.run_until(w.now + 60 * S);
    if w.facts.counts.verdicts > 0 {
        return Err("a verdict on one lost channel".to_owned());
    }
    nothing_happens(w, 200 * S)
}

fn two_networks(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    let took = moved_from(&mut w, old, 20 * S)?;
    let ok = w.facts.counts.verdicts == 1 && w.hosts[old].boots > 1 || !w.hosts[old].power;
    end(w, ok, "the old primary was not fenced", format!("new primary after {}", seconds(took)))
}

fn standby_dies(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    w.power_off(1);
    w.run_until(w.now + 60 * S);
    if w.facts.counts.verdicts == 0 {
        return Err("it was not even declared dead".to_owned());
    }
    nothing_happens(w, 60 * S)
}

fn leader_dies(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    let confirmed = w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| f.confirmed.is_some()));
    if !confirmed {
        return Err("the fence was not confirmed".to_owned());
    }
    let (leader, _) = w.log.leader.ok_or("no leader")?;
    w.power_off(leader);
    let took = moved_from(&mut w, old, 20 * S)?;
    end(w, true, "", format!("finished {} after the leader died", seconds(took)))
}

fn daemon_restart(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for _ in 0..3 {
        w.kill_daemon(0);
        w.run_until(w.now + 700 * MS);
        w.start_daemon(0);
        w.run_until(w.now + 30 * S);
    }
    if w.facts.services[0].longest_gap > S {
        return Err(format!("no writes for {}", seconds(w.facts.services[0].longest_gap)));
    }
    nothing_happens(w, 90 * S)
}

/// For longer than a silence is borne, and in the middle of a lease that says so.
fn back_within_the_lease(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for _ in 0..3 {
        w.kill_daemon(0);
        w.run_until(w.now + 4 * S);
        w.start_daemon(0);
        w.run_until(w.now + 30 * S);
    }
    nothing_happens(w, 60 * S)
}

/// Its database goes on until the guard kills it; then it is dead like any other.
fn stays_away(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.kill_daemon(old);
    let took = moved_from(&mut w, old, 20 * S)?;
    let gap = w.facts.services[0].longest_gap;
    let what = format!("moved after {}, no writes for {}", seconds(took), seconds(gap));
    end(w, gap < 5 * S, "the service was down for longer than a failover takes", what)
}

fn dies_with_its_database(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.kill_daemon(old);
    w.database_killed(old, 0);
    let took = moved_from(&mut w, old, 20 * S)?;
    end(w, took < 5 * S, "it was waited for", format!("moved after {}", seconds(took)))
}

fn planned_restart(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let back_within = std::time::Duration::from_secs(4);
    w.give(0, regent::node::Event::Goodbye { back_within });
    w.run_until(w.now + 500 * MS);
    w.kill_daemon(0);
    w.run_until(w.now + 2500 * MS);
    w.start_daemon(0);
    w.run_until(w.now + 30 * S);
    nothing_happens(w, 30 * S)
}

fn whole_cluster(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    (0..3).for_each(|h| w.power_off(h));
    w.run_until(w.now + 5 * S);
    let start = w.now;
    for turn in 0..3 {
        w.power_on((seed as usize + turn * (1 + seed as usize / 3)) % 3);
        w.run_until(w.now + 4 * S);
    }
    (0..3).for_each(|h| w.power_on(h));
    let whole = w.run_while(start + 60 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole());
    let took = w.now - start;
    end(w, whole, "not whole again in a minute", format!("whole again after {}", seconds(took)))
}

fn lying_device(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Lying);
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    let took = moved_from(&mut w, old, 30 * S)?;
    let ok = w.facts.counts.refuted == 1;
    end(w, ok, "the lie was not refuted once", format!("new primary after {}", seconds(took)))
}

fn short_freeze(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for host in [0, 1, 2] {
        w.freeze(host, 800 * MS, false);
        w.run_until(w.now + 20 * S);
    }
    nothing_happens(w, 60 * S)
}

fn long_freeze(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.freeze(old, 8 * S, false);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 60 * S);
    let ok = w.hosts[old].power && w.is_whole();
    end(w, ok, "not whole again", format!("new primary after {}", seconds(took)))
}

fn isolated(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    w.net.set_disk(old, true);
    // Nothing can fence it: it must stop by itself.
    w.set_device(old, "ipmi", Device::Failing);
    w.set_device(old, "pdu", Device::Failing);
    let since = w.now;
    let stopped = w.run_while(w.now + 20 * S, |w| w.primary().is_none());
    let took = w.now - since;
    w.run_until(w.now + 60 * S);
    let ok = stopped && w.facts.counts.appointments == 1 && w.primary().is_none();
    end(w, ok, "it did not stop, or somebody was appointed", format!("stopped after {}", seconds(took)))
}

fn crash_in_place(seed: u64, tell: Tell) -> Told {
    let mut w = restarting(seed, tell)?;
    let old = primary(&w)?;
    w.facts.services[0].longest_gap = 0;
    w.database_killed(old, 0);
    w.run_until(w.now + 20 * S);
    let gap = w.facts.services[0].longest_gap;
    let ok = w.primary() == Some(old) && w.log.state().fences.is_empty() && gap < 2 * S;
    end(w, ok, "it did not come back in place", format!("no writes for {}", seconds(gap)))
}

fn lease_level(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    w.power_off(old);
    let took = moved_from(&mut w, old, 60 * S)?;
    end(w, took > 10 * S, "it did not wait for the lease", format!("new primary after {}", seconds(took)))
}

fn comes_back(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.power_off(old);
    let start = w.now;
    moved_from(&mut w, old, 20 * S)?;
    let whole = w.run_while(start + 60 * S, |w| w.hosts[old].power && w.is_whole());
    let took = w.now - start;
    w.run_until(w.now + 20 * S);
    let closed = w.log.state().fences.values().all(|f| f.state == regent::ledger::FenceState::Closed);
    end(w, whole && closed, "not whole, or a fence stays", format!("whole again after {}", seconds(took)))
}

/// H1.6: the holder believes in a pause that was ended without it, while its request for a lease still comes through.
fn unheard_resume(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    command(&mut w, |service| Command::Pause { service, who: "story".to_owned(), why: None, lasts: None })?;
    w.run_until(w.now + 2 * S);
    // From now on nothing reaches the holder, but what it says arrives for another second.
    for other in (0..3).filter(|o| *o != old) {
        w.net.cut(0, other, old);
        w.net.cut(1, other, old);
    }
    w.facts.deaf = Some(old);
    command(&mut w, |service| Command::Resume { service, who: "story".to_owned(), number: None })?;
    w.run_until(w.now + S);
    w.facts.deaf = None;
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    // The disk would refute the fence: without it, only the ledger's own rule is left.
    w.net.set_disk(old, true);
    w.run_until(w.now + 60 * S);
    let ok = w.primary() == Some(old) || w.primary().is_none();
    end(w, ok, "somebody was appointed on a lease that binds nobody", "nobody is appointed".to_owned())
}

fn late_resume(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    command(&mut w, |service| Command::Pause { service, who: "story".to_owned(), why: None, lasts: None })?;
    for other in (0..3).filter(|o| *o != old) {
        w.kill_daemon(other);
    }
    w.run_until(w.now + 20 * S);
    w.facts.services[0].longest_gap = 0;
    for other in (0..3).filter(|o| *o != old) {
        w.start_daemon(other);
    }
    // The first thing that a leader commits.
    w.run_while(w.now + 10 * S, |w| w.log.leader.is_some_and(|(l, _)| l != old && w.is_alive(l)));
    command(&mut w, |service| Command::Resume { service, who: "story".to_owned(), number: None })?;
    w.run_until(w.now + 20 * S);
    let (gap, ok) = (w.facts.services[0].longest_gap, w.facts.services[0].longest_gap < S && w.primary() == Some(old));
    end(w, ok, "the primary was stopped", format!("no writes for {}", seconds(gap)))
}

fn dies_in_initdb(seed: u64, tell: Tell) -> Told {
    let mut w = World::new(seed, &Setup::new(setup::config(2, 1), tell));
    let service = w.services[0].clone();
    if !w.run_while(60 * S, |w| w.log.state().services.contains_key(&service)) {
        return Err("the service was never created".to_owned());
    }
    w.power_off(0);
    w.run_until(w.now + S);
    w.power_on(0);
    let whole = w.run_while(w.now + 60 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole());
    let at = w.now;
    end(w, whole, "the service does not come up", format!("all replicate after {}", seconds(at)))
}
