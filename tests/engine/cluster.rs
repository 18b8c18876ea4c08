//! A few nodes on one machine: configurations, engines, leases, and SQL as a client would use it.

use regent::action::guard::{LeaseFile, write_lease};
use regent::clock;
use regent::config::{
    Commands, Config, DatabaseTls, Detector, Failover, Fencing, LeaseTiming, Node, OnCrash, OnHost, OnLapsed,
    Postgresql, PowerOn, Profile, RaftTiming, ReplicationTls, Role, Security, Service, Tls,
};
use regent::engine::Engine;
use regent::engine::enclosure::Enclosure;
use regent::engine::postgresql::PostgreSql;
use regent::types::{Boot, DbAction, DbDone, DbOutcome, DbState, Epoch, NodeName, Observation, StopLadder, Upstream};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

pub const LADDER: StopLadder =
    StopLadder { fast: Duration::from_secs(20), immediate: Duration::from_secs(10), kill: Duration::from_secs(10) };

/// The programs of the PostgreSQL under test: `REGENT_TEST_BIN_DIR`, or those of Debian 12.
pub fn bin_dir() -> &'static str {
    static BIN: OnceLock<String> = OnceLock::new();
    let chosen = || std::env::var("REGENT_TEST_BIN_DIR").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned());
    BIN.get_or_init(chosen)
}

/// Their major version.
pub fn version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let said = std::process::Command::new(Path::new(bin_dir()).join("postgres")).arg("--version").output();
        let said = String::from_utf8(said.expect("it runs").stdout).expect("text");
        regent::engine::postgresql::version::major(&said).unwrap_or_else(|| panic!("what version is {said}?"))
    })
}

/// Whether this machine can run the tests; says why not. With `CI=true` a skip is a failure.
pub fn possible() -> bool {
    // SAFETY: a system call without arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let why = match (root, Path::new(bin_dir()).join("postgres").exists()) {
        (true, true) => return true,
        (false, _) => "not root".to_owned(),
        (true, false) => format!("no PostgreSQL in {}", bin_dir()),
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "SKIPPED is a failure under CI=true: {why}");
    println!("SKIPPED: {why}");
    false
}

/// The nodes of one test.
pub struct Cluster {
    directory: tempfile::TempDir,
    pub nodes: BTreeMap<&'static str, Database>,
}

/// One node: its configuration, and its engine while it has one.
pub struct Database {
    pub config: Arc<Config>,
    engine: Option<PostgreSql>,
}

static NETWORKS: AtomicU8 = AtomicU8::new(0);

