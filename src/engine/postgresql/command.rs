//! The operator's own programs, `clone_command`, `bootstrap_command` and `archive_check`: what they are told, in their arguments and in
//! `REGENT_` variables, how they run, and what every database that one of them
//! made must be before it is looked at further.
//!
//! They run as all programs of an action do (`program.rs`): as the database's user, in a cgroup that ends with the action and
//! with the daemon.
//!
//! Not here: what becomes of what they made (`clone.rs`, `restored.rs`), and what may be written (`config/commands.rs`).

use super::core::Core;
use super::environment::Environment;
use super::error::{EngineError, Result};
use super::layout::{CONF, CONTROL, Layout, PG_VERSION, POSTMASTER_PID};
use super::program::{OsUser, Run};
use super::runs::Runs;
use super::version;
use crate::config::{self, Command, Config, expand};
use crate::types::ServiceName;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a program is told: names and what stands for them, and the tablespaces of the database that is copied.
#[derive(Debug, Default)]
pub struct Told {
    names: BTreeMap<&'static str, String>,
    tablespaces: Vec<(String, PathBuf)>,
}

impl Told {
    /// What every one is told: the directory that it is to fill, and the one for its WAL, where that lies elsewhere.
    pub fn new(core: &Core, data_dir: &Path, wal_dir: Option<&Path>) -> Told {
        let postgresql = core.postgresql();
        let mut told = Told::default();
        told.add("data_dir", data_dir.display());
        told.add("wal_dir", wal_dir.map(|path| path.display().to_string()).unwrap_or_default());
        told.add("service", &core.service);
        told.add("node", &core.config.node);
        told.add("port", postgresql.port);
        told.add("bin_dir", postgresql.bin_dir.display());
        told
    }

    pub fn add(&mut self, name: &'static str, value: impl ToString) {
        self.names.insert(name, value.to_string());
    }

    /// Where the copy of a tablespace goes.
    pub fn add_tablespace(&mut self, name: String, place: PathBuf) {
        self.tablespaces.push((name, place));
    }

    /// The arguments. One that names a tablespace stands there once for each, so not at all where there is none.
    fn arguments(&self, command: &Command) -> Vec<String> {
        let known = |name: &str| self.names.get(name).cloned();
        let mut arguments = Vec::new();
        for word in &command.arguments {
            if !["{tablespace}", "{tablespace_dir}"].iter().any(|name| word.contains(name)) {
                arguments.push(expand(word, known));
                continue;
            }
            arguments.extend(self.tablespaces.iter().map(|(space, place)| {
                expand(word, |name| match name {
                    "tablespace" => Some(space.clone()),
                    "tablespace_dir" => Some(place.display().to_string()),
                    other => known(other),
                })
            }));
        }
        arguments
    }

    /// The same in the environment: REGENT_DATA_DIR and so on, and REGENT_TABLESPACES with a line NAME=DIRECTORY for each.
    fn environment(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.names.iter().map(|(name, value)| (variable(name), value.clone())).collect();
        let spaces = self.tablespaces.iter().map(|(name, place)| format!("{name}={}\n", place.display()));
        all.push((variable("tablespaces"), spaces.collect()));
        all
    }
}

fn variable(name: &str) -> String {
    format!("REGENT_{}", name.to_ascii_uppercase())
}

/// Runs it to its end, at most as long as it may take. `key` is its name in the configuration.
pub async fn run(core: &Arc<Core>, key: &'static str, command: &Command, told: &Told) -> Result<()> {
    tracing::info!(service = %core.service, program = %command.program.display(), "{key} begins");
    execute(core, key, command, told).await
}

/// The same without a word in the log, for what runs again and again.
pub async fn execute(core: &Arc<Core>, key: &'static str, command: &Command, told: &Told) -> Result<()> {
    let (arguments, environment) = (told.arguments(command), told.environment());
    let given = core.on_disk(|core| Environment::read(&core.current(), &core.layout.inside)).await?;
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
    let run = Run {
        user: &core.user,
        program: command.program.clone(),
        arguments: arguments.iter().map(AsRef::<OsStr>::as_ref).collect(),
        environment: given.variables().chain(environment).collect(),
        input: String::new(),
        deadline: command.timeout,
    };
    run.finish_with_last_words().await.map_err(|error| match error {
        EngineError::Spawn { program, source } => EngineError::Command { key, why: cannot_start(&program, &source) },
        EngineError::Program { program, status, output } => {
            let why = format!("{} failed ({status}): {output}", program.display());
            EngineError::Command { key, why }
        }
        other => other,
    })
}

