//! How a holder that says nothing is declared dead, fenced, and the fence checked.
//!
//! Not here: what the end of an epoch is good for; see `appointment`.

use super::{Protocol, executor};
use crate::state::{Deed, Fence, NODES, Round, Stage, State, WAIT};
use crate::step::{Bug, Step};

type Next = Vec<(Step, State)>;

pub fn steps(p: &Protocol, s: &State, into: &mut Next) {
    for fence in 0..3 {
        device(p, s, fence, into);
    }
    // Everything else is a question that a leader puts, or an entry that it commits.
    let Some(leader) = s.leader() else { return };
    round(p, s, leader, into);
    declare(p, s, into);
    order(p, s, leader, into);
    for fence in 0..3 {
        confirm(p, s, fence, into);
        wait_over(p, s, leader, fence, into);
    }
    for voter in NODES {
        check(p, s, leader, voter, into);
    }
}

fn suspects(p: &Protocol, s: &State, voter: usize, node: usize) -> bool {
    voter != node && (p.scope.false_suspicion || !s.linked(voter, node))
}

/// The leader opens a round with its own answer; the others look again. A round that is open may be given up for a new
/// one. What it says may be old when it is proposed.
fn round(p: &Protocol, s: &State, leader: usize, into: &mut Next) {
    let (l, target) = (&s.ledger, s.holder());
    let fresh = Round {
        open: true,
        target: target as u8,
        incarnation: l.incarnation[target],
        answers: 1 << leader,
        stale: false,
    };
    // A verdict whose evidence is old needs a look before anybody is fenced.
    let is_to_look = p.scope.late && s.fence_of(target).is_none() && !has_fresh_evidence(s, target);
    if !l.released && (!l.dead[target] || is_to_look) && suspects(p, s, leader, target) && l.round != fresh {
        let known = l.round.open && Round { answers: fresh.answers, ..l.round } == fresh;
        if !known {
            let mut t = *s;
            t.ledger.round = fresh;
            p.push(into, Step::Suspect { leader }, t);
        }
    }
    for voter in NODES {
        let asked = l.round.open && !l.round.stale && l.round.answers & 1 << voter == 0 && s.reaches(leader, voter);
        if asked && voter != leader && suspects(p, s, voter, l.round.target as usize) {
            let mut t = *s;
            t.ledger.round.answers |= 1 << voter;
            p.push(into, Step::Answer { voter }, t);
        }
    }
}

/// The ledger counts the answers, of all voters, and compares the incarnation.
fn declare(p: &Protocol, s: &State, into: &mut Next) {
    let (l, node) = (&s.ledger, s.ledger.round.target as usize);
    if !l.round.open || p.scope.late && l.dead[node] {
        return;
    }
    let count = l.round.answers.count_ones();
    let living = NODES.into_iter().filter(|n| *n != node && s.nodes[*n].up).count() as u32;
    let needed = if p.scope.has(Bug::MajorityOfTheLiving) { living / 2 + 1 } else { 2 };
    if count < needed {
        return;
    }
    let mut t = *s;
    if !p.scope.late {
        t.ledger.round = Round::default();
    }
    let present = l.round.incarnation == l.incarnation[node];
    if (present || p.scope.has(Bug::VerdictForAnOldIncarnation)) && !l.dead[node] {
        t.ledger.dead[node] = true;
        t.ledger.verdict_age = 0;
        t.broken.s3 |= count < 2;
        t.broken.s4 |= !present;
    }
    p.push(into, Step::Declare { node }, t);
}

/// A majority has lost this incarnation, by a round of the present leader in which no tick has passed.
fn has_fresh_evidence(s: &State, node: usize) -> bool {
    let round = &s.ledger.round;
    let is_about = round.open && round.target as usize == node && round.incarnation == s.ledger.incarnation[node];
    is_about && !round.stale && round.answers.count_ones() >= 2
}

/// Only the boot that holds the epoch is fenced, never during a pause, and one fence at a time.
fn order(p: &Protocol, s: &State, leader: usize, into: &mut Next) {
    let (l, node) = (&s.ledger, s.holder());
    let number = l.fences.iter().position(|fence| fence.stage == Stage::Unused).unwrap_or(3);
    let wanted = l.dead[node] && !l.released && l.pause != 1 && s.fence_of(node).is_none();
    let believed = !p.scope.late || has_fresh_evidence(s, node) || p.scope.has(Bug::LateVerdictObeyed);
    if !wanted || !believed || number >= p.scope.fences as usize {
        return;
    }
    let mut t = *s;
    let judged = p.scope.late && !p.scope.false_suspicion;
    t.ledger.fences[number] = Fence {
        stage: Stage::Ordered,
        target: node as u8,
        boot: l.boot[node],
        off: p.scope.power && !p.scope.executors,
        said: false,
        was_heard: judged && NODES.into_iter().any(|voter| s.heard_steadily(node, voter)),
    };
    t.ledger.round = Round::default();
    if !p.scope.executors || !p.scope.power {
        p.push(into, Step::Order { node }, t);
        return;
    }
    for by in NODES.into_iter().filter(|by| *by != node) {
        if let Some(ordered) = executor::order(p, &t, leader, by, Deed::Off, number as u8) {
            p.push(into, Step::OrderBy { node, by }, ordered);
        }
    }
}

