//! Ends recovery, under a lease, and proves that the database accepts writes.
//!
//! The trigger file and the signal are given directly: `pg_promote` would look only every 100 ms whether it is done.

#![expect(
    clippy::disallowed_methods,
    reason = "how often recovery is looked at, and a patience that a sleep of the host must not use up"
)]

use super::control::Control;
use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::PROMOTE;
use super::postmaster::Postmaster;
use super::session::Session;
use super::unblock::Blocked;
use super::{numbers, reload, remembered, roles, slots, start, stop};
use crate::action::guard::{self, GuardOptions};
use crate::clock;
use crate::types::{Epoch, Lsn, Position, Span, Timeline};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether recovery has ended.
const POLL: Duration = Duration::from_millis(2);

/// Settings in which a standby must reach its primary: the control file's word, the parameter's name, and its default.
pub const MUST_REACH: [(&str, &str, i64); 5] = [
    ("max_connections", "max_connections", 100),
    ("max_worker_processes", "max_worker_processes", 8),
    ("max_wal_senders", "max_wal_senders", 10),
    ("max_prepared_xacts", "max_prepared_transactions", 0),
    ("max_locks_per_xact", "max_locks_per_transaction", 64),
];

/// Refuses unless the lease file says that this node holds a lease for this epoch now (S4).
pub async fn must_hold(core: &Arc<Core>, epoch: Epoch) -> Result<()> {
    let path = &core.layout.lease;
    let why = match guard::read_lease(path) {
        Err(error) => format!("there is no lease: {error}"),
        Ok(lease) if lease.epoch != epoch => format!("the lease in {} is for epoch {}", path.display(), lease.epoch),
        Ok(lease) if lease.released => format!("epoch {epoch} was released"),
        Ok(lease) if lease.end <= clock::now() => format!("the lease for epoch {epoch} has ended"),
        Ok(_) => return Ok(()),
    };
    Err(EngineError::Refused { action: "open the database for writes", why })
}

/// Starts the guard, which kills the database when the lease ends, whatever has become of this daemon.
pub fn post_guard(core: &Arc<Core>) {
    let options = GuardOptions {
        lease: core.layout.lease.clone(),
        goodbye: Some(core.layout.goodbye.clone()),
        cgroup: core.enclosure.cgroup().map(ToOwned::to_owned),
        data_dir: core.layout.data_dir.clone(),
    };
    let program = core.guard.clone();
    let service = core.service.clone();
    // Beside the promotion, not before it: until it stands, this daemon is the guard.
    tokio::spawn(async move {
        if let Err(error) = guard::spawn(&program, &options).await {
            tracing::error!(%service, %error, "no guard: the lease's end is kept by this daemon and the watchdog alone");
        }
    });
}

/// Promotes the running standby, onto exactly this timeline. Done when it accepted a write.
pub async fn promote(core: &Arc<Core>, epoch: Epoch, timeline: Timeline) -> Result<Position> {
    must_hold(core, epoch).await?;
    let mut postmaster = core.running("promote").await?;
    let mut session = core.session().await?;
    if session.place().await?.in_recovery {
        if let Some(why) = falls_short(core, &session).await? {
            (postmaster, session) = start_with_as_much(core, &why).await?;
        }
        slots::make_ahead(core);
        let least = least_target(&session).await?;
        core.on_disk(move |core| numbers::make_next(&core.layout, least, timeline)).await?;
        post_guard(core);
        let trigger = |core: &Core| core.layout.inside.replace_unflushed(&core.layout.within(PROMOTE), 0o600, "");
        core.on_disk(trigger).await?;
        postmaster.signal(libc::SIGUSR1)?;
        tokio::select! {
            done = recovery_ended(core, &session) => done?,
            () = postmaster.ended() => return Err(EngineError::StartFailed {
                log: format!("it ended during the promotion; see {}", core.layout.log.display()),
            }),
        }
    }
    let position = prove(core, epoch).await?;
    if position.timeline == timeline {
        return Ok(position);
    }
    // What was checked before cannot have failed, so somebody else has a hand in this directory: nobody may build on it.
    core.enclosure.kill();
    let why = format!("it came out of recovery on timeline {}, not {timeline}: it was stopped", position.timeline);
    Err(EngineError::Refused { action: "promote", why })
}

/// A timeline at or before the one that the server recovers towards: what its control file has reached.
async fn least_target(session: &Session) -> Result<Timeline> {
    let doing = "ask for the timeline of the control file";
    let question = "select greatest(c.timeline_id, r.min_recovery_end_timeline) \
        from pg_control_checkpoint() c, pg_control_recovery() r";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    let row = rows.first().ok_or(EngineError::NoAnswer { what: "the server", after: Duration::ZERO })?;
    Ok(Timeline(row.get::<_, Option<i32>>(0).and_then(|t| u32::try_from(t).ok()).unwrap_or_default()))
}

