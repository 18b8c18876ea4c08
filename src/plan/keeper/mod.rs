//! The keeper of the local database of one service: it owns what this node knows of that database, and names the one next
//! step, from what the ledger wants ([`Goal`]) and what the database is. It opens a database for writes only under a lease
//! for the service's current epoch, and it says `released` only when nothing is left that could commit (S2, S5).
//!
//! `rights.rs` says what may run at this moment, `table.rs` has the step for every goal and state, `release.rs` the reasons
//! to give an epoch up, `leave.rs` what a node does that leaves, `ordered.rs` a restart that a person ordered, `trouble.rs`
//! what local trouble leads to, `rejoins.rs` how often a copy is tried, `events.rs` what each event changes.
//! `docs/keeper.md` has the table in words.
//!
//! Not here: doing a step (`node`, `engine`), and the sentences (`reason.rs`).

mod back;
mod cascade;
mod crash;
mod events;
mod leave;
mod ordered;
mod others;
mod rejoins;
mod release;
mod rights;
mod silence;
mod starting;
mod table;
mod trouble;

#[cfg(test)]
mod keeper_test;

pub use back::Back;
pub use events::{Found, Kept, Moment};
pub use rejoins::FailedCopy;
pub use table::may_be_asked;

use super::Row;
use super::goal::{Goal, Me, goal};
use super::reason::{GiveUp, StopReason, Waiting};
use crate::config;
use crate::known_bugs::{self, Bug};
use crate::lease;
use crate::ledger::{Phase, Service, Shared, State};
use crate::types::{
    DbAction, Epoch, Instant, Leaving, NodeName, Observation, Position, Released, Seal, ServiceName, StopLadder,
    Timeline,
};
use derive_more::Display;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What this node knows of the local database of one service. Its events change it (`events.rs`), and nothing else.
#[derive(Clone, Debug)]
pub struct Keeper {
    seen: Observation,
    /// The action under way, and since when.
    running: Option<(DbAction, Instant)>,
    lease: Option<lease::Holder>,
    /// An earlier daemon of this boot left the lease held open by a pause; the number of the last resume before that
    /// pause. Whether the pause still stands, the ledger says; until it is known nothing is stopped: a pause bars `lease`,
    /// and so does a resume that this holder has not answered.
    held_open: Option<u64>,
    /// The guard was told that a pause holds the database open, and not yet anything else: it kills nothing, so a lease
    /// alone is not enough to go on.
    guard_waits: bool,
    /// Epochs up to this one are over for this node, durably.
    tombstone: Epoch,
    /// Written durably right now.
    writing_tombstone: Option<Epoch>,
    /// The final word for the tombstoned epoch.
    released: Option<Released>,
    /// The last start was out of recovery, or a promotion was begun since: recovery that was told to end goes on to end,
    /// whoever waits for it no more.
    started_as_primary: bool,
    /// A stop has left nothing of it, and nothing was started or seen to run since.
    closed: bool,
    restarts: Restarts,
    start: Option<Start>,
    /// Where its WAL ends, if that is known: as it was seen last while it ran, or after an orderly stop.
    reached: Option<Position>,
    /// The last clean stop: for the final word.
    stopped_at: Option<Position>,
    /// The directory cannot follow as it is.
    distrusted: bool,
    /// The tries to make it a standby since it streamed.
    rejoins: rejoins::Rejoins,
    /// How the directory was made to follow, and where what was its own is kept: until the ledger has it.
    rejoined: Vec<Back>,
    /// The last order to copy it anew that was carried out: the ledger may not have heard of it.
    copied_on_order: Option<u64>,
    /// The restart that a person ordered last, as far as this daemon has come with it.
    ordered: Option<ordered::Ordered>,
    /// The last accepted copy for which what was here before was forgotten.
    accepted_copy: Option<u64>,
    /// When the last pause of the service ended, where this daemon saw that: what it looked on at counts from then.
    pause_ended_at: Option<Instant>,
    /// Since when a running standby has replayed all that it has, and gets nothing from the upstream that it should follow.
    idle_since: Option<Instant>,
    /// When it was compared with that upstream last, and why it cannot follow as it is, if so.
    compared: Option<(Instant, Option<String>)>,
    /// Sealed for this epoch: the WAL receiver stays closed until the next epoch.
    sealed: Option<Epoch>,
    /// What earlier rejoins kept on this host, as far as it was seen.
    found_kept: BTreeSet<String>,
    /// How often in a row a stop failed, and when the next one may begin: also one that cannot wait is not tried at once.
    stop_failed: Option<(u32, Instant)>,
    /// Since when others have a quorum without this node, as their heartbeats tell, while its lease has ended.
    quorum_elsewhere_since: Option<Instant>,
    /// Since when this node hears no other on any network: no answer to its renewals could come.
    deaf_since: Option<Instant>,
    /// When it gave its epoch back for local trouble, in the last hour or so.
    left_for_trouble: Vec<Instant>,
    /// When it was told to follow the primary itself; `None`: it was not, or another standby since.
    follows_primary_since: Option<Instant>,
    in_epoch: InEpoch,
}

