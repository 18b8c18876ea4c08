//! `regent cert`: the cluster's own certificate authority, in a directory that is kept off the hosts.

use super::{Common, Exit, config, locate, output};
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
    /// Issue what belongs into /etc/regent on NODE in DIR/NODE: the certificates of its manager (node.pem, node.key) and of
    /// its database (database.pem, database.key), ca.pem, heartbeat.key
    ///
    /// The certificates name the node, and its host name and addresses where the configuration file is there.
    Issue {
        node: NodeName,
        dir: PathBuf,
        /// Another host name or address by which clients reach the node's database
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
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
        Command::Issue { node, dir, mut names, days } => {
            names.extend(known_names(common, &node)?);
            let files = certs::issue(&dir, &node, &names, days, clock::wall())?.to_vec();
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

/// The names that the configuration has for a node; none where there is no file, as on a host that keeps the CA alone.
fn known_names(common: &Common, node: &NodeName) -> anyhow::Result<Vec<String>> {
    let (file, _) = locate::config(common);
    if common.config.is_none() && !file.exists() {
        return Ok(Vec::new());
    }
    let config = config::load_from(&file, Some(node.as_str()))?;
    let about = config.me();
    Ok(vec![about.hostname.clone(), about.primary.to_string(), about.secondary.to_string()])
}
