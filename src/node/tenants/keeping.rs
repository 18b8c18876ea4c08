//! Driving the keeper of each service: what was seen goes in, one step comes out.
//!
//! Not here: the leases (`leases.rs`).

use super::super::context::Context;
use super::super::desk::Desk;
use super::super::mail::Mail;
use super::super::{Effect, PeerResponse, Said};
use super::{Tenants, moment};
use crate::ledger::{Command, Happening};
use crate::plan::Row;
use crate::plan::keeper::{self, Back, Input, Step};
use crate::plan::reason::{StopReason, Waiting};
use crate::types::{
    DbAction, DbOutcome, DbState, Epoch, Instant, NodeName, Observation, ServiceName, Severity, StopLadder,
};
use std::collections::BTreeMap;
use std::time::Duration;

impl Tenants {
    /// Takes the next step for one service. `informed`: this copy of the ledger says how things are, and not how they were
    /// before this daemon; `rows`: what others say; `unguarded`: why the watchdog cannot be armed, and how often in a row that
    /// was found out; `moves`: how often the service moved of late, and who could take it over.
    pub fn keep(
        &mut self,
        desk: &mut Desk,
        name: &ServiceName,
        informed: bool,
        rows: &BTreeMap<NodeName, Row>,
        unguarded: Option<(&str, u32)>,
        (moves, heir): (usize, Option<&Result<NodeName, String>>),
    ) {
        let Some(input) = self.input(&desk.context, name) else { return };
        let input = Input { rows, unguarded, moves, heir, ..input };
        let step = if informed { keeper::keep(&input) } else { keeper::before_the_ledger(&input) };
        self.take_step(desk, name, step);
    }

    fn take_step(&mut self, desk: &mut Desk, name: &ServiceName, step: Step) {
        self.note_keeping(&mut desk.mail, name, &step);
        match step {
            Step::Wait(_) => {}
            Step::Db(action) => self.start_action(desk, name, action),
            Step::StopNow(ladder, why) => self.stop_now(desk, name, ladder, why),
            Step::StopToRejoin(ladder, why) => {
                if let Some(keeper) = self.keepers.get_mut(name) {
                    keeper.distrusts();
                }
                self.stop_now(desk, name, ladder, why);
            }
            Step::StopToRestart { ladder, order } => {
                if let Some(keeper) = self.keepers.get_mut(name) {
                    keeper.stops_on_order(order);
                }
                desk.mail.say(Said::StopsNow { service: name.clone(), why: StopReason::RestartOrdered });
                self.start_action(desk, name, DbAction::Stop { ladder });
            }
            Step::StopToLeave(ladder, why) => {
                if let Some(keeper) = self.keepers.get_mut(name) {
                    keeper.gives_up(why, desk.context.now);
                }
                self.start_action(desk, name, DbAction::Stop { ladder });
            }
            Step::Restarted { order } => {
                let (service, node) = (name.clone(), desk.context.me());
                desk.propose(Command::Restarted { service, node, order });
            }
            Step::Tombstone(epoch, why) => {
                if let (Some(why), Some(keeper)) = (why, self.keepers.get_mut(name)) {
                    keeper.gives_up(why, desk.context.now);
                }
                self.write_tombstone(&mut desk.mail, name, epoch);
            }
            Step::Release { epoch, position, why } => {
                let Some(incarnation) = desk.context.incarnation else { return };
                let (service, node, boot) = (name.clone(), desk.context.me(), desk.context.start.boot.clone());
                let (lapsed, leaving, why) = (why.is_lapse(), why.is_leave(), why.to_string());
                desk.propose(Command::Release {
                    service,
                    epoch,
                    node,
                    boot,
                    incarnation,
                    position,
                    lapsed,
                    leaving,
                    why,
                });
            }
            Step::Promoting { epoch, timeline } => {
                let Some(incarnation) = desk.context.incarnation else { return };
                let (service, node) = (name.clone(), desk.context.me());
                desk.propose(Command::Promoting { service, epoch, node, incarnation, timeline });
            }
            Step::Installed { epoch } => self.installed(desk, name, epoch),
        }
    }

    /// For `status`; what a person should know of is said when it begins.
    fn note_keeping(&mut self, mail: &mut Mail, name: &ServiceName, step: &Step) {
        if self.keeping.get(name) == Some(step) {
            return;
        }
        if let Step::Wait(waiting) = step
            && waiting.severity() > Severity::Info
        {
            mail.say(Said::Keeper { service: name.clone(), waiting: waiting.clone() });
        }
        self.keeping.insert(name.clone(), step.clone());
    }

