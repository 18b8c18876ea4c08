//! A primary that died on a node that is fine (`on_crash = "auto"`): where its WAL ends is read from its own directory. If a
//! standby has received all of it, the service moves at once, without a fence and without loss, instead of waiting for a
//! crash recovery. Else it recovers in place.
//!
//! The end is looked for as well where this daemon has not seen it, before a former primary takes over again or goes on,
//! because a recovery without an end, and one that dies again and again, give way only to who is near it (`starting.rs`).
//!
//! Not here: reading the WAL (`engine`), and choosing who takes over (`plan/candidate.rs`): whoever has that position.

use super::{Input, Step};
use crate::config::{self, Config, OnCrash};
use crate::ledger::{Phase, Service};
use crate::plan::reason::{GiveUp, Waiting};
use crate::types::{DbAction, DbState, Position};
use std::time::Duration;

/// Whether the service may move away from a database that could go on here: not more often than `max_per_hour`, or two nodes
/// with one trouble would hand it to and fro.
pub(super) fn may_move(input: &Input) -> bool {
    input.moves < input.config.failover.max_per_hour as usize
}

/// Whether it died as the installed primary, under a lease that goes on, and may move.
fn has_died(input: &Input, s: &Service) -> bool {
    let keeper = input.keeper;
    let down = keeper.seen.state == DbState::Stopped && !keeper.seen.clean && keeper.started_as_primary;
    let may = s.phase == Phase::Installed && !s.paused && input.settings().on_crash == OnCrash::Auto;
    down && may && may_move(input) && input.may_write(input.stop_time())
}

/// What comes before a restart in place, if anything.
pub(super) fn before_a_restart(input: &Input, s: &Service) -> Option<Step> {
    if !has_died(input, s) {
        return None;
    }
    match input.keeper.in_epoch.wal_ends {
        // Where nobody is near what it is known to have had, and nobody streamed from it, nobody has all of it.
        None => {
            let from = input.keeper.reached?;
            let may = input.nearest_standby(from).is_some() || input.is_streamed_from(from);
            may.then_some(Step::Db(DbAction::FindEnd { from }))
        }
        // One that streamed from it when it was heard last may have all of it by now.
        Some((looked, Some(end))) if input.now < looked + patience(input.config, input.settings()) => {
            input.is_streamed_from(end).then_some(Step::Wait(Waiting::Equal { end }))
        }
        Some(_) => None,
    }
}

/// A former primary that is to take over again after a power cut, or one that died before this daemon began: it has not seen
/// where its WAL ends. Known, its recovery may give way to a standby that is near; unknown, to nobody.
pub(super) fn before_a_return(input: &Input) -> Option<Step> {
    let (keeper, seen) = (input.keeper, &input.keeper.seen);
    let crashed = !seen.clean && !seen.starts_in_recovery;
    let unknown = keeper.reached.is_none() && keeper.in_epoch.wal_ends.is_none();
    let from = seen.position;
    (crashed && unknown && input.nearest_standby(from).is_some()).then_some(Step::Db(DbAction::FindEnd { from }))
}

/// Why the epoch is given up at once, if a standby has received all that is here.
pub(super) fn give_up(input: &Input, s: &Service) -> Option<GiveUp> {
    let (_, end) = input.keeper.in_epoch.wal_ends?;
    let end: Position = end.filter(|_| has_died(input, s))?;
    let (node, at) = input.nearest_standby(end)?;
    (at.timeline == end.timeline && at.lsn >= end.lsn).then(|| GiveUp::DiedBesideItsEqual { node: node.clone(), end })
}

/// Why the epoch is given back, where it was restarted in place as often as it may be: if another node can go on instead,
/// because it has received nearly all that is here. Else it is restarted again, for what only it has. Who was not installed
/// and has begun a timeline of its own binds nobody.
pub(super) fn keeps_dying(input: &Input, s: &Service) -> Option<GiveUp> {
    let end = input.keeper.reached;
    let binds = s.phase == Phase::Installed || end.is_some_and(|end| end.timeline == s.timeline);
    let goes_on = |end: Position| input.nearest_standby(end).is_some();
    (!binds || end.is_some_and(goes_on)).then(|| GiveUp::KeepsDying { error: input.keeper.in_epoch.last_error.clone() })
}

/// How long a standby may take to say what it has received: one look at its database, and a heartbeat that is lost.
pub(super) fn patience(config: &Config, service: &config::Service) -> Duration {
    service.postgresql.probe_interval + config.detector.interval * 3
}
