//! Names that operators give: nodes, services, channels, fence agents. Not a place for generated numbers (`id.rs`).

use super::Quoted;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A name that cannot be used: what was given, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not a usable name: 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit",
    Quoted(given)
)]
pub struct InvalidName {
    pub given: String,
}

fn is_valid(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() <= 63
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The first eight bytes as one number, which compares as they do (no name has a zero byte).
fn beginning(name: &str) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(first)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        ///
        /// The text is shared, and its beginning kept beside it: names are copied and compared all the time, and few
        /// are ever made.
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type {
            beginning: u64,
            text: Arc<str>,
        }

        impl $type {
            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Eq for $type {}

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                match self.beginning.cmp(&other.beginning) {
                    Ordering::Equal if Arc::ptr_eq(&self.text, &other.text) => Ordering::Equal,
                    Ordering::Equal => self.text.cmp(&other.text),
                    unequal => unequal,
                }
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(given: String) -> Result<Self, InvalidName> {
                if !is_valid(&given) {
                    return Err(InvalidName { given });
                }
                Ok(Self { beginning: beginning(&given), text: given.into() })
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(given: &str) -> Result<Self, InvalidName> {
                Self::try_from(given.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.text.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }
    };
}

name!(
    /// The name of a node: the key of its table under `[nodes]`.
    NodeName
);
name!(
    /// The name of a service: the key of its table under `[service]`.
    ServiceName
);
name!(
    /// The name of a heartbeat channel: `primary`, `secondary`, `disk`.
    ChannelName
);

impl ChannelName {
    /// The network of the nodes' addresses `primary`.
    pub fn primary() -> Self {
        "primary".parse().expect("a constant, valid name")
    }

    /// The network of the nodes' addresses `secondary`.
    pub fn secondary() -> Self {
        "secondary".parse().expect("a constant, valid name")
    }

    /// The slots on the shared disk.
    pub fn disk() -> Self {
        Self::DISK.parse().expect("a constant, valid name")
    }

    /// Whether this is the shared disk; every other channel is a network.
    pub fn is_disk(&self) -> bool {
        self.as_str() == Self::DISK
    }

    const DISK: &'static str = "disk";
}
name!(
    /// The name of a fence agent: the key of its table under `[fencing.agents]`, or the built-in `lease`.
    AgentName
);

impl AgentName {
    /// The agent that no table defines: it does nothing but wait until lease and watchdog have surely passed.
    pub const LEASE: &'static str = "lease";

    /// The name of the built-in agent.
    pub fn lease() -> Self {
        Self::LEASE.parse().expect("a constant, valid name")
    }

    /// Whether this is the built-in agent, which waits and is never run.
    pub fn is_lease(&self) -> bool {
        self.as_str() == Self::LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_as_their_texts_do() {
        let texts =
            ["a", "a.b", "a0", "db1", "db10", "db2", "longname", "longname1", "longnames-a", "longnames-b", "x"];
        let names: Vec<NodeName> = texts.iter().map(|text| text.parse().expect("valid")).collect();
        for (a, m) in texts.iter().zip(&names) {
            for (b, n) in texts.iter().zip(&names) {
                assert_eq!(m.cmp(n), a.cmp(b), "{a} and {b}");
                assert_eq!(*m == b.parse().expect("valid"), a == b, "{a} and {b}");
            }
        }
    }

    #[test]
    fn names_are_checked_when_they_are_read() {
        assert!("db1".parse::<NodeName>().is_ok());
        assert!("db-1.example_a".parse::<NodeName>().is_ok());
        for bad in ["", "-db1", "db 1", "db/1", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was accepted");
        }
        assert!(serde_json::from_str::<NodeName>("\"../etc\"").is_err());
    }

    #[test]
    fn the_built_in_agent_is_the_one_that_waits() {
        assert!(AgentName::lease().is_lease() && "lease".parse::<AgentName>().unwrap().is_lease());
        assert!(!"ipmi".parse::<AgentName>().unwrap().is_lease());
    }
}
