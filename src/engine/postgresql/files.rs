//! What the server itself says of the files that people change: wrong lines, settings that wait for a restart (and programs
//! that do), and those of the operator's that something else overrides. Read once a minute and after each reload, beside
//! everything else.
//!
//! While they are in order, what they say is kept for the day on which they are not.
//!
//! Not here: what is done about it (`parameters.rs`, `reload.rs`).

#![expect(clippy::disallowed_methods, reason = "how often files are looked at: a plain wait that proves nothing")]

use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::AUTO_CONF;
use super::parameters::{self, Base};
use super::promote::MUST_REACH;
use super::session::Session;
use super::version;
use crate::config::parameters::{is_owned, operators_value};
use crate::types::{FileFault, Files, PENDING_SHOWN};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(60);
/// How long a server may take for all of it: it reads files.
const DEADLINE: Duration = Duration::from_secs(10);

/// A wrong line, as the server tells it.
#[derive(Clone, Debug)]
pub struct Fault {
    pub file: String,
    pub line: u32,
    pub what: String,
}

/// What the server says.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Of the files of settings.
    pub faults: Vec<Fault>,
    /// Of the access lines: no reload fails for them, and every start does.
    pub access: Vec<Fault>,
    pub pending_restart: Vec<String>,
    pub lowered: Vec<String>,
    pub overridden: Vec<String>,
    /// `server_version`.
    pub version: String,
}

/// The fault that is told for all of them.
pub fn first(faults: &[Fault]) -> Option<FileFault> {
    let first = faults.first()?;
    let more = u32::try_from(faults.len() - 1).unwrap_or(u32::MAX);
    Some(FileFault::new(&first.file, first.line, &first.what, more))
}

/// Asks the running server, on a connection of its own: what a session sets hides what the files say.
pub async fn ask(core: &Core) -> Result<Found> {
    let asked = async {
        let session = plain(core).await?;
        let mut found = settings(core, &session).await?;
        found.access = access(core, &session).await?;
        found.version = runs(&session).await?;
        found.overridden = overridden(core, &session).await?;
        Ok(found)
    };
    let late = || EngineError::NoAnswer { what: "the server, asked for its files,", after: DEADLINE };
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
}

/// Where the server has no room for one more, the connection that there is must do.
async fn plain(core: &Core) -> Result<Arc<Session>> {
    let opened = Session::open_plain(&core.layout, core.postgresql(), core.postgresql().probe_timeout).await;
    match opened {
        Ok(session) => Ok(Arc::new(session)),
        Err(_) => core.session().await,
    }
}

/// What the files say against what the server has. A value that only waits for a restart looks like a wrong one at first.
async fn settings(core: &Core, session: &Session) -> Result<Found> {
    let doing = "ask the server for the errors of its files";
    let question = "select coalesce(sourcefile, ''), coalesce(sourceline, 0), coalesce(name, ''), coalesce(setting, ''), error \
        from pg_file_settings where error is not null order by seqno";
    let wrong = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    // After that, which marks them in this session.
    let waiting = waiting(core, session).await?;
    let faults = wrong.iter().filter_map(|row| {
        let (name, value, error): (String, String, String) = (row.get(2), row.get(3), row.get(4));
        let is_refused = error == "setting could not be applied";
        if is_refused && waiting.iter().any(|waiting| waiting.name.eq_ignore_ascii_case(&name)) {
            return None;
        }
        let what = match (is_refused, name.is_empty()) {
            (true, _) => format!("invalid value for parameter \"{name}\": \"{value}\""),
            (false, false) => format!("{error} \"{name}\""),
            (false, true) => error,
        };
        Some(Fault { file: row.get(0), line: u32::try_from(row.get::<_, i32>(1)).unwrap_or_default(), what })
    });
    let faults = faults.collect();
    let names = |which: fn(&Waiting) -> bool| -> Vec<String> {
        waiting.iter().filter(|waiting| which(waiting)).map(|waiting| waiting.name.clone()).collect()
    };
    let (pending_restart, lowered) =
        (names(Waiting::is_due), names(|waiting| waiting.is_due() && waiting.is_lowered()));
    Ok(Found { faults, pending_restart, lowered, ..Found::default() })
}

/// A setting for which the files have another value than the server that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    name: String,
    has: String,
    /// What the next start gives, as far as it is known without one.
    next: String,
    /// It was given on the command line, where no file changes it.
    is_given: bool,
}

impl Waiting {
    /// Whether the next start changes it. What a start was given because the primary had more it has for that once.
    fn is_due(&self) -> bool {
        !self.is_given || (self.binds_standbys() && self.has != self.next)
    }

