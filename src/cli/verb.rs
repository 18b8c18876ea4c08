//! What all verbs share: ask, show what is being waited for, show how it ended, and choose the exit code.

use super::{Common, Exit, locate, output, render};
use crate::api::admin::{Request, Response};
use crate::api::client;
use crate::api::status::Status;
use anyhow::Context;
use std::time::Duration;

/// Questions are answered from memory.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a verb that changes something may take.
#[derive(clap::Args, Clone)]
pub struct Waiting {
    /// How long to wait for the end, as in 90s or 5m; what was begun goes on afterwards
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,
}

impl Waiting {
    /// How long.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// A time with its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|error| format!("expected a time as in 90s: {error}"))?;
    Duration::try_from(duration).map_err(|_| "expected a time that is not negative".to_owned())
}

/// Lets a future run to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the event loop cannot be started")?.block_on(future)
}

/// Asks a question and returns its final answer. Progress goes to standard error.
pub fn ask(common: &Common, request: &Request) -> anyhow::Result<Response> {
    let socket = locate::socket(common)?;
    block_on(async { Ok(client::ask(&socket, request, ANSWER_WITHIN, output::progress).await?) })
}

/// The status, for verbs that show it before they ask for confirmation.
pub fn ask_status(common: &Common) -> anyhow::Result<Status> {
    match ask(common, &Request::Status)? {
        Response::Status(status) => Ok(*status),
        other => anyhow::bail!("{}", unexpected(&other)),
    }
}

/// What is being waited for.
pub fn tell(common: &Common, message: &str) {
    match common.json {
        true => output::say_json(&Response::progress(message)),
        false => output::progress(message),
    }
}

/// Carries out a verb: one request, its progress, its end.
pub fn perform(common: &Common, waiting: &Waiting, request: &Request) -> anyhow::Result<Exit> {
    let socket = locate::socket(common)?;
    let show = |message: &str| tell(common, message);
    let answer = block_on(async { Ok(client::ask(&socket, request, waiting.timeout, show).await?) });
    let answer = answer.inspect_err(|error| {
        if super::exit::of_error(error) == Exit::Unknown && request.changes_something() {
            output::complain("what was asked for may still happen: see `regent status` and `regent history`");
        }
    })?;
    finish(common, &answer)
}

/// Shows a final response and returns the exit code that it deserves.
pub fn finish(common: &Common, answer: &Response) -> anyhow::Result<Exit> {
    if common.json {
        output::say_json(answer);
        return Ok(exit_of(answer));
    }
    match answer {
        Response::Done { message, details } => output::say(&render::with_details(message, details)),
        Response::Refused { reasons } => output::complain(&render::with_details("refused:", reasons)),
        Response::Failed { error } => output::complain(error),
        Response::Plan { steps, checks } => output::say(&render::plan(steps, checks)),
        Response::Status(_) | Response::History { .. } | Response::Incident(_) | Response::Progress { .. } => {
            anyhow::bail!("{}", unexpected(answer))
        }
    }
    Ok(exit_of(answer))
}

fn exit_of(answer: &Response) -> Exit {
    match answer {
        Response::Refused { .. } => Exit::Refused,
        Response::Plan { checks, .. } if checks.iter().any(|check| !check.passed) => Exit::Refused,
        Response::Failed { .. } => Exit::Failed,
        _ => Exit::Done,
    }
}

/// The sentence for an answer to another question than the one asked.
pub fn unexpected(answer: &Response) -> String {
    match answer {
        Response::Failed { error } => error.clone(),
        Response::Refused { reasons } => format!("refused: {}", reasons.join("; ")),
        _ => "the daemon answered something else than what was asked: is it of another version than this program?"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admin::Check;

    #[test]
    fn the_exit_code_follows_the_answer() {
        for (answer, exit) in [
            (Response::Done { message: "done".into(), details: vec![] }, Exit::Done),
            (Response::Refused { reasons: vec!["db2 lags".into()] }, Exit::Refused),
            (Response::Failed { error: "no".into() }, Exit::Failed),
            (Response::Plan { steps: vec![], checks: vec![Check::passed("db2 streams")] }, Exit::Done),
            (Response::Plan { steps: vec![], checks: vec![Check::warning("db2 lags")] }, Exit::Done),
            (Response::Plan { steps: vec![], checks: vec![Check::failed("db2 lags")] }, Exit::Refused),
        ] {
            assert_eq!(exit_of(&answer), exit, "{answer:?}");
        }
    }

    #[test]
    fn a_timeout_is_written_with_its_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("90").is_err(), "a number without a unit was accepted");
        assert!(parse_duration("-1s").is_err(), "a negative time was accepted");
    }
}
