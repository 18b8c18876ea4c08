//! Whom a standby gets its WAL from: the primary, or, where the file says `follow`, another standby for as long as that one
//! is there. What it is rewound to, or copied from, is always the primary.
//!
//! It leaves that standby when it is gone, or nothing comes from it, and returns a while later, so that it is not told to
//! and fro.
//!
//! Not here: whom the ledger wants to be followed (`goal.rs`), and the slots for those who follow (`engine`).

use super::Input;
use super::table::is_idle_for_long;
use crate::plan::goal::upstream;
use crate::types::{DbState, NodeName, Upstream};
use std::time::Duration;

/// So long after it was told to follow the primary it does not return.
const REST: Duration = Duration::from_secs(30);

impl Input<'_> {
    /// Where the WAL of this standby is to come from now.
    pub(super) fn source(&self, primary: &Upstream) -> Upstream {
        let member = self.settings().members.get(self.me.node);
        let other = member.and_then(|member| member.follow.as_ref()).filter(|node| **node != primary.node);
        let chosen = other.filter(|node| self.is_followed(node, &primary.node));
        chosen.and_then(|node| upstream(self.config, self.name, node)).unwrap_or_else(|| primary.clone())
    }

    fn is_followed(&self, node: &NodeName, primary: &NodeName) -> bool {
        let is_standby = self.heard_of(node).is_some_and(|health| health.state == DbState::Standby);
        if !is_standby || !self.is_living(node) {
            return false;
        }
        if self.keeper.seen.follows.as_ref() == Some(node) {
            return !is_idle_for_long(self);
        }
        let rested = self.keeper.follows_primary_since.is_none_or(|since| self.now.since(since) >= REST);
        rested && self.leads_to(node, primary)
    }

    /// Whether what the node streams comes from the primary in the end, and not by way of this one.
    fn leads_to(&self, node: &NodeName, primary: &NodeName) -> bool {
        let mut at = node;
        for _ in 0..self.config.nodes.len() {
            match self.heard_of(at).and_then(|health| health.streams_from.as_ref()) {
                Some(from) if from == primary => return true,
                Some(from) if from != self.me.node => at = from,
                _ => return false,
            }
        }
        false
    }
}
