//! The third way in which an epoch ends: its appointee is passed over, because it surely has no lease and is not
//! installed. Nobody fences it and it has said nothing; it may live, and not hear of its appointment.
//!
//! It takes two entries. After the first no leader grants a lease of this epoch, because each reads the ledger before. So
//! whoever knows, once that has been applied, that there was no lease before it, knows it for good.
//!
//! Not here: how long an appointee may take, and what a leader knows of its lease (`plan/appointee.rs`).

use super::apply::Moment;
use super::{Event, Happening, Over, Phase, Refusal, Service, State};
use crate::types::{Epoch, ServiceName, Term};
use serde::{Deserialize, Serialize};

/// Why the appointee surely has no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoLease {
    /// It never had one: the leader that appointed it still leads, in the same term, and has granted none.
    NeverGranted,
    /// The leader has waited for longer than any lease can last.
    Waited,
}

impl std::fmt::Display for NoLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoLease::NeverGranted => "it was never granted a lease",
            NoLease::Waited => "any lease that it may have had is surely over",
        })
    }
}

impl NoLease {
    /// Whether it can be true in this phase. One that never had a lease did not announce a promotion.
    fn fits(self, phase: Phase) -> bool {
        match phase {
            Phase::Appointed => true,
            Phase::Promoting { .. } => self == NoLease::Waited,
            Phase::Creating | Phase::Installed => false,
        }
    }
}

impl State {
    /// The service, if the appointee of this epoch, its present one, may be passed over for this reason.
    fn awaits_appointee(&self, name: &ServiceName, epoch: Epoch, no_lease: NoLease) -> Result<&Service, Refusal> {
        let record = self.services.get(name).ok_or_else(|| Refusal::UnknownService { service: name.clone() })?;
        if record.epoch != epoch || record.over.is_some() {
            return Err(Refusal::OldEpoch { service: name.clone(), epoch, current: record.epoch });
        }
        if record.paused {
            return Err(Refusal::Paused { service: name.clone() });
        }
        if !no_lease.fits(record.phase) {
            return Err(Refusal::NotAllowed { why: format!("epoch {epoch} of {name} is past its appointment") });
        }
        Ok(record)
    }

    pub(super) fn deny_lease(&mut self, name: &ServiceName, epoch: Epoch) -> Result<Event, Refusal> {
        self.awaits_appointee(name, epoch, NoLease::Waited)?;
        self.services.get_mut(name).expect("just seen").denied = true;
        Ok(Event::Noted)
    }

    /// Why waiting for the lease of the present epoch would not end it; `None` where it would. What makes the fence agent
    /// `lease` prove nothing does so here.
    pub fn pass_over_objection(&self, name: &ServiceName) -> Option<String> {
        let holder = self.services.get(name)?.holder.as_ref()?;
        let levels = self.settings.as_ref()?.levels.iter().flatten();
        match levels.into_iter().any(|agent| agent.is_lease()) {
            true => self.wait_objection(&holder.node, &holder.boot, std::iter::once(name)),
            false => Some("it is no level here".to_owned()),
        }
    }

    pub(super) fn pass_over(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        term: Term,
        no_lease: NoLease,
    ) -> Result<Event, Refusal> {
        let record = self.awaits_appointee(&service, epoch, no_lease)?;
        // Only that leader knows what it granted.
        let based_on = if no_lease == NoLease::NeverGranted { record.appointed_in } else { term };
        if let Some(based_on) = [term, based_on].into_iter().find(|based_on| *based_on != m.term) {
            return Err(Refusal::OldTerm { based_on, term: m.term });
        }
        let Some(node) = record.holder.as_ref().map(|h| h.node.clone()).filter(|_| record.denied) else {
            return Err(Refusal::NotAllowed { why: format!("the lease of epoch {epoch} of {service} is not denied") });
        };
        if no_lease == NoLease::Waited
            && let Some(why) = self.pass_over_objection(&service)
        {
            return Err(Refusal::LeaseProvesNothing { node, why });
        }
        let incident = record.incident;
        self.services.get_mut(&service).expect("just seen").end_with(Over::PassedOver);
        if let Some(record) = self.nodes.get_mut(&node) {
            record.failures += 1;
        }
        if let Some(incident) = incident {
            self.record(incident, m, Happening::PassedOver { service, epoch, node: node.clone(), no_lease });
        }
        self.void_fences_without_epochs(m, &node, "its appointment was passed over");
        Ok(Event::Noted)
    }
}
