//! From the text of a file to a valid [`Config`], or to every problem in it.
//!
//! The order: TOML itself; types and unknown keys (`read.rs`, `raw.rs`); values, with the profile's where none is
//! written (here); rules that concern several values (`check.rs`); timing (`timing.rs`). Only TOML errors end it
//! early: after one, it is not known which table a key belongs to.

use super::problem::{Problem, Problems, suggest};
use super::profile::Preset;
use super::read::{fingerprint, read};
use super::{
    Agent, BARS, Config, DatabaseTls, Detector, Disk, Failover, Fencing, LeaseTiming, Node, OnCrash, OnLapsed,
    Postgresql, PowerOn, Profile, RaftTiming, ReplicationTls, Role, Security, Service, Tls, Watchdog, check, commands,
    database_tls, members, on_host, raw, timing, trouble,
};
use crate::types::{AgentKind, AgentName, InvalidName, NodeName, Quoted, ServiceName};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::de::DeTable;

/// How long a service's start may take, where its table does not say.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(300);

/// The agents that ship with regent may be named without a table of their own.
const SHIPPED: [(&str, AgentKind, &str); 3] = [
    ("credentials", AgentKind::Access, "fence_regent_credentials"),
    ("firewall", AgentKind::Network, "fence_regent_firewall"),
    ("ipmi", AgentKind::Power, "fence_regent_ipmi"),
];

/// The names of the agents that ship with regent.
pub(super) fn shipped<'a>() -> impl Iterator<Item = &'a str> {
    SHIPPED.iter().map(|(name, ..)| *name)
}

impl Config {
    /// Reads a configuration. `origin` is the file's name, for errors. The node is `node_override`, else the file's
    /// `node`, else `hostname` (or its first label). Fails with every problem that was found, in the file's order.
    pub fn parse(
        text: &str,
        origin: &str,
        node_override: Option<&str>,
        hostname: &str,
    ) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::new(text, origin);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            problems.add_at(floor_char(text, offset), "", error.message().trim().replace('\n', "; "), None);
        }
        if problems.count() > 0 {
            return Err(problems.into_sorted());
        }
        let hash = fingerprint(document.get_ref());
        let document = toml::Spanned::new(document.span(), toml::de::DeValue::Table(document.into_inner()));
        let file: raw::File = read(&document, "", &mut problems).unwrap_or_default();

        let node = this_node(&file, node_override, hostname, &mut problems);
        let draft = Draft { node: node.as_ref().map_or("", NodeName::as_str) };
        let config = draft.config(&file, node.clone(), hash, &mut problems);
        if let Some(config) = &config {
            check::rules(config, &file, &mut problems);
            commands::rules(config, &file, &mut problems);
            members::rules(config, &file, &mut problems);
            on_host::rules(config, &file, &mut problems);
            if !problems.touch(&["profile", "detector", "raft", "lease", "watchdog", "fencing", "failover"]) {
                timing::check(config, &mut problems);
            }
        }
        match config {
            Some(config) if problems.count() == 0 => Ok(config),
            _ => Err(problems.into_sorted()),
        }
    }
}

fn floor_char(text: &str, mut offset: usize) -> usize {
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Which node this is. The first label of the host name is tried too: some hosts say `db1`, some `db1.example.org`.
fn this_node(
    file: &raw::File,
    node_override: Option<&str>,
    hostname: &str,
    problems: &mut Problems<'_>,
) -> Option<NodeName> {
    let nodes = file.nodes.as_ref()?;
    let short = hostname.split('.').next().unwrap_or(hostname);
    let (given, source) = match (node_override, &file.node) {
        (Some(name), _) => (name, "the --node option"),
        (None, Some(name)) => (name.as_str(), "this file"),
        (None, None) if nodes.contains_key(hostname) => (hostname, "the host name"),
        (None, None) => (short, "the host name"),
    };
    if !nodes.contains_key(given) {
        let hint = suggest(given, nodes.keys().map(String::as_str));
        problems.add_hint("node", format!("{}, from {source}, has no [nodes.{given}]", Quoted(given)), hint);
        return None;
    }
    name(given, &format!("nodes.{given}"), problems)
}

fn name<T: FromStr<Err = InvalidName>>(given: &str, key: &str, problems: &mut Problems<'_>) -> Option<T> {
    given.parse().map_err(|error: InvalidName| problems.add(key, error.to_string())).ok()
}

/// The value that is written, or the given one.
fn or<T: Clone>(written: &Option<T>, otherwise: T) -> T {
    written.clone().unwrap_or(otherwise)
}

/// A value that must be written. An absent one is a problem, unless it is there and was already complained about.
fn required<T: Clone>(written: &Option<T>, key: &str, expected: &str, problems: &mut Problems<'_>) -> Option<T> {
    if written.is_none() && !problems.is_written(key) {
        problems.add(key, format!("missing: expected {expected}"));
    }
    written.clone()
}

/// Everything that conversion needs to know beside the raw values.
struct Draft<'a> {
    /// Replaces `{node}` in paths.
    node: &'a str,
}

