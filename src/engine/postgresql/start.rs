//! Starts the server: in recovery always with a standby signal that was verified, out of recovery only for a lease.

#![expect(
    clippy::disallowed_methods,
    reason = "how often PostgreSQL's own file is looked at, and a patience that a sleep of the host must not use up"
)]

use super::control::{Control, ControlState};
use super::core::Core;
use super::environment::Environment;
use super::error::{EngineError, Result};
use super::layout::{BACKUP_LABEL, Layout, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use super::postmaster::{Phase, is_unreaped, phase};
use super::program::{Run, last_lines};
use super::writes::InOrder;
use super::{access, log, mounts, numbers, older, parameters, promote, settings, slots, version};
use crate::config::parameters::operators_value;
use crate::errors::with_causes;
use crate::types::{Epoch, Position, Upstream};
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a standby's start is watched. It may well need longer to become consistent (its upstream is away): that
/// is for the observer to see.
const STANDBY_PATIENCE: Duration = Duration::from_secs(15);
/// How long a dead postmaster's process may stand unreaped before the start is tried all the same.
const REAPING_PATIENCE: Duration = Duration::from_secs(10);

/// Starts the database out of recovery, and waits until it accepted a write. `None` where it runs in recovery now: it
/// is for a promotion to give it a timeline of its own.
pub async fn start_primary(core: &Arc<Core>, epoch: Epoch, known: Option<Position>) -> Result<Option<Position>> {
    promote::must_hold(core, epoch).await?;
    if core.postmaster().await.is_some() {
        // Asked for twice; or it runs as a standby.
        let in_recovery = core.session().await?.place().await?.in_recovery;
        return if in_recovery { Ok(None) } else { promote::prove(core, epoch).await.map(Some) };
    }
    may_start(core, "start").await?;
    let control = Control::read(&core.layout, &core.user).await?;
    older::refuse_as_primary(core, &control, known).await?;
    if is_anothers(core, &control).await {
        // Its WAL is another primary's. Out of recovery it must be on a timeline of its own.
        start_in_recovery(core, None).await?;
        return Ok(None);
    }
    core.on_disk_in_order(|core, in_order| {
        core.layout.inside.remove(&core.layout.within(RECOVERY_SIGNAL))?;
        settings::write_conninfo(in_order, &core.layout, "", true)
    })
    .await?;
    promote::post_guard(core);
    let ended = launch(core, Vec::new()).await?;
    await_ready(core, ended, None).await?;
    promote::prove(core, epoch).await.map(Some)
}

/// Whether the directory is a standby's, or a copy that has not run yet (its control file is still its source's).
async fn is_anothers(core: &Arc<Core>, control: &Control) -> bool {
    let in_recovery = matches!(control.state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery);
    let marked = |core: &Core| [STANDBY_SIGNAL, BACKUP_LABEL].into_iter().any(|name| core.layout.has_within(name));
    in_recovery || core.on_disk(marked).await
}

/// Starts the database in recovery. Done when it answers, or runs and is not consistent yet.
pub async fn start_standby(core: &Arc<Core>, upstream: Option<&Upstream>) -> Result<()> {
    if core.postmaster().await.is_some() {
        return must_be_standby(core).await;
    }
    may_start(core, "start").await?;
    older::refuse_as_standby(core).await?;
    start_in_recovery(core, upstream).await
}

async fn start_in_recovery(core: &Arc<Core>, upstream: Option<&Upstream>) -> Result<()> {
    let conninfo = upstream.map(|upstream| core.conninfo(upstream));
    core.on_disk_in_order(move |core, in_order| {
        numbers::forget_trailing(&core.layout)?;
        make_standby(in_order, core, &conninfo.unwrap_or_default())
    })
    .await?;
    let raised = must_reach(core, &Control::read(&core.layout, &core.user).await?).await?;
    let ended = launch(core, raised).await?;
    if await_ready(core, ended, Some(STANDBY_PATIENCE)).await? {
        must_be_standby(core).await?;
        slots::tend_now(core).await;
    }
    Ok(())
}

/// The settings that recovery needs higher than they are here: what the directory ran with last had more. A server that
/// falls short of them ends while it starts.
pub async fn must_reach(core: &Arc<Core>, control: &Control) -> Result<Vec<String>> {
    let given = core.command_line();
    let mut raised = Vec::new();
    for (in_control, name, usual) in promote::MUST_REACH {
        let Some(needed) = control.settings.get(in_control).copied() else { continue };
        let here = given.iter().rev().find_map(|setting| setting.strip_prefix(name)?.strip_prefix('='));
        let here = match here {
            Some(here) => here.trim().parse().ok(),
            // Nobody has set it so high: the files need not be asked.
            None if needed <= usual && operators_value(&core.current(), name).is_none() => continue,
            None => parameters::asked(&core.user, &core.layout, name, &given).await?.parse().ok(),
        };
        let Some(here) = here.filter(|here: &i64| *here < needed) else { continue };
        let service = &core.service;
        tracing::warn!(%service, "{name} = {needed} instead of {here} until the next start: recovery needs what was there last");
        raised.push(format!("{name}={needed}"));
    }
    Ok(raised)
}

/// What the directory's own files alone set, as the server understands them.
pub async fn set_in_files(core: &Core, name: &'static str) -> Result<String> {
    let run = Run {
        user: &core.user,
        program: core.layout.program("postgres"),
        arguments: vec!["-C".as_ref(), name.as_ref(), "-D".as_ref(), core.layout.data_dir.as_os_str()],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: Duration::from_secs(10),
    };
    Ok(run.finish().await?.trim().to_owned())
}

/// Writes the standby signal and whom to follow, and reads the signal back.
pub fn make_standby(in_order: &InOrder, core: &Core, conninfo: &str) -> Result<()> {
    make_standby_in(in_order, &core.layout, conninfo)
}

/// The same, in a directory that is not in its place yet.
pub fn make_standby_in(in_order: &InOrder, layout: &Layout, conninfo: &str) -> Result<()> {
    settings::write_conninfo(in_order, layout, conninfo, true)?;
    layout.inside.remove(&layout.within(RECOVERY_SIGNAL))?;
    layout.inside.replace(&layout.within(STANDBY_SIGNAL), 0o600, "")?;
    Ok(layout.inside.open(&layout.within(STANDBY_SIGNAL)).map(drop)?)
}

/// Errors where the running server is not in recovery.
async fn must_be_standby(core: &Arc<Core>) -> Result<()> {
    let in_recovery = core.session().await?.place().await?.in_recovery;
    if in_recovery {
        return Ok(());
    }
    let state = "out of recovery".to_owned();
    Err(EngineError::WrongState { action: "run as a standby", state, remedy: "stop it and rejoin it first" })
}

/// The directory is there, complete, nothing runs on it, and its settings are ready for a server.
async fn may_start(core: &Arc<Core>, action: &'static str) -> Result<()> {
    core.must_be_stopped(action).await?;
    is_fit(core, action).await?;
    parameters::prepare(core).await
}

async fn is_fit(core: &Arc<Core>, action: &'static str) -> Result<()> {
    core.on_disk(move |core| {
        let why = if let Some(mark) = core.layout.mark()? {
            let marker = core.layout.marker();
            format!("{} forbids it: {} is unfinished; rejoin the node", marker.display(), mark.trim())
        } else if core.layout.is_absent() {
            format!("{} is empty; rejoin the node to have it cloned", core.layout.data_dir.display())
        } else {
            match core.layout.major_version().map_or(Ok(None), |found| version::judge(found, &core.layout.data_dir)) {
                Err(why) => why,
                Ok(unknown) => {
                    unknown.inspect(|unknown| tracing::warn!(service = %core.service, "{unknown}"));
                    return mounts::must_be_whole(&core.layout);
                }
            }
        };
        Err(EngineError::Refused { action, why })
    })
    .await
}

/// A launched server: its process, where its log began, and word of its end.
struct Launched {
    pid: i32,
    log_from: u64,
    ended: oneshot::Receiver<ExitStatus>,
}

async fn launch(core: &Arc<Core>, raised: Vec<String>) -> Result<Launched> {
    // An adopted postmaster that was killed is the init process's to reap, in its own time.
    let reaped = async {
        while core.on_disk(|core| is_unreaped(&core.layout)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(REAPING_PATIENCE, reaped).await;
    let (command, log_from) = core.on_disk(move |core| command(core, &raised)).await?;
    let program = core.layout.program("postgres");
    let mut child =
        tokio::process::Command::from(command).spawn().map_err(|source| EngineError::Spawn { program, source })?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).expect("it was not waited for yet");
    let (sender, ended) = oneshot::channel();
    // Reaped here for as long as this daemon lives; it outlives the daemon.
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            let _ = sender.send(status);
        }
    });
    core.look.notify_one();
    Ok(Launched { pid, log_from, ended })
}

