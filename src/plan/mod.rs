//! The plan: what to do next, and why. Pure functions of (ledger, what is seen, now).
//!
//! The coordinator runs on the Raft leader and decides for the cluster; the keeper runs on each database node and
//! decides for its local database. Both are level-triggered: they compare what is wanted with what is, and name the next
//! step; they may be asked again at any moment. Neither can do harm: the ledger refuses what is unsafe, and a keeper
//! opens nothing without a lease.
//!
//! Not here: doing anything (`node` hands the steps out, `daemon` and `action` do them).

pub mod accepted_copy;
pub mod alarm;
mod appointee;
mod aside;
pub mod candidate;
pub mod coordinator;
mod creation;
mod evidence;
mod failures;
pub mod fencing;
mod giving_back;
pub mod goal;
pub mod keeper;
pub(crate) mod known_end;
pub mod lead;
pub mod maintenance;
pub mod note;
pub mod objection;
mod old_boot;
mod outlook;
mod pause;
pub mod readiness;
pub mod reason;
pub mod restart;
pub mod service;
mod strike;
pub mod switchover;

#[cfg(test)]
mod coordinator_test;

pub use aside::stands_aside;
pub use coordinator::coordinate;
pub use keeper::keep;
pub use known_end::{KnownEnd, known_end, lacks, reaches};
pub use lead::{Applied, Checked, Input, Lead, LookRound, Monitored, Plan, Question, Row, Step, Timing};
pub use note::Note;
pub use objection::{Objection, Purpose, objection, objections};
pub use old_boot::Twin;
pub use outlook::Outlook;
