//! How much room the volume has on which a manager keeps its ledger, and what is to be said of that.
//!
//! Not here: asking the kernel (`daemon/room.rs`), and what the log keeps for itself (`consensus/store/reserve.rs`).

use super::{Failing, Size};
use serde::{Deserialize, Serialize};

/// The volume of `data_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// How many bytes this process may still write.
    pub free_bytes: u64,
    pub size_bytes: u64,
    /// How many files may still be made; `None`: as many as there are bytes for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_files: Option<u64>,
    /// The log has blocks of its own beside these, which nobody else can take.
    pub has_reserve: bool,
}

/// Below this, or this part of a smaller volume, there is little.
const LOW: (u64, u64) = (256 << 20, 10);
/// And none to speak of: what regent writes beside the log (a final word, what its databases had) may not fit any more.
const FULL: (u64, u64) = (4 << 20, 50);
const FEW_FILES: u64 = 16;

impl Room {
    /// What is to be said on every node, and the numbers for this one.
    pub fn failing(&self) -> Option<(Failing, String)> {
        let below = |(bytes, part): (u64, u64)| self.free_bytes < bytes.min(self.size_bytes / part);
        let what = match () {
            () if below(FULL) || self.free_files.is_some_and(|files| files < FEW_FILES) => Failing::LedgerFull,
            () if below(LOW) => Failing::LedgerLow,
            () => return None,
        };
        Some((what, self.to_string()))
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} are free", Size(self.free_bytes), Size(self.size_bytes))?;
        if let Some(files) = self.free_files.filter(|files| *files < FEW_FILES) {
            write!(f, ", and {files} more files can be made")?;
        }
        f.write_str(if self.has_reserve {
            "; its log has room of its own beside that"
        } else {
            "; its log has no room of its own"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_said_before_there_is_none_also_on_a_small_volume() {
        let said = |free_bytes, size_bytes, free_files| {
            let room = Room { free_bytes, size_bytes, free_files, has_reserve: true };
            room.failing().map(|(what, _)| what)
        };
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!([said(40 * gib, 100 * gib, None), said(20 * mib, 32 * mib, Some(1000))], [None, None]);
        assert_eq!(said(200 * mib, 100 * gib, None), Some(Failing::LedgerLow));
        assert_eq!(said(3 * mib, 32 * mib, None), Some(Failing::LedgerLow));
        assert_eq!(said(3 * mib, 100 * gib, None), Some(Failing::LedgerFull));
        assert_eq!(said(0, 32 * mib, None), Some(Failing::LedgerFull));
        assert_eq!(said(40 * gib, 100 * gib, Some(3)), Some(Failing::LedgerFull), "no more files can be made");
    }
}
