//! Generated identifiers and counters. Names that people give are in `name.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

macro_rules! number {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl $type {
            /// The one after this.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A voter's number in Raft. Never used again for another node (openraft: a reused id can make two quorums).
    NodeId
);
number!(
    /// One start of the daemon, issued by the ledger; grows over the whole cluster. 0 = not joined yet.
    Incarnation
);
number!(
    /// The generation of a service's primary; the fencing token. 0 = no primary was ever appointed.
    Epoch
);
number!(
    /// One fence of one boot: its orders, its confirmation, its check and the appointment that uses it.
    FenceId
);
number!(
    /// One recorded switchover or failover.
    IncidentId
);
number!(
    /// One round of looking again before a verdict. Counts within a term.
    Round
);
number!(
    /// A Raft term. One leader a term (`leader_id_std`).
    Term
);
number!(
    /// The index of an entry in the replicated log.
    LogIndex
);

/// One boot of a host's kernel: the text of its boot id. Shared, as names are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Boot(pub Arc<str>);

impl From<String> for Boot {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Boot> for String {
    fn from(boot: Boot) -> String {
        boot.0.as_ref().to_owned()
    }
}

/// Which cluster: from the certificates, or the cluster's name where `insecure = true`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub String);

macro_rules! shown_as_its_text {
    ($type:ident) => {
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

shown_as_its_text!(Boot);
shown_as_its_text!(ClusterId);
