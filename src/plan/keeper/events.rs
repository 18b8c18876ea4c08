//! What each event changes in a keeper, what others may ask it, and when something of it is due.
//!
//! Not here: any decision (`table.rs`), and what is said or sent because of an event (`node`).

use super::back::Back;
use super::crash::patience;
use super::ordered::Stage;
use super::rejoins::{FailedCopy, Rejoins};
use super::{InEpoch, Keeper, Restarts, Start, release};
use crate::config::{Config, MOST_RESTARTS};
use crate::known_bugs::{self, Bug};
use crate::lease::{self, Grant, LeaseRequest};
use crate::ledger::{Phase, Service, State};
use crate::plan::goal::Me;
use crate::plan::lead::stuck_after;
use crate::plan::reason::GiveUp;
use crate::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, Instant, NodeName, Observation, Position, Released, Seal, ServiceName,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// The pause before a failed action is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// The pause after a stop that failed; it doubles. The guard kills at the end of the lease in any case.
const STOP_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const STOP_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause between two questions whether a standby that gets nothing can follow as it is.
pub(super) const COMPARE_PAUSE: Duration = Duration::from_secs(30);
/// The pause before a final word that could not be written is written again.
const TOMBSTONE_PAUSE: Duration = Duration::from_secs(1);

/// What a starting daemon finds of its predecessors, where anything is left.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The lease that an earlier daemon of this boot kept.
    pub kept: Option<Kept>,
    /// The final word of an earlier epoch, durable.
    pub said: Option<Released>,
}

/// A lease that an earlier daemon of this boot kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub epoch: Epoch,
    /// When it ends; one that a pause held open counts as ended now.
    pub until: Instant,
    /// A pause held it open: the number of the last resume before that pause.
    pub held_open: Option<u64>,
    /// The pause between two requests.
    pub renew: Duration,
}

/// The moment of an event, and what this node's copy of the ledger says of the service by then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment<'a> {
    pub now: Instant,
    pub epoch: Option<(Epoch, Phase)>,
    pub holder: Option<&'a NodeName>,
}

impl<'a> Moment<'a> {
    pub fn of(now: Instant, service: Option<&'a Service>) -> Self {
        let holder = service.and_then(|s| s.holder.as_ref()).map(|h| &h.node);
        Moment { now, epoch: service.map(|s| (s.epoch, s.phase)), holder }
    }
}

impl Default for Keeper {
    /// Of a host on which nothing is found.
    fn default() -> Self {
        Keeper::found(Found::default())
    }
}

/// The daemon, and the ledger.
impl Keeper {
    /// A daemon starts.
    pub fn found(Found { kept, said }: Found) -> Self {
        // After a final word nothing is held: where the lease file could not be cleared, it is older than that.
        let leased = kept.filter(|kept| said.as_ref().is_none_or(|said| said.epoch < kept.epoch));
        Keeper {
            seen: Observation::unclear(),
            running: None,
            // One that a pause held open says that the database may run while the pause lasts, not until when.
            lease: leased.map(|kept| lease::Holder::adopt(kept.epoch, kept.renew, kept.until)),
            held_open: leased.and_then(|kept| kept.held_open),
            guard_waits: kept.is_some_and(|kept| kept.held_open.is_some()),
            tombstone: said.as_ref().map_or(Epoch(0), |said| said.epoch),
            writing_tombstone: None,
            released: said,
            // A lease was kept before its database was opened, and before a promotion was begun, which may go on still.
            started_as_primary: kept.is_some(),
            closed: false,
            restarts: Restarts { epoch: leased.map_or(Epoch(0), |kept| kept.epoch), ..Restarts::default() },
            start: None,
            reached: None,
            stopped_at: None,
            distrusted: false,
            rejoins: Rejoins::default(),
            rejoined: Vec::new(),
            copied_on_order: None,
            accepted_copy: None,
            ordered: None,
            pause_ended_at: None,
            idle_since: None,
            compared: None,
            sealed: None,
            found_kept: BTreeSet::new(),
            stop_failed: None,
            left_for_trouble: Vec::new(),
            quorum_elsewhere_since: None,
            deaf_since: None,
            follows_primary_since: None,
            in_epoch: InEpoch::default(),
        }
    }

