//! How nodes talk: gRPC with mutual TLS over two networks at once, falling over from one to the other within a heartbeat.
//!
//! `server.rs` listens and knows who asks; `peer.rs` asks, over whichever `path.rs` works; `network.rs` is what openraft
//! sees of it. Not here: what is said.

pub mod dial;
pub mod identity;
pub mod network;
pub mod path;
pub mod peer;
pub mod refusals;
pub mod server;
pub mod tls;
#[cfg(test)]
mod tls_test;

/// The generated messages, client and server.
#[allow(clippy::all, missing_docs)]
pub mod proto {
    tonic::include_proto!("regent.peer.v1");
}

use crate::types::{ClusterId, NodeName};
use derive_more::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Display, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[display(rename_all = "lowercase")]
pub enum Network {
    Primary,
    Secondary,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub primary: SocketAddr,
    pub secondary: SocketAddr,
}

impl Addresses {
    pub fn on(&self, network: Network) -> SocketAddr {
        match network {
            Network::Primary => self.primary,
            Network::Secondary => self.secondary,
        }
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        self.primary.ip() == ip || self.secondary.ip() == ip
    }
}

/// How this node proves who it is.
#[derive(Clone)]
pub enum Credentials {
    /// Mutual TLS.
    Tls(Arc<tls::Tls>),
    /// `insecure = true`: a name in a header, believed when it comes from that node's own address.
    Insecure { cluster: ClusterId },
}

impl Credentials {
    pub fn cluster(&self) -> &ClusterId {
        match self {
            Credentials::Tls(tls) => tls.cluster(),
            Credentials::Insecure { cluster } => cluster,
        }
    }
}

/// Who this node is, as it says with every request.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeName,
    /// The mark of the data directory: two directories under one name are told apart by it.
    pub founder: String,
}

/// The headers that carry an [`Identity`].
pub(super) const HEADER_CLUSTER: &str = "regent-cluster";
pub(super) const HEADER_NODE: &str = "regent-node";
pub(super) const HEADER_FOUNDER: &str = "regent-founder";
