//! S8: nobody is accused who was not silent, or cut off on a majority of channels from a majority of voters, a moment
//! before; and no holder is called lapsed whose lease runs. Judged when the leader proposes it: an entry may commit late.

use crate::cluster::World;
use regent::ledger::{Command, FenceReason};

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
            // In the time of the world: a guest whose clock stood still with it believes in its lease for longer, and
            // is fenced for it rightly.
            let runs = w.facts.leases.until_elsewhere(host, s, *epoch).is_some_and(|until| w.now < until);
            if runs && w.acknowledges(host, s) {
                w.facts.counts.false_failovers += 1;
                w.violate("S8", format!("{target} is to be fenced as lapsed, and its lease runs"));
            }
        }
        _ => {}
    }
}