impl Draft<'_> {
    fn path(&self, written: &Option<PathBuf>, otherwise: &str) -> PathBuf {
        self.expand(written.as_deref().unwrap_or(Path::new(otherwise)))
    }

    fn expand(&self, path: &Path) -> PathBuf {
        match path.to_str() {
            Some(text) => PathBuf::from(text.replace("{node}", self.node)),
            None => path.to_owned(),
        }
    }

    fn config(
        &self,
        file: &raw::File,
        node: Option<NodeName>,
        hash: u64,
        problems: &mut Problems<'_>,
    ) -> Option<Config> {
        let profile = file.profile.unwrap_or(Profile::Lan);
        let preset = profile.preset();
        let cluster = required(&file.cluster, "cluster", "the name of the cluster, as in \"orders\"", problems);
        let cluster = cluster.and_then(|given| name::<NodeName>(&given, "cluster", problems));
        if !problems.is_written("nodes") {
            problems.add("nodes", "missing: expected a table [nodes.NAME] for each host");
        }
        let disk = self.disk(file, problems);
        let nodes = self.nodes(file, problems);
        let fencing = self.fencing(file.fencing.as_ref(), &preset, problems);
        let security = nodes.as_ref().map(|nodes| self.security(file.security.as_ref(), nodes));
        let demanded = nodes.as_ref().zip(security.as_ref()).map(|(nodes, s)| database_tls::demanded(s, nodes));
        let services = self.services(file, &preset, demanded.unwrap_or(ReplicationTls::Off), problems);
        let my_run_dir = file.nodes.as_ref().and_then(|all| all.get(self.node)).and_then(|n| n.run_dir.clone());
        let (cluster, node, nodes, fencing) = (cluster?, node?, nodes?, fencing?);
        Some(Config {
            cluster: cluster.to_string(),
            node,
            data_dir: self.path(&file.data_dir, "/var/lib/regent"),
            run_dir: self.path(&my_run_dir.or(file.run_dir.clone()), "/run/regent"),
            profile,
            boot_id_file: self.path(&file.boot_id_file, "/proc/sys/kernel/random/boot_id"),
            product_uuid_file: self.path(&file.product_uuid_file, "/sys/class/dmi/id/product_uuid"),
            network_devices_dir: self.path(&file.network_devices_dir, "/sys/class/net"),
            security: security?,
            nodes,
            disk,
            detector: detector(file.detector.as_ref(), preset.detector),
            raft: raft(file.raft.as_ref(), preset.raft),
            lease: lease(file.lease.as_ref(), preset.lease),
            watchdog: file.watchdog.as_ref().map(|written| Watchdog {
                device: self.path(&written.device, "/dev/watchdog"),
                timeout: or(&written.timeout, preset.watchdog),
            }),
            fencing,
            failover: failover(file.failover.as_ref(), preset.failover),
            services: services?,
            hash,
        })
    }

    fn disk(&self, file: &raw::File, problems: &mut Problems<'_>) -> Option<Disk> {
        let disk = file.channels.as_ref()?.disk.as_ref()?;
        let path = required(&disk.path, "channels.disk.path", "a file or block device", problems)?;
        Some(Disk { path: self.expand(&path) })
    }

    fn nodes(&self, file: &raw::File, problems: &mut Problems<'_>) -> Option<BTreeMap<NodeName, Node>> {
        let with_disk = problems.is_written("channels.disk");
        let mut nodes = BTreeMap::new();
        let written = file.nodes.as_ref()?;
        for (given, node) in written {
            let key = format!("nodes.{given}");
            let name: Option<NodeName> = name(given, &key, problems);
            let address = "this host's address on that network";
            let primary = required(&node.primary, &format!("{key}.primary"), address, problems);
            let secondary = required(&node.secondary, &format!("{key}.secondary"), address, problems);
            if let (Some(name), Some(primary), Some(secondary)) = (name, primary, secondary) {
                let node = Node {
                    role: or(&node.role, Role::Database),
                    primary,
                    secondary,
                    grpc_port: or(&node.grpc_port, 7420),
                    heartbeat_port: or(&node.heartbeat_port, 7421),
                    priority: or(&node.priority, 100),
                    location: node.location.clone(),
                    hostname: or(&node.hostname, name.to_string()),
                    disk: or(&node.disk, with_disk),
                };
                nodes.insert(name, node);
            }
        }
        // With a node missing every later rule would speak of a cluster that nobody wrote.
        (nodes.len() == written.len() && !nodes.is_empty()).then_some(nodes)
    }

    fn security(&self, written: Option<&raw::Security>, nodes: &BTreeMap<NodeName, Node>) -> Security {
        let none = raw::Security::default();
        let written = written.unwrap_or(&none);
        let insecure = written.insecure.unwrap_or(false);
        let local = database_tls::is_local(nodes);
        let asked = written.ca.is_some() || written.certificate.is_some() || written.key.is_some();
        let keys = or(&written.heartbeat_keys, vec![PathBuf::from("/etc/regent/heartbeat.key")]);
        Security {
            heartbeat_keys: keys.iter().map(|key| self.expand(key)).collect(),
            tls: (asked || !(insecure || local)).then(|| Tls {
                ca: self.path(&written.ca, "/etc/regent/ca.pem"),
                certificate: self.path(&written.certificate, "/etc/regent/node.pem"),
                key: self.path(&written.key, "/etc/regent/node.key"),
            }),
            insecure,
        }
    }

    fn fencing(&self, written: Option<&raw::Fencing>, preset: &Preset, problems: &mut Problems<'_>) -> Option<Fencing> {
        let none = raw::Fencing::default();
        let written = written.unwrap_or(&none);
        let mut agents = BTreeMap::new();
        for (given, agent) in written.agents.iter().flatten() {
            let key = format!("fencing.agents.{given}");
            if given == AgentName::LEASE {
                problems.add_hint(&key, "\"lease\" is built in", "give this agent another name");
            } else if let Some(name) = name(given, &key, problems) {
                agents.extend(self.agent(given, &key, agent, preset, problems).map(|agent| (name, agent)));
            }
        }
        let broken = agents.len() < written.agents.as_ref().map_or(0, BTreeMap::len);
        let mut names = |list: &[String], key: &str| -> Vec<AgentName> {
            let at = |(i, given): (usize, &String)| name(given, &format!("{key}[{}]", i + 1), problems);
            list.iter().enumerate().filter_map(at).collect()
        };
        let assist = names(written.assist.as_deref().unwrap_or_default(), "fencing.assist");
        let levels: Vec<Vec<AgentName>> = written
            .level
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, level)| {
                names(level.agents.as_deref().unwrap_or_default(), &format!("fencing.level[{}].agents", i + 1))
            })
            .collect();
        for used in assist.iter().chain(levels.iter().flatten()) {
            if !agents.contains_key(used) && SHIPPED.iter().any(|(shipped, ..)| *shipped == used.as_str()) {
                let agent = self.agent(used.as_str(), "", &raw::Agent::default(), preset, problems);
                agents.extend(agent.map(|agent| (used.clone(), agent)));
            }
        }
        let fencing = Fencing {
            assist,
            levels,
            agents,
            on_lapsed: or(&written.on_lapsed, OnLapsed::Alarm),
            power_on: or(&written.power_on, PowerOn::Auto),
            lease_without_watchdog: or(&written.lease_without_watchdog, false),
            lease_on_virtual_machine: or(&written.lease_on_virtual_machine, false),
            retry: or(&written.retry, preset.retry),
            retry_max: or(&written.retry_max, preset.retry_max),
        };
        (!broken).then_some(fencing)
    }

    fn agent(
        &self,
        given: &str,
        key: &str,
        written: &raw::Agent,
        preset: &Preset,
        problems: &mut Problems<'_>,
    ) -> Option<Agent> {
        let shipped = SHIPPED.iter().find(|(name, ..)| *name == given);
        let kind = written.kind.or(shipped.map(|(_, kind, _)| *kind));
        let kind =
            required(&kind, &format!("{key}.kind"), "\"power\", \"storage\", \"network\" or \"access\"", problems);
        let command = written.command.clone().or(shipped.map(|(.., command)| PathBuf::from(command)));
        let command = required(&command, &format!("{key}.command"), "a FenceAgentAPI executable", problems);
        let (kind, command) = (kind?, command?);
        let text = |options: &BTreeMap<String, super::read::Scalar>| {
            options.iter().map(|(option, value)| (option.clone(), value.0.clone())).collect()
        };
        let mut node = BTreeMap::new();
        for (target, options) in written.node.iter().flatten() {
            if let Some(target) = name(target, &format!("{key}.node.{target}"), problems) {
                node.insert(target, text(options));
            }
        }
        Some(Agent {
            kind,
            command: self.expand(&command),
            options: written.options.as_ref().map(text).unwrap_or_default(),
            node,
            isolates: or(&written.isolates, false),
            everywhere: or(&written.everywhere, matches!(kind, AgentKind::Network | AgentKind::Access)),
            timeout: or(&written.timeout, preset.agent.timeout),
            tries: or(&written.tries, preset.agent.tries),
            monitor: written.monitor.map_or(preset.agent.monitor, |every| every.0),
        })
    }

    fn services(
        &self,
        file: &raw::File,
        preset: &Preset,
        demanded: ReplicationTls,
        problems: &mut Problems<'_>,
    ) -> Option<BTreeMap<ServiceName, Service>> {
        let none = BTreeMap::new();
        let written = file.service.as_ref().unwrap_or(&none);
        if written.is_empty() {
            problems.add("service", "missing: expected a table [service.NAME] for each database");
        }
        let mut services = BTreeMap::new();
        for (given, service) in written {
            let key = format!("service.{given}");
            required(&service.engine, &format!("{key}.engine"), "\"postgresql\"", problems);
            let tls = self.database_tls(service.postgresql.as_ref(), file.security.as_ref(), demanded);
            let postgresql = self.postgresql(&format!("{key}.postgresql"), service, preset, tls, problems);
            let (Some(name), Some(postgresql)) = (name(given, &key, problems), postgresql) else { continue };
            let service = Service {
                postgresql,
                on_crash: or(&service.on_crash, OnCrash::Auto),
                max_restarts: or(&service.max_restarts, 3),
                restart_window: or(&service.restart_window, Duration::from_secs(3600)),
                start_timeout: or(&service.start_timeout, START_TIMEOUT),
                start_stalled: or(&service.start_stalled, Duration::from_secs(60)),
                hung_after: or(&service.hung_after, Duration::from_secs(30)),
                stop_fast: or(&service.stop_fast, preset.service.stop_fast),
                stop_immediate: or(&service.stop_immediate, preset.service.stop_immediate),
                stop_kill: or(&service.stop_kill, preset.service.stop_kill),
                bars: service.bars.clone().map_or_else(|| BARS.into(), |bars| bars.into_iter().collect()),
                bootstrap_initdb: service.bootstrap.is_some(),
                troubles: trouble::of(service.trouble.as_ref()),
                members: members::of(service),
            };
            services.insert(name, service);
        }
        (services.len() == written.len()).then_some(services)
    }

    fn database_tls(
        &self,
        written: Option<&raw::Postgresql>,
        security: Option<&raw::Security>,
        demanded: ReplicationTls,
    ) -> DatabaseTls {
        let none = raw::Postgresql::default();
        let written = written.unwrap_or(&none);
        let of_the_cluster = security.and_then(|security| security.ca.clone());
        DatabaseTls {
            replication: or(&written.replication_tls, demanded),
            files: Tls {
                ca: self.path(&written.tls_ca.clone().or(of_the_cluster), "/etc/regent/ca.pem"),
                certificate: self.path(&written.tls_certificate, "/etc/regent/database.pem"),
                key: self.path(&written.tls_key, "/etc/regent/database.key"),
            },
            by_operators_ca: written.tls_ca.is_some(),
        }
    }

    fn postgresql(
        &self,
        key: &str,
        service: &raw::Service,
        preset: &Preset,
        tls: DatabaseTls,
        problems: &mut Problems<'_>,
    ) -> Option<Postgresql> {
        let none = raw::Postgresql::default();
        let written = service.postgresql.as_ref().unwrap_or(&none);
        let data_dir = required(&written.data_dir, &format!("{key}.data_dir"), "the database's directory", problems);
        let bin_dir = required(
            &written.bin_dir,
            &format!("{key}.bin_dir"),
            "the directory of the postgres executable, as in \"/usr/lib/postgresql/15/bin\"",
            problems,
        );
        let parameters = written.parameters.iter().flatten().map(|(name, value)| (name.clone(), value.0.clone()));
        Some(Postgresql {
            data_dir: self.expand(&data_dir?),
            bin_dir: self.expand(&bin_dir?),
            wal_dir: written.wal_dir.as_deref().map(|path| self.expand(path)),
            initdb_options: or(&written.initdb_options, Vec::new()),
            commands: commands::of(service),
            outsider_slots: or(&written.outsider_slots, Vec::new()),
            old_copies: or(&written.old_copies, 1) as usize,
            copy_max_rate: written.copy_max_rate.as_ref().map(|rate| rate.0),
            port: or(&written.port, 5432),
            os_user: or(&written.os_user, "postgres".to_owned()),
            superuser: or(&written.superuser, "postgres".to_owned()),
            replication_user: or(&written.replication_user, database_tls::REPLICATION_USER.to_owned()),
            replication_password_file: written.replication_password_file.as_deref().map(|path| self.expand(path)),
            tls,
            hba: or(&written.hba, Vec::new()),
            on_host: on_host::of(service, self.node, |path| self.expand(path)),
            apply_delay: members::delay_of(service, self.node),
            parameters: parameters.chain(members::parameters_of(service, self.node)).collect(),
            probe_interval: or(&written.probe_interval, preset.service.probe_interval),
            probe_timeout: or(&written.probe_timeout, preset.service.probe_timeout),
        })
    }
}

