//! The configuration, valid: what the rest of the program may rely on. `raw.rs` is what was written in the file,
//! `parse` turns one into the other and reports every error at once; `timing.rs` holds every inequality.
//!
//! Not here: reading the file (the CLI does) and any decision.
//!
//! ```text
//! text ── read ──► raw ── parse, profile ──► Config ── check, check_fencing, timing ──► Config, or every Problem
//!                                              └── report: timing's bounds, survey's single failures
//! ```

mod access_lines;
mod bars;
mod check;
mod check_fencing;
mod commands;
pub mod database_tls;
mod lease_time;
mod members;
mod names;
mod on_host;
pub mod parameters;
mod parse;
mod paths;
mod problem;
mod profile;
mod raw;
mod read;
mod report;
mod secret;
mod survey;
pub mod timing;
pub mod trouble;
mod values;
mod written;

pub use access_lines::slow_logins;
pub use bars::BARS;
pub use commands::{Command, Commands, expand};
pub use database_tls::{DatabaseTls, ReplicationTls};
pub use lease_time::{Drift, LeaseTime};
pub use members::Member;
pub use on_host::{OnHost, refused as refused_variable, variables};
pub use problem::Problem;
pub use report::{CheckReport, report};
pub use secret::{is_secret_option, is_switch};
pub use survey::{Failure, Network, SingleFailure, verdict_possible};
pub use trouble::{TroublePolicy, Troubles};
pub use written::Written;

use crate::detection::Patience;
use crate::types::{AgentKind, AgentName, ChannelName, Lack, NodeName, ServiceName, StopLadder, Upstream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A whole, valid configuration file, seen from one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub cluster: String,
    /// This node: a key of `nodes`.
    pub node: NodeName,
    pub data_dir: PathBuf,
    /// This node's run directory: gone after a boot.
    pub run_dir: PathBuf,
    pub profile: Profile,
    /// Where the boot id is read.
    pub boot_id_file: PathBuf,
    /// Where the product's UUID is read, and where the network devices stand: which machine this is.
    pub product_uuid_file: PathBuf,
    pub network_devices_dir: PathBuf,
    pub security: Security,
    pub nodes: BTreeMap<NodeName, Node>,
    /// The shared disk, where there is one.
    pub disk: Option<Disk>,
    pub detector: Detector,
    pub raft: RaftTiming,
    pub lease: LeaseTiming,
    pub watchdog: Option<Watchdog>,
    pub fencing: Fencing,
    pub failover: Failover,
    pub services: BTreeMap<ServiceName, Service>,
    /// A hash of the file without its `node` line, shown where nodes differ.
    pub hash: u64,
}

/// A preset of every timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Fast,
    Lan,
    Wan,
}

/// How nodes prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// One key, or two during a rotation (the first signs, both are accepted). Files of 32 bytes in hexadecimal.
    pub heartbeat_keys: Vec<PathBuf>,
    /// `None` only with `insecure = true`, or where every address is a loopback one.
    pub tls: Option<Tls>,
    /// `insecure = true` is written in the file.
    pub insecure: bool,
}

/// The files of mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps a database, and votes.
    Database,
    /// Votes only.
    Witness,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub role: Role,
    /// Address on the primary network.
    pub primary: IpAddr,
    /// Address on the secondary network.
    pub secondary: IpAddr,
    /// TCP port of gRPC, on both networks. Default 7420.
    pub grpc_port: u16,
    /// UDP port of heartbeats, on both networks. Default 7421.
    pub heartbeat_port: u16,
    /// Higher is preferred as primary. Default 100.
    pub priority: u32,
    pub location: Option<String>,
    /// By this name the certificate of its database knows it.
    pub hostname: String,
    /// Uses the shared disk. Default true where `[channels.disk]` exists.
    pub disk: bool,
}

/// The shared disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub path: PathBuf,
}