    /// Whether it becomes lower than standbys may have it: the primary has to go first.
    fn is_lowered(&self) -> bool {
        let numbers = self.next.parse::<i64>().ok().zip(self.has.parse::<i64>().ok());
        self.binds_standbys() && numbers.is_some_and(|(next, has)| next < has)
    }

    fn binds_standbys(&self) -> bool {
        MUST_REACH.iter().any(|(_, name, _)| *name == self.name)
    }
}

/// What waits for a restart.
async fn waiting(core: &Core, session: &Session) -> Result<Vec<Waiting>> {
    let doing = "ask the server what waits for a restart";
    let question = "select name, setting, coalesce(boot_val, ''), source = 'command line', \
        (select f.setting from pg_file_settings f where lower(f.name) = s.name order by seqno desc limit 1) \
        from pg_settings s where pending_restart order by name";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    let given = core.command_line();
    let waiting = |row: &tokio_postgres::Row| {
        let name: String = row.get(0);
        let anew = given.iter().rev().find_map(|setting| setting.strip_prefix(name.as_str())?.strip_prefix('='));
        let next = anew.map(str::to_owned).or(row.get(4)).unwrap_or_else(|| row.get(2));
        Waiting { name, has: row.get(1), next, is_given: row.get(3) }
    };
    Ok(rows.iter().map(waiting).collect())
}

