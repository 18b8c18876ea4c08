//! Where all channels deliver: through the gate, to one receiver. Refusals are counted and now and then logged.

use super::gate::{Gate, Refusal, Refusals, Refused};
use crate::types::{ChannelName, Heartbeat, Instant, NodeName};
use std::collections::BTreeMap;
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
    /// The last that was let in of each peer, as it came and as it was read: the same bytes come on every channel.
    admitted: Arc<Mutex<Admitted>>,
}

/// By sender: the bytes, and what they say.
type Admitted = BTreeMap<NodeName, (Vec<u8>, Heartbeat)>;

impl Intake {
    pub fn new(gate: Gate, arrivals: mpsc::Sender<Arrival>) -> Self {
        Intake { gate: Arc::new(gate), arrivals, refusals: Arc::default(), admitted: Arc::default() }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The heartbeat in `bytes`, if the gate lets it in. What came on another channel just now is not read again.
    pub(super) fn admit(&self, bytes: &[u8]) -> Result<Heartbeat, Refusal> {
        let known = |admitted: &Admitted| {
            admitted.values().find(|(same, _)| same == bytes).map(|(_, heartbeat)| heartbeat.clone())
        };
        if let Some(heartbeat) = known(&self.admitted.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(heartbeat);
        }
        let heartbeat = self.gate.admit(bytes)?;
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.insert(heartbeat.node.clone(), (bytes.to_vec(), heartbeat.clone()));
        Ok(heartbeat)
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

#[cfg(test)]
mod tests {
    use super::super::key::{Key, Keys};
    use super::super::wire;
    use super::*;
    use crate::types::{Boot, ClusterId, Incarnation};
    use std::collections::BTreeSet;

    fn heartbeat(sequence: u64) -> Heartbeat {
        Heartbeat {
            cluster: ClusterId("orders".into()),
            node: "db2".parse().expect("valid"),
            boot: Boot("b".into()),
            incarnation: Incarnation(1),
            sequence,
            body: None,
        }
    }

    #[test]
    fn the_same_bytes_are_let_in_again_and_no_others() {
        let keys = Keys::new(Key::new(&[1; 32]), None);
        let peers = BTreeSet::from(["db2".parse().expect("valid")]);
        let gate = Gate { cluster: ClusterId("orders".into()), me: "db1".parse().expect("valid"), peers, keys };
        let signed = |sequence| wire::encode(&heartbeat(sequence), gate.keys.signing());
        let intake = Intake::new(gate.clone(), mpsc::channel(1).0);
        for bytes in [signed(1), signed(1), signed(2), signed(1)] {
            assert_eq!(intake.admit(&bytes), gate.admit(&bytes));
        }
        for bit in 0..signed(1).len() * 8 {
            let mut forged = signed(1);
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(intake.admit(&forged).is_err(), "bit {bit}");
        }
    }
}
