//! The scenarios 1 to 9 of the hazards page, section 6, each by its number.

use super::{
    Listed, Told, ask_switchover, command, cut_networks, end, moved_from, primary, ready, ready_as, seconds, three,
};
use crate::cluster::{MS, S, Setup, Tell, World};
use crate::fence::Device;
use crate::setup;
use regent::config::PowerOn;
use regent::ledger::Command;
use std::time::Duration;

/// Every story here.
pub const STORIES: &[Listed] = &[
    ("h01_a_guest_pauses_with_its_clock_and_resumes_with_lease_left", guest_pause, 2),
    ("h01_where_lease_is_accepted_on_a_guest_two_writers_are_seen", guest_pause_accepted, 2),
    ("h02_pause_partition_resume_and_every_fence_level", pause_partition_resume, 2),
    ("h03_files_with_different_times_do_not_make_two_primaries", different_files, 2),
    ("h04_leader_loses_and_regains_leadership_without_noticing", coalesced_terms, 2),
    ("h05_a_release_commits_one_election_later", late_release, 2),
    ("h05_a_release_of_an_old_epoch_comes_once_more", repeated_release, 3),
    ("h06_a_promotion_completes_after_it_was_given_up", late_promotion, 2),
    ("h06_a_promotion_goes_on_without_the_daemon_that_began_it", orphaned_promotion, 4),
    ("h07_a_lying_agent_and_a_new_daemon_of_the_same_boot", lie_and_restart, 2),
    ("h08_a_fast_reboot_at_each_moment_of_a_failover", fast_reboot, 8),
    ("h08_a_verdict_on_the_incarnation_before_comes_once_more", repeated_verdict, 2),
    ("h09_an_off_that_takes_effect_long_after_it_timed_out", late_off, 2),
];

/// A guest with an emulated watchdog is paused with its clock for longer than everything, and resumes with lease left.
/// The power device cannot reach it, so only `lease` could confirm, and `lease` refuses guests.
fn guest(seed: u64, tell: Tell, accepted: bool) -> Result<World, String> {
    let mut config = setup::with_watchdog(setup::config(2, 1));
    config.fencing.lease_on_virtual_machine = accepted;
    let mut setup = Setup::new(config, tell);
    setup.is_virtual = true;
    let mut w = ready_as(&setup, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    w.freeze(old, 60 * S, true);
    w.run_until(w.now + 59 * S);
    if w.facts.counts.appointments > 1 && !accepted {
        return Err("somebody was appointed on the lease of a paused guest".to_owned());
    }
    w.run_until(w.now + 20 * S);
    Ok(w)
}

fn guest_pause(seed: u64, tell: Tell) -> Told {
    let w = guest(seed, tell, false)?;
    end(w, true, "", "nobody is appointed while it is paused".to_owned())
}

/// The switch accepts in so many words what this story shows: the model can express two writers, and S1 sees them.
fn guest_pause_accepted(seed: u64, tell: Tell) -> Told {
    match guest(seed, tell, true) {
        Ok(w) if w.facts.violation.as_ref().is_some_and(|v| v.starts_with("S1") || v.starts_with("S2")) => {
            Ok("found, as the switch accepts".to_owned())
        }
        Ok(w) => Err(format!("nothing was found: {:?}", w.facts.violation)),
        Err(why) => Err(why),
    }
}

fn pause_partition_resume(seed: u64, tell: Tell) -> Told {
    let mut told = String::new();
    for works in ["ipmi", "lease"] {
        let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
        let old = primary(&w)?;
        command(&mut w, |service| Command::Pause { service, who: "story".to_owned(), why: None, lasts: None })?;
        w.run_until(w.now + S);
        cut_networks(&mut w, old);
        w.net.set_disk(old, true);
        if works == "lease" {
            w.set_device(old, "ipmi", Device::Failing);
        }
        w.run_until(w.now + 5 * S);
        w.run_while(w.now + 10 * S, |w| w.log.leader.is_some_and(|(l, _)| l != old && w.is_alive(l)));
        command(&mut w, |service| Command::Resume { service, who: "story".to_owned(), number: None })?;
        w.run_until(w.now + 60 * S);
        let moved = w.primary().is_some_and(|p| p != old);
        // By power it moves; by lease it must not: the holder never heard of the resume and writes on.
        let ok = moved == (works == "ipmi");
        told = end(w, ok, &format!("with {works} it ended wrongly"), "power moves it, the lease does not".to_owned())?;
    }
    Ok(told)
}

/// The ledger has the times that count: the files of the other hosts differ by far.
fn different_files(seed: u64, tell: Tell) -> Told {
    let config = setup::with_watchdog(setup::config(2, 1));
    let mut short = config.clone();
    short.lease.ttl = Duration::from_secs(3);
    short.lease.renew = Duration::from_millis(200);
    let mut long = config.clone();
    long.lease.ttl = Duration::from_secs(30);
    let mut setup = Setup::new(config, tell);
    // Whoever leads first seeds the ledger; the properties count with the ttl that it has.
    setup.differing = [(1, if seed.is_multiple_of(2) { short } else { long })].into();
    let mut w = ready_as(&setup, seed)?;
    let ttl = w.log.state().settings.as_ref().map_or(0, |s| s.ttl.as_nanos() as u64);
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Failing);
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    let leader = w.log.leader.map(|(l, _)| l);
    if let Some(leader) = leader.filter(|l| *l != old) {
        w.transfer(3 - old - leader);
    }
    w.run_until(w.now + 90 * S);
    let ok = w.primary().is_some_and(|p| p != old);
    end(w, ok, "the service did not move", format!("one writer, ttl {} s", ttl / S))
}