    fn installed(&self, desk: &mut Desk, name: &ServiceName, epoch: Epoch) {
        let Some(incarnation) = desk.context.incarnation else { return };
        let keeper = &self.keepers[name];
        let (Some(system), position) = (keeper.seen().system, keeper.opened_at()) else { return };
        let (service, node) = (name.clone(), desk.context.me());
        desk.propose(Command::Installed { service, epoch, node, incarnation, system, position });
    }

    fn start_action(&mut self, desk: &mut Desk, name: &ServiceName, action: DbAction) {
        if matches!(action, DbAction::StartStandby { .. } | DbAction::Rejoin { .. }) {
            self.forget_lease_of_the_past(desk, name);
        }
        // A stop has told the guard that nothing is left to kill, and nothing is opened while that stands.
        if matches!(action, DbAction::StartPrimary { .. })
            && let Some((epoch, until)) = self.kept.get(name).copied()
        {
            self.tell_guard(desk, name, epoch, until);
        }
        let Some(keeper) = self.keepers.get_mut(name) else { return };
        if let (DbAction::StartPrimary { .. }, Some(end)) = (&action, keeper.died_with()) {
            desk.mail.say(Said::RecoversInPlace { service: name.clone(), end });
        }
        let order = desk.context.state.services.get(name).and_then(|s| s.restart_of(&desk.context.config.node));
        if let (DbAction::StartPrimary { .. } | DbAction::StartStandby { .. }, Some(order)) = (&action, order) {
            keeper.starts_on_order(order.number);
        }
        keeper.begins(action.clone(), moment(&desk.context, name));
        desk.mail.say(Said::Begins { service: name.clone(), action: action.name() });
        desk.mail.push(Effect::Db { service: name.clone(), action });
    }

    fn stop_now(&mut self, desk: &mut Desk, name: &ServiceName, ladder: StopLadder, why: StopReason) {
        if self.keepers.get(name).is_some_and(|k| k.rests_from_stopping(desk.context.now)) {
            return self.note_keeping(&mut desk.mail, name, &Step::Wait(Waiting::StopAgain(why)));
        }
        if let (StopReason::GivenUp(why), Some(keeper)) = (&why, self.keepers.get_mut(name)) {
            keeper.gives_up(why.clone(), desk.context.now);
        }
        desk.mail.say(Said::StopsNow { service: name.clone(), why });
        self.end_what_a_pause_held_open(desk, name);
        if self.keepers.get(name).is_some_and(|k| k.running().is_some()) {
            desk.mail.push(Effect::AbortDb { service: name.clone() });
        }
        self.start_action(desk, name, DbAction::Stop { ladder });
    }

    pub(super) fn write_tombstone(&mut self, mail: &mut Mail, name: &ServiceName, epoch: Epoch) {
        if let Some(released) = self.keepers.get_mut(name).and_then(|k| k.tombstone_begins(epoch)) {
            mail.push(Effect::Tombstone { service: name.clone(), released });
        }
    }

    /// What came of writing the final word.
    pub fn tombstone_ended(&mut self, desk: &mut Desk, name: &ServiceName, epoch: Epoch, result: Result<(), String>) {
        let Some(keeper) = self.keepers.get_mut(name) else { return };
        match result {
            Ok(()) => {
                keeper.tombstoned(epoch, desk.context.now);
                self.drop_kept(&mut desk.mail, name, epoch);
            }
            Err(why) => {
                if keeper.tombstone_failed(&why, desk.context.now) {
                    desk.mail.say(Said::FinalWordUnwritten { service: name.clone(), epoch, why });
                }
            }
        }
    }

    /// A database was looked at.
    pub fn database_seen(&mut self, context: &Context, name: &ServiceName, seen: Observation) {
        if let Some(keeper) = self.keepers.get_mut(name) {
            keeper.sees(seen, moment(context, name));
        }
    }

