//! Tries what the operator wants to be in force, before it is: on a server of its own that holds nothing, that nobody can
//! reach, and that is thrown away. It gets the command line, the file of settings and the access file that the real one gets,
//! so that PostgreSQL itself says what it refuses: values, libraries that it does not find, settings that exclude one another,
//! certificates that it cannot read, access lines. Its WAL has segments as long as the real one's. What it cannot have as the
//! real one has it (memory, huge pages, the server's own log files) is held against this host instead.
//!
//! The daemon tries a new file so before it takes it, and `regent config check --host` does the same without a daemon.
//!
//! Not here: what is then done (`renewal.rs`).

#![expect(clippy::disallowed_methods, reason = "how often it is looked whether the server answers")]

use super::control::Control;
use super::error::{EngineError, Result};
use super::layout::{AUTO_CONF, Layout};
use super::parameters::{self, Base};
use super::program::{Group, OsUser, Run, last_lines};
use super::runs::Runs;
use super::session::Session;
use super::{access, settings};
use crate::config::{Config, Postgresql};
use crate::errors::with_causes;
use crate::rights::{self, Access, Rights};
use crate::types::{Quoted, ServiceName, Size};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long making it may take, and how long it may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);
/// How long it may take to end in order, before it is killed.
const ENDS: Duration = Duration::from_secs(5);
/// So much of what it says is heard.
const SAID_LIMIT: u64 = 1 << 18;

const IN_HUGE_PAGES: &str = "shared_memory_size_in_huge_pages";

/// What it gets otherwise than the real one: no door for others, little of the host's memory, nothing of its own in an archive
/// or in the log files of the real one.
const OTHERWISE: [&str; 9] = [
    "listen_addresses=",
    "bonjour=off",
    "shared_buffers=16MB",
    "huge_pages=off",
    "archive_mode=off",
    "logging_collector=off",
    "log_destination=stderr",
    "fsync=off",
    "autovacuum=off",
];

/// What stands for the database that is tried.
struct Trial<'a> {
    config: &'a Config,
    postgresql: &'a Postgresql,
    /// The real one.
    real: &'a Layout,
    user: &'a OsUser,
    /// The one that is thrown away.
    layout: Layout,
    _place: Throwaway,
}

/// Its directory, which goes with it.
struct Throwaway(PathBuf);

impl Drop for Throwaway {
    fn drop(&mut self) {
        // What cannot be removed lies among the temporary files.
        let _ = Rights::own().remove_tree(&self.0);
    }
}

/// Tries a service's part of the configuration on this host, without a daemon. Errors: what PostgreSQL refuses.
pub async fn on_this_host(config: &Config, service: &ServiceName) -> Result<()> {
    let known = config.services.get(service);
    let postgresql = &known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?.postgresql;
    let user = OsUser::find(&postgresql.os_user, service, Runs::beside(None))?;
    let layout = Layout::new(config, service, &user)?;
    run(config, postgresql, &layout, &user).await
}

/// Tries these parameters and access lines beside the files of the database in `real`.
pub async fn run(config: &Config, postgresql: &Postgresql, real: &Layout, user: &OsUser) -> Result<()> {
    settings::check_parameters(postgresql)?;
    let trial = Trial::prepare(config, postgresql, real, user).await?;
    trial.asks_for_too_much().await?;
    trial.asks_for_huge_pages().await?;
    trial.logs_somewhere().await?;
    trial.starts().await
}

