//! How current a copy of the ledger is, where what was asked is answered by nobody, late, or by an earlier leader.

use super::context_test::{NOW, desk};
use super::mail::Mail;
use super::reading::{Reading, Warrant};
use super::{Effect, PeerResponse};
use crate::ledger::State;
use crate::ledger::world_test::*;
use crate::types::{AgentAction, LogIndex, Term};
use std::sync::Arc;
use std::time::Duration;

/// The number of the question that it puts to a peer, if any.
fn question(mail: &mut Mail) -> Option<u64> {
    mail.take().into_iter().find_map(|effect| match effect {
        Effect::Ask { id, .. } => Some(id),
        _ => None,
    })
}

/// Nobody tells the next leadership what was asked of the last one, also where both are this node's own, in one term.
#[test]
fn what_a_leader_asked_of_itself_is_asked_again_after_it_has_stepped_down() {
    let mut w1 = desk("w1", W1, &State::default());
    let mut reading = Reading::default();
    let mut asks = |steps_down: bool| {
        if steps_down {
            reading.forget();
        }
        w1.context.now += Duration::from_millis(200);
        assert!(!reading.is_current(&mut w1));
        w1.mail.take().iter().any(|effect| matches!(effect, Effect::QuorumRead { .. }))
    };
    assert!(asks(false));
    assert!(!asks(false), "it is under way");
    assert!(asks(true));
}

#[test]
fn a_copy_is_current_once_it_is_applied_up_to_the_answer_and_for_as_long_as_a_pause_is_accepted() {
    let mut world = World::new();
    world.state.applied = LogIndex(7);
    let mut db2 = desk("db2", DB2, &world.state);
    let mut reading = Reading::default();
    assert!(!reading.is_current(&mut db2));
    let id = question(&mut db2.mail).expect("it asks");
    let answer = PeerResponse::Read { term: TERM, applied: LogIndex(8), age: None };
    reading.answered(&db2.context, id, Ok(answer));
    assert!(!reading.is_current(&mut db2), "one entry is missing here");
    world.state.applied = LogIndex(8);
    db2.context.state = Arc::new(world.state.clone());
    reading.finish(&db2.context);
    assert!(reading.is_current(&mut db2));
    assert!(reading.was_current() && !reading.is_current_since(&mut db2, NOW + Duration::from_nanos(1)));
    db2.context.now = NOW + db2.context.timing.acceptable_pause + Duration::from_nanos(1);
    assert!(!reading.is_current(&mut db2), "it counts from the question");
}

#[test]
fn a_question_that_failed_rests_before_it_is_put_again() {
    let mut db2 = desk("db2", DB2, &State::default());
    let mut reading = Reading::default();
    assert!(!reading.is_current(&mut db2));
    let id = question(&mut db2.mail).expect("it asks");
    reading.answered(&db2.context, id, Err("refused".to_owned()));
    assert!(!reading.is_current(&mut db2));
    assert_eq!(question(&mut db2.mail), None, "not at once");
    db2.context.now = reading.due().next().expect("it is put again");
    assert!(!reading.is_current(&mut db2));
    assert!(question(&mut db2.mail).is_some());
}

/// The leader of a later term knows nothing of the order's age: what it says holds, and what the one before said does not.
#[test]
fn a_warrant_is_the_present_leaders() {
    let mut world = World::new();
    world.declare_dead();
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    let order = world.state.fences[&FENCE].orders[0].clone();
    let mut db2 = desk("db2", DB2, &world.state);
    let mut reading = Reading::default();
    assert_eq!(reading.warrant(&mut db2, FENCE, &order), None);
    let id = question(&mut db2.mail).expect("it asks");
    let age = Some(Duration::from_millis(40));
    reading.answered(&db2.context, id, Ok(PeerResponse::Read { term: TERM, applied: world.state.applied, age }));
    let runs = Warrant::Runs { asked: NOW, age: Duration::from_millis(40), term: TERM };
    assert_eq!(reading.warrant(&mut db2, FENCE, &order), Some(runs));
    db2.context.term = Term(TERM.0 + 1);
    assert_eq!(reading.warrant(&mut db2, FENCE, &order), None, "of a leader that leads no more");
}
