//! What an asynchronous failover may lose: how far the last primary's WAL is known to reach, and a person's word that what a
//! candidate lacks of it may be lost.
//!
//! Not here: what a leader heard of it besides (`plan/known_end.rs`), and that nobody is appointed by itself who lacks more
//! than `failover.max_lag` (`plan/objection.rs`).

use super::apply::Moment;
use super::{Event, Happening, IncidentKind, Phase, Refusal, State};
use crate::types::{Epoch, NodeName, Position, ServiceName};
use serde::{Deserialize, Serialize};

/// A person's word: the next appointment may lose more than `failover.max_lag`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// The one that may be appointed so; `None`: whoever has most.
    pub to: Option<NodeName>,
    pub who: String,
}

impl AcceptedLoss {
    /// Whether it lets this node be appointed.
    pub fn is_for(&self, node: &NodeName) -> bool {
        self.to.as_ref().is_none_or(|to| to == node)
    }
}

impl State {
    /// The holder's WAL was heard to reach as far. Kept so that those know it too who start when the holder is gone.
    pub(super) fn progress(&mut self, service: ServiceName, epoch: Epoch, end: Position) -> Result<Event, Refusal> {
        let record = self.at_epoch(&service, epoch)?;
        if record.phase != Phase::Installed || end.timeline != record.timeline {
            return Err(Refusal::NotAllowed { why: format!("epoch {epoch} of {service} does not write there") });
        }
        record.known_end = record.known_end.max(Some(end));
        Ok(Event::Noted)
    }

    /// Only while nobody holds the service, or whoever does is fenced: a primary that lives loses nothing.
    pub(super) fn accept_loss(
        &mut self,
        m: Moment,
        service: ServiceName,
        epoch: Epoch,
        (bytes, word): (Option<u64>, AcceptedLoss),
    ) -> Result<Event, Refusal> {
        self.in_epoch(&service, epoch)?;
        let record = &self.services[&service];
        if record.over.is_none() && self.fence_of(record).is_none() {
            let why = format!("epoch {epoch} of {service} goes on: its holder has everything");
            return Err(Refusal::NotAllowed { why });
        }
        if let Some(to) = &word.to {
            self.may_hold(to).map_err(|why| why.refusal(to))?;
        }
        let subject = record.holder.as_ref().map(|holder| holder.node.clone());
        let subject = subject.ok_or_else(|| Refusal::NoPrimary { service: service.clone() })?;
        let incident = self.incident_for(m, &service, &subject, IncidentKind::LocalFailure);
        let AcceptedLoss { to, who } = word.clone();
        self.record(incident, m, Happening::LossAccepted { service: service.clone(), to, bytes, who });
        self.services.get_mut(&service).expect("just seen").accepted_loss = Some(word);
        Ok(Event::LossAccepted { incident })
    }
}
