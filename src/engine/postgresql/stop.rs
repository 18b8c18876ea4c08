//! Stops the server, rung by rung, until no process of it is left.

use super::control::{Control, ControlState};
use super::core::Core;
use super::error::{EngineError, Result};
use super::postmaster::Postmaster;
use crate::types::{Position, StopLadder};
use std::sync::Arc;
use std::time::Duration;

/// Climbs the ladder. Brings whether the control file says that it was an orderly end, and then the final position:
/// after an orderly end of a primary, exactly what a standby that has replayed everything reports.
pub async fn stop(core: &Arc<Core>, ladder: StopLadder) -> Result<(bool, Option<Position>)> {
    if !climb(core, ladder).await {
        let left = core.on_disk(|core| core.enclosure.members()).await;
        let why = format!(
            "processes {} survived SIGKILL (uninterruptible sleep?); only the watchdog or a fence ends them",
            left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        return Err(EngineError::Refused { action: "call the database stopped", why });
    }
    core.enclosure.tear_down();
    if core.on_disk(|core| core.layout.is_absent()).await {
        return Ok((false, None));
    }
    let control = Control::read(&core.layout, &core.user).await?;
    let position = match control.state {
        ControlState::ShutDown => {
            let known = control.clone();
            Some(core.on_disk(move |core| known.final_end(&core.layout)).await?)
        }
        _ => Some(control.known_end()),
    };
    Ok((control.is_clean(), position.filter(|_| control.is_clean())))
}

/// Whether nothing is left in the end.
async fn climb(core: &Arc<Core>, ladder: StopLadder) -> bool {
    let rungs = [(ladder.fast, libc::SIGINT, "fast"), (ladder.immediate, libc::SIGQUIT, "immediate")];
    for (deadline, signal, name) in rungs {
        let Some(postmaster) = core.postmaster().await else { break };
        // A frozen postmaster handles no signal but the last one.
        if deadline.is_zero() || postmaster.is_frozen() {
            continue;
        }
        if rung(core, &postmaster, signal, deadline).await {
            return true;
        }
        tracing::warn!(service = %core.service, rung = name, ?deadline, "the database is not stopped: next rung");
    }
    if core.on_disk(|core| core.enclosure.is_empty()).await {
        return true;
    }
    core.enclosure.kill();
    let patience = ladder.kill.max(Duration::from_millis(1));
    tokio::time::timeout(patience, core.enclosure.emptied()).await.is_ok()
}

async fn rung(core: &Arc<Core>, postmaster: &Postmaster, signal: i32, deadline: Duration) -> bool {
    if postmaster.signal(signal).is_err() {
        // It ended meanwhile; what it left behind is the next rung's.
        return core.on_disk(|core| core.enclosure.is_empty()).await;
    }
    tokio::time::timeout(deadline, core.enclosure.emptied()).await.is_ok()
}
