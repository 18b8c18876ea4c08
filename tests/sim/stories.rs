//! Directed stories: one situation each, told as it must end.

use crate::cluster::{MS, S, Setup, World};
use crate::fence::Device;
use crate::setup;
use regent::ledger::Command;

/// A story fails with a sentence.
type Told = Result<String, String>;

/// Plays one story; with `true` it prints its trace.
type Story = fn(bool) -> Told;

/// Every story, by name.
pub const STORIES: &[(&str, Story)] = &[
    ("bootstrap_by_initdb_from_empty_directories", bootstrap),
    ("whoever_dies_while_it_makes_the_database_does_not_block_the_service", dies_in_initdb),
    ("a_power_cut_of_the_primary_ends_in_a_failover", power_cut),
    ("a_switchover_moves_the_primary", switchover),
    ("the_primary_network_alone_moves_nothing", one_network),
    ("both_networks_cut_with_the_disk_alive_is_death_by_two_of_three", two_networks),
    ("a_dead_standby_is_not_fenced", standby_dies),
    ("a_leader_that_dies_between_fence_and_promotion_is_succeeded", leader_dies),
    ("a_daemon_that_is_back_within_a_second_is_not_fenced", daemon_restart),
    ("a_planned_restart_of_the_daemon_is_not_a_death", planned_restart),
    ("the_whole_cluster_loses_power_and_comes_back", whole_cluster),
    ("a_lying_device_is_refuted_and_the_next_level_is_tried", lying_device),
    ("a_short_freeze_is_nothing", short_freeze),
    ("a_long_freeze_is_fenced", long_freeze),
    ("a_primary_cut_off_from_everything_stops_in_time", isolated),
    ("a_database_that_dies_is_started_again_in_place", crash_in_place),
    ("the_lease_level_confirms_with_a_watchdog", lease_level),
    ("a_fenced_node_comes_back_as_a_standby", comes_back),
    ("a_resume_that_the_holder_never_heard_of_proves_no_lease", unheard_resume),
    ("a_resume_after_the_lease_ran_out_does_not_stop_the_primary", late_resume),
];

fn ready(config: regent::config::Config, trace: bool, seed: u64) -> Result<World, String> {
    let mut w = World::new(seed, &Setup { config, trace });
    if !w.run_while(60 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole()) {
        return Err(w.facts.violation.unwrap_or("the cluster did not get ready within 60 s".to_owned()));
    }
    w.run_until(w.now + 15 * S);
    Ok(w)
}

/// Three nodes: two databases and a witness.
fn three(trace: bool) -> Result<World, String> {
    ready(setup::config(2, 1), trace, 1)
}

/// What must hold at the end of each story.
fn end(w: World, ok: bool, what: &str, told: String) -> Told {
    match w.facts.violation {
        Some(violation) => Err(violation),
        None if !ok => Err(what.to_owned()),
        None => Ok(told),
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / S as f64)
}

fn moved_from(w: &mut World, old: usize, within: u64) -> Result<u64, String> {
    let since = w.now;
    let moved = w.run_while(w.now + within, |w| w.primary().is_some_and(|p| p != old));
    if !moved {
        let why = format!("no new primary within {}", seconds(within));
        return Err(w.facts.violation.clone().unwrap_or(why));
    }
    Ok(w.now - since)
}

fn primary(w: &World) -> Result<usize, String> {
    w.primary().ok_or_else(|| "there is no primary".to_owned())
}

fn bootstrap(trace: bool) -> Told {
    let w = three(trace)?;
    let at = w.now - 15 * S;
    let ok = w.primary() == Some(0);
    end(w, ok, "the primary is not db1", format!("all replicate after {}", seconds(at)))
}

fn power_cut(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.power_off(old);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 5 * S);
    end(w, took < 5 * S, "it took too long", format!("new primary after {}", seconds(took)))
}

fn ask_switchover(w: &mut World) -> Result<(), String> {
    let service = w.service();
    let epoch = w.log.state().services[&service].epoch;
    let leader = w.log.leader.map(|(l, _)| l).ok_or("no leader")?;
    w.propose(leader, u64::MAX - w.events, Command::Switchover { service, epoch, to: None, who: "story".to_owned() });
    Ok(())
}

