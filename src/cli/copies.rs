//! `regent reinit`: a node's data are thrown away and copied anew. `regent accept`: the copy on a node wins. Both ask first.

use super::exit::UsageError;
use super::verb::{Waiting, ask, ask_status, finish, perform};
use super::{Common, Exit, confirm, output, render};
use crate::api::admin::{Request, Response};
use crate::api::status::{Phase, ServiceStatus, Status};
use crate::types::{NodeName, ServiceName};

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
    let Reinit { node, service, cancel, yes, waiting } = arguments;
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
    perform(common, &waiting, &Request::Reinit { service, node, cancel })
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
