//! What happens by itself: time, faults, power, elections, the start of daemons.
//!
//! Not here: what nodes decide. A fault may happen at any moment as long as its number is not used up.

use super::{Protocol, executor, verdict};
use crate::state::{Agent, Ask, NODES, Node, State, TTL, WAIT, pair};
use crate::step::{Bug, Step};

type Next = Vec<(Step, State)>;

pub fn steps(p: &Protocol, s: &State, into: &mut Next) {
    p.push(into, Step::Tick, tick(p, s));
    faults(p, s, into);
    for node in NODES {
        power_on(p, s, node, into);
        start(p, s, node, into);
        for voter in NODES {
            elect(p, s, node, voter, into);
        }
    }
}

/// One tick on every clock. A database whose lease had ended before it is gone after it: guard and watchdog see to
/// that, whether or not the daemon still runs.
fn tick(p: &Protocol, s: &State) -> State {
    let mut t = *s;
    for node in &mut t.nodes {
        if node.lease_left == 0 && node.open > 0 && node.pause != 1 {
            (node.open, node.stopping) = (0, false);
        }
        node.lease_left = node.lease_left.saturating_sub(1);
        node.book = node.book.saturating_sub(1);
        if node.ask != Ask::None {
            node.ask_age = (node.ask_age + 1).min(TTL);
            // A grant would be worth nothing any more.
            if node.ask_age == TTL && !p.scope.has(Bug::LeaseCountedFromTheAnswer) {
                node.ask = Ask::None;
            }
        }
    }
    executor::tick(p, &mut t);
    t.steady = [p.counts_hearing(); 3];
    t.ledger.round.stale = p.scope.late && t.ledger.round.open;
    verdict::refute_in_time(p, &mut t);
    if t.ledger.dead[t.holder()] {
        t.ledger.verdict_age = (t.ledger.verdict_age + 1).min(WAIT);
    }
    t
}

fn faults(p: &Protocol, s: &State, into: &mut Next) {
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let place = pair(a, b);
        let mut t = *s;
        t.cut[place] = !s.cut[place];
        if s.cut[place] {
            p.push(into, Step::Heal { pair: place }, t);
        } else if s.cuts > 0 {
            t.cuts -= 1;
            p.push(into, Step::Cut { pair: place }, t);
        }
    }
    for node in NODES {
        if s.crashes > 0 && s.nodes[node].up {
            let mut t = *s;
            t.crashes -= 1;
            let n = &mut t.nodes[node];
            (n.up, n.joined, n.leads, n.stopping, n.ask, n.believes) = (false, false, false, false, Ask::None, 0);
            n.book = 0;
            // An agent runs on, within its time.
            if n.agent != Agent::Running {
                n.agent = Agent::None;
            }
            p.push(into, Step::Crash { node }, t);
        }
        if s.outages > 0 && s.nodes[node].on {
            let mut t = *s;
            t.outages -= 1;
            t.nodes[node].on = false;
            p.push(into, Step::Outage { node }, t);
        }
    }
}

fn power_on(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    if !s.nodes[node].on && s.nodes[node].boot < 3 {
        let mut t = *s;
        (t.nodes[node].on, t.nodes[node].boot) = (true, s.nodes[node].boot + 1);
        p.push(into, Step::PowerOn { node }, t);
    }
}

/// A daemon starts: it ends the agents that an earlier one left. It adopts a lease that is still valid, or makes sure that
/// the database is closed and vows so.
fn start(p: &Protocol, s: &State, node: usize, into: &mut Next) {
    let n = &s.nodes[node];
    if !n.on || n.up {
        return;
    }
    if n.open > 0 && n.lease_left > 0 {
        let mut t = *s;
        (t.nodes[node].up, t.nodes[node].agent) = (true, Agent::None);
        p.push(into, Step::Start { node, adopts: true }, t);
    }
    let mut t = *s;
    let held = (1..=s.ledger.epoch).filter(|e| s.ledger.holder[*e as usize] as usize == node).max().unwrap_or(0);
    t.nodes[node] = Node { up: true, agent: Agent::None, open: 0, lease_left: 0, tomb: n.tomb.max(held), ..*n };
    p.push(into, Step::Start { node, adopts: false }, t);
}

/// A candidate and one more are a majority. The book of leases begins anew: whatever an earlier leader granted was
/// granted before these votes.
fn elect(p: &Protocol, s: &State, node: usize, voter: usize, into: &mut Next) {
    if s.ledger.term >= p.scope.terms || !s.linked(node, voter) {
        return;
    }
    let mut t = *s;
    let term = s.ledger.term + 1;
    if p.scope.has(Bug::GrantWithoutQuorum) {
        for n in NODES.into_iter().filter(|n| s.nodes[*n].leads && s.nodes[*n].term == s.ledger.term) {
            let knows_better = s.ledger.released || s.ledger.dead[s.holder()];
            t.nodes[n].believes = if knows_better { 0 } else { s.ledger.epoch };
        }
    }
    t.ledger.term = term;
    t.ledger.checks = 0;
    // A proposal that carries its answers may still commit.
    if p.scope.late && s.ledger.round.answers.count_ones() >= 2 {
        t.ledger.round.stale = true;
    } else {
        t.ledger.round = Default::default();
    }
    // What the last leader proposed is lost; if it is not, it was committed before.
    t.ledger.passes = Default::default();
    (t.ledger.own, t.ledger.granted) = (p.scope.has(Bug::PassedOverInAnotherTerm) && t.ledger.own, false);
    for n in [node, voter] {
        t.nodes[n].term = term;
        t.nodes[n].leads = n == node;
        t.nodes[n].believes = 0;
    }
    if !p.scope.has(Bug::BookKeptAcrossTerms) {
        t.nodes[voter].book = 0;
        t.nodes[node].book = WAIT;
    }
    p.push(into, Step::Elect { node, voter }, t);
}
