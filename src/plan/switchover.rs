//! A planned move before anything is touched: whether it would be begun, to whom, and what would happen.
//!
//! Not here: carrying it out (`keeper/` stops the primary in order, `service.rs` appoints the next).

use super::objection::{Objection, Purpose, objections};
use super::{Outlook, failures};
use crate::ledger::{Ineligible, Refusal};
use crate::types::{Epoch, NodeName, ServiceName};
use std::cmp::Reverse;
use std::fmt;

/// What would keep it from being begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The ledger would refuse it, whoever the target is.
    Ledger(Refusal),
    /// This node may not be the target.
    Target { node: NodeName, why: Objection },
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hindrance::Ledger(refusal) => refusal.fmt(f),
            Hindrance::Target { node, why } => write!(f, "{node}: {why}"),
        }
    }
}

/// A move that nothing speaks against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switchover {
    pub service: ServiceName,
    /// The epoch that the primary would release.
    pub epoch: Epoch,
    pub from: NodeName,
    pub to: NodeName,
    /// By how many bytes of WAL the target was behind, where both said.
    pub behind: Option<u64>,
    pub max_lag: u64,
}

/// One step of what would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveStep {
    Checkpoint {
        from: NodeName,
    },
    Stop {
        from: NodeName,
        to: NodeName,
    },
    Release {
        from: NodeName,
        service: ServiceName,
        epoch: Epoch,
    },
    Appoint {
        to: NodeName,
        epoch: Epoch,
    },
    Follow {
        from: NodeName,
        to: NodeName,
    },
    /// What happens instead where the target is too late.
    Otherwise {
        from: NodeName,
        to: NodeName,
    },
}

impl fmt::Display for MoveStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MoveStep::Checkpoint { from } => write!(f, "{from} writes a checkpoint, while it still takes writes"),
            MoveStep::Stop { from, to } => {
                write!(f, "{from} stops its database in order, so that all WAL reaches {to}")
            }
            MoveStep::Release { from, service, epoch } => {
                write!(f, "{from} releases epoch {epoch} of {service} with its final position")
            }
            MoveStep::Appoint { to, epoch } => write!(
                f,
                "{to} is appointed in epoch {epoch} once it has reached that position, takes the lease and promotes"
            ),
            MoveStep::Follow { from, to } => write!(f, "{from} comes back as a standby of {to}"),
            MoveStep::Otherwise { from, to } => {
                write!(f, "should {to} not reach the position in time, {from} is appointed again")
            }
        }
    }
}

impl Switchover {
    /// What would happen, in order.
    pub fn steps(&self) -> Vec<MoveStep> {
        let (from, to) = (|| self.from.clone(), || self.to.clone());
        vec![
            MoveStep::Checkpoint { from: from() },
            MoveStep::Stop { from: from(), to: to() },
            MoveStep::Release { from: from(), service: self.service.clone(), epoch: self.epoch },
            MoveStep::Appoint { to: to(), epoch: self.epoch.next() },
            MoveStep::Follow { from: from(), to: to() },
            MoveStep::Otherwise { from: from(), to: to() },
        ]
    }
}

impl fmt::Display for Switchover {
    /// Why it would be begun.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Switchover { from, to, behind, max_lag, .. } = self;
        let behind = behind.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
        write!(
            f,
            "{to} lives, is not fenced and can hold a lease; it streams from {from} and is {behind} bytes behind \
             (max_lag: {max_lag})"
        )
    }
}

/// The move that `regent switchover` would begin now, or every reason why none. Without `to`, the best of those against
/// whom nothing speaks: fewest things that it lacks, fewest failures, priority, most WAL, name.
pub fn decide(seen: &Outlook, name: &ServiceName, to: Option<&NodeName>) -> Result<Switchover, Vec<Hindrance>> {
    let from = &seen.state.may_move(name).map_err(|refusal| vec![Hindrance::Ledger(refusal)])?.node;
    let (mut able, mut why_not) = (Vec::new(), Vec::new());
    let database_nodes = seen.state.settings.iter().flat_map(|settings| settings.database_nodes());
    let wanted: Vec<&NodeName> = match to {
        Some(to) => vec![to],
        None => database_nodes.filter(|node| *node != from).collect(),
    };
    for node in wanted {
        let against = match node == from {
            true => vec![Objection::Ledger(Ineligible::Primary)],
            false => objections(seen, node, Purpose::Switchover { name, from }),
        };
        if against.is_empty() {
            able.push(node);
        }
        why_not.extend(against.into_iter().map(|why| Hindrance::Target { node: node.clone(), why }));
    }
    let lsn = |node: &NodeName| seen.database(node, name).map(|database| database.position.lsn);
    let rank = |node: &&NodeName| {
        let failures = failures::counted(seen, node);
        let priority = seen.config.nodes.get(*node).map_or(0, |n| n.priority);
        let lacks = seen.database(node, name).map_or(0, |database| database.unfit.len());
        (Reverse(lacks), Reverse(failures), priority, lsn(node), Reverse((*node).clone()))
    };
    let to = able.into_iter().max_by_key(rank).ok_or(why_not)?;
    Ok(Switchover {
        service: name.clone(),
        epoch: seen.state.services[name].epoch,
        from: from.clone(),
        to: to.clone(),
        behind: lsn(from).zip(lsn(to)).map(|(primary, own)| primary.0.saturating_sub(own.0)),
        max_lag: seen.config.failover.max_lag,
    })
}
