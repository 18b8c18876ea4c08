//! Configurations of simulated clusters: profile `lan`, built as values. No file is read.

use regent::config::{
    Agent, Commands, Config, DatabaseTls, Detector, Disk, Failover, Fencing, LeaseTiming, Member, Node, OnCrash,
    OnHost, OnLapsed, Postgresql, PowerOn, Profile, RaftTiming, ReplicationTls, Role, Security, Service, Tls, Watchdog,
};
use regent::types::{AgentKind, AgentName, NodeName};
use std::collections::BTreeMap;
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn name(text: &str) -> AgentName {
    text.parse().expect("names here are constants and valid")
}

/// More than any database here ever writes: nobody lacks so much.
pub const MAX_LAG: u64 = 16 << 20;

/// `databases` database hosts db1, db2, ... and `witnesses` witnesses w1, w2, ..., with a shared disk and one power
/// device each.
pub fn config(databases: u8, witnesses: u8) -> Config {
    let all = (1..=databases).map(|i| (format!("db{i}"), Role::Database));
    let all = all.chain((1..=witnesses).map(|i| (format!("w{i}"), Role::Witness)));
    let nodes = all.zip(11u8..).map(|((name, role), i)| {
        let node = Node {
            role,
            primary: [10, 0, 1, i].into(),
            secondary: [10, 0, 2, i].into(),
            grpc_port: 7420,
            heartbeat_port: 7421,
            priority: 100 + u32::from(name == "db1"),
            location: None,
            hostname: name.to_string(),
            disk: true,
        };
        (name.parse().expect("names here are constants and valid"), node)
    });
    Config {
        cluster: "sim".to_owned(),
        node: "db1".parse().expect("a constant, valid name"),
        data_dir: "/nowhere".into(),
        run_dir: "/nowhere".into(),
        profile: Profile::Lan,
        boot_id_file: "/nowhere".into(),
        product_uuid_file: "/nowhere".into(),
        network_devices_dir: "/nowhere".into(),
        security: Security { heartbeat_keys: vec![], tls: None, insecure: true },
        nodes: nodes.collect(),
        disk: Some(Disk { path: "/nowhere".into() }),
        detector: Detector {
            interval: ms(200),
            phi_threshold: 8.0,
            acceptable_pause: ms(1000),
            window: 200,
            min_deviation: ms(40),
            rise: 3,
            startup_grace: ms(10_000),
        },
        raft: RaftTiming { heartbeat: ms(100), election_min: ms(500), election_max: ms(1000), slow_write: ms(300) },
        lease: LeaseTiming {
            ttl: ms(8000),
            renew: ms(500),
            drift_permille: 101,
            grace: ms(2000),
            stop_immediate: ms(1000),
            stop_kill: ms(1000),
        },
        watchdog: None,
        fencing: fencing(),
        failover: Failover {
            max_lag: MAX_LAG,
            max_per_hour: 3,
            install: ms(30_000),
            choose: ms(1_000),
            catch_up: ms(5_000),
            max_silence: ms(10_000),
            max_lag_time: ms(30_000),
        },
        services: BTreeMap::from([("orders".parse().expect("a constant, valid name"), service())]),
        hash: 1,
    }
}

fn agent(kind: AgentKind, everywhere: bool) -> Agent {
    Agent {
        kind,
        command: "none".into(),
        options: BTreeMap::new(),
        node: BTreeMap::new(),
        isolates: false,
        everywhere,
        timeout: ms(3000),
        tries: 2,
        monitor: Duration::ZERO,
    }
}

fn fencing() -> Fencing {
    Fencing {
        assist: vec![name("firewall")],
        levels: vec![vec![name("ipmi")], vec![name("pdu")]],
        agents: BTreeMap::from([
            (name("ipmi"), agent(AgentKind::Power, false)),
            (name("pdu"), agent(AgentKind::Power, false)),
            (name("firewall"), agent(AgentKind::Network, true)),
        ]),
        on_lapsed: OnLapsed::Fence,
        power_on: PowerOn::Auto,
        lease_without_watchdog: false,
        lease_on_virtual_machine: false,
        retry: ms(5000),
        retry_max: ms(60_000),
    }
}