    /// This node hears of a new epoch: it opens what the last one had sealed, and what was counted in that is forgotten.
    pub fn epoch_began(&mut self, holder: Option<&NodeName>, now: Instant) {
        self.in_epoch = InEpoch { install_since: Some(now), ..InEpoch::default() };
        self.compared = None;
        self.start = self.start.map(|_| Start { since: now, moved_at: now });
        // It is seen anew only when something changes.
        self.idle_since = self.gets_nothing_from(holder).then_some(now);
    }

    /// The pause of its service ended: whatever went on meanwhile has its whole time from now on.
    pub fn pause_ended(&mut self, now: Instant) {
        self.pause_ended_at = Some(now);
        self.start = self.start.map(|_| Start { since: now, moved_at: now });
        self.idle_since = self.idle_since.map(|_| now);
        self.in_epoch.install_since = self.in_epoch.install_since.map(|_| now);
    }

    /// This daemon itself saw the pause of its service end, as the holder.
    pub fn resumed(&mut self, now: Instant) {
        self.in_epoch.resumed_at = Some(now);
    }

    /// This copy of the ledger, however old, may show that the pause ended which held the kept lease open, also where an
    /// earlier daemon has renewed since and could not write it down: `resumes` counts them all. That leaves one lease
    /// time to join and to renew. If so: for which epoch, and until when.
    pub fn resumed_unseen(
        &mut self,
        (service, resumes): (&Service, u64),
        now: Instant,
        lease_use: Duration,
        renew: Duration,
    ) -> Option<(Epoch, Instant)> {
        let after = self.held_open?;
        let ended = resumes > after && !service.paused;
        let epoch = self.lease.as_ref()?.epoch();
        if !ended || epoch != service.epoch {
            return None;
        }
        self.held_open = None;
        self.lease = Some(lease::Holder::adopt(epoch, renew, now + lease_use));
        self.in_epoch.resumed_at = Some(now);
        Some((epoch, now + lease_use))
    }

    /// This daemon's own join is applied: from now on the ledger says whether a pause stands.
    pub fn joined(&mut self) {
        self.held_open = None;
    }
}

/// The lease.
impl Keeper {
    /// It is this epoch for which one is wanted.
    pub fn wants_lease(&mut self, epoch: Epoch, renew: Duration) {
        if self.lease_of(epoch).is_none() {
            self.lease = Some(lease::Holder::new(epoch, renew));
        }
    }

    /// It is asked for.
    pub fn request(&mut self, service: &ServiceName, me: Me, now: Instant) -> Option<LeaseRequest> {
        let incarnation = me.incarnation?;
        Some(self.lease.as_mut()?.request(now, service, (me.node, me.boot, incarnation)))
    }

    /// A grantor answered, whatever it said.
    pub fn answered(&mut self) {
        self.lease.iter_mut().for_each(lease::Holder::answered);
    }

    /// The request reached no grantor.
    pub fn failed(&mut self) {
        self.lease.iter_mut().for_each(lease::Holder::failed);
    }

    pub fn granted(&mut self, grant: &Grant, now: Instant) {
        self.lease.iter_mut().for_each(|lease| lease.granted(now, grant));
    }

    /// The request brought nothing: it is asked for again then.
    pub fn ask_again_at(&mut self, at: Instant) {
        self.lease.iter_mut().for_each(|lease| lease.ask_again_at(at));
    }

    /// What was asked of the last leader is asked of the next at once.
    pub fn led_by_another(&mut self, now: Instant) {
        let waits = |lease: &&mut lease::Holder| lease.next_request_at().is_some_and(|at| at > now);
        self.lease.iter_mut().filter(waits).for_each(lease::Holder::ask_again);
    }

    /// A quorum says that the right to write is gone.
    pub fn lease_denied(&mut self, now: Instant) {
        self.lease.iter_mut().for_each(|lease| lease.drop_lease(now));
    }

    /// This incarnation is over: the right to write is gone.
    pub fn incarnation_over(&mut self, now: Instant) {
        self.lease.iter_mut().for_each(|lease| lease.drop_lease(now));
    }

    /// The guard was told of an end that a pause holds open, or of another. Whether that is new.
    pub fn guard_told(&mut self, waits: bool) -> bool {
        std::mem::replace(&mut self.guard_waits, waits) != waits
    }

