//! Whom to appoint: from sealed reports to one name, with a reason for everybody else. A table with an order; it knows
//! nothing of how the reports were collected, nor what speaks against a node (`objection.rs`).

use super::{Input, Objection, Purpose, failures, objection};
use crate::known_bugs::{self, Bug};
use crate::ledger::Service;
use crate::types::{Lsn, NodeName, Position, Seal, ServiceName, Trouble};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// So much WAL is replayed in a moment: less of it makes no difference to the choice.
const REPLAYED_SOON: u64 = 16 << 20;

/// The answer: who, why, and why not the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub best: Option<(NodeName, String)>,
    pub refused: BTreeMap<NodeName, Objection>,
}

/// Chooses among sealed reports: lineage first, then whose volume takes writes, then most WAL, then least of it left to
/// replay, then fewest things that it lacks, fewest failures, location, priority, name. Who gave an appointment back since an
/// epoch was installed last comes after everybody else: somebody must be able to take over.
pub fn choose(
    input: &Input,
    (name, service): (&ServiceName, &Service),
    seals: &BTreeMap<NodeName, Result<Seal, String>>,
    at_least: Option<Position>,
) -> Choice {
    let mut choice = Choice::default();
    let mut eligible: Vec<(&NodeName, &Seal)> = Vec::new();
    let furthest = seals.values().flatten().map(|s| s.end.lsn).max();
    let furthest = furthest.unwrap_or_default();
    for (node, report) in seals {
        match (
            objection(&input.outlook(), node, Purpose::Appoint { service, report, at_least, furthest, name }),
            report,
        ) {
            (Some(why), _) => drop(choice.refused.insert(node.clone(), why)),
            (None, Ok(seal)) => eligible.push((node, seal)),
            // Who gave no report has been refused for it.
            (None, Err(_)) => {}
        }
    }
    let location =
        service.holder.as_ref().and_then(|h| input.config.nodes.get(&h.node)).and_then(|n| n.location.clone());
    let is_troubled = |node: &NodeName| {
        let trouble = input.outlook().database(node, name).and_then(|database| database.trouble.as_ref());
        trouble.is_some_and(Trouble::is_of_the_volume)
    };
    let rank = |node: &NodeName, seal: &Seal| {
        let settings = input.config.nodes.get(node);
        let failures = failures::counted(&input.outlook(), node);
        (
            Reverse(service.failed.get(node).copied().unwrap_or(0)),
            seal.end.timeline,
            // It could not be promoted: that writes a new segment.
            Reverse(is_troubled(node)),
            if known_bugs::has(Bug::SyncSetIgnored) { Lsn(0) } else { seal.end.lsn },
            Reverse(seal.end.lsn.0.saturating_sub(seal.replayed.0) / REPLAYED_SOON),
            Reverse(input.outlook().database(node, name).map_or(0, |database| database.unfit.len())),
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
        ((*node).clone(), why + &passed_over(&choice.refused))
    });
    choice
}

/// Who is not looked at although its WAL may be the best: the incident says it.
fn passed_over(refused: &BTreeMap<NodeName, Objection>) -> String {
    let unfit = refused.iter().filter_map(|(node, why)| match why {
        Objection::Unfit(what) => Some(format!("; {node} could not serve ({})", what.kind())),
        _ => None,
    });
    unfit.collect()
}
