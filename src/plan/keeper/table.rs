//! The table: for each goal and each state of the database, the next step. Whoever could commit without the right to was
//! stopped before anybody looks here (S5), nothing is under way, and this daemon has joined.
//!
//! Not here: which goal it is (`goal.rs`, `release.rs`), and the table in words (`docs/keeper.md`).

use super::events::COMPARE_PAUSE;
use super::silence::{hung, is_gone, is_silent, kill_alone};
use super::{Input, Step, crash, ordered, release, starting, trouble};
use crate::known_bugs::{self, Bug};
use crate::ledger::{Phase, Service};
use crate::plan::goal::{Goal, upstream};
use crate::plan::lead::stuck_after;
use crate::plan::reason::{GiveUp, StopReason, Waiting};
use crate::types::{DbAction, DbState, Observation, StopLadder, Timeline, Upstream};

/// The next step towards the goal.
pub(super) fn step(input: &Input, goal: &Goal) -> Step {
    match (goal, input.service()) {
        // No epoch was ever begun: there is nothing to do for the service.
        (Goal::Unmanaged, _) | (_, None) => Step::Wait(Waiting::NotCreated),
        (Goal::Follow(_) | Goal::StandBy, Some(s)) => step_of_another(input, s, goal),
        (Goal::HandOver | Goal::Leave | Goal::GiveUp(_) | Goal::SayReleased, Some(s)) => step_out(input, s, goal),
        (Goal::MakeIt | Goal::TakeOver { .. } | Goal::GoOn | Goal::GoOnPaused, Some(s)) => {
            step_of_the_holder(input, s, goal)
        }
    }
}

/// The holder of the epoch, towards a database that takes writes. Where the goal cannot be reached from a state at all, it
/// is [`Goal::GiveUp`] before this is asked.
fn step_of_the_holder(input: &Input, s: &Service, goal: &Goal) -> Step {
    let seen = &input.keeper.seen;
    let epoch = s.epoch;
    let may_write = input.may_write(input.stop_time());
    match (goal, seen.state) {
        // An empty directory, or what a try that failed has left: it is made there. What was made before would have been
        // opened under this epoch.
        (Goal::MakeIt, DbState::Absent | DbState::Unstartable) => Step::Db(DbAction::Initdb),

        // The ledger hears of the timeline first: nobody else is ever given its number.
        (Goal::TakeOver { timeline: None }, DbState::Standby) => {
            Step::Promoting { epoch, timeline: s.next_timeline(seen.position.timeline) }
        }
        // Then, under a lease, recovery ends on exactly that timeline.
        (Goal::TakeOver { timeline: Some(timeline) }, DbState::Standby) if may_write => {
            Step::Db(DbAction::Promote { epoch, timeline: *timeline })
        }
        (_, DbState::Standby) => Step::Wait(Waiting::Lease),

        // A directory that is a standby's takes a timeline to come out of recovery: it is promoted once it runs.
        (_, DbState::Stopped) if seen.starts_in_recovery => Step::Db(DbAction::StartStandby { upstream: None }),
        // One that died is opened again, unless somebody else has all of it.
        (Goal::GoOn, DbState::Stopped) if let Some(step) = crash::before_a_restart(input, s) => step,
        (Goal::TakeOver { .. } | Goal::GoOn, DbState::Stopped) if let Some(step) = crash::before_a_return(input) => {
            step
        }
        // A primary's is opened as it is, on its own timeline, under a lease.
        (_, DbState::Stopped) if may_write => Step::Db(DbAction::StartPrimary { epoch, known: input.known_end(s) }),
        (_, DbState::Stopped) => Step::Wait(Waiting::Lease),

        // It gets nowhere, or answers nobody although it says that it is ready.
        (_, DbState::Starting) if starting::is_stalled(input) => stalls(input),
        (_, DbState::Starting) if is_silent(seen) => hung(input),
        // It answers nobody.
        (_, DbState::Primary) if is_silent(seen) => hung(input),
        // A person ordered its restart.
        (Goal::GoOn | Goal::GoOnPaused, DbState::Primary) if let Some(step) = ordered::due(input, s) => step,
        // Installed: the goal. What is done about trouble the file says.
        (Goal::GoOn | Goal::GoOnPaused, DbState::Primary) => match &seen.trouble {
            Some(trouble) => trouble::step(input, s, trouble),
            None => Step::Wait(Waiting::Primary),
        },
        // It took a write: from now on the ledger has it for the primary.
        (_, DbState::Primary) if seen.writable && seen.system.is_some() => Step::Installed { epoch },

        // What it becomes by itself is waited for; a directory that is gone is given up, past the making.
        (
            _,
            state @ (DbState::Primary
            | DbState::Starting
            | DbState::Stopping
            | DbState::Absent
            | DbState::Unstartable
            | DbState::Unclear),
        ) => Step::Wait(Waiting::Holding { state, phase: s.phase }),
    }
}

