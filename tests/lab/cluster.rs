//! A cluster in a world: hosts with the daemon as an enabled service, power devices, the shared disk, a client with a
//! writer. Here is how all of it comes to be and ends; what it looks like is in `plan.rs`, what it is asked in `asking.rs`.

pub use crate::asking::Reign;
use crate::bmc::Bmc;
use crate::client::writer::{Ack, Writer};
use crate::client::{TABLES, prober};
use crate::company::Company;
use crate::host::{DISK, Host};
use crate::network::Net;
use crate::plan::{CLUSTER, CONFIG, Devices, ODD_PASSWORD, Plan, Replication, SERVICE, company_host};
use crate::postgres;
use crate::seed;
use crate::system;
use crate::time::Stamp;
use crate::watchdogs::{WATCHDOG_NAME, Watchdogs};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use regent::clock;
use regent::consensus::certs;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `RestartSec` of `systemd/regent.service`.
pub const RESTART_AFTER: Duration = Duration::from_millis(100);

/// The programs that a booted host runs, by host and unit. Shared with what a power-on starts.
type Units = Arc<Mutex<BTreeMap<(String, &'static str), Child>>>;

pub struct Cluster<'w> {
    pub world: &'w mut World,
    pub plan: Plan,
    /// By agent, then node.
    devices: BTreeMap<(&'static str, String), Bmc>,
    client: Arc<Host>,
    units: Units,
    writer: Option<Writer>,
    /// Whose certificates the databases have where the plan says so.
    company: Company,
}

/// What `regent cert issue` makes for a node's database.
pub const DATABASE_FILES: [&str; 2] = ["database.pem", "database.key"];

/// The program under test: the one that was built with the lab, or the one that `REGENT_UNDER_TEST` names.
pub fn regent() -> String {
    std::env::var("REGENT_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_regent").to_owned())
}

impl<'w> Cluster<'w> {
    /// Builds the plan in an empty world, switches everything on and waits until writes are served, every standby
    /// streams, and a failover would succeed.
    pub fn start(world: &'w mut World, plan: Plan) -> Result<Cluster<'w>> {
        Cluster::start_with(world, plan, |_| Ok(()))
    }

    /// The same, with something that is done once everything is switched on.
    pub fn start_with(
        world: &'w mut World,
        plan: Plan,
        meanwhile: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<Cluster<'w>> {
        let mut cluster = Cluster::build(world, plan)?;
        for host in cluster.hosts() {
            host.power_on()?;
        }
        if cluster.plan.disk {
            let first = cluster.plan.node_names().into_iter().next().context("a plan without nodes")?;
            cluster.command(&first, &["disk", "init", crate::host::SHARED_DISK])?;
        }
        meanwhile(&cluster)?;
        cluster.wait("the first primary and its standbys", cluster.plan.whole_within, |status| {
            status.services.get(SERVICE).is_some_and(|s| s.is_complete() && s.readiness.failover_ready)
        })?;
        let reign = cluster.reign()?;
        postgres::sql(cluster.host(&reign.primary)?, TABLES)?;
        // Whoever takes over must have them: a fault may come at once.
        for name in cluster.plan.database_names() {
            postgres::wait_for_tables(cluster.host(&name)?, Duration::from_secs(30))?;
        }
        if cluster.plan.probers {
            for name in cluster.plan.database_names() {
                start_prober(cluster.host(&name)?, &cluster.units)?;
            }
        }
        cluster.client.power_on()?;
        cluster.writer = Some(cluster.start_writer()?);
        cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(20))?;
        cluster.world.pace.begins()?;
        cluster.listens_to_ready()?;
        Ok(cluster)
    }

