//! Which lacks bar a standby from taking over where the file does not say: what would do harm to the data, and with what it
//! could not go on. A service without a primary is worse than one that answers more slowly or lacks a function, so all
//! else is shown, and counts only between standbys that have as much WAL.
//!
//! | kind | bars | why |
//! |---|---|---|
//! | `checksums` | yes | its data are damaged, and would be served, dumped and copied as the only truth |
//! | `collations` | yes | its indexes on text are in another order than it compares by: rows are not found, keys come twice |
//! | `version` | yes | it could not be started again after its first crash |
//! | `room` | yes | it would stop within minutes: a primary writes more than a standby |
//! | `libraries` | yes | rules of access, audit and sharding are then silently not applied to what is written |
//! | `monitoring` | no | a statistic is missing, and nothing else |
//! | `extensions` | no | what uses them ends in an error; the rest goes on, and nothing is damaged |
//! | `memory`, `huge_pages` | no | it runs already, and would be slower |
//! | `minor_version` | no | every update, one host after another, has it for a while |
//! | `archive` | no | WAL is kept until it can be archived: it takes room, and there is time to put it right |
//! | `rejoin` | no | it concerns who comes back, not who serves |
//!
//! The same table, for operators: docs/operations.md. Not here: the kinds themselves (`types/fitness.rs`), and what follows
//! (`plan/objection.rs`).

use crate::types::Lack;

/// The default of `bars`.
pub const BARS: [Lack; 5] = [Lack::Checksums, Lack::Collations, Lack::Version, Lack::Room, Lack::Libraries];