fn switchover(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.facts.longest_gap = 0;
    ask_switchover(&mut w)?;
    moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 20 * S);
    let (gap, ok) = (w.facts.longest_gap, w.is_whole() && w.facts.verdicts == 0);
    end(w, ok, "the old primary does not follow", format!("no writes for {}", seconds(gap)))
}

fn nothing_happens(w: World, since: u64) -> Told {
    let state = w.log.state();
    let ok = state.fences.is_empty() && w.is_served(S) && state.services.values().all(|s| s.epoch.0 == 1);
    end(w, ok, "something happened", format!("quiet for {}", seconds(since)))
}

fn one_network(trace: bool) -> Told {
    let mut w = three(trace)?;
    for channel in 0..2 {
        w.net.set_card(channel, 0, true);
        w.run_until(w.now + 60 * S);
        w.net.set_card(channel, 0, false);
        w.run_until(w.now + 10 * S);
    }
    w.net.disk_hangs[0] = true;
    w.run_until(w.now + 60 * S);
    if w.facts.verdicts > 0 {
        return Err("a verdict on one lost channel".to_owned());
    }
    nothing_happens(w, 200 * S)
}

fn two_networks(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    let took = moved_from(&mut w, old, 20 * S)?;
    let ok = w.facts.verdicts == 1 && w.hosts[old].boots > 1 || !w.hosts[old].power;
    end(w, ok, "the old primary was not fenced", format!("new primary after {}", seconds(took)))
}

fn standby_dies(trace: bool) -> Told {
    let mut w = three(trace)?;
    w.power_off(1);
    w.run_until(w.now + 60 * S);
    if w.facts.verdicts == 0 {
        return Err("it was not even declared dead".to_owned());
    }
    nothing_happens(w, 60 * S)
}

fn leader_dies(trace: bool) -> Told {
    let mut w = ready(setup::config(3, 2), trace, 3)?;
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

fn daemon_restart(trace: bool) -> Told {
    let mut w = three(trace)?;
    for _ in 0..3 {
        w.kill_daemon(0);
        w.run_until(w.now + 700 * MS);
        w.start_daemon(0);
        w.run_until(w.now + 30 * S);
    }
    if w.facts.longest_gap > S {
        return Err(format!("no writes for {}", seconds(w.facts.longest_gap)));
    }
    nothing_happens(w, 90 * S)
}

fn planned_restart(trace: bool) -> Told {
    let mut w = three(trace)?;
    let back_within = std::time::Duration::from_secs(4);
    w.give(0, regent::node::Event::Goodbye { back_within });
    w.run_until(w.now + 500 * MS);
    w.kill_daemon(0);
    w.run_until(w.now + 2500 * MS);
    w.start_daemon(0);
    w.run_until(w.now + 30 * S);
    nothing_happens(w, 30 * S)
}

fn whole_cluster(trace: bool) -> Told {
    let mut slowest = 0;
    for seed in 0..6 {
        let mut w = ready(setup::config(2, 1), trace, seed)?;
        (0..3).for_each(|h| w.power_off(h));
        w.run_until(w.now + 5 * S);
        let start = w.now;
        for turn in 0..3 {
            w.power_on((seed as usize + turn * (1 + seed as usize / 3)) % 3);
            w.run_until(w.now + 4 * S);
        }
        (0..3).for_each(|h| w.power_on(h));
        if !w.run_while(start + 120 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole()) {
            return Err(w.facts.violation.unwrap_or(format!("not whole again in two minutes (seed {seed})")));
        }
        slowest = slowest.max(w.now - start);
    }
    Ok(format!("whole again after at most {}", seconds(slowest)))
}

fn lying_device(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.devices.insert((old, "ipmi".to_owned()), Device::Lying);
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    let took = moved_from(&mut w, old, 30 * S)?;
    let ok = w.facts.refuted == 1;
    end(w, ok, "the lie was not refuted once", format!("new primary after {}", seconds(took)))
}

fn short_freeze(trace: bool) -> Told {
    let mut w = three(trace)?;
    for host in [0, 1, 2] {
        w.freeze(host, 800 * MS);
        w.run_until(w.now + 20 * S);
    }
    nothing_happens(w, 60 * S)
}

fn long_freeze(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.freeze(old, 8 * S);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 60 * S);
    let ok = w.hosts[old].power && w.is_whole();
    end(w, ok, "not whole again", format!("new primary after {}", seconds(took)))
}

