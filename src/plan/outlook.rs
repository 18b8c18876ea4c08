//! What any node sees of the cluster, leader or not: the ledger, everybody's last heartbeats, and how old they may be.
//!
//! Not here: what a leader alone remembers of its term (`lead.rs`).

use super::{Applied, Row, Timing};
use crate::config::Config;
use crate::known_bugs::{self, Bug};
use crate::ledger::{Life, State};
use crate::types::{Instant, Leaving, NodeName, ServiceHealth, ServiceName};
use std::collections::BTreeMap;

/// One node's sight, at one moment.
#[derive(Clone, Copy)]
pub struct Outlook<'a> {
    pub now: Instant,
    pub me: &'a NodeName,
    pub state: &'a State,
    pub config: &'a Config,
    pub timing: &'a Timing,
    pub applied: &'a Applied,
    pub rows: &'a BTreeMap<NodeName, Row>,
}

/// Why a node's vote does not count now.
#[derive(Clone, Debug, PartialEq, Eq, derive_more::Display)]
pub enum NoVote {
    #[display("it hears no other node on any network")]
    Deaf,
    #[display("it leaves: {_0}")]
    Leaves(Leaving),
    #[display("its log takes no write")]
    LogHangs,
    #[display("it hears of no leader: its certificate, its connections or its log fail")]
    FollowsNobody,
    #[display("it follows {_0}, and this node does not")]
    FollowsAnother(NodeName),
}

impl<'a> Outlook<'a> {
    /// A node's row, of its present incarnation, however old.
    pub fn present(&self, node: &NodeName) -> Option<&'a Row> {
        self.rows.get(node).filter(|row| self.state.present(node, row.incarnation).is_some())
    }

    /// A node's row, if it is recent and of its present incarnation.
    pub fn fresh(&self, node: &NodeName) -> Option<&'a Row> {
        let is_recent =
            |row: &&Row| self.now.since(row.at) <= self.timing.recent || known_bugs::has(Bug::OldViewsCount);
        self.present(node).filter(is_recent)
    }

    /// What a node said lately of its database.
    pub fn database(&self, node: &NodeName, service: &ServiceName) -> Option<&'a ServiceHealth> {
        self.fresh(node)?.health.services.get(service)
    }

    /// Whether this node's own view speaks against the other.
    pub fn is_suspected(&self, node: &NodeName) -> bool {
        let channels = self.state.settings.as_ref().map_or(usize::MAX, |s| s.channels.len());
        let view = self.rows.get(self.me).and_then(|row| row.views.get(node));
        node != self.me && view.is_some_and(|view| view.suspects(channels))
    }

    /// Whether this node sees the other as living: up in the ledger, and not suspected by its own view.
    pub fn is_living(&self, node: &NodeName) -> bool {
        self.state.nodes.get(node).is_some_and(|n| n.life == Life::Up) && !self.is_suspected(node)
    }

    /// Whether the other says lately that it hears no voter on any network: whatever is decided does not reach it. One that
    /// doubts itself has only stood still, and has not listened yet.
    pub fn is_deaf(&self, node: &NodeName) -> bool {
        self.fresh(node).filter(|_| node != self.me).is_some_and(Row::is_deaf)
    }

    /// Whether a node says lately that it leaves in order, and why.
    pub fn leaving(&self, node: &NodeName) -> Option<Leaving> {
        self.fresh(node)?.health.leaving
    }

    /// Whether this node can count on the other's vote now: itself, or one that lives and is heard, and does what only Raft
    /// counts.
    pub fn is_connected(&self, node: &NodeName) -> bool {
        let view = self.rows.get(self.me).and_then(|row| row.views.get(node));
        let heard = self.is_living(node) && view.is_some_and(|view| view.is_heard());
        node == self.me || heard && self.no_vote(node).is_none()
    }

    /// Why a node that may be heard by everybody does not acknowledge what is committed; by its own words.
    pub fn no_vote(&self, node: &NodeName) -> Option<NoVote> {
        let row = self.fresh(node)?;
        let own = self.rows.get(self.me).and_then(|row| row.health.follows.as_ref());
        if row.is_deaf() {
            return Some(NoVote::Deaf);
        }
        if let Some(leaving) = row.health.leaving {
            return Some(NoVote::Leaves(leaving));
        }
        if row.health.log_write > self.timing.answer() {
            return Some(NoVote::LogHangs);
        }
        (row.health.follows.as_ref() != own).then(|| match &row.health.follows {
            None => NoVote::FollowsNobody,
            Some(other) => NoVote::FollowsAnother(other.clone()),
        })
    }

    /// Whether the others alone would be no majority.
    pub fn needs_for_majority(&self, node: &NodeName) -> bool {
        self.margin() - i32::from(self.is_connected(node)) < 0
    }

    /// How many voters can be counted on, less those that a majority needs: so many may be lost.
    pub fn margin(&self) -> i32 {
        let voters = self.config.nodes.len();
        let connected = self.config.nodes.keys().filter(|node| self.is_connected(node)).count();
        connected as i32 - (voters / 2 + 1) as i32
    }
}
