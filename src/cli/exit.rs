//! Exit codes: documented in `docs/cli.md`, and never given another meaning.

use crate::api::client::AskError;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    /// Wrong arguments (clap's own code as well) or an invalid configuration.
    Usage,
    Refused,
    Unreachable,
    /// The request was sent, and nobody can say what became of it.
    Unknown,
    /// `status`: every service has its primary, and something needs attention.
    Degraded,
    /// `status`: a service has no primary, or there is no quorum.
    Down,
    /// `lost`: not all that may be lost could be listed.
    Incomplete,
    /// `status --nagios`: the code that monitoring systems fixed for their plug-ins, 0 to 3.
    Plugin(u8),
}

/// The end of `regent --help`.
pub const HELP: &str = "Exit codes: 0 done (status: healthy) · 1 failed · 2 usage or invalid configuration · \
3 refused, with reasons · 4 the daemon cannot be reached · 5 outcome unknown · 6 status: degraded · \
7 status: a service has no primary, or there is no quorum · 8 lost: the list is not complete";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Unreachable => 4,
            Exit::Unknown => 5,
            Exit::Degraded => 6,
            Exit::Down => 7,
            Exit::Incomplete => 8,
            Exit::Plugin(code) => code,
        })
    }
}

/// A mistake in how the command was called, or in the configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code of a command that ended with an error.
pub fn of_error(error: &anyhow::Error) -> Exit {
    if error.is::<UsageError>() {
        return Exit::Usage;
    }
    match error.downcast_ref::<AskError>() {
        Some(AskError::NotRunning { .. } | AskError::NoPermission { .. }) => Exit::Unreachable,
        Some(AskError::TimedOut { .. } | AskError::Broken { .. } | AskError::Unreadable { .. }) => Exit::Unknown,
        None => Exit::Failed,
    }
}
