//! Where all channels deliver: through the gate, to one receiver. Refusals are counted and now and then logged.

use super::gate::{Gate, Refusal, Refusals, Refused};
use crate::types::{ChannelName, Heartbeat, Instant};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// A heartbeat that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub channel: ChannelName,
    /// When it reached this host (not when it was read from a backlog).
    pub at: Instant,
    /// The sender's address; `None` on the disk.
    pub from: Option<IpAddr>,
    pub heartbeat: Heartbeat,
}

/// The common end of all channels. Clones share it.
#[derive(Clone, Debug)]
pub struct Intake {
    gate: Arc<Gate>,
    arrivals: mpsc::Sender<Arrival>,
    refusals: Arc<Mutex<Refusals>>,
}

impl Intake {
    pub fn new(gate: Gate, arrivals: mpsc::Sender<Arrival>) -> Self {
        Intake { gate: Arc::new(gate), arrivals, refusals: Arc::default() }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Everything refused since start, for `status`.
    pub fn refused(&self) -> Vec<Refused> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).rows()
    }

    pub(super) fn refuse(&self, now: Instant, channel: &ChannelName, from: Option<IpAddr>, refusal: &Refusal) {
        if self.refusals.lock().unwrap_or_else(PoisonError::into_inner).record(now, channel, from, refusal) {
            tracing::warn!(%channel, from = from.map(tracing::field::display), "refused {refusal}");
        }
    }

    /// Delivers, waiting while the receiver is behind. False when it is gone: the daemon is ending.
    pub(super) async fn deliver(&self, arrival: Arrival) -> bool {
        self.arrivals.send(arrival).await.is_ok()
    }

    /// Delivers from a plain thread, without waiting: what does not fit is lost, as on a network. False when the
    /// receiver is gone.
    pub(super) fn deliver_now(&self, arrival: Arrival) -> bool {
        !matches!(self.arrivals.try_send(arrival), Err(mpsc::error::TrySendError::Closed(_)))
    }
}
