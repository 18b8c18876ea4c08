//! An epoch that a later boot of its holder's node calls over, while nobody knows whether the holder's own boot has
//! ended: a guest, or an image of the host, may run beside it. The word is kept aside. It ends the epoch when the leader
//! has waited until the last lease of that boot has surely ended, where that proves anything; otherwise that boot is fenced.
//! A checked fence of it, or the holder's own word, may end the epoch before.
//!
//! Not here: how long to wait (`plan/old_boot.rs`: the ledger has no clock), and the join itself (`join.rs`).

use super::apply::Moment;
use super::{Confirmation, Event, Happening, IncidentKind, Likeness, Machine, Over, Refusal, State};
use crate::known_bugs::{self, Bug};
use crate::types::{Boot, Epoch, Incarnation, NodeName, Position, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The word of a later boot that the present epoch is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Who said it.
    pub by: Incarnation,
    /// The end of WAL in its own directory.
    pub position: Option<Position>,
}

/// What the word of a later start is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The boot that holds the epoch has ended, or says so itself.
    Proven,
    /// Kept aside.
    Unproven,
    /// It is of a machine that never held the epoch. The fence of the boot that did ends it.
    Nothing,
}

impl State {
    /// Another machine says nothing about the boot that holds an epoch. It joins once that boot is fenced, or holds none.
    pub(super) fn check_machine(
        &self,
        (node, boot): (&NodeName, &Boot),
        machine: &Machine,
        held: &BTreeMap<ServiceName, Epoch>,
    ) -> Result<(), Refusal> {
        let again = self.nodes.get(node).is_some_and(|record| &record.boot == boot);
        let is_other = |service: &ServiceName| !again && self.likeness(service, machine) == Likeness::Other;
        match held.iter().find(|(service, _)| is_other(service) && !self.is_holder_fenced(service)) {
            Some((service, epoch)) => {
                Err(Refusal::EpochElsewhere { node: node.clone(), service: service.clone(), epoch: *epoch })
            }
            None => Ok(()),
        }
    }

    /// What a word of this machine, that the service's epoch is over, is worth.
    pub(super) fn weigh(&self, boot: &Boot, machine: &Machine, service: &ServiceName) -> Word {
        let Some(record) = self.services.get(service) else { return Word::Nothing };
        let holds = |boot: &Boot| record.holder.as_ref().is_some_and(|holder| &holder.boot == boot);
        if holds(boot) || known_bugs::has(Bug::CloneEndsEpoch) {
            return Word::Proven;
        }
        match self.likeness(service, machine) {
            Likeness::Same => Word::Proven,
            Likeness::Other => Word::Nothing,
            // Also where a fence of that boot is confirmed: until it is checked it may be a device's lie (S9).
            Likeness::Unclear => Word::Unproven,
        }
    }

    /// What a machine is to the one of the boot that holds the service's epoch, whoever had the name meanwhile.
    fn likeness(&self, service: &ServiceName, machine: &Machine) -> Likeness {
        let holders = self.services.get(service).map(|record| &record.machine);
        let holders = holders.filter(|known| **known != Machine::default());
        holders.map_or(Likeness::Unclear, |known| machine.compare(known))
    }

    /// What confirmed a fence of the boot that holds the service's epoch.
    fn confirmed_of(&self, service: &ServiceName) -> Option<&Confirmation> {
        let fence = self.services.get(service).and_then(|record| self.fence_of(record));
        fence.and_then(|fence| fence.confirmed.as_ref())
    }

    fn is_holder_fenced(&self, service: &ServiceName) -> bool {
        self.confirmed_of(service).is_some()
    }

    /// Whether a later boot has called the present epoch over, and its word is kept aside.
    pub fn is_claimed(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|record| record.over.is_none() && record.claimed.is_some())
    }

    /// An epoch whose holder's boot may go on, although its node has joined in a later one. Once a fence of that boot is
    /// confirmed nothing speaks against the later one: whoever is appointed after that epoch rests on a check of it.
    pub fn unproven(&self, node: &NodeName) -> Option<(&ServiceName, Epoch)> {
        let claimed = self.services.iter().filter(|(_, s)| s.over.is_none() && s.claimed.is_some());
        let claimed = claimed.filter(|(name, _)| !self.is_holder_fenced(name));
        let of_it = claimed.filter(|(_, s)| s.holder.as_ref().is_some_and(|holder| &holder.node == node));
        of_it.map(|(name, s)| (name, s.epoch)).next()
    }

    /// The leader has waited: no lease of the boot that holds the epoch can be valid any more, and the ledger has granted
    /// it none since its node joined in a later boot. In a pause the end of a lease stops nobody, and what makes the fence
    /// agent `lease` prove nothing does so here.
    pub(super) fn waited_out(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        boot: &Boot,
    ) -> Result<Event, Refusal> {
        let record = self.at_epoch(&service, epoch)?;
        let Some(holder) = record.holder.clone().filter(|holder| &holder.boot == boot) else {
            return Err(Refusal::EpochNotOver { service, epoch });
        };
        if record.paused {
            return Err(Refusal::Paused { service });
        }
        let Some(Claimed { position, .. }) = record.claimed.clone() else {
            return Err(Refusal::EpochNotOver { service, epoch });
        };
        if let Some(why) = self.earlier_boot_objection(&service) {
            return Err(Refusal::LeaseProvesNothing { node: holder.node, why });
        }
        let why = "said at the join of a later boot, and the last lease of the one before has ended";
        self.end_at_join(m, &holder.node, &service, epoch, position, why);
        Ok(Event::Noted)
    }

    /// The word of a later start of the holder's node ends the epoch.
    pub(super) fn end_at_join(
        &mut self,
        m: Moment,
        node: &NodeName,
        service: &ServiceName,
        epoch: Epoch,
        position: Option<Position>,
        why: &str,
    ) {
        let Some(record) = self.services.get_mut(service) else { return };
        record.end_with(Over::Released { position, at_join: true, lapsed: false, leaving: false });
        let (name, node, why) = (service.clone(), node.clone(), why.to_owned());
        let what = Happening::Released { service: name, epoch, node: node.clone(), position, why };
        let incident = self.incident_for(m, service, &node, IncidentKind::LocalFailure);
        self.record(incident, m, what);
        self.void_fences_without_epochs(m, &node, "its epochs were released at its join");
    }
}
