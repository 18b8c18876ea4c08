//! What one broken part would cost: for every single failure, whether a verdict about each database node would still
//! be possible if that node died as well.
//!
//! A model of views, not of time. It knows channels, networks and the rules of `lost` and `blind`; it assumes nothing
//! about the detector's numbers.

use super::{Config, Role};
use crate::types::NodeName;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One part that can break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Everything works.
    None,
    /// One network interface of one node.
    Nic { node: NodeName, network: Network },
    /// A whole network.
    Switch { network: Network },
    /// One node's path to the shared disk.
    DiskView { node: NodeName },
    /// The shared disk for everybody.
    SharedDisk,
    /// A whole node.
    Node { node: NodeName },
}

/// One of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Primary,
    Secondary,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::Primary => "primary",
            Network::Secondary => "secondary",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::None => write!(f, "nothing broken"),
            Failure::Nic { node, network } => write!(f, "{node}: {network} interface"),
            Failure::Switch { network } => write!(f, "{network} network"),
            Failure::DiskView { node } => write!(f, "{node}: path to the disk"),
            Failure::SharedDisk => write!(f, "shared disk"),
            Failure::Node { node } => write!(f, "{node}: whole node"),
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SingleFailure {
    pub failure: String,
    /// By database node: whether a verdict about it would still be possible. The broken node itself is left out.
    pub verdict: BTreeMap<NodeName, bool>,
    /// Whether it would be for every one of them.
    pub possible: bool,
}

/// The table: first the cluster as it should be, then every single failure.
pub fn verdict_possible(config: &Config) -> Vec<SingleFailure> {
    failures(config)
        .iter()
        .map(|failure| {
            let databases = config.nodes.iter().filter(|(_, node)| node.role == Role::Database).map(|(name, _)| name);
            let verdict: BTreeMap<NodeName, bool> = databases
                .filter(|name| !matches!(failure, Failure::Node { node } if node == *name))
                .map(|name| (name.clone(), Scene { config, failure, dead: name }.verdict()))
                .collect();
            SingleFailure { failure: failure.to_string(), possible: verdict.values().all(|yes| *yes), verdict }
        })
        .collect()
}

fn failures(config: &Config) -> Vec<Failure> {
    const NETWORKS: [Network; 2] = [Network::Primary, Network::Secondary];
    let mut all = vec![Failure::None];
    for node in config.nodes.keys() {
        all.extend(NETWORKS.map(|network| Failure::Nic { node: node.clone(), network }));
    }
    all.extend(NETWORKS.map(|network| Failure::Switch { network }));
    if config.disk.is_some() {
        let users = config.nodes.iter().filter(|(_, node)| node.disk);
        all.extend(users.map(|(node, _)| Failure::DiskView { node: node.clone() }));
        all.push(Failure::SharedDisk);
    }
    all.extend(config.nodes.keys().map(|node| Failure::Node { node: node.clone() }));
    all
}

/// One failure, and one database node that dies beside it.
struct Scene<'a> {
    config: &'a Config,
    failure: &'a Failure,
    dead: &'a NodeName,
}

impl Scene<'_> {
    /// S3: a majority of all voters each see a majority of the configured channels lost.
    fn verdict(&self) -> bool {
        let voters = self.config.nodes.len();
        let suspecting = self.config.nodes.keys().filter(|name| self.lives(name) && self.suspects(name)).count();
        suspecting * 2 > voters
    }

    fn suspects(&self, observer: &NodeName) -> bool {
        let networks = [Network::Primary, Network::Secondary];
        let lost = networks.into_iter().filter(|network| self.hears_somebody(observer, *network)).count()
            + usize::from(self.reads_disk(observer));
        lost * 2 > self.config.channels().len()
    }

    fn lives(&self, name: &NodeName) -> bool {
        name != self.dead && !matches!(self.failure, Failure::Node { node } if node == name)
    }

    /// A network on which nobody is heard is blind; one on which others are heard shows the dead node as lost.
    fn hears_somebody(&self, observer: &NodeName, network: Network) -> bool {
        let others = self.config.nodes.keys().filter(|name| *name != observer && self.lives(name));
        self.on_network(observer, network) && others.into_iter().any(|name| self.on_network(name, network))
    }

    fn on_network(&self, name: &NodeName, network: Network) -> bool {
        match self.failure {
            Failure::Nic { node, network: broken } => !(node == name && *broken == network),
            Failure::Switch { network: broken } => *broken != network,
            _ => true,
        }
    }

    /// A disk is blind only when the own write does not read back: nobody else need be on it.
    fn reads_disk(&self, observer: &NodeName) -> bool {
        self.config.disk.is_some()
            && self.config.nodes[observer].disk
            && self.config.nodes[self.dead].disk
            && match self.failure {
                Failure::DiskView { node } => node != observer,
                Failure::SharedDisk => false,
                _ => true,
            }
    }
}
