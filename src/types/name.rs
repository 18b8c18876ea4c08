//! Names that operators give: nodes, services, channels, fence agents. Not a place for generated numbers (`id.rs`).

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A name that cannot be used: what was given, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a usable name: 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit")]
pub struct InvalidName {
    pub given: String,
}

fn is_valid(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() <= 63
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        ///
        /// The text is shared: names are copied and compared all the time, and few are ever made.
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
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
                if is_valid(&given) { Ok(Self(given.into())) } else { Err(InvalidName { given }) }
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
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
name!(
    /// The name of a fence agent: the key of its table under `[fencing.agents]`, or the built-in `lease`.
    AgentName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_when_they_are_read() {
        assert!("db1".parse::<NodeName>().is_ok());
        assert!("db-1.example_a".parse::<NodeName>().is_ok());
        for bad in ["", "-db1", "db 1", "db/1", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was accepted");
        }
        assert!(serde_json::from_str::<NodeName>("\"../etc\"").is_err());
    }
}
