//! Whom to appoint: from sealed reports to one name, with a reason for everybody else. A table with an order; it knows
//! nothing of how the reports were collected.

use super::Input;
use crate::known_bugs::{self, Bug};
use crate::ledger::Service;
use crate::types::{DbState, Failing, Lsn, NodeName, Position, Seal, ServiceName, Timeline};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The answer: who, why, and why not the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub best: Option<(NodeName, String)>,
    pub refused: BTreeMap<NodeName, String>,
}

/// Chooses among sealed reports: lineage first, then most WAL, then fewest failures, location, priority, name. Who gave
/// an appointment back since an epoch was installed last comes after everybody else: somebody must be able to take over.
pub fn choose(
    input: &Input,
    service: &Service,
    seals: &BTreeMap<NodeName, Result<Seal, String>>,
    at_least: Option<Position>,
) -> Choice {
    let mut choice = Choice::default();
    let mut eligible: Vec<(&NodeName, &Seal)> = Vec::new();
    let furthest = seals.values().flatten().map(|s| s.end.lsn).max();
    for (node, report) in seals {
        let why_not = match report {
            Err(why) => Some(why.clone()),
            Ok(seal) => objection(input, service, node, seal, at_least)
                .or_else(|| lag_objection(input, seal, furthest.unwrap_or_default())),
        };
        match (why_not, report) {
            (Some(why), _) => {
                choice.refused.insert(node.clone(), why);
            }
            (None, Ok(seal)) => eligible.push((node, seal)),
            (None, Err(_)) => {}
        }
    }
    let location =
        service.holder.as_ref().and_then(|h| input.config.nodes.get(&h.node)).and_then(|n| n.location.clone());
    let rank = |node: &NodeName, seal: &Seal| {
        let settings = input.config.nodes.get(node);
        let failures = input.state.nodes.get(node).map_or(0, |n| n.failures);
        (
            Reverse(service.failed.get(node).copied().unwrap_or(0)),
            seal.end.timeline,
            if known_bugs::has(Bug::SyncSetIgnored) { Lsn(0) } else { seal.end.lsn },
            Reverse(failures),
            settings.is_some_and(|n| n.location.is_some() && n.location == location),
            settings.map_or(0, |n| n.priority),
            Reverse(node.clone()),
        )
    };
    let best = eligible.iter().max_by_key(|(node, seal)| rank(node, seal));
    choice.best = best.map(|(node, seal)| {
        let others = eligible.len() - 1;
        let why = match others {
            0 => format!("the only eligible candidate, at {}", seal.end),
            n => format!("the best of {} eligible candidates, at {}", n + 1, seal.end),
        };
        ((*node).clone(), why)
    });
    choice
}

fn objection(
    input: &Input,
    service: &Service,
    node: &NodeName,
    seal: &Seal,
    at_least: Option<Position>,
) -> Option<String> {
    let record = input.state.nodes.get(node)?;
    if !input.is_living(node) {
        return Some("it is not living".to_owned());
    }
    if input.state.is_fenced(node, &record.boot) || input.state.off_may_land(node) {
        return Some("it is fenced, or an `off` against it may still be under way".to_owned());
    }
    if let Some(why) = holds_no_lease(input, node) {
        return Some(why);
    }
    if service.system.is_some_and(|system| system != seal.system) {
        return Some(format!("its database is another one (system identifier {})", seal.system));
    }
    if service.timeline > Timeline(0) && !seal.history.descends_from(seal.end, service.timeline) {
        return Some(format!("its WAL ends at {} and does not descend from timeline {}", seal.end, service.timeline));
    }
    match at_least {
        Some(wanted) if seal.end.lsn < wanted.lsn => {
            Some(format!("its WAL ends at {}, before the final position {wanted}", seal.end))
        }
        _ => None,
    }
}

/// What a node says of itself that keeps it from holding a lease: whoever cannot be ended in time asks for none.
pub fn holds_no_lease(input: &Input, node: &NodeName) -> Option<String> {
    let bars = |f: &&Failing| matches!(f, Failing::WatchdogArm | Failing::WatchdogFeed | Failing::LeaseFile);
    input.fresh(node).and_then(|row| row.health.failing.iter().find(bars)).map(ToString::to_string)
}

fn lag_objection(input: &Input, seal: &Seal, furthest: crate::types::Lsn) -> Option<String> {
    let behind = furthest.0.saturating_sub(seal.end.lsn.0);
    (behind > input.config.failover.max_lag)
        .then(|| format!("it is {behind} bytes behind the furthest candidate, more than max_lag"))
}

/// What speaks against a switchover to `to` right now, before anything is touched.
pub fn switchover_objections(input: &Input, name: &ServiceName, to: &NodeName) -> Vec<String> {
    let mut why = Vec::new();
    let Some(service) = input.state.services.get(name) else { return vec![format!("no service named {name}")] };
    let Some(holder) = &service.holder else { return vec![format!("{name} has no primary")] };
    if &holder.node == to {
        return vec![format!("{to} is the primary already")];
    }
    let Some(record) = input.state.nodes.get(to) else { return vec![format!("{to} has not joined")] };
    if !input.is_living(to) {
        why.push(format!("{to} is not living: it is declared dead, or suspected"));
    }
    if input.state.is_fenced(to, &record.boot) || input.state.off_may_land(to) {
        why.push(format!("{to} is fenced"));
    }
    why.extend(holds_no_lease(input, to).map(|what| format!("{to}: {what}")));
    let health = |node: &NodeName| input.fresh(node).and_then(|r| r.health.services.get(name));
    match health(to) {
        None => why.push(format!("nothing recent is known of the database on {to}")),
        Some(h) if h.state != DbState::Standby => {
            why.push(format!("the database on {to} is no running standby ({:?})", h.state));
        }
        Some(h) => {
            if h.streams_from.as_ref() != Some(&holder.node) {
                why.push(format!("{to} does not stream from {}", holder.node));
            }
            if let Some(primary) = health(&holder.node) {
                let behind = primary.position.lsn.0.saturating_sub(h.position.lsn.0);
                if behind > input.config.failover.max_lag {
                    why.push(format!(
                        "{to} is {behind} bytes behind, more than max_lag ({})",
                        input.config.failover.max_lag
                    ));
                }
            }
        }
    }
    why
}

/// The best target of a switchover by what is known now, or every candidate's objections.
pub fn switchover_target(input: &Input, name: &ServiceName) -> Result<NodeName, Vec<String>> {
    let Some(settings) = &input.state.settings else { return Err(vec!["the ledger is empty".to_owned()]) };
    let holder = input.state.services.get(name).and_then(|s| s.holder.as_ref()).map(|h| h.node.clone());
    let mut objections = Vec::new();
    let mut able = Vec::new();
    for node in settings.database_nodes().filter(|n| Some(*n) != holder.as_ref()) {
        match switchover_objections(input, name, node) {
            why if why.is_empty() => able.push(node.clone()),
            why => objections.extend(why),
        }
    }
    let rank = |node: &NodeName| {
        let lsn = input.fresh(node).and_then(|r| r.health.services.get(name)).map(|h| h.position.lsn);
        let failures = input.state.nodes.get(node).map_or(0, |n| n.failures);
        (Reverse(failures), input.config.nodes.get(node).map_or(0, |n| n.priority), lsn, Reverse(node.clone()))
    };
    able.into_iter().max_by_key(rank).ok_or(objections)
}
