//! `regent switchover`: the primary moves in order, losing nothing.

use super::verb::{Waiting, perform};
use super::{Common, Exit};
use crate::api::admin::Request;
use crate::types::{NodeName, ServiceName};

#[derive(clap::Args)]
pub struct Arguments {
    /// The new primary [default: the best candidate]
    #[arg(long, value_name = "NODE")]
    to: Option<NodeName>,
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Print the plan and every check, and touch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { to, service, dry_run, waiting } = arguments;
    perform(common, &waiting, &Request::Switchover { service, to, dry_run })
}