/// Proves that the database accepts a write, and says where.
pub async fn prove(core: &Arc<Core>, epoch: Epoch) -> Result<Position> {
    let session = core.session().await?;
    // Whoever follows finds its slot, or asks again in a moment: nobody who writes waits for that.
    let beside = core.clone();
    tokio::spawn(async move { slots::tend_now(&beside).await });
    session.write_probe(core.config.node.as_str()).await?;
    let place = session.place().await?;
    let (lsn, timeline) = place.flushed.ok_or_else(|| EngineError::WrongState {
        action: "open the database for writes",
        state: "in recovery".to_owned(),
        remedy: "promote it",
    })?;
    if let Err(error) = must_hold(core, epoch).await {
        // The epoch was over before this was done: what it did is undone (S4).
        core.enclosure.kill();
        return Err(error);
    }
    let opened = Position { timeline, lsn };
    tokio::spawn(settle(core.clone(), session, opened));
    Ok(opened)
}

/// What a new primary still needs, and nobody waits for.
async fn settle(core: Arc<Core>, session: Arc<Session>, opened: Position) {
    let looks = core.seen.borrow().looks;
    if let Ok((system, _)) = session.identity().await {
        remembered::note(&core, looks, system, opened).await;
    }
    let roles = roles::tend(&core).await.map(drop);
    // pg_rewind takes the timeline from the control file, which the first checkpoint brings up to date.
    let checkpoint = match Session::open(&core.layout, core.postgresql(), Duration::from_secs(10)).await {
        Ok(own) => own.execute("write a checkpoint", "checkpoint").await,
        Err(error) => Err(error),
    };
    for error in [roles, checkpoint].into_iter().filter_map(std::result::Result::err) {
        tracing::warn!(service = %core.service, %error, "the new primary is open, but not settled");
    }
}

/// A server that has less of something than its primary had stops replaying, and would give up at the end of its recovery.
/// Started anew it has as much.
async fn start_with_as_much(core: &Arc<Core>, why: &str) -> Result<(Postmaster, Arc<Session>)> {
    tracing::warn!(service = %core.service, "{why}, so replay has paused: the server is started anew with as much");
    stop::stop(core, reload::LADDER).await?;
    start::start_standby(core, None).await?;
    Ok((core.running("promote").await?, core.session().await?))
}

/// What it has less of, where replay is paused. A pause that someone asked for is ended by the promotion itself.
async fn falls_short(core: &Core, session: &Session) -> Result<Option<String>> {
    let doing = "ask whether replay is paused";
    let question = "select pg_is_wal_replay_paused()";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    if !rows.first().is_some_and(|row| row.get::<_, bool>(0)) {
        return Ok(None);
    }
    let control = Control::read(&core.layout, &core.user).await?;
    let rows = session.client().query_typed("select name, setting from pg_settings", &[]).await;
    let rows = rows.map_err(EngineError::sql("ask for the settings"))?;
    let short = MUST_REACH.into_iter().find_map(|(in_control, name, _)| {
        let here = rows.iter().find(|row| row.get::<_, &str>(0) == name)?.get::<_, &str>(1).parse::<i64>().ok()?;
        let needed = *control.settings.get(in_control)?;
        (here < needed).then(|| format!("{name} = {here} here, and the primary had {needed}"))
    });
    Ok(short)
}

/// Waits until recovery has ended. All WAL that is here is replayed first, so progress is what counts.
async fn recovery_ended(core: &Core, session: &Session) -> Result<()> {
    let patience = core.config.failover.install;
    let mut replayed = Lsn::default();
    let mut advanced = Instant::now();
    let mut blocked = Blocked::default();
    loop {
        let question = "select pg_is_in_recovery(), pg_last_wal_replay_lsn()::text";
        let rows = session.client().query_typed(question, &[]).await;
        let rows = rows.map_err(EngineError::sql("ask whether recovery has ended"))?;
        let Some(row) = rows.first() else { continue };
        if !row.get::<_, bool>(0) {
            return Ok(());
        }
        let now_replayed = row.get::<_, Option<&str>>(1).and_then(|text| text.parse().ok()).unwrap_or_default();
        if now_replayed > replayed {
            replayed = now_replayed;
            advanced = Instant::now();
        }
        blocked.end_sessions(core, session, advanced.elapsed()).await;
        if advanced.elapsed() > patience {
            let why = format!(
                "replay has stood at {replayed} for {}; the promotion is still under way, so stop the \
                 database before another node is appointed",
                Span(patience)
            );
            return Err(EngineError::Refused { action: "end recovery", why });
        }
        tokio::time::sleep(POLL).await;
    }
}