    /// An action ended.
    pub fn database_ended(&mut self, desk: &mut Desk, name: &ServiceName, action: &DbAction, outcome: DbOutcome) {
        let may_write = self.input(&desk.context, name).is_some_and(|input| input.may_write(Duration::ZERO));
        let Some(keeper) = self.keepers.get_mut(name) else { return };
        if let Some(error) = keeper.ended(action, outcome, may_write, moment(&desk.context, name)) {
            desk.mail.say(Said::Failed { service: name.clone(), action: action.name(), error });
        }
    }

    /// Said until the ledger has it, under whichever epoch it is by then: nothing else would ever name the folder.
    pub fn report_rejoined(&mut self, desk: &mut Desk, name: &ServiceName) {
        let Some(keeper) = self.keepers.get_mut(name) else { return };
        let is_known = |back: &Back| back.order.is_none() && is_named(&desk.context, &back.kept);
        while let Some(back) = keeper.unsaid_rejoin().cloned().filter(is_known) {
            keeper.rejoin_said(&back);
        }
        let Some(Back { how, kept, order }) = keeper.unsaid_rejoin().cloned() else { return };
        let Some(epoch) = desk.context.state.services.get(name).map(|s| s.epoch) else { return };
        let node = desk.context.me();
        desk.propose(Command::Rejoined { service: name.clone(), epoch, node, how, kept, order });
    }

    /// The ledger took what this node proposed.
    pub fn rejoin_reported(&mut self, context: &Context, command: &Command) {
        if let Command::Rejoined { service, node, how, kept, order, .. } = command
            && *node == context.config.node
            && let Some(keeper) = self.keepers.get_mut(service)
        {
            keeper.rejoin_said(&Back { how: how.clone(), kept: kept.clone(), order: *order });
        }
    }

    /// The sealed end of WAL for an epoch that is ending; `None` while it is being read.
    pub fn seal_answer(
        &mut self,
        desk: &mut Desk,
        (name, epoch): (&ServiceName, Epoch),
        since: Instant,
        unguarded: Option<(&str, u32)>,
    ) -> Option<PeerResponse> {
        let no = |why: &str| Some(PeerResponse::Seal(Err(why.to_owned())));
        let Some(service) = desk.context.state.services.get(name) else { return no("the service does not exist") };
        if service.epoch > epoch {
            return no("that epoch is over and followed by another");
        }
        if service.epoch < epoch || desk.context.now.since(since) > desk.context.timing.detection * 4 {
            // This node has not heard of the epoch yet: it will, or the question runs out.
            return if service.epoch < epoch { None } else { no("its database did not get ready in time") };
        }
        let Some(keeper) = self.keepers.get_mut(name) else { return no("it keeps no database") };
        if let Some(leaving) = desk.context.leaving {
            return no(&format!("it leaves: {leaving}"));
        }
        if let Some((why, _)) = unguarded {
            return no(&format!("its watchdog cannot be armed: {why}"));
        }
        if let Some(report) = keeper.seal_report(epoch) {
            return Some(PeerResponse::Seal(report));
        }
        let keeper = &self.keepers[name];
        let ending = service.over.is_some() || desk.context.state.fence_of(service).is_some();
        match keeper.seen().state {
            // The leader is ahead: the word that ends the epoch is on its way here.
            _ if !ending => None,
            // Asked for a level that is over: the next one leaves the node alive.
            _ if desk.context.state.is_received_from(service) => None,
            // The last one failed a moment ago.
            DbState::Standby if keeper.rests(desk.context.now) => None,
            DbState::Standby if keeper.running().is_none_or(|action| matches!(action, DbAction::Compare { .. })) => {
                self.start_action(desk, name, DbAction::Seal);
                None
            }
            // Before it was looked at, and on its way up or down.
            DbState::Standby | DbState::Starting | DbState::Stopping | DbState::Unclear => None,
            DbState::Stopped if keeper.seen().starts_in_recovery => None,
            // A former primary that its keeper is about to start in recovery.
            DbState::Stopped if self.input(&desk.context, name).is_some_and(|input| keeper::may_be_asked(&input)) => {
                None
            }
            state => no(&format!("its database is no running standby ({state})")),
        }
    }
}

/// Whether an incident of the ledger names this folder of this node.
fn is_named(context: &Context, folder: &Option<String>) -> bool {
    let names = |what: &Happening| match what {
        Happening::Rejoined { node, kept, .. } => *node == context.config.node && kept == folder,
        _ => false,
    };
    folder.is_some() && context.state.incidents.values().flat_map(|i| &i.steps).any(|step| names(&step.what))
}
