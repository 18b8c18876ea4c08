//! S9: no appointment rests on a fence that signs of life contradict. After one by power, or by a person, any heartbeat of
//! that boot is one, as long as somebody with a say hears it; a voter whose own channel failed has not heard that the node
//! fell silent. After one by lease, storage or network a database that could still acknowledge is one, and so is one that
//! still feeds a standby.

use crate::cluster::World;
use crate::database::Process;
use crate::network::{CHANNELS, DISK};
use regent::ledger::{Basis, CheckAnswer, Confirmation, Fence, State};
use regent::types::{AgentKind, ServiceName};

pub fn appointment(w: &mut World, before: &State, basis: &Basis) {
    let Basis::Fenced { fence, checks, .. } = basis else { return };
    let Some(fence) = before.fences.get(fence) else { return };
    let demands_silence = match &fence.confirmed {
        Some(Confirmation::Level { kinds, .. }) => kinds.contains(&AgentKind::Power),
        Some(Confirmation::Human { force, .. }) => !force,
        None => true,
    };
    let host = w.host(&fence.target);
    let lives = w.hosts[host].is_sending() && w.hosts[host].boot() == fence.boot;
    if demands_silence && lives {
        let heard_by = w.who_can_tell(host).next();
        if let Some(by) = heard_by {
            let what = format!("an appointment on the fence of {}, which {} hears", fence.target, w.hosts[by].name);
            return w.violate("S9", what);
        }
        // What cannot acknowledge any more under its lease may be heard or not.
        let could = |service: &ServiceName| w.could_acknowledge_later(host, w.index(service));
        if !fence.epochs.keys().any(could) {
            return;
        }
        let holds = checks.iter().filter(|(_, answer)| **answer == CheckAnswer::Holds).map(|(voter, _)| w.host(voter));
        let blind: Vec<_> = holds.filter(|voter| has_gone_blind(w, *voter, host)).collect();
        if let Some(by) = blind.first() {
            let (target, by) = (&fence.target, &w.hosts[*by].name);
            let what =
                format!("an appointment on the fence of {target}, which {by} heard until its own channel failed");
            w.violate("S9", what);
        }
    } else if !demands_silence {
        database_lives(w, host, fence);
    }
}

/// Whether this voter heard that host on the disk after its fence was opened, or just before, until it could itself read
/// the disk no more.
fn has_gone_blind(w: &World, voter: usize, host: usize) -> bool {
    let writes = !w.net.diskless[host] && !w.net.disk_mute[host];
    let since = w.facts.fence_opened[host].saturating_sub(w.facts.times.interval * 3);
    voter != host
        && writes
        && w.net.disk_deaf[voter]
        && !w.net.diskless[voter]
        && w.hosts[voter].started_at < since
        && w.facts.hearing.last(voter, host, CHANNELS.len() - 1) >= since
}

/// A fence that leaves its host running must have ended what the database can do.
fn database_lives(w: &mut World, host: usize, fence: &Fence) {
    debug_assert_eq!(DISK, CHANNELS.len() - 1, "the disk is the last channel");
    if w.hosts[host].boot() != fence.boot || !w.hosts[host].power {
        return;
    }
    for service in fence.epochs.keys() {
        let s = w.index(service);
        let runs = w.hosts[host].databases.get(s).is_some_and(|db| db.process == Process::Primary);
        let fed = w.hosts.iter().position(|h| h.databases.get(s).is_some_and(|db| db.streams_from == Some(host)));
        let target = &fence.target;
        let what = match fed.filter(|_| runs) {
            Some(by) => format!("an appointment on the fence of {target}, whose database feeds {}", w.hosts[by].name),
            None if w.could_acknowledge_later(host, s) => {
                format!("an appointment on the fence of {target}, whose database could still acknowledge")
            }
            None => continue,
        };
        // A person's wrong word that nobody could contradict.
        if !w.is_excused(host, s) {
            return w.violate("S9", what);
        }
    }
}
