//! Values of PostgreSQL's parameters that no server takes, or with which no standby could be: as far as it can be told without
//! PostgreSQL. A server that is thrown away is asked for all else (`regent config check --host`).
//!
//! Not here: which parameters are regent's (`parameters.rs`).
//!
//! Sources: PostgreSQL manual, "Setting Parameters" (numbers, units, booleans, enumerations) and the release notes (names that
//! are gone).

use super::parameters::operators_value;
use super::problem::Problems;
use super::{Config, Postgresql};
use crate::types::Quoted;

/// What a value must be.
#[derive(Clone, Copy)]
enum Kind {
    Yes,
    /// A whole number of at least so many.
    Number(i64),
    /// With a unit of memory or without; -1 has a meaning.
    Memory,
    /// With a unit of time or without.
    Time,
    Word(&'static [&'static str]),
}

const KINDS: [(Kind, &[&str]); 9] = [
    (
        Kind::Memory,
        &[
            "shared_buffers",
            "work_mem",
            "maintenance_work_mem",
            "autovacuum_work_mem",
            "effective_cache_size",
            "wal_buffers",
            "temp_buffers",
            "max_wal_size",
            "min_wal_size",
            "wal_keep_size",
            "max_slot_wal_keep_size",
            "logical_decoding_work_mem",
            "temp_file_limit",
            "log_rotation_size",
            "min_dynamic_shared_memory",
        ],
    ),
    (
        Kind::Time,
        &[
            "checkpoint_timeout",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "transaction_timeout",
            "wal_sender_timeout",
            "wal_receiver_timeout",
            "deadlock_timeout",
            "archive_timeout",
            "log_min_duration_statement",
            "max_standby_streaming_delay",
            "max_standby_archive_delay",
            "autovacuum_naptime",
            "log_rotation_age",
            "authentication_timeout",
            "wal_retrieve_retry_interval",
            "wal_receiver_status_interval",
            "tcp_keepalives_idle",
            "tcp_keepalives_interval",
            "tcp_user_timeout",
        ],
    ),
    (Kind::Number(1), &["max_connections", "autovacuum_max_workers"]),
    (
        Kind::Number(0),
        &[
            "superuser_reserved_connections",
            "reserved_connections",
            "max_wal_senders",
            "max_replication_slots",
            "max_worker_processes",
            "max_prepared_transactions",
            "max_parallel_workers",
            "max_parallel_workers_per_gather",
            "max_logical_replication_workers",
        ],
    ),
    (Kind::Number(10), &["max_locks_per_transaction"]),
    (
        Kind::Yes,
        &[
            "fsync",
            "autovacuum",
            "hot_standby_feedback",
            "jit",
            "ssl",
            "logging_collector",
            "log_checkpoints",
            "log_disconnections",
            "log_hostname",
            "track_io_timing",
            "default_transaction_read_only",
        ],
    ),
    (Kind::Word(&["archive", "hot_standby", "replica", "logical"]), &["wal_level"]),
    (Kind::Word(&["md5", "scram-sha-256"]), &["password_encryption"]),
    (Kind::Word(&["none", "ddl", "mod", "all"]), &["log_statement"]),
];
const MEMORY: [&str; 6] = ["", "B", "kB", "MB", "GB", "TB"];
const TIME: [&str; 7] = ["", "us", "ms", "s", "min", "h", "d"];

/// Names that every version that regent runs has no more, and what there is instead.
const GONE: [(&str, &str); 8] = [
    ("wal_keep_segments", "write wal_keep_size, in MB"),
    ("checkpoint_segments", "write max_wal_size"),
    ("standby_mode", "remove it: regent says who is a standby"),
    ("trigger_file", "remove it: regent promotes"),
    ("ssl_renegotiation_limit", "remove it"),
    ("sql_inheritance", "remove it"),
    ("default_with_oids", "remove it"),
    ("replacement_sort_tuples", "remove it"),
];

/// Why no server takes this, and what to do.
pub(super) fn unfit(name: &str, value: &str) -> Option<(String, &'static str)> {
    let name = name.to_ascii_lowercase();
    if let Some((_, remedy)) = GONE.iter().find(|(gone, _)| *gone == name) {
        return Some(("PostgreSQL has no such parameter any more".to_owned(), remedy));
    }
    if name == "wal_level" && value.trim().eq_ignore_ascii_case("minimal") {
        let why = "with \"minimal\" there is no replication, and so no standby";
        return Some((why.to_owned(), "remove it, or write \"replica\" or \"logical\""));
    }
    let (kind, _) = KINDS.iter().find(|(_, names)| names.contains(&name.as_str()))?;
    let found = || format!("found {}", Quoted(value));
    let value = value.trim();
    match kind {
        Kind::Yes if is_yes_or_no(value) => None,
        Kind::Yes => Some((format!("expected on or off, {}", found()), "correct it")),
        Kind::Number(least) => match value.parse::<i64>() {
            // Of another form, as in hexadecimal: the server says whether it takes that.
            Err(_) if value.starts_with("0x") => None,
            Ok(number) if number >= *least && number <= i64::from(i32::MAX) => None,
            _ => Some((format!("expected a whole number of at least {least}, {}", found()), "correct it")),
        },
        Kind::Memory if has_unit(value, &MEMORY) => None,
        Kind::Memory => {
            Some((format!("expected a size, as in \"64MB\" (units: B, kB, MB, GB, TB), {}", found()), "correct it"))
        }
        Kind::Time if has_unit(value, &TIME) => None,
        Kind::Time => {
            Some((format!("expected a time, as in \"30s\" (units: us, ms, s, min, h, d), {}", found()), "correct it"))
        }
        Kind::Word(words) if words.iter().any(|word| value.eq_ignore_ascii_case(word)) => None,
        Kind::Word(words) => Some((format!("expected one of {}, {}", words.join(", "), found()), "correct it")),
    }
}