impl<'a> Trial<'a> {
    async fn prepare(
        config: &'a Config,
        postgresql: &'a Postgresql,
        real: &'a Layout,
        user: &'a OsUser,
    ) -> Result<Self> {
        // Many share the temporary files, and may well have this process's number in a world of their own.
        let place = Rights::own().make_new_directory(&std::env::temp_dir().join("regent-trial-"), 0o755)?;
        let thrown_away = Throwaway(place.clone());
        let run = place.join("run");
        let layout = Layout {
            data_dir: place.join("data"),
            socket: run.join("socket"),
            more_sockets: Vec::new(),
            hba: run.join("pg_hba.conf"),
            lease: run.join("lease"),
            goodbye: run.join("goodbye"),
            keep: place.join("keep"),
            log: place.join("log"),
            run,
            ..real.clone()
        };
        layout.make_for_database(&layout.data_dir)?;
        let username = format!("--username={}", postgresql.superuser);
        // What a server may have of WAL depends on it.
        let segments = format!("--wal-segsize={}", segment_size(postgresql, real, user).await);
        let made = Run {
            user,
            program: layout.program("initdb"),
            arguments: vec![
                "-D".as_ref(),
                layout.data_dir.as_os_str(),
                "--no-sync".as_ref(),
                "--auth=reject".as_ref(),
                segments.as_ref(),
                "--encoding=UTF8".as_ref(),
                "--locale=C.UTF-8".as_ref(),
                username.as_ref(),
            ],
            environment: Vec::new(),
            input: String::new(),
            deadline: DEADLINE,
        };
        made.finish().await?;
        access::write(config, postgresql, &layout)?;
        // The database's own files are those of the real one.
        let mut text = parameters::text(real, postgresql, Base::Files)?;
        if real.has_within(AUTO_CONF) {
            text.push_str(&format!("include '{}'\n", real.within(AUTO_CONF).display().to_string().replace('\'', "''")));
        }
        rights::hand_file(&layout.conf(), &text, Access::Reads(&layout.inside))?;
        Ok(Trial { config, postgresql, real, user, layout, _place: thrown_away })
    }

    /// The command line of the real one, but for where its files are.
    fn command_line(&self) -> Vec<String> {
        settings::command_line(self.config, self.postgresql, &self.layout)
    }

    /// The value that a server would have.
    async fn asked(&self, name: &str) -> Result<String> {
        let said = parameters::asked(self.user, &self.layout, name, &self.command_line()).await;
        said.map_err(|error| match error {
            EngineError::Settings { why } => EngineError::Settings { why: self.in_real_names(&why) },
            other => other,
        })
    }

    /// A value that the server takes, and then cannot have.
    async fn asks_for_too_much(&self) -> Result<()> {
        let said = self.asked("shared_buffers").await?;
        let asked = said.parse::<u64>().unwrap_or_default().saturating_mul(8192);
        let whole = in_meminfo("MemTotal:").map_or(u64::MAX, |kib| kib << 10);
        if asked < whole {
            return Ok(());
        }
        let why = format!("shared_buffers = {} is more than the memory of this host, {}", Size(asked), Size(whole));
        Err(EngineError::Settings { why })
    }

    /// The same of huge pages that it must have, where it can say how many.
    async fn asks_for_huge_pages(&self) -> Result<()> {
        if !self.layout.knows(IN_HUGE_PAGES) || self.asked("huge_pages").await? != "on" {
            return Ok(());
        }
        let needed = self.asked(IN_HUGE_PAGES).await?.parse::<u64>().unwrap_or_default();
        let here = in_meminfo("HugePages_Total:").unwrap_or(u64::MAX);
        if needed <= here {
            return Ok(());
        }
        let why = format!("huge_pages = on needs {needed} huge pages, and this host has {here}: raise vm.nr_hugepages");
        Err(EngineError::Settings { why })
    }

    /// The server's own logging, which the trial is without: a server that cannot open its first file does not start.
    async fn logs_somewhere(&self) -> Result<()> {
        if self.asked("logging_collector").await? != "on" {
            return Ok(());
        }
        let (real, data_dir) = (self.real, &self.real.data_dir);
        let directory = data_dir.join(self.asked("log_directory").await?);
        // One that is missing the server makes, and of a database that is not there yet nothing is known.
        let there = if real.inside.exists(&directory) { Some(directory.as_path()) } else { directory.parent() };
        let is_known = !directory.starts_with(data_dir) || real.inside.exists(data_dir);
        match there.filter(|_| is_known).map(|there| real.inside.must_write_in(there)) {
            Some(Err(error)) => {
                let why = format!(
                    "logging_collector is on, and the server could not log to {} (log_directory): {}",
                    directory.display(),
                    with_causes(&error)
                );
                Err(EngineError::Settings { why })
            }
            _ => Ok(()),
        }
    }