/// Restarts in place within an epoch: the last one under which it was opened out of recovery. No part of [`InEpoch`],
/// which begins when this node hears of an epoch: a lease that an earlier daemon kept says that it was opened before.
#[derive(Clone, Debug, Default)]
struct Restarts {
    epoch: Epoch,
    /// When each began, however it ended; the newest last, and no more than ever count.
    began: VecDeque<Instant>,
}

/// A start that has not come to an answer yet, with the tries before it that came to none.
#[derive(Clone, Copy, Debug)]
struct Start {
    since: Instant,
    /// When the present try was seen to get on last.
    moved_at: Instant,
}

/// What belongs to the present epoch, as this node's copy of the ledger has it, and is dropped with it as a whole.
#[derive(Clone, Debug, Default)]
struct InEpoch {
    /// Since when its holder gets on with taking over; `None` before the first epoch is known.
    install_since: Option<Instant>,
    /// It was seen out of recovery.
    was_open: bool,
    /// Where it accepted its first write.
    first_write: Option<Position>,
    /// When the end of its WAL was looked for in its own directory, after it died, and where it is, if it was found.
    wal_ends: Option<(Instant, Option<Position>)>,
    /// It was given up, and why: nothing opens it again under this epoch.
    given_up: Option<GiveUp>,
    /// A checkpoint was written, for the move.
    checkpointed: bool,
    /// Promotions that failed under a lease.
    promotions_failed: u32,
    /// Tries to make the database that failed.
    creations_failed: u32,
    /// When this node saw its service resumed: until a lease time after it, the pause still holds.
    resumed_at: Option<Instant>,
    /// Why the last try to write the tombstone failed, and when to try again.
    tombstone_failed: Option<(String, Instant)>,
    /// What the last `Seal` found, for the epoch that was ending when it began.
    seal_report: Option<(Epoch, Result<Seal, String>)>,
    last_error: Option<String>,
    /// The last action that failed: not tried again before this.
    retry_at: Option<Instant>,
    /// How many starts as a standby failed in a row.
    starts_failed: u32,
}

/// Everything that decides over the next step.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub now: Instant,
    pub me: Me<'a>,
    pub state: &'a State,
    pub name: &'a ServiceName,
    pub config: &'a config::Config,
    pub keeper: &'a Keeper,
    /// The last heartbeat of each node. Only [`keep`] looks at it, like at what follows.
    pub rows: &'a BTreeMap<NodeName, Row>,
    /// Why the watchdog cannot be armed, and how often in a row that was found out: without it no lease is asked for. Only
    /// [`keep`] looks at it: what may run at this moment does not hang on it.
    pub unguarded: Option<(&'a str, u32)>,
    /// How often the service moved within the last hour although nobody had asked for it. Only [`keep`] looks at it.
    pub moves: usize,
    /// This node leaves in order: its databases are closed, and not opened again by this daemon.
    pub leaving: Option<Leaving>,
    /// Who could take over in order now, or why nobody. Asked for where there is trouble, and only [`keep`] looks at it.
    pub heir: Option<&'a Result<NodeName, String>>,
}

