//! A person's orders on whose data win. `reinit`: a node's data are thrown away and copied anew from the primary.
//! `accept`: the copy on one node wins, whatever it descends from; it is opened under a new epoch on a timeline of its own,
//! and every other node is copied anew.
//!
//! Not here: how a copy is made (the engine), and when (`plan/keeper`); who is asked before (`cli`).

use super::apply::Moment;
use super::{Event, Happening, IncidentKind, Ineligible, Refusal, Service, State};
use crate::types::{Epoch, IncidentId, NodeName, ServiceName};
use serde::{Deserialize, Serialize};

/// A node's data are to be copied anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOrder {
    /// Counts the orders of the service: the node says which one it has carried out.
    pub number: u64,
    pub who: String,
}

/// The copy on this node wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedCopy {
    pub node: NodeName,
    pub number: u64,
    pub who: String,
    /// How much of what the primary is known to have written it lacks, where that can be said.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// The epoch in which it was appointed for it; `None` before.
    pub appointed: Option<Epoch>,
}

impl Service {
    /// The copy that the next appointment is for: nobody else is appointed while that word stands.
    pub fn awaited_copy(&self) -> Option<&AcceptedCopy> {
        self.accepted_copy.as_ref().filter(|copy| copy.appointed.is_none())
    }

    /// Whether the copy on this node wins, whatever it descends from.
    pub fn accepts_copy_of(&self, node: &NodeName) -> bool {
        self.awaited_copy().is_some_and(|copy| &copy.node == node)
    }

    /// Whether the present epoch takes over with a copy that a person accepted.
    pub fn takes_over_with_a_copy(&self) -> bool {
        self.accepted_copy.as_ref().is_some_and(|copy| copy.appointed == Some(self.epoch))
    }

    /// Why the node's data are not thrown away: it is the primary, or it has stopped in order, for a move or because it left,
    /// and nothing of that is to be lost.
    fn why_copy_is_needed(&self, node: &NodeName) -> Option<String> {
        self.holder.as_ref().filter(|holder| &holder.node == node)?;
        let epoch = self.epoch;
        match &self.over {
            None => Some(format!("holds epoch {epoch}: it has nobody to be copied from")),
            Some(over) if self.moving.is_some() && over.position().is_some() => {
                Some(format!("has stopped epoch {epoch} in order for a switchover: that move loses nothing (S6)"))
            }
            Some(over) if over.is_leave() && over.position().is_some() => {
                Some(format!("has left epoch {epoch} in order: who takes over must have all of its WAL (S6)"))
            }
            Some(_) => None,
        }
    }

    fn next_order(&mut self) -> u64 {
        self.copy_orders += 1;
        self.copy_orders
    }

    /// The word is used up by this appointment, one way or the other.
    pub(super) fn use_accepted_copy(&mut self, appointee: &NodeName) {
        let (epoch, is_for) = (self.epoch, self.accepts_copy_of(appointee));
        self.accepted_copy = self.accepted_copy.take().filter(|_| is_for);
        self.accepted_copy.iter_mut().for_each(|copy| copy.appointed = Some(epoch));
    }

    /// The appointee gave back: its copy is tried once more.
    pub(super) fn copy_failed(&mut self, times: u32) {
        let epoch = self.epoch;
        let taken = self.accepted_copy.iter_mut().filter(|copy| times <= 1 && copy.appointed == Some(epoch));
        taken.for_each(|copy| copy.appointed = None);
    }

    /// It accepts writes: nobody else's data are of use any more.
    pub(super) fn copy_took_over(&mut self, others: impl Iterator<Item = NodeName>) {
        let Some(AcceptedCopy { who, .. }) = self.accepted_copy.take_if(|copy| copy.appointed == Some(self.epoch))
        else {
            return;
        };
        for node in others {
            let order = CopyOrder { number: self.next_order(), who: who.clone() };
            self.to_copy.insert(node, order);
        }
    }

    /// The node has carried out its order.
    pub(super) fn copied(&mut self, node: &NodeName, order: Option<u64>) {
        self.to_copy.retain(|of, due| of != node || order != Some(due.number));
    }
}

