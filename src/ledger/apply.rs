//! `apply`: the one function that changes the ledger. It dispatches; each rule stands in the file of its subject.

use super::{Answer, Basis, Command, Entry, Event, Happening, Refusal, Refused, Settings, State, invariant};
use crate::types::{IncidentId, LogIndex, NodeId, Term, WallTime};
use std::collections::BTreeSet;

/// Where and when an entry is applied: what every rule may use besides the state and the command.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub index: LogIndex,
    /// The term of the log entry itself: that of the leader that proposed it.
    pub term: Term,
    pub at: WallTime,
}

/// Applies one committed entry. Total: every command has an answer, and a refusal changes nothing but the list of
/// refusals.
pub fn apply(state: &mut State, index: LogIndex, term: Term, entry: &Entry) -> Answer {
    let moment = Moment { index, term, at: entry.at };
    let result = dispatch(state, moment, &entry.command);
    state.applied = index;
    let answer = match result {
        Ok(event) => Answer::Done(event),
        Err(refusal) => {
            state.note_refusal(moment, &entry.command, refusal.clone());
            Answer::Refused(refusal)
        }
    };
    state.forget_old();
    let broken = invariant::violations(state);
    assert!(broken.is_empty(), "the ledger broke its own rules at {index} with {:?}: {broken:?}", entry.command);
    answer
}

/// A membership entry was committed: one set, or both halves of a joint one.
pub fn set_voters(state: &mut State, index: LogIndex, voters: Vec<BTreeSet<NodeId>>) {
    state.voters = voters;
    state.applied = index;
}

fn dispatch(state: &mut State, m: Moment, command: &Command) -> Result<Event, Refusal> {
    if let Command::Seed { settings } = command {
        return state.seed(settings);
    }
    if state.settings.is_none() {
        return Err(Refusal::NotSeeded);
    }
    match command.clone() {
        Command::Seed { .. } => unreachable!("handled above"),
        Command::Join { node, boot, request, succeeds, machine, claims } => {
            state.join(m, node, (boot, request, succeeds), machine, &claims)
        }
        Command::DeclareDead { target, incarnation, term, round, answers, hearing } => {
            state.declare_dead(m, target, incarnation, (term, round), answers, &hearing)
        }
        Command::OpenFence { target, boot, reason } => state.open_fence_on_order(m, target, boot, &reason),
        Command::Order { fence, term, level, round, orders } => state.order(m, fence, term, level, round, orders),
        Command::OrderDone { fence, order, run } => state.order_done(m, fence, order, run),
        Command::NextLevel { fence, term, level, round, why } => state.next_level(m, fence, term, level, round, why),
        Command::HumanConfirm { incident, target, who, force } => state.human_confirm(m, incident, &target, who, force),
        Command::Refute { fence, level, round, refuted, by, channel, what, struck } => {
            state.refute(m, fence, (level, round, refuted), by, (channel, what, struck))
        }
        Command::Assisting { fence, agent, node, incarnation } => state.assisting(fence, agent, node, incarnation),
        Command::Assisted { fence, agent, node, action, run } => state.assisted(m, fence, agent, node, action, run),
        Command::Lift { fence, who, power_on } => state.lift(m, fence, who, power_on),
        Command::CloseFence { fence } => state.close_fence(m, fence),
        Command::Create { service, node, boot, incarnation } => {
            state.create(m, service, super::Holder { node, boot, incarnation })
        }
        Command::Appoint { service, prior, node, boot, incarnation, basis, seals, why } => {
            let to = super::Holder { node, boot, incarnation };
            state.appoint(m, service, prior, to, basis, seals, why)
        }
        Command::Promoting { service, epoch, node, incarnation, timeline } => {
            state.promoting(m, service, epoch, node, incarnation, timeline)
        }
        Command::Installed { service, epoch, node, incarnation, system, position } => {
            state.installed(m, service, epoch, node, incarnation, system, position)
        }
        Command::Release { service, epoch, node, boot, incarnation, position, lapsed, leaving, why } => {
            let by = super::Holder { node, boot, incarnation };
            state.release(m, service, epoch, by, (position, lapsed, leaving), why)
        }
        Command::DenyLease { service, epoch } => state.deny_lease(&service, epoch),
        Command::PassOver { service, epoch, term, no_lease } => state.pass_over(m, service, epoch, term, no_lease),
        Command::WaitedOut { service, epoch, boot } => state.waited_out(m, service, epoch, &boot),
        Command::Progress { service, epoch, end } => state.progress(service, epoch, end),
        Command::AcceptLoss { service, epoch, to, bytes, who } => {
            state.accept_loss(m, service, epoch, (bytes, super::AcceptedLoss { to, who }))
        }
        Command::Switchover { service, epoch, to, who } => state.switchover(m, service, epoch, to, who),
        Command::CancelSwitchover { service, epoch, why } => state.cancel_switchover(m, service, epoch, why),
        Command::Pause { service, who, why, lasts } => state.pause(m, service, (who, why, lasts)),
        Command::Resume { service, who, number } => state.resume(m, service, who, number),
        Command::Renewed { service, epoch, incarnation, resumed } => {
            state.renewed(service, epoch, incarnation, resumed)
        }
        order @ (Command::Reinit { .. }
        | Command::AcceptCopy { .. }
        | Command::Restart { .. }
        | Command::Restarted { .. }) => about_a_database(state, m, order),
        Command::Maintenance { node, who, lasts } => state.begin_maintenance(node, who, lasts),
        Command::EndMaintenance { node, number, .. } => state.end_maintenance(node, number),
        Command::Forgive { node, failures } => state.forgive(&node, failures),
        Command::Rejoined { service, epoch, node, how, kept, order } => {
            state.rejoined(m, (service, epoch), node, (how, kept), order)
        }
    }
}

