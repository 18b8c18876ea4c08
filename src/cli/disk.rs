//! `regent disk`: make the shared disk, or show what is on it.

use super::{Common, Exit, config, output};
use crate::channel::{Keys, disk_admin};
use crate::config::Config;
use crate::consensus::certs;
use crate::types::{ClusterId, NodeName};
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make PATH, a block device or a file, the cluster's shared disk
    Init {
        path: PathBuf,
        /// Although something else is on it
        #[arg(long)]
        force: bool,
    },
    /// Show the header and every slot
    List { path: PathBuf },
}

/// How many slots are left free for nodes that come later.
const SPARE: usize = 4;

pub fn run(common: &Common, command: Command) -> anyhow::Result<Exit> {
    let report = match command {
        Command::Init { path, force } => {
            let config = config::load(common)?;
            let nodes: Vec<NodeName> = config.nodes.iter().filter(|(_, n)| n.disk).map(|(n, _)| n.clone()).collect();
            disk_admin::init(&path, &cluster_id(&config)?, &nodes, SPARE, force)?
        }
        Command::List { path } => {
            // Without a readable configuration the slots are shown all the same, but not whether they are authentic.
            let keys = config::load(common).ok().and_then(|c| Keys::load(&c.security.heartbeat_keys).ok());
            disk_admin::list(&path, keys.as_ref())?
        }
    };
    if common.json {
        output::say_json_document(&report)
    } else {
        output::say(&report.to_string())
    }
    Ok(Exit::Done)
}

/// From the node's certificate; the cluster's name where there is none.
fn cluster_id(config: &Config) -> anyhow::Result<ClusterId> {
    match &config.security.tls {
        Some(tls) => Ok(certs::cluster_in(&tls.certificate)?),
        None => Ok(ClusterId(config.cluster.clone())),
    }
}
