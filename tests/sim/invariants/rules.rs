//! What assistants leave behind (S4): each fence has rules of its own, and takes its own back. Once everything has come to
//! rest, no rule of a fence that is closed is in force on any host that runs.

use crate::cluster::{S, World};
use crate::rules::Rule;
use regent::types::FenceId;

/// A rule that is in force on a host that runs, of a fence that is closed.
fn left(w: &World, rest: &[usize]) -> Option<Rule> {
    let open = |fence: &FenceId| w.log.state().fences.get(fence).is_some_and(|f| f.is_open());
    let runs = |r: &Rule| !rest.contains(&r.host) && w.is_alive(r.host);
    w.rules.iter().find(|r| runs(r) && !open(&r.fence)).cloned()
}

/// Whether a rule of this fence is in force on this host.
pub fn stands(w: &World, host: usize, fence: FenceId) -> bool {
    w.rules.iter().any(|r| (r.host, r.fence) == (host, fence))
}

/// A look at a host sees nothing now and then, and an undoing fails now and then: both are tried again after ten seconds,
/// in which nothing else need happen.
const TRIES: u64 = 6 * 10 * S;

/// At the end, when everything has come to rest.
pub fn at_the_end(w: &mut World, rest: &[usize]) {
    let until = w.now + TRIES;
    while left(w, rest).is_some() && w.now < until && w.facts.violation.is_none() {
        w.run_until(w.now + S);
    }
    if let Some(Rule { host, fence, agent, target }) = left(w, rest) {
        let (on, against) = (&w.hosts[host].name, &w.hosts[target].name);
        let what = format!("{agent} against {against} is in force on {on}, and its fence {fence} is closed");
        w.violate("rules", what);
    }
}
