//! What the server says of itself before a planned move: what its stop would wait for, what would be cut off by it, and
//! what would not go along.
//!
//! Not here: what is made of it (`pages/survey.rs`). Nothing is changed, and no move waits for the answer.
//!
//! Source: PostgreSQL manual, "The Cumulative Statistics System", pg_prepared_xacts, pg_replication_slots, "Shutting Down
//! the Server" (a fast stop ends sessions, archives what waits, and sends what its readers have not confirmed).

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use super::settings::SLOT_SYNC;
use super::{access, unblock};
use crate::types::{Archiver, LastCheckpoint, OpenSession, Prepared, Replay, Sessions, Survey, WalReader};
use tokio_postgres::Row;

/// Sessions that are named; the others are counted.
const NAMED: usize = 5;
/// A reader that lacks less has it all by the time of the stop.
const FAR_BEHIND: u64 = 16 << 20;

const CHECKPOINT: &str = "select extract(epoch from clock_timestamp() - checkpoint_time)::bigint, \
    pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::bigint from pg_control_checkpoint()";

const ARCHIVER: &str = "select (select count(*) from pg_ls_archive_statusdir() where name like '%.ready'), \
    case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end, \
    extract(epoch from clock_timestamp() - last_failed_time)::bigint \
    from pg_stat_archiver where current_setting('archive_mode') <> 'off'";

const PREPARED: &str = "select count(*) over (), gid, extract(epoch from clock_timestamp() - prepared)::bigint \
    from pg_prepared_xacts order by prepared limit 1";

const OPEN: &str = "select pid, coalesce(usename::text, ''), coalesce(datname::text, ''), application_name, \
    coalesce(state, ''), extract(epoch from clock_timestamp() - xact_start)::bigint \
    from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \
    and xact_start < clock_timestamp() - interval '1 second' order by xact_start";

const READERS: &str = "select application_name, host(client_addr), state = 'backup', \
    coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::bigint, 0), coalesce(usename::text, '') \
    from pg_stat_replication order by pid";

const REPLAY: &str = "select greatest(pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), \
    pg_last_wal_replay_lsn()), 0)::bigint";

/// Asks the server, in the role that it has.
pub async fn survey(core: &Core) -> Result<Survey> {
    let postgresql = core.postgresql();
    // One of its own: the kept one is for what cannot wait.
    let session = Session::open(&core.layout, postgresql, postgresql.probe_timeout).await?;
    match session.place().await?.in_recovery {
        true => Ok(Survey { replay: Some(replay(core, &session).await?), ..Survey::default() }),
        false => of_primary(core, &session).await,
    }
}

async fn of_primary(core: &Core, session: &Session) -> Result<Survey> {
    let first = |rows: Vec<Row>| rows.into_iter().next();
    let checkpoint = first(ask(session, "ask for the last checkpoint", CHECKPOINT).await?)
        .map(|row| LastCheckpoint { age: count(&row, 0), wal: count(&row, 1) });
    let archiver = first(ask(session, "ask about the archiver", ARCHIVER).await?).map(|row| Archiver {
        waiting: count(&row, 0),
        failing: row.get::<_, Option<&str>>(1).map(|file| (file.to_owned(), count(&row, 2))),
    });
    let prepared = first(ask(session, "ask for prepared transactions", PREPARED).await?)
        .map(|row| Prepared { count: count(&row, 0), oldest: (text(&row, 1), count(&row, 2)) });
    let open = sessions(&ask(session, "ask for open transactions", OPEN).await?, [3, 4, 5]);
    let own = access::replication_roles(&core.config, core.postgresql());
    let readers = ask(session, "ask who reads the WAL", READERS).await?;
    let readers = readers.iter().filter_map(|row| reader(row, &own)).collect();
    let slots = ask(session, "ask for logical slots", stranded(core)).await?;
    let stranded_slots = slots.iter().map(|row| text(row, 0)).collect();
    Ok(Survey { checkpoint, archiver, prepared, open, readers, stranded_slots, replay: None })
}

/// A standby of regent's has everything before it takes over: only a copy of it would be cut off.
fn reader(row: &Row, own: &[String]) -> Option<WalReader> {
    let (copies, behind) = (row.get(2), count(row, 3));
    let is_own = own.contains(&text(row, 4));
    let address = row.get::<_, Option<&str>>(1).map(ToOwned::to_owned);
    let reader = WalReader { application: text(row, 0), address, copies, behind };
    (copies || behind > FAR_BEHIND && !is_own).then_some(reader)
}

/// The logical slots that no standby gets from its primary.
fn stranded(core: &Core) -> &'static str {
    match core.layout.knows(SLOT_SYNC) {
        true => {
            "select slot_name::text from pg_replication_slots where slot_type = 'logical' and not temporary \
             and not failover order by 1"
        }
        false => {
            "select slot_name::text from pg_replication_slots where slot_type = 'logical' and not temporary order by 1"
        }
    }
}

async fn replay(core: &Core, session: &Session) -> Result<Replay> {
    let rows = ask(session, "ask how far replay is", REPLAY).await?;
    let Some(row) = rows.first() else { return Ok(Replay::default()) };
    let bytes = count(row, 0);
    // The time of the last commit is the primary's, and says nothing where that is idle.
    let seen = core.seen.borrow().observation.replay.filter(|_| bytes > 0);
    let (age, delay) = ((bytes > 0).then(|| seen.map_or(0, |lag| lag.seconds)), seen.map_or(0, |lag| lag.delay));
    Ok(Replay { bytes, age, delay, held_by: sessions(&unblock::blocking(session).await?, [5, 6, 7]) })
}

async fn ask(session: &Session, doing: &'static str, question: &str) -> Result<Vec<Row>> {
    session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))
}

/// Process, user and database come first; then, in these columns, application, state and age.
fn sessions(rows: &[Row], [application, state, age]: [usize; 3]) -> Sessions {
    let open = |row: &Row| OpenSession {
        pid: row.get(0),
        user: text(row, 1),
        database: text(row, 2),
        application: text(row, application),
        state: text(row, state),
        age: count(row, age),
    };
    Sessions { count: rows.len() as u64, named: rows.iter().take(NAMED).map(open).collect() }
}

fn text(row: &Row, column: usize) -> String {
    row.get::<_, &str>(column).to_owned()
}

fn count(row: &Row, column: usize) -> u64 {
    row.get::<_, Option<i64>>(column).unwrap_or_default().max(0).cast_unsigned()
}
