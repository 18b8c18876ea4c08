//! A world: the switch, the hosts, the shared disk, the power devices of one scenario, and one directory for all of it.
//!
//! What makes it safe to throw away: the scenario's process has a mount namespace of its own, and with it a `/run` of
//! its own in which namespaces are named; every process of the world is in one cgroup. When that cgroup is killed,
//! mounts, namespaces and NICs go with the processes, and only the directory and the empty cgroups are left to remove.

use crate::cgroup::{self, Cgroup};
use crate::disk::SharedDisk;
use crate::host::{Host, SHARED_DISK_NAME};
use crate::network::Switch;
use crate::pace::Pace;
use crate::ready::Ready;
use crate::system;
use crate::watchdogs::Watchdogs;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// All names of worlds begin like this; then comes the process number of the harness.
pub const PREFIX: &str = "regent-lab-";

/// Where worlds keep their directories: on a real file system.
pub const BASE: &str = "/var/tmp";

/// One world. There is at most one in a process.
pub struct World {
    pub directory: PathBuf,
    pub cgroup: Cgroup,
    pub switch: Arc<Switch>,
    pub hosts: BTreeMap<String, Arc<Host>>,
    pub disk: Option<SharedDisk>,
    pub watchdogs: Option<Watchdogs>,
    pub pace: Pace,
    pub ready: Arc<Ready>,
    next_index: u8,
}

impl World {
    /// An empty world. The calling process must have no other threads yet, and joins the world's cgroup.
    pub fn create(name: &str) -> Result<World> {
        let directory = Path::new(BASE).join(name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        // PostgreSQL's user must get through to its data directories.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        let cgroup = Cgroup::create(cgroup::mount_point()?.join(name))?;
        system::join_cgroup(&cgroup.child("scenario")?.procs()?).context("join the world's cgroup")?;
        system::leave(libc::CLONE_NEWNS).context("leave the machine's mount namespace")?;
        system::set_propagation(libc::MS_PRIVATE)?;
        system::mount(Path::new("tmpfs"), Path::new("/run"), "tmpfs", 0, "mode=755")?;
        fs::create_dir("/run/netns")?;
        let switch = Arc::new(Switch::create()?);
        Ok(World {
            directory,
            cgroup,
            switch,
            hosts: BTreeMap::new(),
            disk: None,
            watchdogs: None,
            pace: Pace::default(),
            ready: Arc::default(),
            next_index: 11,
        })
    }

    /// Adds a host that is off. Hosts are numbered from 11 in the order of their creation.
    pub fn add_host(&mut self, name: &str) -> Result<Arc<Host>> {
        let host = Arc::new(Host::new(name, self.next_index, &self.directory, &self.cgroup, self.switch.clone())?);
        self.next_index += 1;
        self.hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// Gives the named hosts a shared disk. They see it from their next boot on.
    pub fn add_disk(&mut self, hosts: &[&str]) -> Result<()> {
        let disk = SharedDisk::create(&self.directory, hosts)?;
        for name in hosts {
            let control = disk.control(name)?;
            let host = self.host(name)?;
            host.attach(disk.file(name), SHARED_DISK_NAME)?;
            host.set_on_power_loss(Arc::new(move || control.power_loss()));
        }
        self.disk = Some(disk);
        Ok(())
    }

    pub fn host(&self, name: &str) -> Result<&Arc<Host>> {
        self.hosts.get(name).with_context(|| format!("there is no host {name} in this world"))
    }
}

/// Removes whatever is left of a world: its processes, its cgroups, its directory. Called by the harness, which is not
/// part of the world.
pub fn destroy(name: &str, keep_directory: bool) -> Result<()> {
    let cgroup = Cgroup::at(cgroup::mount_point()?.join(name));
    if cgroup.path().exists() {
        cgroup.kill()?;
        cgroup.wait_empty(Duration::from_secs(20)).context("processes of a finished world are left")?;
        cgroup.remove()?;
    }
    let directory = Path::new(BASE).join(name);
    if !keep_directory && directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// Removes worlds whose harness is gone (killed before it could do so itself). Their directories stay where a failure
/// was kept on purpose; those hold no processes.
pub fn destroy_orphans() -> Result<()> {
    let tree = cgroup::mount_point()?;
    for entry in fs::read_dir(&tree)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).map(str::to_owned);
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            destroy(&name, false)?;
        }
    }
    Ok(())
}
