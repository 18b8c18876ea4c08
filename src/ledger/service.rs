//! What happens within an epoch: promotion, installation, release, the planned move.

use super::apply::Moment;
use super::{
    Begun, EpochRecord, Event, Happening, Holder, Incident, IncidentKind, Ineligible, Move, Outcome, Over, Phase,
    Refusal, Service, State,
};
use crate::known_bugs::{self, Bug};
use crate::types::{Epoch, Incarnation, IncidentId, NodeName, Position, ServiceName, SystemId, Timeline};
use std::collections::BTreeSet;

/// How many past epochs a service remembers, for lineage.
const EPOCHS_KEPT: usize = 64;

impl Service {
    /// The present epoch is over, without a fence. Before it was installed, it is a failed appointment.
    pub(super) fn end_with(&mut self, over: Over) {
        if self.phase == Phase::Installed {
            self.final_end = over.position();
        } else if let Some(holder) = &self.holder {
            let times = self.failed.entry(holder.node.clone()).or_default();
            *times += 1;
            let times = *times;
            self.copy_failed(times);
        }
        self.over = Some(over);
        self.claimed = None;
    }
}

impl State {
    /// The service, if its present epoch is `epoch` and goes on (S4).
    pub(super) fn at_epoch(&mut self, service: &ServiceName, epoch: Epoch) -> Result<&mut Service, Refusal> {
        let found = self.services.get_mut(service);
        let record = found.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        let is_old = record.epoch != epoch && !known_bugs::has(Bug::EpochUnchecked);
        if is_old || record.over.is_some() {
            return Err(Refusal::OldEpoch { service: service.clone(), epoch, current: record.epoch });
        }
        Ok(record)
    }

    /// The service, if its present epoch is `epoch`, over or not (S4).
    pub(super) fn in_epoch(&mut self, service: &ServiceName, epoch: Epoch) -> Result<&mut Service, Refusal> {
        let found = self.services.get_mut(service);
        let record = found.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        match record.epoch == epoch {
            true => Ok(record),
            false => Err(Refusal::OldEpoch { service: service.clone(), epoch, current: record.epoch }),
        }
    }

    fn held(
        &mut self,
        service: &ServiceName,
        epoch: Epoch,
        node: &NodeName,
        incarnation: Incarnation,
    ) -> Result<&mut Service, Refusal> {
        let record = self.at_epoch(service, epoch)?;
        if record.holder.as_ref().is_some_and(|h| &h.node == node && h.incarnation == incarnation) {
            Ok(record)
        } else {
            Err(Refusal::NotHolder { service: service.clone(), epoch, node: node.clone() })
        }
    }

    /// The incident of the service's present move, or a new one.
    pub(super) fn incident_for(
        &mut self,
        m: Moment,
        service: &ServiceName,
        subject: &NodeName,
        kind: IncidentKind,
    ) -> IncidentId {
        let open = self.services.get(service).and_then(|s| s.incident);
        let goes_on = |i: &Incident| i.outcome == Outcome::Open && !i.settled.contains(service);
        let open = open.filter(|id| self.incidents.get(id).is_some_and(|i| goes_on(i)));
        open.unwrap_or_else(|| {
            let id = self.open_incident(m, kind, subject, BTreeSet::from([service.clone()]));
            if let Some(record) = self.services.get_mut(service) {
                record.incident = Some(id);
            }
            id
        })
    }

