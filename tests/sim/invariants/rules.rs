//! What assistants leave behind (S4): each fence has rules of its own, and takes its own back. Once everything has come to
//! rest, no rule of a fence that is closed is in force on any host that runs.

use crate::cluster::World;
use crate::rules::Rule;
use regent::ledger::Fence;
use regent::types::FenceId;

/// Whether a rule of this fence is in force on this host.
pub fn stands(w: &World, host: usize, fence: FenceId) -> bool {
    w.rules.iter().any(|r| (r.host, r.fence) == (host, fence))
}

/// At the end, when everything has come to rest.
pub fn at_the_end(w: &mut World, rest: &[usize]) {
    let open = |fence: &FenceId| w.log.state().fences.get(fence).is_some_and(Fence::is_open);
    let runs = |r: &Rule| !rest.contains(&r.host) && w.is_alive(r.host);
    let left = w.rules.iter().find(|r| runs(r) && !open(&r.fence)).cloned();
    if let Some(Rule { host, fence, agent, target }) = left {
        let (on, against) = (&w.hosts[host].name, &w.hosts[target].name);
        let what = format!("{agent} against {against} is in force on {on}, and its fence {fence} is closed");
        w.violate("rules", what);
    }
}