    /// Whether this node hears no other on any network.
    pub fn is_deaf(&mut self, deaf: bool, now: Instant) {
        let since = self.deaf_since.unwrap_or(now);
        self.deaf_since = deaf.then_some(since);
    }

    /// Whether others have a quorum without this node. It matters while its lease has ended.
    pub fn quorum_elsewhere(&mut self, elsewhere: bool, now: Instant) {
        let since = self.quorum_elsewhere_since.unwrap_or(now);
        self.quorum_elsewhere_since = (elsewhere && self.has_lease_ended(now)).then_some(since);
    }
}

/// The final word.
impl Keeper {
    /// It is to be written for this epoch; `None` where that is under way.
    pub fn tombstone_begins(&mut self, epoch: Epoch) -> Option<Released> {
        if self.writing_tombstone.is_some_and(|e| e >= epoch) {
            return None;
        }
        self.writing_tombstone = Some(epoch);
        Some(self.final_word(epoch))
    }

    fn final_word(&self, epoch: Epoch) -> Released {
        let lapsed = self.in_epoch.given_up.as_ref().is_some_and(GiveUp::is_lapse);
        let leaving = self.in_epoch.given_up.as_ref().is_some_and(GiveUp::is_leave);
        // The end is not there yet, so anybody has reached what is said.
        let early = known_bugs::has(Bug::ReleasedEarly).then_some(Position::default());
        let why = self.in_epoch.given_up.as_ref().map(ToString::to_string).unwrap_or_default();
        let why =
            why.char_indices().take_while(|(at, c)| at + c.len_utf8() <= Released::LONGEST).map(|(_, c)| c).collect();
        Released { epoch, position: self.stopped_at.or(early), lapsed, leaving, why }
    }

    /// It is durable: only now is it said.
    pub fn tombstoned(&mut self, epoch: Epoch, now: Instant) {
        self.in_epoch.tombstone_failed = None;
        self.tombstone = self.tombstone.max(epoch);
        self.released = Some(self.final_word(epoch));
        self.writing_tombstone = None;
        self.lease.iter_mut().for_each(|l| l.drop_lease(now));
    }

    /// It could not be written: one that is not durable is not said. It is written again after a pause. Whether that is
    /// news.
    pub fn tombstone_failed(&mut self, why: &str, now: Instant) -> bool {
        let before = self.in_epoch.tombstone_failed.take();
        if known_bugs::has(Bug::TombstoneForgotten) {
            return false;
        }
        self.writing_tombstone = None;
        self.in_epoch.tombstone_failed = Some((why.to_owned(), now + TOMBSTONE_PAUSE));
        before.is_none()
    }
}

/// The database.
impl Keeper {
    /// It was looked at.
    pub fn sees(&mut self, seen: Observation, at: Moment) {
        self.finds_kept(&seen.kept);
        if seen.state == DbState::Primary {
            self.stopped_at = None;
        }
        self.closed &= !matches!(seen.state, DbState::Primary | DbState::Standby | DbState::Starting);
        // A standby with a backlog is not given up while it gets on with it; one that answers at last has got on, and so
        // has one that is out of recovery.
        let came_up = seen.state == DbState::Standby && self.seen.state == DbState::Starting;
        let opened = seen.state == DbState::Primary && !self.in_epoch.was_open;
        self.in_epoch.was_open |= opened;
        if (seen.replayed > self.seen.replayed || came_up || opened)
            && let Some(since) = &mut self.in_epoch.install_since
        {
            *since = at.now;
        }
        self.starts_or_answers(&seen, at.now);
        if seen.streams_from.is_some() || seen.state == DbState::Primary {
            self.rejoins.succeeded();
        }
        self.seen = seen;
        let idle = self.gets_nothing_from(at.holder);
        self.idle_since = if idle { self.idle_since.or(Some(at.now)) } else { None };
        if !idle {
            self.compared = None;
        }
    }

    /// A start goes on from try to try until it comes to an answer, or nothing is left of it to start.
    fn starts_or_answers(&mut self, seen: &Observation, now: Instant) {
        match seen.state {
            DbState::Primary | DbState::Standby => (self.start, self.reached) = (None, Some(seen.position)),
            DbState::Absent | DbState::Unstartable => self.start = None,
            DbState::Starting => {
                let moved = self.seen.state != DbState::Starting || seen.progress != self.seen.progress;
                let start = self.start.get_or_insert(Start { since: now, moved_at: now });
                if moved {
                    start.moved_at = now;
                }
            }
            DbState::Stopped | DbState::Stopping | DbState::Unclear => {}
        }
        if seen.state == DbState::Stopped && seen.clean {
            self.reached = Some(seen.position);
        }
    }