    pub(super) fn promoting(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        incarnation: Incarnation,
        timeline: Timeline,
    ) -> Result<Event, Refusal> {
        let record = self.held(&service, epoch, &node, incarnation)?;
        if record.phase == (Phase::Promoting { timeline }) {
            return Ok(Event::Noted);
        }
        if record.phase != Phase::Appointed {
            return Err(Refusal::NotAllowed { why: format!("epoch {epoch} of {service} is past its appointment") });
        }
        if timeline < record.next_timeline(Timeline(0)) {
            return Err(Refusal::TimelineTaken { service, timeline });
        }
        record.phase = Phase::Promoting { timeline };
        record.begun.insert(timeline, Begun { epoch, node: node.clone(), after: record.sealed_at });
        if let Some(incident) = record.incident {
            self.record(incident, m, Happening::Promoting { service, epoch, node, timeline });
        }
        Ok(Event::Noted)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one command, already taken apart")]
    pub(super) fn installed(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        node: NodeName,
        incarnation: Incarnation,
        system: SystemId,
        position: Position,
    ) -> Result<Event, Refusal> {
        let others: Vec<NodeName> = self.set().database_nodes().filter(|other| **other != node).cloned().collect();
        let record = self.held(&service, epoch, &node, incarnation)?;
        if record.system.is_some_and(|known| known != system) && !record.takes_over_with_a_copy() {
            return Err(Refusal::NotEligible {
                node,
                why: format!("its database is another one (system identifier {system})"),
            });
        }
        if record.phase == Phase::Installed {
            return Ok(Event::Noted);
        }
        record.system = Some(system);
        record.phase = Phase::Installed;
        // It has taken over all the same, and is not passed over any more.
        record.denied = false;
        record.timeline = position.timeline;
        // Who descends from this timeline counts on from it: the numbers up to it cannot be drawn any more.
        record.begun.retain(|said, _| *said > position.timeline);
        record.failed.clear();
        record.final_end = None;
        record.known_end = None;
        record.copy_took_over(others.into_iter());
        record.history.push(EpochRecord { epoch, node: node.clone(), start: position });
        if record.history.len() > EPOCHS_KEPT {
            record.history.remove(0);
        }
        if let Some(incident) = record.incident {
            self.record(
                incident,
                m,
                Happening::Installed { service: service.clone(), epoch, node: node.clone(), position },
            );
            let found = self.incidents.get_mut(&incident).filter(|i| i.outcome == Outcome::Open);
            if let Some(incident) = found {
                let so = match incident.subject == node {
                    true => Outcome::Stayed { on: node, epoch },
                    false => Outcome::Moved { to: node, epoch },
                };
                incident.settle(&service, so);
            }
        }
        Ok(Event::Noted)
    }

    /// The holder's final word: its database's cgroup is empty and its tombstone is written.
    pub(super) fn release(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        by: Holder,
        (position, lapsed, leaving): (Option<Position>, bool, bool),
        why: String,
    ) -> Result<Event, Refusal> {
        // The same final word may come from the holder and, out of its heartbeats, from anybody else.
        let again = self
            .services
            .get(&service)
            .is_some_and(|s| s.epoch == epoch && s.over.is_some() && s.holder.as_ref() == Some(&by));
        if again {
            return Ok(Event::Noted);
        }
        let record = self.held(&service, epoch, &by.node, by.incarnation)?;
        if record.holder.as_ref().is_some_and(|h| h.boot != by.boot) {
            return Err(Refusal::OldBoot { node: by.node, boot: by.boot });
        }
        record.end_with(Over::Released { position, at_join: false, lapsed, leaving });
        let planned = record.moving.is_some() || leaving;
        let kind = if planned { IncidentKind::Switchover } else { IncidentKind::LocalFailure };
        let incident = self.incident_for(m, &service, &by.node, kind);
        if !planned && let Some(node) = self.nodes.get_mut(&by.node) {
            node.failures += 1;
        }
        let what = Happening::Released { service, epoch, node: by.node.clone(), position, why };
        self.record(incident, m, what);
        self.void_fences_without_epochs(m, &by.node, "its epochs were released");
        Ok(Event::Noted)
    }

    /// The failures of a node are old. A failure since counts on from all of them.
    pub(super) fn forgive(&mut self, node: &NodeName, failures: u32) -> Result<Event, Refusal> {
        let record = self.nodes.get_mut(node).ok_or_else(|| Refusal::UnknownNode { node: node.clone() })?;
        if record.failures != failures {
            return Err(Refusal::NotAllowed { why: format!("{node} has failed {} times", record.failures) });
        }
        record.failures = 0;
        Ok(Event::Noted)
    }

    /// The primary that could be moved in order now, by what the ledger knows; to whom is another question.
    pub fn may_move(&self, service: &ServiceName) -> Result<&Holder, Refusal> {
        let record = self.services.get(service);
        let record = record.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        let installed = record.phase == Phase::Installed && record.over.is_none();
        let Some(holder) = record.holder.as_ref().filter(|_| installed) else {
            return Err(Refusal::NoPrimary { service: service.clone() });
        };
        if record.paused {
            return Err(Refusal::Paused { service: service.clone() });
        }
        if record.moving.is_some() {
            return Err(Refusal::AlreadyMoving { service: service.clone() });
        }
        Ok(holder)
    }

    pub(super) fn switchover(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        to: Option<NodeName>,
        who: String,
    ) -> Result<Event, Refusal> {
        if let Some(to) = &to {
            // Whether a fence acts against it is asked at its appointment.
            let why = match self.may_hold(to) {
                Err(Ineligible::Unknown | Ineligible::Witness) => Some("it is no database node"),
                Err(Ineligible::NotJoined | Ineligible::Dead) => Some("it is not up"),
                Err(Ineligible::InMaintenance) => Some("it is in maintenance"),
                _ => None,
            };
            if let Some(why) = why {
                return Err(Refusal::NotEligible { node: to.clone(), why: why.to_owned() });
            }
        }
        self.at_epoch(&service, epoch)?;
        let holder = self.may_move(&service)?.node.clone();
        if to.as_ref() == Some(&holder) {
            return Err(Ineligible::Primary.refusal(&holder));
        }
        let incident = self.begin_move(m, &service, &holder, to, who);
        Ok(Event::SwitchoverStarted { incident })
    }

    pub(super) fn begin_move(
        &mut self,
        m: Moment,
        service: &ServiceName,
        holder: &NodeName,
        to: Option<NodeName>,
        who: String,
    ) -> IncidentId {
        let incident = self.open_incident(m, IncidentKind::Switchover, holder, BTreeSet::from([service.clone()]));
        let record = self.services.get_mut(service).expect("it is to move");
        record.incident = Some(incident);
        record.moving = Some(Move { to: to.clone(), incident });
        let epoch = record.epoch;
        self.record(incident, m, Happening::SwitchoverAsked { service: service.clone(), epoch, to, who });
        incident
    }

    pub(super) fn cancel_switchover(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        why: String,
    ) -> Result<Event, Refusal> {
        let record = self.at_epoch(&service, epoch)?;
        let Some(moving) = record.moving.take() else {
            return Err(Refusal::NotAllowed { why: format!("{service} is not moving") });
        };
        record.accepted_copy = None;
        self.record(moving.incident, m, Happening::SwitchoverCancelled { service, why: why.clone() });
        if let Some(incident) = self.incidents.get_mut(&moving.incident) {
            incident.outcome = Outcome::Ended { why };
        }
        Ok(Event::Noted)
    }

    pub(super) fn renewed(
        &mut self,
        service: ServiceName,
        epoch: Epoch,
        incarnation: Incarnation,
        resumed: u64,
    ) -> Result<Event, Refusal> {
        let record = self.at_epoch(&service, epoch)?;
        if let Some(holder) = record.holder.as_ref().filter(|h| h.incarnation != incarnation) {
            return Err(Refusal::NotHolder { service, epoch, node: holder.node.clone() });
        }
        if record.unproven_resume != Some(resumed) {
            return Err(Refusal::NotPaused { service });
        }
        record.unproven_resume = None;
        Ok(Event::Noted)
    }

    pub(super) fn rejoined(
        &mut self,
        m: Moment,
        (service, epoch): (ServiceName, Epoch),
        node: NodeName,
        (how, kept): (String, Option<String>),
        order: Option<u64>,
    ) -> Result<Event, Refusal> {
        // Over or not: it tells what was done, and the next epoch may be far away.
        let record = self.in_epoch(&service, epoch)?;
        record.copied(&node, order);
        let incident = record.incident;
        if let Some(incident) = incident {
            self.record(incident, m, Happening::Rejoined { node, how, kept });
        }
        Ok(Event::Noted)
    }
}
