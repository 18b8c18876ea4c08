//! A device that says it has switched a node off, while another node falls silent: it may switch the wrong host, and the
//! fenced one may live where nobody hears it. Such a success is not believed.
//!
//! Not here: what the check asks, and life of the fenced node itself (`fencing.rs`).

use super::{Input, Row};
use crate::ledger::{Confirmation, Fence};
use crate::types::{AgentAction, AgentKind, Instant, NodeName};

/// What is known of the other nodes since a power level was confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Strike {
    /// Each that was heard when it began has been heard since, or has answered.
    Nobody,
    /// Not this one yet. It may say so until then.
    Awaits(NodeName, Instant),
    /// This one has fallen silent.
    Struck(NodeName),
}

pub(super) fn strike(input: &Input, fence: &Fence) -> Strike {
    let Some((ordered, confirmed)) = acted(input, fence) else { return Strike::Nobody };
    let limit = confirmed + input.timing.detection + input.timing.recent;
    // Who was lost with the fenced node was silent before anything was ordered.
    let began = ordered - input.config.detector.interval * 2;
    let checks = input.lead.checks.get(&(fence.id, fence.refuted));
    let answered = |node: &NodeName| checks.is_some_and(|checks| checks.contains_key(node));
    let silent = |(node, row): &(&NodeName, &Row)| {
        let other = **node != fence.target && *node != input.me && input.state.is_voter(node);
        other && row.at >= began && row.at <= confirmed && !answered(node)
    };
    match input.rows.iter().find(silent) {
        None => Strike::Nobody,
        Some((node, _)) if input.now < limit => Strike::Awaits(node.clone(), limit),
        Some((node, _)) => Strike::Struck(node.clone()),
    }
}

/// When the first agent of the level that confirmed was ordered, and when that was confirmed; where it takes power, and
/// nothing rests on it yet.
fn acted(input: &Input, fence: &Fence) -> Option<(Instant, Instant)> {
    let Some(Confirmation::Level { level, round, kinds }) = fence.confirmed.as_ref().filter(|_| !fence.used) else {
        return None;
    };
    let of_it = |order: &&crate::ledger::Order| {
        (order.level, order.round, order.action) == (Some(*level), *round, AgentAction::Off)
    };
    let first = fence.orders.iter().filter(|_| kinds.contains(&AgentKind::Power)).find(of_it)?;
    let ordered = *input.applied.ordered.get(&(fence.id, first.number))?;
    Some((ordered, *input.applied.fence_confirmed.get(&fence.id)?))
}
