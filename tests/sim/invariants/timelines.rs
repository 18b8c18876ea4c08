//! No number is given to two timelines (S4): the second would be taken for the first, and its log for the other's. And
//! no timeline begins of which the ledger had not been told, for the node that begins it.

use crate::cluster::World;
use regent::types::{NodeName, Position, ServiceName, Timeline};

/// A `Promoting` was accepted.
pub fn said(w: &mut World, service: &ServiceName, node: &NodeName, timeline: Timeline) {
    let s = w.index(service);
    let host = w.host(node);
    let first = *w.facts.services[s].said.entry(timeline).or_insert(host);
    if first != host {
        let names = (&w.hosts[first].name, &w.hosts[host].name);
        let what = format!("timeline {timeline} of {service} was given to {} and to {}", names.0, names.1);
        w.violate("S4", what);
    }
}

/// A database came out of recovery, on a timeline of its own.
pub fn promoted(w: &mut World, host: usize, service: usize) {
    let db = &w.hosts[host].databases[service];
    let timeline = db.at.timeline;
    let left = db.history.0.last().map_or(regent::types::Lsn(0), |left| left.lsn);
    let before = w.facts.services[service].began.insert(timeline, (host, left));
    let name = w.hosts[host].name.clone();
    if w.is_excused(host, service) {
        return;
    }
    if let Some((first, at)) = before {
        let what = format!("timeline {timeline} was begun at {at} by {} and at {left} by {name}", w.hosts[first].name);
        return w.violate("S4", what);
    }
    if w.facts.services[service].said.get(&timeline) != Some(&host) {
        w.violate("S4", format!("{name} began timeline {timeline}, which the ledger never heard of"));
    }
}

/// A database was opened for writes: on a timeline that was begun where this one has it.
pub fn opened(w: &mut World, host: usize, service: usize) {
    let db = &w.hosts[host].databases[service];
    let Some(Position { lsn: left, .. }) = db.history.0.last().copied() else { return };
    let (timeline, began) = (db.at.timeline, w.facts.services[service].began.get(&db.at.timeline).copied());
    if began.is_some_and(|(_, at)| at != left) && !w.is_excused(host, service) {
        let what = format!("{} writes on timeline {timeline} from {left}, begun at {began:?}", w.hosts[host].name);
        w.violate("S4", what);
    }
}