/// A person's order about one node's database, or its end.
fn about_a_database(state: &mut State, m: Moment, order: Command) -> Result<Event, Refusal> {
    match order {
        Command::Reinit { service, epoch, node, who, cancel } => state.reinit((service, epoch), node, who, cancel),
        Command::AcceptCopy { service, epoch, node, bytes, who } => {
            state.accept_copy(m, (service, epoch), node, (bytes, who))
        }
        Command::Restart { service, epoch, node, who, cancel } => {
            state.order_restart((service, epoch), node, who, cancel)
        }
        Command::Restarted { service, node, order } => state.restarted(&service, &node, order),
        other => unreachable!("{} is no such order", other.name()),
    }
}

impl State {
    fn seed(&mut self, settings: &Settings) -> Result<Event, Refusal> {
        if self.settings.is_some() {
            return Err(Refusal::AlreadySeeded);
        }
        self.settings = Some(settings.clone().into());
        Ok(Event::Seeded)
    }

    /// The settings; `dispatch` lets nothing else through before they are there.
    pub(super) fn set(&self) -> &Settings {
        self.settings.as_ref().expect("dispatch refuses every other command before Seed")
    }

    /// Records a step of an incident.
    pub(super) fn record(&mut self, incident: IncidentId, m: Moment, what: Happening) {
        if let Some(incident) = self.incidents.get_mut(&incident) {
            incident.keep(super::StepRecord { at: m.at, index: m.index, what });
        }
    }

    /// Keeps the refusal, and records it with the incident that it concerns (S7: refusals too). The same refusal again
    /// and again is kept once.
    fn note_refusal(&mut self, m: Moment, command: &Command, refusal: Refusal) {
        let name = command.name().to_owned();
        let repeated = self.refusals.back().is_some_and(|r| r.command == name && r.refusal == refusal);
        let what = Happening::Refused { command: name.clone(), refusal: refusal.clone() };
        if !repeated {
            self.refusals.push_back(Refused { index: m.index, at: m.at, command: name, refusal }.into());
        }
        // The same refusal may concern two incidents, one after the other.
        let incident = self.incident_of(command);
        let has = |id: &IncidentId| self.incidents.get(id).is_some_and(|i| i.steps.iter().any(|s| s.what == what));
        if let Some(incident) = incident.filter(|id| !repeated || !has(id)) {
            self.record(incident, m, what);
        }
    }

    /// An appointment that rests on a fence belongs to the fence's incident, whatever goes on in its service by then.
    fn incident_of(&self, command: &Command) -> Option<IncidentId> {
        let fence = match command {
            Command::Appoint { basis: Basis::Fenced { fence, .. }, .. } => Some(*fence),
            other => other.fence(),
        };
        if let Some(fence) = fence.and_then(|fence| self.fences.get(&fence)) {
            return Some(fence.incident);
        }
        command.service().and_then(|s| self.services.get(s)).and_then(|s| s.incident)
    }
}