    fn build(world: &'w mut World, plan: Plan) -> Result<Cluster<'w>> {
        let names = plan.node_names();
        for name in &names {
            world.add_host(name)?;
        }
        let client = world.add_host("client")?;
        if plan.disk {
            ensure!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: there is no shared disk");
            world.add_disk(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        for (host, name, mebibytes) in plan.volumes {
            world.host(host)?.add_volume(name, *mebibytes)?;
        }
        if let Some(shared) = plan.shared {
            postgres::make_for_database(&world.directory.join(shared).join("wal"))?;
            postgres::make_for_database(&world.directory.join(shared))?;
        }
        add_watchdogs(world, &plan)?;
        let mut devices = BTreeMap::new();
        for (agent, base) in [("ipmi", 100), ("pdu", 150)] {
            for name in plan.database_names().into_iter().filter(|_| plan.has_agent(agent)) {
                let host = world.host(&name)?.clone();
                let index = base + host.index;
                let device = Bmc::start(
                    // A socket lies in its directory, whose path may not be long.
                    &format!("{agent}-{name:.20}"),
                    index,
                    host,
                    world.switch.clone(),
                    &world.directory,
                    &world.cgroup,
                )?;
                devices.insert((agent, name), device);
            }
        }
        let cluster =
            Cluster { world, plan, devices, client, units: Units::default(), writer: None, company: Company::new() };
        certs::init(&cluster.authority(), CLUSTER, clock::wall())?;
        for name in &names {
            cluster.install(name)?;
        }
        Ok(cluster)
    }

    /// Where the cluster's own certificate authority is: on no host.
    fn authority(&self) -> PathBuf {
        self.world.directory.join("ca")
    }

    /// Puts the configuration on a host's disk and enables its daemon.
    fn install(&self, name: &str) -> Result<()> {
        let host = self.host(name)?;
        postgres::prepare_disk(host)?;
        if let Some(shared) = self.plan.shared {
            host.attach(self.world.directory.join(shared), shared)?;
        }
        if let Some(seed) = &self.plan.seed {
            host.attach(seed.clone(), seed::NAME)?;
            postgres::make_for_database(&host.disk().join("space"))?;
        }
        let address = |node: &str, net| {
            let address = |host: &Host| match self.plan.ipv6 {
                true => host.address_v6(net),
                false => host.address(net),
            };
            self.host(node).map(|host| address(host)).unwrap_or_default()
        };
        let device = |agent: &str, node: &str| {
            let mut devices = self.devices.iter();
            devices.find(|((a, n), _)| *a == agent && n == node).map(|(_, d)| d.address.clone()).unwrap_or_default()
        };
        fs::write(host.disk().join("regent.toml"), self.plan.toml(name, address, device)?)?;
        // An insecure host has its certificate as well: it is only not asked for it.
        let issued = certs::issue(&self.authority(), &name.parse()?, &[], 1, clock::wall())?;
        let folder = issued[0].parent().context("a certificate lies in a folder")?;
        fs::rename(folder, host.disk().join("tls"))?;
        self.arrange_replication(name)?;
        let (units, probers) = (self.units.clone(), self.plan.probers && name.starts_with("db"));
        let bug = self.plan.bug;
        let tables_are_there = Mutex::new(false);
        host.set_on_boot(Arc::new(move |host| {
            start_daemon(host, &units, bug)?;
            // At the first boot there is nothing to probe yet; `start` does it when the tables are there.
            let first = !std::mem::replace(&mut *tables_are_there.lock().unwrap(), true);
            if probers && !first { start_prober(host, &units) } else { Ok(()) }
        }));
        Ok(())
    }

    /// What the databases prove to one another with, where it is not what was issued.
    fn arrange_replication(&self, name: &str) -> Result<()> {
        let tls = self.host(name)?.disk().join("tls");
        match self.plan.replication {
            Replication::Certificates => {}
            Replication::Password => secret(&tls.join("replication.pw"), &format!("{ODD_PASSWORD}\n"))?,
            Replication::Company => {
                let (pem, key) = self.company.issue(&company_host(name));
                fs::write(tls.join("company.pem"), &self.company.pem)?;
                fs::write(tls.join("database.pem"), pem)?;
                secret(&tls.join("database.key"), &key)?;
            }
            Replication::Open => {
                let later = tls.join("later");
                fs::create_dir(&later)?;
                for file in DATABASE_FILES {
                    fs::rename(tls.join(file), later.join(file))?;
                }
            }
        }
        Ok(())
    }

    fn start_writer(&self) -> Result<Writer> {
        let mut addresses = Vec::new();
        for name in self.plan.database_names() {
            let host = self.host(&name)?;
            addresses.extend([host.address(Net::Primary), host.address(Net::Secondary)]);
        }
        Writer::start(&self.client, postgres::PORT, &addresses, Duration::from_millis(5))
    }

    pub fn host(&self, name: &str) -> Result<&Arc<Host>> {
        self.world.host(name)
    }

    /// Every node's host, databases first.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.plan.node_names().iter().filter_map(|name| self.world.hosts.get(name).cloned()).collect()
    }

    /// The power device of a node under that agent.
    pub fn device(&self, agent: &'static str, node: &str) -> Result<&Bmc> {
        let device = self.devices.get(&(agent, node.to_owned()));
        device.with_context(|| format!("there is no device {agent} for {node}"))
    }

    /// How often each power device was told to switch off.
    pub fn power_offs(&self) -> BTreeMap<String, u32> {
        self.devices.values().map(|device| (device.name.clone(), device.offs())).collect()
    }

    /// The side of the shared disk that belongs to a node.
    pub fn disk(&self, node: &str) -> Result<crate::disk::Control> {
        self.world.disk.as_ref().context("this cluster has no shared disk")?.control(node)
    }

    pub fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().context("the writer does not run")
    }

    /// Ends the writer and returns what was acknowledged.
    pub fn stop_writer(&mut self) -> Result<Vec<Ack>> {
        self.world.ready.ends();
        self.writer.take().context("the writer does not run")?.stop()
    }

    /// Cuts the power of a host and of its BMC.
    pub fn power_cut_with_bmc(&self, node: &str) -> Result<()> {
        self.device("ipmi", node)?.power_down()?;
        self.host(node)?.power_cut()
    }

    /// SIGKILL of the daemon alone. What it started runs on.
    pub fn kill_daemon(&self, node: &str) -> Result<()> {
        kill_daemon(node, &self.units)
    }

    /// Another daemon on a node's host, with a file of its own. Nobody restarts it.
    pub fn run_daemon(&self, node: &str, config: &str) -> Result<Child> {
        let mut command = Command::new(regent());
        command.args(["run", "--config", config]);
        self.host(node)?.start(command, "intruder")
    }

    pub fn start_daemon(&self, node: &str) -> Result<()> {
        start_daemon(self.host(node)?, &self.units, self.plan.bug)
    }

    /// The process of a node's daemon, as the lab numbers it.
    pub fn daemon_process(&self, node: &str) -> Result<u32> {
        let units = self.units.lock().unwrap();
        units.get(&(node.to_owned(), "regent")).map(Child::id).with_context(|| format!("no daemon runs on {node}"))
    }

    /// A daemon that ended although nobody ended it, and how.
    pub fn fallen_daemon(&self) -> Option<String> {
        let mut units = self.units.lock().unwrap();
        units.iter_mut().filter(|((_, unit), _)| *unit == "regent").find_map(|((node, _), daemon)| {
            ended_by_itself(daemon).map(|status| format!("the daemon on {node} ended by itself: {status}"))
        })
    }

    /// What a scenario needs to kill and start a daemon from the moment of a fence, on another thread.
    pub fn daemon_switch(&self, node: &str) -> Result<impl Fn(bool) -> Result<()> + Send + use<>> {
        let (host, units, bug) = (self.host(node)?.clone(), self.units.clone(), self.plan.bug);
        Ok(move |on| if on { start_daemon(&host, &units, bug) } else { kill_daemon(&host.name, &units) })
    }

    /// SIGTERM, as `systemctl stop` does: the node leaves in order. Waits for the end.
    pub fn stop_daemon(&self, node: &str, within: Duration) -> Result<()> {
        self.signal_daemon(node, nix::sys::signal::Signal::SIGTERM, within)
    }

    /// Ends a daemon by a signal that it takes, and waits for the end.
    pub fn signal_daemon(&self, node: &str, signal: nix::sys::signal::Signal, within: Duration) -> Result<()> {
        let unit = self.units.lock().unwrap().remove(&(node.to_owned(), "regent"));
        let mut daemon = unit.with_context(|| format!("no daemon runs on {node}"))?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), signal)?;
        let end = Instant::now() + within;
        while daemon.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "the daemon on {node} did not end within {within:?} after {signal}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// One `regent` command on a node, whatever its exit status.
    pub fn regent(&self, node: &str, words: &[&str]) -> Result<Output> {
        let args: Vec<&str> = words.iter().copied().chain(["--config", CONFIG]).collect();
        self.host(node)?.output(&regent(), &args)
    }
}

