//! The file of settings that the server reads first, in the run directory: it includes the database's own postgresql.conf and
//! then says the operator's parameters. No rewind or copy reaches it, none is taken from another node, and nobody reads it
//! but the database's user.
//!
//! It is tried by PostgreSQL's own program before a server is to read it. Where the database's files have an error by then, a
//! server that starts goes on with what they said when they last had none; that is kept in the daemon's own directory.
//!
//! Not here: what is regent's (`settings.rs`), and how a running server comes to read it (`reload.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::{CONF, Layout};
use super::program::{OsUser, Run};
use super::settings;
use crate::config::Postgresql;
use crate::config::parameters::operators;
use crate::rights::{self, Access, Rights};
use crate::types::FileFault;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// No file of settings is longer.
const LIMIT: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(10);
/// What the file says where it is made of kept values.
const KEPT: &str = "# The database's own files have an error: these are the values that they had before.\n";

/// From where the settings come that are not in regent.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The database's own files.
    Files,
    /// What those said when they were last read without an error.
    Kept,
}

/// What the file says.
pub fn text(layout: &Layout, postgresql: &Postgresql, base: Base) -> Result<String> {
    let mut text = String::from("# Written by regent; changes are lost. They belong into regent.toml.\n");
    match base {
        Base::Kept => {
            text.push_str(KEPT);
            text.push_str(&kept(layout)?.unwrap_or_default());
        }
        // One that is there must be read: PostgreSQL would skip what it may not open, and go on with its defaults.
        Base::Files if layout.has_within(CONF) => {
            text.push_str(&format!("include {}\n", quoted(&layout.within(CONF).display().to_string())));
        }
        Base::Files => {}
    }
    text.push_str("# What regent gives where regent.toml says nothing.\n");
    for (name, value) in settings::defaults(postgresql, layout) {
        text.push_str(&line(name, value));
    }
    text.push_str("# The parameters of regent.toml.\n");
    for (name, value) in operators(postgresql) {
        text.push_str(&line(name, value));
    }
    Ok(text)
}

fn line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quoted(value))
}

/// As PostgreSQL reads it back.
fn quoted(value: &str) -> String {
    let mut text = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

/// Whether that is not what the file says.
pub fn differs(layout: &Layout, text: &str) -> bool {
    rights::read_own(&layout.conf(), LIMIT).unwrap_or_default() != text.as_bytes()
}

/// Writes it. Whether it says anything new.
pub fn write(layout: &Layout, text: &str) -> Result<bool> {
    if !differs(layout, text) {
        return Ok(false);
    }
    rights::hand_file(&layout.conf(), text, Access::Reads(&layout.inside))?;
    Ok(true)
}

/// Whether the file is made of kept values.
pub fn is_of_kept(layout: &Layout) -> bool {
    let present = rights::read_own(&layout.conf(), LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&present).contains(KEPT)
}

/// What the database's own files said when they were last read without an error; `None`: they never were.
pub fn kept(layout: &Layout) -> Result<Option<String>> {
    match rights::read_own(&layout.kept_settings(), LIMIT) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file("read", layout.kept_settings())(error)),
    }
}

/// Keeps these; of those that are not known now, what was kept of them before.
pub fn keep(layout: &Layout, values: &BTreeMap<String, String>, unknown: &BTreeSet<String>) -> Result<()> {
    let before = kept(layout)?;
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let unknown = before.iter().flat_map(|text| text.lines()).filter(|line| unknown.contains(&name(line)));
    let known = values.iter().map(|(name, value)| line(name, value));
    let text: String = known.chain(unknown.map(|line| format!("{line}\n"))).collect();
    if before.as_ref() != Some(&text) {
        Rights::own().replace(&layout.kept_settings(), 0o600, &text)?;
    }
    Ok(())
}

/// Has PostgreSQL's own program read the file that would say so, beside all others and under the command line that the server
/// gets.
pub async fn tried(core: &Arc<Core>, postgresql: &Arc<Postgresql>, text: String) -> Result<()> {
    let given = postgresql.clone();
    let settings = core
        .on_disk(move |core| {
            let candidate = core.layout.run.join("postgresql.conf.new");
            rights::hand_file(&candidate, &text, Access::Reads(&core.layout.inside))?;
            let settings = settings::command_line(&core.config, &given, &core.layout);
            Ok::<_, EngineError>(with_config_file(settings, &candidate))
        })
        .await?;
    asked(&core.user, &core.layout, "data_directory", &settings).await.map(drop)
}

/// The same settings with another file of settings.
pub fn with_config_file(settings: Vec<String>, file: &Path) -> Vec<String> {
    let replaced = |setting: String| match setting.starts_with("config_file=") {
        true => format!("config_file={}", file.display()),
        false => setting,
    };
    settings.into_iter().map(replaced).collect()
}

