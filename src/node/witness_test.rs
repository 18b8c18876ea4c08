//! One voter and a confirmed fence: what contradicts it, what does not, and when this voter may say that it holds.

use super::PeerResponse;
use super::context::Context;
use super::context_test::{NOW, config, context};
use super::peers::Peers;
use super::witness::{Check, Witness};
use crate::ledger::CheckAnswer;
use crate::ledger::world_test::*;
use crate::types::{Boot, ChannelName, ClusterId, Heartbeat, Instant};
use std::time::Duration;

/// w1, which has just applied that db1 is off.
fn witness() -> (Context, Peers, Witness) {
    let mut world = World::dead();
    world.power_off();
    let context = context("w1", W1, &world.state);
    let peers = Peers::new(&config("w1"), NOW);
    let mut witness = Witness::default();
    witness.ledger_moved(&context, &peers);
    assert!(witness.is_watching());
    (context, peers, witness)
}

fn beat(boot: Boot, sequence: u64) -> Heartbeat {
    let cluster = ClusterId("orders".to_owned());
    Heartbeat { cluster, node: node("db1"), boot, incarnation: DB1, sequence, body: None }
}

fn answer(of: &(Context, Peers, Witness), since: Instant) -> Option<PeerResponse> {
    let (context, peers, witness) = of;
    let check = Check { fence: FENCE, refuted: 0, term: TERM, since };
    witness.answer(context, peers, check, |_| None)
}

const HOLDS: Option<PeerResponse> = Some(PeerResponse::Check(CheckAnswer::Holds));

#[test]
fn one_late_beat_is_waited_out_and_two_contradict_the_fence() {
    let mut w1 = witness();
    let disk: ChannelName = "disk".parse().expect("valid");
    let hears = |w1: &mut (Context, Peers, Witness), ms, n: u32| {
        w1.0.now = NOW + Duration::from_millis(ms);
        let at = w1.0.now;
        w1.2.heard(&w1.0, &disk, at, &beat(boot("db1", n), ms));
    };
    assert_eq!(answer(&w1, NOW), HOLDS);
    hears(&mut w1, 10, 2);
    hears(&mut w1, 20, 2);
    assert_eq!(answer(&w1, NOW), HOLDS, "of another boot than the fenced one");
    hears(&mut w1, 30, 1);
    assert_eq!(answer(&w1, NOW), None, "whether another follows is waited for");
    w1.0.now += w1.0.timing.detection + Duration::from_millis(1);
    assert_eq!(answer(&w1, NOW), HOLDS, "none did");
    hears(&mut w1, 40, 1);
    let Some(PeerResponse::Check(CheckAnswer::Refuted { channel, .. })) = answer(&w1, NOW) else {
        panic!("it lives: {:?}", answer(&w1, NOW));
    };
    assert_eq!(channel, "disk".parse().expect("valid"));
}

#[test]
fn a_voter_that_was_stopped_has_watched_nothing() {
    let mut w1 = witness();
    w1.1.doubt(NOW, Duration::from_secs(3));
    assert_eq!(answer(&w1, NOW), None);
}

#[test]
fn a_confirmation_that_is_not_applied_here_is_waited_for_and_then_not_vouched_for() {
    let (mut context, peers, _) = witness();
    let late = context.timing.detection * 4 + Duration::from_millis(1);
    let unaware = Witness::default();
    assert_eq!(unaware.answer(&context, &peers, check(), |_| None), None);
    context.now += late;
    assert!(matches!(unaware.answer(&context, &peers, check(), |_| None), Some(PeerResponse::Failed { .. })));
}

fn check() -> Check {
    Check { fence: FENCE, refuted: 0, term: TERM, since: NOW }
}
