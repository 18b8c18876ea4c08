//! The number of the form in which commands, states and whatever else `data_dir` keeps are written: the one place where
//! it stands. Every format from the first to the present one is read; a newer one is refused, never guessed at.
//!
//! Raise it when what is written changes: a field, a variant, an encoding. `tests/golden/format/` notices a change.
//! Members of two versions apply the same entries, so what `apply` makes of an entry that an older version may have
//! written never changes: a new rule comes with a command, or a field, of the new format ([`Command::format`]).
//!
//! Not here: where it is written (`consensus`: the stamp of the directory, each entry, each snapshot).
//!
//! [`Command::format`]: super::Command::format

use serde::{Deserialize, Serialize};

/// What this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What was written before there was a number.
pub const FIRST: u32 = 1;

/// Something was written in a newer format than this program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format {found}, and this regent reads formats up to {FORMAT}: upgrade regent on this host")]
pub struct NewerFormat {
    pub found: u32,
}

/// A format that this program reads. What does not say its format has the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Format(u32);

impl Default for Format {
    fn default() -> Self {
        Format(FIRST)
    }
}

impl From<Format> for u32 {
    fn from(format: Format) -> u32 {
        format.0
    }
}

impl TryFrom<u32> for Format {
    type Error = NewerFormat;

    fn try_from(found: u32) -> Result<Self, NewerFormat> {
        if found > FORMAT { Err(NewerFormat { found }) } else { Ok(Format(found)) }
    }
}
