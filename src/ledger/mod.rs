//! The ledger: the state machine that Raft replicates, and the one place where the safety rules S2, S3 and S4 are
//! enforced. A bug anywhere else costs availability, never safety.
//!
//! `apply` is total and deterministic: no clock, no float, no randomness, ordered maps only. What cannot apply is a
//! recorded refusal. Nothing else in the program may grant an appointment.
//!
//! Not here: deciding what to propose (`plan`), replicating it (`consensus`).

mod apply;
mod appoint;
mod assist;
mod bounds;
mod claimed;
mod command;
mod copies;
mod eligible;
mod fence;
pub mod format;
mod incident;
mod invariant;
mod join;
mod lease_wait;
mod loss;
mod machine;
mod maintenance;
mod pass_over;
mod pause;
mod quorum;
mod refusal;
mod restart;
mod sentence;
mod service;
mod settings;
mod shared;
mod state;

#[cfg(test)]
mod bounds_test;
#[cfg(test)]
mod fence_test;
#[cfg(test)]
mod ledger_test;
#[cfg(test)]
mod timeline_test;
#[cfg(test)]
pub(crate) mod world_test;

pub use apply::{apply, set_voters};
pub use claimed::Claimed;
pub use command::{
    Answer, Basis, CheckAnswer, Claim, ClaimState, Command, Entry, Event, FenceReason, NewOrder, Sighting,
};
pub use copies::{AcceptedCopy, CopyOrder};
pub use eligible::Ineligible;
pub use incident::{Happening, Incident, IncidentKind, Outcome, StepRecord};
pub use invariant::violations;
pub use loss::AcceptedLoss;
pub use machine::{Likeness, Machine};
pub use maintenance::Maintenance;
pub use pass_over::NoLease;
pub use pause::Pause;
pub use quorum::is_majority;
pub use refusal::Refusal;
pub use restart::RestartOrder;
pub use settings::{AgentSettings, NodeSettings, Settings};
pub use shared::Shared;
pub use state::{
    Begun, Cause, Confirmation, EpochRecord, Fence, FenceState, Holder, Life, Move, NodeRecord, Order, OrderState,
    Over, Phase, Refused, Service, State,
};
