//! A copy that is to win, before anything is touched: whether the word for it would be taken, what would happen, and what
//! would be given up.
//!
//! Not here: carrying it out (`service.rs` has the primary stopped and the copy appointed, `keeper/` opens it and has the
//! others copied anew).

use super::known_end::{known_end, lacks};
use super::{Objection, Outlook, Purpose, objections};
use crate::ledger::Ineligible;
use crate::types::{Epoch, NodeName, Position, ServiceName};
use std::fmt;

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    pub service: ServiceName,
    pub node: NodeName,
    /// The primary that is stopped in order before.
    pub from: Option<NodeName>,
    pub paused: bool,
    /// The epoch that the copy begins.
    pub epoch: Epoch,
    /// Where the copy is known to end.
    pub ends: Position,
    /// Where the primary's WAL is known to reach.
    pub known: Option<Position>,
    /// How many bytes of it the copy lacks, as far as the positions tell: a copy of another origin may share them.
    pub given_up: Option<u64>,
    pub others: Vec<NodeName>,
}

/// What would keep the word from being taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacceptable {
    pub node: NodeName,
    pub why: Objection,
}

impl fmt::Display for Unacceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.why)
    }
}

impl Acceptance {
    /// In order, in words.
    pub fn steps(&self) -> Vec<String> {
        let Acceptance { service, node, epoch, ends, .. } = self;
        let mut steps = Vec::new();
        if self.paused {
            steps.push(format!("nothing happens before `regent resume`: {service} is paused"));
        }
        if let Some(from) = &self.from {
            steps.push(format!("{from} stops its database in order and releases {service}"));
        }
        steps.push(format!("{node} opens its copy, which ends at {ends}, in epoch {epoch} on a timeline of its own"));
        let known = self.known.map_or(String::new(), |known| format!(" (the primary's reaches {known})"));
        steps.push(match self.given_up {
            Some(bytes) => {
                format!("given up: {bytes} bytes of WAL that the copy lacks{known}, as far as positions tell")
            }
            None => "given up: what the others have and the copy has not; nobody can count it".to_owned(),
        });
        if !self.others.is_empty() {
            let others: Vec<&str> = self.others.iter().map(NodeName::as_str).collect();
            steps.push(format!("copied anew from {node}: {}", others.join(", ")));
        }
        steps
    }
}

/// What `regent accept` would begin now, or why not.
pub fn decide(seen: &Outlook, name: &ServiceName, node: &NodeName) -> Result<Acceptance, Vec<Unacceptable>> {
    let why_not = |why| Unacceptable { node: node.clone(), why };
    let service = &seen.state.services[name];
    let holder = service.holder.as_ref().map(|holder| &holder.node).filter(|_| service.over.is_none());
    if holder == Some(node) {
        return Err(vec![why_not(Objection::Ledger(Ineligible::Primary))]);
    }
    // Whatever it lacks, and from wherever it comes: but it must be able to begin.
    let against = objections(seen, node, Purpose::Resume { name });
    let bars = |why: &Objection| bars_the_node(why, service.paused);
    let against: Vec<_> = against.into_iter().filter(bars).map(why_not).collect();
    let Some(database) = seen.database(node, name).filter(|_| against.is_empty()) else { return Err(against) };
    let known = known_end(seen, name).map(|known| known.end);
    let nodes = seen.state.settings.iter().flat_map(|settings| settings.database_nodes());
    Ok(Acceptance {
        service: name.clone(),
        node: node.clone(),
        from: holder.filter(|_| seen.state.fence_of(service).is_none()).cloned(),
        paused: service.paused,
        epoch: service.epoch.next(),
        ends: database.position,
        known,
        given_up: known.map(|known| lacks(service, known, database.position)),
        others: nodes.filter(|other| *other != node).cloned().collect(),
    })
}

/// What speaks against a node, and not against what its database holds. In a pause nothing begins yet: whether it is heard
/// now counts when the pause ends.
fn bars_the_node(why: &Objection, paused: bool) -> bool {
    match why {
        Objection::Ledger(_) | Objection::Unknown | Objection::NotStartable { .. } => true,
        Objection::Suspected | Objection::Deaf | Objection::Failing(_) => !paused,
        _ => false,
    }
}
