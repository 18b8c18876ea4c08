//! Joining through the ledger: before its first heartbeat a node has made sure that no local database is writable, or
//! has adopted a still valid lease of the same boot. A node that learns that its incarnation is dead joins again.
//!
//! Not here: what is claimed of each database (`tenants/claims.rs`).

use super::{Node, Said};
use crate::ledger::{Command, Life};

impl Node {
    /// Notices that this incarnation is over, and joins when it may.
    pub(super) fn join(&mut self) {
        let record = self.context.state.nodes.get(&self.context.config.node);
        if let (Some(mine), Some(record)) = (self.context.incarnation, record)
            && (record.incarnation > mine || (record.incarnation == mine && record.life == Life::Dead))
        {
            self.mail.say(Said::IncarnationOver(mine));
            self.context.incarnation = None;
            self.join_request = self.context.now.0.max(self.join_request + 1);
            self.tenants.incarnation_over(self.context.now);
        }
        if self.context.incarnation.is_some() {
            return;
        }
        // The clock of this boot is behind what the ledger has of it (a guest that was set back): later all the same.
        if let Some(record) =
            self.context.state.nodes.get(&self.context.config.node).filter(|r| r.boot == self.context.start.boot)
            && record.request > self.join_request
        {
            self.join_request = record.request + 1;
        }
        // The others wait for the first heartbeat: a lease that goes on is claimed before the log has been read.
        let claims = if self.context.state.settings.is_none() {
            self.tenants.early_claims(&self.context)
        } else {
            let was_current = self.was_current();
            self.tenants.claims(&self.context, &mut self.mail, was_current)
        };
        let Some(claims) = claims else { return };
        self.propose(Command::Join {
            node: self.context.me(),
            boot: self.context.start.boot.clone(),
            request: self.join_request,
            machine: self.context.start.machine.clone(),
            claims,
        });
    }

    /// Once its own join is applied, the ledger says whether a pause stands.
    pub(super) fn take_up_what_was_held_open(&mut self) {
        if self.context.has_applied_its_join() {
            self.note_own_join();
            self.tenants.joined();
        }
    }

    /// The ledger issued an incarnation.
    pub(super) fn joined(&mut self, incarnation: crate::types::Incarnation) {
        self.context.incarnation = Some(incarnation);
        let (boot, node) = (self.context.start.boot.clone(), self.context.me());
        self.mail.say(Said::Joined { node, incarnation, boot });
        self.beats.restart(self.context.now);
    }
}
