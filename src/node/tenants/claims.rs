//! What an earlier daemon of this boot left: what is claimed of it at the join, and the end of what a pause held open.
//!
//! Not here: joining (`node/membership.rs`), and whether a claim is accepted (`ledger/join.rs`).

use super::super::HELD_OPEN;
use super::super::context::Context;
use super::super::desk::Desk;
use super::Tenants;
use crate::lease;
use crate::ledger::{Claim, ClaimState, Service};
use crate::types::{DbState, Epoch, Instant, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

impl Tenants {
    /// What is claimed before this node knows the ledger: only where every database runs on under a kept lease. The
    /// ledger refuses it if there is more to be said.
    pub fn early_claims(&self, context: &Context) -> Option<BTreeMap<ServiceName, Claim>> {
        let mut claims = BTreeMap::new();
        for input in self.inputs(context) {
            let epoch = input.keeper.lease()?.epoch();
            if !input.adopts(epoch) {
                return None;
            }
            claims.insert(input.name.clone(), Claim { epoch, state: ClaimState::Adopted });
        }
        (!claims.is_empty()).then_some(claims)
    }

    /// What became of each epoch that an earlier incarnation held; `None` while that is not settled. `was_current`: this
    /// copy of the ledger was current once since the daemon started.
    pub fn claims(&mut self, desk: &mut Desk, was_current: bool) -> Option<BTreeMap<ServiceName, Claim>> {
        let (mut claims, mut settled) = (BTreeMap::new(), true);
        let names = self.served.clone();
        for name in names.iter() {
            let input = self.input(&desk.context, name)?;
            let keeper = input.keeper;
            if keeper.seen().state == DbState::Unclear {
                return None;
            }
            let held = held_by_this_node(&desk.context, name);
            // A copy that still catches up may not show yet what an earlier daemon of this boot holds: the ledger decides.
            let kept = input.adopts_as_kept().filter(|_| !was_current);
            let kept = kept.filter(|epoch| held.is_none_or(|held| held < *epoch));
            let adopted = kept.or(held.filter(|epoch| input.adopts(*epoch)));
            if let Some(epoch) = adopted {
                claims.insert(name.clone(), Claim { epoch, state: ClaimState::Adopted });
                continue;
            }
            let Some(epoch) = held else { continue };
            if !input.is_closed_for_good() {
                return None;
            }
            if keeper.tombstone() < epoch {
                if keeper.unsaid().is_none_or(|(_, again_at)| desk.context.now >= again_at) {
                    self.write_tombstone(&mut desk.mail, name, epoch);
                }
                // One that cannot be written does not keep the others from being.
                settled = false;
                continue;
            }
            let position = keeper.final_position(epoch);
            claims.insert(name.clone(), Claim { epoch, state: ClaimState::Over { position } });
        }
        settled.then_some(claims)
    }

    /// This incarnation is over.
    pub fn incarnation_over(&mut self, now: Instant) {
        self.keepers.values_mut().for_each(|keeper| keeper.incarnation_over(now));
    }

    /// This daemon's own join is applied.
    pub fn joined(&mut self) {
        self.keepers.values_mut().for_each(|keeper| keeper.joined());
    }

    /// A pause that held a kept lease open may have ended while no daemon saw it. The end that its lease has then is
    /// written down, so that a daemon that starts again and again does not begin to count anew.
    pub fn resumed_unseen(
        &mut self,
        desk: &mut Desk,
        name: &ServiceName,
        service: (&Service, u64),
        lease_use: Duration,
    ) {
        let renew = desk.context.config.lease.renew;
        let Some(keeper) = self.keepers.get_mut(name) else { return };
        if let Some((epoch, until)) = keeper.resumed_unseen(service, desk.context.now, lease_use, renew) {
            self.tell_guard(desk, name, epoch, until);
        }
    }

    /// What is stopped is held open by no pause any more, so that the guard kills what the stop does not end.
    pub(super) fn end_what_a_pause_held_open(&mut self, desk: &mut Desk, name: &ServiceName) {
        let Some(input) = self.input(&desk.context, name).filter(|input| input.keeper.guard_waits()) else { return };
        if self.kept.get(name).is_some_and(|(_, until)| *until < HELD_OPEN) {
            // On its way already; nor may each try of a stop that fails move the end.
            return;
        }
        let kept = self.kept.get(name).or(self.earlier.get(name)).map(|(epoch, _)| *epoch);
        let Some(epoch) = kept.or(input.keeper.lease().map(lease::Holder::epoch)) else { return };
        let ladder = desk.context.now + desk.context.stop_time();
        let until = input.resumed_until().map_or(ladder, |grace| ladder.min(grace.max(desk.context.now)));
        self.tell_guard(desk, name, epoch, until);
    }

    /// Nothing runs that was opened under a lease: what was kept of one must not pass for a promotion under way when the
    /// next daemon of this boot looks.
    pub(super) fn forget_lease_of_the_past(&mut self, desk: &mut Desk, name: &ServiceName) {
        if self.input(&desk.context, name).is_some_and(|input| input.held().is_some()) {
            return;
        }
        let earlier = self.earlier.remove(name);
        if let Some((epoch, _)) = self.kept.get(name).copied().or(earlier) {
            self.drop_kept(&mut desk.mail, name, epoch);
        }
    }
}

/// The epoch that this node holds, in whichever incarnation.
fn held_by_this_node(context: &Context, name: &ServiceName) -> Option<Epoch> {
    let s = context.state.services.get(name).filter(|s| s.over.is_none())?;
    s.holder.as_ref().is_some_and(|h| h.node == context.config.node).then_some(s.epoch)
}
