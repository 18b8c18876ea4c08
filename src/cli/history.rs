//! `regent history`: every incident, newest first.

use super::{Common, Exit, output, render, verb};
use crate::api::admin::{Request, Response};

pub fn run(common: &Common) -> anyhow::Result<Exit> {
    match verb::ask(common, &Request::History)? {
        Response::History { incidents } if common.json => output::say_json_document(&incidents),
        Response::History { incidents } => output::say(&render::history(&incidents)),
        other => return verb::finish(common, &other),
    }
    Ok(Exit::Done)
}