impl State {
    /// An order, or its end (`cancel`).
    pub(super) fn reinit(
        &mut self,
        (service, epoch): (ServiceName, Epoch),
        node: NodeName,
        who: String,
        cancel: bool,
    ) -> Result<Event, Refusal> {
        if let Err(why @ (Ineligible::Unknown | Ineligible::Witness)) = self.may_hold(&node) {
            return Err(why.refusal(&node));
        }
        let record = self.in_epoch(&service, epoch)?;
        if cancel {
            return match record.to_copy.remove(&node) {
                Some(_) => Ok(Event::Noted),
                None => Err(Refusal::NotAllowed { why: format!("{node} has no order to be copied anew") }),
            };
        }
        if let Some(why) = record.why_copy_is_needed(&node) {
            return Err(Refusal::NotAllowed { why: format!("{node} {why}") });
        }
        if record.accepts_copy_of(&node) {
            return Err(Refusal::NotAllowed { why: format!("the copy on {node} was accepted") });
        }
        let number = record.next_order();
        record.to_copy.insert(node, CopyOrder { number, who });
        Ok(Event::Noted)
    }

    /// A person's word, or its end (no `node`). Where a primary is to be stopped for it, the planned move begins with it;
    /// in a pause, with the next resume.
    pub(super) fn accept_copy(
        &mut self,
        m: Moment,
        (service, epoch): (ServiceName, Epoch),
        node: Option<NodeName>,
        (bytes, who): (Option<u64>, String),
    ) -> Result<Event, Refusal> {
        if let Some(node) = &node {
            self.may_hold(node).map_err(|why| why.refusal(node))?;
        }
        let record = self.in_epoch(&service, epoch)?;
        let Some(node) = node else { return self.take_copy_back(m, service, who) };
        let Some(holder) = record.holder.as_ref().map(|holder| holder.node.clone()) else {
            return Err(Refusal::NoPrimary { service });
        };
        if record.moving.is_some() {
            return Err(Refusal::AlreadyMoving { service });
        }
        let (is_over, paused) = (record.over.is_some(), record.paused);
        if !is_over && holder == node {
            return Err(Ineligible::Primary.refusal(&node));
        }
        let goes_on = !is_over && self.fence_of(&self.services[&service]).is_none();
        if goes_on && !paused {
            self.may_move(&service)?;
        }
        let record = self.services.get_mut(&service).expect("just seen");
        let number = record.next_order();
        record.to_copy.remove(&node);
        let copy = AcceptedCopy { node: node.clone(), number, who: who.clone(), bytes, appointed: None };
        record.accepted_copy = Some(copy.clone());
        if !goes_on {
            let incident = self.incident_for(m, &service, &holder, IncidentKind::LocalFailure);
            self.tell_of_the_copy(m, incident, &service, &copy);
            return Ok(Event::CopyAccepted { incident: Some(incident).filter(|_| !paused) });
        }
        if paused {
            return Ok(Event::CopyAccepted { incident: None });
        }
        let incident = self.begin_move(m, &service, &holder, Some(node), who);
        self.tell_of_the_copy(m, incident, &service, &copy);
        Ok(Event::CopyAccepted { incident: Some(incident) })
    }

    fn take_copy_back(&mut self, m: Moment, service: ServiceName, who: String) -> Result<Event, Refusal> {
        let record =
            self.services.get_mut(&service).ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        let Some(copy) = record.accepted_copy.take_if(|copy| copy.appointed.is_none()) else {
            return Err(Refusal::NotAllowed { why: format!("no copy of {service} is waited for") });
        };
        if let Some(incident) = record.incident {
            self.record(incident, m, Happening::CopyTakenBack { service, node: copy.node, who });
        }
        Ok(Event::Noted)
    }

    /// Once in each incident: a word that was given in a pause belongs to the one in which it is carried out.
    pub(super) fn tell_of_the_copy(
        &mut self,
        m: Moment,
        incident: IncidentId,
        service: &ServiceName,
        copy: &AcceptedCopy,
    ) {
        let AcceptedCopy { node, bytes, who, .. } = copy.clone();
        let what = Happening::CopyAccepted { service: service.clone(), node, bytes, who };
        let told = self.incidents.get(&incident).is_some_and(|found| found.steps.iter().any(|step| step.what == what));
        if !told {
            self.record(incident, m, what);
        }
    }
}
