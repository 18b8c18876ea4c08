//! What the keeper looks at of other nodes: what their heartbeats say of their databases.
//!
//! Not here: whether a node is alive (`detector`), and who takes over (`plan/candidate.rs`).

use super::Input;
use crate::types::{DbState, NodeName, ServiceHealth};

impl<'a> Input<'a> {
    /// What a node said lately of its database, in its present incarnation.
    fn heard_of(&self, node: &NodeName) -> Option<&'a ServiceHealth> {
        let recent = self.config.detector.patience().recent();
        let row = self.rows.get(node).filter(|row| self.now.since(row.at) <= recent)?;
        self.state.present(node, row.incarnation)?;
        row.health.services.get(self.name)
    }

    /// Whether that node is seen as a primary that takes writes: one that recovers, or is too busy for its own probe, has
    /// nothing to say to a standby yet.
    pub(super) fn is_writable(&self, node: &NodeName) -> bool {
        self.heard_of(node).is_some_and(|health| health.state == DbState::Primary && health.writable)
    }
}
