//! `backup_label`, by which a backup says where its recovery begins. A server takes it away at its first start, so a directory
//! in which this node's database has run has none. One that is there all the same was left by a backup of this very database
//! that its host did not outlive (an exclusive one of PostgreSQL 13 and 14, a tool that copies files), or it came with a copy
//! that somebody put there. In the first case PostgreSQL would recover as if it were a copy, and wait for an end of that backup
//! that never comes; in the second it must stay, or what is opened is torn. Nothing tells the two for sure, so a person says.
//!
//! Not here: copies that regent makes itself, of which nothing is remembered before they have run (`remembered.rs`), and
//! standbys: what a person copied for one gets the rest from its primary.
//!
//! Sources: PostgreSQL manual 14, "Making an Exclusive Low-Level Backup"; `read_backup_label` in xlog.c.

use super::error::{EngineError, Result};
use super::layout::{BACKUP_LABEL, Layout};
use crate::types::{Lsn, Quoted};

/// Refuses to open a directory in which one was left.
pub fn refuse_left(layout: &Layout) -> Result<()> {
    match layout.has_within(BACKUP_LABEL) {
        true => Err(left(layout, &layout.text_within(BACKUP_LABEL)?)),
        false => Ok(()),
    }
}

fn left(layout: &Layout, label: &str) -> EngineError {
    let about = [("LABEL", "called"), ("START TIME", "begun")];
    let about = about.iter().filter_map(|(field, word)| Some(format!("{word} {}", Quoted(said(label, field)?))));
    let about = about.collect::<Vec<_>>().join(", ");
    EngineError::LabelLeft { label: layout.within(BACKUP_LABEL), about }
}

/// Where the backup begins: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)".
pub fn start(label: &str) -> Option<Lsn> {
    said(label, "START WAL LOCATION")?.split_whitespace().next()?.parse().ok()
}

/// What it says there.
fn said<'a>(label: &'a str, field: &str) -> Option<&'a str> {
    label.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_field_by_field() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
            CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: pg_start_backup\nBACKUP FROM: primary\n\
            START TIME: 2026-11-30 02:00:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";
        assert_eq!(start(label), Some(Lsn(0x200_0028)));
        assert_eq!((said(label, "LABEL"), said(label, "START TIMELINE")), (Some("nightly"), Some("1")));
        assert_eq!((start(""), said("", "LABEL")), (None, None));
    }
}
