//! Lease requests out and in. A grant leaves only after a quorum read that began after its request arrived, and is
//! decided on the ledger as applied up to that read.
//!
//! Not here: the holder's own knowledge of its leases (`tenants/leases.rs`).

use super::mail::{QuorumRead, ReplyTo};
use super::{Node, PeerResponse};
use crate::known_bugs::{self, Bug};
use crate::lease::{self, LeaseRequest};
use crate::ledger::Command;

impl Node {
    /// The holder's side: asks where a request is due.
    pub(super) fn renew_leases(&mut self) {
        for name in self.tenants.served().iter() {
            // Armed before the first request, and before a promotion.
            let wanted = self.tenants.wants_lease(&self.context, name).filter(|_| self.is_guarded());
            let Some(epoch) = wanted else { continue };
            if let Some(own) = self.tenants.renew(&self.context, &mut self.mail, name, epoch) {
                self.lease_asked(ReplyTo::Own, own);
            }
        }
    }

    /// The grantor's side: first the quorum read.
    pub(super) fn lease_asked(&mut self, reply: ReplyTo, request: LeaseRequest) {
        if self.lead.is_none() {
            return self.reply(reply, PeerResponse::NotLeader { leader: self.context.leader.clone() });
        }
        self.mail.read(QuorumRead::Lease { reply, request });
    }

    pub(super) fn quorum_read(&mut self, id: u64, confirmed: bool) {
        match self.mail.read_ended(id) {
            Some(QuorumRead::Lease { reply, request }) => {
                self.lease_read(reply, &request, confirmed || known_bugs::has(Bug::LeaseWithoutQuorum));
            }
            Some(QuorumRead::Copy { reply, .. }) if !confirmed => {
                self.reply(reply, PeerResponse::NotLeader { leader: None });
            }
            Some(QuorumRead::Copy { reply, subject }) => self.read_confirmed(reply, subject),
            None => {}
        }
    }

    fn lease_read(&mut self, reply: ReplyTo, request: &LeaseRequest, confirmed: bool) {
        if !confirmed || self.lead.is_none() {
            return self.reply(reply, PeerResponse::NotLeader { leader: None });
        }
        // The ledger here is applied up to the read, or further: it can only be newer.
        let decision = lease::decide(&self.context.state, request);
        if let Ok(grant) = &decision {
            let now = self.context.now;
            if let Some(lead) = &mut self.lead {
                lead.renewed.insert(request.service.clone(), (request.epoch, now));
            }
            if let Some(resumed) = grant.resumed {
                let (service, epoch, incarnation) = (request.service.clone(), request.epoch, request.incarnation);
                self.propose(Command::Renewed { service, epoch, incarnation, resumed });
            }
        }
        if reply == ReplyTo::Own {
            self.tenants.lease_result(&self.context, &mut self.mail, &request.service, decision);
        } else {
            self.reply(reply, PeerResponse::Lease(decision));
        }
    }
}
