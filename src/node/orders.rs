//! What is handed to an agent: the operator's options, those of the target, and what regent itself can offer.

use crate::config::database_tls::replication_role;
use crate::config::{Config, Postgresql, Role};
use crate::types::{AgentAction, AgentName, AgentOrder, FenceId, NodeName, OFFER, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One run of an agent against a node. `None` when the agent is not configured.
pub fn agent_order(
    config: &Config,
    agent: &AgentName,
    action: AgentAction,
    target: &NodeName,
    fence: Option<FenceId>,
) -> Option<AgentOrder> {
    let settings = config.fencing.agents.get(agent)?;
    let mut options = offers(config, target, fence);
    options.extend(settings.options.clone());
    options.extend(settings.node.get(target).cloned().unwrap_or_default());
    Some(AgentOrder {
        agent: agent.clone(),
        action,
        target: target.clone(),
        fence,
        options,
        deadline: settings.timeout.max(Duration::from_millis(100)),
    })
}

/// The runs that tell what is in force on this host: of each agent that runs on every voter, as for this node itself,
/// and once more for each set of options that other targets have (a revocation list may have a place for each). Whether
/// an agent can tell is in its metadata.
pub fn in_force_orders(config: &Config) -> Vec<AgentOrder> {
    let everywhere = config.fencing.agents.iter().filter(|(_, settings)| settings.everywhere);
    let mut orders = Vec::new();
    for (agent, settings) in everywhere {
        let mut seen = BTreeSet::new();
        let targets = std::iter::once(&config.node).chain(settings.node.keys());
        for target in targets.filter(|target| seen.insert(settings.node.get(*target))) {
            orders.extend(agent_order(config, agent, AgentAction::InForce, target, None));
        }
    }
    orders
}

/// What regent can offer: handed over only to agents whose metadata lists it.
fn offers(config: &Config, target: &NodeName, fence: Option<FenceId>) -> BTreeMap<String, String> {
    let mut offers = BTreeMap::new();
    let mut offer = |name: &str, value: String| {
        offers.insert(format!("{OFFER}{name}"), value);
    };
    if let Some(fence) = fence {
        offer("fence_id", fence.to_string());
    }
    if let Some(node) = config.nodes.get(target) {
        offer("addresses", format!("{},{}", node.primary, node.secondary));
    }
    let mut ports: Vec<_> = config.nodes.values().flat_map(|n| [n.grpc_port, n.heartbeat_port]).collect();
    ports.sort_unstable();
    ports.dedup();
    offer("regent_ports", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","));
    if config.me().role == Role::Database && !config.services.is_empty() {
        // One run for every service of this host: each list has one item a service, in the same order.
        let list = |item: &dyn Fn(&ServiceName, &Postgresql) -> String| {
            let items: Vec<_> = config.services.iter().map(|(name, s)| item(name, &s.postgresql)).collect();
            items.join(",")
        };
        offer("hba_file", list(&|name, _| config.access_file(name).display().to_string()));
        offer("socket_dir", list(&|name, _| config.socket_dir(name).display().to_string()));
        offer("port", list(&|_, postgresql| postgresql.port.to_string()));
        offer("superuser", list(&|_, postgresql| postgresql.superuser.clone()));
        offer("replication_role", list(&|_, postgresql| replication_role(&postgresql.replication_user, target)));
    }
    offers
}
