//! One node on the page: what it is, how it is, and what it sees of the others.
//!
//! Not here: the verdict that a node is dead (the ledger's), and whether a view suspects (`types/view.rs`).

use super::Known;
use crate::api::status::{MaintenanceStatus, NodeRole, NodeState, NodeStatus, Seen, SeenOn, WatchdogState};
use crate::config::Role;
use crate::ledger::Life;
use crate::plan::{Outlook, Row};
use crate::types::{NodeName, PeerView};
use std::collections::BTreeMap;

/// The highest suspicion level that is shown: JSON has no infinity.
const PHI_MAX: f64 = 999.0;

/// A configured node.
pub(super) fn status(known: &Known, name: &NodeName) -> NodeStatus {
    let seen = &known.seen;
    let config = &seen.config.nodes[name];
    let record = seen.state.nodes.get(name);
    let health = seen.present(name).map(|row| &row.health);
    let refusals = known.refused.iter().filter(|r| r.who == name.as_str());
    let refusals = refusals.map(|r| format!("{} ({} times)", r.reason, r.count));
    let not_joined = known.not_joined.iter().filter(|_| name == seen.me).cloned();
    NodeStatus {
        role: match config.role {
            Role::Database => NodeRole::Database,
            Role::Witness => NodeRole::Witness,
        },
        addresses: vec![config.primary.to_string(), config.secondary.to_string()],
        state: state(seen, name),
        leader: known.leader == Some(name),
        boot: record.map(|r| r.boot.clone()),
        incarnation: record.map(|r| r.incarnation),
        self_doubt: health.is_some_and(|h| h.self_doubt),
        config_differs: health.is_some_and(|h| h.config_hash != seen.config.hash),
        watchdog: watchdog(seen.config.watchdog.is_some(), health.map(|h| h.watchdog_armed)),
        log_write_ms: health.map(|h| h.log_write.as_millis() as u64),
        failing: failing(known, name),
        refusals: refusals.chain(not_joined).collect(),
        paused: health.map(|h| h.paused.iter().cloned().collect()).unwrap_or_default(),
        leaving: health.and_then(|h| h.leaving),
        maintenance: maintenance(seen, name),
    }
}

/// Where this node has not seen it begin, its whole time is shown.
fn maintenance(seen: &Outlook, name: &NodeName) -> Option<MaintenanceStatus> {
    let word = seen.state.maintenance.get(name)?;
    let began = seen.applied.maintenance.get(name).copied().unwrap_or(seen.now);
    let left = word.lasts.map(|lasts| (began + lasts).since(seen.now));
    Some(MaintenanceStatus { who: word.who.clone(), left_ms: left.map(|left| left.as_millis() as u64) })
}

/// The ledger's word, and this node's own view where that says `up`.
fn state(seen: &Outlook, name: &NodeName) -> NodeState {
    match seen.state.nodes.get(name).map(|record| record.life) {
        None => NodeState::NotJoined,
        Some(Life::Dead) if has_left(seen, name) => NodeState::Left,
        Some(Life::Dead) => NodeState::Dead,
        Some(Life::Up) if seen.is_suspected(name) && has_left(seen, name) => NodeState::Left,
        Some(Life::Up) if seen.is_suspected(name) => NodeState::Suspect,
        Some(Life::Up) => NodeState::Up,
    }
}

/// Whether it said that it leaves in its last words, whenever those were.
pub(super) fn has_left(seen: &Outlook, name: &NodeName) -> bool {
    seen.present(name).is_some_and(|row| row.health.leaving.is_some())
}

/// `armed`: as the node says itself; not known where nothing was heard of it.
fn watchdog(is_configured: bool, armed: Option<bool>) -> Option<WatchdogState> {
    match (is_configured, armed) {
        (false, _) => Some(WatchdogState::Absent),
        (true, Some(true)) => Some(WatchdogState::Armed),
        (true, Some(false)) => Some(WatchdogState::Disarmed),
        (true, None) => None,
    }
}

/// What a node's daemon must do for safety and cannot do at present, as it says itself; on this node, with the reason.
fn failing(known: &Known, node: &NodeName) -> Vec<String> {
    if node == known.seen.me {
        return known.failing.iter().map(|(what, why)| format!("{what}: {why}")).collect();
    }
    let row = known.seen.present(node);
    let said = row.into_iter().flat_map(|row| &row.health.failing).map(ToString::to_string);
    let vote = known.seen.no_vote(node).map(|why| format!("its vote does not count: {why}"));
    said.chain(vote).collect()
}

/// What one observer sees of the others, as its row says.
pub(super) fn matrix(known: &Known, observer: &NodeName, row: &Row) -> BTreeMap<NodeName, Seen> {
    let channels = known.seen.config.channels().len();
    let is_own = observer == known.seen.me;
    let one = |peer: &NodeName, view: &PeerView| {
        let on = view.channels.iter().map(|(channel, sight)| {
            let phi = known.phi.get(&(peer.clone(), channel.clone())).filter(|_| is_own);
            (channel.clone(), SeenOn { sight: *sight, phi: phi.map(|phi| phi.min(PHI_MAX)) })
        });
        Seen { suspects: view.suspects(channels), channels: on.collect() }
    };
    row.views.iter().map(|(peer, view)| (peer.clone(), one(peer, view))).collect()
}