/// The version of the server that runs.
async fn runs(session: &Session) -> Result<String> {
    let rows = session.client().query_typed("select current_setting('server_version')", &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the server for its version"))?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

/// The access lines that the server would not take.
async fn access(core: &Core, session: &Session) -> Result<Vec<Fault>> {
    let question = "select coalesce(line_number, 0), error from pg_hba_file_rules where error is not null order by 1";
    let rows = session.client().query_typed(question, &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the server for the errors of its access lines"))?;
    let file = core.layout.hba.display().to_string();
    let fault = |row: &tokio_postgres::Row| {
        let (line, what) = (u32::try_from(row.get::<_, i32>(0)).unwrap_or_default(), row.get(1));
        Fault { file: file.clone(), line, what }
    };
    Ok(rows.iter().map(fault).collect())
}

/// The operator's parameters that have their value from elsewhere: ALTER SYSTEM, or a command line of an earlier daemon.
async fn overridden(core: &Core, session: &Session) -> Result<Vec<String>> {
    let own = core.layout.conf().display().to_string();
    let question = "select name, current_setting(name), source, coalesce(sourcefile, ''), coalesce(sourceline, 0) \
        from pg_settings where source in ('configuration file', 'command line')";
    let rows = session.client().query_typed(question, &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the server where its settings come from"))?;
    let postgresql = core.current();
    let told = rows.iter().filter_map(|row| {
        let (name, value, source): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let (file, line): (String, i32) = (row.get(3), row.get(4));
        let wanted = operators_value(&postgresql, &name)?;
        match source.as_str() {
            "configuration file" if file != own => {
                Some(format!("{name} is {value} by {file} line {line}, and not {wanted} as in regent.toml"))
            }
            _ => None,
        }
    });
    Ok(told.collect())
}

/// Keeps what the files said that the server has taken over. What this session does not see, because its user or database has
/// a value of its own, is taken from the files where those are in order.
pub async fn keep(core: &Arc<Core>, in_order: bool) -> Result<()> {
    let late = || EngineError::NoAnswer { what: "the server, asked for its settings,", after: DEADLINE };
    tokio::time::timeout(DEADLINE, keep_now(core, in_order)).await.unwrap_or_else(|_| Err(late()))
}

async fn keep_now(core: &Arc<Core>, in_order: bool) -> Result<()> {
    let session = plain(core).await?;
    let doing = "ask the server for its settings";
    let question = "select name, current_setting(name), source, coalesce(sourcefile, '') from pg_settings";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    let elsewhere = not_of_regent(core);
    let (mut values, mut hidden) = (BTreeMap::new(), BTreeSet::new());
    for row in &rows {
        let (name, value, source, file): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        match source.as_str() {
            "configuration file" if elsewhere(&file) => {
                values.insert(name, value);
            }
            "configuration file" | "command line" | "default" | "environment variable" | "override" => {}
            _ => {
                hidden.insert(name);
            }
        }
    }
    let question = "select name, setting, coalesce(sourcefile, '') from pg_file_settings \
        where error is null and name is not null order by seqno";
    let rows = session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))?;
    for row in rows.iter().filter(|_| in_order) {
        let (name, value, file): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if hidden.contains(&name.to_ascii_lowercase()) && elsewhere(&file) {
            values.insert(name.to_ascii_lowercase(), value);
        }
    }
    values.retain(|name, _| !is_owned(name));
    let unknown = if in_order { BTreeSet::new() } else { hidden };
    core.on_disk(move |core| parameters::keep(&core.layout, &values, &unknown)).await
}

/// Neither regent's own file nor the one that the server reads last in any case.
fn not_of_regent(core: &Core) -> impl Fn(&str) -> bool + use<> {
    let own = [core.layout.conf(), core.layout.within(AUTO_CONF)].map(|path| path.display().to_string());
    move |file| !own.iter().any(|own| own == file)
}

/// Watches one postmaster's files. Ends when dropped.
pub struct FilesWatch(tokio::task::JoinHandle<()>);

impl FilesWatch {
    pub fn start(core: Arc<Core>) -> Self {
        FilesWatch(tokio::spawn(watch(core)))
    }
}

impl Drop for FilesWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(core: Arc<Core>) {
    loop {
        match look(&core).await {
            Ok(files) => {
                let changed = core.files.send_if_modified(|present| {
                    let is_new = *present != files;
                    *present = files;
                    is_new
                });
                if changed {
                    core.look.notify_one();
                }
            }
            Err(error) => tracing::debug!(service = %core.service, %error, "the server's files were not looked at"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.files_changed.notified() => {}
        }
    }
}

/// Whether the file that the server reads first is not what it is when all is in order. Of one that an earlier daemon started
/// there is none.
async fn is_otherwise(core: &Arc<Core>) -> Result<bool> {
    let given = core.current();
    core.on_disk(move |core| {
        let text = parameters::text(&core.layout, &given, Base::Files)?;
        Ok(core.layout.conf().exists() && parameters::differs(&core.layout, &text))
    })
    .await
}

/// One look. A server that runs on kept values goes back to its files as soon as those are in order.
async fn look(core: &Arc<Core>) -> Result<Files> {
    let mut wrong = core.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let is_settled = core.renewed.load(Ordering::SeqCst);
    if wrong.is_none() && is_settled && is_otherwise(core).await? {
        match parameters::write_tried(core, &core.current(), Base::Files).await {
            Ok(_) => {
                tracing::info!(service = %core.service, "the server's files are in order again, and it reads them");
                core.running("reload").await?.signal(libc::SIGHUP)?;
            }
            Err(error) => wrong = Some(parameters::fault_of(&core.layout, &error)),
        }
    }
    let found = ask(core).await?;
    let mut fault = wrong.or_else(|| first(&[found.faults, found.access].concat()));
    // Made of kept values it has no wrong line, and is not in order.
    let is_of_kept = core.on_disk(|core| parameters::is_of_kept(&core.layout)).await;
    if is_of_kept && fault.is_none() {
        fault = core.files.borrow().fault.clone();
    }
    if fault.is_none() && !is_of_kept {
        keep(core, true).await?;
    }
    let fault = fault.or_else(|| core.without.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let mut pending_restart = found.pending_restart;
    match version::brought_by_a_start(&core.layout, &core.user, &found.version).await {
        Ok(update) => drop(pending_restart.splice(..0, update)),
        // Programs that are not there, or do not run, are told by what could not be done without them.
        Err(error) => tracing::debug!(service = %core.service, %error, "which programs are installed is not known"),
    }
    pending_restart.truncate(PENDING_SHOWN);
    Ok(Files { fault, pending_restart, lowered: found.lowered, overridden: found.overridden })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_told_from_what_stands_on_the_command_line() {
        let waiting = |name: &str, has: &str, next: &str, is_given| Waiting {
            name: name.to_owned(),
            has: has.to_owned(),
            next: next.to_owned(),
            is_given,
        };
        let found = |waiting: Waiting| (waiting.is_due(), waiting.is_lowered());
        assert_eq!(found(waiting("shared_buffers", "2048", "1024", false)), (true, false));
        assert_eq!(found(waiting("max_connections", "100", "200", false)), (true, false));
        assert_eq!(found(waiting("max_connections", "100", "50", false)), (true, true));
        assert_eq!(found(waiting("port", "5432", "5433", true)), (false, false), "no file changes it");
        assert_eq!(found(waiting("max_wal_senders", "10", "10", true)), (false, false), "given anew by each start");
        let raised = waiting("max_connections", "100", "50", true);
        assert_eq!(found(raised), (true, true), "its primary had more when it was started");
    }
}
