//! A running PostgreSQL server, over its Unix socket: reload, end connections. What is done to a role is in
//! `role.rs`.

use regent::rights::Rights;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Pause between two looks at something that only the server knows.
const PAUSE: Duration = Duration::from_millis(10);
/// A connection that was accepted before the reload may still be logging in under the old rules: it is waited for, and
/// looked for again.
const LATE_LOGIN: Duration = Duration::from_millis(50);

/// The fenced node may be the very standby that a synchronous commit would wait for; whatever the database's defaults
/// are, the role must be changed, and nobody's lock may hold up the rest.
const SETTINGS: &str = "-c synchronous_commit=local -c default_transaction_read_only=off -c lock_timeout=2s \
                        -c search_path=pg_catalog";

/// Why a server's part failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the server at {place} cannot be used", place = place.display())]
    Connect { place: PathBuf, source: tokio_postgres::Error },
    #[error("the server did not do {what}")]
    Sql { what: &'static str, source: tokio_postgres::Error },
    #[error("the server did not finish within {limit:?}")]
    TooSlow { limit: Duration },
}

/// An open connection as superuser.
pub struct Server {
    pub(super) client: Client,
}

/// Connects; `None` when nothing listens at the socket. A server that is still starting gets a hang-up signal, which
/// makes it read the file again, and counts as not there: nobody can have logged in yet.
pub async fn connect(dir: &Path, port: u16, user: &str, limit: Duration) -> Result<Option<Server>, ServerError> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(dir).port(port).user(user).dbname("postgres").application_name("fence_regent_credentials");
    config.connect_timeout(limit).options(SETTINGS);
    let error = match tokio::time::timeout(limit, config.connect(NoTls)).await {
        Err(_) => return Err(ServerError::TooSlow { limit }),
        Ok(Ok((client, connection))) => {
            tokio::spawn(connection);
            return Ok(Some(Server { client }));
        }
        Ok(Err(error)) => error,
    };
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    let cause = std::error::Error::source(&error).and_then(|c| c.downcast_ref::<io::Error>());
    if cause.is_some_and(|c| absent.contains(&c.kind())) {
        return Ok(None);
    }
    if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) {
        hang_up(dir, port);
        return Ok(None);
    }
    // Whatever else is wrong, the file is to be read again.
    hang_up(dir, port);
    Err(ServerError::Connect { place: dir.join(format!(".s.PGSQL.{port}")), source: error })
}

/// Sends SIGHUP to the postmaster that the lock file of the socket names, if that is one.
fn hang_up(dir: &Path, port: u16) {
    let lock = dir.join(format!(".s.PGSQL.{port}.lock"));
    let lock = Rights::of_owner(dir).and_then(|rights| rights.read_text(&lock, 4096)).unwrap_or_default();
    let Some(pid) = lock.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 1) else {
        return;
    };
    // The lock of a server that was killed stays behind, and its number may belong to somebody else by now.
    if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres") {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP);
    }
}

impl Server {
    async fn loaded(&self) -> Result<SystemTime, ServerError> {
        let failed = |source| ServerError::Sql { what: "SELECT pg_conf_load_time()", source };
        Ok(self.client.query_one("SELECT pg_conf_load_time()", &[]).await.map_err(failed)?.get(0))
    }

    /// Lets the server read its files again, and returns when connections that come now meet the new ones. The
    /// postmaster reads all files before it accepts the next connection, and tells its children, this one too.
    pub async fn reload(&self) -> Result<(), ServerError> {
        let before = self.loaded().await?;
        let failed = |source| ServerError::Sql { what: "SELECT pg_reload_conf()", source };
        self.client.execute("SELECT pg_reload_conf()", &[]).await.map_err(failed)?;
        while self.loaded().await? == before {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Ends every connection from the addresses or of the role, until none is seen twice in a row. Returns how many.
    pub async fn end_connections(&self, from: &BTreeSet<IpAddr>, role: Option<&str>) -> Result<usize, ServerError> {
        let from: Vec<String> = from.iter().map(IpAddr::to_string).collect();
        let failed = |source| ServerError::Sql { what: "pg_terminate_backend()", source };
        let mut ended = BTreeSet::new();
        let mut quiet_looks = 0;
        while quiet_looks < 2 {
            let rows = self
                .client
                .query(
                    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                     AND (client_addr = ANY ($1::text[]::inet[]) OR usename = $2::text)",
                    &[&from, &role],
                )
                .await
                .map_err(failed)?;
            quiet_looks = if rows.is_empty() { quiet_looks + 1 } else { 0 };
            ended.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
            tokio::time::sleep(if rows.is_empty() { LATE_LOGIN } else { PAUSE }).await;
        }
        Ok(ended.len())
    }
}