fn isolated(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    w.net.disk_hangs[old] = true;
    // Nothing can fence it: it must stop by itself.
    w.devices.insert((old, "ipmi".to_owned()), Device::Failing);
    w.devices.insert((old, "pdu".to_owned()), Device::Failing);
    let since = w.now;
    let stopped = w.run_while(w.now + 20 * S, |w| w.primary().is_none());
    let took = w.now - since;
    w.run_until(w.now + 60 * S);
    let ok = stopped && w.facts.appointments == 1 && w.primary().is_none();
    end(w, ok, "it did not stop, or somebody was appointed", format!("stopped after {}", seconds(took)))
}

fn crash_in_place(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    w.facts.longest_gap = 0;
    w.database_killed(old);
    w.run_until(w.now + 20 * S);
    let gap = w.facts.longest_gap;
    let ok = w.primary() == Some(old) && w.log.state().fences.is_empty() && gap < 2 * S;
    end(w, ok, "it did not come back in place", format!("no writes for {}", seconds(gap)))
}

fn lease_level(trace: bool) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), trace, 5)?;
    let old = primary(&w)?;
    w.devices.insert((old, "ipmi".to_owned()), Device::Failing);
    w.power_off(old);
    let took = moved_from(&mut w, old, 60 * S)?;
    end(w, took > 10 * S, "it did not wait for the lease", format!("new primary after {}", seconds(took)))
}

fn comes_back(trace: bool) -> Told {
    let mut w = three(trace)?;
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

fn command(w: &mut World, command: impl FnOnce(regent::types::ServiceName) -> Command) -> Result<(), String> {
    let (leader, _) = w.log.leader.ok_or("no leader")?;
    let command = command(w.service());
    w.propose(leader, u64::MAX - w.events, command);
    w.run_until(w.now + 30 * MS);
    Ok(())
}

/// H1.6: the holder believes in a pause that was ended without it, while its request for a lease still comes through.
fn unheard_resume(trace: bool) -> Told {
    let mut told = Ok(String::new());
    for seed in 0..8 {
        let mut w = ready(setup::with_watchdog(setup::config(2, 1)), trace, seed)?;
        let old = primary(&w)?;
        w.devices.insert((old, "ipmi".to_owned()), Device::Failing);
        command(&mut w, |service| Command::Pause { service, who: "story".to_owned() })?;
        w.run_until(w.now + 2 * S);
        // From now on nothing reaches the holder, but what it says arrives for another second.
        for other in (0..3).filter(|o| *o != old) {
            w.net.set_cut(0, other, old, true);
            w.net.set_cut(1, other, old, true);
        }
        w.facts.deaf = Some(old);
        command(&mut w, |service| Command::Resume { service, who: "story".to_owned() })?;
        w.run_until(w.now + S);
        w.facts.deaf = None;
        w.net.set_card(0, old, true);
        w.net.set_card(1, old, true);
        // The disk would refute the fence: without it, only the ledger's own rule is left.
        w.net.disk_hangs[old] = true;
        w.run_until(w.now + 60 * S);
        let ok = w.primary() == Some(old) || w.primary().is_none();
        told = end(w, ok, "somebody was appointed on a lease that binds nobody", "nobody is appointed".to_owned());
        told.as_ref().map_err(String::clone)?;
    }
    told
}

fn late_resume(trace: bool) -> Told {
    let mut w = three(trace)?;
    let old = primary(&w)?;
    command(&mut w, |service| Command::Pause { service, who: "story".to_owned() })?;
    for other in (0..3).filter(|o| *o != old) {
        w.kill_daemon(other);
    }
    w.run_until(w.now + 20 * S);
    w.facts.longest_gap = 0;
    for other in (0..3).filter(|o| *o != old) {
        w.start_daemon(other);
    }
    // The first thing that a leader commits.
    w.run_while(w.now + 10 * S, |w| w.log.leader.is_some_and(|(l, _)| l != old && w.is_alive(l)));
    command(&mut w, |service| Command::Resume { service, who: "story".to_owned() })?;
    w.run_until(w.now + 20 * S);
    let (gap, ok) = (w.facts.longest_gap, w.facts.longest_gap < S && w.primary() == Some(old));
    end(w, ok, "the primary was stopped", format!("no writes for {}", seconds(gap)))
}

fn dies_in_initdb(trace: bool) -> Told {
    let mut w = World::new(2, &Setup { config: setup::config(2, 1), trace });
    let service = w.service();
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
