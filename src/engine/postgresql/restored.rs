//! The service's first database, made by the operator's own program: a restore from a backup, to its end or to a moment.
//!
//! Whatever the program leaves, its recovery is ended here, by a single-user server that no client can reach, and it ends on a
//! timeline of its own: nothing is ever written under a number that the database it comes from may go on with. Then regent's
//! roles and table are made, as after initdb.
//!
//! Not here: where it goes, and what a try that did not end leaves (`initdb.rs`).

use super::command::{self, Told};
use super::control::{Control, ControlState};
use super::core::Core;
use super::environment::Environment;
use super::error::{EngineError, Result};
use super::initdb::{role_statements, single_user};
use super::layout::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use super::program::Run;
use super::session::PROBE_TABLE;
use super::{access, archive, parameters, password, places, settings, start};
use crate::clock;
use crate::config::Command;
use crate::types::{Instant, SystemId};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "bootstrap_command";
/// What gets no WAL: recovery ends with what came with the database.
const NO_ARCHIVE: &str = "false";

/// Whom to ask for WAL, where to end and what to do then is the operator's this once; all else is as it will run.
const FROM_FILES: [&str; 3] = ["restore_command=", "recovery_target", "recovery_end_command="];

/// Has the program fill the empty directory, and makes of what it left the primary-to-be, at rest.
pub async fn restore(core: &Arc<Core>, command: &Command) -> Result<SystemId> {
    let begun = clock::now();
    let wal = core.postgresql().wal_dir.clone();
    command::run(core, KEY, command, &Told::new(core, &core.layout.data_dir, wal.as_deref())).await?;
    command::must_be_database(core, KEY, &core.layout).await?;
    core.on_disk(move |core| {
        places::gather_wal(&core.layout, wal.as_deref())?;
        archive::keep(&core.layout, &core.layout.data_dir)?;
        // Both: a standby would wait for ever, and without either the timeline would be the one that it comes from.
        core.layout.inside.remove(&core.layout.within(STANDBY_SIGNAL))?;
        core.layout.inside.replace(&core.layout.within(RECOVERY_SIGNAL), 0o600, "")?;
        Ok::<_, EngineError>(())
    })
    .await?;
    let control = end_recovery(core, begun, command.timeout).await?;
    core.on_disk_in_order(|core, in_order| settings::write_conninfo(in_order, &core.layout, "", true)).await?;
    single_user(core, &statements(core)?).await?;
    tracing::info!(service = %core.service, system = %control.system, timeline = %control.timeline, "restored");
    core.on_disk(|core| {
        core.layout.sync_volumes()?;
        core.layout.unset_mark()
    })
    .await?;
    Ok(control.system)
}

/// Replays to the target that its own files name, or to the end of what there is, and shuts it down.
async fn end_recovery(core: &Arc<Core>, begun: Instant, timeout: Duration) -> Result<Control> {
    let before = Control::read(&core.layout, &core.user).await?;
    parameters::prepare(core).await?;
    let mut given = core.command_line();
    given.retain(|setting| !FROM_FILES.iter().any(|name| setting.starts_with(name)));
    given.extend(start::must_reach(core, &before).await?);
    // No client could get in, so it compares no settings with those of the database that it comes from.
    given.extend(["hot_standby=off", "recovery_target_action=promote"].map(str::to_owned));
    if start::set_in_files(core, "restore_command").await?.is_empty() {
        given.push(format!("restore_command={NO_ARCHIVE}"));
    }
    let mut arguments: Vec<&OsStr> =
        vec!["--single".as_ref(), "-F".as_ref(), "-D".as_ref(), core.layout.data_dir.as_os_str()];
    for setting in &given {
        arguments.extend::<[&OsStr; 2]>(["-c".as_ref(), setting.as_ref()]);
    }
    arguments.push("postgres".as_ref());
    let environment = core.on_disk(|core| Environment::read(&core.current(), &core.layout.inside)).await?;
    let run = Run {
        user: &core.user,
        program: core.layout.program("postgres"),
        arguments,
        environment: environment.variables().chain([("LC_ALL", "C".as_ref())]).collect(),
        input: String::new(),
        deadline: timeout.saturating_sub(clock::now().since(begun)).max(Duration::from_secs(1)),
    };
    let fails = |why: String| EngineError::Command { key: KEY, why };
    run.finish_with_last_words().await.map_err(|error| match error {
        EngineError::Program { status, output, .. } => {
            fails(format!("it left a database that cannot end its recovery ({status}): {output}"))
        }
        other => other,
    })?;
    let after = Control::read(&core.layout, &core.user).await?;
    if after.state != ControlState::ShutDown || after.timeline <= before.timeline {
        let why = format!("its recovery ended on timeline {}, and not on one of its own at rest", after.timeline);
        return Err(fails(why));
    }
    Ok(after)
}

/// What a restored database may have already: roles of another cluster with other passwords, and the table.
fn statements(core: &Core) -> Result<Vec<String>> {
    let postgresql = core.postgresql();
    let verifier = password::verifier(&core.current(), &core.layout.inside)?;
    let superuser = postgresql.superuser.replace('\'', "''");
    let mut statements = vec![
        format!(
            "do $regent$ begin if not exists (select from pg_roles where rolname = '{superuser}' and rolsuper and rolcanlogin) \
             then raise exception 'the restored database has no superuser called {superuser}: correct superuser'; \
             end if; end $regent$"
        ),
        PROBE_TABLE.to_owned(),
    ];
    for role in access::replication_roles(&core.config, postgresql) {
        let mut made = role_statements(&role, verifier.as_deref());
        let create = made.remove(0);
        let alter = create.replacen("create role", "alter role", 1);
        statements.push(format!(
            "do $regent$ begin if exists (select from pg_roles where rolname = '{role}') then {alter}; else {create}; end if; \
             end $regent$"
        ));
        statements.extend(made);
    }
    Ok(statements)
}
