//! The three hosts of the README with everything around them: power devices, a client with a writer. What they are asked
//! and how they are judged is the lab's (`asking.rs`).
//!
//! Not here: how regent gets onto them (`install.rs`), and what systemd does with it (`unit.rs`).

use crate::asking::Reign;
use crate::bmc::Bmc;
use crate::client::TABLES;
use crate::client::writer::{Ack, Writer};
use crate::host::Host;
use crate::network::Net;
use crate::plan::{DATA_DIR, Plan, SERVICE};
use crate::time::Stamp;
use crate::world::World;
use crate::{boot, install, postgres, tree};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long the first primary and its standby may take.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

pub struct Cluster<'w> {
    pub world: &'w mut World,
    pub plan: Plan,
    devices: BTreeMap<String, Bmc>,
    client: Arc<Host>,
    writer: Option<Writer>,
}

impl<'w> Cluster<'w> {
    /// Boots the hosts, installs regent on them as the README says, and waits until writes are served and a failover would
    /// succeed.
    pub fn start(world: &'w mut World) -> Result<Cluster<'w>> {
        let mut cluster = Cluster::boot(world)?;
        cluster.enable()?;
        cluster.whole()?;
        Ok(cluster)
    }

    /// The same, up to the last step: regent is installed, and nothing of it runs.
    pub fn boot(world: &'w mut World) -> Result<Cluster<'w>> {
        let (tree, installed) = (tree::ready()?, world.directory.join("installed"));
        let plan = Plan::default();
        install::build(&installed)?;
        let layers = format!("{}:{}", installed.display(), tree.display());
        for name in plan.node_names() {
            let host = world.add_host(&name)?;
            host.machine.set_tree(layers.clone());
            prepare(&host, &tree)?;
        }
        let client = world.add_host("client")?;
        let mut devices = BTreeMap::new();
        for name in plan.database_names() {
            let (host, name_of_device) = (world.host(&name)?.clone(), format!("ipmi-{name}"));
            let index = 100 + host.index;
            let device =
                Bmc::start(&name_of_device, index, host, world.switch.clone(), &world.directory, &world.cgroup)?;
            devices.insert(name, device);
        }
        let cluster = Cluster { world, plan, devices, client, writer: None };
        cluster.make_authority()?;
        for host in cluster.hosts() {
            host.power_on()?;
            follow(&host)?;
            cluster.install(&host)?;
        }
        Ok(cluster)
    }

    /// Waits for the first primary and its standby, and lets the writer begin.
    pub fn whole(&mut self) -> Result<()> {
        self.wait("the first primary and its standby", WHOLE_WITHIN, |status| {
            status.services.get(SERVICE).is_some_and(|s| s.is_complete() && s.readiness.failover_ready)
        })?;
        postgres::sql(self.host(&self.reign()?.primary)?, TABLES)?;
        for name in self.plan.database_names() {
            postgres::wait_for_tables(self.host(&name)?, Duration::from_secs(30))?;
        }
        self.client.power_on()?;
        let mut addresses = Vec::new();
        for name in self.plan.database_names() {
            let host = self.host(&name)?;
            addresses.extend([host.address(Net::Primary), host.address(Net::Secondary)]);
        }
        self.writer = Some(Writer::start(&self.client, postgres::PORT, &addresses, Duration::from_millis(5))?);
        self.writer()?.first_after(Stamp::now(), Duration::from_secs(20))?;
        self.world.pace.begins()?;
        self.listens_to_ready()
    }

    pub fn host(&self, name: &str) -> Result<&Arc<Host>> {
        self.world.host(name)
    }

    /// Every node's host, databases first.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.plan.node_names().iter().filter_map(|name| self.world.hosts.get(name).cloned()).collect()
    }

    /// The power device of a node.
    pub fn device(&self, node: &str) -> Result<&Bmc> {
        self.devices.get(node).with_context(|| format!("there is no device for {node}"))
    }

    /// How often each power device was told to switch off.
    pub fn power_offs(&self) -> BTreeMap<String, u32> {
        self.devices.values().map(|device| (device.name.clone(), device.offs())).collect()
    }

    pub fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().context("the writer does not run")
    }

    /// Ends the writer and returns what was acknowledged.
    pub fn stop_writer(&mut self) -> Result<Vec<Ack>> {
        self.world.ready.ends();
        self.writer.take().context("the writer does not run")?.stop()
    }

    /// One `regent` command on a node, whatever its exit status.
    pub fn regent(&self, node: &str, words: &[&str]) -> Result<Output> {
        self.host(node)?.output("regent", words)
    }

    /// What was acknowledged is there, once, and one host at a time acknowledged it: these, in this order. Nobody was
    /// fenced.
    pub fn judge_moves(&mut self, primaries: &[&str]) -> Result<()> {
        let acks = self.writer()?.acks()?;
        let host_of =
            |ack: &Ack| self.hosts().into_iter().find(|host| is_of(host, &ack.address)).map(|h| h.name.clone());
        let mut served: Vec<String> = acks.iter().filter_map(host_of).collect();
        served.dedup();
        ensure!(served == primaries, "expected writes on {primaries:?}, in this order; they were on {served:?}");
        let (seen, _) = self.judge(&[])?;
        ensure!(seen.lost.is_empty(), "acknowledged writes were lost: {:?}", seen.lost);
        ensure!(self.power_offs().values().all(|offs| *offs == 0), "somebody was fenced: {:?}", self.power_offs());
        Ok(())
    }

    /// The same, where nothing moved at all.
    pub fn judge_still(&mut self, reign: &Reign) -> Result<()> {
        self.wait_complete(Duration::from_secs(60))?;
        self.stays(reign, Duration::from_secs(4))?;
        self.judge_moves(&[&reign.primary])
    }
}

fn is_of(host: &Host, address: &str) -> bool {
    [Net::Primary, Net::Secondary].iter().any(|net| host.address(*net) == address)
}

/// Writes what the host's journal has of regent to a log of the lab's, over all its boots. Ends with the world.
fn follow(host: &Host) -> Result<()> {
    let log = File::create(host.log("regent"))?;
    let mut journal = Command::new("journalctl");
    journal.arg(format!("--directory={}", host.disk().join("journal").display()));
    journal.args(["--follow", "--merge", "--lines=all", "--output=short-precise", "--unit=regent.service"]);
    journal.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    journal.spawn().context("start journalctl").map(drop)
}

/// Gives a host that is off its name and its id, and the database's folder the owner that it has in the tree.
fn prepare(host: &Host, tree: &Path) -> Result<()> {
    let etc = host.upper("/etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("hostname"), format!("{}\n", host.name))?;
    fs::write(etc.join("machine-id"), format!("{:032x}\n", rand::random::<u128>()))?;
    for (folder, place) in boot::VOLUMES {
        let Ok(known) = fs::metadata(tree.join(place.trim_start_matches('/'))) else { continue };
        std::os::unix::fs::chown(host.disk().join(folder), Some(known.uid()), Some(known.gid()))?;
    }
    // The lab's modules know the database's directory by one name.
    let (_, below) = DATA_DIR.split_once("/var/lib/postgresql/").context("the database lies elsewhere")?;
    symlink(below, host.disk().join(postgres::FOLDERS[0]).join("data"))?;
    Ok(())
}