fn service() -> Service {
    Service {
        postgresql: Postgresql {
            data_dir: "/nowhere".into(),
            bin_dir: "/nowhere".into(),
            wal_dir: None,
            initdb_options: Vec::new(),
            commands: Commands::default(),
            copy_max_rate: None,
            on_host: OnHost::default(),
            apply_delay: Duration::ZERO,
            old_copies: 1,
            outsider_slots: Vec::new(),
            port: 5432,
            os_user: "postgres".to_owned(),
            superuser: "postgres".to_owned(),
            replication_user: "regent".to_owned(),
            replication_password_file: None,
            tls: DatabaseTls {
                replication: ReplicationTls::Off,
                files: Tls { ca: "/nowhere".into(), certificate: "/nowhere".into(), key: "/nowhere".into() },
                by_operators_ca: false,
            },
            hba: vec![],
            parameters: BTreeMap::new(),
            probe_interval: ms(1000),
            probe_timeout: ms(3000),
        },
        on_crash: OnCrash::Auto,
        max_restarts: 3,
        restart_window: Duration::from_secs(3600),
        start_timeout: Duration::from_secs(300),
        hung_after: Duration::from_secs(30),
        troubles: regent::config::Troubles::default(),
        start_stalled: Duration::from_secs(60),
        stop_fast: ms(60_000),
        stop_immediate: ms(10_000),
        stop_kill: ms(5000),
        bars: regent::config::BARS.into(),
        bootstrap_initdb: true,
        members: BTreeMap::new(),
    }
}

/// A second assistant, which revokes the access of the node that is fenced.
pub fn with_access(mut config: Config) -> Config {
    config.fencing.assist.push(name("access"));
    config.fencing.agents.insert(name("access"), agent(AgentKind::Access, true));
    config
}

/// A watchdog on every host, and the lease as the second level.
pub fn with_watchdog(mut config: Config) -> Config {
    config.watchdog = Some(Watchdog { device: "/nowhere".into(), timeout: ms(5000) });
    config.fencing.levels = vec![vec![name("ipmi")], vec![name("lease")]];
    config
}

/// A file with shorter times: what one host was forgotten with at a change.
pub fn shorter(mut config: Config, percent: u32) -> Config {
    config.lease.ttl = config.lease.ttl * percent / 100;
    config.fencing.agents.values_mut().for_each(|agent| agent.timeout = agent.timeout * percent / 100);
    config
}

/// Witnesses without the shared disk, as most are.
pub fn diskless_witnesses(mut config: Config) -> Config {
    config.nodes.values_mut().filter(|n| n.role == Role::Witness).for_each(|n| n.disk = false);
    config
}

/// A second service on the same hosts.
pub fn two_services(mut config: Config) -> Config {
    config.services.insert("stock".parse().expect("a constant, valid name"), service());
    config
}

/// The last database never leads.
pub fn one_never_leads(config: Config) -> Config {
    with_member(config, Member { may_lead: false, ..Member::default() })
}

/// The last database follows the one before it.
pub fn one_follows(config: Config) -> Config {
    let follow = databases(&config).into_iter().rev().nth(1);
    with_member(config, Member { follow, ..Member::default() })
}

fn databases(config: &Config) -> Vec<NodeName> {
    config.nodes.iter().filter(|(_, n)| n.role == Role::Database).map(|(name, _)| name.clone()).collect()
}

fn with_member(mut config: Config, member: Member) -> Config {
    let last = databases(&config).pop().expect("every cluster here has a database");
    config.services.values_mut().for_each(|s| _ = s.members.insert(last.clone(), member.clone()));
    config
}

/// A standby that lacks a few writes is not promoted by itself.
pub fn with_max_lag(mut config: Config, max_lag: u64) -> Config {
    config.failover.max_lag = max_lag;
    config
}
