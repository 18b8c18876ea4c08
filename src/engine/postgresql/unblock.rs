//! Sessions that hold up replay on a standby that is to become the primary: each waits for nobody else, and a service does.
//! They are cancelled, and ended where that is not enough, and each is named in the log.
//!
//! Not here: when that is right. Only a promotion asks for it, and it begins after the fence was checked.
//!
//! Source: PostgreSQL manual, "Handling Query Conflicts"; the wait events of the startup process.

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use crate::clock;
use crate::types::Instant;
use std::time::Duration;
use tokio_postgres::Row;

/// Replay that stands for so long may be held up.
const STANDS: Duration = Duration::from_millis(50);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Who holds up the startup process, if that waits for sessions: those that block the lock that it waits for, or else those
/// with a snapshot or a transaction open. (The server itself ends the same ones, once `max_standby_streaming_delay` is over,
/// and never where that is -1. regent's own sessions are over in a moment. `pg_blocking_pids` knows nothing of the startup
/// process.)
const BLOCKING: &str = "with startup as (select pid, wait_event_type as kind, coalesce(wait_event, '') as event \
        from pg_stat_activity where backend_type = 'startup') \
    select a.pid, coalesce(a.usename::text, ''), coalesce(a.datname::text, ''), a.state = 'active', left(a.query, 200), \
        a.application_name, coalesce(a.state, ''), \
        coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::bigint \
    from startup s join pg_stat_activity a on a.backend_type = 'client backend' \
        and (a.application_name, a.usename, a.client_addr) is distinct from ('regent', current_user, null::inet) \
    where case when s.kind = 'Lock' then a.pid in (select h.pid from pg_locks w join pg_locks h \
            on h.granted and h.locktype = w.locktype and h.database = w.database and h.relation = w.relation \
            where w.pid = s.pid and not w.granted) \
        when s.kind = 'BufferPin' or s.event like 'RecoveryConflict%' \
        then a.backend_xmin is not null or a.xact_start is not null else false end";

/// Those sessions now: process, user, database, whether it is active, its query, application, state, and the seconds since
/// its transaction began.
pub async fn blocking(session: &Session) -> Result<Vec<Row>> {
    let doing = "ask who holds up replay";
    session.client().query_typed(BLOCKING, &[]).await.map_err(EngineError::sql(doing))
}

/// What was done already.
#[derive(Debug, Default)]
pub struct Blocked {
    looked: Option<Instant>,
    /// Those that were cancelled: whoever is still there at the next look is ended.
    cancelled: Vec<i32>,
}

impl Blocked {
    /// Ends the sessions that hold up replay, which has stood for so long. What fails is logged and tried again: the promotion
    /// goes on.
    pub async fn end_sessions(&mut self, core: &Core, session: &Session, stands: Duration) {
        let now = clock::now();
        if stands < STANDS || self.looked.is_some_and(|at| now.since(at) < PAUSE) {
            return;
        }
        self.looked = Some(now);
        if let Err(error) = self.look(core, session).await {
            tracing::warn!(service = %core.service, %error, "whether a session holds up replay is not known");
        }
    }

    async fn look(&mut self, core: &Core, session: &Session) -> Result<()> {
        for row in &blocking(session).await? {
            let (pid, active): (i32, bool) = (row.get(0), row.get::<_, Option<bool>>(3).unwrap_or_default());
            // Nothing runs in it that could be cancelled, or that was not enough.
            let ends = !active || self.cancelled.contains(&pid);
            let (user, database, query): (&str, &str, &str) = (row.get(1), row.get(2), row.get(4));
            let how = if ends { "ended" } else { "cancelled" };
            tracing::warn!(service = %core.service, pid, user, database, query, "a session held up replay: {how}");
            let function = if ends { "pg_terminate_backend" } else { "pg_cancel_backend" };
            session.execute("end a session that holds up replay", &format!("select {function}({pid})")).await?;
            self.cancelled.push(pid);
        }
        Ok(())
    }
}
