//! `regent explain`: one incident, from the ledger alone.

use super::{Common, Exit, fence, output, render, verb};
use crate::api::admin::{Request, Response};
use crate::types::IncidentId;

#[derive(clap::Args)]
pub struct Arguments {
    /// Which incident [default: the latest]
    #[arg(value_name = "INCIDENT", value_parser = fence::incident_id)]
    incident: Option<IncidentId>,
}

pub fn run(common: &Common, arguments: &Arguments) -> anyhow::Result<Exit> {
    match verb::ask(common, &Request::Explain { incident: arguments.incident })? {
        Response::Incident(report) if common.json => output::say_json_document(&report),
        Response::Incident(report) => output::say(&render::incident(&report)),
        other => return verb::finish(common, &other),
    }
    Ok(Exit::Done)
}