/// Leader N in term 5, M in term 6, N again in term 7, and N never heard of M: its book must not be the old one.
fn coalesced_terms(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let others: Vec<_> = (0..3).filter(|h| *h != old).collect();
    let (n, m) = (others[0], others[1]);
    w.transfer(n);
    w.run_until(w.now + 2 * S);
    w.hosts[n].misses_elections = true;
    w.transfer(m);
    w.run_until(w.now + 20 * S);
    // Elected in the same moment in which it hears again: between the two it learned of nothing.
    w.hosts[n].misses_elections = false;
    w.elect(n);
    w.run_until(w.now + 20 * S);
    let quiet = w.log.state().fences.is_empty() && w.primary() == Some(old);
    end(w, quiet, "a healthy holder was touched", "nothing happens to the holder".to_owned())
}

/// The release of a switchover is written and not committed; one election later it commits, whatever became of it.
fn late_release(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    ask_switchover(&mut w)?;
    let stopping = w.run_while(w.now + 10 * S, |w| !w.hosts[old].tombstones.is_empty());
    w.log.holds = true;
    w.run_until(w.now + 4 * S);
    w.log.inherits = Some(true);
    w.elect_now();
    w.run_until(w.now + 30 * S);
    let ok = stopping && w.is_whole();
    let on = w.primary().map(|p| w.hosts[p].name.to_string());
    end(w, ok, "it did not come back", format!("one writer, on {on:?}"))
}

/// The release of epoch 1 comes once more when the same daemon holds a later epoch.
fn repeated_release(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    for _ in 0..2 {
        let from = primary(&w)?;
        ask_switchover(&mut w)?;
        moved_from(&mut w, from, 20 * S)?;
        w.run_until(w.now + 5 * S);
    }
    let release = w.log.entries().find(|e| matches!(e.command, Command::Release { .. }));
    let entry = release.cloned().ok_or("nobody released")?;
    let at = w.now;
    w.repeat(entry, at);
    w.run_until(w.now + 20 * S);
    let ok = w.primary() == Some(old) && w.is_whole();
    end(w, ok, "the old release had an effect", "refused: it names an old epoch".to_owned())
}

