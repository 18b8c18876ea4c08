//! Directed stories of a database that takes its time: crash recoveries of minutes, standbys with a backlog, an upstream
//! that is busy.

use super::{Listed, Told, end, moved_from, primary, restarting, seconds, three};
use crate::cluster::{S, Tell, World};

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_recovery_that_takes_longer_than_the_install_deadline_is_waited_for", late_recovery, 4),
    ("a_daemon_that_restarts_adopts_a_database_that_is_starting", adopted, 3),
    ("a_restart_in_place_that_hangs_is_ended", hanging_restart, 2),
    ("a_recovery_without_an_end_gives_way_to_a_standby_that_has_nearly_all", endless_recovery, 2),
    ("a_primary_that_dies_beside_its_equal_moves_at_once", beside_its_equal, 3),
    ("a_primary_that_dies_with_more_than_anybody_recovers_in_place", with_more, 3),
    ("a_standby_runs_on_while_its_primary_recovers", standby_of_one_that_recovers, 2),
    ("a_standby_runs_on_while_its_primary_has_no_connection_free", standby_of_one_that_is_crowded, 2),
];

/// Its next crash recovery takes so long, and gets on.
fn recovers_for(w: &mut World, host: usize, lasts: u64) {
    let ails = &mut w.db(host, 0).ails;
    (ails.late_primary, ails.gets_on) = (lasts, true);
}

/// The site loses power. The former primary is appointed again, and its crash recovery takes longer than the deadline.
fn late_recovery(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    (0..3).for_each(|h| w.power_off(h));
    recovers_for(&mut w, old, 45 * S);
    w.run_until(w.now + 2 * S);
    (0..3).for_each(|h| w.power_on(h));
    w.run_until(w.now + 120 * S);
    let ok = w.primary() == Some(old);
    end(w, ok, "it was not waited for", "it goes on as primary".to_owned())
}

/// How often the standby's postmaster was started.
fn starts(w: &World, standby: usize) -> u64 {
    w.hosts[standby].databases[0].postmaster
}

/// The primary's database dies, and its recovery takes a minute: its standby runs on, and so do its readers.
fn standby_of_one_that_recovers(seed: u64, tell: Tell) -> Told {
    let mut w = restarting(seed, tell)?;
    let old = primary(&w)?;
    let (standby, before) = (1 - old, starts(&w, 1 - old));
    recovers_for(&mut w, old, 60 * S);
    w.database_killed(old, 0);
    w.run_until(w.now + 90 * S);
    let ok = starts(&w, standby) == before && w.is_whole();
    end(w, ok, "the standby was stopped", "the standby ran all the time".to_owned())
}

/// Streaming breaks while every connection of the primary is taken: the standby goes on asking, and is not stopped for it.
fn standby_of_one_that_is_crowded(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (standby, before) = (1 - old, starts(&w, 1 - old));
    w.db(old, 0).ails.crowded_until = w.now + 60 * S;
    w.db(standby, 0).streams_from = None;
    w.run_until(w.now + 55 * S);
    let waits = w.hosts[standby].databases[0].streams_from.is_none();
    w.run_until(w.now + 20 * S);
    let ok = waits && starts(&w, standby) == before && w.is_whole();
    end(w, ok, "the standby was stopped", "the standby ran all the time".to_owned())
}

/// A recovery of two minutes goes on while its daemon is killed and started again: one start, and no other.
fn adopted(seed: u64, tell: Tell) -> Told {
    let mut w = restarting(seed, tell)?;
    let old = primary(&w)?;
    recovers_for(&mut w, old, 120 * S);
    w.database_killed(old, 0);
    w.run_until(w.now + 10 * S);
    let before = starts(&w, old);
    w.kill_daemon(old);
    w.run_until(w.now + S);
    w.start_daemon(old);
    w.run_until(w.now + 130 * S);
    let ok = starts(&w, old) == before && w.primary() == Some(old) && w.facts.counts.verdicts == 0;
    end(w, ok, "its recovery was ended", "it went on to its end".to_owned())
}

/// A restart in place shows no progress and has no end. The standby has everything by then, and takes over; or nobody has,
/// and the next start is a better one.
fn hanging_restart(seed: u64, tell: Tell) -> Told {
    let mut w = restarting(seed, tell)?;
    let old = primary(&w)?;
    let ails = &mut w.db(old, 0).ails;
    (ails.late_primary, ails.gets_on) = (3600 * S, false);
    w.database_killed(old, 0);
    let since = w.now;
    w.run_while(w.now + 120 * S, |w| w.primary().is_some());
    let took = w.now - since;
    w.run_until(w.now + 20 * S);
    let ok = took < 90 * S && w.is_whole();
    end(w, ok, "nobody took over", format!("writes again after {}", seconds(took)))
}

/// A recovery that gets on takes an hour. The standby is there and has everything: past start_timeout it takes over.
fn endless_recovery(seed: u64, tell: Tell) -> Told {
    let mut w = restarting(seed, tell)?;
    let old = primary(&w)?;
    recovers_for(&mut w, old, 3600 * S);
    w.database_killed(old, 0);
    let took = moved_from(&mut w, old, 400 * S)?;
    w.run_until(w.now + 20 * S);
    let ok = took > 260 * S && took < 340 * S && w.facts.counts.verdicts == 0;
    let told = format!("it moved after {}", seconds(took));
    end(w, ok, &told, told.clone())
}

/// The volume takes no more writes, so the standby has everything when the database dies. Its recovery would take minutes.
fn beside_its_equal(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    recovers_for(&mut w, old, 200 * S);
    let until = w.now + 3 * S;
    w.db(old, 0).ails.refuses_writes(until);
    w.run_until(w.now + 2 * S);
    w.database_killed(old, 0);
    let took = moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 20 * S);
    let ok = took < 3 * S && w.facts.counts.verdicts == 0 && w.facts.counts.lost == 0;
    end(w, ok, "it moved late, or lost something", format!("it moved after {}", seconds(took)))
}

/// The standby is cut off from its upstream for a moment, and lacks something when the database dies.
fn with_more(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    recovers_for(&mut w, old, 20 * S);
    w.db(1 - old, 0).sealed = true;
    w.run_until(w.now + S);
    w.database_killed(old, 0);
    w.run_until(w.now + S);
    w.db(1 - old, 0).sealed = false;
    w.run_until(w.now + 40 * S);
    let ok = w.primary() == Some(old) && w.facts.counts.lost == 0;
    end(w, ok, "it moved, or lost something", "it recovered in place".to_owned())
}
