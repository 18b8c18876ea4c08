//! The keeper: the one next step for the local database of one service, from what the ledger says and what the
//! database is. It opens a database for writes only under a lease for the service's current epoch, and it says
//! `released` only when nothing is left that could commit (S2, S5).

use super::note::Passing;
use super::reason::{GiveUp, StopReason, Waiting};
use crate::config;
use crate::known_bugs::{self, Bug};
use crate::lease;
use crate::ledger::{Holder as LedgerHolder, Phase, Service, State};
use crate::types::{
    Boot, DbAction, DbState, Epoch, Incarnation, Instant, NodeName, Observation, Position, Released, Seal, ServiceName,
    StopLadder, Timeline, Trouble, Upstream,
};
use derive_more::Display;
use std::time::Duration;

/// What the keeper knows of the local database beyond what is seen.
#[derive(Clone, Debug)]
pub struct Local {
    pub seen: Observation,
    /// The action under way, and since when.
    pub running: Option<(DbAction, Instant)>,
    pub lease: Option<lease::Holder>,
    /// An earlier daemon of this boot left the lease held open by a pause. Whether the pause still stands, the ledger
    /// says; until it is known nothing is stopped: a pause bars `lease`, and so does a resume that this holder has not
    /// answered (H1.6).
    pub held_open: bool,
    /// The number of the last resume before that pause.
    pub held_after: u64,
    /// The guard was told that a pause holds the database open, and not yet anything else: it kills nothing, so a lease
    /// alone is not enough to go on.
    pub guard_waits: bool,
    /// Epochs up to this one are over for this node, durably.
    pub tombstone: Epoch,
    /// Written durably right now.
    pub writing_tombstone: Option<Epoch>,
    /// Why the last try of that failed, and when to try again.
    pub tombstone_failed: Option<(String, Instant)>,
    /// The final word for the tombstoned epoch.
    pub released: Option<Released>,
    /// The last start was out of recovery, or a promotion was begun since: recovery that was told to end goes on to end,
    /// whoever waits for it no more (H1.9).
    pub started_as_primary: bool,
    /// A stop has left nothing of it, and nothing was started or seen to run since.
    pub closed: bool,
    /// Restarts in place within an epoch: the last one under which it was opened out of recovery.
    pub restarts: u32,
    pub restarts_in: Epoch,
    /// The last clean stop: for the final word.
    pub stopped_at: Option<Position>,
    /// A checkpoint was written for the move of this epoch.
    pub checkpointed: Option<Epoch>,
    /// The directory cannot follow as it is.
    pub distrusted: bool,
    /// How the directory was made to follow, and where what was its own is kept: until the ledger has it.
    pub rejoined: Vec<(String, Option<String>)>,
    /// Since when a running standby gets nothing from the upstream that it should follow.
    pub idle_since: Option<Instant>,
    /// Sealed for this epoch: the WAL receiver stays closed until the next epoch.
    pub sealed: Option<Epoch>,
    /// The last action that failed: not tried again before this.
    pub retry_at: Option<Instant>,
    pub last_error: Option<String>,
    /// How often in a row a stop failed, and when the next one may begin: also one that cannot wait is not tried at once.
    pub stop_failed: Option<(u32, Instant)>,
    pub install_since: Option<(Epoch, Instant)>,
    /// Promotions in the present epoch that failed under a lease.
    pub promotions_failed: u32,
    /// What the last `Seal` found, for the epoch that was ending.
    pub seal_report: Option<(Epoch, Result<Seal, String>)>,
    /// When this node saw its service resumed: until a lease time after it, the pause still holds.
    pub resumed_at: Option<Instant>,
    /// Since when others have a quorum without this node, as their heartbeats tell, while its lease has ended.
    pub quorum_elsewhere_since: Option<Instant>,
    /// Where it accepted its first write in the present epoch.
    pub first_write: Option<Position>,
}

impl Local {
    /// Whether it is a standby of nobody, or of another than whoever holds the epoch.
    pub fn gets_nothing_from(&self, holder: Option<&NodeName>) -> bool {
        self.seen.state == DbState::Standby && holder.is_some() && self.seen.streams_from.as_ref() != holder
    }
}

