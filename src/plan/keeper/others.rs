//! What the keeper looks at of other nodes: what their heartbeats say of their databases.
//!
//! Not here: whether a node is alive (`detector`), and who takes over (`plan/candidate.rs`).

use super::Input;
use crate::ledger::{Life, Service};
use crate::plan::known_end;
use crate::plan::stands_aside;
use crate::types::{DbState, NodeName, Position, ServiceHealth};

impl<'a> Input<'a> {
    /// What a node said lately of its database, in its present incarnation.
    pub(super) fn heard_of(&self, node: &NodeName) -> Option<&'a ServiceHealth> {
        let recent = self.config.detector.patience().recent();
        let row = self.rows.get(node).filter(|row| self.now.since(row.at) <= recent)?;
        self.state.present(node, row.incarnation)?;
        row.health.services.get(self.name)
    }

    /// How far the WAL of this node's database is known to have reached, where it wrote last: as the ledger has it, and as
    /// anybody heard it.
    pub(super) fn known_end(&self, s: &Service) -> Option<Position> {
        let last = s.history.last().filter(|last| &last.node == self.me.node)?;
        let heard = known_end::heard(self.rows, self.name, last.epoch).map(|heard| heard.end);
        heard.chain(s.known_end).chain(s.final_end).chain([last.start]).max()
    }

    /// The standby that has received most of what ends there, if it lacks no more than may be lost by a failover.
    pub(super) fn nearest_standby(&self, end: Position) -> Option<(&'a NodeName, Position)> {
        self.standbys_near(end).map(|(node, health)| (node, health.position)).max_by_key(|(_, at)| *at)
    }

    /// Whether a standby on that timeline streamed from this node when it was heard last. What it had received by then is
    /// old by as much as is written between two looks at its database.
    pub(super) fn is_streamed_from(&self, end: Position) -> bool {
        self.standbys_on(end).any(|(_, health)| health.streams_from.as_ref() == Some(self.me.node))
    }

    fn standbys_near(&self, end: Position) -> impl Iterator<Item = (&'a NodeName, &'a ServiceHealth)> {
        let most = self.config.failover.max_lag;
        self.standbys_on(end).filter(move |(_, health)| end.lsn.0.saturating_sub(health.position.lsn.0) <= most)
    }

    fn standbys_on(&self, end: Position) -> impl Iterator<Item = (&'a NodeName, &'a ServiceHealth)> {
        let standbys = self.rows.keys().filter(|node| *node != self.me.node && self.is_living(node));
        let heard = standbys.filter_map(|node| Some((node, self.heard_of(node)?)));
        let may =
            heard.filter(|(node, _)| !self.leaves(node) && !stands_aside(self.state, self.config, self.name, node));
        may.filter(move |(_, h)| h.state == DbState::Standby && h.position.timeline == end.timeline)
    }

    fn leaves(&self, node: &NodeName) -> bool {
        self.rows.get(node).is_some_and(|row| row.health.leaving.is_some())
    }

    pub(super) fn is_living(&self, node: &NodeName) -> bool {
        self.state.nodes.get(node).is_some_and(|n| n.life == Life::Up)
    }

    /// Whether that node is seen as a primary that takes writes: one that recovers, or is too busy for its own probe, has
    /// nothing to say to a standby yet.
    pub(super) fn is_writable(&self, node: &NodeName) -> bool {
        self.heard_of(node).is_some_and(|health| health.state == DbState::Primary && health.writable)
    }
}
