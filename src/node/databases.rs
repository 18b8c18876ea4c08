//! Driving the keeper of each service: what was seen goes in, one step comes out.

use super::{Effect, Node, PeerResponse, Said};
use crate::known_bugs::{self, Bug};
use crate::ledger::{Command, Phase, State};
use crate::plan::keeper::{self, Step};
use crate::plan::reason::{StopReason, Waiting};
use crate::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, Instant, NodeName, Observation, Released, Seal, ServiceHealth,
    ServiceName, Severity, StopLadder,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause before a failed action is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The pause after a stop that failed; it doubles. The guard kills at the end of the lease in any case.
const STOP_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const STOP_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause before a final word that could not be written is written again.
const TOMBSTONE_PAUSE: Duration = Duration::from_secs(1);

impl Node {
    pub(super) fn keeper_input(&self, name: &ServiceName) -> Option<keeper::Input<'_>> {
        let (name, local) = self.databases.get_key_value(name)?;
        Some(keeper::Input {
            now: self.context.now,
            me: self.context.identity(),
            state: &self.context.state,
            name,
            config: &self.context.config,
            local,
            unguarded: self.watchdog.failure(),
        })
    }

    pub(super) fn keep_databases(&mut self) {
        let names = self.served.clone();
        for name in names.iter() {
            self.report_rejoined(name);
            let informed = self.is_informed();
            let Some(input) = self.keeper_input(name) else { continue };
            let step = if informed { keeper::keep(&input) } else { keeper::before_the_ledger(&input) };
            self.take_keeper_step(name, step);
        }
    }

    /// Whether this copy of the ledger says how things are, and not how they were before this daemon: its own join is
    /// applied, or (before it joins) it was current once since the daemon started.
    fn is_informed(&mut self) -> bool {
        match self.context.incarnation {
            Some(_) => self.context.has_applied_its_join(),
            None => {
                self.reading.has_been_current(&self.context, &mut self.mail) && self.context.state.settings.is_some()
            }
        }
    }

    fn take_keeper_step(&mut self, name: &ServiceName, step: Step) {
        self.note_keeping(name, &step);
        match step {
            Step::Wait(_) => {}
            Step::Db(action) => self.start_action(name, action),
            Step::StopNow(ladder, why) => self.stop_now(name, ladder, why),
            Step::StopToRejoin(ladder, why) => {
                if let Some(local) = self.databases.get_mut(name) {
                    local.distrusted = true;
                }
                self.stop_now(name, ladder, why);
            }
            Step::Tombstone(epoch) => self.write_tombstone(name, epoch),
            Step::Release { epoch, position, why } => {
                let Some(incarnation) = self.context.incarnation else { return };
                self.propose(Command::Release {
                    service: name.clone(),
                    epoch,
                    node: self.context.me(),
                    boot: self.context.start.boot.clone(),
                    incarnation,
                    position,
                    why: why.to_string(),
                });
            }
            Step::Promoting { epoch, timeline } => {
                let Some(incarnation) = self.context.incarnation else { return };
                let (service, node) = (name.clone(), self.context.me());
                self.propose(Command::Promoting { service, epoch, node, incarnation, timeline });
            }
            Step::Installed { epoch } => self.installed(name, epoch),
        }
    }

    /// For `status`; what a person should know of is said when it begins.
    fn note_keeping(&mut self, name: &ServiceName, step: &Step) {
        if self.keeping.get(name) == Some(step) {
            return;
        }
        if let Step::Wait(waiting) = step
            && waiting.severity() > Severity::Info
        {
            self.mail.say(Said::Keeper { service: name.clone(), waiting: waiting.clone() });
        }
        self.keeping.insert(name.clone(), step.clone());
    }

    fn installed(&mut self, name: &ServiceName, epoch: Epoch) {
        let Some(incarnation) = self.context.incarnation else { return };
        let seen = &self.databases[name].seen;
        let (Some(system), position) = (seen.system, self.databases[name].first_write.unwrap_or(seen.position)) else {
            return;
        };
        let (service, node) = (name.clone(), self.context.me());
        self.propose(Command::Installed { service, epoch, node, incarnation, system, position });
    }

    fn start_action(&mut self, name: &ServiceName, action: DbAction) {
        let now = self.context.now;
        if matches!(action, DbAction::StartStandby { .. } | DbAction::Rejoin { .. }) {
            self.forget_lease_of_the_past(name);
        }
        let epoch = self.context.state.services.get(name).map(|s| (s.epoch, s.phase));
        let Some(local) = self.databases.get_mut(name) else { return };
        match &action {
            DbAction::StartPrimary { epoch: held } => {
                if local.restarts_in != *held {
                    (local.restarts_in, local.restarts) = (*held, 0);
                }
                if epoch.is_some_and(|(_, phase)| phase == Phase::Installed) {
                    local.restarts += 1;
                }
                local.started_as_primary = true;
            }
            DbAction::Promote { .. } => local.started_as_primary = true,
            DbAction::StartStandby { .. } | DbAction::Rejoin { .. } => {
                local.started_as_primary = false;
                local.sealed = None;
            }
            // Opens the WAL receiver again: without this, the keeper would order it without end.
            DbAction::Follow { .. } => local.sealed = None,
            DbAction::Seal => local.sealed = epoch.map(|(e, _)| e),
            _ => {}
        }
        local.closed &= matches!(action, DbAction::Stop { .. } | DbAction::Checkpoint);
        local.running = Some((action.clone(), now));
        self.mail.say(Said::Begins { service: name.clone(), action: action.name() });
        self.mail.push(Effect::Db { service: name.clone(), action });
    }

    /// Nothing runs that was opened under a lease: what was kept of one must not pass for a promotion under way when the
    /// next daemon of this boot looks.
    fn forget_lease_of_the_past(&mut self, name: &ServiceName) {
        if self.keeper_input(name).is_some_and(|input| input.held().is_some()) {
            return;
        }
        let earlier = self.context.start.kept.remove(name);
        if let Some((epoch, _)) = self.kept.get(name).copied().or(earlier) {
            self.drop_kept(name, epoch);
        }
    }

    fn stop_now(&mut self, name: &ServiceName, ladder: StopLadder, why: StopReason) {
        let failed = self.databases.get(name).and_then(|l| l.stop_failed);
        if failed.is_some_and(|(_, again_at)| self.context.now < again_at) {
            return self.note_keeping(name, &Step::Wait(Waiting::StopAgain(why)));
        }
        self.mail.say(Said::StopsNow { service: name.clone(), why });
        self.end_what_a_pause_held_open(name);
        if self.databases.get(name).is_some_and(|l| l.running.is_some()) {
            self.mail.push(Effect::AbortDb { service: name.clone() });
        }
        self.start_action(name, DbAction::Stop { ladder });
    }

    pub(super) fn write_tombstone(&mut self, name: &ServiceName, epoch: Epoch) {
        let Some(local) = self.databases.get_mut(name) else { return };
        if local.writing_tombstone.is_some_and(|e| e >= epoch) {
            return;
        }
        local.writing_tombstone = Some(epoch);
        let released = Released { epoch, position: local.stopped_at };
        self.mail.push(Effect::Tombstone { service: name.clone(), released });
    }

    /// What came of writing the final word. One that is not durable is not said; it is written again after a pause.
    pub(super) fn tombstone_ended(&mut self, name: &ServiceName, epoch: Epoch, result: Result<(), String>) {
        let now = self.context.now;
        let Some(local) = self.databases.get_mut(name) else { return };
        let before = local.tombstone_failed.take();
        match result {
            Ok(()) => self.tombstoned(name, epoch),
            Err(_) if known_bugs::has(Bug::TombstoneForgotten) => {}
            Err(why) => {
                local.writing_tombstone = None;
                local.tombstone_failed = Some((why.clone(), now + TOMBSTONE_PAUSE));
                if before.is_none() {
                    self.mail.say(Said::FinalWordUnwritten { service: name.clone(), epoch, why });
                }
            }
        }
    }

    /// The final word is durable: only now is it said.
    fn tombstoned(&mut self, name: &ServiceName, epoch: Epoch) {
        let now = self.context.now;
        let Some(local) = self.databases.get_mut(name) else { return };
        local.tombstone = local.tombstone.max(epoch);
        local.released = Some(Released { epoch, position: local.stopped_at });
        local.writing_tombstone = None;
        local.lease.iter_mut().for_each(|l| l.drop_lease(now));
        self.drop_kept(name, epoch);
    }

    pub(super) fn database_seen(&mut self, name: &ServiceName, seen: Observation) {
        let now = self.context.now;
        let wanted = self.context.state.services.get(name).and_then(|s| s.holder.as_ref()).map(|h| h.node.clone());
        let Some(local) = self.databases.get_mut(name) else { return };
        if seen.state == DbState::Primary {
            local.stopped_at = None;
        }
        local.closed &= !matches!(seen.state, DbState::Primary | DbState::Standby | DbState::Starting);
        // A standby with a backlog is not given up while it gets on with it.
        if seen.replayed > local.seen.replayed
            && let Some((_, since)) = &mut local.install_since
        {
            *since = now;
        }
        local.seen = seen;
        let idle = local.gets_nothing_from(wanted.as_ref());
        local.idle_since = if idle { local.idle_since.or(Some(now)) } else { None };
    }

    pub(super) fn database_ended(&mut self, name: &ServiceName, action: &DbAction, outcome: DbOutcome) {
        let now = self.context.now;
        let epoch = self.context.state.services.get(name).map(|s| s.epoch);
        let wanted = self.context.state.services.get(name).and_then(|s| s.holder.as_ref()).map(|h| h.node.clone());
        let may_write = self.keeper_input(name).is_some_and(|input| input.may_write(Duration::ZERO));
        let Some(local) = self.databases.get_mut(name) else { return };
        if local.running.as_ref().is_none_or(|(running, _)| running != action) {
            return;
        }
        local.running = None;
        match outcome {
            DbOutcome::Failed { error } => {
                local.last_error = Some(error.clone());
                local.retry_at = Some(now + RETRY);
                if matches!(action, DbAction::StartPrimary { .. }) {
                    local.restarts += 1;
                }
                if matches!(action, DbAction::Stop { .. }) {
                    let before = local.stop_failed.map_or(0, |(times, _)| times);
                    let pause = STOP_PAUSE.saturating_mul(1 << before.min(4)).min(STOP_PAUSE_MAX);
                    local.stop_failed = Some((before + 1, now + pause));
                }
                // Without a lease it is refused, which says nothing about the database.
                if matches!(action, DbAction::Promote { .. }) && may_write {
                    local.promotions_failed += 1;
                }
                if matches!(action, DbAction::Seal) {
                    local.seal_report = epoch.map(|e| (e, Err(error.clone())));
                }
                self.mail.say(Said::Failed { service: name.clone(), action: action.name(), error });
            }
            DbOutcome::Done(done) => {
                local.retry_at = None;
                local.last_error = None;
                if matches!(action, DbAction::Stop { .. }) {
                    local.stop_failed = None;
                }
                match done {
                    DbDone::Plain | DbDone::Created { .. } => {}
                    DbDone::Sealed(seal) => local.seal_report = local.sealed.map(|e| (e, Ok(seal))),
                    DbDone::Writable { position } => local.first_write = Some(position),
                    DbDone::Stopped { clean, position } => {
                        local.stopped_at = position.filter(|_| clean);
                        local.closed = true;
                    }
                    DbDone::Rejoined { how, kept } => {
                        local.distrusted = false;
                        // That nothing was to be done need not be said beside something that is still to be said.
                        if kept.is_some() {
                            local.rejoined.retain(|(_, kept)| kept.is_some());
                        }
                        if kept.is_some() || local.rejoined.is_empty() {
                            local.rejoined.push((how, kept));
                        }
                    }
                }
                match action {
                    DbAction::Checkpoint => local.checkpointed = epoch,
                    // Until now it followed somebody else, and got nothing for that reason.
                    DbAction::Follow { .. } => {
                        local.idle_since = local.gets_nothing_from(wanted.as_ref()).then_some(now);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Said until the ledger has it, under whichever epoch it is by then: nothing else would ever name the folder.
    fn report_rejoined(&mut self, name: &ServiceName) {
        let Some((how, kept)) = self.databases.get(name).and_then(|l| l.rejoined.first().cloned()) else { return };
        let Some(epoch) = self.context.state.services.get(name).map(|s| s.epoch) else { return };
        self.propose(Command::Rejoined { service: name.clone(), epoch, node: self.context.me(), how, kept });
    }

    pub(super) fn rejoin_reported(&mut self, command: &Command) {
        if let Command::Rejoined { service, node, how, kept, .. } = command
            && *node == self.context.config.node
            && let Some(local) = self.databases.get_mut(service)
        {
            local.rejoined.retain(|(h, k)| h != how || k != kept);
        }
    }

    /// A new epoch opens what the last one had sealed, and forgets what was counted in it.
    pub(super) fn new_epoch(&mut self, name: &ServiceName, epoch: Epoch, holder: Option<&NodeName>) {
        let now = self.context.now;
        if let Some(local) = self.databases.get_mut(name) {
            local.first_write = None;
            local.resumed_at = None;
            local.seal_report = None;
            local.tombstone_failed = None;
            local.install_since = Some((epoch, now));
            local.promotions_failed = 0;
            // It is seen anew only when something changes.
            local.idle_since = local.gets_nothing_from(holder).then_some(now);
            local.last_error = None;
            local.retry_at = None;
        }
    }

    /// The sealed end of WAL for an epoch that is ending; `None` while it is being read.
    pub(super) fn seal_answer(&mut self, name: &ServiceName, epoch: Epoch, since: Instant) -> Option<PeerResponse> {
        let no = |why: &str| Some(PeerResponse::Seal(Err(why.to_owned())));
        let Some(service) = self.context.state.services.get(name) else { return no("the service does not exist") };
        if service.epoch > epoch {
            return no("that epoch is over and followed by another");
        }
        if service.epoch < epoch || self.context.now.since(since) > self.context.timing.detection * 4 {
            // This node has not heard of the epoch yet: it will, or the question runs out.
            return if service.epoch < epoch { None } else { no("its database did not get ready in time") };
        }
        let Some(local) = self.databases.get(name) else { return no("it keeps no database") };
        if let Some((why, _)) = self.watchdog.failure() {
            return no(&format!("its watchdog cannot be armed: {why}"));
        }
        if let Some((sealed, report)) = &local.seal_report
            && *sealed == epoch
        {
            let report: Result<Seal, String> = report.clone();
            if report.is_err() {
                self.databases.get_mut(name).expect("just seen").seal_report = None;
            }
            return Some(PeerResponse::Seal(report));
        }
        let ending = service.over.is_some() || self.context.state.fence_of(service).is_some();
        let rests = local.retry_at.is_some_and(|at| self.context.now < at);
        match local.seen.state {
            // The leader is ahead: the word that ends the epoch is on its way here.
            _ if !ending => None,
            // The last one failed a moment ago.
            DbState::Standby if rests => None,
            DbState::Standby if local.running.is_none() => {
                self.start_action(name, DbAction::Seal);
                None
            }
            DbState::Standby | DbState::Starting => None,
            DbState::Stopped if local.seen.starts_in_recovery => None,
            // A former primary that its keeper is about to start in recovery.
            DbState::Stopped if self.keeper_input(name).is_some_and(|input| keeper::may_be_asked(&input)) => None,
            state => no(&format!("its database is no running standby ({state})")),
        }
    }
}

impl Node {
    /// A newer ledger: what it says of the services.
    pub(super) fn services_moved(&mut self, before: &State, state: &State) {
        let now = self.context.now;
        for (name, service) in &state.services {
            let old = before.services.get(name);
            if old.is_none_or(|o| o.epoch != service.epoch) {
                self.new_epoch(name, service.epoch, service.holder.as_ref().map(|h| &h.node));
            }
            if let Some(settings) = &state.settings {
                self.end_of_what_was_held_open(name, service, settings.lease_use());
            }
            // Only a pause that this daemon itself saw end as the holder: an earlier one may have asked for a lease since.
            if !service.paused
                && old.is_some_and(|o| o.paused)
                && service.holder.as_ref().is_some_and(|h| self.context.is_mine(h))
                && let Some(local) = self.databases.get_mut(name)
            {
                local.resumed_at = Some(now);
            }
        }
    }

    /// What the heartbeat says of each database.
    pub(super) fn service_health(&self) -> BTreeMap<ServiceName, ServiceHealth> {
        let services = self.databases.iter().map(|(name, local)| {
            let holds = local.lease.as_ref().filter(|l| l.is_valid(self.context.now)).map(|l| l.epoch());
            let health = ServiceHealth {
                state: local.seen.state,
                holds,
                timeline: local.seen.position.timeline,
                position: local.seen.position,
                streams_from: local.seen.streams_from.clone(),
                released: local.released,
            };
            (name.clone(), health)
        });
        services.collect()
    }
}
