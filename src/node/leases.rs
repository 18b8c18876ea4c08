//! Lease requests out and in. A grant leaves only after a quorum read that began after its request arrived, and is
//! decided on the ledger as applied up to that read.

use super::context::Route;
use super::mail::{QuorumRead, ReplyTo, What};
use super::{Effect, HELD_OPEN, Node, PeerRequest, PeerResponse, Said};
use crate::lease::{self, Denial, Grant, LeaseRequest};
use crate::plan::keeper::Local;
use crate::types::{Epoch, Instant, ServiceName};
use std::time::Duration;

/// The pause before a lease that could not be kept for the guard is written again.
const KEEP_PAUSE: Duration = Duration::from_millis(200);

impl Node {
    /// The holder's side: asks where a request is due.
    pub(super) fn renew_leases(&mut self) {
        let names = self.served.clone();
        for name in names.iter() {
            let Some(epoch) = self.wants_lease(name) else { continue };
            let now = self.context.now;
            let renew = self.context.config.lease.renew;
            let local = self.databases.get_mut(name).expect("a key of this map");
            if local.lease.as_ref().is_none_or(|l| l.epoch() != epoch) {
                local.lease = Some(lease::Holder::new(epoch, renew));
            }
            let lease = local.lease.as_ref().expect("just set");
            if lease.is_request_due(now) {
                self.ask_lease(name);
            }
        }
    }

    /// The epoch for which this node wants its lease: it holds it, and is not giving it up.
    fn wants_lease(&mut self, name: &ServiceName) -> Option<Epoch> {
        let input = self.keeper_input(name)?;
        let epoch = input.held()?;
        let local = input.local;
        let stopping = matches!(local.running, Some((crate::types::DbAction::Stop { .. }, _)));
        // One whose final word cannot be written has closed its database for good all the same.
        let giving_up = local.writing_tombstone.is_some_and(|e| e >= epoch) || local.tombstone_failed.is_some();
        if stopping || giving_up {
            return None;
        }
        // Armed before the first request, and before a promotion.
        self.watchdog.guards(self.context.now, &mut self.mail).then_some(epoch)
    }

    fn ask_lease(&mut self, name: &ServiceName) {
        let Some(route) = self.lease_route(name) else { return };
        let (now, node, boot) = (self.context.now, self.context.config.node.clone(), self.context.start.boot.clone());
        let Some(incarnation) = self.context.incarnation else { return };
        let Some(lease) = self.databases.get_mut(name).and_then(|l| l.lease.as_mut()) else { return };
        let request = lease.request(now, name, (&node, &boot, incarnation));
        let resumed = self.context.state.services.get(name).and_then(|s| s.unproven_resume);
        let request = LeaseRequest { resumed, ..request };
        let (to, request) = match route {
            Route::Local => return self.mail.read(QuorumRead::Lease { reply: ReplyTo::Own, request }),
            Route::Leader(to) => (to, PeerRequest::Lease(request)),
            Route::Through(to) => (to, PeerRequest::Relay(Box::new(PeerRequest::Lease(request)))),
        };
        let what = What::Lease { service: name.clone() };
        self.mail.ask(to, what, request, self.context.config.lease.renew);
    }

    fn lease_route(&self, name: &ServiceName) -> Option<Route> {
        let lease = self.databases.get(name).and_then(|l| l.lease.as_ref());
        self.context.route(lease.map_or(0, lease::Holder::unanswered))
    }

    pub(super) fn lease_response(&mut self, service: &ServiceName, response: Result<PeerResponse, String>) {
        match response {
            Ok(PeerResponse::Lease(result)) => {
                self.databases.get_mut(service).and_then(|l| l.lease.as_mut()).iter_mut().for_each(|l| l.answered());
                self.lease_result(service, result);
            }
            Ok(_) | Err(_) => {
                self.databases.get_mut(service).and_then(|l| l.lease.as_mut()).iter_mut().for_each(|l| l.failed());
                self.retry_lease(service);
            }
        }
    }

    /// Not reached: again soon, by another way.
    fn retry_lease(&mut self, service: &ServiceName) {
        let soon = self.context.config.lease.renew / 5;
        let now = self.context.now;
        if let Some(lease) = self.databases.get_mut(service).and_then(|l| l.lease.as_mut()) {
            lease.ask_again_at(now + soon);
        }
    }

