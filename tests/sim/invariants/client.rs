//! The clients: every acknowledged commit is remembered with its place in history. Whoever is opened for writes must
//! have it; in a synchronous mode that is S6. In an asynchronous one the loss is counted, and an incident must have named
//! it by then (S7); so must what an old primary had of its own, once it was overwritten.

use crate::cluster::World;
use crate::oracle::Kept;
use regent::ledger::{Happening, Incident};
use regent::types::{Lsn, Timeline};

/// A postmaster was opened for writes.
pub fn opened(w: &mut World, host: usize, service: usize) {
    // What opens in an epoch that is over, because a device lied about its host and nobody could tell (an assumption), is
    // not what clients go on with.
    if w.is_excused(host, service) {
        return;
    }
    let db = &w.hosts[host].databases[service];
    let (at, history) = (db.at, db.history.clone());
    let has = |timeline, lsn: Lsn| match history.left_at(timeline) {
        Some(left) => lsn <= left,
        None => timeline == at.timeline && lsn <= at.lsn,
    };
    let lost: Vec<_> = w.facts.services[service]
        .acknowledged
        .iter()
        .filter(|(timeline, (lsn, _))| !has(**timeline, *lsn))
        .map(|(timeline, (lsn, by))| (*timeline, *lsn, *by))
        .collect();
    for (timeline, lsn, by) in lost {
        let kept = history.left_at(timeline).unwrap_or(Lsn(0)).0;
        let writes = lsn.0.saturating_sub(kept) / 64;
        let what = format!(
            "{} has not what {} acknowledged on timeline {timeline} up to {lsn}",
            w.hosts[host].name, w.hosts[by].name
        );
        w.note(|_| format!("LOST: {what}"));
        // Lost once is lost: from here on this line is the truth.
        match kept {
            0 => w.facts.services[service].acknowledged.remove(&timeline),
            _ => w.facts.services[service].acknowledged.insert(timeline, (Lsn(kept), by)),
        };
        // Under the same lie it acknowledged beside the new primary, as S1 excuses.
        if w.is_lied_about(by) {
            continue;
        }
        w.facts.counts.lost += writes;
        if !is_named(w, service, timeline, Lsn(kept), lsn) {
            w.violate("S7", format!("{what}, and no incident says so"));
        }
        if w.sync > 0 {
            super::s6::lost(w, service, &what);
        }
    }
}

/// Whether some incident says that what was acknowledged on this timeline after `kept`, up to `lsn`, may be lost. Where a
/// person let an older copy win, what is named of an earlier timeline counts for those that hung on it: one that was begun
/// and never installed is forgotten with the installation after it.
fn is_named(w: &World, service: usize, on: Timeline, kept: Lsn, lsn: Lsn) -> bool {
    let says = |what: &Happening| match what {
        Happening::MayBeLost { service: s, timeline, after, .. } => {
            *s == w.services[service] && *timeline == on && (*after <= kept || (kept.0 == 0 && *after < lsn))
        }
        _ => false,
    };
    let hangs_on = |what: &Happening| match what {
        Happening::MayBeLost { service: s, timeline, after, .. } => {
            *s == w.services[service] && *timeline < on && *after <= lsn
        }
        _ => false,
    };
    let accepted = |i: &Incident| i.steps.iter().any(|step| matches!(step.what, Happening::CopyAccepted { .. }));
    let names = |i: &Incident| {
        let wins = accepted(i);
        i.steps.iter().any(|step| says(&step.what) || (wins && hangs_on(&step.what)))
    };
    w.log.state().incidents.values().any(|i| names(i))
}

/// A directory was overwritten, and what was its own lies in this folder.
pub fn kept(w: &mut World, (host, service, life): (usize, usize, u64), name: String) {
    w.facts.kept.push(Kept { name, host, service, life });
}

/// At the end of a run, when everything has come to rest: the ledger names every such folder of a host that reaches the
/// others, also where the daemon died that had made it.
pub fn at_the_end(w: &mut World, rest: &[usize]) {
    let state = w.log.state().clone();
    let named = |folder: &Kept| {
        let name = |what: &Happening| matches!(what, Happening::Rejoined { kept: Some(k), .. } if k == &folder.name);
        state.incidents.values().flat_map(|i| &i.steps).any(|step| name(&step.what))
    };
    let asked = |k: &&Kept| !rest.contains(&k.host) && w.hosts[k.host].daemon.is_some() && !named(k);
    if let Some(k) = w.facts.kept.iter().find(asked) {
        let what = format!("no incident names the folder {} of {}", k.name, w.hosts[k.host].name);
        w.violate("S7", what);
    }
}
