//! Which of PostgreSQL's parameters are regent's: the one list for the check of the file, for the engine, and for what is
//! tried on a host. And how the operator's may be written: they become lines of a file that the server reads.
//!
//! Not here: the values (`engine/postgresql/settings.rs`).

use super::problem::Problems;
use super::{Postgresql, raw, values};
use crate::types::Quoted;
use std::collections::BTreeMap;

/// Set by regent alone, on the server's command line, where neither a file nor ALTER SYSTEM overrides them; but for the last
/// two, which change while it runs: those are read back from it (`engine/postgresql/reload.rs`).
const OWNED: [&str; 22] = [
    "listen_addresses",
    "port",
    "hba_file",
    "ident_file",
    "config_file",
    "data_directory",
    "external_pid_file",
    "unix_socket_directories",
    "unix_socket_permissions",
    "restart_after_crash",
    "hot_standby",
    "full_page_writes",
    "wal_log_hints",
    "recovery_target_timeline",
    "recovery_min_apply_delay",
    "recovery_end_command",
    "promote_trigger_file",
    IDLE_SLOTS,
    // A standby that comes to its target ends its recovery, or itself.
    "recovery_target",
    "primary_slot_name",
    "restore_command",
    "primary_conninfo",
];
/// It would spend the slots of standbys that are away.
pub const IDLE_SLOTS: &str = "idle_replication_slot_timeout";
/// And what begins so.
const TARGETS: &str = "recovery_target_";

/// Which standbys a commit waits for is not in the file: without a synchronous mode regent does not know of it, and would
/// promote one that is not among them.
const NOT_TAKEN: [&str; 1] = ["synchronous_standby_names"];

/// What a line of the server's file takes for an order to read another one.
const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

/// Whether regent alone sets this parameter.
pub fn is_owned(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OWNED.contains(&name.as_str()) || name.starts_with(TARGETS)
}

/// The operator's parameters on this node: everybody asks here.
pub fn operators(postgresql: &Postgresql) -> &BTreeMap<String, String> {
    &postgresql.parameters
}

/// The operator's value of one of them.
pub fn operators_value<'a>(postgresql: &'a Postgresql, name: &str) -> Option<&'a String> {
    let found = operators(postgresql).iter().rfind(|(written, _)| written.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// Why a parameter may not be written in the file, and what to do.
pub(super) fn refused(name: &str, value: &str) -> Option<(String, &'static str)> {
    let lower = name.to_ascii_lowercase();
    if is_owned(name) {
        let remedy = match lower.as_str() {
            IDLE_SLOTS => {
                "remove it: it would spend the slots of standbys that are away; max_slot_wal_keep_size is their bound"
            }
            "listen_addresses" => "remove it, and write listen",
            "unix_socket_directories" => "remove it, and write socket_dirs",
            "recovery_min_apply_delay" => "remove it, and write apply_delay for a node",
            _ => "remove it",
        };
        return Some(("regent sets this parameter itself".to_owned(), remedy));
    }
    if NOT_TAKEN.contains(&lower.as_str()) {
        let why = "regent has no synchronous mode, and would promote a standby that is not named here";
        return Some((why.to_owned(), "remove it"));
    }
    if INCLUDES.contains(&lower.as_str()) {
        return Some(("is no parameter".to_owned(), "write the parameters of that file here"));
    }
    let mut parts = name.split('.');
    if !parts.all(is_word) {
        return Some((format!("{} is no name of a parameter", Quoted(name)), "correct it"));
    }
    if value.contains('\0') {
        return Some(("no value can hold the character of number 0".to_owned(), "remove it"));
    }
    values::unfit(name, value)
}

fn is_word(part: &str) -> bool {
    let mut letters = part.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

/// Adds a problem for each of the operator's parameters that cannot be taken.
pub(super) fn rules(file: &raw::File, problems: &mut Problems<'_>) {
    for (service, written) in file.service.iter().flatten() {
        let parameters = written.postgresql.as_ref().and_then(|postgresql| postgresql.parameters.as_ref());
        for (name, value) in parameters.into_iter().flatten() {
            if let Some((why, remedy)) = refused(name, &value.0) {
                problems.add_hint(&format!("service.{service}.postgresql.parameters.{name}"), why, remedy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_regents_is_refused_in_any_spelling_and_so_is_what_is_no_parameter() {
        for name in [
            "port",
            "Unix_Socket_Directories",
            "full_page_writes",
            "recovery_target_xid",
            "include_dir",
            "a b",
            "",
            "x.",
        ] {
            assert!(refused(name, "1").is_some(), "{name}");
        }
        for name in ["work_mem", "pg_stat_statements.max", "Work_Mem"] {
            assert_eq!(refused(name, "1"), None, "{name}");
        }
        assert!(refused("work_mem", "1\0").is_some());
    }
}