impl Default for Local {
    fn default() -> Self {
        Local {
            seen: Observation::unclear(),
            running: None,
            lease: None,
            held_open: false,
            held_after: 0,
            guard_waits: false,
            tombstone: Epoch(0),
            writing_tombstone: None,
            tombstone_failed: None,
            released: None,
            started_as_primary: false,
            closed: false,
            restarts: 0,
            restarts_in: Epoch(0),
            stopped_at: None,
            checkpointed: None,
            distrusted: false,
            rejoined: Vec::new(),
            idle_since: None,
            sealed: None,
            retry_at: None,
            last_error: None,
            stop_failed: None,
            install_since: None,
            promotions_failed: 0,
            seal_report: None,
            resumed_at: None,
            quorum_elsewhere_since: None,
            first_write: None,
        }
    }
}

/// Who this node is.
#[derive(Clone, Copy)]
pub struct Me<'a> {
    pub node: &'a NodeName,
    pub boot: &'a Boot,
    /// `None` before the join.
    pub incarnation: Option<Incarnation>,
}

/// Everything that the keeper looks at.
pub struct Input<'a> {
    pub now: Instant,
    pub me: Me<'a>,
    pub state: &'a State,
    pub name: &'a ServiceName,
    pub config: &'a config::Config,
    pub local: &'a Local,
    /// Why the watchdog cannot be armed, and how often in a row that was found out: without it no lease is asked for.
    pub unguarded: Option<(&'a str, u32)>,
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
    /// Write durably that this node never writes under the epoch again.
    #[display("writes the tombstone of epoch {_0}")]
    Tombstone(Epoch),
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

impl Input<'_> {
    fn service(&self) -> Option<&Service> {
        self.state.services.get(self.name)
    }

    fn settings(&self) -> &config::Service {
        &self.config.services[self.name]
    }

    fn lease_ladder(&self) -> StopLadder {
        self.state.lease_ladder(&self.config.lease)
    }

    fn planned_ladder(&self) -> StopLadder {
        let s = self.settings();
        StopLadder { fast: s.stop_fast, immediate: s.stop_immediate, kill: s.stop_kill }
    }

    /// Whether the present epoch, not over, is this very incarnation's.
    fn is_mine(&self, holder: &LedgerHolder) -> bool {
        &holder.node == self.me.node && &holder.boot == self.me.boot && Some(holder.incarnation) == self.me.incarnation
    }

    /// The epoch that this node holds and has not given up.
    pub fn held(&self) -> Option<Epoch> {
        let s = self.service()?;
        let mine = s.over.is_none() && s.holder.as_ref().is_some_and(|h| self.is_mine(h));
        (mine && s.epoch > self.local.tombstone).then_some(s.epoch)
    }

    /// Whether the database may accept writes until `ahead` from now (S5): a lease for the held epoch, or a recorded
    /// pause of a service that this node holds.
    pub fn may_write(&self, ahead: Duration) -> bool {
        let Some(epoch) = self.held() else { return false };
        let lease = self.local.lease.as_ref().filter(|l| l.epoch() == epoch);
        let paused = self.service().is_some_and(|s| s.paused) || self.just_resumed();
        let leased = lease.is_some_and(|l| l.is_valid(self.now + ahead)) && !self.local.guard_waits;
        leased || (paused && lease.is_some_and(|l| l.until().is_some()))
    }

    /// A lease may have run out during the pause, so a resume leaves one lease time to renew it. Nobody can conclude from
    /// the lease by then: `lease` confirms nothing before a renewal that this node asked for after the resume, and then
    /// only after more than a lease time. So it may be in the ledger before the answer to it is here.
    pub fn resumed_until(&self) -> Option<Instant> {
        let grace = self.state.settings.as_ref().map(|s| s.lease_use());
        self.local.resumed_at.zip(grace).map(|(at, grace)| at + grace)
    }

    fn just_resumed(&self) -> bool {
        self.resumed_until().is_some_and(|until| self.now + self.stop_time() < until)
    }

    /// Whether an earlier daemon of this boot left a lease that this one may adopt: it is still valid (or the service is
    /// paused), for the epoch that the ledger says this very boot holds, or nothing is known of the service yet.
    pub fn awaits_adoption(&self) -> bool {
        let Some(lease) = self.local.lease.as_ref().filter(|_| self.me.incarnation.is_none()) else { return false };
        let valid = lease.is_valid(self.now + self.stop_time());
        match self.service() {
            None => valid || self.local.held_open,
            Some(s) => {
                let held = s.holder.as_ref().is_some_and(|h| &h.node == self.me.node && &h.boot == self.me.boot);
                // A pause that ended meanwhile binds nobody before this holder has renewed.
                let resumed = self.local.held_open && s.unproven_resume.is_some();
                let paused = (s.paused || resumed) && lease.until().is_some();
                s.over.is_none() && held && s.epoch == lease.epoch() && (valid || paused)
            }
        }
    }

    /// Whether the database runs on, until `ahead` from now, under what an earlier daemon of this boot kept: judged by that
    /// alone, for as long as this daemon has no incarnation of its own.
    pub fn runs_on_kept(&self, ahead: Duration) -> bool {
        let kept = self.local.lease.as_ref().filter(|_| self.me.incarnation.is_none());
        kept.is_some_and(|lease| self.local.held_open || lease.is_valid(self.now + ahead))
    }

    /// Whether a process may exist that could commit, or that comes to it by itself: a standby whose promotion was begun.
    pub fn could_commit(&self) -> bool {
        let opening = matches!(self.local.running, Some((DbAction::StartPrimary { .. } | DbAction::Promote { .. }, _)));
        opening
            || match self.local.seen.state {
                DbState::Primary => true,
                DbState::Unclear => self.local.started_as_primary && !self.local.closed,
                DbState::Starting | DbState::Stopping | DbState::Standby => self.local.started_as_primary,
                _ => false,
            }
    }

    /// The time that stopping at the end of a lease may need.
    pub fn stop_time(&self) -> Duration {
        self.lease_ladder().whole()
    }
}

