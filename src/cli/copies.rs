//! `regent reinit`: a node's data are thrown away and copied anew. `regent accept`: the copy on a node wins. Both ask first.

use super::exit::UsageError;
use super::verb::{Waiting, ask, ask_status, finish, perform, tell};
use super::{Common, Exit, confirm, output, render};
use crate::api::admin::{Request, Response};
use crate::api::status::{DatabaseStatus, Phase, ServiceStatus, Status};
use crate::clock;
use crate::types::{DbState, NodeName, ServiceName, Span};
use std::time::Duration;

/// The pause between two looks at how far a copy is.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// Within this every node that is up has learned of an order.
const LEARNS: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Reinit {
    /// Whose data are thrown away and copied anew from the primary
    node: NodeName,
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Take back an order that has not been carried out
    #[arg(long)]
    cancel: bool,
    /// Wait until it is copied and streams, and tell how far it is (give a copy its --timeout)
    #[arg(long, conflicts_with = "cancel")]
    wait: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(clap::Args)]
pub struct Accept {
    /// Whose copy wins: it is opened in a new epoch on a new timeline, and every other node is copied anew
    #[arg(required_unless_present = "cancel")]
    node: Option<NodeName>,
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Show what would happen and what would be given up, and do nothing
    #[arg(long, conflicts_with = "cancel")]
    dry_run: bool,
    /// Take back a word that has not been carried out
    #[arg(long, conflicts_with = "node")]
    cancel: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn reinit(common: &Common, arguments: Reinit) -> anyhow::Result<Exit> {
    let Reinit { node, service, cancel, wait, yes, waiting } = arguments;
    if !cancel {
        let status = ask_status(common)?;
        is_known(&status, &node)?;
        let warning = format!(
            "What {node} has of the database is thrown away, and a copy of the primary takes its place.\n\
             Until that is done {node} cannot take over. `regent status` shows how far the copy is.{}",
            only_copy(&status, service.as_ref(), &node)
        );
        if !confirm::by_typing(node.as_str(), &warning, yes)? {
            return Ok(Exit::Failed);
        }
    }
    let request = Request::Reinit { service: service.clone(), node: node.clone(), cancel };
    match perform(common, &waiting, &request)? {
        Exit::Done if wait => copied(common, &waiting, service.as_ref(), &node),
        exit => Ok(exit),
    }
}

/// Waits until the order is carried out and the node streams.
fn copied(common: &Common, waiting: &Waiting, service: Option<&ServiceName>, node: &NodeName) -> anyhow::Result<Exit> {
    let (begun, mut last, mut is_seen) = (clock::now(), String::new(), false);
    loop {
        let status = ask_status(common)?;
        let named = service.or_else(|| status.services.keys().next());
        let database = named.and_then(|name| status.services.get(name)?.databases.get(node));
        let passed = clock::now().since(begun);
        let words = match database.map(waits_for) {
            // The leader has the order first.
            Some(None) if !is_seen && passed < LEARNS => "its copy is to begin".to_owned(),
            Some(None) => {
                tell(common, &format!("{node} is copied and streams"));
                return Ok(Exit::Done);
            }
            Some(Some(words)) => {
                is_seen = true;
                words
            }
            None => "nothing is known of its database".to_owned(),
        };
        if words != last {
            tell(common, &format!("{node}: {words}"));
            last = words;
        }
        if passed > waiting.timeout() {
            let time = Span(waiting.timeout());
            output::complain(&format!(
                "{node} is not copied after {time}: {last}. The order stands: see `regent status`"
            ));
            return Ok(Exit::Unknown);
        }
        std::thread::sleep(LOOKS_EVERY);
    }
}

/// What its copy waits for; `None`: nothing is left.
fn waits_for(database: &DatabaseStatus) -> Option<String> {
    let state = database.state;
    match (&database.copy, &database.copy_ordered) {
        (Some(copy), _) => Some(copy.what.clone()),
        (None, Some(_)) => Some(format!("its copy is ordered, database {state}")),
        (None, None) if state == DbState::Standby && database.streams_from.is_some() => None,
        (None, None) => Some(format!("waiting until it streams, database {state}")),
    }
}

/// A misspelt name is told before a person is asked to type it.
fn is_known(status: &Status, node: &NodeName) -> anyhow::Result<()> {
    if status.nodes.contains_key(node) {
        return Ok(());
    }
    let names: Vec<&str> = status.nodes.keys().map(|name| name.as_str()).collect();
    Err(UsageError(format!("there is no node {node}; the nodes are: {}", names.join(", "))).into())
}

/// The last primary, before another one is appointed, may have what nobody else has.
fn only_copy(status: &Status, service: Option<&ServiceName>, node: &NodeName) -> String {
    let of = |(name, s): &(&ServiceName, &ServiceStatus)| {
        service.is_none_or(|service| service == *name) && s.phase == Phase::Vacant && s.primary.as_ref() == Some(node)
    };
    let Some((name, _)) = status.services.iter().find(of) else { return String::new() };
    format!("\n{node} was the last primary of {name}, and there is no other yet: what only {node} has is lost.")
}

pub fn accept(common: &Common, arguments: Accept) -> anyhow::Result<Exit> {
    let Accept { node, service, dry_run, cancel: _, yes, waiting } = arguments;
    let request = |dry_run| Request::AcceptCopy { service: service.clone(), node: node.clone(), dry_run };
    let Some(name) = &node else { return perform(common, &waiting, &request(false)) };
    let plan = ask(common, &request(true))?;
    let Response::Plan { steps, checks } = &plan else { return finish(common, &plan) };
    if dry_run || checks.iter().any(|check| !check.passed) {
        return finish(common, &plan);
    }
    if !yes {
        output::progress(&render::plan(steps, checks));
    }
    let warning = "What the other nodes have and this copy has not is given up by the service.";
    if !confirm::by_typing(name.as_str(), warning, yes)? {
        return Ok(Exit::Failed);
    }
    perform(common, &waiting, &request(false))
}

#[cfg(test)]
mod tests {
    use super::super::render::scenes_test::status_of;
    use super::*;

    #[test]
    fn a_copy_is_done_once_its_order_is_carried_out_and_it_streams() {
        let mut status = status_of("status_healthy");
        let (_, service) = status.services.pop_first().expect("one");
        let mut database = service.databases[&"db2".parse::<NodeName>().expect("valid")].clone();
        assert_eq!(waits_for(&database), None);
        database.copy_ordered = Some("dba".to_owned());
        assert_eq!(
            waits_for(&database).as_deref(),
            Some("its copy is ordered, database standby"),
            "it streams as before"
        );
        (database.copy_ordered, database.streams_from) = (None, None);
        assert_eq!(waits_for(&database).as_deref(), Some("waiting until it streams, database standby"));
    }
}
