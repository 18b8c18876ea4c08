//! `regent pause` and `regent resume`.

use super::verb::{Waiting, perform};
use super::{Common, Exit};
use crate::api::admin::Request;
use crate::types::ServiceName;

#[derive(clap::Args)]
pub struct Arguments {
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn pause(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    perform(common, &arguments.waiting, &Request::Pause { service: arguments.service })
}

pub fn resume(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    perform(common, &arguments.waiting, &Request::Resume { service: arguments.service })
}
