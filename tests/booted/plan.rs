//! What the hosts are, and their regent.toml: the example of two databases and a witness, edited as the README says.
//!
//! Not here: how it gets onto a host (`install.rs`).

use crate::bmc::USER;
use crate::boot::BOOT_ID;
use crate::network::Net;
use crate::pace;
use anyhow::{Result, ensure};

/// The service of the example.
pub const SERVICE: &str = "orders";
/// There is no second service.
pub const SECOND: &str = "billing";
/// The name of the example's cluster.
pub const CLUSTER: &str = "orders";
/// Where the example has the database.
pub const DATA_DIR: &str = "/var/lib/postgresql/15/main";

const EXAMPLE: &str = include_str!("../../config/two-databases-and-witness.toml");

/// The nodes of the example, in the order of their addresses.
#[derive(Clone, Debug)]
pub struct Plan {
    pub databases: Vec<&'static str>,
    pub witnesses: Vec<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { databases: vec!["db1", "db2"], witnesses: vec!["w1"] }
    }
}

impl Plan {
    pub fn database_names(&self) -> Vec<String> {
        self.databases.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Databases first.
    pub fn node_names(&self) -> Vec<String> {
        self.databases.iter().chain(&self.witnesses).map(|name| (*name).to_owned()).collect()
    }
}

/// The example with this network's addresses, without what these hosts do not have, and with a line for their clients.
/// `device` says the address of the device that switches a node.
pub fn edited(device: impl Fn(&str) -> String) -> Result<String> {
    let mut text = EXAMPLE.to_owned();
    let network = |net: Net| net.address(0).trim_end_matches('0').to_owned();
    for (there, here) in [
        ("10.0.1.", network(Net::Primary)),
        ("10.0.2.", network(Net::Secondary)),
        ("10.0.3.11", device("db1")),
        ("10.0.3.12", device("db2")),
        ("profile = \"lan\"\n", format!("profile = \"lan\"\nboot_id_file = \"{BOOT_ID}\"\n")),
        ("username = \"admin\"", format!("username = \"{USER}\"")),
        ("disk = false\n", String::new()),
        ("[channels.disk]\npath = \"/dev/disk/by-id/shared-heartbeat\"\n", String::new()),
        ("[watchdog]\ndevice = \"/dev/watchdog\"\n", String::new()),
        ("[[fencing.level]]\nagents = [\"lease\"]\n", String::new()),
    ] {
        ensure!(text.contains(there), "the example says no longer {there:?}");
        text = text.replace(there, &here);
    }
    text += &format!("hba = [\"host all postgres {}0.0/16 md5\"]\n", network(Net::Primary).trim_end_matches("1."));
    text += &format!("[service.{SERVICE}.postgresql.parameters]\nshared_buffers = \"64MB\"\n{}\n", pace::PARAMETERS);
    Ok(text)
}
