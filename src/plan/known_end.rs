//! How far the WAL of a service's last primary is known to reach, and how much of that a node lacks: the bound on what a
//! failover may lose.
//!
//! Not here: who remembers what was heard (`node/peers.rs`), and what follows from it (`objection.rs`).

use super::{Outlook, Row};
use crate::ledger::Service;
use crate::types::{DbState, Epoch, HeardEnd, Lsn, NodeName, Position, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The furthest that anybody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEnd {
    pub end: Position,
    /// For how long the primary was heard afterwards and said nothing of its WAL: it may have written on.
    pub silent: Duration,
}

/// Of the epoch that was installed last: who came after it and was never installed took over nothing. `None` before the
/// first.
pub fn known_end(seen: &Outlook, name: &ServiceName) -> Option<KnownEnd> {
    let service = seen.state.services.get(name)?;
    let last = service.history.last()?;
    // Said in order: exactly there.
    if let Some(end) = service.final_end {
        return Some(KnownEnd { end, silent: Duration::ZERO });
    }
    let heard = heard(seen.rows, name, last.epoch);
    let heard = heard.map(|heard| (heard.end, Duration::from_millis(heard.silent_ms)));
    let own = own_word(seen, name, service).map(|end| (end, Duration::ZERO));
    let all: Vec<_> = heard.chain(own).collect();
    let silent = all.iter().map(|(_, silent)| *silent).min().unwrap_or_default();
    let ends = all.iter().map(|(end, _)| *end).chain(service.known_end).chain([last.start]);
    ends.max().map(|end| KnownEnd { end, silent })
}

/// What each node heard, or was told, of the end of that epoch's WAL.
pub fn heard<'a>(
    rows: &'a BTreeMap<NodeName, Row>,
    name: &'a ServiceName,
    epoch: Epoch,
) -> impl Iterator<Item = &'a HeardEnd> {
    rows.values().filter_map(move |row| row.health.ends.get(name)).filter(move |heard| heard.epoch == epoch)
}

/// What the primary's own heartbeat said last.
fn own_word(seen: &Outlook, name: &ServiceName, service: &Service) -> Option<Position> {
    let holder =
        service.holder.as_ref().filter(|_| service.history.last().is_some_and(|e| e.epoch == service.epoch))?;
    let row = seen.rows.get(&holder.node).filter(|row| row.incarnation == holder.incarnation)?;
    row.health.services.get(name).filter(|db| db.state == DbState::Primary).map(|db| db.position)
}

/// How far a node that has everything up to `at` has the WAL that ends at `known`. Of a timeline that it is not on it has what
/// lies before the fork.
pub fn reaches(service: &Service, known: Position, at: Position) -> Lsn {
    let fork = service.history.last().map_or(known.lsn, |last| last.start.lsn);
    if at.timeline >= known.timeline { at.lsn } else { at.lsn.min(fork) }
}

/// How many bytes of WAL a node lacks that has everything up to `at`.
pub fn lacks(service: &Service, known: Position, at: Position) -> u64 {
    known.lsn.0.saturating_sub(reaches(service, known, at).0)
}
