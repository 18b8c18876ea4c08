//! One node's need for an incarnation: when it has one, and which answer is for it.

use super::context_test::{NOW, desk};
use super::membership::Membership;
use super::{Effect, PeerRequest};
use crate::ledger::Command;
use crate::ledger::world_test::*;
use crate::types::Incarnation;
use std::collections::BTreeMap;

/// The join that leaves.
fn asked(membership: &mut Membership, desk: &mut super::desk::Desk) -> Command {
    membership.join(desk, BTreeMap::new());
    let join = |effect| match effect {
        Effect::Ask { request: PeerRequest::Propose(command), .. } => Some(*command),
        _ => None,
    };
    desk.mail.take().into_iter().find_map(join).expect("it asks to join")
}

#[test]
fn an_incarnation_is_over_when_the_ledger_has_a_later_one_or_a_verdict() {
    let mut world = World::new();
    let mut db1 = desk("db1", DB1, &world.state);
    let mut membership = Membership::new(NOW);
    assert_eq!(membership.ended(&db1.context), None);
    world.declare_dead();
    db1.context.state = std::sync::Arc::new(world.state.clone());
    let before = membership.request();
    assert_eq!(membership.ended(&db1.context), Some(DB1));
    assert!(membership.request() > before, "what it needs now is another join than before");
    db1.context.take_incarnation(None);
    assert_eq!(membership.ended(&db1.context), None, "it has none that could be over");
}

#[test]
fn only_the_answer_to_the_present_need_counts() {
    let world = World::new();
    let mut db1 = desk("db1", DB1, &world.state);
    db1.context.take_incarnation(None);
    let mut membership = Membership::new(NOW);
    let own = asked(&mut membership, &mut db1);
    let new = Incarnation(9);
    assert!(membership.is_answered(&db1.context, &own, new));
    assert!(!membership.is_answered(&db1.context, &own, Incarnation(0)), "the ledger has a later one already");
    assert!(!membership.is_answered(&db1.context, &pause(), new));
    let mut others = own.clone();
    if let Command::Join { node: name, .. } = &mut others {
        *name = node("db2");
    }
    assert!(!membership.is_answered(&db1.context, &others, new));
    let mut earlier = own.clone();
    if let Command::Join { request, .. } = &mut earlier {
        *request -= 1;
    }
    assert!(!membership.is_answered(&db1.context, &earlier, new), "of an earlier daemon, or an earlier need");
    db1.context.take_incarnation(Some(Incarnation(9)));
    assert!(!membership.is_answered(&db1.context, &own, new), "it has that one");
}

/// A guest that was set back: its clock is behind what its own boot has asked for.
#[test]
fn a_request_is_later_than_any_that_the_ledger_has_of_this_boot() {
    let mut world = World::new();
    let latest = NOW.0 + 7_000;
    world.state.nodes.get_mut(&node("db1")).expect("known").request = latest;
    let mut db1 = desk("db1", DB1, &world.state);
    db1.context.take_incarnation(None);
    let mut membership = Membership::new(NOW);
    let Command::Join { request, .. } = asked(&mut membership, &mut db1) else { panic!("a join") };
    assert!(request > latest);
}
