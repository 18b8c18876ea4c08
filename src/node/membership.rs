//! This node's membership: when its incarnation is over, and the request to join, numbered so that what came of an earlier
//! one is not taken for its end. Before its first heartbeat a node has made sure that no local database is writable, or has
//! adopted a still valid lease of the same boot.
//!
//! Not here: what is claimed of each database (`tenants/claims.rs`), and whether a join is accepted (`ledger/join.rs`).

use super::Said;
use super::context::Context;
use super::desk::Desk;
use super::mail::Mail;
use crate::ledger::{Claim, Command, Life, Refusal};
use crate::types::{Incarnation, Instant, ServiceName};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Membership {
    /// The number of the present need to join.
    request: u64,
    /// Why it was not joined with: of the last answer.
    refused: Option<Refusal>,
}

impl Membership {
    pub fn new(now: Instant) -> Self {
        Membership { request: now.0, refused: None }
    }

    /// The number of the present need to join.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// This daemon was given an incarnation.
    pub fn joined(&mut self) {
        self.refused = None;
    }

    /// Why this node's join was refused last, while it has not joined.
    pub fn refused(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// A command was refused. Whether that is worth a line: a join is asked for again and again, and refused for the same
    /// reason.
    pub fn is_news(&mut self, command: &Command, refusal: &Refusal) -> bool {
        let again = matches!(command, Command::Join { .. }) && self.refused.as_ref() == Some(refusal);
        if matches!(command, Command::Join { .. }) {
            self.refused = Some(refusal.clone());
        }
        !again
    }

    /// This node leads and refuses its own join.
    pub fn refuses(&mut self, mail: &mut Mail, refusal: Refusal) {
        if self.refused.as_ref() != Some(&refusal) {
            mail.say(Said::Refused { command: "Join", refusal: refusal.clone() });
            self.refused = Some(refusal);
        }
    }

    /// The incarnation that this node takes for its own and that the ledger does not: from now on it needs another.
    pub fn ended(&mut self, context: &Context) -> Option<Incarnation> {
        let record = context.state.nodes.get(&context.config.node)?;
        let mine = context.incarnation?;
        let is_over = record.incarnation > mine || (record.incarnation == mine && record.life == Life::Dead);
        if is_over {
            self.request = context.now.0.max(self.request + 1);
        }
        is_over.then_some(mine)
    }

    /// Asks to join, with what is claimed of the local databases.
    pub fn join(&mut self, desk: &mut Desk, claims: BTreeMap<ServiceName, Claim>) {
        let known = desk.context.state.nodes.get(&desk.context.config.node).map(|n| n.incarnation);
        let succeeds = desk.context.state.settings.is_some().then(|| known.unwrap_or_default());
        // The clock of this boot is behind what the ledger has of it (a guest that was set back): later all the same.
        let record =
            desk.context.state.nodes.get(&desk.context.config.node).filter(|r| r.boot == desk.context.start.boot);
        if let Some(record) = record.filter(|r| r.request > self.request) {
            self.request = record.request + 1;
        }
        let (node, boot) = (desk.context.me(), desk.context.start.boot.clone());
        let (request, machine) = (self.request(), desk.context.start.machine.clone());
        desk.propose(Command::Join { node, boot, request, succeeds, machine, claims });
    }

    /// Whether the ledger answered what this daemon needs now, and not an earlier need, with an incarnation that is newer
    /// than any that it knows.
    pub fn is_answered(&self, context: &Context, command: &Command, incarnation: Incarnation) -> bool {
        let Command::Join { node, request, .. } = command else { return false };
        let record = context.state.nodes.get(&context.config.node);
        let present = record.is_none_or(|n| n.incarnation <= incarnation);
        let is_own = *node == context.config.node && *request == self.request();
        is_own && present && context.incarnation.is_none_or(|mine| mine < incarnation)
    }
}
