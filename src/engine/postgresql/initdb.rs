//! Makes a new database, with the roles that regent needs. Nothing of it is ever open to a client: the roles are made
//! by a single-user server.

use super::control::Control;
use super::core::Core;
use super::error::{EngineError, Result};
use super::program::Run;
use super::session::PROBE_TABLE;
use super::{access, mounts, password, places, remembered, restored, version};
use crate::types::SystemId;
use std::ffi::OsStr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What the marker says while a new database is being made.
const MARK: &str = "initdb\n";
/// And while the operator's own program makes it.
const RESTORING: &str = "a database by bootstrap_command\n";
const DEADLINE: Duration = Duration::from_secs(300);

/// Makes the database in the empty directory. Asked again after an end in the middle, it begins anew; asked again by whoever
/// has not seen yet that it is made, it has nothing to do.
pub async fn initdb(core: &Arc<Core>) -> Result<SystemId> {
    core.must_be_stopped("make a new database").await?;
    let made = *core.made.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = made
        && !core.on_disk(|core| core.layout.is_absent()).await
    {
        return Ok(made);
    }
    let system = make(core).await?;
    *core.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(system);
    Ok(system)
}

async fn make(core: &Arc<Core>) -> Result<SystemId> {
    version::of_programs(&core.layout, &core.user, "make a new database").await?;
    if let Some(command) = &core.postgresql().commands.bootstrap {
        core.on_disk(|core| prepare(core, RESTORING)).await?;
        return restored::restore(core, command).await;
    }
    core.on_disk(|core| prepare(core, MARK)).await?;
    let verifier = password::verifier(&core.current(), &core.layout.inside)?;
    let postgresql = core.postgresql();
    let username = format!("--username={}", postgresql.superuser);
    let wal = postgresql.wal_dir.as_ref().map(|wal| format!("--waldir={}", wal.display()));
    let mut run = Run {
        user: &core.user,
        program: core.layout.program("initdb"),
        arguments: vec![
            "-D".as_ref(),
            core.layout.data_dir.as_os_str(),
            "--data-checksums".as_ref(),
            "--no-sync".as_ref(),
            "--auth-local=peer".as_ref(),
            "--auth-host=scram-sha-256".as_ref(),
            "--encoding=UTF8".as_ref(),
            "--locale=C.UTF-8".as_ref(),
            username.as_ref(),
        ],
        environment: Vec::new(),
        input: String::new(),
        deadline: DEADLINE,
    };
    // Of an option that is given twice the last counts.
    run.arguments.extend(postgresql.initdb_options.iter().map(AsRef::<OsStr>::as_ref));
    run.arguments.extend(wal.iter().map(AsRef::<OsStr>::as_ref));
    run.finish().await?;
    let mut statements = vec![PROBE_TABLE.to_owned()];
    for role in access::replication_roles(&core.config, postgresql) {
        statements.extend(role_statements(&role, verifier.as_deref()));
    }
    single_user(core, &statements).await?;
    let control = Control::read(&core.layout, &core.user).await?;
    core.on_disk(|core| {
        core.layout.sync_volumes()?;
        core.layout.unset_mark()
    })
    .await?;
    Ok(control.system)
}

fn prepare(core: &Core, mark: &'static str) -> Result<()> {
    let data_dir = &core.layout.data_dir;
    let wal = core.postgresql().wal_dir.as_deref();
    mounts::must_be_there(&core.layout, mounts::TO_MAKE, [data_dir.as_path()].into_iter().chain(wal))?;
    places::refuse_volume(data_dir)?;
    let unfinished = core.layout.mark()?.is_some_and(|mark| mark == MARK || mark == RESTORING);
    if !unfinished && !core.layout.is_absent() {
        let why = format!("{} is not empty; move it away to have a new database made", data_dir.display());
        return Err(EngineError::Refused { action: "make a new database", why });
    }
    let around = core.layout.around()?;
    if let Some(parent) = data_dir.parent() {
        around.make_directories(parent)?;
    }
    if let Some(wal) = wal {
        places::refuse_used(&core.layout, wal, unfinished)?;
    }
    core.layout.set_mark(mark)?;
    remembered::forget(core)?;
    if unfinished && around.exists(data_dir) {
        around.remove_tree(data_dir)?;
    }
    core.layout.make_for_database(data_dir)?;
    wal.map_or(Ok(()), |wal| places::make_wal_dir(&core.layout, wal))
}

/// What pg_rewind reads the other server's files by.
pub const REWIND_READS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// A copy asks how much room it will take, and a standby what its primary preloads.
pub const MEMBER_OF: [&str; 2] = ["pg_read_all_stats", "pg_read_all_settings"];

/// What makes a replication role: replication, and what pg_rewind reads with.
pub fn role_statements(role: &str, verifier: Option<&str>) -> Vec<String> {
    let secret = verifier.map(|text| format!(" password '{}'", text.replace('\'', "''"))).unwrap_or_default();
    let mut statements = vec![format!("create role \"{role}\" login replication{secret}")];
    statements.extend(REWIND_READS.map(|f| format!("grant execute on function pg_catalog.{f} to \"{role}\"")));
    statements.extend(MEMBER_OF.map(|group| format!("grant {group} to \"{role}\"")));
    statements
}

/// Runs statements in a single-user server, one a line.
pub async fn single_user(core: &Arc<Core>, statements: &[String]) -> Result<()> {
    let mut input = String::new();
    for statement in statements {
        input.push_str(statement);
        input.push('\n');
    }
    let program = core.layout.program("postgres");
    let run = Run {
        user: &core.user,
        program: program.clone(),
        arguments: vec![
            "--single".as_ref(),
            "-F".as_ref(),
            "-D".as_ref(),
            core.layout.data_dir.as_os_str(),
            "postgres".as_ref(),
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input,
        deadline: DEADLINE,
    };
    let said = run.finish().await?;
    // A failed statement does not show in the exit status.
    match said.lines().find(|line| line.contains("ERROR:") || line.contains("FATAL:")) {
        Some(line) => {
            // Behind its prompt for each statement.
            let output = line.trim_start_matches("backend> ").to_owned();
            Err(EngineError::Program { program, status: "an error".to_owned(), output })
        }
        None => Ok(()),
    }
}
