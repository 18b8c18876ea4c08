//! One voter and a confirmed fence: what contradicts it, what does not, and when this voter may say that it holds.

use super::PeerResponse;
use super::context::Context;
use super::context_test::{NOW, config, context};
use super::peers::Peers;
use super::witness::{Check, Witness};
use crate::ledger::CheckAnswer;
use crate::ledger::world_test::*;
use crate::types::{Boot, ChannelName, ClusterId, Heartbeat, Instant, NodeName};
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

/// w1 hears db1 on the disk until its own disk fails, before the confirmation or after it: whether db1 fell silent there it
/// cannot say, before its lease is surely over.
#[test]
fn a_channel_that_this_voter_can_use_no_more_has_not_fallen_silent() {
    for fails_before in [true, false] {
        let mut world = World::dead();
        let (mut w1, mut peers) = (context("w1", W1, &world.state), Peers::new(&config("w1"), NOW));
        let mut witness = Witness::default();
        peers.ledger_moved(NOW, &Default::default(), &world.state);
        witness.ledger_moved(&w1, &peers);
        let disk = ChannelName::disk();
        for sequence in 1..4 {
            let heartbeat = beat(boot("db1", 1), sequence);
            peers.is_sign_of_life(&disk, NOW, &heartbeat);
            peers.hear(&w1, &disk, NOW, &heartbeat);
        }
        let fails = |peers: &mut Peers| peers.channel_state(NOW, &disk, Err("it hangs".to_owned()));
        if fails_before {
            fails(&mut peers);
        }
        world.power_off();
        w1.take_state(std::sync::Arc::new(world.state.clone()));
        witness.ledger_moved(&w1, &peers);
        fails(&mut peers);
        let vouches = |w1: &Context| {
            let view = |target: &NodeName| peers.views(w1.now, std::iter::empty()).remove(target);
            witness.answer(w1, &peers, check(), view)
        };
        assert_eq!(vouches(&w1), None, "it fails before: {fails_before}");
        w1.now = NOW + w1.timing.detection * 4 + Duration::from_millis(1);
        assert!(matches!(vouches(&w1), Some(PeerResponse::Failed { .. })), "{:?}", vouches(&w1));
        w1.now = NOW + world.state.settings.as_ref().expect("seeded").lease_wait();
        assert_eq!(vouches(&w1), HOLDS, "nothing can be written under its lease any more");
    }
}