    /// It turned out that the directory cannot follow as it is.
    pub fn distrusts(&mut self) {
        self.distrusted = true;
    }

    /// An action begins, and what ran is not waited for any more.
    pub fn begins(&mut self, action: DbAction, at: Moment) {
        if matches!(action, DbAction::StartPrimary { .. } | DbAction::StartStandby { .. }) {
            let since = self.start.map_or(at.now, |start| start.since);
            self.start = Some(Start { since, moved_at: at.now });
        }
        if matches!(action, DbAction::StartPrimary { .. } | DbAction::Promote { .. }) {
            (self.in_epoch.wal_ends, self.stopped_at, self.in_epoch.checkpointed) = (None, None, false);
        }
        match &action {
            DbAction::StartPrimary { epoch, .. } => {
                self.starts_under(*epoch, at);
                self.started_as_primary = true;
            }
            DbAction::Promote { .. } => self.started_as_primary = true,
            DbAction::StartStandby { .. } | DbAction::Rejoin { .. } => {
                self.started_as_primary = false;
                self.sealed = None;
            }
            // Opens the WAL receiver again: without this, the keeper would order it without end.
            DbAction::Follow { upstream } => {
                self.follows_primary_since = (at.holder == Some(&upstream.node)).then_some(at.now);
                self.sealed = None;
                self.in_epoch.seal_report = None;
            }
            DbAction::Seal => self.sealed = at.epoch.map(|(epoch, _)| epoch),
            DbAction::Initdb
            | DbAction::Checkpoint
            | DbAction::Compare { .. }
            | DbAction::FindEnd { .. }
            | DbAction::AcceptCopy { .. }
            | DbAction::Stop { .. } => {}
        }
        if let (DbAction::Rejoin { upstream, order }, Some((epoch, _))) = (&action, at.epoch) {
            self.rejoins.begins((epoch, upstream.node.clone(), *order), at.now);
        }
        self.closed &= matches!(action, DbAction::Stop { .. } | DbAction::Checkpoint | DbAction::FindEnd { .. });
        self.running = Some((action, at.now));
    }

    /// Nothing of it is left, so this is where its WAL ends for good, unless it is opened again.
    fn wal_ends(&mut self, end: Position, now: Instant) {
        self.in_epoch.wal_ends = Some((now, Some(end)));
        (self.reached, self.stopped_at) = (Some(end), Some(end));
    }

    /// Every start under an epoch but an ordered one is a restart, and the first too only where it was open before.
    fn starts_under(&mut self, epoch: Epoch, at: Moment) {
        let again = self.restarts.epoch == epoch || at.epoch.is_some_and(|(_, phase)| phase == Phase::Installed);
        if self.restarts.epoch != epoch {
            self.restarts = Restarts { epoch, ..Restarts::default() };
        }
        if again && !self.starts_as_ordered() {
            self.restarts.began.push_back(at.now);
            if self.restarts.began.len() > MOST_RESTARTS {
                self.restarts.began.pop_front();
            }
        }
    }

    /// The action that runs ended; `may_write`: the database had the right to write. The error, if it failed. The end of
    /// another is that of one which was not waited for.
    pub fn ended(&mut self, action: &DbAction, outcome: DbOutcome, may_write: bool, at: Moment) -> Option<String> {
        if self.running.as_ref().is_none_or(|(running, _)| running != action) {
            return None;
        }
        self.running = None;
        if let DbAction::Rejoin { .. } = action {
            self.rejoins.ended(&outcome, at.now);
        }
        match outcome {
            DbOutcome::Failed { error } | DbOutcome::Refused { error } => {
                self.action_failed(action, &error, may_write, at);
                Some(error)
            }
            DbOutcome::Done(done) => {
                self.action_done(action, done, at);
                None
            }
        }
    }

