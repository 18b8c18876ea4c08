//! What leaves a node finds its way back: each question with what it is about, each proposal once.

use super::context_test::{NOW, context};
use super::mail::{Mail, Proposed, QuorumRead, ReplyTo, What};
use super::{Effect, PeerRequest, PeerResponse};
use crate::ledger::world_test::*;
use crate::ledger::{Answer, Command, Event};

fn close() -> Command {
    Command::CloseFence { fence: FENCE }
}

fn done() -> Proposed {
    Ok(Answer::Done(Event::Noted))
}

#[test]
fn a_proposal_leaves_once_and_its_own_leader_knows_that_it_is_its_own() {
    let state = World::new().state;
    let (mut w1, mut db1) = (Mail::default(), Mail::default());
    assert!(w1.propose(&context("w1", W1, &state), close()), "w1 leads");
    assert!(!db1.propose(&context("db1", DB1, &state), close()));
    assert!(!db1.propose(&context("db1", DB1, &state), close()));
    assert!(matches!(w1.take()[..], [Effect::Propose { .. }]));
    let left = db1.take();
    let [Effect::Ask { id, request: PeerRequest::Propose(_), .. }] = &left[..] else { panic!("{left:?}") };
    assert_eq!(db1.answered(*id).expect("under way").what, What::Proposal);
    assert_eq!(db1.proposal_ended(NOW, *id, &done()), Some(close()));
    assert_eq!(db1.proposal_ended(NOW, *id, &done()), None, "it ends once");
}

#[test]
fn what_was_asked_of_the_last_leader_is_forgotten_and_what_is_anothers_is_not() {
    let db1 = context("db1", DB1, &World::new().state);
    let mut mail = Mail::default();
    mail.propose(&db1, close());
    let relayed = mail.ask(node("w1"), What::Relayed { reply: 7 }, PeerRequest::Read { order: None }, db1.timing.retry);
    mail.ask(node("w1"), What::Read, PeerRequest::Read { order: None }, db1.timing.retry);
    mail.forget();
    assert!(!mail.is_asking(&What::Proposal) && !mail.is_asking(&What::Read));
    assert!(mail.is_asking(&What::Relayed { reply: 7 }));
    assert_eq!((mail.relayed(relayed), mail.relayed(relayed)), (Some(7), None));
}

#[test]
fn what_an_operator_asks_for_leaves_at_once_and_its_end_is_told() {
    let state = World::new().state;
    let w1 = context("w1", W1, &state);
    let mut mail = Mail::default();
    let ids = |mail: &mut Mail| -> Vec<u64> {
        mail.take().iter().filter_map(|e| if let Effect::Propose { id, .. } = e { Some(*id) } else { None }).collect()
    };
    mail.submit(&w1, 1, pause());
    mail.submit(&w1, 2, pause());
    let first = ids(&mut mail);
    assert_eq!(first.len(), 1, "the second asks for what is under way");
    assert_eq!(mail.proposal_ended(NOW, first[0], &done()), Some(pause()));
    let told = |number| Effect::Told { number, result: done() };
    assert_eq!(mail.take(), [told(1), told(2)]);
    mail.submit(&w1, 3, pause());
    let second = ids(&mut mail);
    assert_eq!(second.len(), 1, "and so soon after: a person waits for the answer");
    // It outlives the leadership in which it left.
    mail.forget();
    mail.proposal_ended(NOW, second[0], &Err(None));
    assert_eq!(mail.take(), [Effect::Told { number: 3, result: Err(None) }]);
    mail.submit(&context("db1", DB1, &state), 4, pause());
    assert_eq!(mail.take(), [Effect::Told { number: 4, result: Err(Some(node("w1"))) }], "db1 does not lead");
}

#[test]
fn a_quorum_read_ends_once_and_with_the_leadership() {
    let mut mail = Mail::default();
    let begin = |mail: &mut Mail| {
        mail.read(QuorumRead::Copy { reply: ReplyTo::Peer(3), subject: None });
        let Some(Effect::QuorumRead { id }) = mail.take().pop() else { panic!("it begins") };
        id
    };
    let id = begin(&mut mail);
    assert!(matches!(mail.read_ended(id), Some(QuorumRead::Copy { reply: ReplyTo::Peer(3), subject: None })));
    assert!(mail.read_ended(id).is_none());
    let id = begin(&mut mail);
    mail.forget_own_reads();
    assert!(mail.read_ended(id).is_none());
}

#[test]
fn what_leaves_leaves_in_its_order() {
    let mut mail = Mail::default();
    mail.push(Effect::ArmWatchdog);
    mail.reply(1, PeerResponse::NotLeader { leader: None });
    mail.push(Effect::DisarmWatchdog);
    let reply = Effect::Reply { reply: 1, response: PeerResponse::NotLeader { leader: None } };
    assert_eq!(mail.take(), [Effect::ArmWatchdog, reply, Effect::DisarmWatchdog]);
    assert_eq!(mail.take(), []);
}
