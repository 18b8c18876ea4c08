//! Whom a running standby follows: another upstream, or (sealed) nobody.

#![expect(clippy::disallowed_methods, reason = "how often the server is looked at: a plain wait that proves nothing")]

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::{AT_THE_END, Place, Session};
use super::timeline::{history_of, timeline_on_disk};
use super::{end, numbers, reload, settings, slots};
use crate::clock;
use crate::types::{Instant, Lsn, Position, Seal, Upstream};
use std::sync::Arc;
use std::time::Duration;

/// How often the state of sealing is looked at.
const POLL: Duration = Duration::from_millis(3);
/// For so long replay may go on: then the end is read from the WAL, and replay is not waited for. It may be hours behind, or
/// held up by somebody's report.
const REPLAYS: Duration = Duration::from_millis(50);

/// Lets the standby follow another upstream, without a restart.
pub async fn follow(core: &Arc<Core>, upstream: &Upstream) -> Result<()> {
    standby_session(core, "follow").await?;
    let conninfo = core.conninfo(upstream);
    let wanted = conninfo.clone();
    core.on_disk_in_order(move |core, in_order| {
        numbers::forget_trailing(&core.layout)?;
        settings::write_conninfo(in_order, &core.layout, &conninfo, true)
    })
    .await?;
    reload::take_over(core, &wanted, Some(upstream)).await?;
    slots::tend_now(core).await;
    Ok(())
}

/// Closes the WAL receiver until the next `follow`, and reports where the WAL ends that is here. It need not be replayed.
pub async fn seal(core: &Arc<Core>) -> Result<Seal> {
    let session = standby_session(core, "seal").await?;
    let (system, segment) = session.identity().await?;
    // Not synced: a crash would end the receiver too, and every start says anew whom to follow.
    core.on_disk_in_order(|core, in_order| settings::write_conninfo(in_order, &core.layout, "", false)).await?;
    reload::take_over(core, "", None).await?;
    // It may be another server by now.
    let session = standby_session(core, "seal").await?;
    let place = at_the_end(core, &session, segment).await?;
    let (end, replayed) = (place.end(), place.replayed.unwrap_or_default());
    let (timeline, history) = core
        .on_disk(move |core| {
            let (inside, data_dir) = (&core.layout.inside, &core.layout.data_dir);
            let timeline = timeline_on_disk(inside, data_dir, end, segment).unwrap_or_default();
            (timeline, history_of(inside, data_dir, timeline))
        })
        .await;
    Ok(Seal { system, history, end: Position { timeline, lsn: end }, replayed })
}

/// Waits until nothing can arrive any more and the end of what arrived is known: it is replayed, or replay is paused, or the
/// WAL itself says it.
async fn at_the_end(core: &Arc<Core>, session: &Session, segment: u64) -> Result<Place> {
    let mut before: Option<Place> = None;
    let mut closed_since: Option<Instant> = None;
    loop {
        let mut place = session.place().await?;
        let reloaded = place.conninfo.is_empty();
        if let Some(receiver) = &place.receiver
            && reloaded
        {
            // The startup process ends it by itself, but only once it has replayed everything: not for hours.
            end_receiver(core, receiver.pid);
        }
        if reloaded && place.receiver.is_none() {
            let settled = before.as_ref().is_some_and(|b| b.end() == place.end() && b.replayed == place.replayed);
            let (waits, paused) = replay_rests(session).await?;
            if settled && (waits || paused) {
                if waits {
                    // What lies beyond is the torn beginning of a record: nobody can use it.
                    place.received = place.replayed;
                }
                return Ok(place);
            }
            let since = *closed_since.get_or_insert_with(clock::now);
            if clock::now().since(since) > REPLAYS
                && let Some(end) = unreplayed(core, &place, segment).await
            {
                place.received = Some(end);
                return Ok(place);
            }
            before = Some(place);
        } else {
            before = None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The end of the last whole record of what was received, where replay has not come so far. `None`: it cannot be told, and
/// replay is waited for.
async fn unreplayed(core: &Arc<Core>, place: &Place, segment: u64) -> Option<Lsn> {
    let (replayed, received) = (place.replayed?, place.received?);
    let timeline = core
        .on_disk(move |core| {
            let on = |lsn| timeline_on_disk(&core.layout.inside, &core.layout.data_dir, lsn, segment);
            // pg_waldump follows no history.
            on(received).filter(|timeline| received > replayed && on(replayed) == Some(*timeline))
        })
        .await?;
    let replayed = Position { timeline, lsn: replayed };
    let end = end::of_received(&core.layout, &core.user, replayed, received).await;
    match end {
        Ok(end) => Some(end.lsn),
        Err(error) => {
            tracing::debug!(service = %core.service, %error, "the end of what was received is not known yet");
            None
        }
    }
}

/// Ends the WAL receiver, if the process is one of this database's.
pub fn end_receiver(core: &Core, pid: i32) {
    if core.enclosure.members().contains(&pid) {
        // SAFETY: a plain system call on a process that was a member just now.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Whether the startup process waits for WAL that is not here; whether replay is paused.
async fn replay_rests(session: &Session) -> Result<(bool, bool)> {
    let question = "select coalesce((select wait_event from pg_stat_activity where backend_type = 'startup'), ''), \
        pg_is_wal_replay_paused()";
    let rows = session.client().query_typed(question, &[]).await;
    let rows = rows.map_err(EngineError::sql("ask whether replay is done"))?;
    let row = rows.first().ok_or(EngineError::NoAnswer { what: "the server", after: Duration::ZERO })?;
    Ok((AT_THE_END.contains(&row.get::<_, &str>(0)), row.get(1)))
}

async fn standby_session(core: &Arc<Core>, action: &'static str) -> Result<Arc<Session>> {
    core.running(action).await?;
    let session = core.session().await?;
    if session.place().await?.in_recovery {
        return Ok(session);
    }
    let state = "out of recovery".to_owned();
    Err(EngineError::WrongState { action, state, remedy: "stop it and rejoin it first" })
}
