//! A server that runs already, under an earlier daemon's file, gets of this daemon's what a reload can give it: its access
//! lines, its certificates, and what it demands of the connection to whom it follows. The server goes on throughout.
//!
//! Not here: what only a start can change (the command line).

use super::core::Core;
use super::error::Result;
use super::networks::network_of;
use super::{access, settings};
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Brings the server up to date once, in its turn; a stop interrupts it.
pub async fn run(core: Arc<Core>, turn: Arc<Mutex<()>>, mut stops: watch::Receiver<u64>) {
    let _turn = turn.lock().await;
    let renewed = tokio::select! {
        _ = stops.changed() => return,
        renewed = renew(&core) => renewed,
    };
    let service = &core.service;
    match renewed {
        Ok(false) => {}
        Ok(true) => tracing::info!(%service, "the server reads its access lines and certificates anew"),
        Err(error) => tracing::error!(%service, %error, "the server goes on with what an earlier daemon gave it"),
    }
}

/// Whether there was a server, and anything new for it.
async fn renew(core: &Arc<Core>) -> Result<bool> {
    let Some(postmaster) = core.postmaster().await else { return Ok(false) };
    let changed = core
        .on_disk_in_order(|core, in_order| {
            // One that regent did not start is left as it is.
            if !core.layout.hba.exists() {
                return Ok(false);
            }
            let lines = access::write(&core.config, core.postgresql(), &core.layout)?;
            let followed = settings::renew_conninfo(in_order, &core.layout, |present| renewed(core, present))?;
            Ok(lines || followed || core.has_new_certificate)
        })
        .await?;
    if changed {
        postmaster.signal(libc::SIGHUP)?;
    }
    Ok(changed)
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
