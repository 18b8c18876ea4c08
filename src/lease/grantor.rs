//! The grantor's side: whether a request may be granted, decided on the ledger as applied up to the grantor's own
//! quorum read. After a verdict or a fence order nothing is granted, because both are in the ledger.

use crate::known_bugs::{self, Bug};
use crate::ledger::{Life, State};
use crate::types::{Boot, Epoch, Incarnation, NodeName, ServiceName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A holder asks for (or renews) its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    pub service: ServiceName,
    pub epoch: Epoch,
    /// Counts this holder's requests; the grant echoes it.
    pub number: u64,
    pub node: NodeName,
    pub boot: Boot,
    pub incarnation: Incarnation,
    /// The unproven resume that the holder itself had applied when it asked.
    #[serde(default)]
    pub resumed: Option<u64>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub epoch: Epoch,
    pub number: u64,
    /// ttl x (1 - drift), from before the request was sent.
    pub use_for: Duration,
    /// The resume that this renewal proves the holder to know of.
    pub resumed: Option<u64>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    #[error("the ledger knows no such service or has no settings yet")]
    Unknown,
    #[error("epoch {asked} is not the present one ({current}) or is over")]
    OldEpoch { asked: Epoch, current: Epoch },
    #[error("{node} does not hold that epoch in this boot and incarnation")]
    NotHolder { node: NodeName },
    #[error("{node} is declared dead")]
    Dead { node: NodeName },
    #[error("{node} is being fenced")]
    Fenced { node: NodeName },
    #[error("{node} did not take over in time and is being passed over")]
    PassedOver { node: NodeName },
}

impl Denial {
    /// Whether it ends the right to write at once: a quorum has a newer epoch than the one that was asked for, or has given
    /// its node up. (A holder of another incarnation learns from its own join what it holds.)
    pub fn is_final(&self) -> bool {
        match self {
            Denial::OldEpoch { .. } | Denial::Dead { .. } | Denial::Fenced { .. } => true,
            Denial::Unknown | Denial::NotHolder { .. } | Denial::PassedOver { .. } => false,
        }
    }
}

/// Decides one request. `state` must be applied up to a quorum read that began after the request arrived.
pub fn decide(state: &State, request: &LeaseRequest) -> Result<Grant, Denial> {
    let service = state.services.get(&request.service).ok_or(Denial::Unknown)?;
    let settings = state.settings.as_ref().ok_or(Denial::Unknown)?;
    if service.epoch != request.epoch || service.over.is_some() {
        return Err(Denial::OldEpoch { asked: request.epoch, current: service.epoch });
    }
    let held = service
        .holder
        .as_ref()
        .is_some_and(|h| h.node == request.node && h.boot == request.boot && h.incarnation == request.incarnation);
    if !held {
        return Err(Denial::NotHolder { node: request.node.clone() });
    }
    match state.present(&request.node, request.incarnation) {
        None => return Err(Denial::NotHolder { node: request.node.clone() }),
        Some(node) if node.life == Life::Dead => return Err(Denial::Dead { node: request.node.clone() }),
        Some(_) => {}
    }
    if state.is_fenced(&request.node, &request.boot) {
        return Err(Denial::Fenced { node: request.node.clone() });
    }
    if service.denied && !known_bugs::has(Bug::PassedOverAfterGrant) {
        return Err(Denial::PassedOver { node: request.node.clone() });
    }
    Ok(Grant {
        epoch: request.epoch,
        number: request.number,
        use_for: settings.lease_use(),
        // Only a holder that asked in the knowledge of the resume is bound by its lease again: one that still believed in
        // the pause, and never gets this answer, writes on for ever (H1.6).
        resumed: service.unproven_resume.filter(|resume| request.resumed == Some(*resume)),
    })
}