/// The appointee replays for longer than its deadline without any progress to be seen. It is stopped, releases, and the
/// next one is appointed; the promotion must not complete behind everybody's back.
fn late_promotion(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 0), tell, seed)?;
    let old = primary(&w)?;
    let first = (0..3).find(|h| *h != old).ok_or("no standby")?;
    for h in (0..3).filter(|h| *h != old) {
        let db = w.db(h, 0);
        (db.backlog, db.backlog_shows) = (if h == first { 45 * S } else { 0 }, false);
    }
    w.power_off(old);
    let took = moved_from(&mut w, old, 80 * S)?;
    w.run_until(w.now + 60 * S);
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// The appointee's daemon dies while its database replays a backlog at the end of recovery. Recovery ends by itself all
/// the same, and nobody may have been told that this epoch is over before: the next daemon takes the promotion up while
/// its lease is valid, and stops it otherwise.
fn orphaned_promotion(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 0), tell, seed)?;
    let old = primary(&w)?;
    for h in (0..3).filter(|h| *h != old) {
        let db = w.db(h, 0);
        (db.backlog, db.backlog_shows) = (20 * S, true);
    }
    w.power_off(old);
    let promoted = |w: &World, h: usize| w.hosts[h].databases[0].backlog == 0;
    let begun = w.run_while(w.now + 20 * S, |w| (0..3).any(|h| h != old && promoted(w, h)));
    let first = (0..3).find(|h| *h != old && promoted(&w, *h)).filter(|_| begun).ok_or("no promotion began")?;
    w.run_until(w.now + S);
    w.kill_daemon(first);
    // With its lease valid, or after its guard has killed what was opened under it.
    w.run_until(w.now + if seed.is_multiple_of(2) { S } else { 12 * S });
    w.start_daemon(first);
    w.run_until(w.now + 60 * S);
    w.power_on(old);
    w.run_until(w.now + 30 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", "one writer, whole again".to_owned())
}

fn lie_and_restart(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Lying);
    cut_networks(&mut w, old);
    w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| f.confirmed.is_some()));
    // The postmaster lives on; a new daemon of the same boot follows, and the network is back.
    w.kill_daemon(old);
    w.run_until(w.now + 300 * MS * (seed % 3));
    w.start_daemon(old);
    w.net.heal();
    w.run_until(w.now + 60 * S);
    let ok = w.is_served(S);
    end(w, ok, "the service did not come back", "one writer".to_owned())
}

/// Before the verdict, between verdict and fence, between confirmation and appointment; on the way a unit of the
/// distribution starts the database.
fn fast_reboot(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", if seed > 4 { Device::Slow } else { Device::Honest });
    w.power_off(old);
    let so = |w: &World, what: u64| match what {
        0 => true,
        1 => !w.log.state().fences.is_empty(),
        2 => w.log.state().fences.values().any(|f| f.confirmed.is_some()),
        _ => w.facts.counts.appointments > 1,
    };
    w.run_while(w.now + 20 * S, move |w| so(w, seed % 4));
    w.power_on(old);
    w.rogue_start(old, 0);
    w.run_until(w.now + 60 * S);
    (0..3).for_each(|h| w.power_on(h));
    w.run_until(w.now + 30 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", "whole again".to_owned())
}

/// The verdict on the incarnation before is proposed once more when its node is back.
fn repeated_verdict(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let standby = (0..2).find(|h| Some(*h) != w.primary()).ok_or("no standby")?;
    w.power_off(standby);
    w.run_until(w.now + 10 * S);
    w.power_on(standby);
    w.run_until(w.now + 15 * S);
    let verdict = w.log.entries().find(|e| matches!(e.command, Command::DeclareDead { .. }));
    let mut entry = (**verdict.ok_or("no verdict")?).clone();
    // As if the leader had not changed since, and in another round: neither alone must be what protects.
    if let Command::DeclareDead { term, round, .. } = &mut entry.command {
        (*term, *round) = (w.log.term(), round.next());
    }
    let at = w.now;
    w.repeat(entry.into(), at);
    w.run_until(w.now + 10 * S);
    let ok = w.is_whole() && w.facts.counts.verdicts == 1;
    end(w, ok, "the old verdict had an effect", "refused: it names an old incarnation".to_owned())
}

/// The first level's `off` acts a minute after it timed out, on the node that is the primary again by then. No rule can
/// recall what a device has queued: the service moves once more, and there is never a second writer.
fn late_off(seed: u64, tell: Tell) -> Told {
    let mut config = setup::config(2, 1);
    config.fencing.power_on = PowerOn::Auto;
    let mut w = ready(config, tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Late(60 * S));
    w.power_off(old);
    moved_from(&mut w, old, 30 * S)?;
    w.set_device(old, "ipmi", Device::Honest);
    w.run_while(w.now + 30 * S, |w| w.hosts[old].power && w.is_whole());
    let new = primary(&w)?;
    ask_switchover(&mut w)?;
    moved_from(&mut w, new, 20 * S)?;
    w.run_until(w.now + 120 * S);
    (0..3).for_each(|h| w.power_on(h));
    w.run_until(w.now + 30 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", "one writer all the time, whole again".to_owned())
}