/// The holder of the epoch that leaves it: in order for a switchover or with its node, or because it cannot or must not go
/// on. Closed first, then the tombstone, and only then the final word.
fn step_out(input: &Input, s: &Service, goal: &Goal) -> Step {
    let keeper = input.keeper;
    match (goal, keeper.seen.state) {
        // The tombstone stands: the ledger must hear the final word, again and again until it has.
        (Goal::SayReleased, _) => say_released(input, s),

        // It was to leave in order, and did not end in order.
        (_, DbState::Stopped) if let Some(step) = trouble::end_of_its_wal(input, goal) => step,
        // Nothing is left of it: this node never writes under the epoch again, and writes that down.
        (_, DbState::Stopped | DbState::Absent | DbState::Unstartable) => write_tombstone(input, s, goal),
        // Where its directory does not answer, the stop has said that nothing is left: to stop it again would end at once,
        // and be wanted again at once.
        (_, DbState::Unclear) if keeper.closed => write_tombstone(input, s, goal),
        // Until its last process has ended it could commit.
        (_, DbState::Stopping) => on_its_way_down(input, s),

        // In order, as far as its volume lets it.
        (Goal::GiveUp(why @ GiveUp::Trouble { in_order: true, .. }), DbState::Primary) => {
            Step::StopNow(trouble::ladder(input), StopReason::GivenUp(why.clone()))
        }
        // Nobody waits for it in order: at once.
        (Goal::GiveUp(why), DbState::Primary | DbState::Starting | DbState::Standby | DbState::Unclear) => {
            Step::StopNow(input.lease_ladder(), StopReason::GivenUp(why.clone()))
        }
        // To hand over, while it still takes writes: the stop is short then.
        (_, DbState::Primary) if trouble::takes_no_writes(input) => hand_over(input, goal, trouble::ladder(input)),
        (_, DbState::Primary) if !keeper.in_epoch.checkpointed => Step::Db(DbAction::Checkpoint),
        // To hand over, in order, with a clean end of its WAL: whoever takes over has all of it.
        (_, DbState::Primary | DbState::Starting | DbState::Standby | DbState::Unclear) => {
            hand_over(input, goal, input.planned_ladder())
        }
    }
}

fn hand_over(input: &Input, goal: &Goal, ladder: StopLadder) -> Step {
    match input.leaving.filter(|_| *goal == Goal::Leave) {
        Some(leaving) => Step::StopToLeave(ladder, GiveUp::Leaves(leaving)),
        None => Step::Db(DbAction::Stop { ladder }),
    }
}

