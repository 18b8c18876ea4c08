//! What consensus needs to know to start: taken from the configuration.

use super::transport::Addresses;
use crate::config::{Config, RaftTiming, Tls};
use crate::types::{NodeId, NodeName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How nodes prove who they are.
#[derive(Clone, Debug)]
pub enum Security {
    Tls(Tls),
    /// No TLS. The cluster's id is its name.
    Insecure,
}

/// Everything that a start needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name: the cluster id begins with it.
    pub cluster: String,
    pub me: NodeName,
    /// All voters. Their numbers are 1..n in the order of their names.
    pub nodes: BTreeMap<NodeName, Addresses>,
    /// Where `stamp.json`, `lock`, `raft.redb` and `raft.mark` are kept.
    pub data_dir: PathBuf,
    pub timing: RaftTiming,
    pub security: Security,
    pub config_hash: u64,
    /// A snapshot after so many entries.
    pub snapshot_every: u64,
    /// So many entries that a snapshot covers are kept, for followers that are a little behind.
    pub keep_entries: u64,
}

impl Options {
    /// From a valid configuration.
    pub fn from_config(config: &Config) -> Self {
        let nodes = config.nodes.iter().map(|(name, node)| {
            let on = |ip| SocketAddr::new(ip, node.grpc_port);
            (name.clone(), Addresses { primary: on(node.primary), secondary: on(node.secondary) })
        });
        Options {
            cluster: config.cluster.clone(),
            me: config.node.clone(),
            nodes: nodes.collect(),
            data_dir: config.data_dir.clone(),
            timing: config.raft.clone(),
            security: config.security.tls.clone().map_or(Security::Insecure, Security::Tls),
            config_hash: config.hash,
            snapshot_every: 1000,
            keep_entries: 200,
        }
    }

    /// The voters by number.
    pub fn voters(&self) -> BTreeMap<NodeId, NodeName> {
        (1..).map(NodeId).zip(self.nodes.keys().cloned()).collect()
    }

    /// openraft's own configuration.
    pub(super) fn raft_config(&self) -> openraft::Config {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        let longest = ms(self.timing.election_max);
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: ms(self.timing.heartbeat),
            election_timeout_min: ms(self.timing.election_min),
            election_timeout_max: longest,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            install_snapshot_timeout: longest.saturating_mul(10).max(5_000),
            // A node that cannot win does not raise the term.
            enable_pre_vote: Some(true),
            // A cut-off leader falls silent, so that a bridge node's lease ends (openraft #2080).
            quorum_loss_probe_interval: Some(longest.saturating_mul(2)),
            // A restarted leader must be elected: its old term's leases are not known to it any more.
            enable_leader_restore: Some(false),
            // A member whose log went backwards is removed and added again, never taken back.
            allow_log_reversion: Some(false),
            // Followers get an entry while the leader still writes it.
            broadcast_submitted_on_append: Some(true),
            ..openraft::Config::default()
        }
    }
}