    fn action_failed(&mut self, action: &DbAction, error: &str, may_write: bool, at: Moment) {
        match action {
            // It follows on as it is; nothing waits for the answer.
            DbAction::Compare { .. } => return self.compared = Some((at.now, None)),
            // Then nobody can be said to have all of it.
            DbAction::FindEnd { .. } => return self.in_epoch.wal_ends = Some((at.now, None)),
            _ => {}
        }
        self.in_epoch.last_error = Some(error.to_owned());
        // The next one has a pause of its own, and nothing else has to wait for it.
        if let DbAction::Rejoin { .. } = action {
            return;
        }
        self.in_epoch.retry_at = Some(at.now + self.pause_after(action));
        match action {
            // Without a lease it is refused, which says nothing about the database.
            DbAction::StartPrimary { .. } if !may_write && self.starts_as_ordered() => {}
            DbAction::StartPrimary { .. } if !may_write => drop(self.restarts.began.pop_back()),
            DbAction::StartPrimary { .. } | DbAction::StartStandby { .. } => self.start_ended(Stage::Failed),
            DbAction::Stop { .. } => {
                let before = self.stop_failed.map_or(0, |(times, _)| times);
                let pause = STOP_PAUSE.saturating_mul(1 << before.min(4)).min(STOP_PAUSE_MAX);
                self.stop_failed = Some((before + 1, at.now + pause));
            }
            DbAction::Promote { .. } if may_write => self.in_epoch.promotions_failed += 1,
            DbAction::Initdb => self.in_epoch.creations_failed += 1,
            DbAction::Seal => {
                self.in_epoch.seal_report = at.epoch.map(|(epoch, _)| (epoch, Err(error.to_owned())));
            }
            _ => {}
        }
    }

    fn action_done(&mut self, action: &DbAction, done: DbDone, at: Moment) {
        (self.in_epoch.retry_at, self.in_epoch.last_error, self.in_epoch.starts_failed) = (None, None, 0);
        match done {
            DbDone::Plain | DbDone::Created { .. } => {}
            DbDone::Compared { unfit } => self.compared = Some((at.now, unfit)),
            DbDone::Ends { at: end } => self.wal_ends(end, at.now),
            DbDone::Sealed(seal) => self.in_epoch.seal_report = self.sealed.map(|epoch| (epoch, Ok(seal))),
            DbDone::Writable { position } => self.in_epoch.first_write = Some(position),
            DbDone::Stopped { clean, position } => {
                self.stopped_at = position.filter(|_| clean);
                self.closed = true;
            }
            DbDone::Rejoined { how, kept } => {
                let order = match action {
                    DbAction::Rejoin { order, .. } => *order,
                    _ => None,
                };
                self.distrusted = false;
                self.copied_on_order = order.or(self.copied_on_order);
                self.is_back(Back { how, kept, order });
            }
        }
        match action {
            DbAction::Stop { .. } => self.stop_failed = None,
            DbAction::StartPrimary { .. } | DbAction::StartStandby { .. } => self.start_ended(Stage::Done),
            DbAction::AcceptCopy { order } => self.accepted_copy = Some(*order),
            DbAction::Checkpoint => self.in_epoch.checkpointed = true,
            // Until now it followed somebody else, and got nothing for that reason.
            DbAction::Follow { .. } => {
                self.idle_since = self.gets_nothing_from(at.holder).then_some(at.now);
                self.compared = None;
            }
            _ => {}
        }
    }

    /// What the last `Seal` found, if it was for this epoch. A failure is told once.
    pub fn seal_report(&mut self, epoch: Epoch) -> Option<Result<Seal, String>> {
        let (_, report) = self.in_epoch.seal_report.as_ref().filter(|(sealed, _)| *sealed == epoch)?;
        let report = report.clone();
        if report.is_err() {
            self.in_epoch.seal_report = None;
        }
        Some(report)
    }

    /// Whether it has replayed all that it has, and streams from nobody, or from another than whoever holds the epoch and
    /// whom it was told to follow. One that still replays has not asked for more yet.
    fn gets_nothing_from(&self, holder: Option<&NodeName>) -> bool {
        let seen = &self.seen;
        let streams = seen.streams_from.is_some();
        let as_it_should = seen.streams_from.as_ref() == holder || seen.streams_from == seen.follows;
        seen.state == DbState::Standby && seen.awaits_wal && holder.is_some() && !(streams && as_it_should)
    }
}