/// Whoever does not hold the epoch, towards a standby of whoever does.
fn step_of_another(input: &Input, s: &Service, goal: &Goal) -> Step {
    let seen = &input.keeper.seen;
    match (goal, seen.state) {
        // A person is at work on it: it goes on as it is, and what is down stays down.
        _ if input.state.is_in_maintenance(input.me.node) => left_alone(input, s, goal),
        // What it receives nobody finds again.
        (_, DbState::Standby | DbState::Starting) if is_gone(seen) => hung(input),
        // A person ordered it, whatever is there. It stops when the copy can begin.
        (Goal::Follow(up), state) if input.copy_order(s).is_some() => copied_anew(input, s, up, state),
        // The copy here wins: nothing overwrites it, and nothing opens it before its time.
        _ if s.accepts_copy_of(input.me.node) => step_of_the_accepted(input, s, goal),
        // Somebody else's data: never touched.
        _ if seen.system.is_some() && s.system.is_some() && seen.system != s.system => {
            Step::Wait(Waiting::AnotherDatabase)
        }

        // A person ordered its restart.
        (Goal::Follow(_), DbState::Standby) if let Some(step) = ordered::due(input, s) => step,
        // Nothing that could be started: it is cloned.
        (Goal::Follow(up), DbState::Absent | DbState::Unstartable) => rejoin(input, s, up),
        // A standby that was merely stopped starts as it is; whether it can follow shows when it tries.
        (Goal::Follow(up), DbState::Stopped) if seen.starts_in_recovery && !input.keeper.distrusted => {
            Step::Db(DbAction::StartStandby { upstream: Some(input.source(up)) })
        }
        // A former primary, or one that could not follow as it is: rewound or cloned.
        (Goal::Follow(up), DbState::Stopped) => rejoin(input, s, up),
        // Its WAL lies past the fork: it must be rewound, and stops for that once there is somebody to rewind it from.
        (Goal::Follow(up), DbState::Standby) if is_past_the_fork(seen, s) && input.is_writable(&up.node) => {
            stop_to_rejoin(input, s, up, StopReason::PastTheFork)
        }
        // One that answers nobody cannot be told whom to follow; as long as it follows, its readers may have time.
        (Goal::Follow(up), DbState::Standby) if must_be_told(input, s, &input.source(up)) => match is_silent(seen) {
            true => hung(input),
            false => Step::Db(DbAction::Follow { upstream: input.source(up) }),
        },
        // It follows, has replayed all that it has, and gets nothing from a primary that takes writes.
        (Goal::Follow(up), DbState::Standby) if is_stuck(input, up) => gets_nothing(input, s, up),
        // The goal.
        (Goal::Follow(up), DbState::Standby) => Step::Wait(Waiting::StandbyOf(input.source(up).node)),
        // Somebody else started it.
        (Goal::Follow(_), DbState::Primary) => Step::StopNow(input.lease_ladder(), StopReason::AnotherHolds),
        // It comes to no answer: this daemon never had one, or recovery hangs.
        (Goal::Follow(_), DbState::Starting) if is_silent(seen) => hung(input),
        // What it becomes by itself is waited for.
        (Goal::Follow(_), state @ (DbState::Starting | DbState::Stopping | DbState::Unclear)) => {
            Step::Wait(Waiting::Following(state))
        }

        // Its receiver was closed for a level that took no power, and the next one leaves the node alive: what that still
        // acknowledges is received again.
        (Goal::StandBy, DbState::Standby) if opens_again(input, s).is_some() && !is_silent(seen) => {
            opens_again(input, s).map_or(Step::Wait(Waiting::NobodyToFollow(seen.state)), |upstream| {
                Step::Db(DbAction::Follow { upstream })
            })
        }

        // From here on there is nobody to follow. It may be asked where its WAL ends; one that answers nobody cannot be.
        (_, DbState::Standby | DbState::Starting) if is_silent(seen) => hung(input),
        // A standby runs, so that it can be asked. So does a former primary that could be appointed.
        (_, DbState::Stopped) if seen.starts_in_recovery || may_be_asked(input) => {
            Step::Db(DbAction::StartStandby { upstream: None })
        }
        // Another former primary goes on as it is if it is appointed, or is made to follow.
        (_, DbState::Stopped) => Step::Wait(Waiting::Appointment),
        // Nothing else is started, and what runs runs on.
        (_, state) => Step::Wait(Waiting::NobodyToFollow(state)),
    }
}

