//! Who may speak on a channel: an authentic heartbeat of this cluster, from a configured peer, from its own address.
//! Pure. What is refused is counted per channel and reason, so that `status` can show it and the log is not flooded.

use super::key::Keys;
use super::wire::{self, WireError};
use crate::types::{ChannelName, ClusterId, Heartbeat, Instant, NodeName};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The same refusal is logged once in so long.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Why a message was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a heartbeat of cluster {cluster}, node {node}: two clusters use the same address, disk or key")]
    WrongCluster { cluster: ClusterId, node: NodeName },
    #[error("a heartbeat of node {node}, which is not in this node's configuration")]
    UnknownNode { node: NodeName },
    #[error("a heartbeat in this node's own name {node}: another host uses it, or this host hears itself")]
    OwnName { node: NodeName },
    #[error("a heartbeat of node {node} from {from}, expected {expected}: compare the addresses under [nodes]")]
    ForeignAddress { node: NodeName, from: IpAddr, expected: IpAddr },
    #[error("slot of node {owner} holds a heartbeat of node {node}")]
    ForeignSlot { node: NodeName, owner: NodeName },
}

impl Refusal {
    /// The kind of refusal: one word, the same for all of a kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::Wire(WireError::NotAHeartbeat) => "not_a_heartbeat",
            Refusal::Wire(WireError::HeaderVersion { .. }) => "header_version",
            Refusal::Wire(WireError::BadMac { .. }) => "bad_mac",
            Refusal::Wire(WireError::Malformed { .. }) => "malformed",
            Refusal::WrongCluster { .. } => "wrong_cluster",
            Refusal::UnknownNode { .. } => "unknown_node",
            Refusal::OwnName { .. } => "own_name",
            Refusal::ForeignAddress { .. } => "foreign_address",
            Refusal::ForeignSlot { .. } => "foreign_slot",
        }
    }
}

/// What is let in.
#[derive(Clone, Debug)]
pub struct Gate {
    pub cluster: ClusterId,
    pub me: NodeName,
    pub peers: BTreeSet<NodeName>,
    pub keys: Keys,
}

impl Gate {
    /// The heartbeat in `bytes`, if it is authentic, of this cluster and of a peer.
    pub fn admit(&self, bytes: &[u8]) -> Result<Heartbeat, Refusal> {
        let heartbeat = wire::decode(bytes, &self.keys)?;
        let node = heartbeat.node.clone();
        if heartbeat.cluster != self.cluster {
            Err(Refusal::WrongCluster { cluster: heartbeat.cluster, node })
        } else if node == self.me {
            Err(Refusal::OwnName { node })
        } else if !self.peers.contains(&node) {
            Err(Refusal::UnknownNode { node })
        } else {
            Ok(heartbeat)
        }
    }
}

/// One kind of refusal on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub channel: ChannelName,
    /// One word.
    pub kind: &'static str,
    pub count: u64,
    pub last_at: Instant,
    /// Where the last one came from, on a network.
    pub last_from: Option<IpAddr>,
    /// The last one, in a sentence.
    pub last: String,
}

/// Everything refused since start: one row per channel and kind, so it cannot grow.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    rows: BTreeMap<(ChannelName, &'static str), (Refused, Instant)>,
}

impl Refusals {
    /// Counts a refusal. True when it should be logged: the first of its row, and then one in half a minute.
    pub fn record(&mut self, now: Instant, channel: &ChannelName, from: Option<IpAddr>, refusal: &Refusal) -> bool {
        let kind = refusal.kind();
        let last = refusal.to_string();
        let new = Refused { channel: channel.clone(), kind, count: 1, last_at: now, last_from: from, last };
        match self.rows.entry((channel.clone(), kind)) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert((new, now));
                true
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let (row, logged) = occupied.get_mut();
                *row = Refused { count: row.count.saturating_add(1), ..new };
                let log = now.since(*logged) >= LOG_EVERY;
                if log {
                    *logged = now;
                }
                log
            }
        }
    }

    /// All rows, for `status`.
    pub fn rows(&self) -> Vec<Refused> {
        self.rows.values().map(|(row, _)| row.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;
    use crate::types::{Boot, Incarnation};

    fn gate() -> Gate {
        Gate {
            cluster: ClusterId("orders".into()),
            me: "db1".parse().unwrap(),
            peers: BTreeSet::from(["db2".parse().unwrap()]),
            keys: Keys::new(Key::new(&[1; 32]), None),
        }
    }

    fn bytes(cluster: &str, node: &str) -> Vec<u8> {
        let heartbeat = Heartbeat {
            cluster: ClusterId(cluster.into()),
            node: node.parse().unwrap(),
            boot: Boot("b".into()),
            incarnation: Incarnation(1),
            sequence: 1,
            body: None,
        };
        wire::encode(&heartbeat, gate().keys.signing())
    }

    #[test]
    fn only_peers_of_this_cluster_are_let_in() {
        assert!(gate().admit(&bytes("orders", "db2")).is_ok());
        for (cluster, node, kind) in
            [("staging", "db2", "wrong_cluster"), ("orders", "db9", "unknown_node"), ("orders", "db1", "own_name")]
        {
            let refusal = gate().admit(&bytes(cluster, node)).unwrap_err();
            assert_eq!(refusal.kind(), kind);
            assert!(refusal.to_string().contains(node), "{refusal}");
        }
        assert_eq!(gate().admit(b"hello").unwrap_err().kind(), "not_a_heartbeat");
    }

    #[test]
    fn a_flood_is_counted_and_logged_once() {
        let mut refusals = Refusals::default();
        let channel: ChannelName = "primary".parse().unwrap();
        let second = |n: u64| Instant(n * 1_000_000_000);
        let mut logged = 0;
        for n in 0..1000u64 {
            let node = format!("db{n}").parse().unwrap();
            logged += u32::from(refusals.record(second(n / 100), &channel, None, &Refusal::UnknownNode { node }));
        }
        assert_eq!(logged, 1);
        let rows = refusals.rows();
        assert_eq!((rows.len(), rows[0].count), (1, 1000));
        assert!(rows[0].last.contains("db999"));
        let again = Refusal::UnknownNode { node: "db1".parse().unwrap() };
        assert!(refusals.record(second(30), &channel, None, &again));
        assert!(!refusals.record(second(31), &channel, None, &again));
    }
}
