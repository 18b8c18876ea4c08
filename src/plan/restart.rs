//! A node whose database a person wants to restart: what the service would do without meanwhile.
//!
//! Not here: whether it may be restarted at all (`ledger/restart.rs`), and how (`keeper/ordered.rs`).

use super::Outlook;
use super::readiness::able;
use crate::types::{NodeName, ServiceName};
use derive_more::Display;

/// What it costs.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum Cost {
    #[display("nobody could take {service} over from {node} if its database did not come up again")]
    NobodyTakesOver { node: NodeName, service: ServiceName },
    #[display("{node} alone could take {service} over at present: a failure of {primary} would wait for its restart")]
    LastCandidate { node: NodeName, service: ServiceName, primary: NodeName },
}

/// The margin that goes with the restart. Where there is one standby by plan, its restart takes none that there could be.
pub fn cost(seen: &Outlook, service: &ServiceName, node: &NodeName) -> Option<Cost> {
    let primary = &seen.state.services.get(service)?.holder.as_ref()?.node;
    let able = able(seen, service, primary);
    if node == primary {
        return able.is_empty().then(|| Cost::NobodyTakesOver { node: node.clone(), service: service.clone() });
    }
    let databases = seen.state.settings.iter().flat_map(|settings| settings.database_nodes()).count();
    (databases > 2 && able == [node]).then(|| Cost::LastCandidate {
        node: node.clone(),
        service: service.clone(),
        primary: primary.clone(),
    })
}