/// Questions.
impl Keeper {
    /// The database as it was seen last.
    pub fn seen(&self) -> &Observation {
        &self.seen
    }
    /// The action under way.
    pub fn running(&self) -> Option<&DbAction> {
        self.running.as_ref().map(|(action, _)| action)
    }
    pub fn lease(&self) -> Option<&lease::Holder> {
        self.lease.as_ref()
    }
    /// The lease, if it is one for this epoch.
    pub fn lease_of(&self, epoch: Epoch) -> Option<&lease::Holder> {
        self.lease.as_ref().filter(|lease| lease.epoch() == epoch)
    }
    pub fn has_lease_ended(&self, now: Instant) -> bool {
        self.lease.as_ref().and_then(|l| l.until()).is_some_and(|until| until <= now)
    }
    /// Whether the guard was told that a pause holds the database open, and not yet anything else.
    pub fn guard_waits(&self) -> bool {
        self.guard_waits
    }
    /// Epochs up to this one are over for this node, durably.
    pub fn tombstone(&self) -> Epoch {
        self.tombstone
    }
    /// Its final word.
    pub fn released(&self) -> Option<&Released> {
        self.released.as_ref()
    }
    /// Where WAL ended in the final word on this epoch.
    pub fn final_position(&self, epoch: Epoch) -> Option<Position> {
        self.released.as_ref().filter(|r| r.epoch == epoch).and_then(|r| r.position)
    }
    /// Why the final word could not be written, and when that is tried again.
    pub fn unsaid(&self) -> Option<(&str, Instant)> {
        self.in_epoch.tombstone_failed.as_ref().map(|(why, at)| (why.as_str(), *at))
    }
    /// Where it accepts writes from, in the present epoch.
    pub fn opened_at(&self) -> Position {
        self.in_epoch.first_write.unwrap_or(self.seen.position)
    }
    /// Where its WAL was found to end after it died, until it is started again.
    pub fn died_with(&self) -> Option<Position> {
        self.in_epoch.wal_ends.and_then(|(_, end)| end)
    }
    /// What came of the tries to make it a standby, if nothing did.
    pub fn failed_copy(&self) -> Option<FailedCopy> {
        self.rejoins.failed(matches!(self.running, Some((DbAction::Rejoin { .. }, _))))
    }
    pub fn last_error(&self) -> Option<&str> {
        self.in_epoch.last_error.as_deref()
    }
    /// Whether the last action failed a moment ago.
    pub fn rests(&self, now: Instant) -> bool {
        self.in_epoch.retry_at.is_some_and(|at| now < at)
    }
    /// Whether a stop failed a moment ago.
    pub fn rests_from_stopping(&self, now: Instant) -> bool {
        self.stop_failed.is_some_and(|(_, again_at)| now < again_at)
    }

    /// When something of it is due, after `now`.
    pub fn due(&self, now: Instant, config: &Config, name: &ServiceName, state: &State) -> Option<Instant> {
        let service = &config.services[name];
        let known = &self.in_epoch;
        let stop_time = state.lease_ladder(&config.lease).whole();
        let lease = self.lease.as_ref();
        let grace = state.settings.as_ref().map(|s| s.lease_use());
        let all = [
            lease.and_then(|l| l.until()).map(|until| until - stop_time),
            lease.and_then(lease::Holder::next_request_at),
            self.idle_since.map(|at| at + stuck_after(config) + Duration::from_millis(1)),
            self.idle_since.and(self.compared.as_ref()).map(|(at, _)| *at + COMPARE_PAUSE + Duration::from_millis(1)),
            known.resumed_at.zip(grace).map(|(at, grace)| at + grace - stop_time),
            known.tombstone_failed.as_ref().map(|(_, at)| *at),
            known.retry_at,
            self.rejoins.again_at(),
            known.wal_ends.map(|(at, _)| at + patience(config, service)),
            self.start.map(|start| start.moved_at + service.start_stalled + Duration::from_millis(1)),
            self.start.map(|start| start.since + service.start_timeout + Duration::from_millis(1)),
            self.stop_failed.map(|(_, at)| at),
            self.deaf_since.map(|since| (since + release::noticing(config)).max(now + config.detector.interval / 4)),
        ];
        all.into_iter().flatten().filter(|at| *at > now).min()
    }
}
