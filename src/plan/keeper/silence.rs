//! A database that answers nobody, or whose directory is gone. Slow is not dead: it is killed at once only where it is certain
//! that it serves nobody, or that nobody finds again what it writes, and else when nothing of it has moved either for
//! `hung_after`. In between it is shown, and left to itself.
//!
//! Not here: how it is seen (`engine`), and how people learn of it (`pages`).

use super::{Input, Step};
use crate::plan::note::Passing;
use crate::plan::reason::{StopReason, Waiting};
use crate::types::{Observation, Silence, StopLadder, Trouble};
use std::time::Duration;

/// Its silence, if it is silent: it hangs, or something else started it and it does not let regent in.
fn silence(seen: &Observation) -> Option<Silence> {
    match &seen.trouble {
        Some(Trouble::NotAnswering(silence)) => Some(*silence),
        Some(Trouble::DirectoryGone { since_ms }) => {
            Some(Silence { since_ms: *since_ms, still_ms: 0, serves_nobody: true })
        }
        _ => None,
    }
}

pub(super) fn is_silent(seen: &Observation) -> bool {
    silence(seen).is_some()
}

/// Its directory was taken away.
pub(super) fn is_gone(seen: &Observation) -> bool {
    matches!(seen.trouble, Some(Trouble::DirectoryGone { .. }))
}

/// What is done about it: it is killed, to be started again in place, or waited for. A pause in which it was silent does not
/// count.
pub(super) fn hung(input: &Input) -> Step {
    let Some(silence) = silence(&input.keeper.seen) else { return Step::Wait(Waiting::NotAnswering) };
    let (settings, ms) = (input.settings(), Duration::from_millis);
    let looked_on = input.keeper.pause_ended_at.map(|at| input.now.since(at));
    let counted = |time: u64| looked_on.map_or(ms(time), |since| since.min(ms(time)));
    let (silent, still) = (counted(silence.since_ms), counted(silence.still_ms));
    // A stopped process takes no other signal.
    if silence.serves_nobody && silent >= settings.postgresql.probe_timeout {
        let why = match is_gone(&input.keeper.seen) {
            true => StopReason::DirectoryGone,
            false => StopReason::Hung { since_ms: Passing(silence.since_ms) },
        };
        return Step::StopNow(kill_alone(input), why);
    }
    if silent >= settings.hung_after && still >= settings.hung_after {
        return Step::StopNow(input.lease_ladder(), StopReason::Hung { since_ms: Passing(silence.since_ms) });
    }
    Step::Wait(Waiting::NotAnswering)
}

pub(super) fn kill_alone(input: &Input) -> StopLadder {
    StopLadder { fast: Duration::ZERO, immediate: Duration::ZERO, kill: input.settings().stop_kill }
}
