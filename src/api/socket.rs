//! The admin socket: `admin.sock` in `run_dir`, for root and the members of the group `regent` only.
//!
//! It reads one request a connection, hands it to the daemon's loop, and writes what the loop answers until a final
//! response. Not here: what a request means.

#![expect(clippy::disallowed_methods, reason = "when to accept again: plain I/O")]

use super::admin::{GROUP, Request, Response};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

/// A request, and where its responses go. The loop sends any number of `Progress` and one final response; when the
/// sender is closed the client has gone, which cancels nothing by itself.
pub type Asked = (Request, mpsc::Sender<Response>);

/// The longest request line.
const REQUEST_MAX: u64 = 64 * 1024;
/// A client that connects sends its request at once.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// A client that does not read its answers is dropped.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// Responses under way between the loop and one connection.
const RESPONSES_MAX: usize = 64;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Two daemons with one `run_dir`: give each its own, or stop the other.
    #[error("{}: another daemon answers on this socket; two daemons must not share a run_dir", path.display())]
    InUse { path: PathBuf },
    /// The directory is missing or not writable: it is made by systemd-tmpfiles or by the unit.
    #[error("{}: the admin socket cannot be made", path.display())]
    Bind { path: PathBuf, source: io::Error },
}

/// The bound socket. Nobody is answered before `serve`.
pub struct AdminSocket {
    listener: UnixListener,
    allowed: Allowed,
}

/// Who may ask, apart from root and the daemon's own user.
#[derive(Clone, Copy)]
struct Allowed {
    group: Option<u32>,
}

impl AdminSocket {
    /// Makes the socket, mode 0660, owned by the group `regent` where that exists. It appears under its name only with
    /// these rights. A socket that an earlier daemon left behind is replaced.
    pub async fn bind(path: &Path) -> Result<AdminSocket, SocketError> {
        let failed = |source| SocketError::Bind { path: path.to_owned(), source };
        if UnixStream::connect(path).await.is_ok() {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        let group = nix::unistd::Group::from_name(GROUP).ok().flatten().map(|g| g.gid);
        let unfinished = path.with_extension(format!("new.{}", std::process::id()));
        remove_if_there(&unfinished).map_err(failed)?;
        let listener = UnixListener::bind(&unfinished).map_err(failed)?;
        let made = std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o660))
            .and_then(|()| match group {
                // Only root may give a file to any group; a daemon that runs as somebody else serves that user alone.
                Some(gid) if nix::unistd::geteuid().is_root() => {
                    nix::unistd::chown(&unfinished, None, Some(gid)).map_err(io::Error::from)
                }
                _ => Ok(()),
            })
            .and_then(|()| std::fs::rename(&unfinished, path));
        if let Err(error) = made {
            let _ = std::fs::remove_file(&unfinished);
            return Err(failed(error));
        }
        Ok(AdminSocket { listener, allowed: Allowed { group: group.map(|g| g.as_raw()) } })
    }

    /// Answers until the daemon's loop has dropped its receiver.
    pub async fn serve(self, requests: mpsc::Sender<Asked>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = requests.closed() => return,
            };
            match stream {
                Ok((stream, _)) => {
                    let (requests, allowed) = (requests.clone(), self.allowed);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, allowed, requests).await {
                            tracing::debug!(%error, "an admin connection ended early");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors: waiting is all that can be done without giving the socket up.
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One connection, from the request to the final response.
async fn converse(stream: UnixStream, allowed: Allowed, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let may_ask = allowed.permits(&stream);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(REQUEST_MAX));
    if let Err(error) = may_ask {
        return send(&mut write, &Response::Failed { error }).await;
    }
    let mut line = String::new();
    tokio::time::timeout(REQUEST_WITHIN, read.read_line(&mut line)).await??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => {
            let error = format!("this daemon (version {}) cannot read the request: {error}", env!("CARGO_PKG_VERSION"));
            return send(&mut write, &Response::Failed { error }).await;
        }
    };
    let (answer, mut answers) = mpsc::channel(RESPONSES_MAX);
    if requests.send((request, answer)).await.is_err() {
        return send(&mut write, &Response::Failed { error: "the daemon is shutting down".into() }).await;
    }
    let mut rest = [0; 1];
    loop {
        tokio::select! {
            response = answers.recv() => {
                let Some(response) = response else {
                    let error = "the daemon dropped the request without a final answer; its log says why".into();
                    return send(&mut write, &Response::Failed { error }).await;
                };
                send(&mut write, &response).await?;
                if response.is_final() {
                    return Ok(());
                }
            }
            // The client has nothing more to say: an end of its side means that it has gone.
            _ = read.read(&mut rest) => return Ok(()),
        }
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response).map_err(io::Error::other)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE_WITHIN, write.write_all(&line)).await??;
    Ok(())
}

impl Allowed {
    /// The file's mode already keeps others out; this holds also where somebody loosened it. The error is the
    /// sentence for the client.
    fn permits(self, stream: &UnixStream) -> Result<(), String> {
        let peer = stream.peer_cred().map_err(|e| format!("the kernel does not tell who is asking: {e}"))?;
        let groups = || peer_groups(stream).unwrap_or_default();
        if peer.uid() == 0
            || peer.uid() == nix::unistd::geteuid().as_raw()
            || self.group.is_some_and(|group| peer.gid() == group || groups().contains(&group))
        {
            return Ok(());
        }
        Err(format!("only root and members of the group {GROUP} may use this socket (you are user {})", peer.uid()))
    }
}

/// The supplementary groups that the peer had when it connected (SO_PEERGROUPS).
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    const GROUPS_MAX: usize = 1024;
    let mut groups = vec![0u32; GROUPS_MAX];
    let mut bytes = libc::socklen_t::try_from(GROUPS_MAX * size_of::<u32>()).expect("4 KiB fit");
    // SAFETY: the buffer is `bytes` long and lives through the call; the kernel writes at most that and stores how much.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}