/// The value of a setting as a server would have it that starts so. Errors: it would not start, with PostgreSQL's own words.
pub async fn asked(user: &OsUser, layout: &Layout, name: &str, settings: &[String]) -> Result<String> {
    let mut arguments: Vec<&OsStr> = vec!["-C".as_ref(), name.as_ref(), "-D".as_ref(), layout.data_dir.as_os_str()];
    for setting in settings {
        arguments.extend::<[&OsStr; 2]>(["-c".as_ref(), setting.as_ref()]);
    }
    let run = Run {
        user,
        program: layout.program("postgres"),
        arguments,
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: DEADLINE,
    };
    match run.finish().await {
        // What it warns of comes after it.
        Ok(said) => Ok(said.lines().next().unwrap_or_default().trim().to_owned()),
        Err(EngineError::Program { output, .. }) => Err(EngineError::Settings { why: without_prefixes(&output) }),
        Err(error) => Err(error),
    }
}

/// PostgreSQL's words alone, without the times and the numbers of processes before them.
pub fn without_prefixes(output: &str) -> String {
    let word = |line: &str| {
        let known =
            ["LOG:  ", "FATAL:  ", "ERROR:  ", "WARNING:  ", "HINT:  ", "DETAIL:  ", "CONTEXT:  ", "postgres: "];
        let found = known.iter().find_map(|word| line.split_once(word));
        found.map_or(line, |(_, rest)| rest).trim().to_owned()
    };
    let says_nothing = |line: &String| {
        line.starts_with("configuration file ") && line.ends_with(" contains errors")
            || ["starting PostgreSQL", "listening on ", "database system is ", "could not load pg_hba.conf"]
                .iter()
                .any(|beginning| line.starts_with(beginning))
    };
    let lines: Vec<String> = output.split(" | ").map(word).collect();
    let told: Vec<&str> = lines.iter().filter(|line| !says_nothing(line)).map(String::as_str).collect();
    if told.is_empty() { lines.join("; ") } else { told.join("; ") }
}

/// Makes the file ready for a start: of the database's own files, or, where a server would not start with those, of what was
/// kept, and then that is said.
pub async fn prepare(core: &Arc<Core>) -> Result<()> {
    if core.on_disk(Core::has_earlier_lines).await {
        return Ok(());
    }
    let postgresql = core.current();
    let error = match write_tried(core, &postgresql, Base::Files).await {
        Ok(_) => return Ok(()),
        Err(error @ EngineError::Settings { .. }) => error,
        Err(error) => return Err(error),
    };
    if core.on_disk(|core| kept(&core.layout)).await?.is_none() {
        return Err(error);
    }
    write_tried(core, &postgresql, Base::Kept).await?;
    tracing::error!(service = %core.service, %error, "the server starts with what its files said before");
    core.found_fault(fault_of(&core.layout, &error));
    Ok(())
}

/// Writes the file if PostgreSQL takes it. Whether it is new.
pub async fn write_tried(core: &Arc<Core>, postgresql: &Arc<Postgresql>, base: Base) -> Result<bool> {
    let given = postgresql.clone();
    let text = core.on_disk(move |core| text(&core.layout, &given, base)).await?;
    tried(core, postgresql, text.clone()).await?;
    core.on_disk(move |core| write(&core.layout, &text)).await
}

/// What an error of a try says, as a fault.
pub fn fault_of(layout: &Layout, error: &EngineError) -> FileFault {
    let what = match error {
        EngineError::Settings { why } => why.clone(),
        other => other.to_string(),
    };
    // "syntax error in file "F" line 3, near token ..."
    let place = what.split_once(" in file \"").and_then(|(said, rest)| {
        let (file, rest) = rest.split_once("\" line ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (line, rest) = rest.split_at(digits);
        Some(FileFault::new(file, line.parse().ok()?, &format!("{said}{rest}"), 0))
    });
    place.unwrap_or_else(|| FileFault::new(&layout.within(CONF).display().to_string(), 0, &what, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_as_postgresql_reads_it_back() {
        assert_eq!(line("search_path", "\"$user\", public"), "search_path = '\"$user\", public'\n");
        assert_eq!(quoted("it's a \\ and\na line"), "'it''s a \\\\ and\\na line'");
    }

    #[test]
    fn only_postgresqls_own_words_are_told() {
        let said = "2026-11-30 13:13:10.225 UTC [27019] LOG:  invalid value for parameter \"work_mem\": \"x\" | \
            2026-11-30 13:13:10.225 UTC [27019] HINT:  Valid units are. | \
            2026-11-30 13:13:10.225 UTC [27019] FATAL:  configuration file \"/a\" contains errors";
        assert_eq!(without_prefixes(said), "invalid value for parameter \"work_mem\": \"x\"; Valid units are.");
        assert_eq!(without_prefixes("no such thing"), "no such thing");
    }
}