/// The failure detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    pub interval: Duration,
    pub phi_threshold: f64,
    pub acceptable_pause: Duration,
    /// How many arrival intervals are kept.
    pub window: usize,
    /// Floor of the deviation.
    pub min_deviation: Duration,
    /// `up` again only after so many heartbeats in a row.
    pub rise: u32,
    /// A peer never heard since start counts as lost only after this.
    pub startup_grace: Duration,
}

/// Raft's own times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// A leader whose log writes are slower than this hands leadership over.
    pub slow_write: Duration,
}

/// The lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    pub ttl: Duration,
    pub renew: Duration,
    /// Allowed error of clock rates, in parts per thousand.
    pub drift_permille: u32,
    /// What a lapsed holder may still need to be heard of.
    pub grace: Duration,
    /// The stop ladder at the end of a lease.
    pub stop_immediate: Duration,
    pub stop_kill: Duration,
}

/// The watchdog device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    pub timeout: Duration,
}

/// How nodes are fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// Run beside the first level; neither confirm nor hold up.
    pub assist: Vec<AgentName>,
    /// Tried in order; all agents of one must confirm.
    pub levels: Vec<Vec<AgentName>>,
    /// Every named agent but the built-in `lease`.
    pub agents: BTreeMap<AgentName, Agent>,
    pub on_lapsed: OnLapsed,
    pub power_on: PowerOn,
    pub lease_without_watchdog: bool,
    pub lease_on_virtual_machine: bool,
    /// First pause between two rounds of levels; doubles up to `retry_max` unless a service waits for the fence.
    pub retry: Duration,
    pub retry_max: Duration,
}

/// One fence agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub kind: AgentKind,
    /// A FenceAgentAPI executable: a name looked up in the usual places, or a path.
    pub command: PathBuf,
    pub options: BTreeMap<String, String>,
    /// Options for one target each; a node that is not in the table cannot be a target, unless the table is empty.
    pub node: BTreeMap<NodeName, BTreeMap<String, String>>,
    /// `network` or `access` that truly cuts the node off.
    pub isolates: bool,
    /// Runs on every surviving voter and is put back by each keeper (firewall, credentials), not on one executor.
    pub everywhere: bool,
    /// Deadline of one run, retries included.
    pub timeout: Duration,
    /// How often it is tried in a fence's first round; later it is tried until the deadline.
    pub tries: u32,
    /// How often `monitor` runs; zero = never.
    pub monitor: Duration,
}

/// What happens with a holder that lost its lease and says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLapsed {
    Alarm,
    Fence,
}

/// Whether a fenced node gets its power back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerOn {
    Auto,
    Manual,
}

/// Limits on moving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// A standby further behind than this is not eligible, in bytes of WAL.
    pub max_lag: u64,
    /// Nobody is promoted by itself where the primary was heard for longer than this without a word of its WAL.
    pub max_silence: Duration,
    /// A standby that has lacked something of what the primary wrote for longer than this is not counted by `READY`; the choice
    /// does not look at it.
    pub max_lag_time: Duration,
    /// How long the candidates have to report sealed positions before the choice is made without the silent ones.
    pub choose: Duration,
    /// How long the target of a planned move may take, after the primary has stopped, to receive and replay all of its WAL.
    pub catch_up: Duration,
    /// How long an appointee may take while its replay does not advance.
    pub install: Duration,
    /// So often within an hour a service moves although its primary could go on after a restart in place.
    pub max_per_hour: u32,
}

/// The most such moves that can be asked for: each is remembered for an hour.
pub const MOST_MOVES: u32 = 60;

/// The most restarts that can be asked for: each is remembered for `restart_window`.
pub const MOST_RESTARTS: usize = 100;