/// The next step for the local database.
#[derive(Clone, Debug, PartialEq, Display)]
pub enum Step {
    /// Nothing to do, or something must happen first.
    #[display("waits: {_0}")]
    Wait(Waiting),
    /// Do this; what runs now is left to end first.
    #[display("{_0}")]
    Db(DbAction),
    /// Stop now, whatever runs.
    #[display("STOPS NOW ({_0}): {_1}")]
    StopNow(StopLadder, StopReason),
    /// The same, because the directory cannot follow as it is: it is rewound or cloned before it starts again.
    #[display("stops, to rejoin ({_0}): {_1}")]
    StopToRejoin(StopLadder, StopReason),
    /// The same in order, because a person ordered its restart.
    #[display("stops, to be restarted on order ({ladder})")]
    StopToRestart { ladder: StopLadder, order: u64 },
    /// The same, because its node leaves: from here on the epoch is given back, whatever comes meanwhile.
    #[display("stops, and gives its epoch back ({_0}): {_1}")]
    StopToLeave(StopLadder, GiveUp),
    /// Say that this order is carried out.
    #[display("says that it was restarted on order")]
    Restarted { order: u64 },
    /// Write durably that this node never writes under the epoch again; and why, where it was given up.
    #[display("writes the tombstone of epoch {_0}")]
    Tombstone(Epoch, Option<GiveUp>),
    /// Bring the final word to the ledger.
    #[display("says its final word on epoch {epoch}{}: {why}", position.map_or(String::new(), |p| format!(" at {p}")))]
    Release { epoch: Epoch, position: Option<Position>, why: GiveUp },
    /// Say that promotion begins.
    #[display("says that epoch {epoch} begins timeline {timeline}")]
    Promoting { epoch: Epoch, timeline: Timeline },
    /// Say that it accepts writes.
    #[display("says that it accepts writes in epoch {epoch}")]
    Installed { epoch: Epoch },
}

impl Step {
    /// What the keeper does or waits for, as `status` shows it.
    pub fn now(&self) -> String {
        match self {
            Step::Wait(waiting) => waiting.to_string(),
            step => step.to_string(),
        }
    }
}

impl<'a> Input<'a> {
    fn service(&self) -> Option<&'a Service> {
        self.state.services.get(self.name).map(Shared::get)
    }

    /// The number of a person's order to copy this node anew that is to be carried out.
    fn copy_order(&self, s: &Service) -> Option<u64> {
        let order = s.to_copy.get(self.me.node).map(|due| due.number);
        order.filter(|number| self.keeper.copied_on_order != Some(*number))
    }

    fn settings(&self) -> &'a config::Service {
        &self.config.services[self.name]
    }

    fn lease_ladder(&self) -> StopLadder {
        self.state.lease_ladder(&self.config.lease)
    }

    fn planned_ladder(&self) -> StopLadder {
        let s = self.settings();
        StopLadder { fast: s.stop_fast, immediate: s.stop_immediate, kill: s.stop_kill }
    }

    fn is_stopping(&self) -> bool {
        matches!(self.keeper.running, Some((DbAction::Stop { .. }, _)))
    }

    /// What is wanted: what the ledger says, unless this node knows why it cannot or must not.
    pub fn goal(&self) -> Goal {
        let goal = goal(self.state, self.config, self.name, self.me, self.keeper.tombstone);
        match (goal, self.service()) {
            (goal @ (Goal::MakeIt | Goal::TakeOver { .. } | Goal::GoOn | Goal::GoOnPaused), Some(s)) => {
                match release::reason(self, s) {
                    None => goal,
                    Some(GiveUp::Leaves(_)) if s.phase == Phase::Installed => Goal::Leave,
                    Some(why) => Goal::GiveUp(why),
                }
            }
            (goal, _) => goal,
        }
    }
}

