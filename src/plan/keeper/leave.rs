//! The database of a node that leaves: closed in order, whatever it is, and not opened again in the life of this daemon. The
//! holder of an epoch hands it over with that (`table.rs`, [`Goal::Leave`]); a pause and maintenance keep the hands of a
//! daemon that is stopped off it, and those of a host that goes down not.
//!
//! Not here: when the daemon may end (`node/leave.rs`).
//!
//! [`Goal::Leave`]: crate::plan::goal::Goal::Leave

use super::{Input, Step};
use crate::ledger::Service;
use crate::plan::reason::{StopReason, Waiting};
use crate::types::{DbAction, DbState, Leaving};

impl Input<'_> {
    /// Whether its database goes on although its node leaves: a person is at work on it, or it is none of regent's. Not one
    /// that was being given back for that when the pause came.
    pub fn goes_on_without_its_daemon(&self) -> bool {
        let Some(leaving) = self.leaving else { return false };
        let goes_down = leaving == Leaving::HostGoesDown;
        let Some(s) = self.service() else {
            // What may be regent's, while the ledger is not known, is stopped only where it would be killed.
            return self.state.settings.is_some() || !goes_down;
        };
        let seen = self.keeper.seen.system;
        let is_anothers = seen.is_some() && s.system.is_some() && seen != s.system;
        let is_paused = s.paused && !self.is_given_up();
        is_anothers || !goes_down && (is_paused || self.state.is_in_maintenance(self.me.node))
    }

    /// Whether anything of its database runs.
    pub fn runs(&self) -> bool {
        matches!(self.keeper.seen.state, DbState::Primary | DbState::Standby | DbState::Starting | DbState::Stopping)
    }

    /// Whether nothing of its database needs this daemon any more.
    pub fn is_left(&self) -> bool {
        let closed = match self.keeper.seen.state {
            DbState::Stopped | DbState::Absent | DbState::Unstartable => true,
            DbState::Unclear => self.keeper.closed,
            _ => false,
        };
        self.keeper.running.is_none() && (closed || self.goes_on_without_its_daemon())
    }

    /// Whether its node leaves, and is done with this database.
    pub fn has_left(&self) -> bool {
        self.leaving.is_some() && self.is_left()
    }

    /// Whether the ledger has still to hear that this node gave its epoch up. In a pause it keeps it, unless that was begun.
    pub fn owes_its_word(&self) -> bool {
        let keeps = |s: &Service| s.paused && !self.is_given_up();
        self.service()
            .is_some_and(|s| !keeps(s) && s.over.is_none() && s.holder.as_ref().is_some_and(|h| self.me.is(h)))
    }

    fn is_given_up(&self) -> bool {
        self.keeper.in_epoch.given_up.is_some()
    }
}

/// The step of a node that leaves; `None` where it does not, and for what the table does.
pub(super) fn step(input: &Input) -> Option<Step> {
    let leaving = input.leaving?;
    if input.goes_on_without_its_daemon() {
        return Some(Step::Wait(Waiting::GoesOnWithoutItsDaemon(leaving)));
    }
    let ladder = input.planned_ladder();
    match &input.keeper.running {
        // A stop is what is wanted, and what is looked for after one that did not end in order is its final position. A
        // checkpoint that ends makes it short.
        Some((DbAction::Stop { .. } | DbAction::FindEnd { .. }, _)) => return None,
        Some((DbAction::Checkpoint, since)) if input.now.since(*since) < ladder.fast => return None,
        // A copy takes hours, and recovery may: nobody waits for what is not to be used.
        Some(_) => return Some(Step::StopNow(ladder, StopReason::Leaves(leaving))),
        None => {}
    }
    if input.owes_its_word() {
        return None;
    }
    let rests = input.keeper.in_epoch.retry_at.is_some_and(|at| input.now < at);
    Some(match input.keeper.seen.state {
        _ if input.is_left() => Step::Wait(Waiting::Left(leaving)),
        DbState::Stopping => Step::Wait(Waiting::Stopping),
        _ if rests => Step::Wait(Waiting::Retry { error: input.keeper.in_epoch.last_error.clone() }),
        _ => Step::Db(DbAction::Stop { ladder }),
    })
}
