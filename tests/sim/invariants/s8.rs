//! S8: nobody is accused who was not silent, or cut off on a majority of channels from a majority of voters, a moment
//! before; and no holder is called lapsed whose lease runs. Judged when the leader proposes it. An entry may commit later,
//! and by then its node may be healthy: that is counted, and no harm as long as nobody is fenced by it, which is judged
//! when the first agent is started (`power.rs`).

use crate::cluster::World;
use regent::ledger::{Command, FenceReason};
use regent::types::{Epoch, FenceId};

pub fn proposed(w: &mut World, command: &Command) {
    match command {
        Command::DeclareDead { target, .. } => {
            let host = w.host(target);
            if !w.is_rightly_suspected(host) {
                w.facts.counts.false_failovers += 1;
                let ears = w.facts.hearing.tell(w.now, host);
                w.note(|_| format!("{ears}; {command:?}"));
                w.violate("S8", format!("{target} is to be declared dead, and no majority had a reason for that"));
            }
        }
        // Who waited as the leader of another term proposes in vain: S4 looks at that.
        Command::OpenFence { reason: FenceReason::Lapsed { term, .. }, .. } if *term != w.log.term() => {}
        Command::OpenFence { target, reason: FenceReason::Lapsed { service, epoch, .. }, .. } => {
            let (host, s) = (w.host(target), w.index(service));
            if lease_runs(w, host, s, *epoch) {
                w.facts.counts.false_failovers += 1;
                w.violate("S8", format!("{target} is to be fenced as lapsed, and its lease runs"));
            }
        }
        _ => {}
    }
}

/// A verdict was committed that was proposed then: may be, too late to be true.
pub fn committed(w: &mut World, host: usize, proposed: u64) {
    let late = w.now > proposed + w.facts.times.verdict_memory;
    if late && w.is_heard_well(host, w.facts.times.pause) {
        w.facts.counts.late_verdicts += 1;
        let name = w.hosts[host].name.clone();
        w.note(|_| format!("a late verdict: {name} is heard well"));
    }
}

/// Whether it takes writes under a lease that runs: in the time of the world, because a guest whose clock stood still with
/// it believes in its lease for longer, and is fenced for it rightly.
pub fn lease_runs(w: &World, host: usize, service: usize, epoch: Epoch) -> bool {
    let until = w.facts.leases.until_elsewhere(host, service, epoch);
    until.is_some_and(|until| w.now < until) && w.acknowledges(host, service)
}

/// The epochs that hang on a fence.
pub fn holds(w: &World, fence: FenceId) -> Vec<(usize, Epoch)> {
    let epochs = w.log.state().fences.get(&fence).map(|f| f.epochs.clone()).unwrap_or_default();
    epochs.into_iter().map(|(service, epoch)| (w.index(&service), epoch)).collect()
}
