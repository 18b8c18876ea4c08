//! Who is fenced, and under which fence. Pure.

use crate::contract::Request;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// An option that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("option addresses holds {given:?}: expected IP addresses of the fenced node, with commas between them")]
    Address { given: String },
    #[error("option addresses is needed for this action: the addresses of the fenced node")]
    NoAddresses,
    #[error("option fence_id is {given:?}: expected a number")]
    Id { given: String },
    #[error("option nodename is {given:?}: expected one word")]
    Node { given: String },
}

/// One fence of one node.
#[derive(Clone, Debug)]
pub struct Target {
    pub fence: u64,
    /// Empty when no name was given.
    pub node: String,
    pub addresses: BTreeSet<IpAddr>,
}

impl Target {
    pub fn from_request(request: &Request) -> Result<Target, TargetError> {
        let text = request.text("fence_id").unwrap_or("0");
        let fence = text.parse().map_err(|_| TargetError::Id { given: text.to_owned() })?;
        let node = request.text("nodename").unwrap_or_default().to_owned();
        if node.chars().any(|c| c.is_whitespace() || c.is_control()) {
            // It goes into a line of a file: a line break in it could add lines.
            return Err(TargetError::Node { given: node });
        }
        let mut addresses = BTreeSet::new();
        for item in request.list("addresses") {
            addresses.insert(item.parse().map_err(|_| TargetError::Address { given: item.to_owned() })?);
        }
        Ok(Target { fence, node, addresses })
    }

    /// The same fence, of the node that its `off` wrote down: whoever undoes what was left behind may not know it.
    pub fn of_node(&self, told: Option<&str>) -> Target {
        Target { node: told.unwrap_or(&self.node).to_owned(), ..self.clone() }
    }

    pub fn needs_addresses(&self) -> Result<(), TargetError> {
        if self.addresses.is_empty() { Err(TargetError::NoAddresses) } else { Ok(()) }
    }
}