    /// Starts it and lets one session in.
    async fn starts(&self) -> Result<()> {
        let place = self.user.begin();
        let door = place.as_ref().and_then(super::runs::Place::door);
        let program = self.layout.program("postgres");
        let mut command = self.user.command(&program, door);
        command.arg("-D").arg(&self.layout.data_dir);
        for setting in self.command_line().iter().map(String::as_str).chain(OTHERWISE) {
            command.arg::<&OsStr>("-c".as_ref()).arg(setting);
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let spawn = |source| EngineError::Spawn { program: program.clone(), source };
        let mut child = tokio::process::Command::from(command).spawn().map_err(spawn)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let mut group = Group::of(pid);
        let mut errors = child.stderr.take().expect("standard error was asked for").take(SAID_LIMIT);
        let said = async move {
            let mut said = Vec::new();
            // What cannot be read of it is not said.
            let _ = errors.read_to_end(&mut said).await;
            String::from_utf8_lossy(&said).into_owned()
        };
        let said = tokio::spawn(said);
        let outcome = tokio::select! {
            _ = child.wait() => Err(None),
            let_in = self.lets_in() => let_in.map_err(Some),
        };
        if let Some(pid) = pid.filter(|_| !matches!(outcome, Err(None))) {
            // SAFETY: a plain system call on a child that was not waited for yet.
            unsafe { libc::kill(pid, libc::SIGINT) };
            let _ = tokio::time::timeout(ENDS, child.wait()).await;
        }
        group.end();
        match outcome {
            Ok(()) => Ok(()),
            Err(Some(error)) => Err(error),
            Err(None) => {
                let said = said.await.unwrap_or_default();
                let why = parameters::without_prefixes(&last_lines(&said));
                Err(EngineError::Settings { why: self.in_real_names(&why) })
            }
        }
    }

    async fn lets_in(&self) -> Result<()> {
        let tries = async {
            loop {
                match Session::open(&self.layout, self.postgresql, Duration::from_secs(5)).await {
                    Ok(_) => return Ok(()),
                    // It is on its way.
                    Err(error) if error.code().is_none_or(|code| code == "57P03") => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let late = EngineError::NoAnswer { what: "a server with these settings", after: DEADLINE };
        tokio::time::timeout(DEADLINE, tries).await.unwrap_or(Err(late))
    }

    /// What was said of the files of the trial is meant of the real ones.
    fn in_real_names(&self, said: &str) -> String {
        // Nobody wrote the lines of regent's own file: their names are those of regent.toml.
        let own = format!(" in file \"{}\" line ", self.layout.conf().display());
        let said = match said.split_once(&own) {
            Some((before, after)) => format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => said.to_owned(),
        };
        let said = self.with_access_line(said);
        let names = [(&self.layout.data_dir, &self.real.data_dir), (&self.layout.run, &self.real.run)];
        names
            .iter()
            .fold(said, |said, (trial, real)| said.replace(&trial.display().to_string(), &real.display().to_string()))
    }

    /// Of a line of the access file that is refused, what it says.
    fn with_access_line(&self, said: String) -> String {
        let file = format!(" of configuration file \"{}\"", self.layout.hba.display());
        let number = said.split_once(&file).and_then(|(before, _)| before.rsplit(' ').next()?.parse::<usize>().ok());
        let text = std::fs::read_to_string(&self.layout.hba).unwrap_or_default();
        match number.and_then(|number| text.lines().nth(number.checked_sub(1)?)) {
            Some(line) => format!("{said}: {}", Quoted(line)),
            None => said,
        }
    }
}

/// How long the segments of the real one's WAL are, or will be: in MB.
async fn segment_size(postgresql: &Postgresql, real: &Layout, user: &OsUser) -> u64 {
    if let Ok(control) = Control::read(real, user).await {
        return control.segment_size >> 20;
    }
    let options = &postgresql.initdb_options;
    let joined = options.iter().find_map(|option| option.strip_prefix("--wal-segsize="));
    let apart = options.iter().position(|option| option == "--wal-segsize").and_then(|at| options.get(at + 1));
    joined.or(apart.map(String::as_str)).and_then(|number| number.parse().ok()).unwrap_or(16)
}

/// A number of /proc/meminfo.
fn in_meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