/// As PostgreSQL reads a truth value: any beginning of one of its words that is no other's.
fn is_yes_or_no(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &&str| word.starts_with(value.as_str()) && !value.is_empty() && value != "o";
    ["on", "off", "true", "false", "yes", "no", "1", "0"].iter().any(begins)
}

fn is_no(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["off", "false", "no", "0"].iter().any(|word| word.starts_with(value.as_str()))
}

/// A number, and one of these units behind it. Negative: as far as -1.
fn has_unit(value: &str, units: &[&str]) -> bool {
    if value.starts_with("0x") {
        return true;
    }
    let end = value.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let exponent = unit.starts_with(['e', 'E']);
    let is_number = number.parse::<f64>().is_ok_and(|number| number >= 0.0 || number == -1.0 && unit.is_empty());
    is_number && (exponent || units.contains(&unit.trim_start()))
}

/// Adds a problem where values do not go together.
pub(super) fn rules(key: &str, postgresql: &Postgresql, problems: &mut Problems<'_>) {
    let number = |name: &str, otherwise: i64| {
        operators_value(postgresql, name).map_or(Some(otherwise), |value| value.trim().parse::<i64>().ok())
    };
    let all = number("max_connections", 100)
        .zip(number("superuser_reserved_connections", 3))
        .zip(number("reserved_connections", 0));
    if let Some(((all, superusers), reserved)) =
        all.filter(|((all, superusers), reserved)| superusers + reserved >= *all)
    {
        let named = ["superuser_reserved_connections", "reserved_connections", "max_connections"];
        let name = named.into_iter().find(|name| operators_value(postgresql, name).is_some());
        problems.add_hint(
            &format!("{key}.parameters.{}", name.unwrap_or(named[2])),
            format!(
                "{superusers} + {reserved} reserved connections leave none of {all} (max_connections) for anybody else"
            ),
            "raise max_connections, or reserve fewer",
        );
    }
    if ["archive_command", "archive_library"].into_iter().all(|name| is_written(postgresql, name)) {
        problems.add_hint(
            &format!("{key}.parameters.archive_library"),
            "with archive_command beside it, PostgreSQL 16 and later archive nothing",
            "keep one of the two",
        );
    }
}

fn is_written(postgresql: &Postgresql, name: &str) -> bool {
    operators_value(postgresql, name).is_some_and(|value| !value.trim().is_empty())
}

/// What works, and ends badly: for which services the file has WAL archived, and does not say where to.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let archives_nowhere = |postgresql: &Postgresql| {
        let mode = operators_value(postgresql, "archive_mode");
        let is_on =
            mode.is_some_and(|mode| mode.trim() == "always" || is_yes_or_no(mode.trim()) && !is_no(mode.trim()));
        is_on && !is_written(postgresql, "archive_command") && !is_written(postgresql, "archive_library")
    };
    let told = config.services.iter().filter(|(_, service)| archives_nowhere(&service.postgresql));
    let sentence = "archive_mode is on, and neither archive_command nor archive_library says where to: unless the database's own \
        files do, all WAL is kept until its volume is full";
    told.map(|(name, _)| format!("service {name}: {sentence}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_no_server_takes_are_told_from_those_that_one_does() {
        for (name, value) in [
            ("work_mem", "64 megabytes"),
            ("shared_buffers", "-5MB"),
            ("shared_buffers", "1gb"),
            ("max_connections", "many"),
            ("max_connections", "0"),
            ("max_wal_senders", "-1"),
            ("max_locks_per_transaction", "9"),
            ("wal_level", "minimal"),
            ("WAL_Level", "replicas"),
            ("hot_standby_feedback", "o"),
            ("fsync", "maybe"),
            ("statement_timeout", "30 seconds"),
            ("wal_keep_segments", "64"),
            ("password_encryption", "scram"),
            ("log_statement", "every"),
        ] {
            assert!(unfit(name, value).is_some(), "{name} = {value}");
        }
        for (name, value) in [
            ("work_mem", "64MB"),
            ("work_mem", " 65536 "),
            ("shared_buffers", "1.5 GB"),
            ("autovacuum_work_mem", "-1"),
            ("max_connections", "200"),
            ("max_wal_senders", "0"),
            ("wal_level", "Logical"),
            ("hot_standby_feedback", "tru"),
            ("statement_timeout", "30s"),
            ("log_min_duration_statement", "-1"),
            ("max_wal_size", "1e3"),
            ("app.setting", "anything at all"),
            ("search_path", "64 megabytes"),
        ] {
            assert_eq!(unfit(name, value), None, "{name} = {value}");
        }
    }
}
