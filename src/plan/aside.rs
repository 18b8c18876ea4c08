//! Who stands aside: nodes that a person keeps from taking over, by the file (`may_lead = false`, `apply_delay`) or by
//! `regent maintenance`. They are not asked for a report, not waited for, and not counted as ready.
//!
//! Not here: that the ledger appoints nobody in maintenance (`ledger/eligible.rs`), and every other reason against a node
//! (`objection.rs`).

use crate::config::Config;
use crate::ledger::State;
use crate::types::{NodeName, ServiceName};

/// Whether the node takes over nothing of this service, whatever it has.
pub fn stands_aside(state: &State, config: &Config, service: &ServiceName, node: &NodeName) -> bool {
    state.is_in_maintenance(node) || config.services.get(service).is_some_and(|service| !service.may_lead(node))
}
