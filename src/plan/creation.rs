//! The coordinator's part about a service that has no database yet: who makes it, and who after a try that came to nothing.
//!
//! Not here: that nothing was ever written under the tries before, which the ledger sees to (`ledger/appoint.rs`).

use super::service::rests;
use super::{Input, Note, Plan, stands_aside};
use crate::ledger::{Command, Service};
use crate::types::{DbState, Instant, NodeName, ServiceName};
use std::cmp::Reverse;

/// Why the database cannot be made now.
enum Missing<'a> {
    Join(&'a NodeName),
    /// Something is there that no try of regent's left.
    Room(&'a NodeName, DbState),
}

/// Epoch 1, on the first database node by priority, once every database node has joined with nothing in its directory.
pub(super) fn first(input: &Input, name: &ServiceName, plan: &mut Plan) {
    let Some(settings) = &input.state.settings else { return };
    if settings.services.get(name) != Some(&true) {
        return plan.say(Note::Unmanaged { service: name.clone() });
    }
    match maker(input, name, None) {
        Ok(node) => create(input, name, node, plan),
        Err(Some(Missing::Join(node))) => {
            plan.say(Note::AwaitsJoin { service: name.clone(), node: node.clone() });
        }
        Err(Some(Missing::Room(node, state))) => {
            plan.say(Note::NotCreated { service: name.clone(), node: node.clone(), state });
        }
        Err(None) => {}
    }
}

/// A try that came to nothing is followed by another, also where it left a directory behind that is half made: elsewhere
/// first, since what it failed of (no room, a broken disk) may be that node's alone. Whether it is this case at all.
pub(super) fn again(input: &Input, name: &ServiceName, service: &Service, since: Instant, plan: &mut Plan) -> bool {
    let never_made = service.system.is_none() && service.history.is_empty();
    let Ok(node) = maker(input, name, Some(service)) else { return false };
    if never_made && !rests(input, (name, service), node, since, plan) {
        create(input, name, node, plan);
    }
    never_made
}

/// The node that makes it: of those that failed least the first by priority.
fn maker<'a>(
    input: &'a Input,
    name: &ServiceName,
    tried: Option<&Service>,
) -> Result<&'a NodeName, Option<Missing<'a>>> {
    let settings = input.state.settings.as_ref().ok_or(None)?;
    let failed = |node: &NodeName| tried.and_then(|service| service.failed.get(node)).copied().unwrap_or(0);
    for node in settings.database_nodes() {
        let row = input.fresh(node).and_then(|row| row.health.services.get(name));
        match row.ok_or(Some(Missing::Join(node)))?.state {
            DbState::Absent => {}
            DbState::Unstartable if failed(node) > 0 => {}
            state => return Err(Some(Missing::Room(node, state))),
        }
    }
    let priority = |node: &NodeName| input.config.nodes.get(node).map_or(0, |n| n.priority);
    let able = settings.database_nodes().filter(|node| !stands_aside(input.state, input.config, name, node));
    able.min_by_key(|node| (failed(node), Reverse(priority(node)))).ok_or(None)
}

fn create(input: &Input, name: &ServiceName, node: &NodeName, plan: &mut Plan) {
    let Some(record) = input.state.nodes.get(node) else { return };
    plan.say(Note::Creating { service: name.clone(), node: node.clone() });
    plan.propose(Command::Create {
        service: name.clone(),
        node: node.clone(),
        boot: record.boot.clone(),
        incarnation: record.incarnation,
    });
}
