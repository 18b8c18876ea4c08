//! The holder's side of the leases: asking where a request is due, what an answer brings, and what the guard is told.
//!
//! Not here: who grants (`node/leading.rs`), and what a grant is worth (`lease::Holder`).

use super::super::context::{Context, Route};
use super::super::desk::Desk;
use super::super::goodbye;
use super::super::mail::{Mail, Wanted, What};
use super::super::{Effect, HELD_OPEN, PeerRequest, PeerResponse, Said};
use super::Tenants;
use crate::lease::{self, Denial, Grant, LeaseRequest};
use crate::types::{Epoch, Instant, ServiceName};
use std::time::Duration;

/// The pause before a lease that could not be kept for the guard is written again.
const KEEP_PAUSE: Duration = Duration::from_millis(200);
/// The same where no lease is held: so much later than it could is this node a candidate again.
const TRY_PAUSE: Duration = Duration::from_secs(1);

impl Tenants {
    /// The epoch for which this node wants its lease: it holds it, and is not giving it up.
    pub fn wants_lease(&self, context: &Context, name: &ServiceName) -> Option<Epoch> {
        self.input(context, name)?.wants_lease()
    }

    /// Asks for the lease of this epoch where a request is due. What this node asks of itself, as the leader, is returned.
    pub fn renew(&mut self, desk: &mut Desk, name: &ServiceName, epoch: Epoch) -> Option<LeaseRequest> {
        let keeper = self.keepers.get_mut(name)?;
        keeper.wants_lease(epoch, desk.context.config.lease.renew);
        let lease = keeper.lease().filter(|lease| lease.is_request_due(desk.context.now))?;
        let route = desk.context.route(lease.unanswered())?;
        let request = keeper.request(name, desk.context.identity(), desk.context.now)?;
        let resumed = desk.context.state.services.get(name).and_then(|s| s.unproven_resume);
        let request = LeaseRequest { resumed, ..request };
        let wanted = Wanted::of(&request);
        let (to, request) = match route {
            Route::Local => return Some(request),
            Route::Leader(to) => (to, PeerRequest::Lease(request)),
            Route::Through(to) => (to, PeerRequest::Relay(Box::new(PeerRequest::Lease(request)))),
        };
        desk.mail.ask(to, What::Lease(wanted), request, desk.context.config.lease.renew);
        None
    }

    /// What a peer answered, or why there is no answer.
    pub fn lease_answered(&mut self, desk: &mut Desk, wanted: &Wanted, response: Result<PeerResponse, String>) {
        let Some(keeper) = self.keepers.get_mut(&wanted.service) else { return };
        match response {
            Ok(PeerResponse::Lease(result)) => {
                keeper.answered();
                self.lease_result(desk, wanted, result);
            }
            Ok(_) | Err(_) => {
                keeper.failed();
                self.retry_lease(&desk.context, &wanted.service);
            }
        }
    }

    /// The grantor's decision.
    pub fn lease_result(&mut self, desk: &mut Desk, wanted: &Wanted, result: Result<Grant, Denial>) {
        let name = &wanted.service;
        match result {
            Ok(grant) => {
                let held = self.input(&desk.context, name).and_then(|i| i.held()) == Some(grant.epoch);
                if let Some(keeper) = self.keepers.get_mut(name).filter(|_| held) {
                    keeper.granted(&grant, desk.context.now);
                }
            }
            Err(denial) => {
                // A quorum's word, and not about an earlier incarnation: nothing is gained by writing on to the end.
                let is_own = desk.context.incarnation == Some(wanted.incarnation);
                let keeper = self.keepers.get_mut(name).filter(|k| is_own && k.lease_of(wanted.epoch).is_some());
                if let Some(keeper) = keeper.filter(|_| denial.is_final()) {
                    keeper.lease_denied(desk.context.now);
                }
                desk.mail.say(Said::NoLease { service: name.clone(), denial });
                self.retry_lease(&desk.context, name);
            }
        }
    }

    /// Not reached: again soon, by another way.
    fn retry_lease(&mut self, context: &Context, name: &ServiceName) {
        let soon = context.config.lease.renew / 5;
        if let Some(keeper) = self.keepers.get_mut(name) {
            keeper.ask_again_at(context.now + soon);
        }
    }

    /// A new leader or term.
    pub fn led_by_another(&mut self, now: Instant) {
        self.keepers.values_mut().for_each(|keeper| keeper.led_by_another(now));
    }

