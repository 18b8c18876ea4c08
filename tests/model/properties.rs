//! The rules, as questions about one state, and what must be reachable so that they are not kept by an idle model.
//!
//! The rules look at what runs and who may write, not at the guards of the steps.

use crate::search::Question;
use crate::state::{Agent, Deed, NODES, Stage, State, Via};

pub const RULES: [Question<State>; 8] = [
    ("S1 one writer", s1),
    ("S2 fence first", s2),
    ("S3 double majority", |s| !s.broken.s3),
    ("S4 epochs only grow", |s| !s.broken.s4),
    ("S5 the holder stops first", s5),
    ("S8 nobody is shot who was heard", |s| !s.broken.s8),
    ("S9 a fence is checked", |s| !s.broken.s9),
    ("a device acts only while its order runs", |s| !s.broken.order),
];

fn s1(s: &State) -> bool {
    NODES.into_iter().filter(|n| s.nodes[*n].open > 0 && !s.ended_unheard(s.nodes[*n].open)).count() <= 1
}

/// Nobody writes, or may begin to, under an epoch that the ledger has given away or that its holder has released.
fn s2(s: &State) -> bool {
    NODES.into_iter().all(|n| {
        let node = &s.nodes[n];
        let past = |epoch: u8| epoch < s.ledger.epoch || epoch == s.ledger.epoch && s.ledger.released;
        let past = |epoch: u8| past(epoch) && !s.ended_unheard(epoch);
        (node.open == 0 || !past(node.open)) && (node.lease_left == 0 || !past(node.lease_epoch))
    })
}

/// Once the others take the lease for ended, it has, and with it every process that could commit.
fn s5(s: &State) -> bool {
    s.ledger.fences.iter().filter(|fence| fence.stage == Stage::ByLease).all(|fence| {
        let node = &s.nodes[fence.target as usize];
        let epoch = s.ledger.epoch;
        node.open != epoch && (node.lease_left == 0 || node.lease_epoch != epoch)
    })
}

fn writes_under(s: &State, epoch: u8) -> bool {
    NODES.into_iter().any(|n| s.nodes[n].open == epoch)
}

fn forced(via: Via) -> bool {
    matches!(via, Via::Power | Via::Lease)
}

pub const AFTER_POWER: Question<State> =
    ("failover after a power fence", |s| s.ledger.via[0] == Via::Power && writes_under(s, 2));
pub const AFTER_LEASE: Question<State> =
    ("failover after the lease", |s| s.ledger.via[0] == Via::Lease && writes_under(s, 2));
pub const AFTER_RELEASE: Question<State> =
    ("move after a release", |s| s.ledger.via[0] == Via::Release && writes_under(s, 2));
pub const SECOND: Question<State> = ("second failover", |s| s.ledger.via.into_iter().all(forced) && writes_under(s, 3));
pub const REFUTED: Question<State> = ("a lie that is refuted", |s| {
    let ordered = s.ledger.fences.iter().any(|f| f.stage == Stage::Ordered && !f.off && !f.said);
    s.lied && ordered && !s.ledger.running && NODES.into_iter().all(|n| s.nodes[n].agent == Agent::None)
});
pub const UNHEARD: Question<State> =
    ("failover on a lie that nobody could tell", |s| s.ledger.via[0] == Via::Unheard && writes_under(s, 2));
pub const BEHIND: Question<State> = ("an executor whose copy runs an order that has ended", |s| {
    let ended = |(number, _)| s.running().is_none_or(|(running, _)| running != number);
    NODES.into_iter().any(|n| s.nodes[n].up && s.running_by_the_copy_of(n).is_some_and(ended))
});
pub const SECOND_ORDER: Question<State> =
    ("failover by the second order", |s| s.ledger.via[0] == Via::Power && s.ledger.ordered == 2 && writes_under(s, 2));
pub const SWITCHED_ON: Question<State> = ("a node that is switched on after its failover", |s| {
    let done = |n: usize| s.nodes[n].agent == Agent::Succeeded;
    let on = |n: usize| done(n) && s.ledger.orders[s.nodes[n].agent_order as usize - 1].deed == Deed::On;
    NODES.into_iter().any(on)
});
pub const PASSED: Question<State> =
    ("move after an appointee was passed over", |s| s.ledger.via[1] == Via::PassedOver && writes_under(s, 3));
pub const NOBODY_SHOT: Question<State> = ("move after a verdict, without a fence", |s| {
    s.ledger.via[0] == Via::Release && s.ledger.fences[0].stage == Stage::Unused && writes_under(s, 2)
});