/// The next step.
pub fn keep(input: &Input) -> Step {
    let stopping = matches!(input.local.running, Some((DbAction::Stop { .. }, _)));
    // S5 first: whoever could commit without the right to is stopped, before the lease ends.
    if input.could_commit() && !input.may_write(input.stop_time()) {
        // No epoch was ever begun here: regent did not open it, and does not stop it (a kept lease says otherwise).
        if input.service().is_none() && input.state.settings.is_some() && input.local.lease.is_none() {
            return Step::Wait(Waiting::Unmanaged);
        }
        if input.awaits_adoption() {
            return Step::Wait(Waiting::Adoption);
        }
        if stopping {
            return Step::Wait(Waiting::Stopping);
        }
        let why = match input.held() {
            Some(_) if input.local.guard_waits => StopReason::GuardWaits,
            _ => StopReason::NoLease,
        };
        return Step::StopNow(input.lease_ladder(), why);
    }
    let hasty = stopping && known_bugs::has(Bug::ReleasedEarly);
    if let Some((action, _)) = input.local.running.as_ref().filter(|_| !hasty) {
        return Step::Wait(Waiting::UnderWay(action.name()));
    }
    if let Some(at) = input.local.retry_at
        && input.now < at
    {
        return Step::Wait(Waiting::Retry { error: input.local.last_error.clone() });
    }
    if input.me.incarnation.is_none() {
        return Step::Wait(Waiting::NotJoined);
    }
    if let Some(step) = finish_release(input) {
        return step;
    }
    match input.held() {
        Some(epoch) => hold(input, epoch),
        None => follow(input),
    }
}

/// The next step while this node's copy of the ledger may be of before its daemon: a lease that an earlier daemon kept is
/// judged by its own end, and nothing else is decided.
pub fn before_the_ledger(input: &Input) -> Step {
    let kept = input.local.lease.is_some();
    if !input.could_commit() || (!kept && input.service().is_none()) {
        return Step::Wait(Waiting::Ledger);
    }
    // Joined by now, and what it joined with goes on until its end.
    let joined = input.local.lease.as_ref().is_some_and(|l| l.is_valid(input.now + input.stop_time()));
    if joined || input.runs_on_kept(input.stop_time()) || input.local.held_open {
        return Step::Wait(Waiting::Adoption);
    }
    if matches!(input.local.running, Some((DbAction::Stop { .. }, _))) {
        return Step::Wait(Waiting::Stopping);
    }
    Step::StopNow(input.lease_ladder(), StopReason::LeaseEndedInTheDark)
}

