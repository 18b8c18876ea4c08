//! The SQL connection that regent keeps to the local server, over the socket in its run directory, as the superuser
//! (in a reserved slot), and the questions asked on it.

use super::error::{EngineError, Result};
use super::layout::Layout;
use crate::config::Postgresql;
use crate::types::{Lsn, SystemId, Timeline};
use rustls::ClientConfig;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// One open connection. Its driver task ends with it.
#[derive(Debug)]
pub struct Session {
    client: Client,
}

/// The database in which regent asks, and keeps its table.
pub const HOME: &str = "postgres";

/// What one question about the server's place in the WAL brings.
#[derive(Clone, Debug)]
pub struct Place {
    pub in_recovery: bool,
    /// Primary: the flushed end and its timeline.
    pub flushed: Option<(Lsn, Timeline)>,
    /// Standby: what was received since the last start of streaming, and what is replayed.
    pub received: Option<Lsn>,
    pub replayed: Option<Lsn>,
    /// Standby: the startup process waits for WAL that is not here.
    pub awaits_wal: bool,
    /// Standby: the startup process waits because it was told to (`recovery_min_apply_delay`), and for how many seconds after
    /// a commit that is.
    pub waits_for_delay: bool,
    pub delay: u64,
    /// Standby: the WAL receiver, while one runs.
    pub receiver: Option<Receiver>,
    pub conninfo: String,
}

/// What tells whether anybody has tried to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// A segment ends, and is archived, when its time is over, however little is in it.
    pub segments_by_time: bool,
    /// The number of the next transaction that writes.
    next: String,
    /// One that writes is under way, or came to no end yet.
    under_way: bool,
    /// How many transactions came to nothing.
    failed: i64,
}

impl Tried {
    /// Whether nobody has tried since.
    pub fn is_still(&self, before: &Tried) -> bool {
        !self.under_way && self.segments_by_time && (&self.next, self.failed) == (&before.next, before.failed)
    }
}

/// The WAL receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub pid: i32,
    pub streaming: bool,
    pub timeline: Timeline,
    /// As the conninfo names it.
    pub host: Option<String>,
    /// When the last message came, as the server writes it.
    pub last_message: Option<String>,
    /// It is at work on what came, or waits for its disk.
    pub writes: bool,
}

impl Place {
    /// The end of the WAL that is here. After a restart of streaming the receiver's own figure begins again at a
    /// segment's start, so what is replayed counts as well.
    pub fn end(&self) -> Lsn {
        match self.flushed {
            Some((lsn, _)) => lsn,
            None => self.received.max(self.replayed).unwrap_or_default(),
        }
    }
}

/// What the startup process waits for when it has read all the WAL that is here.
pub const AT_THE_END: [&str; 2] = ["RecoveryRetrieveRetryInterval", "RecoveryWalStream"];

/// What it waits for where replay is delayed on purpose.
const DELAYED: &str = "RecoveryApplyDelay";

/// What a session of regent's sets beside the rest, where the server knows it. A trigger on the login might refuse it.
const NEWER: [(&str, &str); 3] =
    [("idle_session_timeout", "0"), ("transaction_timeout", "0"), ("event_triggers", "off")];

/// What a role's or a database's own settings must not have changed: who it is, and what its transactions are. Not the libraries
/// that every session loads: where their files are missing nobody is let in, and that must show.
const OF_ROLES: &str =
    "-c role=none -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off";

const PLACE: &str = "select pg_is_in_recovery(), \
    case when not pg_is_in_recovery() then pg_current_wal_flush_lsn()::text end, \
    case when not pg_is_in_recovery() then substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end, \
    pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text, \
    case when pg_has_role('pg_read_all_settings', 'usage') then current_setting('primary_conninfo') else '' end, \
    r.pid, r.status, r.received_tli, r.sender_host, \
    (select wait_event from pg_stat_activity where backend_type = 'startup'), \
    r.last_msg_receipt_time::text, \
    (select wait_event_type = 'IO' from pg_stat_activity a where a.pid = r.pid), \
    extract(epoch from current_setting('recovery_min_apply_delay')::interval)::bigint \
    from (select) one left join pg_stat_wal_receiver r on true";

/// Whether segments end by time, and who has written. `failed` counts what the server has been told: at the latest when
/// a session has been idle for a second.
const TRIED: &str = "select (select setting::bigint > 0 from pg_settings where name = 'archive_timeout'), \
    pg_snapshot_xmax(pg_current_snapshot())::text, \
    exists (select from pg_stat_activity where pid <> pg_backend_pid() and backend_xid is not null), \
    (select coalesce(sum(xact_rollback), 0)::bigint from pg_stat_database)";

impl Session {
    /// Opens a connection with session settings that no role's or database's own can undo.
    pub async fn open(layout: &Layout, postgresql: &Postgresql, deadline: Duration) -> Result<Self> {
        Self::open_in(HOME, layout, postgresql, deadline).await
    }