/// One database with one primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub postgresql: Postgresql,
    pub on_crash: OnCrash,
    /// So many restarts in place within `restart_window`; then the service moves.
    pub max_restarts: u32,
    pub restart_window: Duration,
    /// How long a start may take in all, tries included, before the service moves to a node that has nearly as much.
    pub start_timeout: Duration,
    /// How long a start may show no progress before it is ended.
    pub start_stalled: Duration,
    /// How long a database may answer nobody while nothing of it moves, before it is killed and started again.
    pub hung_after: Duration,
    /// The stop ladder of a planned stop.
    pub stop_fast: Duration,
    pub stop_immediate: Duration,
    pub stop_kill: Duration,
    /// Whoever lacks one of these is no candidate.
    pub bars: BTreeSet<Lack>,
    /// What is done about local trouble of the primary.
    pub troubles: Troubles,
    /// The service does not exist yet: make it on the first database node by priority, with initdb or by the operator's
    /// own program (`Postgresql::commands`).
    pub bootstrap_initdb: bool,
    /// What single nodes are for; the others are plain members.
    pub members: BTreeMap<NodeName, Member>,
}

/// What is done when the database dies while its node is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// It moves at once where a candidate has received all of its WAL, else it is restarted in place.
    Auto,
    Restart,
    Failover,
}

/// PostgreSQL, versions 13 to 18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgresql {
    pub data_dir: PathBuf,
    pub bin_dir: PathBuf,
    /// Where the WAL of a database goes that is made or copied here; `None`: into its directory, or where that has it.
    pub wal_dir: Option<PathBuf>,
    /// What is said to initdb beside what regent says itself.
    pub initdb_options: Vec<String>,
    /// The operator's own programs, which make the first database or a copy.
    pub commands: Commands,
    /// The most bytes that a copy takes from the primary in a second.
    pub copy_max_rate: Option<u64>,
    /// How many old copies are kept on a node beside those that an incident names.
    pub old_copies: usize,
    /// Physical replication slots of readers that are no nodes, which every node has.
    pub outsider_slots: Vec<String>,
    pub port: u16,
    /// The operating system's user that owns the database.
    pub os_user: String,
    pub superuser: String,
    pub replication_user: String,
    /// A file whose first line is the replication user's password.
    pub replication_password_file: Option<PathBuf>,
    /// How connections between the databases are kept private.
    pub tls: DatabaseTls,
    /// The operator's lines of pg_hba.conf; regent writes its own before them.
    pub hba: Vec<String>,
    /// Its log, more sockets and addresses, and what its programs find in their environment.
    pub on_host: OnHost,
    /// So much later this node replays what it receives (`recovery_min_apply_delay`).
    pub apply_delay: Duration,
    /// The operator's parameters, with those of this node.
    pub parameters: BTreeMap<String, String>,
    /// Read-write probe: how often, and its deadline.
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
}

impl Detector {
    /// How much silence is borne with these settings.
    pub fn patience(&self) -> Patience {
        Patience::new(self.interval, self.acceptable_pause, self.min_deviation, self.phi_threshold)
    }
}

impl LeaseTiming {
    /// The ladder at the end of a lease: no time for `fast`.
    pub fn ladder(&self) -> StopLadder {
        StopLadder { fast: Duration::ZERO, immediate: self.stop_immediate, kill: self.stop_kill }
    }
}

impl Config {
    /// This node's own table.
    pub fn me(&self) -> &Node {
        &self.nodes[&self.node]
    }

    /// How a node's database is reached.
    pub fn upstream(&self, service: &ServiceName, node: &NodeName) -> Option<Upstream> {
        let at = self.nodes.get(node)?;
        let port = self.services[service].postgresql.port;
        Some(Upstream { node: node.clone(), addresses: vec![at.primary, at.secondary], port })
    }

    /// What a lease counts by this file. What it counts in a running cluster is what the ledger was seeded with.
    pub fn lease_time(&self) -> LeaseTime {
        LeaseTime {
            ttl: self.lease.ttl,
            drift: Drift(self.lease.drift_permille),
            watchdog: self.watchdog.as_ref().map_or(Duration::ZERO, |watchdog| watchdog.timeout),
            stop: self.lease.ladder().whole(),
        }
    }

    /// The configured channels, in order: `primary`, `secondary`, and `disk` where there is one.
    pub fn channels(&self) -> Vec<ChannelName> {
        let networks = [ChannelName::primary(), ChannelName::secondary()];
        networks.into_iter().chain(self.disk.as_ref().map(|_| ChannelName::disk())).collect()
    }
}
