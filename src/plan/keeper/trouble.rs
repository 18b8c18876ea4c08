//! Local trouble of a primary, by the policy of the file: it is restarted in place, moved in order or at once, or said. A
//! service moves only to a standby that could take it over and has no trouble of its volume; not in a pause, and not
//! more often than `max_per_hour`, or nodes with one trouble would hand it to and fro.
//!
//! Not here: the table of policies (`config/trouble.rs`), how trouble is seen (`engine`), and who could take over
//! (`plan/switchover.rs`).

use super::{Input, Keeper, Step, release};
use crate::config::{TroublePolicy, trouble};
use crate::ledger::{Phase, Service};
use crate::plan::goal::Goal;
use crate::plan::note::Passing;
use crate::plan::reason::{GiveUp, StopReason, Told, Waiting};
use crate::types::{DbAction, DbState, Fails, Instant, StopLadder, Trouble};
use std::time::Duration;

/// So long a move counts, as the others do.
const HOUR: Duration = Duration::from_secs(3600);

impl Keeper {
    /// Its epoch is given up: it is stopped, or its tombstone written, for this.
    pub fn gives_up(&mut self, why: GiveUp, now: Instant) {
        if matches!(why, GiveUp::Trouble { .. }) && self.in_epoch.given_up.is_none() {
            self.left_for_trouble.retain(|at| now.since(*at) < HOUR);
            self.left_for_trouble.push(now);
        }
        self.in_epoch.given_up = Some(why);
    }
}

/// What the file says of the trouble that is there, once its limit is reached.
fn policy(input: &Input) -> Option<(&'static str, TroublePolicy)> {
    let (trouble, troubles) = (input.keeper.seen.trouble.as_ref()?, &input.settings().troubles);
    let is_early = match trouble {
        Trouble::VolumeStalled { since_ms } | Trouble::Tablespace { fails: Fails::Stalled { since_ms }, .. } => {
            Duration::from_millis(*since_ms) < troubles.stalled_after
        }
        _ => false,
    };
    let kind = trouble.kind().filter(|_| !is_early)?;
    Some((kind.key(), troubles.policy(kind)))
}

/// An open primary that is nobody's to work on. (A node in maintenance holds no epoch.)
fn is_ours(input: &Input, s: &Service) -> bool {
    let installed = s.phase == Phase::Installed && !s.paused;
    installed && input.keeper.seen.state == DbState::Primary && input.may_write(input.stop_time())
}

/// How often it has moved of late, or was to.
fn moves(input: &Input) -> usize {
    let own = input.keeper.left_for_trouble.iter().filter(|at| input.now.since(**at) < HOUR).count();
    input.moves.max(own)
}

/// Why the epoch is given back, if the service is to move and somebody could take it over.
pub(super) fn give_up(input: &Input, s: &Service) -> Option<GiveUp> {
    let (key, policy) = policy(input).filter(|_| is_ours(input, s))?;
    let in_order = match policy {
        TroublePolicy::Switchover => true,
        TroublePolicy::Failover => false,
        TroublePolicy::Restart | TroublePolicy::Alarm => return None,
    };
    if moves(input) >= input.config.failover.max_per_hour as usize {
        return None;
    }
    let to = input.heir?.as_ref().ok()?.clone();
    let trouble = input.keeper.seen.trouble.as_ref()?.brief();
    Some(GiveUp::Trouble { trouble, key, to, in_order })
}

/// What an installed primary does that has trouble and is not moved.
pub(super) fn step(input: &Input, s: &Service, trouble: &Trouble) -> Step {
    let moved = match policy(input) {
        Some((key, TroublePolicy::Restart)) if is_ours(input, s) && may_restart(input) => {
            let why = StopReason::Trouble { trouble: trouble.brief(), key };
            return Step::StopNow(ladder(input), why);
        }
        Some((_, policy)) => matches!(policy, TroublePolicy::Switchover | TroublePolicy::Failover),
        None => false,
    };
    let why_not = match (moved, input.heir) {
        (false, _) => return Step::Wait(Waiting::Trouble(Told(trouble.clone()))),
        _ if s.paused => "the service is paused".to_owned(),
        (_, Some(Err(why))) => why.clone(),
        (_, Some(Ok(_))) if moves(input) >= input.config.failover.max_per_hour as usize => {
            format!("it moved {} times within the hour (max_per_hour)", moves(input))
        }
        _ => "its lease is not valid".to_owned(),
    };
    Step::Wait(Waiting::TroubleStays { trouble: Told(trouble.clone()), why_not: Passing(why_not) })
}

fn may_restart(input: &Input) -> bool {
    release::restarts(input) < input.settings().max_restarts as usize
}

/// Whether a stop would end badly, or not at all, if it were given all the time of a planned one: its volume takes no writes.
pub(super) fn takes_no_writes(input: &Input) -> bool {
    input.keeper.seen.trouble.as_ref().is_some_and(Trouble::is_of_the_volume)
}

/// In order as far as its volume lets it: whoever takes over has all of the WAL all the same.
pub(super) fn ladder(input: &Input) -> StopLadder {
    trouble::stop_ladder(input.settings(), input.lease_ladder())
}

/// A stop in order that did not end in order tells no end of the WAL; its directory does. With it nobody is appointed who
/// lacks any of it, and without it the move would have come to nothing.
pub(super) fn end_of_its_wal(input: &Input, goal: &Goal) -> Option<Step> {
    let in_order = matches!(goal, Goal::HandOver | Goal::Leave | Goal::GiveUp(GiveUp::Trouble { in_order: true, .. }));
    let keeper = input.keeper;
    let unknown = !keeper.seen.clean && keeper.stopped_at.is_none() && keeper.in_epoch.wal_ends.is_none();
    let from = keeper.reached.filter(|_| in_order && unknown && keeper.started_as_primary)?;
    Some(Step::Db(DbAction::FindEnd { from }))
}
