//! The lease: the primary's time-bound right to accept writes in one epoch. Pure; time is an argument.
//!
//! The holder counts from *before* it asked and uses ttl x (1 - drift); everybody else waits (ttl + watchdog + stop
//! ladder) x (1 + drift) (S5). A grant answers one numbered request and carries its ttl. Nobody reads a lease from a
//! clock of another host: the log says who holds which epoch, each node measures on its own clock.
//!
//! Source of the scheme: Gray and Cheriton, "Leases", SOSP 1989, with the clock rate error made explicit.
//!
//! Not here: sending requests, the quorum read before a grant (`node`), the file that survives a restart (`action`).

mod grantor;
mod holder;

pub use grantor::{Denial, Grant, LeaseRequest, decide};
pub use holder::Holder;
