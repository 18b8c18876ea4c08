//! A fresh copy of the upstream's database: made beside the old directory and swapped in when it is whole; the old one
//! is kept aside (the latest one only).

use super::control::Control;
use super::core::Core;
use super::error::{EngineError, Result};
use super::program::Run;
use super::{keep, start};
use crate::types::{SystemId, Upstream};
use std::sync::Arc;
use std::time::Duration;

const CLONING: &str = "a clone\n";
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Clones. Brings the folder that keeps the old directory, if there was one.
pub async fn clone(core: &Arc<Core>, from: &Upstream, conninfo: &str, expected: SystemId) -> Result<Option<String>> {
    let new = core.layout.beside(".regent-", ".clone");
    let prepared = new.clone();
    core.on_disk(move |core| {
        let around = core.layout.around()?;
        if let Some(parent) = core.layout.data_dir.parent() {
            around.make_directories(parent)?;
        }
        core.layout.set_mark(CLONING)?;
        if around.exists(&prepared) {
            around.remove_tree(&prepared)?;
        }
        core.layout.make_for_database(&prepared)?;
        super::access::write(&core.config, core.postgresql(), &core.layout).map(drop)
    })
    .await?;
    let source = format!("--dbname={conninfo}");
    let run = Run {
        user: &core.user,
        program: core.layout.program("pg_basebackup"),
        arguments: vec![
            "-D".as_ref(),
            new.as_os_str(),
            source.as_ref(),
            "--wal-method=stream".as_ref(),
            "--checkpoint=fast".as_ref(),
            "--no-password".as_ref(),
            "--no-sync".as_ref(),
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: DEADLINE,
    };
    run.finish().await?;
    let layout = super::layout::Layout { data_dir: new.clone(), ..core.layout.clone() };
    let control = Control::read(&layout, &core.user).await?;
    if control.system != expected {
        let detail = format!("the clone of {} has system identifier {}, not {expected}", from.node, control.system);
        return Err(EngineError::Malformed { path: new, detail });
    }
    let conninfo = conninfo.to_owned();
    core.on_disk(move |core| {
        // A standby before it is in its place: there is no moment at which it could start as a primary.
        start::make_standby_in(&layout, &conninfo)?;
        layout.sync_volumes()?;
        swap(core, &new)
    })
    .await
}

/// Puts the new directory in the place of the old one.
fn swap(core: &Core, new: &std::path::Path) -> Result<Option<String>> {
    let (place, around) = (&core.layout.data_dir, core.layout.around()?);
    let kept = if core.layout.is_absent() {
        None
    } else {
        // One copy of a whole database is kept, and no more: they would fill the volume that the database is on.
        for older in keep::folders(&core.layout, ".replaced-") {
            tracing::warn!(service = %core.service, folder = %older.display(),
                "removing what an earlier clone replaced, to keep what this one replaces");
            around.remove_tree(&older)?;
        }
        let aside = core.layout.beside("", &format!(".replaced-{}", keep::stamp()));
        around.rename(place, &aside)?;
        Some(aside.display().to_string())
    };
    around.rename(new, place)?;
    around.sync_directory_of(place)?;
    Ok(kept)
}