fn command(core: &Core, raised: &[String]) -> Result<(std::process::Command, u64)> {
    if !core.has_earlier_lines() {
        access::write(&core.config, &core.current(), &core.layout)?;
    }
    mounts::note(&core.layout)?;
    core.without.lock().unwrap_or_else(PoisonError::into_inner).take();
    let sockets = sockets(core);
    let (out, err, log_from) = log::open(core);
    let door = core.enclosure.open_door(&core.config.cgroup_record(&core.service));
    let mut command = core.user.postmaster(&core.layout.program("postgres"), door);
    command.envs(Environment::of_server(core).variables());
    // Where there is no cgroup it is known by this: from its first instruction on, not only once it has found its way.
    command.current_dir(&core.layout.data_dir);
    command.arg("-D").arg(&core.layout.data_dir);
    // The last one counts.
    for setting in core.command_line().iter().chain([&sockets]).chain(raised) {
        command.arg("-c").arg(setting);
    }
    command.stdout(out).stderr(err);
    Ok((command, log_from))
}

/// Where its sockets are: a server that finds one of the directories missing, or may not write in it, would not start at all.
fn sockets(core: &Core) -> String {
    let (usable, amiss) = core.layout.make_sockets();
    for error in amiss {
        core.starts_without("socket_dirs", &with_causes(&error));
    }
    format!("unix_socket_directories={}", settings::socket_directories(usable))
}

/// Waits until the server accepts connections, it ended, or (a standby) patience is over. Whether it accepts them.
async fn await_ready(core: &Arc<Core>, launched: Launched, patience: Option<Duration>) -> Result<bool> {
    let Launched { pid, log_from, mut ended } = launched;
    let ready = async {
        // PostgreSQL tells of its phase in a file alone; there is no event to wait for.
        while core.on_disk(move |core| phase(&core.layout, pid)).await != Some(Phase::Ready) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = async {
        match patience {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ready => Ok(true),
        () = patience => Ok(false),
        _ = &mut ended => Err(EngineError::StartFailed { log: core.on_disk(move |core| log_since(core, log_from)).await }),
    }
}

/// What the server logged since it was launched: its last lines.
fn log_since(core: &Core, from: u64) -> String {
    format!("{} (in {})", last_lines(&log::since(&core.layout, from)), core.layout.log.display())
}