fn detector(written: Option<&raw::Detector>, preset: Detector) -> Detector {
    let Some(written) = written else { return preset };
    Detector {
        interval: or(&written.interval, preset.interval),
        phi_threshold: or(&written.phi_threshold, preset.phi_threshold),
        acceptable_pause: or(&written.acceptable_pause, preset.acceptable_pause),
        window: written.window.map_or(preset.window, |window| window as usize),
        min_deviation: or(&written.min_deviation, preset.min_deviation),
        rise: or(&written.rise, preset.rise),
        startup_grace: or(&written.startup_grace, preset.startup_grace),
    }
}

fn raft(written: Option<&raw::Raft>, preset: RaftTiming) -> RaftTiming {
    let Some(written) = written else { return preset };
    RaftTiming {
        heartbeat: or(&written.heartbeat, preset.heartbeat),
        election_min: or(&written.election_min, preset.election_min),
        election_max: or(&written.election_max, preset.election_max),
        slow_write: or(&written.slow_write, preset.slow_write),
    }
}

fn lease(written: Option<&raw::Lease>, preset: LeaseTiming) -> LeaseTiming {
    let Some(written) = written else { return preset };
    LeaseTiming {
        ttl: or(&written.ttl, preset.ttl),
        renew: or(&written.renew, preset.renew),
        drift_permille: or(&written.drift_permille, preset.drift_permille),
        grace: or(&written.grace, preset.grace),
        stop_immediate: or(&written.stop_immediate, preset.stop_immediate),
        stop_kill: or(&written.stop_kill, preset.stop_kill),
    }
}

fn failover(written: Option<&raw::Failover>, preset: Failover) -> Failover {
    let Some(written) = written else { return preset };
    Failover {
        max_lag: written.max_lag.map_or(preset.max_lag, |size| size.0),
        max_silence: or(&written.max_silence, preset.max_silence),
        max_lag_time: or(&written.max_lag_time, preset.max_lag_time),
        choose: or(&written.choose, preset.choose),
        catch_up: or(&written.catch_up, preset.catch_up),
        install: or(&written.install, preset.install),
        max_per_hour: or(&written.max_per_hour, preset.max_per_hour),
    }
}
