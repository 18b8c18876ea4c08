//! Directed stories of a database that takes its time: crash recoveries of minutes, standbys with a backlog, an upstream
//! that is busy.

use super::{Listed, Told, end, primary, three};
use crate::cluster::{S, Tell, World};

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_recovery_that_takes_longer_than_the_install_deadline_is_waited_for", late_recovery, 4),
    ("a_standby_runs_on_while_its_primary_recovers", standby_of_one_that_recovers, 2),
    ("a_standby_runs_on_while_its_primary_has_no_connection_free", standby_of_one_that_is_crowded, 2),
];

/// The site loses power. The former primary is appointed again, and its crash recovery takes longer than the deadline.
fn late_recovery(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    (0..3).for_each(|h| w.power_off(h));
    w.db(old, 0).ails.late_primary = 45 * S;
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
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (standby, before) = (1 - old, starts(&w, 1 - old));
    w.db(old, 0).ails.late_primary = 60 * S;
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