    /// The same, in this database.
    pub async fn open_in(database: &str, layout: &Layout, postgresql: &Postgresql, deadline: Duration) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&layout.socket).port(postgresql.port).user(&postgresql.superuser).dbname(database);
        config.application_name("regent").connect_timeout(deadline);
        let timeout = postgresql.probe_timeout.as_millis().max(1);
        // `local`: a synchronous standby that is away must not look like a dead primary.
        let mut options = format!(
            "-c synchronous_commit=local -c default_transaction_read_only=off -c lock_timeout={timeout} \
             -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c jit=off -c search_path=pg_catalog {OF_ROLES}"
        );
        for (name, value) in NEWER {
            if layout.knows(name) {
                options.push_str(&format!(" -c {name}={value}"));
            }
        }
        config.options(options);
        Self::connect(config, None, "connect to the local server", deadline).await
    }

    /// The same, and it sets nothing that the server's files may set: so it can be asked for them.
    pub async fn open_plain(layout: &Layout, postgresql: &Postgresql, deadline: Duration) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&layout.socket).port(postgresql.port).user(&postgresql.superuser).dbname(HOME);
        config.application_name("regent files").connect_timeout(deadline);
        Self::connect(config, None, "connect to the local server", deadline).await
    }

    /// Opens a connection to any server; with TLS it must be the one that it is taken for.
    pub async fn connect(
        mut config: tokio_postgres::Config,
        tls: Option<ClientConfig>,
        doing: &'static str,
        deadline: Duration,
    ) -> Result<Self> {
        let client = async {
            match tls {
                Some(tls) => {
                    config.ssl_mode(SslMode::Require);
                    config.connect(MakeRustlsConnect::new(tls)).await.map(driven)
                }
                None => config.connect(NoTls).await.map(driven),
            }
        };
        let connected = tokio::time::timeout(deadline, client).await;
        let client = connected.map_err(|_| EngineError::NoAnswer { what: doing, after: deadline })?;
        Ok(Session { client: client.map_err(EngineError::sql(doing))? })
    }

    /// The connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The plain client, for questions of one place only.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the server is.
    pub async fn place(&self) -> Result<Place> {
        let doing = "ask the server for its position";
        let statement = self.client.query_typed(PLACE, &[]).await.map_err(EngineError::sql(doing))?;
        let row = statement.first().ok_or(EngineError::NoAnswer { what: doing, after: Duration::ZERO })?;
        let lsn = |i| row.get::<_, Option<&str>>(i).and_then(|text| text.parse::<Lsn>().ok());
        let flushed_on = row.get::<_, Option<&str>>(2).and_then(|hex| u32::from_str_radix(hex, 16).ok()).map(Timeline);
        let receiver = row.get::<_, Option<i32>>(6).map(|pid| Receiver {
            pid,
            streaming: row.get::<_, Option<&str>>(7) == Some("streaming"),
            timeline: Timeline(row.get::<_, Option<i32>>(8).and_then(|t| u32::try_from(t).ok()).unwrap_or_default()),
            host: row.get::<_, Option<&str>>(9).map(ToOwned::to_owned),
            last_message: row.get::<_, Option<&str>>(11).map(ToOwned::to_owned),
            writes: row.get::<_, Option<bool>>(12).unwrap_or_default(),
        });
        let waits_for = row.get::<_, Option<&str>>(10);
        Ok(Place {
            in_recovery: row.get(0),
            flushed: lsn(1).zip(flushed_on),
            received: lsn(3),
            replayed: lsn(4),
            awaits_wal: waits_for.is_some_and(|event| AT_THE_END.contains(&event)),
            waits_for_delay: waits_for == Some(DELAYED),
            delay: row.get::<_, i64>(13).max(0).cast_unsigned(),
            receiver,
            conninfo: row.get::<_, &str>(5).to_owned(),
        })
    }

    /// The system identifier and the size of a WAL segment: both for life.
    pub async fn identity(&self) -> Result<(SystemId, u64)> {
        let question =
            "select s.system_identifier, i.bytes_per_wal_segment from pg_control_system() s, pg_control_init() i";
        let doing = "ask the server for its system identifier";
        let rows = self.client.query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
        let row = rows.first().ok_or(EngineError::NoAnswer { what: doing, after: Duration::ZERO })?;
        // PostgreSQL has no unsigned type: the identifier's bits are what counts.
        let segment = u64::try_from(row.get::<_, i32>(1)).unwrap_or(16 << 20);
        Ok((SystemId(row.get::<_, i64>(0).cast_unsigned()), segment))
    }

    /// Whether anybody has tried to write: those that did and those that could not. It takes no transaction's number itself.
    pub async fn tried(&self) -> Result<Tried> {
        let doing = "ask the server who has tried to write";
        let rows = self.client.query_typed(TRIED, &[]).await.map_err(EngineError::sql(doing))?;
        let row = rows.first().ok_or(EngineError::NoAnswer { what: doing, after: Duration::ZERO })?;
        let (segments_by_time, next, under_way, failed) = (row.get(0), row.get(1), row.get(2), row.get(3));
        Ok(Tried { segments_by_time, next, under_way, failed })
    }

    /// Runs statements that bring no rows.
    pub async fn execute(&self, doing: &'static str, statements: &str) -> Result<()> {
        self.client.batch_execute(statements).await.map_err(EngineError::sql(doing))
    }

    /// Writes regent's own row and commits it to the local disk: the proof that the server accepts writes.
    pub async fn write_probe(&self, node: &str) -> Result<()> {
        let row = format!(
            "insert into regent.probe values ('{node}', clock_timestamp()) \
             on conflict (node) do update set written = excluded.written"
        );
        match self.execute("write regent's own row", &row).await {
            // An adopted database, or one whose table was dropped.
            Err(error) if matches!(error.code(), Some("42P01" | "3F000")) => {
                self.execute("make regent's own table", PROBE_TABLE).await?;
                self.execute("write regent's own row", &row).await
            }
            other => other,
        }
    }
}

/// Drives a connection on, beside what is asked on it.
fn driven<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // Its end shows in the client; the reason shows in the next question.
        let _ = connection.await;
    });
    client
}

/// A logged table for the write probe.
pub const PROBE_TABLE: &str = "create schema if not exists regent; \
    create table if not exists regent.probe (node text primary key, written timestamptz not null);";
