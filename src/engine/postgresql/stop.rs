//! Stops the server, rung by rung, until no process of it is left.

use super::control::{Control, ControlState};
use super::core::Core;
use super::error::{EngineError, Result};
use super::remembered;
use crate::types::{Position, Span, StopLadder};
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
    let position = position.filter(|_| control.is_clean());
    if let Some(end) = position {
        remembered::note_stopped(core, control.system, end).await;
    }
    Ok((control.is_clean(), position))
}

/// Whether nothing is left in the end. Each rung has its time, the look at the directory included: what does not let
/// itself be looked at, because its volume does not answer, is killed when the polite rungs' time is over.
async fn climb(core: &Arc<Core>, ladder: StopLadder) -> bool {
    let rungs = [(ladder.fast, libc::SIGINT, "fast"), (ladder.immediate, libc::SIGQUIT, "immediate")];
    for (time, signal, name) in rungs.into_iter().filter(|(time, ..)| !time.is_zero()) {
        match tokio::time::timeout(time, rung(core, signal)).await {
            Ok(Rung::Emptied) => return true,
            Ok(Rung::Useless) => {}
            Err(_) => {
                tracing::warn!(service = %core.service, rung = name, time = %Span(time), "the database is not stopped: next rung")
            }
        }
    }
    core.enclosure.kill();
    let patience = ladder.kill.max(Duration::from_millis(1));
    tokio::time::timeout(patience, core.enclosure.emptied()).await.is_ok()
}

/// How a rung ended before its time.
enum Rung {
    /// Nothing is left.
    Emptied,
    /// Nobody is there who would hear the signal.
    Useless,
}

async fn rung(core: &Arc<Core>, signal: i32) -> Rung {
    // A frozen postmaster handles no signal but the last one; one that has ended leaves what it left to the next rung.
    let hears = match core.postmaster().await {
        Some(postmaster) => !postmaster.is_frozen() && postmaster.signal(signal).is_ok(),
        None => false,
    };
    if hears {
        core.enclosure.emptied().await;
        return Rung::Emptied;
    }
    match core.on_disk(|core| core.enclosure.is_empty()).await {
        true => Rung::Emptied,
        false => Rung::Useless,
    }
}