/// A tombstone stands for the present epoch: the ledger must hear the final word, again and again until it has.
fn finish_release(input: &Input) -> Option<Step> {
    let s = input.service()?;
    let mine = s.over.is_none() && s.holder.as_ref().is_some_and(|h| input.is_mine(h));
    if !mine || s.epoch > input.local.tombstone {
        return None;
    }
    let position = input.local.released.filter(|r| r.epoch == s.epoch).and_then(|r| r.position);
    Some(Step::Release { epoch: s.epoch, position, why: release_reason(input, s) })
}

fn release_reason(input: &Input, s: &Service) -> GiveUp {
    reason_to_release(input, s, s.epoch).unwrap_or_else(|| GiveUp::Other { error: input.local.last_error.clone() })
}

/// Towards a writable database under the held epoch.
fn hold(input: &Input, epoch: Epoch) -> Step {
    let Some(s) = input.service() else { return Step::Wait(Waiting::NotCreated) };
    if let Some(why) = reason_to_release(input, s, epoch) {
        return release_step(input, epoch, why);
    }
    let seen = &input.local.seen;
    if let (DbState::Primary, Some(since_ms)) = (seen.state, silence(seen)) {
        return hung(input, since_ms);
    }
    let ready = input.may_write(input.stop_time());
    match (seen.state, s.phase) {
        (DbState::Absent, Phase::Creating) => Step::Db(DbAction::Initdb),
        (DbState::Standby, Phase::Appointed) => {
            Step::Promoting { epoch, timeline: s.next_timeline(seen.position.timeline) }
        }
        (DbState::Standby, Phase::Promoting { timeline }) if ready => Step::Db(DbAction::Promote { epoch, timeline }),
        (DbState::Stopped, _) if seen.starts_in_recovery => Step::Db(DbAction::StartStandby { upstream: None }),
        (DbState::Stopped, _) if ready => Step::Db(DbAction::StartPrimary { epoch }),
        (DbState::Standby | DbState::Stopped, _) => Step::Wait(Waiting::Lease),
        (DbState::Primary, Phase::Installed) => match &seen.trouble {
            Some(trouble) => Step::Wait(Waiting::Trouble(trouble.clone())),
            None => Step::Wait(Waiting::Primary),
        },
        (DbState::Primary, _) if seen.writable && seen.system.is_some() => Step::Installed { epoch },
        (state, phase) => Step::Wait(Waiting::Holding { state, phase }),
    }
}

/// For how long it has answered nobody, if so: it hangs, or something else started it and it does not let regent in.
fn silence(seen: &Observation) -> Option<u64> {
    match &seen.trouble {
        Some(Trouble::NotAnswering { since_ms }) => Some(*since_ms),
        _ => None,
    }
}

/// It hangs: killed and started again in place.
fn hung(input: &Input, since_ms: u64) -> Step {
    let limit = input.settings().postgresql.probe_timeout;
    if u128::from(since_ms) < limit.as_millis() {
        return Step::Wait(Waiting::NotAnswering);
    }
    let kill = input.settings().stop_kill;
    let ladder = StopLadder { fast: Duration::ZERO, immediate: Duration::ZERO, kill };
    Step::StopNow(ladder, StopReason::Hung { since_ms: Passing(since_ms) })
}

