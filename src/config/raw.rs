//! What may be written in the file: every table and every key, each optional. What a key means, its unit and its
//! default stand in the example files under `config/`; what it must satisfy in `check.rs` and `timing.rs`.

use super::problem::Problems;
use super::read::{Bytes, OrNever, Scalar, Value, field, note_keys, words};
use super::{OnCrash, OnLapsed, PowerOn, Profile, ReplicationTls, Role, TroublePolicy};
use crate::types::{AgentKind, Lack};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A table with a fixed set of keys: the struct, the list of its keys, and how it is read.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default)]
            pub(super) struct $name { $(pub(super) $key: Option<$type>),+ }

            impl Value for $name {
                const EXPECTED: &'static str = "a table";

                fn read(value: &DeValue<'_>, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
                    let table = value.as_table()?;
                    note_keys(table, path, Some(&[$(stringify!($key)),+]), problems);
                    Some($name { $($key: field(table, path, stringify!($key), problems)),+ })
                }
            }
        )+

        /// Every table of the format with its keys: the examples must show them all.
        #[cfg(test)]
        pub(super) const KEYS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($key)),+])),+];
    };
}

tables! {
    /// The whole file.
    File {
        cluster: String,
        node: String,
        data_dir: PathBuf,
        run_dir: PathBuf,
        boot_id_file: PathBuf,
        product_uuid_file: PathBuf,
        network_devices_dir: PathBuf,
        profile: Profile,
        security: Security,
        nodes: BTreeMap<String, Node>,
        channels: Channels,
        detector: Detector,
        raft: Raft,
        lease: Lease,
        watchdog: Watchdog,
        fencing: Fencing,
        failover: Failover,
        service: BTreeMap<String, Service>,
    }
    /// `[security]`
    Security {
        ca: PathBuf,
        certificate: PathBuf,
        key: PathBuf,
        heartbeat_keys: Vec<PathBuf>,
        insecure: bool,
    }
    /// `[nodes.NAME]`
    Node {
        role: Role,
        primary: IpAddr,
        secondary: IpAddr,
        grpc_port: u16,
        heartbeat_port: u16,
        priority: u32,
        location: String,
        hostname: String,
        disk: bool,
        run_dir: PathBuf,
    }
    /// `[channels]`
    Channels {
        disk: Disk,
    }
    /// `[channels.disk]`
    Disk {
        path: PathBuf,
    }
    /// `[detector]`
    Detector {
        interval: Duration,
        phi_threshold: f64,
        acceptable_pause: Duration,
        window: u32,
        min_deviation: Duration,
        rise: u32,
        startup_grace: Duration,
    }
    /// `[raft]`
    Raft {
        heartbeat: Duration,
        election_min: Duration,
        election_max: Duration,
        slow_write: Duration,
    }
    /// `[lease]`
    Lease {
        ttl: Duration,
        renew: Duration,
        drift_permille: u32,
        grace: Duration,
        stop_immediate: Duration,
        stop_kill: Duration,
    }
    /// `[watchdog]`
    Watchdog {
        device: PathBuf,
        timeout: Duration,
    }
    /// `[fencing]`
    Fencing {
        assist: Vec<String>,
        level: Vec<Level>,
        agents: BTreeMap<String, Agent>,
        on_lapsed: OnLapsed,
        power_on: PowerOn,
        lease_without_watchdog: bool,
        lease_on_virtual_machine: bool,
        retry: Duration,
        retry_max: Duration,
    }
    /// `[[fencing.level]]`
    Level {
        agents: Vec<String>,
    }
    /// `[fencing.agents.NAME]`
    Agent {
        kind: AgentKind,
        command: PathBuf,
        options: BTreeMap<String, Scalar>,
        node: BTreeMap<String, BTreeMap<String, Scalar>>,
        isolates: bool,
        everywhere: bool,
        timeout: Duration,
        tries: u32,
        monitor: OrNever,
    }
    /// `[failover]`
    Failover {
        max_lag: Bytes,
        max_silence: Duration,
        max_lag_time: Duration,
        choose: Duration,
        catch_up: Duration,
        install: Duration,
        max_per_hour: u32,
    }
    /// `[service.NAME]`
    Service {
        engine: Engine,
        postgresql: Postgresql,
        bootstrap: Bootstrap,
        bootstrap_command: Vec<String>,
        on_crash: OnCrash,
        max_restarts: u32,
        restart_window: Duration,
        start_timeout: Duration,
        start_stalled: Duration,
        hung_after: Duration,
        stop_fast: Duration,
        stop_immediate: Duration,
        stop_kill: Duration,
        bars: Vec<Lack>,
        trouble: Trouble,
        node: BTreeMap<String, Member>,
    }
    /// `[service.NAME.trouble]`
    Trouble {
        volume_full: TroublePolicy,
        volume_read_only: TroublePolicy,
        volume_stalled: TroublePolicy,
        stalled_after: Duration,
        archiver_stuck: TroublePolicy,
        archiver_after: Duration,
        wraparound_near: TroublePolicy,
        wraparound_age: u32,
        log_volume_full: TroublePolicy,
        tablespace: TroublePolicy,
    }
    /// `[service.NAME.node.NODE]`
    Member {
        may_lead: bool,
        apply_delay: Duration,
        follow: String,
        parameters: BTreeMap<String, Scalar>,
        listen: Vec<IpAddr>,
    }
    /// `[service.NAME.postgresql]`
    Postgresql {
        data_dir: PathBuf,
        bin_dir: PathBuf,
        wal_dir: PathBuf,
        initdb_options: Vec<String>,
        copy_max_rate: Bytes,
        old_copies: u32,
        outsider_slots: Vec<String>,
        clone_command: Vec<String>,
        clone_timeout: Duration,
        clone_fallback: CloneFallback,
        archive_check: Vec<String>,
        port: u16,
        os_user: String,
        superuser: String,
        replication_user: String,
        replication_password_file: PathBuf,
        replication_tls: ReplicationTls,
        tls_ca: PathBuf,
        tls_certificate: PathBuf,
        tls_key: PathBuf,
        hba: Vec<String>,
        log_dir: PathBuf,
        log_limit: Bytes,
        socket_dirs: Vec<PathBuf>,
        listen: Vec<IpAddr>,
        environment: BTreeMap<String, Scalar>,
        environment_file: PathBuf,
        parameters: BTreeMap<String, Scalar>,
        probe_interval: Duration,
        probe_timeout: Duration,
    }
}

