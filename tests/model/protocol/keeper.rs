//! What the holder of an epoch does, and who lets it: join, lease, open, stop, release, pause.
//!
//! Not here: how an epoch is taken from a holder that says nothing; see `verdict` and `appointment`.

use super::Protocol;
use crate::state::{Ask, NODES, Stage, State, TTL, WAIT};
use crate::step::{Bug, Step};

type Next = Vec<(Step, State)>;

pub fn steps(p: &Protocol, s: &State, into: &mut Next) {
    for node in NODES {
        if s.nodes[node].up {
            join(p, s, node, into);
            ask(p, s, node, into);
            arrive(p, s, node, into);
            open(p, s, node, into);
            if p.scope.releases {
                stop(p, s, node, into);
                release(p, s, node, into);
            }
            learn(p, s, node, into);
            learn_dead(p, s, node, into);
        }
        end_stop(p, s, node, into);
        for by in NODES {
            grant(p, s, by, node, into);
        }
    }
    if p.scope.pause {
        pause(p, s, into);
    }
}

/// The ledger issues an incarnation. Whoever holds the epoch says what became of it: adopted, which only the same boot
/// may say while nothing was decided against it, or over.
fn join(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let (n, l) = (&s.nodes[node], &s.ledger);
    if n.joined || l.incarnation[node] >= 3 || !s.leader().is_some_and(|leader| s.reaches(leader, node)) {
        return;
    }
    let mut t = *s;
    let holds = s.holder() == node && !l.released;
    if holds && n.tomb < l.epoch {
        if n.boot != l.boot[node] || l.dead[node] || s.fence_of(node).is_some() {
            return;
        }
    } else if holds {
        (t.ledger.released, t.ledger.passes) = (true, Default::default());
    }
    // A fence is about a boot, and about an epoch that is not over.
    if let Some(id) = s.fence_of(node)
        && (t.ledger.released || l.fences[id].boot != n.boot)
    {
        t.ledger.fences[id].stage = Stage::Closed;
        t.ledger.checks = 0;
    }
    t.ledger.incarnation[node] += 1;
    t.ledger.boot[node] = n.boot;
    t.ledger.dead[node] = false;
    t.nodes[node].joined = true;
    p.push(into, Step::Join { node }, t);
}

/// A keeper may be behind and ask for an epoch that has passed on. It never asks for one that it has given up.
fn ask(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if !n.joined || n.stopping || n.ask != Ask::None {
        return;
    }
    for epoch in n.tomb + 1..=s.ledger.epoch {
        if s.ledger.holder[epoch as usize] as usize == node {
            let mut t = *s;
            let asks = &mut t.nodes[node];
            (asks.ask, asks.ask_epoch, asks.ask_age, asks.ask_resumed) = (Ask::Sent, epoch, 0, n.pause == 2);
            p.push(into, Step::Ask { node, epoch }, t);
        }
    }
}

/// A leader that a quorum answers grants to the holder of the present epoch, unless something was decided against it.
fn grant(p: &Protocol, s: &State, by: usize, to: usize, into: &mut Next) {
    let (n, l) = (&s.nodes[to], &s.ledger);
    if n.ask != Ask::Sent || !s.reaches(by, to) || !s.nodes[by].leads {
        return;
    }
    if !s.has_quorum(by) {
        // Such a leader does not know what was committed after its term.
        let goes_by_old_news = p.scope.has(Bug::GrantWithoutQuorum) && s.nodes[by].believes == n.ask_epoch;
        if !goes_by_old_news {
            return;
        }
    } else {
        let old = n.ask_epoch != l.epoch || l.released;
        if old && !p.scope.has(Bug::EpochNotChecked) {
            return;
        }
        if l.denied && !old && !p.scope.has(Bug::GrantAfterDenial) {
            return;
        }
        let condemned = l.dead[to] || s.fence_of(to).is_some();
        if condemned && !p.scope.has(Bug::GrantAfterTheVerdict) {
            return;
        }
    }
    let mut t = *s;
    t.broken.s4 |= n.ask_epoch != l.epoch;
    t.nodes[to].ask = Ask::Granted;
    t.nodes[by].book = WAIT;
    t.ledger.granted |= l.own && n.ask_epoch == l.epoch;
    if l.pause == 2 && n.ask_resumed {
        t.ledger.barred = false;
    }
    p.push(into, Step::Grant { by, to }, t);
}

