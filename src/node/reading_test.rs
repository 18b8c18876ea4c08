//! How a node finds out how current its copy of the ledger is, where what it asked is answered by nobody.

use super::Effect;
use super::fences_test::{NOW, daemon};
use crate::types::Term;
use std::time::Duration;

/// Nobody tells the next leadership what was asked of the last one, also where both are this node's own, in one term.
#[test]
fn what_a_leader_asked_of_itself_is_asked_again_after_it_has_stepped_down() {
    let mut node = daemon("w1");
    let me = node.context.me();
    let mut now = NOW;
    let mut asks = |leads: &[bool]| {
        leads.iter().for_each(|leads| node.take_leadership(Term(6), Some(me.clone()), *leads));
        now += Duration::from_millis(200);
        node.context.now = now;
        assert!(!node.is_current());
        node.mail.take().iter().any(|effect| matches!(effect, Effect::QuorumRead { .. }))
    };
    assert!(asks(&[true]));
    assert!(!asks(&[]), "it is under way");
    assert!(asks(&[false, true]));
}

/// What an operator reads on a leader that was cut off: not that it leads.
#[test]
fn whoever_has_no_quorum_does_not_say_that_it_leads() {
    let mut node = daemon("w1");
    let me = node.context.me();
    node.take_leadership(Term(6), Some(me.clone()), true);
    assert_eq!(node.leader(), (Term(6), Some(&me)));
    node.take_leadership(Term(6), Some(me), false);
    assert_eq!(node.leader(), (Term(6), None));
}
