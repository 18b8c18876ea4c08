//! What can go wrong in the PostgreSQL engine, each with the thing, the place and what to do.

use crate::durable::FileError;
use crate::errors::with_causes;
use crate::rights::SecretError;
use crate::types::{NodeName, Position, Quoted, ServiceName, Span, SystemId};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot {doing} {path}: {source}")]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the secret in {path}: {}", with_causes(source))]
    Secret { path: PathBuf, source: SecretError },
    #[error("cannot start {program}: {source}; check bin_dir and that the daemon runs as root")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("{program} failed ({status}): {output}")]
    Program { program: PathBuf, status: String, output: String },
    #[error("{program} was killed after {} without an end", Span(*after))]
    ProgramDeadline { program: PathBuf, after: Duration },
    #[error("{key}: {why}")]
    Command { key: &'static str, why: String },
    #[error("cannot {doing}: {detail}")]
    Sql { doing: &'static str, detail: String, code: Option<String> },
    #[error("{what} did not answer within {}", Span(*after))]
    NoAnswer { what: &'static str, after: Duration },
    #[error("service {service} is not in the configuration; add [service.{service}]")]
    NoSuchService { service: ServiceName },
    #[error(
        "os_user = {} of service {service} does not exist on this host; create it, or correct os_user",
        Quoted(user)
    )]
    NoSuchUser { service: ServiceName, user: String },
    #[error("parameter {} belongs to regent; remove it from the parameters of the service", Quoted(name))]
    OwnedParameter { name: String },
    #[error("cannot {action} while the database is {state}: {remedy}")]
    WrongState { action: &'static str, state: String, remedy: &'static str },
    #[error("refused to {action}: {why}")]
    Refused { action: &'static str, why: String },
    #[error("{path} does not hold what was expected: {detail}")]
    Malformed { path: PathBuf, detail: String },
    #[error(
        "system identifier is {here}, but {node} has {there}: {data_dir} is no copy of its database; \
             `regent reinit` has this node copied anew, `regent accept` lets its copy win"
    )]
    OtherDatabase { here: SystemId, there: SystemId, node: NodeName, data_dir: PathBuf },
    #[error(
        "{data_dir} is an older copy and is not opened: it is at {holds}, without the WAL up to {had}, to which this \
             node's database had come. \
             Put the right directory back; or `regent reinit` this node, and it is copied anew once another one is the \
             primary; or `regent accept` this node, and this copy wins: everything after {holds} is lost then"
    )]
    OlderCopy { data_dir: PathBuf, holds: Position, had: Position },
    #[error(
        "{data_dir} belongs to another cluster and is not started: its system identifier is {holds}, and this node's \
             database has {had}. Put the right directory back; or `regent reinit` this node, and it is copied anew from the \
             primary; or `regent accept` this node, and this is the database of the service from now on: everything that \
             the service had is lost then"
    )]
    OtherCluster { data_dir: PathBuf, holds: SystemId, had: SystemId },
    #[error(
        "{label} is left from a backup ({about}) in a directory in which this node's database has run: PostgreSQL would recover \
             it as a copy, and may never come to an end, so it is not opened. \
             Was that a backup of this database, cut off by the end of its host or server? Then remove that file, and \
             tablespace_map beside it. Was a backup put there by somebody? Then leave it, and `regent accept` this node: \
             that copy wins, and what it lacks is lost; or `regent reinit` it, and it is copied anew once another one is the \
             primary"
    )]
    LabelLeft { label: PathBuf, about: String },
    #[error("PostgreSQL does not take its settings: {why}")]
    Settings { why: String },
    #[error("the server ended while it was starting: {log}")]
    StartFailed { log: String },
    #[error("{node} is reached over neither network: {first}; {second}")]
    NoNetwork { node: NodeName, first: Box<EngineError>, second: Box<EngineError> },
    #[error("another write of primary_conninfo was asked for later: nothing was written")]
    Overtaken,
    #[error("interrupted by a stop")]
    Interrupted,
}

impl From<FileError> for EngineError {
    fn from(FileError { doing, path, source }: FileError) -> Self {
        EngineError::File { doing, path, source }
    }
}

impl EngineError {
    /// Wraps an I/O error on a path; for `map_err`.
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| EngineError::File { doing, path, source }
    }

    /// Wraps an error of the SQL connection, with the server's own words where it said any.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| EngineError::Sql {
            doing,
            detail: error.as_db_error().map_or_else(|| with_causes(&error), ToString::to_string),
            code: error.code().map(|code| code.code().to_owned()),
        }
    }

    /// The SQLSTATE, where the server sent one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            EngineError::Sql { code, .. } => code.as_deref(),
            _ => None,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, EngineError>;