/// In maintenance nothing is started, stopped, copied or killed. A standby is told whom to follow, and nobody writes without
/// the right to.
fn left_alone(input: &Input, s: &Service, goal: &Goal) -> Step {
    let seen = &input.keeper.seen;
    match (goal, seen.state) {
        (_, DbState::Primary) => Step::StopNow(input.lease_ladder(), StopReason::AnotherHolds),
        (Goal::Follow(up), DbState::Standby) if !is_silent(seen) && !is_past_the_fork(seen, s) => {
            let upstream = input.source(up);
            match must_be_told(input, s, &upstream) {
                true => Step::Db(DbAction::Follow { upstream }),
                false => Step::Wait(Waiting::StandbyOf(upstream.node)),
            }
        }
        _ => Step::Wait(Waiting::Maintenance),
    }
}

fn say_released(input: &Input, s: &Service) -> Step {
    let error = || input.keeper.in_epoch.last_error.clone();
    let why = release::reason(input, s).unwrap_or_else(|| GiveUp::Other { error: error() });
    Step::Release { epoch: s.epoch, position: input.keeper.final_position(s.epoch), why }
}

/// One that could not be written is written again after a pause.
fn write_tombstone(input: &Input, s: &Service, goal: &Goal) -> Step {
    if input.keeper.writing_tombstone.is_some_and(|e| e >= s.epoch) {
        return Step::Wait(Waiting::Tombstone);
    }
    match &input.keeper.in_epoch.tombstone_failed {
        Some((why, again_at)) if input.now < *again_at => Step::Wait(Waiting::FinalWordFails { why: why.clone() }),
        _ => Step::Tombstone(s.epoch, why_of(input, goal)),
    }
}

fn why_of(input: &Input, goal: &Goal) -> Option<GiveUp> {
    match goal {
        Goal::GiveUp(why) => Some(why.clone()),
        Goal::HandOver | Goal::Leave => Some(input.leaving.map_or(GiveUp::Switchover, GiveUp::Leaves)),
        _ => None,
    }
}

fn on_its_way_down(input: &Input, s: &Service) -> Step {
    if !known_bugs::has(Bug::ReleasedEarly) {
        return Step::Wait(Waiting::Stopping);
    }
    match input.keeper.writing_tombstone {
        None => Step::Tombstone(s.epoch, None),
        Some(_) => Step::Wait(Waiting::Tombstone),
    }
}

/// A rewind or copy, unless the service is paused or the last one came to nothing a while ago.
fn rejoin(input: &Input, s: &Service, upstream: &Upstream) -> Step {
    // A person may be at work on it.
    if s.paused {
        return Step::Wait(Waiting::PausedBeforeRejoin);
    }
    let order = input.copy_order(s);
    match input.keeper.rejoins.rests((s.epoch, &upstream.node, order), input.now) {
        true => Step::Wait(Waiting::RejoinAgain),
        false => Step::Db(DbAction::Rejoin { upstream: upstream.clone(), order }),
    }
}

/// On order: until the primary takes writes, and a copy can begin, what is there is left as it is.
fn copied_anew(input: &Input, s: &Service, upstream: &Upstream, state: DbState) -> Step {
    match state {
        DbState::Absent | DbState::Unstartable | DbState::Stopped => rejoin(input, s, upstream),
        DbState::Standby | DbState::Starting if input.is_writable(&upstream.node) => {
            stop_to_rejoin(input, s, upstream, StopReason::CopyOrdered)
        }
        DbState::Primary => Step::StopNow(input.lease_ladder(), StopReason::AnotherHolds),
        state => Step::Wait(Waiting::Following(state)),
    }
}

/// Once the epoch is over it runs in recovery and follows nobody, so that it can be asked where its WAL ends.
fn step_of_the_accepted(input: &Input, s: &Service, goal: &Goal) -> Step {
    let (keeper, ending) = (input.keeper, s.over.is_some() || input.state.fence_of(s).is_some());
    match keeper.seen.state {
        DbState::Primary => Step::StopNow(input.lease_ladder(), StopReason::AnotherHolds),
        _ if *goal != Goal::StandBy || !ending => Step::Wait(Waiting::AcceptedCopy),
        DbState::Standby | DbState::Starting if is_silent(&keeper.seen) => hung(input),
        DbState::Stopped => match s.awaited_copy().map(|copy| copy.number) {
            Some(order) if keeper.accepted_copy != Some(order) => Step::Db(DbAction::AcceptCopy { order }),
            _ => Step::Db(DbAction::StartStandby { upstream: None }),
        },
        _ => Step::Wait(Waiting::AcceptedCopy),
    }
}

