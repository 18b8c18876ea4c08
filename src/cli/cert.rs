//! `regent cert`: the cluster's own certificate authority, in a directory that is kept off the hosts.

use super::{Common, Exit, output};
use crate::clock;
use crate::consensus::certs;
use crate::types::NodeName;
use serde::Serialize;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make the cluster's CA (ca.pem, ca.key) and heartbeat key (heartbeat.key) in DIR
    Init {
        dir: PathBuf,
        /// The cluster's name, as in the configuration
        #[arg(long)]
        cluster: String,
    },
    /// Issue what belongs into /etc/regent on NODE in DIR/NODE: node.pem, node.key, ca.pem, heartbeat.key
    Issue {
        node: NodeName,
        dir: PathBuf,
        /// Valid for so many days
        #[arg(long, default_value_t = 825)]
        days: u64,
    },
}

#[derive(Serialize)]
struct Made {
    cluster_id: String,
    files: Vec<PathBuf>,
}

pub fn run(common: &Common, command: Command) -> anyhow::Result<Exit> {
    let made = match command {
        Command::Init { dir, cluster } => {
            let (id, files) = certs::init(&dir, &cluster, clock::wall())?;
            Made { cluster_id: id.to_string(), files: files.to_vec() }
        }
        Command::Issue { node, dir, days } => {
            let files = certs::issue(&dir, &node, days, clock::wall())?.to_vec();
            Made { cluster_id: certs::cluster_of(&dir)?.to_string(), files }
        }
    };
    if common.json {
        output::say_json_document(&made);
    } else {
        output::say(&format!("cluster {}", made.cluster_id));
        made.files.iter().for_each(|file| output::say(&file.display().to_string()));
    }
    Ok(Exit::Done)
}
