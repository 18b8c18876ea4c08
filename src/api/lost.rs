//! What `regent lost --json` prints: one value a line, since nobody knows beforehand how many transactions there are. For each
//! loss that the incident names a `loss`; where its WAL was read, a `transaction` for each, and an `end`.
//!
//! The schema is stable as that of `super::status`, under the same number.
//! Not here: the values themselves (`types/lost.rs`).

use super::status::MayBeLost;
use crate::types::{IncidentId, LostSummary, LostTransaction, Lsn, Timeline};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum LostPart {
    Loss(Box<Loss>),
    Transaction(LostTransaction),
    End(LostSummary),
}

/// What the incident says, and which WAL tells more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub schema: u32,
    pub incident: IncidentId,
    pub what: MayBeLost,
    /// `None`: nothing can be listed, and `not_read` says why.
    pub wal: Option<LostWal>,
    pub not_read: Option<String>,
}

/// The WAL that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWal {
    pub folder: PathBuf,
    pub timeline: Timeline,
    /// Where the new timeline left this one.
    pub fork: Lsn,
    /// Where it ends, as far as that was noted when it was kept.
    pub end: Option<Lsn>,
}
