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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, FenceId, Term};

    #[test]
    fn what_is_owed_keeps_its_order_and_what_is_this_nodes_own_is_known() {
        let node = |name: &str| name.parse::<NodeName>().expect("a valid name");
        let seal = Question::Seal { service: "orders".parse().expect("a valid name"), epoch: Epoch(1) };
        let check = Question::Check { fence: FenceId(1), refuted: 0, term: Term(1) };
        let mut owed = Owed::default();
        assert!(owed.is_empty());
        let mut asks = |reply, question: &Question| {
            owed.push(Pending { reply, from: node("w1"), question: question.clone(), since: Instant(0) });
        };
        asks(ReplyTo::Peer(7), &check);
        asks(ReplyTo::Own, &seal);
        assert!(owed.has_own(&node("w1"), &seal));
        assert!(!owed.has_own(&node("w1"), &check), "a peer asked that");
        assert!(!owed.has_own(&node("db2"), &seal), "of another");
        let all: Vec<_> = owed.take().into_iter().map(|pending| pending.question).collect();
        assert_eq!(all, [check, seal]);
        assert!(owed.is_empty(), "what cannot be answered yet is pushed again");
    }
}