    pub(super) fn lease_result(&mut self, service: &ServiceName, result: Result<Grant, Denial>) {
        match result {
            Ok(grant) => {
                let (now, epoch) = (self.context.now, grant.epoch);
                let held = self.keeper_input(service).and_then(|i| i.held()) == Some(epoch);
                let Some(local) = self.databases.get_mut(service).filter(|_| held) else { return };
                let Some(lease) = local.lease.as_mut() else { return };
                lease.granted(now, &grant);
            }
            Err(denial) => {
                self.mail.say(Said::NoLease { service: service.clone(), denial });
                self.retry_lease(service);
            }
        }
    }

    /// Whether a lease that has ended could be renewed by others who have a quorum without this node.
    pub(super) fn look_for_quorum_elsewhere(&mut self) {
        let now = self.context.now;
        let has_ended = |local: &Local| local.lease.as_ref().and_then(|l| l.until()).is_some_and(|until| until <= now);
        let elsewhere = self.databases.values().any(has_ended) && self.peers.have_a_quorum_without_us(&self.context);
        for local in self.databases.values_mut() {
            let since = local.quorum_elsewhere_since.unwrap_or(now);
            local.quorum_elsewhere_since = (elsewhere && has_ended(local)).then_some(since);
        }
    }

    /// Whether the guard knows; what failed is tried again soon, because the guard kills at the end that it knows. Whether
    /// everything must be compared anew.
    pub(super) fn lease_kept(&mut self, service: &ServiceName, result: Result<Instant, String>) -> bool {
        match result {
            Ok(until) => {
                let pause = until >= HELD_OPEN;
                let waited = self.databases.get_mut(service).map(|l| std::mem::replace(&mut l.guard_waits, pause));
                self.unkept.remove(service).is_some() || waited.is_some_and(|waited| waited != pause)
            }
            Err(why) => {
                if !self.unkept.contains_key(service) {
                    self.mail.say(Said::LeaseNotKept { service: service.clone(), why: why.clone() });
                }
                self.unkept.insert(service.clone(), (why, self.context.now + KEEP_PAUSE));
                self.kept.remove(service);
                true
            }
        }
    }

    /// Lets the guard and the next daemon know how far each lease reaches. In a recorded pause leases do not stop the
    /// database, so the guard is told to wait.
    pub(super) fn keep_leases(&mut self) {
        let names = self.served.clone();
        for name in names.iter() {
            let Some((epoch, grace)) = self.keeper_input(name).and_then(|i| Some((i.held()?, i.resumed_until())))
            else {
                // Of what is not held nothing is kept, and so nobody would find out that it can be again: what failed
                // under an epoch that is over, or is told late, bars no appointment.
                self.unkept.remove(name);
                continue;
            };
            let paused = self.context.state.services.get(name).is_some_and(|s| s.paused);
            let until = self.databases[name].lease.as_ref().filter(|l| l.epoch() == epoch).and_then(|l| l.until());
            // After a pause too what is kept has an end, or whoever finds it would hold the database open for ever.
            let until = until.map(|until| grace.map_or(until, |grace| until.max(grace)));
            let Some(until) = until.filter(|until| *until > self.context.now || paused) else { continue };
            let until = if paused { Instant(HELD_OPEN.0 + self.context.state.resumes) } else { until };
            let rests = self.unkept.get(name).is_some_and(|(_, again_at)| self.context.now < *again_at);
            if !rests && self.kept.get(name) != Some(&(epoch, until)) {
                self.kept.insert(name.clone(), (epoch, until));
                self.mail.push(Effect::KeepLease { service: name.clone(), epoch, until: Some(until) });
            }
        }
    }
}

impl Node {
    /// What was asked of the last leader is asked of the next at once.
    pub(super) fn ask_for_leases_again(&mut self) {
        let now = self.context.now;
        for local in self.databases.values_mut() {
            if let Some(lease) = local.lease.as_mut().filter(|l| l.next_request_at().is_some_and(|at| at > now)) {
                lease.ask_again();
            }
        }
    }
}