fn cannot_start(program: &Path, source: &std::io::Error) -> String {
    format!("{} cannot be started: {source}; `regent config check --host` looks at it", program.display())
}

/// Refuses what is no database of the programs that are to run it, and takes away what only a server that ran has.
pub async fn must_be_database(core: &Arc<Core>, key: &'static str, made: &Layout) -> Result<()> {
    let layout = made.clone();
    let fails = |why: String| Err(EngineError::Command { key, why });
    let found = core
        .on_disk(move |_| {
            if !layout.has_within(CONTROL) || layout.major_version().is_none() {
                return Ok(None);
            }
            layout.inside.remove(&layout.within(POSTMASTER_PID))?;
            // regent's settings stand on the command line.
            if !layout.has_within(CONF) {
                layout.inside.place(&layout.within(CONF), 0o600, "")?;
            }
            Ok::<_, EngineError>(layout.major_version())
        })
        .await?;
    let directory = made.data_dir.display();
    let Some(found) = found else {
        return fails(format!(
            "it ended well, and {directory} holds no database ({CONTROL} and {PG_VERSION}); it must fill the directory that \
             {{data_dir}} and REGENT_DATA_DIR name"
        ));
    };
    let programs = version::of_programs(&core.layout, &core.user, "take over what a command made").await?;
    if programs != found {
        let bin = core.layout.bin_dir.display();
        return fails(format!("it left a database of PostgreSQL {found}, and the programs in {bin} are of {programs}"));
    }
    Ok(())
}

/// What of a service's programs its database's user could not run on this host, a sentence each.
pub fn unusable(config: &Config, service: &ServiceName) -> Vec<String> {
    let config::Postgresql { commands, os_user: user, .. } = &config.services[service].postgresql;
    if !commands.any() {
        return Vec::new();
    }
    let found = match OsUser::find(user, service, Runs::beside(None)) {
        Ok(found) => found,
        Err(error) => return vec![error.to_string()],
    };
    let all = [
        ("postgresql.clone_command", &commands.clone),
        ("bootstrap_command", &commands.bootstrap),
        ("postgresql.archive_check", &commands.archive_check),
    ];
    let written = all.into_iter().filter_map(|(key, command)| Some((key, &command.as_ref()?.program)));
    let amiss = written.filter_map(|(key, program)| {
        let why = found.rights().within(|| amiss(program)).unwrap_or_else(|error| Some(error.to_string()))?;
        Some(format!("service.{service}.{key}: {}: {why} (as user {user})", program.display()))
    });
    amiss.collect()
}

/// Why whoever asks cannot run it.
pub fn amiss(program: &Path) -> Option<String> {
    use nix::unistd::{AccessFlags, faccessat};
    match std::fs::metadata(program) {
        Err(error) => return Some(error.to_string()),
        Ok(about) if !about.is_file() => return Some("is no file".to_owned()),
        Ok(_) => {}
    }
    let at = nix::fcntl::AtFlags::AT_EACCESS;
    let may_run = faccessat(nix::fcntl::AT_FDCWD, program, AccessFlags::X_OK, at);
    may_run.err().map(|error| format!("cannot be executed: {}", error.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn arguments(told: &Told, words: &[&str]) -> Vec<String> {
        let arguments = words.iter().map(|word| (*word).to_owned()).collect();
        told.arguments(&Command { program: "/bin/true".into(), arguments, timeout: Duration::from_secs(1) })
    }

    #[test]
    fn an_argument_that_names_a_tablespace_stands_once_for_each() {
        let mut told = Told::default();
        told.add("data_dir", "/srv/{node}");
        let words = ["restore", "--map={tablespace}={tablespace_dir}", "{data_dir}"];
        assert_eq!(arguments(&told, &words), ["restore", "/srv/{node}"], "and what was put in is not read again");
        told.add_tablespace("fast".to_owned(), "/ssd/.regent-fast.clone".into());
        told.add_tablespace("slow".to_owned(), "/hdd".into());
        let expected = ["restore", "--map=fast=/ssd/.regent-fast.clone", "--map=slow=/hdd", "/srv/{node}"];
        assert_eq!(arguments(&told, &words), expected);
        let environment = told.environment();
        assert!(environment.contains(&("REGENT_DATA_DIR".to_owned(), "/srv/{node}".to_owned())));
        let spaces = "fast=/ssd/.regent-fast.clone\nslow=/hdd\n".to_owned();
        assert!(environment.contains(&("REGENT_TABLESPACES".to_owned(), spaces)));
    }
}