    /// Whether a lease has ended that may be held still.
    pub fn has_lease_ended(&self, now: Instant) -> bool {
        self.keepers.values().any(|keeper| keeper.has_lease_ended(now))
    }

    /// Whether such a lease could be renewed by others who have a quorum without this node.
    pub fn quorum_elsewhere(&mut self, now: Instant, elsewhere: bool) {
        self.keepers.values_mut().for_each(|keeper| keeper.quorum_elsewhere(elsewhere, now));
    }

    /// Whether this node hears no other on any network.
    pub fn is_deaf(&mut self, now: Instant, deaf: bool) {
        self.keepers.values_mut().for_each(|keeper| keeper.is_deaf(deaf, now));
    }

    /// Whether the guard knows; what failed is tried again soon, because the guard kills at the end that it knows. Whether
    /// everything must be compared anew.
    pub fn lease_kept(&mut self, desk: &mut Desk, name: &ServiceName, result: Result<Instant, String>) -> bool {
        match result {
            Ok(until) => {
                let is_new = self.keepers.get_mut(name).is_some_and(|k| k.guard_told(until >= HELD_OPEN));
                self.unkept.remove(name).is_some() || is_new
            }
            Err(why) => {
                if !self.unkept.contains_key(name) {
                    desk.mail.say(Said::LeaseNotKept { service: name.clone(), why: why.clone() });
                }
                self.unkept.insert(name.clone(), (why, desk.context.now + KEEP_PAUSE));
                self.kept.remove(name);
                true
            }
        }
    }

    /// Lets the guard and the next daemon know how far each lease reaches. In a recorded pause leases do not stop the
    /// database, so the guard is told to wait.
    pub fn keep_leases(&mut self, desk: &mut Desk) {
        let names = self.served.clone();
        for name in names.iter() {
            let Some((epoch, grace)) =
                self.input(&desk.context, name).and_then(|i| Some((i.held()?, i.resumed_until())))
            else {
                self.try_lease(desk, name);
                continue;
            };
            let paused = desk.context.state.services.get(name).is_some_and(|s| s.paused);
            let until = self.keepers[name].lease_of(epoch).and_then(lease::Holder::until);
            // After a pause too what is kept has an end, or whoever finds it would hold the database open for ever.
            let until = until.map(|until| grace.map_or(until, |grace| until.max(grace)));
            let Some(until) = until.filter(|until| *until > desk.context.now || paused) else { continue };
            let until = if paused { Instant(HELD_OPEN.0 + desk.context.state.resumes) } else { until };
            let rests = self.unkept.get(name).is_some_and(|(_, again_at)| desk.context.now < *again_at);
            if !rests && self.kept.get(name) != Some(&(epoch, until)) {
                self.tell_guard(desk, name, epoch, until);
            }
        }
    }

    /// Of what is not held nothing is kept. What could not be kept last is tried, so that this node is a candidate again
    /// as soon as it can hold a lease, and no sooner.
    fn try_lease(&mut self, desk: &mut Desk, name: &ServiceName) {
        if let Some((_, again_at)) = self.unkept.get_mut(name).filter(|(_, at)| desk.context.now >= *at) {
            *again_at = desk.context.now + TRY_PAUSE;
            desk.mail.push(Effect::TryLease { service: name.clone() });
        }
    }

    /// Whether a lease could be kept for the guard. Whether everything must be compared anew.
    pub fn lease_tried(&mut self, now: Instant, name: &ServiceName, result: Result<(), String>) -> bool {
        match (result, self.unkept.get_mut(name)) {
            (Ok(()), _) => self.unkept.remove(name).is_some(),
            (Err(why), Some(unkept)) => {
                *unkept = (why, now + TRY_PAUSE);
                true
            }
            (Err(_), None) => false,
        }
    }

    pub(super) fn tell_guard(&mut self, desk: &mut Desk, name: &ServiceName, epoch: Epoch, until: Instant) {
        self.kept.insert(name.clone(), (epoch, until));
        let goodbye = goodbye::left_behind(&desk.context, until).map(Box::new);
        desk.mail.push(Effect::KeepLease { service: name.clone(), epoch, until: Some(until), goodbye });
    }

    /// The right to write under an epoch is gone for good on this node; before the first join as well.
    pub(super) fn drop_kept(&mut self, mail: &mut Mail, name: &ServiceName, epoch: Epoch) {
        self.kept.remove(name);
        if let Some(keeper) = self.keepers.get_mut(name) {
            keeper.guard_told(false);
        }
        mail.push(Effect::KeepLease { service: name.clone(), epoch, until: None, goodbye: None });
    }
}
