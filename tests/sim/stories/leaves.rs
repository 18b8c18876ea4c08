//! Directed stories of hosts that leave in order and come back, and of daemons that are restarted instead.

use super::{Listed, Told, command, end, moved_from, nothing_happens, primary, ready, seconds, three};
use crate::cluster::{MS, S, Tell, World};
use crate::setup;
use regent::ledger::Command;
use regent::types::Leaving;

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_primary_whose_daemon_is_stopped_is_handed_over", daemon_stopped, 4),
    ("a_primary_whose_host_reboots_is_handed_over", host_reboots, 4),
    ("a_primary_that_leaves_alone_is_waited_for", alone, 4),
    ("a_leader_that_leaves_hands_leadership_over", leader, 4),
    ("a_standby_that_leaves_costs_nothing", standby, 2),
    ("a_paused_primary_goes_on_without_its_daemon", paused, 2),
    ("every_host_leaves_at_once_and_comes_back", everybody, 4),
];

/// Nobody was fenced, no device was asked for anything, and nothing is lost.
fn unharmed(w: World, ok: bool, what: &str, told: String) -> Told {
    let counts = &w.facts.counts;
    let harm = counts.fences + counts.lost + counts.cuts.values().sum::<u64>();
    end(w, ok && harm == 0, &format!("{what}, or somebody was fenced, or something is lost ({harm})"), told)
}

fn left(w: &mut World, host: usize, within: u64) -> bool {
    let until = w.now + within;
    w.run_while(until, |w| w.hosts[host].leaves.is_none())
}

fn daemon_stopped(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.leave(old, Leaving::DaemonStops, 40 * S);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 60 * S);
    let whole = w.is_whole();
    unharmed(
        w,
        took < 3 * S && whole,
        "it took too long, or is not whole again",
        format!("moved after {}", seconds(took)),
    )
}

fn host_reboots(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.leave(old, Leaving::HostGoesDown, 30 * S);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 90 * S);
    let whole = w.is_whole();
    unharmed(
        w,
        took < 3 * S && whole,
        "it took too long, or is not whole again",
        format!("moved after {}", seconds(took)),
    )
}

/// The other database host was down, and lacks its last words: whatever the time, nobody takes over before it is back.
fn alone(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(2, 3), tell, seed)?;
    let old = primary(&w)?;
    let other = 1 - old;
    w.leave(other, Leaving::HostGoesDown, 40 * S);
    let gone = left(&mut w, other, 20 * S);
    w.run_until(w.now + 3 * S);
    w.leave(old, Leaving::HostGoesDown, 100 * S);
    let gone = gone && left(&mut w, old, 30 * S);
    w.run_until(w.now + 80 * S);
    let nobody = w.primary().is_none();
    let until = w.now + 90 * S;
    let back = w.run_while(until, |w| w.primary().is_some() && w.is_whole());
    let on = w.primary();
    unharmed(w, gone && nobody && back && on == Some(old), "another one took over", "it went on".to_owned())
}

fn leader(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let Some((leader, _)) = w.log.leader else { return Err("nobody leads".to_owned()) };
    w.leave(leader, Leaving::DaemonStops, 20 * S);
    let gone = left(&mut w, leader, 20 * S);
    let other = w.log.leader.is_some_and(|(host, _)| host != leader);
    w.run_until(w.now + 60 * S);
    unharmed(w, gone && other, "nobody else led when it was gone", "another one leads".to_owned())
}

fn standby(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let host = 1 - primary(&w)?;
    let since = w.now;
    w.leave(host, Leaving::HostGoesDown, 30 * S);
    w.run_until(w.now + 80 * S);
    nothing_happens(w, since)
}

fn paused(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    command(&mut w, |service| Command::Pause { service, who: "story".to_owned(), why: None, lasts: None })?;
    w.run_until(w.now + S);
    w.leave(old, Leaving::DaemonStops, 2 * S);
    let gone = left(&mut w, old, 5 * S);
    w.run_until(w.now + 20 * S);
    let open = w.primary() == Some(old);
    unharmed(w, gone && open, "its database did not go on", "it went on".to_owned())
}

/// As when a UPS stops all of them: nobody is left to hear a final word.
fn everybody(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for host in 0..3 {
        w.leave(host, Leaving::HostGoesDown, 30 * S + host as u64 * 700 * MS);
    }
    w.run_until(w.now + 20 * S);
    let off = w.hosts.iter().all(|host| !host.power);
    let start = w.now;
    let whole = w.run_while(start + 120 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole());
    unharmed(w, off && whole, "a host did not go down in time, or it is not whole again", "whole again".to_owned())
}
