//! A node that is to be taken into maintenance: whether the cluster can do without it, and when its time is over.
//!
//! Not here: what maintenance is (`ledger/maintenance.rs`), and what is left undone on the node itself (`keeper/table.rs`).

use super::readiness::able;
use super::{Input, Outlook, Plan};
use crate::ledger::Command;
use crate::types::{NodeName, ServiceName};
use derive_more::Display;

/// What the cluster would do without.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum Cost {
    #[display("without {node} no majority of voters would be left: nothing could be decided")]
    NoMajority { node: NodeName },
    #[display("{node} alone could take over {service} from {primary}: a failure of that one would leave no primary")]
    LastCandidate { node: NodeName, service: ServiceName, primary: NodeName },
}

/// The last margin that would go with the node.
pub fn costs(seen: &Outlook, node: &NodeName) -> Vec<Cost> {
    let mut costs = Vec::new();
    if seen.needs_for_majority(node) {
        costs.push(Cost::NoMajority { node: node.clone() });
    }
    for (name, service) in &seen.state.services {
        let Some(primary) = service.holder.as_ref().map(|holder| &holder.node) else { continue };
        if able(seen, name, primary) == [node] {
            let (node, service, primary) = (node.clone(), name.clone(), primary.clone());
            costs.push(Cost::LastCandidate { node, service, primary });
        }
    }
    costs
}

/// A time that is over ends the word that gave it. A daemon that has not seen it begin counts from its own start as the
/// leader: it may end late, and never early.
pub(super) fn end(input: &Input, plan: &mut Plan) {
    for (node, word) in &input.state.maintenance {
        let Some(lasts) = word.lasts else { continue };
        let at = input.applied.maintenance.get(node).copied().unwrap_or(input.lead.since) + lasts;
        match input.now < at {
            true => plan.wake_at(at),
            false => {
                let (node, number) = (node.clone(), Some(word.number));
                plan.propose(Command::EndMaintenance { node, number, who: "its time is over".to_owned() });
            }
        }
    }
}
