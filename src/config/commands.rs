//! The operator's own programs: `clone_command` makes a copy of a database, `bootstrap_command` the first one, and
//! `archive_check` says whether WAL could be archived. What may be written, and what stands for what in it.
//!
//! What decides never asks by what program a database is made. Not here: running them (`engine/postgresql/command.rs`).

use super::parse::START_TIMEOUT;
use super::problem::{Problems, suggest};
use super::{Config, Service, raw};
use crate::types::Quoted;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The operator's own programs of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Makes a copy where one is needed, instead of pg_basebackup.
    pub clone: Option<Command>,
    /// pg_basebackup makes it where that program could not.
    pub clone_falls_back: bool,
    /// Makes the service's first database, instead of initdb.
    pub bootstrap: Option<Command>,
    /// Says by its success that WAL could be archived from here.
    pub archive_check: Option<Command>,
}

impl Commands {
    pub fn any(&self) -> bool {
        self.clone.is_some() || self.bootstrap.is_some() || self.archive_check.is_some()
    }
}

/// A program with its arguments, in which names in braces stand for what is known when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Then it is killed.
    pub timeout: Duration,
}

/// How long a copy may take.
const CLONE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How long the check of the archive may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// What every command is told, and what a clone is told besides. The names in braces, and after `REGENT_` those of the
/// environment.
const TOLD: [&str; 6] = ["data_dir", "wal_dir", "service", "node", "port", "bin_dir"];
const TOLD_A_CLONE: [&str; 8] =
    ["upstream", "host", "upstream_port", "user", "passfile", "conninfo", "tablespace", "tablespace_dir"];

/// The word with what stands for each name; a name for which nothing does stays as it is, and so does any other brace.
pub fn expand(word: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::new();
    for part in parts(word) {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Name(name) => match known(name) {
                Some(value) => text.push_str(&value),
                None => text.push_str(&format!("{{{name}}}")),
            },
        }
    }
    text
}

enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// The names in braces, and what lies between them.
fn parts(word: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), word);
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        let named = from[1..].split_once('}').filter(|(name, _)| is_name(name));
        let (part, after) = match named {
            Some((name, after)) => (Part::Name(name), after),
            None => (Part::Text(&from[..1]), &from[1..]),
        };
        parts.extend([Part::Text(before), part]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn names(word: &str) -> impl Iterator<Item = &str> {
    parts(word).into_iter().filter_map(|part| match part {
        Part::Name(name) => Some(name),
        Part::Text(_) => None,
    })
}

/// What a service's table names.
pub(super) fn of(written: &raw::Service) -> Commands {
    let postgresql = written.postgresql.as_ref();
    Commands {
        clone: postgresql.and_then(|p| command(p.clone_command.as_deref(), p.clone_timeout.unwrap_or(CLONE_TIMEOUT))),
        clone_falls_back: postgresql.is_some_and(|p| p.clone_fallback.is_some()),
        // Whoever has not made it by then has to let another node try.
        bootstrap: command(written.bootstrap_command.as_deref(), written.start_timeout.unwrap_or(START_TIMEOUT)),
        archive_check: command(postgresql.and_then(|p| p.archive_check.as_deref()), CHECK_TIMEOUT),
    }
}

fn command(words: Option<&[String]>, timeout: Duration) -> Option<Command> {
    let (program, arguments) = words?.split_first()?;
    Some(Command { program: program.into(), arguments: arguments.to_vec(), timeout })
}

/// Adds a problem for whatever cannot be meant so.
pub(super) fn rules(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    for (name, service) in &config.services {
        let Some(written) = file.service.as_ref().and_then(|all| all.get(name.as_str())) else { continue };
        let key = format!("service.{name}");
        bootstrap_rules(&key, service, written, problems);
        clone_rules(&format!("{key}.postgresql"), service, written, problems);
        if let Some(words) = written.postgresql.as_ref().and_then(|written| written.archive_check.as_ref()) {
            words_rules(&format!("{key}.postgresql.archive_check"), words, &[&TOLD], service, problems);
        }
    }
}

fn bootstrap_rules(key: &str, service: &Service, written: &raw::Service, problems: &mut Problems<'_>) {
    let own = format!("{key}.bootstrap_command");
    let by_command = written.bootstrap == Some(raw::Bootstrap::Command);
    match (by_command, &written.bootstrap_command) {
        (true, None) if !problems.is_written(&own) => {
            let hint = "add bootstrap_command, a list of a program and its arguments";
            problems.add_hint(&format!("{key}.bootstrap"), "\"command\" without bootstrap_command", hint);
        }
        (false, Some(_)) => {
            problems.add_hint(&own, "without bootstrap = \"command\" it never runs", "add that, or remove this");
        }
        _ => {}
    }
    let Some(words) = &written.bootstrap_command else { return };
    words_rules(&own, words, &[&TOLD], service, problems);
    if by_command && written.start_timeout.is_none() {
        let hint = "add start_timeout with the time that a restore and its recovery take, 24h at most";
        problems.add_hint(&own, "it has start_timeout to make the database, which is not written", hint);
    }
    if !service.postgresql.initdb_options.is_empty() {
        let message = "bootstrap_command makes the database, and initdb is not asked";
        problems.add_hint(&format!("{key}.postgresql.initdb_options"), message, "remove one of the two");
    }
}

fn clone_rules(key: &str, service: &Service, written: &raw::Service, problems: &mut Problems<'_>) {
    let Some(written) = &written.postgresql else { return };
    let own = format!("{key}.clone_command");
    let Some(words) = &written.clone_command else {
        let without =
            [("clone_timeout", written.clone_timeout.is_some()), ("clone_fallback", written.clone_fallback.is_some())];
        // An empty list was complained about, or is no list.
        let is_written = problems.is_written(&own);
        for (name, _) in without.into_iter().filter(|(_, written)| *written && !is_written) {
            let hint = "add clone_command, or remove this";
            problems.add_hint(&format!("{key}.{name}"), "there is no clone_command", hint);
        }
        return;
    };
    words_rules(&own, words, &[&TOLD, &TOLD_A_CLONE], service, problems);
    if written.copy_max_rate.is_some() && written.clone_fallback.is_none() {
        let message = "limits pg_basebackup, and clone_command makes the copies";
        let hint = "remove it and have the program keep to a limit, or add clone_fallback = \"basebackup\"";
        problems.add_hint(&format!("{key}.copy_max_rate"), message, hint);
    }
}

fn words_rules(key: &str, words: &[String], told: &[&[&str]], service: &Service, problems: &mut Problems<'_>) {
    let Some(program) = words.first() else {
        return problems.add(key, "expected a program and its arguments, found an empty list");
    };
    if !Path::new(program).is_absolute() {
        let message =
            format!("expected a program by its whole path, as in \"/usr/bin/pgbackrest\", found {}", Quoted(program));
        problems.add(&format!("{key}[1]"), message);
    } else if names(program).next().is_some() {
        problems.add(&format!("{key}[1]"), "nothing in braces is replaced in the program's own path");
    }
    for (number, word) in (1..).zip(words) {
        let at = format!("{key}[{number}]");
        if word.contains('\0') {
            problems.add(&at, "no argument can hold the character of number 0");
        }
        for name in names(word).filter(|_| number > 1) {
            let known = told.iter().copied().flatten();
            if !known.clone().any(|known| *known == name) {
                let hint = suggest(name, known.copied());
                problems.add_hint(&at, format!("{{{name}}} stands for nothing here"), hint);
            } else if name == "wal_dir" && service.postgresql.wal_dir.is_none() {
                problems.add_hint(
                    &at,
                    "{wal_dir} without wal_dir",
                    "add wal_dir, or remove it: WAL is in {data_dir} then",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_replaced_once_and_other_braces_stay() {
        let known = |name: &str| match name {
            "data_dir" => Some("/srv/{node}".to_owned()),
            "node" => Some("db1".to_owned()),
            _ => None,
        };
        for (word, expected) in [
            ("--pg1-path={data_dir}", "--pg1-path=/srv/{node}"),
            ("{node}:{data_dir}/{node}", "db1:/srv/{node}/db1"),
            ("{other} {} {A} { node} {", "{other} {} {A} { node} {"),
            ("{{node}}", "{db1}"),
            ("", ""),
        ] {
            assert_eq!(expand(word, known), expected);
        }
    }
}