/// `engine = "…"`: which kind of database a service is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Postgresql,
}

/// `bootstrap = "…"`: how a service that does not exist yet comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bootstrap {
    Initdb,
    Command,
}

/// `clone_fallback = "…"`: what makes a copy where `clone_command` could not.
#[derive(Clone, Copy, Debug)]
pub(super) enum CloneFallback {
    Basebackup,
}

words!(Profile, "\"fast\", \"lan\" or \"wan\"",
    "fast" => Profile::Fast, "lan" => Profile::Lan, "wan" => Profile::Wan);
words!(Role, "\"database\" or \"witness\"", "database" => Role::Database, "witness" => Role::Witness);
words!(Engine, "\"postgresql\"", "postgresql" => Engine::Postgresql);
words!(ReplicationTls, "\"required\", \"optional\" or \"off\"",
    "required" => ReplicationTls::Required, "optional" => ReplicationTls::Optional, "off" => ReplicationTls::Off);
words!(Bootstrap, "\"initdb\" or \"command\"", "initdb" => Bootstrap::Initdb, "command" => Bootstrap::Command);
words!(CloneFallback, "\"basebackup\"", "basebackup" => CloneFallback::Basebackup);
words!(
    OnCrash, "\"auto\", \"restart\" or \"failover\"",
    "auto" => OnCrash::Auto, "restart" => OnCrash::Restart, "failover" => OnCrash::Failover
);
words!(
    TroublePolicy, "\"restart\", \"switchover\", \"failover\" or \"alarm\"",
    "restart" => TroublePolicy::Restart, "switchover" => TroublePolicy::Switchover,
    "failover" => TroublePolicy::Failover, "alarm" => TroublePolicy::Alarm
);
words!(OnLapsed, "\"alarm\" or \"fence\"", "alarm" => OnLapsed::Alarm, "fence" => OnLapsed::Fence);
words!(PowerOn, "\"auto\" or \"manual\"", "auto" => PowerOn::Auto, "manual" => PowerOn::Manual);
words!(
    Lack, "\"checksums\", \"collations\", \"version\", \"room\", \"libraries\", \"monitoring\", \"extensions\", \"memory\", \
           \"huge_pages\", \"minor_version\", \"archive\" or \"rejoin\"",
    "checksums" => Lack::Checksums, "collations" => Lack::Collations, "version" => Lack::Version, "room" => Lack::Room,
    "libraries" => Lack::Libraries, "monitoring" => Lack::Monitoring, "extensions" => Lack::Extensions,
    "memory" => Lack::Memory, "huge_pages" => Lack::HugePages, "minor_version" => Lack::MinorVersion,
    "archive" => Lack::Archive, "rejoin" => Lack::Rejoin
);
words!(AgentKind, "\"power\", \"storage\", \"network\" or \"access\"",
    "power" => AgentKind::Power, "storage" => AgentKind::Storage,
    "network" => AgentKind::Network, "access" => AgentKind::Access);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::read;
    use std::collections::BTreeSet;
    use toml::de::DeTable;

    /// Where each table stands; `*` is a name or number of the operator's.
    const PLACES: [(&str, &str); 17] = [
        ("File", ""),
        ("Security", "security."),
        ("Node", "nodes.*."),
        ("Channels", "channels."),
        ("Disk", "channels.disk."),
        ("Detector", "detector."),
        ("Raft", "raft."),
        ("Lease", "lease."),
        ("Watchdog", "watchdog."),
        ("Fencing", "fencing."),
        ("Level", "fencing.level[*]."),
        ("Agent", "fencing.agents.*."),
        ("Failover", "failover."),
        ("Service", "service.*."),
        ("Trouble", "service.*.trouble."),
        ("Member", "service.*.node.*."),
        ("Postgresql", "service.*.postgresql."),
    ];

    /// Names and numbers of the operator's as `*`.
    fn general(path: &str) -> String {
        let mut parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        for i in 0..parts.len() {
            if parts[i].starts_with("level[") {
                parts[i] = "level[*]".to_owned();
            }
            if i > 0 && matches!(parts[i - 1].as_str(), "nodes" | "agents" | "service" | "node") {
                parts[i] = "*".to_owned();
            }
        }
        parts.join(".")
    }

    #[test]
    fn every_key_is_in_an_example() {
        let mut shown = BTreeSet::new();
        for text in [
            include_str!("../../config/three-databases.toml"),
            include_str!("../../config/two-databases-and-witness.toml"),
            include_str!("../../config/five-voters.toml"),
        ] {
            let document = DeTable::parse(text).expect("an example is TOML");
            let value = toml::Spanned::new(document.span(), DeValue::Table(document.into_inner()));
            let mut problems = Problems::new(text, "example");
            read::<File>(&value, "", &mut problems).expect("a table");
            shown.extend(problems.written().map(general));
        }
        for (table, keys) in KEYS {
            let (_, place) = PLACES.iter().find(|(name, _)| name == table).expect("every table has a place");
            for key in *keys {
                assert!(shown.contains(&format!("{place}{key}")), "no example shows {place}{key}");
            }
        }
    }
}
