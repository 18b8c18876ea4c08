//! `regent status`: who is primary, every node, what each sees of the others, and whether a failover would succeed now.

#![expect(clippy::disallowed_methods, reason = "how often the screen is drawn")]

use super::health::{Health, health};
use super::{Common, Exit, locate, output, render, verb};
use crate::api::admin::{Request, Response};
use crate::api::client;
use crate::api::status::Status;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// Show it again every second until interrupted (with --json: one document a line)
    #[arg(long)]
    watch: bool,
    /// One line and the exit codes of monitoring plug-ins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    nagios: bool,
    /// Count it as degraded, too, where one more failure would not be survived: more than three voters can promise that
    #[arg(long)]
    strict: bool,
}

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Clears the terminal and moves to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub fn run(common: &Common, arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.watch {
        return watch(common);
    }
    if arguments.nagios {
        return Ok(nagios(verb::ask_status(common), arguments.strict));
    }
    let status = verb::ask_status(common)?;
    if common.json {
        output::say_json_document(&status);
    } else {
        output::say(&render::status(&status));
    }
    Ok(match health(&status, arguments.strict).0 {
        Health::Healthy => Exit::Done,
        Health::Degraded => Exit::Degraded,
        Health::Down => Exit::Down,
    })
}

/// One line for a monitoring system.
fn nagios(status: anyhow::Result<Status>, strict: bool) -> Exit {
    let (word, text, code) = match status {
        Err(error) => ("UNKNOWN", format!("{error:#}"), 3),
        Ok(status) => match health(&status, strict) {
            (Health::Healthy, _) => ("OK", render::primaries(&status), 0),
            (Health::Degraded, reasons) => ("WARNING", reasons.join("; "), 1),
            (Health::Down, reasons) => ("CRITICAL", reasons.join("; "), 2),
        },
    };
    output::say(&format!("REGENT {word} - {text}"));
    Exit::Plugin(code)
}

/// Until interrupted. A daemon that is away for a moment is shown as such; watching goes on.
fn watch(common: &Common) -> anyhow::Result<Exit> {
    let socket = locate::socket(common)?;
    verb::block_on(async {
        let mut tick = tokio::time::interval(WATCH_EVERY);
        loop {
            tick.tick().await;
            let answer = client::ask(&socket, &Request::Status, verb::ANSWER_WITHIN, |_| ()).await;
            match answer {
                Ok(Response::Status(status)) if common.json => output::say_json(&status),
                Ok(Response::Status(status)) => output::say(&format!("{CLEAR}{}", render::status(&status))),
                Ok(other) => output::complain(&verb::unexpected(&other)),
                Err(error) if common.json => output::complain(&error.to_string()),
                Err(error) => output::say(&format!("{CLEAR}{error}")),
            }
        }
    })
}