/// It stops when the rewind or copy can begin: until then its readers stay.
fn stop_to_rejoin(input: &Input, s: &Service, upstream: &Upstream, why: StopReason) -> Step {
    match rejoin(input, s, upstream) {
        Step::Wait(waiting) => Step::Wait(waiting),
        _ => Step::StopToRejoin(input.planned_ladder(), why),
    }
}

/// The next try begins anew; it counts as a restart.
pub(super) fn stalls(input: &Input) -> Step {
    Step::StopNow(kill_alone(input), StopReason::StartStalls)
}

/// On a later timeline than this epoch's it got from its upstream what this node's ledger has not heard of yet.
fn is_past_the_fork(seen: &Observation, s: &Service) -> bool {
    let started = s.history.last().map_or(Timeline(0), |e| e.start.timeline);
    seen.position.timeline < started && s.sealed_at.0 > 0 && seen.position.lsn > s.sealed_at
}

/// It follows another, or its WAL receiver was closed for an epoch that is over.
fn must_be_told(input: &Input, s: &Service, source: &Upstream) -> bool {
    let keeper = input.keeper;
    keeper.seen.follows.as_ref() != Some(&source.node) || keeper.sealed.is_some_and(|e| e < s.epoch)
}

/// Whom it got its WAL from until it was closed for this very epoch, while its fence goes on by other means than power.
fn opens_again(input: &Input, s: &Service) -> Option<Upstream> {
    let again = input.keeper.sealed == Some(s.epoch) && input.state.is_received_from(s);
    upstream(input.config, input.name, &s.holder.as_ref().filter(|_| again)?.node)
}

/// A primary that recovers or does not take writes itself is no reason to do anything.
fn is_stuck(input: &Input, upstream: &Upstream) -> bool {
    is_idle_for_long(input) && input.is_writable(&upstream.node)
}

/// Whether it has replayed all that it has, and gets nothing for longer than a stream may take to come back.
pub(super) fn is_idle_for_long(input: &Input) -> bool {
    input.keeper.idle_since.is_some_and(|at| input.now.since(at) > stuck_after(input.config))
}

/// The upstream is asked whether it can follow as it is. Only a plain no stops it: one that is too busy to answer, or to be
/// streamed from, will be asked again, and the readers stay.
fn gets_nothing(input: &Input, s: &Service, upstream: &Upstream) -> Step {
    let keeper = input.keeper;
    if let Some((action @ DbAction::Compare { .. }, _)) = &keeper.running {
        return Step::Wait(Waiting::UnderWay(action.name()));
    }
    match &keeper.compared {
        Some((_, Some(why))) => stop_to_rejoin(input, s, upstream, StopReason::CannotFollow { why: why.clone() }),
        Some((at, None)) if input.now.since(*at) <= COMPARE_PAUSE => {
            Step::Wait(Waiting::GetsNothing(upstream.node.clone()))
        }
        _ => Step::Db(DbAction::Compare { upstream: upstream.clone() }),
    }
}

/// The present epoch is another node's and is ending, and this database descends from what was installed last: its node
/// was the primary then, and whoever came after it was never installed. (The holder itself goes on without being asked.)
pub fn may_be_asked(input: &Input) -> bool {
    let (Some(s), seen) = (input.service(), &input.keeper.seen) else { return false };
    let ending = s.over.is_some() || input.state.fence_of(s).is_some();
    if s.accepts_copy_of(input.me.node) {
        return ending;
    }
    let anothers = s.holder.as_ref().is_some_and(|h| &h.node != input.me.node);
    let descends = s.timeline.0 > 0 && seen.history.descends_from(seen.position, s.timeline);
    ending && anothers && descends && s.phase != Phase::Installed && seen.system.is_some()
}
