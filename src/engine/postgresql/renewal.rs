//! A server that runs gets of a new file what a reload can give it: the operator's parameters, its access lines, its
//! certificates, and what it demands of the connection to whom it follows. The server goes on throughout.
//!
//! At its start a daemon brings a server up to date that an earlier one started; later it takes what of its file has changed.
//! What PostgreSQL would refuse is tried first (`trial.rs`), and then nothing is changed.
//!
//! Not here: what only a start can change (the command line).

use super::core::Core;
use super::error::{EngineError, Result};
use super::networks::network_of;
use super::parameters::{self, Base};
use super::{access, roles, settings, trial};
use crate::config::Postgresql;
use crate::types::FileFault;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use tokio::sync::{Mutex, watch};

/// Brings the server up to date once, in its turn; a stop interrupts it.
pub async fn run(core: Arc<Core>, turn: Arc<Mutex<()>>, mut stops: watch::Receiver<u64>) {
    // Before its turn: it takes seconds.
    let has_new_lines = match has_new_lines(&core).await {
        Ok(has) => has,
        Err(error) => {
            let fault = FileFault::new("regent.toml", 0, &error.to_string(), 0);
            *core.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            core.files_changed.notify_one();
            tracing::error!(service = %core.service, %error, "the server goes on with what an earlier daemon gave it");
            false
        }
    };
    core.renewed.store(true, Ordering::SeqCst);
    let _turn = turn.lock().await;
    let renewed = tokio::select! {
        _ = stops.changed() => return,
        renewed = renew(&core, has_new_lines) => renewed,
    };
    let service = &core.service;
    match renewed {
        Ok(false) => {}
        Ok(true) => tracing::info!(%service, "the server reads its settings, access lines and certificates anew"),
        Err(error) => tracing::error!(%service, %error, "the server goes on with what an earlier daemon gave it"),
    }
}

/// Whether a server of regent's runs that has other parameters or access lines than this daemon's file says, and PostgreSQL
/// takes these.
async fn has_new_lines(core: &Arc<Core>) -> Result<bool> {
    // One that regent did not start is left as it is.
    if core.postmaster().await.is_none() || !core.layout.hba.exists() {
        return Ok(false);
    }
    let given = core.current();
    let differs = core
        .on_disk(move |core| {
            let text = parameters::text(&core.layout, &given, Base::Files)?;
            Ok::<_, EngineError>(
                parameters::differs(&core.layout, &text) || access::differs(&core.config, &given, &core.layout)?,
            )
        })
        .await?;
    if differs {
        try_out(core, &core.current()).await?;
    }
    Ok(differs)
}

/// Has PostgreSQL try these parameters and access lines. Errors: what it refuses.
pub async fn try_out(core: &Core, postgresql: &Postgresql) -> Result<()> {
    trial::run(&core.config, postgresql, &core.layout, &core.user).await
}

/// Whether there was a server, and anything new for it.
async fn renew(core: &Arc<Core>, has_new_lines: bool) -> Result<bool> {
    let Some(postmaster) = core.postmaster().await else { return Ok(false) };
    let given = core.current();
    let changed = core
        .on_disk_in_order(move |core, in_order| {
            if !core.layout.hba.exists() {
                return Ok(false);
            }
            if has_new_lines {
                write(core, &given)?;
            }
            let followed = settings::renew_conninfo(in_order, &core.layout, |present| renewed(core, present))?;
            Ok(has_new_lines || followed || core.has_new_certificate)
        })
        .await?;
    if changed {
        postmaster.signal(libc::SIGHUP)?;
        core.files_changed.notify_one();
    }
    Ok(changed)
}

fn write(core: &Core, postgresql: &Postgresql) -> Result<()> {
    let text = parameters::text(&core.layout, postgresql, Base::Files)?;
    parameters::write(&core.layout, &text)?;
    access::write(&core.config, postgresql, &core.layout).map(drop)
}

/// What came of taking a new file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The names of what only a start of the database changes.
    pub waits: Vec<String>,
    /// What of the replication roles was put right, in words.
    pub roles: Vec<String>,
}

/// Takes these parameters, access lines and passwords, which were tried: a server that runs reads them at once, and one that
/// starts has them.
pub async fn take(core: &Arc<Core>, postgresql: Arc<Postgresql>) -> Result<Taken> {
    let before = core.command_line();
    core.give(postgresql.clone());
    core.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    let after = core.command_line();
    let postmaster = core.postmaster().await;
    // Before its access lines ask for it.
    let roles = match postmaster.is_some() {
        true => roles::tend(core).await,
        false => Ok(Vec::new()),
    };
    let runs = postmaster.is_some();
    core.on_disk_in_order(move |core, in_order| {
        write(core, &postgresql)?;
        if runs {
            settings::renew_conninfo(in_order, &core.layout, |present| renewed(core, present))?;
        }
        Ok(())
    })
    .await?;
    let name = |setting: &String| setting.split('=').next().unwrap_or_default().to_owned();
    let waits = after.iter().filter(|setting| !before.contains(setting)).map(name).collect();
    if let Some(postmaster) = postmaster {
        postmaster.signal(libc::SIGHUP)?;
        core.files_changed.notify_one();
    }
    Ok(Taken { waits, roles: roles? })
}

/// The conninfo of this daemon for the node that the present one leads to; `None` where it leads to none of this cluster.
fn renewed(core: &Core, present: &str) -> Option<String> {
    let addresses = settings::addresses_in(present);
    let node = addresses.iter().find_map(|address| core.node_at(*address))?;
    let upstream = core.config.upstream(&core.service, &node)?;
    // It goes on over the network that it has come to.
    if let Some(network) = addresses.first().and_then(|address| network_of(&core.config, *address)) {
        core.networks.prefer(network);
    }
    Some(core.conninfo(&upstream))
}
