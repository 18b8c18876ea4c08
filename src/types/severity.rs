//! How much something that regent says matters to a person: the level of its line in the journal, and whether
//! `status` shows it as an alarm.

use serde::{Deserialize, Serialize};

/// From the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A step, or a wait that ends by itself.
    Info,
    /// Something is not as it should be, or a failover goes on.
    Warn,
    /// A person is needed.
    Error,
}