/// A file that nobody but root reads.
fn secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// Gives every host of the plan a watchdog, or what it has in its place.
fn add_watchdogs(world: &mut World, plan: &Plan) -> Result<()> {
    let names = plan.node_names();
    if plan.watchdogs == Devices::None {
        return Ok(());
    }
    let hosts: Vec<_> = names.iter().map(|name| world.host(name).cloned()).collect::<Result<_>>()?;
    let watchdogs = Watchdogs::create(&world.directory, hosts)?;
    for name in &names {
        match plan.watchdogs {
            Devices::MissingOn(without) if without == name => {}
            Devices::PlainFileOn(without) if without == name => {
                fs::write(world.host(name)?.disk().join(WATCHDOG_NAME), "")?;
            }
            _ => world.host(name)?.attach(watchdogs.file(name), WATCHDOG_NAME)?,
        }
    }
    world.watchdogs = Some(watchdogs);
    Ok(())
}

fn start_daemon(host: &Host, units: &Units, bug: Option<&str>) -> Result<()> {
    let mut command = Command::new(regent());
    command.args(["run", "--config", CONFIG]);
    command.envs(bug.map(|bug| ("REGENT_KNOWN_BUG", bug)));
    command.env("PATH", format!("{DISK}/bin:{}", std::env::var("PATH").unwrap_or_default()));
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(system::schedule_as_the_unit_does) };
    keep(host, "regent", host.start(command, "regent")?, units)
}

fn start_prober(host: &Host, units: &Units) -> Result<()> {
    keep(host, "prober", prober::start(host, &postgres::data_dir())?, units)
}

/// Remembers a host's program in place of the one before, which ended with the last boot.
fn keep(host: &Host, unit: &'static str, child: Child, units: &Units) -> Result<()> {
    let old = units.lock().unwrap().insert((host.name.clone(), unit), child);
    if let Some(mut old) = old {
        ensure!(old.try_wait()?.is_some(), "{unit} was started on {} although it runs", host.name);
    }
    Ok(())
}

/// How a daemon ended that nobody ended.
fn ended_by_itself(daemon: &mut Child) -> Option<ExitStatus> {
    // SIGKILL is the lab's own: a power cut.
    daemon.try_wait().ok()?.filter(|status| status.signal() != Some(libc::SIGKILL))
}

fn kill_daemon(node: &str, units: &Units) -> Result<()> {
    let unit = units.lock().unwrap().remove(&(node.to_owned(), "regent"));
    let mut daemon = unit.with_context(|| format!("no daemon runs on {node}"))?;
    daemon.kill()?;
    daemon.wait()?;
    Ok(())
}