/// The next step.
pub fn keep(input: &Input) -> Step {
    // S5 first: whoever could commit without the right to is stopped, before the lease ends.
    if input.could_commit() && !input.may_write(input.stop_time()) {
        return without_the_right(input);
    }
    if let Some(step) = leave::step(input) {
        return step;
    }
    let step = next(input);
    match input.service().is_some_and(|s| s.paused) {
        true if ordered::comes_back(input, &step) => step,
        true => looking_on(step),
        false => step,
    }
}

/// In a pause nothing is done to the database: a person may be at work on it. What is so is said; and a second writer is
/// stopped, because there no pause is known.
fn looking_on(step: Step) -> Step {
    match step {
        Step::Db(_)
        | Step::StopToRejoin(..)
        | Step::StopToRestart { .. }
        | Step::StopToLeave(..)
        | Step::Promoting { .. } => Step::Wait(Waiting::Paused),
        Step::StopNow(_, ref why) if *why != StopReason::AnotherHolds => Step::Wait(Waiting::Paused),
        step => step,
    }
}

fn next(input: &Input) -> Step {
    let keeper = input.keeper;
    let hasty = input.is_stopping() && known_bugs::has(Bug::ReleasedEarly);
    // A start that comes to no end has one.
    if let Some(step) = starting::end(input) {
        return step;
    }
    let waits = |(action, _): &&(DbAction, Instant)| !hasty && !matches!(action, DbAction::Compare { .. });
    if let Some((action, _)) = keeper.running.as_ref().filter(waits) {
        return Step::Wait(Waiting::UnderWay(action.name()));
    }
    if let Some(at) = keeper.in_epoch.retry_at
        && input.now < at
    {
        return Step::Wait(Waiting::Retry { error: keeper.in_epoch.last_error.clone() });
    }
    if input.me.incarnation.is_none() {
        return Step::Wait(Waiting::NotJoined);
    }
    table::step(input, &input.goal())
}

/// It could commit, and may not for as long as a stop takes (S5).
fn without_the_right(input: &Input) -> Step {
    // No epoch was ever begun here: regent did not open it, and does not stop it (a kept lease says otherwise).
    if input.service().is_none() && input.state.settings.is_some() && input.keeper.lease.is_none() {
        return Step::Wait(Waiting::Unmanaged);
    }
    if input.awaits_adoption() {
        return Step::Wait(Waiting::Adoption);
    }
    if input.is_stopping() {
        return Step::Wait(Waiting::Stopping);
    }
    let why = match input.held() {
        Some(_) if input.keeper.guard_waits => StopReason::GuardWaits,
        _ => StopReason::NoLease,
    };
    Step::StopNow(input.lease_ladder(), why)
}

/// The next step while this node's copy of the ledger may be of before its daemon: a lease that an earlier daemon kept is
/// judged by its own end, and nothing else is decided.
pub fn before_the_ledger(input: &Input) -> Step {
    let lease = input.keeper.lease.as_ref();
    if !input.could_commit() || (lease.is_none() && input.service().is_none()) {
        return leave::step(input).unwrap_or(Step::Wait(Waiting::Ledger));
    }
    // Joined by now, and what it joined with goes on until its end.
    let joined = lease.is_some_and(|l| l.is_valid(input.now + input.stop_time()));
    if joined || input.runs_on_kept(input.stop_time()) || input.keeper.held_open.is_some() {
        return Step::Wait(Waiting::Adoption);
    }
    if input.is_stopping() {
        return Step::Wait(Waiting::Stopping);
    }
    Step::StopNow(input.lease_ladder(), StopReason::LeaseEndedInTheDark)
}
