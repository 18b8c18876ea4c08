//! What a part is handed while it works: what it may look at, and what leaves the node because of it.
//!
//! Not here: what any part knows.

use super::context::Context;
use super::mail::Mail;
use crate::ledger::Command;

/// See the module.
pub(super) struct Desk {
    pub context: Context,
    pub mail: Mail,
}

impl Desk {
    /// Proposes a command to wherever the leader is. True where this node itself, as the leader, does so now.
    pub fn propose(&mut self, command: Command) -> bool {
        self.mail.propose(&self.context, command)
    }
}
