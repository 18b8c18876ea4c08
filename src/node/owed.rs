//! Questions of other nodes, and of this one as the leader, whose answer takes time: owed until it can be given.
//!
//! Not here: what the answers are (the witness's and the databases' own).

use super::mail::ReplyTo;
use crate::plan::Question;
use crate::types::{Instant, NodeName};

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Owed(Vec<Pending>);

/// A question that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub reply: ReplyTo,
    pub from: NodeName,
    pub question: Question,
    pub since: Instant,
}

impl Owed {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, pending: Pending) {
        self.0.push(pending);
    }

    /// All, to be looked at once; what still cannot be answered is pushed again.
    pub fn take(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.0)
    }

    /// Whether this node owes itself the answer to this question.
    pub fn has_own(&self, from: &NodeName, question: &Question) -> bool {
        self.0.iter().any(|p| p.reply == ReplyTo::Own && &p.from == from && &p.question == question)
    }
}
