//! What leaves a node finds its way back: each question with what it is about, each proposal once.

use super::context_test::{NOW, context};
use super::mail::{Mail, QuorumRead, ReplyTo, What};
use super::outbox::End;
use super::{Effect, PeerRequest, PeerResponse};
use crate::ledger::Command;
use crate::ledger::world_test::*;

fn close() -> Command {
    Command::CloseFence { fence: FENCE }
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
    assert_eq!(db1.proposal_ended(NOW, *id, End::Accepted), Some(close()));
    assert_eq!(db1.proposal_ended(NOW, *id, End::Accepted), None, "it ends once");
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