impl Cluster {
    /// Nodes with these names, none of them started; on addresses of their own within 127.0.0.0/8.
    pub fn new(names: &[&'static str]) -> Self {
        Self::with(names, |_| {})
    }

    /// The same, with something changed in the PostgreSQL part of the configuration.
    pub fn with(names: &[&'static str], change: impl Fn(&mut Postgresql)) -> Self {
        let directory = tempfile::Builder::new().prefix("regent-engine-").tempdir_in("/var/tmp").expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("readable");
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let (wide, net) = (number / 100, 2 * (number % 100) + 41);
        let mut nodes = BTreeMap::new();
        for (i, name) in (1u8..).zip(names) {
            let node = Node {
                role: Role::Database,
                primary: [127, wide, net, i].into(),
                secondary: [127, wide, net + 1, i].into(),
                grpc_port: 7420,
                heartbeat_port: 7421,
                priority: 100,
                location: None,
                hostname: (*name).to_owned(),
                disk: false,
            };
            nodes.insert(name.parse::<NodeName>().expect("a name"), node);
        }
        let databases = names.iter().map(|name| {
            let mut config = config(directory.path(), name, nodes.clone());
            let service = config.services.values_mut().next().expect("one service");
            change(&mut service.postgresql);
            (*name, Database { config: Arc::new(config), engine: None })
        });
        let nodes = databases.collect();
        Cluster { directory, nodes }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the engine of a node, anew where it has one.
    pub fn engine(&mut self, name: &str) -> &PostgreSql {
        let node = self.nodes.get_mut(name).expect("a node of this cluster");
        node.engine = None;
        let guard = PathBuf::from(env!("CARGO_BIN_EXE_regent"));
        let engine = PostgreSql::with_guard(node.config.clone(), "orders".parse().expect("a name"), guard);
        node.engine.insert(engine.expect("the engine can be made"))
    }

    /// A node that has an engine.
    /// Changes the file of a node, which its next engine reads.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Postgresql)) {
        let node = self.nodes.get_mut(name).expect("a node of this cluster");
        let config = Arc::make_mut(&mut node.config);
        change(&mut config.services.values_mut().next().expect("one service").postgresql);
    }

    pub fn node(&self, name: &str) -> &Database {
        &self.nodes[name]
    }

    /// A new database on the first node, running as the primary of epoch 1; the other nodes cloned and following.
    pub async fn running(names: &[&'static str]) -> Self {
        Self::running_with(names, |_| {}).await
    }

    pub async fn running_with(names: &[&'static str], change: impl Fn(&mut Postgresql)) -> Self {
        let mut cluster = Cluster::with(names, change);
        for name in names {
            cluster.engine(name);
        }
        cluster.create(names[0]).await;
        for name in &names[1..] {
            cluster.follow(name, names[0]).await;
        }
        cluster
    }

    /// A new database on this node, running as the primary of epoch 1.
    pub async fn create(&self, name: &str) {
        let first = self.node(name);
        first.done(DbAction::Initdb).await;
        first.lease(1, Duration::from_secs(3600));
        first.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
        first.sql("create table orders (id bigint primary key)").await;
    }

    /// Rejoins a stopped node to another and starts it; returns what the rejoin did.
    pub async fn follow(&self, name: &str, upstream: &str) -> DbDone {
        let to = self.upstream(upstream);
        let done = self.node(name).done(DbAction::Rejoin { upstream: to.clone(), order: None }).await;
        self.node(name).done(DbAction::StartStandby { upstream: Some(to) }).await;
        self.node(name)
            .until("streaming", |seen| seen.streams_from.as_ref().is_some_and(|n| n.as_str() == upstream))
            .await;
        done
    }

    /// Lets a running standby follow another upstream, and waits until it does.
    pub async fn follow_running(&self, name: &str, upstream: &str) {
        self.node(name).done(DbAction::Follow { upstream: self.upstream(upstream) }).await;
        let from = |seen: &Observation| seen.streams_from.as_ref().is_some_and(|n| n.as_str() == upstream);
        self.node(name).until("streaming", from).await;
    }

    pub fn upstream(&self, name: &str) -> Upstream {
        let node = self.node(name).config.me();
        Upstream {
            node: name.parse().expect("a name"),
            addresses: vec![node.primary, node.secondary],
            port: self.node(name).postgresql().port,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            let enclosure = node.enclosure();
            // A guard that is left goes when it finds the database gone.
            regent::action::guard::stand_down(&node.run().join("lease"));
            for _ in 0..500 {
                enclosure.kill();
                if enclosure.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            enclosure.tear_down();
            end_guards(&node.run().join("lease"));
        }
        unmount_below(self.path());
    }
}

/// Not before the processes are gone: what names them may lie there.
fn unmount_below(path: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| Path::new(place).starts_with(path));
    for place in below {
        let _ = std::process::Command::new("umount").args(["-l", place]).status();
    }
}

/// A guard whose database never came up waits for the end of its lease, and would outlive the test by an hour.
fn end_guards(lease: &Path) {
    let lease = lease.as_os_str().as_encoded_bytes();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if words.split(|byte| *byte == 0).any(|word| word == lease) {
            // SAFETY: a plain system call; the process names a file of this test's alone.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

impl Database {
    pub fn engine(&self) -> &PostgreSql {
        self.engine.as_ref().expect("the engine was made")
    }

    /// Forgets the engine, as the end of the daemon would.
    pub fn drop_engine(&mut self) {
        self.engine = None;
    }

    /// Leaves it without its engine, which goes on.
    pub fn take_engine(&mut self) -> PostgreSql {
        self.engine.take().expect("the engine was made")
    }

    pub fn postgresql(&self) -> &Postgresql {
        &self.config.services.values().next().expect("one service").postgresql
    }

    pub fn run(&self) -> PathBuf {
        self.config.run_dir.join("orders")
    }

    /// What the server writes to standard error.
    pub fn log(&self) -> PathBuf {
        self.config.log_file(&"orders".parse().expect("a name"))
    }

    /// The database's processes, by the cgroup that the engine noted.
    pub fn enclosure(&self) -> Enclosure {
        let noted = std::fs::read_to_string(self.run().join("cgroup")).ok().map(PathBuf::from);
        Enclosure::at(noted, &self.postgresql().data_dir)
    }

    pub fn postmaster(&self) -> i32 {
        let lock = std::fs::read_to_string(self.postgresql().data_dir.join("postmaster.pid")).expect("it runs");
        lock.lines().next().and_then(|line| line.parse().ok()).expect("a pid")
    }

    /// Grants itself a lease.
    pub fn lease(&self, epoch: u64, ttl: Duration) {
        let (boot, end) = (Boot("this".into()), clock::now() + ttl);
        let lease = LeaseFile { boot, epoch: Epoch(epoch), end, released: false, daemon: None };
        write_lease(&self.run().join("lease"), &lease).expect("the lease can be written");
    }

    /// Performs an action that must succeed.
    pub async fn done(&self, action: DbAction) -> DbDone {
        let what = format!("{action:?}");
        match self.engine().perform(action).await {
            DbOutcome::Done(done) => done,
            DbOutcome::Failed { error } | DbOutcome::Refused { error } => {
                panic!("{} on {}: {error}", what, self.config.node)
            }
        }
    }

    /// Performs an action that must fail, and says how it did.
    pub async fn fails(&self, action: DbAction) -> String {
        match self.engine().perform(action.clone()).await {
            DbOutcome::Failed { error } | DbOutcome::Refused { error } => error,
            DbOutcome::Done(done) => panic!("{action:?} succeeded: {done:?}"),
        }
    }

    /// Performs an action that must be refused before the upstream is asked for anything that costs.
    pub async fn refuses(&self, action: DbAction) -> String {
        match self.engine().perform(action.clone()).await {
            DbOutcome::Refused { error } => error,
            other => panic!("{action:?} was not refused: {other:?}"),
        }
    }

    /// Waits for an observation.
    pub async fn until(&self, what: &str, holds: impl Fn(&Observation) -> bool) -> Observation {
        let wait = async {
            loop {
                let seen = self.engine().latest();
                if holds(&seen) {
                    return seen;
                }
                self.engine().changed().await;
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(30), wait).await;
        outcome.unwrap_or_else(|_| panic!("{} is not {what}: {:?}", self.config.node, self.engine().latest()))
    }

    pub async fn until_state(&self, state: DbState) -> Observation {
        self.until(&format!("{state:?}"), |seen| seen.state == state).await
    }

    /// A client's connection, over the socket.
    pub async fn client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        self.client_in("postgres").await
    }

    /// The same, in this database.
    pub async fn client_in(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.run().join("socket")).port(self.postgresql().port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub async fn sql(&self, statement: &str) {
        let client = self.client().await.expect("the server lets us in");
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// How many checkpoints were asked of the server.
    pub async fn checkpoints(&self) -> i64 {
        let question = match version() {
            ..17 => "select checkpoints_req from pg_stat_bgwriter",
            _ => "select num_requested from pg_stat_checkpointer",
        };
        let client = self.client().await.expect("the server lets us in");
        client.query_one(question, &[]).await.expect("asked").get(0)
    }

    pub async fn ids(&self) -> Vec<i64> {
        let client = self.client().await.expect("the server lets us in");
        let rows = client.query("select id from orders order by id", &[]).await.expect("the table is there");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Waits until the table holds exactly these.
    pub async fn until_ids(&self, ids: &[i64]) {
        let from = Instant::now();
        while self.ids().await != ids {
            assert!(from.elapsed() < Duration::from_secs(20), "{}: {:?}", self.config.node, self.ids().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How long something took, printed for the record.
pub async fn timed<T>(what: &str, work: impl Future<Output = T>) -> (T, Duration) {
    let from = Instant::now();
    let value = work.await;
    println!("TIME {what}: {:?}", from.elapsed());
    (value, from.elapsed())
}

fn config(directory: &Path, name: &str, nodes: BTreeMap<NodeName, Node>) -> Config {
    let of_node = directory.join(name);
    let ms = Duration::from_millis;
    Config {
        cluster: "test".into(),
        node: name.parse().expect("a name"),
        data_dir: of_node.join("regent"),
        run_dir: of_node.join("run"),
        profile: Profile::Lan,
        boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
        product_uuid_file: "/sys/class/dmi/id/product_uuid".into(),
        network_devices_dir: "/sys/class/net".into(),
        security: Security { heartbeat_keys: Vec::new(), tls: None, insecure: true },
        nodes,
        disk: None,
        detector: Detector {
            interval: ms(200),
            phi_threshold: 8.0,
            acceptable_pause: ms(1000),
            window: 100,
            min_deviation: ms(20),
            rise: 3,
            startup_grace: ms(5000),
        },
        raft: RaftTiming { heartbeat: ms(50), election_min: ms(150), election_max: ms(300), slow_write: ms(500) },
        lease: LeaseTiming {
            ttl: ms(5000),
            renew: ms(1000),
            drift_permille: 10,
            grace: ms(1000),
            stop_immediate: ms(500),
            stop_kill: ms(500),
        },
        watchdog: None,
        fencing: Fencing {
            assist: Vec::new(),
            levels: Vec::new(),
            agents: BTreeMap::new(),
            on_lapsed: OnLapsed::Alarm,
            power_on: PowerOn::Auto,
            lease_without_watchdog: false,
            lease_on_virtual_machine: false,
            retry: ms(1000),
            retry_max: ms(60_000),
        },
        failover: Failover {
            max_per_hour: 3,
            max_lag: 1 << 24,
            install: ms(20_000),
            choose: ms(1000),
            catch_up: ms(5_000),
            max_silence: ms(10_000),
            max_lag_time: ms(30_000),
        },
        services: BTreeMap::from([("orders".parse().expect("a name"), service(&of_node))]),
        hash: 0,
    }
}

fn service(of_node: &Path) -> Service {
    let ms = Duration::from_millis;
    Service {
        members: BTreeMap::new(),
        postgresql: Postgresql {
            data_dir: of_node.join("main"),
            bin_dir: bin_dir().into(),
            wal_dir: None,
            initdb_options: Vec::new(),
            commands: Commands::default(),
            copy_max_rate: None,
            on_host: OnHost { log_dir: of_node.join("log"), ..OnHost::default() },
            apply_delay: Duration::ZERO,
            old_copies: 1,
            outsider_slots: Vec::new(),
            port: 5499,
            os_user: "postgres".into(),
            superuser: "postgres".into(),
            replication_user: "regent".into(),
            replication_password_file: None,
            tls: DatabaseTls {
                replication: ReplicationTls::Off,
                files: Tls {
                    ca: of_node.join("tls/ca.pem"),
                    certificate: of_node.join("tls/database.pem"),
                    key: of_node.join("tls/database.key"),
                },
                by_operators_ca: false,
            },
            hba: Vec::new(),
            parameters: BTreeMap::from([("shared_buffers".into(), "16MB".into())]),
            probe_interval: ms(500),
            probe_timeout: ms(2000),
        },
        on_crash: OnCrash::Restart,
        max_restarts: 3,
        restart_window: Duration::from_secs(3600),
        start_timeout: Duration::from_secs(300),
        hung_after: Duration::from_secs(30),
        troubles: regent::config::Troubles::default(),
        start_stalled: Duration::from_secs(60),
        stop_fast: ms(20_000),
        stop_immediate: ms(5000),
        stop_kill: ms(5000),
        bars: regent::config::BARS.into(),
        bootstrap_initdb: true,
    }
}
