//! What may run at this moment (S5): whether something could commit, and whether it has the right to; and for which epoch
//! this node wants a lease.
//!
//! Not here: what is done about it (`mod.rs`, `table.rs`).

use super::Input;
use crate::plan::reason::GiveUp;
use crate::types::{DbAction, DbState, Epoch, Instant};
use std::time::Duration;

impl Input<'_> {
    /// The epoch that this node holds and has not given up.
    pub fn held(&self) -> Option<Epoch> {
        let s = self.service()?;
        let mine = s.over.is_none() && s.holder.as_ref().is_some_and(|h| self.me.is(h));
        (mine && s.epoch > self.keeper.tombstone).then_some(s.epoch)
    }

    /// Whether the database may accept writes until `ahead` from now (S5): a lease for the held epoch, or a recorded
    /// pause of a service that this node holds.
    pub fn may_write(&self, ahead: Duration) -> bool {
        let Some(epoch) = self.held() else { return false };
        let lease = self.keeper.lease.as_ref().filter(|l| l.epoch() == epoch);
        let paused = self.service().is_some_and(|s| s.paused) || self.just_resumed();
        let leased = lease.is_some_and(|l| l.is_valid(self.now + ahead)) && !self.keeper.guard_waits;
        leased || (paused && lease.is_some_and(|l| l.until().is_some()))
    }

    /// A lease may have run out during the pause, so a resume leaves one lease time to renew it. Nobody can conclude from
    /// the lease by then: `lease` confirms nothing before a renewal that this node asked for after the resume, and then
    /// only after more than a lease time. So it may be in the ledger before the answer to it is here.
    pub fn resumed_until(&self) -> Option<Instant> {
        let grace = self.state.settings.as_ref().map(|s| s.lease_use());
        self.keeper.in_epoch.resumed_at.zip(grace).map(|(at, grace)| at + grace)
    }

    pub(super) fn just_resumed(&self) -> bool {
        self.resumed_until().is_some_and(|until| self.now + self.stop_time() < until)
    }

    /// Whether an earlier daemon of this boot left a lease that this one may adopt: it is still valid (or the service is
    /// paused), for the epoch that the ledger says this very boot holds, or nothing is known of the service yet.
    pub fn awaits_adoption(&self) -> bool {
        let Some(lease) = self.keeper.lease.as_ref().filter(|_| self.me.incarnation.is_none()) else { return false };
        let valid = lease.is_valid(self.now + self.stop_time());
        let held_open = self.keeper.held_open.is_some();
        match self.service() {
            None => valid || held_open,
            Some(s) => {
                let held = s.holder.as_ref().is_some_and(|h| &h.node == self.me.node && &h.boot == self.me.boot);
                // A pause that ended meanwhile binds nobody before this holder has renewed.
                let resumed = held_open && s.unproven_resume.is_some();
                let paused = (s.paused || resumed) && lease.until().is_some();
                s.over.is_none() && held && s.epoch == lease.epoch() && (valid || paused)
            }
        }
    }

    /// Whether the database runs on, until `ahead` from now, under what an earlier daemon of this boot kept: judged by that
    /// alone, for as long as this daemon has no incarnation of its own.
    pub fn runs_on_kept(&self, ahead: Duration) -> bool {
        let kept = self.keeper.lease.as_ref().filter(|_| self.me.incarnation.is_none());
        kept.is_some_and(|lease| self.keeper.held_open.is_some() || lease.is_valid(self.now + ahead))
    }

    /// Whether its database runs, open or on the way to it.
    fn runs_open(&self) -> bool {
        let runs = matches!(self.keeper.seen.state, DbState::Primary | DbState::Standby | DbState::Starting);
        runs && self.could_commit()
    }

    /// Whether an earlier daemon's lease of this epoch can be adopted: its database runs on under it, or is being
    /// promoted. What the ledger has against it (a verdict, a fence, another epoch) the ledger itself checks.
    pub fn adopts(&self, epoch: Epoch) -> bool {
        self.runs_open() && self.keeper.lease_of(epoch).is_some() && self.awaits_adoption()
    }

    /// The epoch of a lease that an earlier daemon kept and under which the database runs on, whatever the ledger says.
    pub fn adopts_as_kept(&self) -> Option<Epoch> {
        let lease = self.keeper.lease.as_ref().filter(|_| self.runs_open() && self.runs_on_kept(self.stop_time()))?;
        Some(lease.epoch())
    }

    /// Whether nothing of it is left that could commit, and nothing is under way.
    pub fn is_closed_for_good(&self) -> bool {
        let closed = match self.keeper.seen.state {
            DbState::Stopped | DbState::Absent | DbState::Unstartable => true,
            DbState::Standby => !self.could_commit(),
            _ => false,
        };
        closed && self.keeper.running.is_none()
    }

    /// Whether a process may exist that could commit, or that comes to it by itself: a standby whose promotion was begun.
    pub fn could_commit(&self) -> bool {
        let keeper = self.keeper;
        let opening = matches!(keeper.running, Some((DbAction::StartPrimary { .. } | DbAction::Promote { .. }, _)));
        opening
            || match keeper.seen.state {
                DbState::Primary => true,
                DbState::Unclear => keeper.started_as_primary && !keeper.closed,
                DbState::Starting | DbState::Stopping | DbState::Standby => keeper.started_as_primary,
                _ => false,
            }
    }

    /// The time that stopping at the end of a lease may need.
    pub fn stop_time(&self) -> Duration {
        self.lease_ladder().whole()
    }

    /// The epoch for which this node wants its lease: it holds it, and is not giving it up. One that hands over in order
    /// keeps it until it has stopped, and one that is restarted on order beyond that: cut short at
    /// the end of a lease, the stop would leave no final position.
    pub fn wants_lease(&self) -> Option<Epoch> {
        let epoch = self.held()?;
        let keeper = self.keeper;
        let for_trouble = match &keeper.in_epoch.given_up {
            Some(GiveUp::Trouble { in_order, .. }) => Some(*in_order),
            _ => None,
        };
        let moves = self.service().is_some_and(|s| s.moving.is_some());
        let hands_over = for_trouble == Some(true) || self.leaving.is_some() || moves;
        // One whose final word cannot be written has closed its database for good all the same.
        let giving_up =
            keeper.writing_tombstone.is_some_and(|e| e >= epoch) || keeper.in_epoch.tombstone_failed.is_some();
        // Nobody renews what goes on without this daemon, or is closed by it for good.
        let closes_for_now = hands_over || self.stops_on_order() || !self.is_stopping();
        // What of it a stalled volume holds no signal ends: the end of its lease does, by the watchdog or a fence.
        let waits_for_its_end = for_trouble == Some(false) && self.could_commit();
        (closes_for_now && !giving_up && !waits_for_its_end && !self.has_left()).then_some(epoch)
    }
}
