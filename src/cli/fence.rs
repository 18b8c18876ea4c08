//! `regent fence NODE`, `regent fence confirm NODE --incident ID`, `regent unfence NODE`.

use super::exit::UsageError;
use super::verb::{Waiting, ask_status, perform};
use super::{Common, Exit, confirm};
use crate::api::admin::Request;
use crate::api::status::Status;
use crate::types::{IncidentId, NodeName};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    confirm: Option<Confirm>,
    /// The node to fence now
    #[arg(value_name = "NODE", required = true)]
    node: Option<NodeName>,
    /// Although no majority of voters would be left without it
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(clap::Subcommand)]
enum Confirm {
    /// Vouch that a node whose fence no device could confirm cannot write any more
    ///
    /// Do this only when you have made sure yourself, for instance by pulling its power cord. If the node still runs,
    /// two primaries will take writes.
    Confirm {
        /// The node that cannot write any more
        #[arg(value_name = "NODE")]
        node: NodeName,
        /// The open incident, as `regent status` shows it
        #[arg(long, value_name = "ID", value_parser = incident_id)]
        incident: IncidentId,
        /// Although a sign of life shows; this is recorded
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
}

#[derive(clap::Args)]
pub struct UnfenceArguments {
    /// The node that may return
    #[arg(value_name = "NODE")]
    node: NodeName,
    #[command(flatten)]
    waiting: Waiting,
}

/// An incident's number, as `status` and `history` print it.
pub fn incident_id(text: &str) -> Result<IncidentId, String> {
    text.parse().map(IncidentId).map_err(|_| "expected the number of an incident, as `regent history` shows it".into())
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    match (arguments.confirm, arguments.node) {
        (Some(Confirm::Confirm { node, incident, force, yes, waiting }), _) => {
            let warning = format!(
                "You vouch that {node} cannot write any more. If it still runs, two primaries will take writes and \
                 data will be lost.\nMake sure with your own eyes that it has no power or no access to its storage."
            );
            if !confirm::by_typing(node.as_str(), &warning, yes)? {
                return Ok(Exit::Failed);
            }
            perform(common, &waiting, &Request::FenceConfirm { node, incident, force })
        }
        (None, Some(node)) => {
            let warning = fence_warning(&ask_status(common)?, &node)?;
            if !confirm::by_typing(node.as_str(), &warning, arguments.yes)? {
                return Ok(Exit::Failed);
            }
            perform(common, &arguments.waiting, &Request::Fence { node, force: arguments.force })
        }
        (None, None) => Err(UsageError("which node? regent fence NODE".into()).into()),
    }
}

pub fn unfence(common: &Common, arguments: UnfenceArguments) -> anyhow::Result<Exit> {
    perform(common, &arguments.waiting, &Request::Unfence { node: arguments.node })
}

/// What a person should know before a node is shot.
fn fence_warning(status: &Status, node: &NodeName) -> Result<String, UsageError> {
    if !status.nodes.contains_key(node) {
        let names: Vec<&str> = status.nodes.keys().map(|name| name.as_str()).collect();
        return Err(UsageError(format!("there is no node {node}; the nodes are: {}", names.join(", "))));
    }
    let primary_of: Vec<&str> = status
        .services
        .iter()
        .filter(|(_, service)| service.primary.as_ref() == Some(node))
        .map(|(name, _)| name.as_str())
        .collect();
    Ok(match &primary_of[..] {
        [] => format!("{node} will be fenced (with a power device: switched off at once)."),
        services => format!(
            "{node} will be fenced (with a power device: switched off at once). It is the primary of {}: that moves.",
            services.join(", ")
        ),
    })
}