/// Whether an `off` for this fence hits a boot that was heard when the fence was first ordered.
pub fn shoots_somebody_heard(s: &State, fence: &Fence) -> bool {
    let node = &s.nodes[fence.target as usize];
    fence.was_heard && node.on && node.boot == fence.boot
}

/// The device acts when it likes, however late, on the host and not on a boot; or it does nothing and lies.
fn device(p: &Protocol, s: &State, fence: usize, into: &mut Next) {
    let order = s.ledger.fences[fence];
    let node = order.target as usize;
    if !order.off {
        return;
    }
    let in_time = order.stage == Stage::Ordered;
    let mut t = *s;
    t.broken.s8 |= shoots_somebody_heard(s, &order);
    t.nodes[node].on = false;
    t.ledger.fences[fence] = Fence { off: false, said: in_time, ..order };
    p.push(into, Step::Off { fence, node }, t);
    if p.scope.lie && in_time && !s.lied && s.nodes[node].on && s.nodes[node].boot == order.boot {
        let mut t = *s;
        t.lied = true;
        t.ledger.fences[fence] = Fence { off: false, said: true, ..order };
        p.push(into, Step::Lie { fence, node }, t);
    }
}

/// The agent's success reaches the ledger, perhaps long after.
fn confirm(p: &Protocol, s: &State, fence: usize, into: &mut Next) {
    let (l, order) = (&s.ledger, s.ledger.fences[fence]);
    if !order.said {
        return;
    }
    let node = order.target as usize;
    let in_force = order.stage == Stage::Ordered && order.boot == l.boot[node];
    let mistaken = p.scope.has(Bug::FenceForAnOldBoot) && node == s.holder() && !l.released;
    let mut t = *s;
    t.ledger.fences[fence].said = false;
    if in_force || mistaken {
        t.ledger.fences[fence].stage = Stage::ByPower;
        t.ledger.checks = 0;
        t.broken.s4 |= !in_force;
    }
    p.push(into, Step::Confirm { fence }, t);
}

/// By the leader's book of this term, or because it waited long enough after the verdict. The program does only the
/// second; the design allows both.
fn wait_over(p: &Protocol, s: &State, leader: usize, fence: usize, into: &mut Next) {
    let (l, order) = (&s.ledger, s.ledger.fences[fence]);
    let waited = s.nodes[leader].book == 0 || l.verdict_age >= WAIT;
    let proves = l.pause != 1 && !l.barred || p.scope.has(Bug::PauseNotRespected);
    if p.scope.lease && order.stage == Stage::Ordered && waited && proves {
        let mut t = *s;
        t.ledger.fences[fence].stage = Stage::ByLease;
        t.ledger.checks = 0;
        p.push(into, Step::WaitOver { fence }, t);
    }
}

/// Whether what this voter hears contradicts the confirmed fence.
pub fn hears_life(s: &State, voter: usize, fence: usize) -> bool {
    let order = s.ledger.fences[fence];
    let node = order.target as usize;
    let heard = s.linked(voter, node) && s.nodes[node].boot == order.boot;
    match order.stage {
        Stage::ByPower => heard,
        Stage::ByLease => heard && s.nodes[node].tomb < s.ledger.epoch,
        Stage::Unused | Stage::Ordered | Stage::Closed => false,
    }
}

/// Whoever has heard life for a tick has said so, if a leader hears it. And an answer of the check has an age: what was
/// said before the tick is asked again, because a leader that nobody heard meanwhile was told of no life.
pub fn refute_in_time(p: &Protocol, s: &mut State) {
    if p.scope.lie && !p.scope.has(Bug::OldCheckBelieved) {
        s.ledger.checks = 0;
    }
    let (Some(fence), Some(leader)) = (s.fence_of(s.holder()), s.leader()) else { return };
    let refutes = |voter| hears_life(s, voter, fence) && s.reaches(leader, voter);
    let blind = p.scope.has(Bug::FenceBelievedInSpiteOfLife);
    if p.scope.lie && s.ledger.fences[fence].stage == Stage::ByPower && !blind && NODES.into_iter().any(refutes) {
        s.ledger.fences[fence].stage = Stage::Ordered;
        s.ledger.checks = 0;
    }
}

/// Each voter looks for life and says what it found. After a refutation the next level has its turn, which is the
/// wait for the lease.
fn check(p: &Protocol, s: &State, leader: usize, voter: usize, into: &mut Next) {
    let Some(fence) = s.fence_of(s.holder()) else { return };
    let order = s.ledger.fences[fence];
    let is_asked = order.stage != Stage::Ordered && voter != order.target as usize && s.reaches(leader, voter);
    if !is_asked {
        return;
    }
    let blind = p.scope.has(Bug::FenceBelievedInSpiteOfLife);
    let mut t = *s;
    if hears_life(s, voter, fence) && !blind {
        t.ledger.fences[fence].stage = Stage::Ordered;
        t.ledger.checks = 0;
        p.push(into, Step::Refute { voter }, t);
    } else if s.ledger.checks & 1 << voter == 0 {
        t.ledger.checks |= 1 << voter;
        p.push(into, Step::Check { voter }, t);
    }
}
