//! S6: in a synchronous mode nothing acknowledged is lost, where N - k + 1 members gave sealed reports at the choice.
//!
//! regent has no synchronous mode yet, and no rule that waits for so many reports. The model has PostgreSQL's own rule
//! of acknowledgement (k standbys have flushed) with a group that never changes: every other database node. So what is
//! checked here is the choice: among enough reports the furthest is taken. A choice on fewer is counted, not condemned.
//!
//! In any mode a planned move loses nothing that its primary could still bring, and nobody is appointed by itself who lacks
//! more than `max_lag` of what the leader has heard of the last primary's WAL.

use crate::cluster::{S, World};
use crate::database::Process;
use regent::ledger::{Fence, FenceState, Life, OrderState, State};
use regent::types::{AgentAction, Failing, NodeName, Seal, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

/// How many sealed reports the choice had of nodes that could be chosen: whoever is declared dead, is being fenced, or may
/// still be switched off by an order, cannot be, however far it got; nor can one that cannot be ended in time, because its
/// watchdog or its guard cannot be told, and that asks for no lease; nor whoever is to be copied anew; nor anybody but the
/// one whose copy a person lets win. Nor does it help that somebody reported who was
/// appointed since the last primary and did not take over: it comes after the others (L1).
pub fn reports(
    w: &World,
    (before, service): (&State, &ServiceName),
    seals: &BTreeMap<NodeName, Seal>,
    tried: &BTreeSet<NodeName>,
) -> usize {
    let record = before.services.get(service).filter(|record| record.awaited_copy().is_none());
    let chosen_before = w.facts.taken_back > 0 && w.now < w.facts.taken_back + S;
    let Some(record) = record.filter(|_| !chosen_before) else { return 0 };
    let discarded = |node: &NodeName| record.to_copy.contains_key(node);
    let bars = |failing: &Failing| !matches!(failing, Failing::FinalWord);
    let unguarded = |node: &NodeName| {
        let daemon = w.hosts[w.host(node)].daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.failing().keys().any(bars))
    };
    let may_act = |f: &Fence| {
        let off = f.orders.iter().any(|o| o.action == AgentAction::Off && o.state == OrderState::Running);
        off || matches!(f.state, FenceState::Open | FenceState::Confirmed)
    };
    let fenced = |node: &NodeName| before.fences.values().any(|f| &f.target == node && may_act(f));
    let dead = |node: &NodeName| before.nodes.get(node).is_some_and(|record| record.life == Life::Dead);
    let aside = |node: &NodeName| before.maintenance.contains_key(node);
    let able = |node: &&NodeName| !aside(node) && !dead(node) && !fenced(node) && !unguarded(node) && !discarded(node);
    seals.keys().filter(able).filter(|node| !tried.contains(*node)).count()
}

/// After a planned move whose primary stopped, and could be opened again, nobody is appointed who has not all that it
/// acknowledged: a move that was asked for loses nothing.
pub fn planned(w: &mut World, before: &State, service: &ServiceName, node: &NodeName) {
    let record = before.services.get(service).filter(|s| s.moving.is_some() && s.over.is_some());
    let Some(record) = record.filter(|s| !s.accepts_copy_of(node)) else { return };
    let Some(from) = record.holder.as_ref().map(|holder| w.host(&holder.node)) else { return };
    let (to, s) = (w.host(node), w.index(service));
    let Some((leader, _)) = w.log.leader.filter(|_| to != from) else { return };
    let (host, database) = (&w.hosts[from], &w.hosts[from].databases[s]);
    let lives = host.power && !host.is_frozen() && host.started_at + 10 * S < w.now && host.daemon.is_some();
    // Whose name a copy has taken cannot come back under it.
    let joined = before.nodes.get(&host.name).is_some_and(|n| n.life == Life::Up && n.boot == host.boot());
    let heard = leader == from || w.are_connected_since(leader, from, w.now.saturating_sub(10 * S));
    let can_tell = host.daemon.as_ref().is_some_and(|daemon| daemon.failing().is_empty());
    let opens = database.system.is_some() && !database.unfinished && database.process == Process::None;
    let well = !database.ails.is_unclear(w.now, 0, false);
    // A person has it fenced: it is not appointed before that is lifted.
    let acts = |f: &Fence| matches!(f.state, FenceState::Open | FenceState::Confirmed);
    let fenced = before.fences.values().any(|f| f.target == host.name && f.boot == host.boot() && acts(f));
    // A person has thrown away what it has; where it said where its WAL ends, that is refused.
    let given_up =
        record.to_copy.contains_key(&host.name) && record.over.as_ref().is_some_and(|o| o.position().is_none());
    if fenced || given_up {
        return;
    }
    if !(lives && joined && heard && can_tell && opens && well) {
        return;
    }
    let has = &w.hosts[to].databases[s];
    let said = w.facts.services[s].acknowledged.get(&database.at.timeline);
    let lost = said.filter(|(lsn, by)| *by == from && has.at.timeline <= database.at.timeline && *lsn > has.at.lsn);
    if let Some((lsn, _)) = lost {
        let what = format!("a planned move to {node} loses what {} acknowledged up to {lsn}", host.name);
        w.violate("S6", what);
    }
}

/// Nobody is appointed who lacks more than `max_lag` of what the leader itself has heard that the last primary wrote, unless
/// a person said so.
pub fn bounded(w: &mut World, before: &State, service: &ServiceName, node: &NodeName) {
    let Some(record) = before.services.get(service).filter(|s| s.accepted_loss.is_none()) else { return };
    if record.accepts_copy_of(node) {
        return;
    }
    let (Some((leader, _)), Some(last)) = (w.log.leader, record.history.last()) else { return };
    let (to, s) = (w.host(node), w.index(service));
    let Some(known) = w.heard_end(leader, s, last.epoch) else { return };
    let has = w.hosts[to].databases[s].at;
    let max_lag = w.hosts[leader].config.failover.max_lag;
    if has.timeline == known.timeline && has.lsn.0 + max_lag < known.lsn.0 {
        let what = format!("{node} is appointed with {has}, and {} has heard of {known}", w.hosts[leader].name);
        w.violate("S6", what);
    }
}

/// Acknowledged commits are not on the new primary.
pub fn lost(w: &mut World, service: usize, what: &str) {
    let members = w.hosts.iter().filter(|h| h.databases.len() > service).count() - 1;
    let needed = members + 1 - w.sync;
    if w.facts.services[service].reports >= needed {
        w.violate("S6", format!("{what}, although {needed} of {members} members had reported"));
    } else {
        w.facts.counts.unprotected += 1;
    }
}
