//! Which versions of PostgreSQL regent works with, of which one the programs on a node are (by now: an update changes them
//! under a server that runs), and from which one on a server knows a setting: a server ends, or ends a session, that is given
//! one that it does not know.
//!
//! An older version than these is refused: it lacks what regent relies on (backup manifests, `wal_keep_size`, a rewind that
//! leaves recovery to its caller). A newer one is warned about and used: an upgrade of the database must not be what takes
//! the service down, and what regent reads of a program or of a server it reads strictly, so that what has changed ends in
//! an error that names it.
//!
//! Not here: the version of a data directory (`layout.rs`).

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::program::{OsUser, Run};
use crate::types::Quoted;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// The major versions with which regent was tried.
pub const KNOWN: RangeInclusive<u32> = 13..=18;

/// Settings that regent gives, and that versions before this one do not know.
const SINCE: [(&str, u32); 7] = [
    ("recovery_init_sync_method", 14),
    ("idle_session_timeout", 14),
    ("shared_memory_size_in_huge_pages", 15),
    ("transaction_timeout", 17),
    ("event_triggers", 17),
    ("sync_replication_slots", 17),
    ("idle_replication_slot_timeout", 18),
];

/// Whether a server of this version knows the setting.
pub fn knows(version: u32, setting: &str) -> bool {
    SINCE.iter().find(|(name, _)| *name == setting).is_none_or(|(_, since)| version >= *since)
}

/// Refuses what is too old, a directory of programs or of data; says what is not known of a newer one.
pub fn judge(version: u32, directory: &Path) -> std::result::Result<Option<String>, String> {
    let (oldest, newest) = (KNOWN.start(), KNOWN.end());
    let here = format!("{} is of PostgreSQL {version}", directory.display());
    match version {
        _ if version < *oldest => Err(format!(
            "{here}, which lacks what regent relies on: it works with {oldest} to {newest}; \
             upgrade the database, or correct bin_dir"
        )),
        _ if version > *newest => Ok(Some(format!(
            "{here}, with which regent was not tried: it was with {oldest} to {newest}; \
             try a switchover and a rewind with it before you rely on it"
        ))),
        _ => Ok(None),
    }
}

/// The same of the programs on this host, for whoever has no engine; nothing, where there are none that say their version.
pub fn judge_programs(bin_dir: &Path) -> std::result::Result<Option<String>, String> {
    let asked = std::process::Command::new(bin_dir.join("postgres")).arg("--version").env("LC_ALL", "C").output();
    let version = asked.ok().and_then(|said| major(&String::from_utf8_lossy(&said.stdout)));
    version.map_or(Ok(None), |version| judge(version, bin_dir))
}

/// The major version of the programs of this node, which is not refused.
pub async fn of_programs(layout: &Layout, user: &OsUser, action: &'static str) -> Result<u32> {
    let said = installed(layout, user).await?;
    let version = major(&said).ok_or_else(|| unreadable(layout, &said))?;
    judge(version, &layout.bin_dir).map(|_| version).map_err(|why| EngineError::Refused { action, why })
}

/// What the programs of this node say of themselves.
async fn installed(layout: &Layout, user: &OsUser) -> Result<String> {
    let run = Run {
        user,
        program: layout.program("postgres"),
        arguments: vec!["--version".as_ref()],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: Duration::from_secs(10),
    };
    run.finish().await
}

fn unreadable(layout: &Layout, said: &str) -> EngineError {
    let detail = format!("asked for its version it says {}", Quoted(said));
    EngineError::Malformed { path: layout.program("postgres"), detail }
}

/// What the next start brings, where other programs are installed by now than those of the server that runs: an update puts
/// them in place, and a server that runs is what it was. `runs`: its `server_version`.
pub async fn brought_by_a_start(layout: &Layout, user: &OsUser, runs: &str) -> Result<Option<String>> {
    let said = installed(layout, user).await?;
    let there = version(&said).ok_or_else(|| unreadable(layout, &said))?;
    Ok(update(runs, there))
}

/// An update from one version to the other. Of programs of another major version nothing starts: they are told otherwise.
fn update(runs: &str, installed: &str) -> Option<String> {
    let number = |version: &str| version.split_whitespace().next().unwrap_or_default().to_owned();
    let (from, to) = (number(runs), number(installed));
    match from == to {
        _ if runs == installed || leading(runs) != leading(installed) => None,
        // The same, built anew.
        true => Some(format!("PostgreSQL {runs} to {installed}")),
        false => Some(format!("PostgreSQL {from} to {to}")),
    }
}

/// The major version in "postgres (PostgreSQL) 17.12 (Debian 17.12-0+deb13u1)", "… 18beta1", "… 19devel".
pub fn major(said: &str) -> Option<u32> {
    leading(version(said)?)
}

/// All of the version, as its server says it.
fn version(said: &str) -> Option<&str> {
    said.split_once("(PostgreSQL) ").map(|(_, version)| version.trim())
}

fn leading(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_server_says_of_itself() {
        let said = |number: &str| major(&format!("postgres (PostgreSQL) {number}\n"));
        assert_eq!(said("17.12 (Debian 17.12-0+deb13u1)"), Some(17));
        assert_eq!((said("13.16"), said("19devel"), said("18beta1")), (Some(13), Some(19), Some(18)));
        assert_eq!((said("9.6.24"), said("devel"), major("postgres 15")), (Some(9), None, None));
    }

    #[test]
    fn an_older_version_is_refused_and_a_newer_one_is_warned_about() {
        let bin_dir = Path::new("/opt/pg/bin");
        assert_eq!((judge(13, bin_dir), judge(18, bin_dir)), (Ok(None), Ok(None)));
        let refused = judge(12, bin_dir).expect_err("too old");
        assert!(refused.contains("/opt/pg/bin is of PostgreSQL 12") && refused.contains("13 to 18"));
        let warned = judge(19, bin_dir).expect("it may work").expect("and is warned about");
        assert!(warned.contains("PostgreSQL 19") && warned.contains("was not tried"), "{warned}");
    }

    #[test]
    fn an_update_that_waits_for_a_start_is_told_by_its_numbers() {
        let debian = |number: &str, build: u8| format!("{number} (Debian {number}-0+deb12u{build})");
        let waits = |runs: &str, installed: &str| update(runs, installed);
        assert_eq!(waits(&debian("15.14", 1), &debian("15.14", 1)), None);
        assert_eq!(waits(&debian("15.14", 1), &debian("15.16", 1)).as_deref(), Some("PostgreSQL 15.14 to 15.16"));
        assert_eq!(waits("15.16", "15.14").as_deref(), Some("PostgreSQL 15.16 to 15.14"), "taken back");
        let rebuilt = waits(&debian("15.14", 1), &debian("15.14", 2)).expect("other programs");
        assert_eq!(rebuilt, "PostgreSQL 15.14 (Debian 15.14-0+deb12u1) to 15.14 (Debian 15.14-0+deb12u2)");
        assert_eq!(waits("15.14", "16.10"), None, "no update: programs that start nothing here");
        assert_eq!(waits("18beta1", "18.0").as_deref(), Some("PostgreSQL 18beta1 to 18.0"));
    }

    #[test]
    fn a_setting_is_given_to_those_that_know_it() {
        assert!(!knows(13, "idle_session_timeout") && knows(14, "idle_session_timeout"));
        assert!(!knows(16, "transaction_timeout") && knows(17, "transaction_timeout"));
        let idle = "idle_replication_slot_timeout";
        assert!(!knows(17, idle) && knows(18, idle));
        assert!(knows(13, "lock_timeout"), "what is not listed every version knows");
    }
}
