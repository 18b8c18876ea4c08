//! What a scenario's cluster looks like, and the regent.toml that says so. Every host gets the same file but for the
//! line `node`. Not here: hosts and processes (`cluster.rs`).

use crate::bmc::{PASSWORD, USER};
use crate::host::{DISK, SHARED_DISK};
use crate::network::Net;
use crate::pace;
use crate::postgres;
use crate::seed;
use crate::watchdogs::WATCHDOG_NAME;
use anyhow::Result;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The name of every cluster in the lab.
pub const CLUSTER: &str = "lab";
/// The service of every cluster in the lab.
pub const SERVICE: &str = "orders";
/// The second service, where there is one.
pub const SECOND: &str = "billing";
/// The configuration file, as every host sees it.
pub const CONFIG: &str = "/srv/regent.toml";

/// Which hosts have a watchdog. The file names one for every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The file names none.
    None,
    All,
    /// All but this host, which has nothing in its place.
    MissingOn(&'static str),
    /// All but this host, which has an ordinary file in its place.
    PlainFileOn(&'static str),
}

/// How the databases' connections to one another are kept private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Certificates,
    /// And a password beside them.
    Password,
    /// Certificates of a CA that is not regent's.
    Company,
    /// Not at all, as an earlier version had it: the certificates are in a folder of which the file does not know.
    Open,
}

/// One cluster to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `db1`, `db2`, ...
    pub databases: u8,
    /// What these are called instead, from the first on.
    pub names: &'static [&'static str],
    /// `w1`, `w2`, ...
    pub witnesses: u8,
    pub profile: &'static str,
    /// Fencing levels: names of agents, `ipmi`, `pdu` (the second power device) and `lease`.
    pub levels: &'static [&'static [&'static str]],
    /// The heartbeat channel on a shared disk.
    pub disk: bool,
    pub on_crash: &'static str,
    /// Whether a fenced node gets its power back by itself.
    pub power_on: &'static str,
    /// Whoever does not reach a device gives up soon, and the next round comes soon.
    pub impatient: bool,
    /// Lines of `[failover]`.
    pub failover: &'static str,
    /// The lines by which each service comes to be.
    pub bootstrap: &'static str,
    /// Lines of each service.
    pub service: &'static str,
    /// Lines of each database's parameters.
    pub parameters: &'static str,
    pub watchdogs: Devices,
    /// Whether there is a second service beside the first.
    pub second: bool,
    /// Lines of each database.
    pub database: &'static str,
    /// Directories that are volumes of their own: host, name on its disk, size in MiB.
    pub volumes: &'static [(&'static str, &'static str, u32)],
    /// A directory that every host sees on its disk, of the database's user.
    pub shared: Option<&'static str>,
    /// Access lines of each database beside that of the lab's clients.
    pub hba: &'static [&'static str],
    /// A prober in every database host. Without them a measurement is not disturbed.
    pub probers: bool,
    /// Without TLS: nodes do not prove who they are.
    pub insecure: bool,
    pub replication: Replication,
    /// The nodes know one another by addresses of IPv6.
    pub ipv6: bool,
    /// The database that is there from the beginning, in place of an empty one.
    pub seed: Option<PathBuf>,
    /// How long the first primary and its standbys may take.
    pub whole_within: Duration,
    /// A mistake that every daemon makes on purpose: `known_bugs`.
    pub bug: Option<&'static str>,
}

/// What a password of replication may be made of.
pub const ODD_PASSWORD: &str = "it's \"a\" \\ : = # 100% $1; pässwörd ½";

/// The line of a file whose cluster has no certificates for its databases yet.
pub const OPEN: &str = "replication_tls = \"optional\"";

/// The name of a host in a company's certificate.
pub fn company_host(name: &str) -> String {
    format!("{name}.example.org")
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            databases: 3,
            names: &[],
            witnesses: 0,
            profile: "lan",
            levels: &[&["ipmi"]],
            disk: true,
            on_crash: "restart",
            power_on: "auto",
            impatient: false,
            failover: "",
            bootstrap: "bootstrap = \"initdb\"",
            service: "",
            parameters: "",
            watchdogs: Devices::None,
            second: false,
            database: "",
            volumes: &[],
            shared: None,
            hba: &[],
            probers: true,
            insecure: false,
            replication: Replication::Certificates,
            ipv6: false,
            seed: None,
            whole_within: Duration::from_secs(90),
            bug: None,
        }
    }
}

impl Plan {
    /// Two databases and a witness.
    pub fn with_witness() -> Plan {
        Plan { databases: 2, witnesses: 1, ..Plan::default() }
    }

    /// Three databases and two witnesses.
    pub fn five_voters() -> Plan {
        Plan { witnesses: 2, ..Plan::default() }
    }

    pub fn database_names(&self) -> Vec<String> {
        let name = |n: usize| self.names.get(n).map_or_else(|| format!("db{}", n + 1), |name| (*name).to_owned());
        (0..usize::from(self.databases)).map(name).collect()
    }

    /// Databases first.
    pub fn node_names(&self) -> Vec<String> {
        self.database_names().into_iter().chain((1..=self.witnesses).map(|n| format!("w{n}"))).collect()
    }

    pub fn has_agent(&self, name: &str) -> bool {
        self.levels.iter().any(|level| level.contains(&name))
    }

