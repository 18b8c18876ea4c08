//! What the tests of the parts share: a context at one moment, and its way to the leader.

use super::Start;
use super::context::{Context, Route};
use super::desk::Desk;
use super::mail::Mail;
use crate::config::Config;
use crate::ledger::State;
use crate::ledger::world_test::{TERM, boot, machine, node};
use crate::types::{ClusterId, Incarnation, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const NOW: Instant = Instant(1_000_000_000_000);

pub(super) fn config(name: &str) -> Arc<Config> {
    let text = include_str!("../../config/two-databases-and-witness.toml");
    Arc::new(Config::parse(text, "regent.toml", None, name).expect("an example"))
}

pub(super) fn start(name: &str) -> Start {
    Start {
        cluster: ClusterId("orders".to_owned()),
        boot: boot(name, 1),
        machine: machine(name),
        tombstones: BTreeMap::new(),
        kept: BTreeMap::new(),
        watchdog: None,
        seed: 1,
    }
}

/// A node that has joined, and w1 leads.
pub(super) fn context(name: &str, incarnation: Incarnation, state: &State) -> Context {
    let mut context = Context::new(config(name), start(name), NOW);
    context.incarnation = Some(incarnation);
    context.state = Arc::new(state.clone());
    (context.term, context.leader) = (TERM, Some(node("w1")));
    context.leads = (name == "w1").then_some(TERM);
    context
}

/// The same at its desk.
pub(super) fn desk(name: &str, incarnation: Incarnation, state: &State) -> Desk {
    Desk { context: context(name, incarnation, state), mail: Mail::default() }
}

#[test]
fn every_second_try_goes_through_another_voter() {
    let mut db1 = Context::new(config("db1"), start("db1"), NOW);
    let ways = |context: &Context| (0..4).map(|failures| context.route(failures)).collect::<Vec<_>>();
    let [leader, through] = [Route::Leader(node("w1")), Route::Through(node("db2"))].map(Some);
    db1.leader = Some(node("w1"));
    assert_eq!(ways(&db1), [leader.clone(), through.clone(), leader, through]);
    db1.leader = None;
    let anybody = [Route::Leader(node("db2")), Route::Leader(node("w1"))].map(Some);
    assert_eq!(ways(&db1)[..2], anybody, "nobody is known to lead: each in turn");
    db1.leader = Some(node("db1"));
    assert_eq!(db1.route(0), None, "elected, and no quorum has answered yet");
    db1.leads = Some(TERM);
    assert_eq!(db1.route(1), Some(Route::Local));
}
