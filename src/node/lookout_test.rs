//! The look at a host: when it is due, and that it is judged on a copy of the ledger that is newer.

use super::context_test::{NOW, config, desk};
use super::reading::Reading;
use super::standing::Lookout;
use super::{Effect, PeerRequest, PeerResponse};
use crate::ledger::world_test::*;
use crate::types::{FenceId, LogIndex, Standing};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn what_is_found_is_judged_after_a_read_and_looked_for_again_until_it_is_gone() {
    let mut world = World::new();
    world.state.applied = LogIndex(7);
    let mut db2 = desk("db2", DB2, &world.state);
    // The example has assistants that run on every voter.
    assert!(config("db2").fencing.agents.values().any(|a| a.everywhere));
    let (mut lookout, mut reading) = (Lookout::default(), Reading::default());
    lookout.settle(&mut db2, &mut reading);
    assert_eq!(db2.mail.take(), [Effect::LookInForce]);
    lookout.settle(&mut db2, &mut reading);
    assert_eq!(db2.mail.take(), [], "it is being looked");
    let left = Standing { fence: FenceId(9), node: Some(node("db1")), what: "2 rules".to_owned() };
    lookout.found(NOW, vec![("revoke".parse().expect("valid"), left)], true);
    lookout.settle(&mut db2, &mut reading);
    let asked = db2.mail.take();
    let [Effect::Ask { id, request: PeerRequest::Read { .. }, .. }] = &asked[..] else { panic!("{asked:?}") };
    let answer = PeerResponse::Read { term: TERM, applied: LogIndex(7), age: None };
    reading.answered(&db2.context, *id, Ok(answer));
    lookout.settle(&mut db2, &mut reading);
    let undone = db2.mail.take().iter().filter(|e| matches!(e, Effect::UndoInForce { .. })).count();
    assert_eq!(undone, 1, "the ledger has no such fence");
    let again = lookout.due().expect("whether it is gone is looked at");
    db2.context.now = again;
    lookout.settle(&mut db2, &mut reading);
    assert_eq!(db2.mail.take(), [Effect::LookInForce]);
    lookout.found(again, Vec::new(), true);
    reading = Reading::default();
    lookout.settle(&mut db2, &mut reading);
    let id = db2.mail.take().into_iter().find_map(|e| if let Effect::Ask { id, .. } = e { Some(id) } else { None });
    let answer = PeerResponse::Read { term: TERM, applied: LogIndex(7), age: None };
    reading.answered(&db2.context, id.expect("it asks"), Ok(answer));
    lookout.settle(&mut db2, &mut reading);
    assert_eq!(lookout.due(), None, "nothing is left to be undone");
}

#[test]
fn a_new_primary_looks_once_for_each_epoch_that_it_installs() {
    let mut world = World::fenced();
    let mut db2 = desk("db2", DB2, &world.state);
    let (mut lookout, mut reading) = (Lookout::default(), Reading::default());
    let looks = |db2: &mut super::desk::Desk, lookout: &mut Lookout, reading: &mut Reading| {
        lookout.settle(db2, reading);
        let looks = db2.mail.take().contains(&Effect::LookInForce);
        lookout.found(db2.context.now, Vec::new(), true);
        looks
    };
    assert!(looks(&mut db2, &mut lookout, &mut reading), "at its join");
    assert!(!looks(&mut db2, &mut lookout, &mut reading));
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    world.done(installed(2, "db2", DB2, at(2, 2000)));
    db2.context.state = Arc::new(world.state.clone());
    db2.context.now = NOW + Duration::from_secs(1);
    assert!(looks(&mut db2, &mut lookout, &mut reading), "what lies in the database is seen only there");
    assert!(!looks(&mut db2, &mut lookout, &mut reading));
}
