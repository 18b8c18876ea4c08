//! `regent maintenance`: a node that somebody works on is left alone and not counted on, for a time or until it ends.

use super::verb::{Waiting, parse_duration, perform};
use super::{Common, Exit};
use crate::api::admin::Request;
use crate::types::NodeName;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// The node: its database is neither started, restarted nor copied, and it takes nothing over
    node: NodeName,
    /// It ends by itself after that, as in 90m or 2h; given again, the time begins anew
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
    /// End it now
    #[arg(long, conflicts_with_all = ["lasts", "force"])]
    end: bool,
    /// Although nobody else could take over, or no majority would be left, without the node
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { node, lasts, end, force, waiting } = arguments;
    let request = match end {
        true => Request::EndMaintenance { node },
        false => Request::Maintenance { node, lasts_ms: lasts.map(|time| time.as_millis() as u64), force },
    };
    perform(common, &waiting, &request)
}
