//! The two networks over which another node's database is reached, and which of them comes first: the one over which a
//! connection worked last. It is the same for the stream, a copy, a rewind and every question, whoever is followed.
//!
//! Not here: what finds out which one works (`stream.rs`, `upstream.rs`, `clone.rs`).

use crate::config::{Config, Node};
use crate::types::{Network, Upstream};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The network that this address of a node belongs to.
pub fn network_of(config: &Config, address: IpAddr) -> Option<Network> {
    let of = |node: &Node| match address {
        _ if node.primary == address => Some(Network::Primary),
        _ if node.secondary == address => Some(Network::Secondary),
        _ => None,
    };
    config.nodes.values().find_map(of)
}

/// Which network comes first. It is forgotten with the daemon, but for what the file of a server that runs says.
#[derive(Debug, Default)]
pub struct Networks {
    secondary_first: AtomicBool,
    /// By which receiver the standby streams, and over which network.
    in_use: Mutex<Option<(i32, Network)>>,
}

impl Networks {
    pub fn first(&self) -> Network {
        if self.secondary_first.load(Ordering::Relaxed) { Network::Secondary } else { Network::Primary }
    }

    /// From here on connections begin with this one. Whether that is new.
    pub fn prefer(&self, network: Network) -> bool {
        let secondary = network == Network::Secondary;
        self.secondary_first.swap(secondary, Ordering::Relaxed) != secondary
    }

    /// The WAL receiver with this process id streams over that network.
    pub fn is_used(&self, receiver: i32, network: Network) {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = Some((receiver, network));
    }

    /// Over which network that receiver streams, as far as is known.
    pub fn used_by(&self, receiver: i32) -> Option<Network> {
        let in_use = *self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.filter(|(by, _)| *by == receiver).map(|(_, network)| network)
    }

    /// The same upstream, with its addresses in the order in which they are tried.
    pub fn ordered(&self, config: &Config, upstream: &Upstream) -> Upstream {
        let (first, mut ordered) = (self.first(), upstream.clone());
        ordered.addresses.sort_by_key(|address| network_of(config, *address) != Some(first));
        ordered
    }
}
