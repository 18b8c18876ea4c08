//! `regent reload`.

use super::verb::{Waiting, perform};
use super::{Common, Exit};
use crate::api::admin::Request;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: &Arguments) -> anyhow::Result<Exit> {
    perform(common, &arguments.waiting, &Request::Reload)
}
