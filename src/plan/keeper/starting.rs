//! How long the holder's start may take. PostgreSQL replays what it must, for seconds or for an hour, and a clock alone ends
//! none of that: one that shows no progress is ended and tried again, and one that takes too long, tries included, gives its
//! epoch back where another node has nearly as much. One that is open is no start any more.
//!
//! A standby that does not start says the same each time, so the pauses between its tries grow.
//!
//! Not here: what progress is (`engine`), and how an epoch is given back (`table.rs`).

use super::events::RETRY;
use super::{Input, Keeper, Start, Step, table};
use crate::plan::reason::{GiveUp, StopReason};
use crate::types::{DbAction, DbState, Trouble};
use std::time::Duration;

/// The longest pause between two starts as a standby: a person who makes room, or mends a file, waits for it.
const PAUSE_MAX: Duration = Duration::from_secs(15);

impl Keeper {
    /// For how long nothing is tried after this action has failed.
    pub(super) fn pause_after(&mut self, failed: &DbAction) -> Duration {
        let DbAction::StartStandby { .. } = failed else { return RETRY };
        let times = &mut self.in_epoch.starts_failed;
        let pause = RETRY.saturating_mul(1 << (*times).min(5)).min(PAUSE_MAX);
        *times += 1;
        pause
    }
}

/// The start that has come to no answer yet, with the pauses between its tries.
fn start(input: &Input) -> Option<Start> {
    let paused = input.service().is_some_and(|s| s.paused);
    input.keeper.start.filter(|_| input.held().is_some() && !paused)
}

/// Whether it goes on, or will be tried again: then no deadline but its own counts.
pub(super) fn is_under_way(input: &Input) -> bool {
    start(input).is_some()
}

/// Whether an action that starts it runs.
fn is_waited_for(input: &Input) -> bool {
    matches!(input.keeper.running, Some((DbAction::StartPrimary { .. } | DbAction::StartStandby { .. }, _)))
}

/// Whether the present try has shown no progress for too long.
pub(super) fn is_stalled(input: &Input) -> bool {
    let tries = is_waited_for(input) || input.keeper.seen.state == DbState::Starting;
    // One that answers with a refusal hangs nowhere.
    let refuses = matches!(input.keeper.seen.trouble, Some(Trouble::ProbeFailed { .. }));
    let start = start(input).filter(|_| tries && !refuses);
    start.is_some_and(|start| input.now.since(start.moved_at) > input.settings().start_stalled)
}

fn is_too_long(input: &Input) -> bool {
    start(input).is_some_and(|start| input.now.since(start.since) > input.settings().start_timeout)
}

/// The end of a start that is waited for: it hangs, or somebody else goes on instead.
pub(super) fn end(input: &Input) -> Option<Step> {
    if !is_waited_for(input) {
        return None;
    }
    match give_up(input) {
        Some(why) => Some(Step::StopNow(input.lease_ladder(), StopReason::GivenUp(why))),
        None => is_stalled(input).then(|| table::stalls(input)),
    }
}

/// Why the epoch is given back, if another node can go on instead: it has received nearly all that is here. One that hangs
/// is tried again until then: whatever it has is not lost for a hang.
pub(super) fn give_up(input: &Input) -> Option<GiveUp> {
    let end = input.keeper.reached.filter(|_| is_too_long(input))?;
    let (node, at) = input.nearest_standby(end)?;
    Some(GiveUp::StartsTooLong { node: node.clone(), at, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_that_does_not_start_is_tried_ever_more_seldom_until_something_ends_well() {
        let mut keeper = Keeper::default();
        let start = DbAction::StartStandby { upstream: None };
        let pauses: Vec<_> = (0..7).map(|_| keeper.pause_after(&start).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(keeper.pause_after(&DbAction::Seal), RETRY, "nothing else waits for that");
        keeper.in_epoch.starts_failed = 0;
        assert_eq!(keeper.pause_after(&start), RETRY);
    }
}