    /// The file for `node`. `address` says a node's address on a network, `device` the address of the device of an
    /// agent that switches a node.
    pub fn toml(
        &self,
        node: &str,
        address: impl Fn(&str, Net) -> String,
        device: impl Fn(&str, &str) -> String,
    ) -> Result<String> {
        let mut text = String::new();
        writeln!(
            text,
            "cluster = \"{CLUSTER}\"\nnode = \"{node}\"\ndata_dir = \"{DISK}/regent\"\nprofile = \"{}\"",
            self.profile
        )?;
        writeln!(text, "\n[security]\nheartbeat_keys = [\"{DISK}/tls/heartbeat.key\"]")?;
        if self.insecure {
            writeln!(text, "insecure = true")?;
        } else {
            writeln!(text, "ca = \"{DISK}/tls/ca.pem\"\ncertificate = \"{DISK}/tls/node.pem\"")?;
            writeln!(text, "key = \"{DISK}/tls/node.key\"")?;
        }
        for (rank, name) in self.node_names().iter().enumerate() {
            writeln!(text, "\n[nodes.{name:?}]")?;
            if name.starts_with('w') {
                writeln!(text, "role = \"witness\"")?;
            } else {
                writeln!(text, "priority = {}", 200 - rank)?;
            }
            writeln!(text, "primary = \"{}\"", address(name, Net::Primary))?;
            writeln!(text, "secondary = \"{}\"", address(name, Net::Secondary))?;
            if self.replication == Replication::Company {
                writeln!(text, "hostname = \"{}\"", company_host(name))?;
            }
        }
        if self.disk {
            writeln!(text, "\n[channels.disk]\npath = \"{SHARED_DISK}\"")?;
        }
        self.write_fencing(&mut text, device)?;
        if self.watchdogs != Devices::None {
            writeln!(text, "\n[watchdog]\ndevice = \"{DISK}/{WATCHDOG_NAME}\"")?;
        }
        if !self.failover.is_empty() {
            writeln!(text, "\n[failover]\n{}", self.failover)?;
        }
        self.write_service(&mut text, SERVICE, &postgres::data_dir(), postgres::PORT)?;
        if self.second {
            self.write_service(&mut text, SECOND, &postgres::second_data_dir(), postgres::PORT + 1)?;
        }
        Ok(text)
    }

    fn write_fencing(&self, text: &mut String, device: impl Fn(&str, &str) -> String) -> Result<()> {
        writeln!(text, "\n[fencing]\nassist = [\"credentials\", \"firewall\"]\npower_on = \"{}\"", self.power_on)?;
        if self.impatient {
            writeln!(text, "retry = \"1s\"")?;
        }
        if self.has_agent("lease") {
            // No watchdog here, and a virtual machine: both are accepted in so many words.
            writeln!(text, "lease_without_watchdog = true\nlease_on_virtual_machine = true")?;
        }
        for level in self.levels {
            writeln!(text, "[[fencing.level]]\nagents = {level:?}")?;
        }
        for agent in ["ipmi", "pdu"].into_iter().filter(|agent| self.has_agent(agent)) {
            writeln!(text, "\n[fencing.agents.{agent}]\nkind = \"power\"\ncommand = \"fence_regent_ipmi\"")?;
            if self.impatient {
                writeln!(text, "timeout = \"4s\"")?;
            }
            writeln!(text, "options = {{ lanplus = \"1\", username = \"{USER}\", password = \"{PASSWORD}\" }}")?;
            for name in self.database_names() {
                writeln!(text, "node.{name:?} = {{ ip = \"{}\" }}", device(agent, &name))?;
            }
        }
        Ok(())
    }

    fn write_tls(&self, text: &mut String) -> Result<()> {
        if self.insecure {
            return Ok(());
        }
        writeln!(text, "tls_certificate = \"{DISK}/tls/database.pem\"\ntls_key = \"{DISK}/tls/database.key\"")?;
        match self.replication {
            Replication::Certificates => {}
            Replication::Password => writeln!(text, "replication_password_file = \"{DISK}/tls/replication.pw\"")?,
            Replication::Company => writeln!(text, "tls_ca = \"{DISK}/tls/company.pem\"")?,
            Replication::Open => writeln!(text, "{OPEN}")?,
        }
        Ok(())
    }

    fn write_service(&self, text: &mut String, name: &str, data: &str, port: u16) -> Result<()> {
        let bin = match &self.seed {
            Some(_) => PathBuf::from(seed::PROGRAMS),
            None => postgres::bin_dir()?,
        };
        writeln!(text, "\n[service.{name}]\nengine = \"postgresql\"\n{}", self.bootstrap)?;
        writeln!(text, "on_crash = \"{}\"\n{}", self.on_crash, self.service)?;
        writeln!(text, "[service.{name}.postgresql]\ndata_dir = \"{data}\"\nbin_dir = \"{}\"", bin.display())?;
        let hba = [&["host all postgres 10.77.0.0/16 md5"], self.hba].concat();
        writeln!(text, "port = {port}\nhba = {hba:?}\nlog_dir = \"{DISK}/log\"")?;
        self.write_tls(text)?;
        writeln!(text, "{}", self.database)?;
        writeln!(text, "[service.{name}.postgresql.parameters]\nshared_buffers = \"64MB\"\nmax_connections = 50")?;
        writeln!(text, "{}\n{}", pace::PARAMETERS, self.parameters)?;
        Ok(())
    }
}
