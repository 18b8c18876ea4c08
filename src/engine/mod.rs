//! The engine: the adapter to one kind of database. It sees and does; it decides nothing.
//!
//! An engine reports what it sees as [`Observation`]s, at once when something changed (the postmaster died, a probe
//! failed), and performs one [`DbAction`] at a time. It never opens a database for writes of its own accord.

pub mod enclosure;
pub mod postgresql;

use crate::types::{DbAction, DbOutcome, Observation};

/// One kind of database. PostgreSQL is the first.
pub trait Engine: Send + Sync + 'static {
    /// Performs one action to its end. Every exit, a deadline included, is an outcome. Idempotent.
    fn perform(&self, action: DbAction) -> impl Future<Output = DbOutcome> + Send;

    /// The latest observation, without waiting.
    fn latest(&self) -> Observation;

    /// Resolves when an observation that differs from the one last seen through `latest` is there.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}
