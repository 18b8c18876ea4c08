//! Asking a daemon over its admin socket. Every wait is bounded, and every way in which it can fail to answer is an
//! error that says what to do.

use super::admin::{Request, Response};
use crate::types::Span;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Why there is no final answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Start it, or ask another node's.
    #[error(
        "no regent daemon answers on {} ({source}); start it (systemctl start regent), \
         or name the right socket with --socket or --config",
        socket.display()
    )]
    NotRunning { socket: PathBuf, source: io::Error },
    /// Root and the group `regent` may ask.
    #[error(
        "no permission to use {}: run this as root, or as a member of the group {}",
        socket.display(), super::admin::GROUP
    )]
    NoPermission { socket: PathBuf },
    /// The request had been sent: what it asked for may still happen.
    #[error("no final answer within {}{}", Span(*within), last_progress(last))]
    TimedOut { within: Duration, last: Option<String> },
    /// The request had been sent: what it asked for may still happen.
    #[error("the daemon closed the connection without a final answer{}", last_progress(last))]
    Broken { last: Option<String> },
    /// Both come from one package: install the same version, then restart the daemon.
    #[error("the daemon's answer cannot be read, are this program and the daemon of one version? ({source}): {line}")]
    Unreadable { line: String, source: serde_json::Error },
}

fn last_progress(last: &Option<String>) -> String {
    last.as_ref().map(|last| format!("; the last word was: {last}")).unwrap_or_default()
}

/// Sends one request and returns the final response; `progress` is called with each message on the way.
pub async fn ask(
    socket: &Path,
    request: &Request,
    within: Duration,
    progress: impl FnMut(&str),
) -> Result<Response, AskError> {
    let mut last = None;
    match tokio::time::timeout(within, converse(socket, request, &mut last, progress)).await {
        Ok(result) => result,
        Err(_) => Err(AskError::TimedOut { within, last }),
    }
}

async fn converse(
    socket: &Path,
    request: &Request,
    last: &mut Option<String>,
    mut progress: impl FnMut(&str),
) -> Result<Response, AskError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NoPermission { socket: socket.to_owned() },
        _ => AskError::NotRunning { socket: socket.to_owned(), source },
    })?;
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(request).expect("a request is names, numbers and booleans");
    line.push(b'\n');
    // A daemon that refuses the peer closes without reading; its reason is then still in our buffer.
    let _ = write.write_all(&line).await;
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Response::Progress { message, .. }) => {
                progress(&message);
                *last = Some(message);
            }
            Ok(response) => return Ok(response),
            Err(source) => return Err(AskError::Unreadable { line, source }),
        }
    }
    Err(AskError::Broken { last: last.take() })
}
