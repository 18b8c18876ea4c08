//! What incidents of the ledger name on this host is told to the engines, which remove nothing of it.
//!
//! Not here: what lies there, and what is removed instead (`engine/postgresql/aside.rs`).

use super::Daemon;
use crate::ledger::Happening;
use std::collections::BTreeSet;

impl Daemon {
    /// Tells the engines which folders are named: in the ledger, or in what it is still to hear.
    pub(super) fn names_what_was_kept(&self) {
        let me = &self.config.node;
        let steps = self.node.state().incidents.values().flat_map(|incident| &incident.steps);
        let named = steps.filter_map(|step| match &step.what {
            Happening::Rejoined { node, kept, .. } if node == me => kept.clone(),
            _ => None,
        });
        let unsaid = self.node.keepers().values().flat_map(|keeper| keeper.unsaid_folders().cloned());
        let folders: BTreeSet<String> = named.chain(unsaid).collect();
        for engine in self.shell.engines.values() {
            engine.are_named(folders.clone());
        }
    }
}