/// Why this node cannot or must not go on under the epoch.
fn reason_to_release(input: &Input, s: &Service, epoch: Epoch) -> Option<GiveUp> {
    let local = input.local;
    if s.moving.is_some() {
        return Some(GiveUp::Switchover);
    }
    // It was given up already, whatever the reason has become since.
    if let Some((why, _)) = &local.tombstone_failed {
        return Some(GiveUp::Unsaid { why: why.clone() });
    }
    let down = matches!(local.seen.state, DbState::Stopped);
    let crashed = down && local.started_as_primary && s.phase == Phase::Installed;
    if crashed && input.settings().on_crash == config::OnCrash::Failover {
        return Some(GiveUp::Died);
    }
    if local.restarts_in == epoch && local.restarts > input.settings().max_restarts && down {
        return Some(GiveUp::KeepsDying { error: local.last_error.clone() });
    }
    if down && !s.paused && has_lapsed(input, epoch) {
        return Some(GiveUp::Lapsed);
    }
    // Without it there is no lease, so it can neither take over nor, once its lease has ended, go on.
    let closed = !matches!(local.seen.state, DbState::Primary | DbState::Unclear);
    if let Some((why, 2..)) = input.unguarded.filter(|_| closed && !s.paused && !input.may_write(Duration::ZERO)) {
        return Some(GiveUp::Unguarded { why: why.to_owned() });
    }
    if local.guard_waits && closed && local.resumed_at.is_some() && !s.paused && !input.just_resumed() {
        return Some(GiveUp::GuardWaits);
    }
    // While it is being made there is nothing yet, unless it was opened under this very epoch: this copy of the ledger may
    // be late, and others have what was written.
    let made = s.phase != Phase::Creating || local.restarts_in == epoch;
    let gone = matches!(local.seen.state, DbState::Absent | DbState::Unstartable) && made;
    if gone {
        return Some(GiveUp::DirectoryGone);
    }
    let recovers = local.seen.state == DbState::Standby || (down && local.seen.starts_in_recovery);
    if recovers && matches!(s.phase, Phase::Creating | Phase::Installed) {
        return Some(GiveUp::InRecovery);
    }
    // It tried twice, and recovery goes on: it can say so before the deadline, and its word is final.
    let failed = local.promotions_failed >= 2 && matches!(local.seen.state, DbState::Standby | DbState::Stopped);
    if failed && s.phase != Phase::Installed {
        return Some(GiveUp::NotPromoted { error: local.last_error.clone() });
    }
    let since = local.install_since.filter(|(e, _)| *e == epoch).map(|(_, at)| at);
    let late = since.is_some_and(|at| input.now.since(at) > input.config.failover.install);
    (s.phase != Phase::Installed && late).then_some(GiveUp::Late)
}

/// The lease of this epoch is over, and those who could renew it have been there for long enough to elect a leader and
/// to be asked: this node does not reach them. Its silence could only be fenced; the final word lets the service move,
/// out of the disk slot too. While there is no quorum anywhere it keeps the epoch: nobody could move the service, and
/// what it wrote last is here alone.
fn has_lapsed(input: &Input, epoch: Epoch) -> bool {
    let ended = input.local.lease.as_ref().filter(|l| l.epoch() == epoch).and_then(|l| l.until());
    let chance = config::timing::bounds(input.config).election_worst + input.config.lease.renew;
    ended.is_some_and(|until| input.now >= until)
        && input.local.quorum_elsewhere_since.is_some_and(|at| input.now >= at + chance)
}

/// Stop, write the tombstone, then (through `finish_release`) say the final word.
fn release_step(input: &Input, epoch: Epoch, why: GiveUp) -> Step {
    let local = input.local;
    let planned = input.service().is_some_and(|s| s.moving.is_some());
    // Where its directory does not answer, the stop has said that nothing is left: to stop it again would end at once, and
    // be wanted again at once.
    let state = match local.seen.state {
        DbState::Unclear if local.closed => DbState::Stopped,
        state => state,
    };
    match state {
        DbState::Stopped | DbState::Absent | DbState::Unstartable => match local.writing_tombstone {
            Some(e) if e >= epoch => Step::Wait(Waiting::Tombstone),
            _ => match &local.tombstone_failed {
                Some((why, again_at)) if input.now < *again_at => {
                    Step::Wait(Waiting::FinalWordFails { why: why.clone() })
                }
                _ => Step::Tombstone(epoch),
            },
        },
        DbState::Primary if planned && local.checkpointed != Some(epoch) => Step::Db(DbAction::Checkpoint),
        DbState::Stopping if !known_bugs::has(Bug::ReleasedEarly) => Step::Wait(Waiting::Stopping),
        DbState::Stopping if local.writing_tombstone.is_none() => Step::Tombstone(epoch),
        DbState::Stopping => Step::Wait(Waiting::Tombstone),
        _ if planned => Step::Db(DbAction::Stop { ladder: input.planned_ladder() }),
        _ => Step::StopNow(input.lease_ladder(), StopReason::GivenUp(why)),
    }
}

