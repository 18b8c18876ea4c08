//! The leader's part alone: a book for each term, and each question put once.

use super::context_test::{NOW, config, desk};
use super::desk::Desk;
use super::leading::Leading;
use super::mail::ReplyTo;
use super::owed::{Owed, Pending};
use super::peers::Peers;
use super::{Effect, PeerResponse};
use crate::lease::LeaseRequest;
use crate::ledger::CheckAnswer;
use crate::ledger::world_test::*;
use crate::plan::Question;
use crate::types::{Epoch, Term};

fn request() -> LeaseRequest {
    let (node, boot) = (node("db1"), boot("db1", 1));
    LeaseRequest { service: orders(), epoch: Epoch(1), number: 1, node, boot, incarnation: DB1, resumed: None }
}

#[test]
fn the_book_of_a_term_is_closed_with_it() {
    let mut w1 = desk("w1", W1, &World::new().state);
    let mut leading = Leading::default();
    assert!(leading.take(&w1.context) && !leading.take(&w1.context), "one term is taken once");
    assert!(leading.grant(&mut w1, &request()).is_ok());
    assert_eq!(leading.lead().expect("it leads").renewed.len(), 1);
    w1.context.leads = Some(Term(TERM.0 + 1));
    assert!(leading.take(&w1.context));
    let book = leading.lead().expect("it leads");
    assert!(book.renewed.is_empty(), "what the last term granted is not known in this one");
    w1.context.leads = None;
    assert!(leading.take(&w1.context) && leading.lead().is_none());
    assert_eq!(leading.coordinate(&mut w1, &Peers::new(&config("w1"), NOW)), [], "who does not lead wants nothing");
}

/// An appointee that was granted a lease in such a moment may not be passed over as one that never had any.
#[test]
fn what_was_granted_in_a_term_stays_known_while_no_quorum_was_there_for_a_moment() {
    let mut w1 = desk("w1", W1, &World::new().state);
    let mut leading = Leading::default();
    leading.take(&w1.context);
    leading.note_proposed(NOW, &appoint_db2(1, crate::ledger::Basis::Released));
    w1.context.leads = None;
    leading.take(&w1.context);
    assert!(leading.grant(&mut w1, &request()).is_ok(), "the quorum read says that it leads");
    w1.context.leads = Some(TERM);
    w1.context.now = NOW + std::time::Duration::from_secs(9);
    leading.take(&w1.context);
    let book = leading.lead().expect("it leads");
    assert_eq!(book.granted(&orders(), Epoch(1)), Some(NOW));
    assert_eq!(book.appointed.get(&orders()), Some(&Epoch(2)));
    assert_eq!(book.since, w1.context.now, "everything is waited for anew");
    w1.context.leads = Some(Term(TERM.0 + 1));
    leading.take(&w1.context);
    assert!(leading.lead().is_some_and(|book| book.appointed.is_empty()));
}

#[test]
fn a_refused_lease_is_in_no_book() {
    let mut w1 = desk("w1", W1, &World::dead().state);
    let mut leading = Leading::default();
    leading.take(&w1.context);
    assert!(leading.grant(&mut w1, &request()).is_err(), "its node is declared dead");
    assert!(leading.lead().expect("it leads").renewed.is_empty());
}

#[test]
fn a_question_is_under_way_once_and_rests_after_no_answer() {
    let mut w1 = desk("w1", W1, &World::new().state);
    let (mut leading, mut owed) = (Leading::default(), Owed::default());
    leading.take(&w1.context);
    let seal = Question::Seal { service: orders(), epoch: Epoch(1) };
    let db2 = node("db2");
    let puts = |leading: &mut Leading, w1: &mut Desk| {
        assert_eq!(leading.ask(w1, &Owed::default(), (node("db2"), seal.clone())), None);
        w1.mail.take().into_iter().find_map(|e| if let Effect::Ask { id, .. } = e { Some(id) } else { None })
    };
    let id = puts(&mut leading, &mut w1).expect("it is put");
    assert_eq!(puts(&mut leading, &mut w1), None, "under way");
    w1.mail.answered(id);
    leading.take_answer(w1.context.now, db2, &seal, Err("refused".to_owned()));
    assert_eq!(puts(&mut leading, &mut w1), None, "not at once");
    w1.context.now = leading.due().next().expect("it is put again");
    assert!(puts(&mut leading, &mut w1).is_some());
    // Of itself it asks nobody else, and not twice.
    let own = (node("w1"), seal.clone());
    assert_eq!(leading.ask(&mut w1, &owed, own.clone()), Some(seal.clone()));
    owed.push(Pending { reply: ReplyTo::Own, from: node("w1"), question: seal, since: w1.context.now });
    assert_eq!(leading.ask(&mut w1, &owed, own), None);
}

#[test]
fn an_answer_for_an_earlier_term_is_in_no_book() {
    let w1 = desk("w1", W1, &World::dead().state);
    let mut leading = Leading::default();
    leading.take(&w1.context);
    let check = |term| Question::Check { fence: FENCE, refuted: 0, term };
    let holds = || Ok(PeerResponse::Check(CheckAnswer::Holds));
    leading.take_answer(NOW, node("db2"), &check(Term(TERM.0 - 1)), holds());
    assert!(leading.lead().expect("it leads").checks.is_empty());
    leading.take_answer(NOW, node("db2"), &check(TERM), holds());
    assert_eq!(leading.lead().expect("it leads").checks.len(), 1);
}