/// The grant is worth what is left of it since before the request was sent.
fn arrive(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.ask != Ask::Granted {
        return;
    }
    let mut t = *s;
    let worth = if p.scope.has(Bug::LeaseCountedFromTheAnswer) { TTL } else { TTL.saturating_sub(n.ask_age) };
    let gets = &mut t.nodes[node];
    gets.ask = Ask::None;
    if n.ask_epoch > n.tomb && !n.stopping && worth > 0 {
        let same = n.lease_epoch == n.ask_epoch;
        gets.lease_left = if same { n.lease_left.max(worth) } else { worth };
        gets.lease_epoch = n.ask_epoch;
    }
    p.push(into, Step::Arrive { node }, t);
}

fn open(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.joined && n.open == 0 && n.lease_left > 0 && n.lease_epoch > n.tomb {
        let mut t = *s;
        t.nodes[node].open = n.lease_epoch;
        t.broken.s4 |= n.lease_epoch != s.ledger.epoch && !s.ended_unheard(n.lease_epoch);
        p.push(into, Step::Open { node, epoch: n.lease_epoch }, t);
    }
}

/// A keeper may stop its database at any time (a switchover, a lapse, trouble of its own), and one whose database is
/// closed may give its epoch up.
fn stop(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.open > 0 && !n.stopping {
        let mut t = *s;
        t.nodes[node].stopping = true;
        p.push(into, Step::BeginStop { node }, t);
    }
    if n.open == 0 && s.holder() == node && n.tomb < s.ledger.epoch {
        let mut t = *s;
        let gives = &mut t.nodes[node];
        (gives.tomb, gives.lease_left, gives.ask) = (s.ledger.epoch, 0, Ask::None);
        p.push(into, Step::GiveUp { node }, t);
    }
}

/// The last process is gone, and the tombstone is written.
fn end_stop(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if n.stopping {
        let mut t = *s;
        let ends = &mut t.nodes[node];
        (ends.tomb, ends.open, ends.stopping) = (n.tomb.max(n.open), 0, false);
        (ends.lease_left, ends.ask) = (0, Ask::None);
        p.push(into, Step::EndStop { node }, t);
    }
}

/// The holder's own word that its epoch is over, carried by whoever hears it.
fn release(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let (n, l) = (&s.nodes[node], &s.ledger);
    let present = n.joined && n.boot == l.boot[node] && s.holder() == node && !l.released;
    let over = n.open == 0 && n.tomb >= l.epoch || n.stopping && p.scope.has(Bug::ReleasedBeforeTheEnd);
    if present && over && s.leader().is_some_and(|leader| s.reaches(leader, node)) {
        let mut t = *s;
        (t.ledger.released, t.ledger.passes) = (true, Default::default());
        if let Some(id) = s.fence_of(node) {
            t.ledger.fences[id].stage = Stage::Closed;
            t.ledger.checks = 0;
        }
        p.push(into, Step::Release { node }, t);
    }
}

fn pause(p: &Protocol, s: &State, into: &mut Next) {
    if s.leader().is_none() || s.ledger.pause == 2 {
        return;
    }
    let mut t = *s;
    t.ledger.pause += 1;
    t.ledger.barred = true;
    p.push(into, if s.ledger.pause == 0 { Step::Pause } else { Step::Resume }, t);
}

fn learn(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let concerned = s.holder() == node || s.nodes[node].open > 0;
    let hears = s.leader().is_some_and(|leader| s.reaches(leader, node));
    if concerned && hears && s.nodes[node].pause < s.ledger.pause {
        let mut t = *s;
        t.nodes[node].pause = s.ledger.pause;
        p.push(into, Step::Learn { node }, t);
    }
}

/// Whoever learns that it was declared dead closes its database, vows, and joins anew.
fn learn_dead(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    let hears = s.leader().is_some_and(|leader| s.reaches(leader, node));
    if p.scope.late && n.joined && s.ledger.dead[node] && hears {
        let mut t = *s;
        let learns = &mut t.nodes[node];
        (learns.joined, learns.stopping, learns.ask) = (false, n.open > 0, Ask::None);
        if n.open == 0 && s.holder() == node {
            (learns.tomb, learns.lease_left) = (s.ledger.epoch, 0);
        }
        p.push(into, Step::LearnDead { node }, t);
    }
}