/// Towards a standby of whoever holds the epoch.
fn follow(input: &Input) -> Step {
    let seen = &input.local.seen;
    let Some(s) = input.service() else { return Step::Wait(Waiting::NotCreated) };
    if seen.system.is_some() && s.system.is_some() && seen.system != s.system {
        return Step::Wait(Waiting::AnotherDatabase);
    }
    let holder =
        s.holder.as_ref().filter(|h| s.over.is_none() && s.phase == Phase::Installed && &h.node != input.me.node);
    let Some(upstream) = holder.and_then(|h| upstream(input, &h.node)) else { return idle(input) };
    let dead = holder
        .and_then(|h| input.state.present(&h.node, h.incarnation))
        .is_none_or(|n| n.life == crate::ledger::Life::Dead);
    if dead {
        return idle(input);
    }
    match seen.state {
        DbState::Absent | DbState::Unstartable => Step::Db(DbAction::Rejoin { upstream }),
        // A standby that was merely stopped starts as it is; whether it can follow shows when it tries.
        DbState::Stopped if seen.starts_in_recovery && !input.local.distrusted => {
            Step::Db(DbAction::StartStandby { upstream: Some(upstream) })
        }
        DbState::Stopped => Step::Db(DbAction::Rejoin { upstream }),
        DbState::Standby => follow_running(input, s, upstream),
        DbState::Primary => Step::StopNow(input.lease_ladder(), StopReason::AnotherHolds),
        DbState::Starting if silence(seen).is_some() => hung(input, silence(seen).unwrap_or_default()),
        state => Step::Wait(Waiting::Following(state)),
    }
}

fn follow_running(input: &Input, s: &Service, upstream: Upstream) -> Step {
    let seen = &input.local.seen;
    let started = s.history.last().map_or(Timeline(0), |e| e.start.timeline);
    // On a later timeline than this epoch's it got from its upstream what this node's ledger has not heard of yet.
    let foreign = seen.position.timeline < started && s.sealed_at.0 > 0 && seen.position.lsn > s.sealed_at;
    if foreign {
        return Step::StopToRejoin(input.planned_ladder(), StopReason::PastTheFork);
    }
    if seen.follows.as_ref() != Some(&upstream.node) || input.local.sealed.is_some_and(|e| e < s.epoch) {
        // One that answers nobody cannot be told whom to follow; as long as it follows, its readers may have time.
        return match silence(seen) {
            Some(since_ms) => hung(input, since_ms),
            None => Step::Db(DbAction::Follow { upstream }),
        };
    }
    let stuck = input.local.idle_since.is_some_and(|at| input.now.since(at) > stuck_after(input.config));
    if stuck {
        return Step::StopToRejoin(input.planned_ladder(), StopReason::GetsNothing);
    }
    Step::Wait(Waiting::StandbyOf(upstream.node))
}

/// How long a standby may get nothing before it is stopped and made to rejoin.
pub fn stuck_after(config: &config::Config) -> Duration {
    (config.detector.acceptable_pause * 5).max(Duration::from_secs(5))
}

/// Nobody to follow: a standby runs on (it may be asked for the end of its WAL); one that answers nobody cannot be asked.
/// A former primary that could be appointed is made one, so that it can be asked too; nothing else is started.
fn idle(input: &Input) -> Step {
    let seen = &input.local.seen;
    if let (DbState::Standby | DbState::Starting, Some(since_ms)) = (seen.state, silence(seen)) {
        return hung(input, since_ms);
    }
    match seen.state {
        DbState::Stopped if seen.starts_in_recovery || may_be_asked(input) => {
            Step::Db(DbAction::StartStandby { upstream: None })
        }
        DbState::Stopped => Step::Wait(Waiting::Appointment),
        state => Step::Wait(Waiting::NobodyToFollow(state)),
    }
}

/// The present epoch is another node's and is ending, and this database descends from what was installed last: its node
/// was the primary then, and whoever came after it was never installed. (The holder itself goes on without being asked.)
pub fn may_be_asked(input: &Input) -> bool {
    let (Some(s), seen) = (input.service(), &input.local.seen) else { return false };
    let ending = s.over.is_some() || input.state.fence_of(s).is_some();
    let anothers = s.holder.as_ref().is_some_and(|h| &h.node != input.me.node);
    let descends = s.timeline.0 > 0 && seen.history.descends_from(seen.position, s.timeline);
    ending && anothers && descends && s.phase != Phase::Installed && seen.system.is_some()
}

/// All addresses of a node, primary network first.
fn upstream(input: &Input, node: &NodeName) -> Option<Upstream> {
    let n = input.config.nodes.get(node)?;
    let port = input.settings().postgresql.port;
    Some(Upstream { node: node.clone(), addresses: vec![n.primary, n.secondary], port })
}
