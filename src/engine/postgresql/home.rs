//! The database in which regent asks and keeps its table (`session::HOME`), where somebody has dropped or renamed it, or closed
//! it: pg_rewind and every question of a rejoin go there as well, so a primary makes it again. A standby gets it from its primary,
//! and is asked elsewhere meanwhile.
//!
//! Not here: what the replication roles may do there (`roles.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::{HOME, Session};
use std::sync::Arc;
use std::time::Duration;

/// Where a server can be asked as well. Nothing of regent's is kept there: every new database is a copy of it.
const ELSEWHERE: &str = "template1";

/// A session, and whether it is at home; elsewhere it is `away`, where that is open.
pub async fn open(core: &Core, deadline: Duration, away: Option<Arc<Session>>) -> Result<(Arc<Session>, bool)> {
    let postgresql = core.postgresql();
    let closed = match Session::open(&core.layout, postgresql, deadline).await {
        Err(error) if is_closed(&error) => error,
        opened => return Ok((Arc::new(opened?), true)),
    };
    let session = match away {
        Some(session) => session,
        None => {
            let opened = Session::open_in(ELSEWHERE, &core.layout, postgresql, deadline).await;
            Arc::new(opened.map_err(|_| closed)?)
        }
    };
    if session.place().await?.in_recovery {
        return Ok((session, false));
    }
    make(core, &session).await?;
    Ok((Arc::new(Session::open(&core.layout, postgresql, deadline).await?), true))
}

/// Whether the server has no such database, or lets nobody into it.
fn is_closed(error: &EngineError) -> bool {
    matches!(error.code(), Some("3D000" | "55000"))
}

async fn make(core: &Core, session: &Session) -> Result<()> {
    let question = format!("select from pg_database where datname = '{HOME}'");
    let rows = session.client().query_typed(&question, &[]).await;
    let is_there = !rows.map_err(EngineError::sql("ask for the databases"))?.is_empty();
    let (what, statement) = match is_there {
        true => ("lets nobody in: it is opened", format!("alter database {HOME} allow_connections true")),
        false => ("is gone: an empty one is made", format!("create database {HOME} template template0")),
    };
    tracing::warn!(service = %core.service, "the database {HOME}, which regent and pg_rewind need, {what}");
    session.execute("make the database that regent needs", &statement).await
}
