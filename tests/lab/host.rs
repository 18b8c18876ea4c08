//! A host: NICs, processes, a disk that survives, and a power switch. Its first process (`init.rs`) keeps its
//! namespaces; its cgroup holds everything that was ever started in it, databases in cgroups of their own included.
//!
//! Not here: what runs on it (`cluster.rs`, `postgres.rs`) and who may switch it off (`bmc.rs`).

use crate::cgroup::Cgroup;
use crate::network::{self, NETS, Net, Switch, namespace};
use crate::ready::{Blow, OnFault};
use crate::system;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Where a host sees its disk.
pub const DISK: &str = "/srv";
/// The shared disk's name on a host's disk: a file over which the shared one is bound.
pub const SHARED_DISK_NAME: &str = "shared-disk";
/// Where a host sees the shared disk.
pub const SHARED_DISK: &str = "/srv/shared-disk";

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;

/// What a booting host starts by itself, as systemd would start an enabled unit.
pub type OnBoot = Arc<dyn Fn(&Host) -> Result<()> + Send + Sync>;

/// Called when the power goes, so that no process is left waiting for a device for ever.
pub type OnPowerLoss = Arc<dyn Fn() + Send + Sync>;

/// What fills a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballast {
    Bytes,
    /// Files without a byte: what is there can grow, and nothing new can be made.
    Files,
}

/// One host of a world.
pub struct Host {
    pub name: String,
    /// The last number of its addresses.
    pub index: u8,
    directory: PathBuf,
    cgroup: Cgroup,
    switch: Arc<Switch>,
    running: Mutex<Option<Running>>,
    /// Cables that are pulled. They stay pulled over a reboot.
    pulled: Mutex<Vec<Net>>,
    /// Files and directories of the lab that it sees on its disk, and under which name.
    attached: Mutex<Vec<(PathBuf, String)>>,
    on_boot: Mutex<Option<OnBoot>>,
    on_power_loss: Mutex<Option<OnPowerLoss>>,
    pub on_fault: Mutex<Option<OnFault>>,
}

struct Running {
    init: Child,
    pidfd: OwnedFd,
    frozen: bool,
}

impl Host {
    /// A host that is off. Its disk is empty.
    pub fn new(name: &str, index: u8, world: &Path, group: &Cgroup, switch: Arc<Switch>) -> Result<Host> {
        let directory = world.join(name);
        fs::create_dir_all(directory.join("disk")).with_context(|| format!("create {}", directory.display()))?;
        Ok(Host {
            name: name.to_owned(),
            index,
            cgroup: Cgroup::at(group.path().join(name)),
            directory,
            switch,
            running: Mutex::new(None),
            pulled: Mutex::default(),
            attached: Mutex::default(),
            on_boot: Mutex::new(None),
            on_power_loss: Mutex::new(None),
            on_fault: Mutex::new(None),
        })
    }

    /// The host's disk, as the lab sees it; the host itself sees it at [`DISK`].
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// Where that service's server writes its log, as the lab sees it.
    pub fn server_log(&self, service: &str) -> PathBuf {
        self.disk().join("log").join(format!("regent-{service}.log"))
    }

    /// Where the lab keeps what this host's programs print.
    pub fn log(&self, program: &str) -> PathBuf {
        self.directory.join(format!("{program}.log"))
    }

    /// Everything that runs on it.
    pub fn cgroup(&self) -> Cgroup {
        self.cgroup.clone()
    }

    pub fn address(&self, net: Net) -> String {
        net.address(self.index)
    }

    pub fn address_v6(&self, net: Net) -> String {
        net.address_v6(self.index)
    }

    /// From the next boot on, the host sees `source`, a file or a directory, under that name on its disk.
    pub fn attach(&self, source: PathBuf, name: &str) -> Result<()> {
        let place = self.disk().join(name);
        if source.is_dir() {
            fs::create_dir_all(&place)?;
        } else {
            fs::write(&place, "")?;
        }
        self.attached.lock().unwrap().push((source, name.to_owned()));
        Ok(())
    }

    /// From the next boot on, the directory of that name on its disk is a volume of its own, so large. It outlives a
    /// power cut, as the disk does.
    pub fn add_volume(&self, name: &str, mebibytes: u32) -> Result<()> {
        let place = self.disk().join(name);
        fs::create_dir_all(&place)?;
        system::mount(Path::new("tmpfs"), &place, "tmpfs", 0, &format!("mode=755,size={mebibytes}m,nr_inodes=20000"))?;
        self.attach(place, name)
    }

    /// Gives that volume more room.
    pub fn enlarge_volume(&self, name: &str, mebibytes: u32) -> Result<()> {
        let options = format!("mode=755,size={mebibytes}m,nr_inodes=20000");
        system::mount(Path::new("tmpfs"), &self.disk().join(name), "tmpfs", libc::MS_REMOUNT, &options)
    }

    /// From the next boot on that volume is not there: an empty directory is in its place.
    pub fn lose_volume(&self, name: &str) -> Result<()> {
        self.attached.lock().unwrap().retain(|(_, attached)| attached != name);
        system::unmount(&self.disk().join(name))
    }

    /// Takes all the room that the volume of that name has, until [`Host::free_volume`].
    pub fn fill_volume(&self, name: &str, with: Ballast) -> Result<()> {
        let ballast = self.disk().join(name).join("ballast");
        fs::create_dir(&ballast)?;
        let full = match with {
            Ballast::Bytes => fs::File::create(ballast.join("bytes"))
                .and_then(|mut file| io::copy(&mut io::repeat(0), &mut file))
                .err(),
            Ballast::Files => (0_u64..).find_map(|number| fs::File::create(ballast.join(number.to_string())).err()),
        };
        let why = full.map(|error| error.kind());
        ensure!(why == Some(io::ErrorKind::StorageFull), "the volume {name} of {} was not filled: {why:?}", self.name);
        Ok(())
    }

    /// Gives it back.
    pub fn free_volume(&self, name: &str) -> Result<()> {
        let ballast = self.disk().join(name).join("ballast");
        fs::remove_dir_all(&ballast).with_context(|| format!("remove {}", ballast.display()))
    }

    /// Done when the power goes.
    pub fn set_on_power_loss(&self, act: OnPowerLoss) {
        *self.on_power_loss.lock().unwrap() = Some(act);
    }

    /// What every later power-on starts.
    pub fn set_on_boot(&self, on_boot: OnBoot) {
        *self.on_boot.lock().unwrap() = Some(on_boot);
    }

    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    pub fn is_frozen(&self) -> bool {
        self.lock().as_ref().is_some_and(|r| r.frozen)
    }

    /// The number of its first process, as the lab counts; `None` while it is off.
    pub fn first_pid(&self) -> Option<u32> {
        self.lock().as_ref().map(|host| host.init.id())
    }

    /// The boot id of the present or last boot.
    pub fn boot_id(&self) -> Result<String> {
        let path = self.directory.join("boot_id");
        Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    /// Switches it on: a new boot id, an empty `/run`, a network stack that remembers nothing. Nothing happens when it
    /// is on already.
    pub fn power_on(&self) -> Result<()> {
        {
            let mut running = self.lock();
            if running.is_some() {
                return Ok(());
            }
            // What is left of the last boot: NICs without a cable. Cleared away here, not where a power cut is timed.
            if network::exists(&self.name) {
                self.switch.detach(&self.name)?;
            }
            self.switch.attach(&self.name, self.index)?;
            self.switch.links(&self.name, &self.pulled.lock().unwrap(), false)?;
            fs::write(self.directory.join("boot_id"), format!("{}\n", new_boot_id()))?;
            *running = Some(self.boot()?);
        }
        let on_boot = self.on_boot.lock().unwrap().clone();
        on_boot.map_or(Ok(()), |start| start(self))
    }

    /// Starts the host's first process and waits until it has set the host up.
    fn boot(&self) -> Result<Running> {
        let group = Cgroup::create(self.cgroup.path().to_owned())?;
        let (procs, network) = (group.procs()?, namespace(&self.name)?);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("__init").arg(&self.name).arg(&self.directory).arg(self.cgroup.path());
        for (source, name) in self.attached.lock().unwrap().iter() {
            command.arg(source).arg(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                system::join_cgroup(&procs)?;
                system::enter(&network, libc::CLONE_NEWNET)?;
                system::leave(libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP)
            });
        }
        let mut init = spawn_with_pids(command, || system::leave(libc::CLONE_NEWPID))?;
        let pidfd = system::pidfd(init.id())?;
        let mut line = String::new();
        BufReader::new(init.stdout.take().expect("it is piped")).read_line(&mut line)?;
        ensure!(line == "ready\n", "host {} did not come up; its first process said {line:?}", self.name);
        Ok(Running { init, pidfd, frozen: false })
    }

    /// Its power fails: from one moment to the next nothing of it runs and nothing of it is heard. Nothing happens when
    /// it is off already.
    pub fn power_cut(&self) -> Result<()> {
        if self.is_on() {
            self.struck(Blow::Gone);
        }
        self.power_off()
    }

    /// The same by a device or a watchdog: no fault, but what answers one.
    pub fn power_off(&self) -> Result<()> {
        let mut running = self.lock();
        let Some(mut was) = running.take() else { return Ok(()) };
        // The cables first: the kernel closes the connections of a killed process politely, a dead host does not.
        self.switch.links(&self.name, &NETS, false)?;
        self.cgroup.kill()?;
        let on_power_loss = self.on_power_loss.lock().unwrap().clone();
        if let Some(release) = on_power_loss {
            release();
        }
        self.cgroup.wait_empty(Duration::from_secs(10))?;
        // The host's first process is gone only when everybody has reaped what they started in it: whoever holds such a
        // child may be waiting for this very power cut.
        std::thread::spawn(move || was.init.wait());
        self.cgroup.remove()
    }

    /// Stops every process of the host where it stands. It stays on its networks.
    pub fn freeze(&self) -> Result<()> {
        self.struck(Blow::Gone);
        let mut running = self.lock();
        let host = running.as_mut().with_context(|| format!("host {} is off", self.name))?;
        host.frozen = true;
        self.cgroup.freeze()
    }

    /// Lets a frozen host run on. Nothing happens when it was switched off meanwhile.
    pub fn thaw(&self) -> Result<()> {
        let mut running = self.lock();
        let Some(host) = running.as_mut() else { return Ok(()) };
        host.frozen = false;
        self.cgroup.thaw()
    }

    pub fn link_down(&self, net: Net) -> Result<()> {
        self.cables(&[net], false)
    }

    pub fn link_up(&self, net: Net) -> Result<()> {
        self.cables(&[net], true)
    }

    /// Pulls every cable.
    pub fn isolate(&self) -> Result<()> {
        self.cables(&NETS, false)
    }

    /// Plugs every cable in again.
    pub fn reconnect(&self) -> Result<()> {
        self.cables(&NETS, true)
    }

    fn cables(&self, nets: &[Net], plugged: bool) -> Result<()> {
        if !plugged {
            let pulled = self.pulled.lock().unwrap().clone();
            let left =
                [Net::Primary, Net::Secondary].into_iter().any(|net| !pulled.contains(&net) && !nets.contains(&net));
            self.struck(if left { Blow::Hurt } else { Blow::Gone });
        }
        let running = self.lock();
        let mut pulled = self.pulled.lock().unwrap();
        pulled.retain(|net| !nets.contains(net));
        if !plugged {
            pulled.extend(nets);
        }
        // Without power there is no NIC to speak of; the next boot finds its cables as they are now.
        if running.is_some() { self.switch.links(&self.name, nets, plugged) } else { Ok(()) }
    }

    /// What arrives over `net` is lost; what is sent is not.
    pub fn block_input(&self, net: Net) -> Result<()> {
        self.struck(Blow::Hurt);
        self.switch.block_input(&self.name, net)
    }

    pub fn unblock_input(&self, net: Net) -> Result<()> {
        self.switch.unblock_input(&self.name, net)
    }

    /// What is sent over `net` is lost; what arrives is not.
    pub fn block_output(&self, net: Net) -> Result<()> {
        self.struck(Blow::Hurt);
        self.switch.block_output(&self.name, net)
    }

    pub fn unblock_output(&self, net: Net) -> Result<()> {
        self.switch.unblock_output(&self.name, net)
    }

    /// What database servers send to it is lost: its standbys receive nothing, and everything else goes on.
    pub fn block_servers(&self) -> Result<()> {
        self.struck(Blow::Hurt);
        self.switch.block_servers(&self.name)
    }

    pub fn unblock_servers(&self) -> Result<()> {
        self.switch.unblock_servers(&self.name)
    }

    /// What goes between databases over `net` is lost in silence, both ways; heartbeats go on.
    pub fn block_databases(&self, net: Net) -> Result<()> {
        self.struck(Blow::Hurt);
        self.switch.block_databases(&self.name, net)
    }

    pub fn unblock_databases(&self, net: Net) -> Result<()> {
        self.switch.unblock_databases(&self.name, net)
    }

    /// Starts a program in the host, in a cgroup `unit` of its own. The host must be on and not frozen.
    pub fn spawn(&self, mut command: Command, unit: &str) -> Result<Child> {
        let pidfd = {
            let running = self.lock();
            let host = running.as_ref().with_context(|| format!("host {} is off", self.name))?;
            if host.frozen {
                bail!("host {} is frozen: nothing can be started in it", self.name);
            }
            host.pidfd.try_clone()?
        };
        let procs = self.cgroup.child(unit)?.procs()?;
        let inside = pidfd.try_clone()?;
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                system::join_cgroup(&procs)?;
                system::enter(&inside, NAMESPACES)
            });
        }
        spawn_with_pids(command, move || system::enter(&pidfd, libc::CLONE_NEWPID))
    }

    /// Runs a program in the host to its end. What it printed comes back, whatever its exit status.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn(command, "shell")?;
        child.wait_with_output().with_context(|| format!("wait for {program} in host {}", self.name))
    }

    /// The same; any exit status but 0 is an error.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.output(program, args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {args:?} in host {}: {}: {}", self.name, output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a long-running program whose output goes to [`Host::log`]`(unit)`.
    pub fn start(&self, mut command: Command, unit: &str) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(unit))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.spawn(command, unit)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().expect("no holder of this lock goes on after a panic: panics abort")
    }
}

/// Spawns from a thread of its own, whose children's process namespace `choose` has set.
fn spawn_with_pids(mut command: Command, choose: impl FnOnce() -> std::io::Result<()> + Send) -> Result<Child> {
    let program = format!("{command:?}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || choose().and_then(|()| command.spawn()));
        thread.join().expect("panics abort").with_context(|| format!("start {program}"))
    })
}

/// A random version 4 UUID, as the kernel makes its boot ids.
fn new_boot_id() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}
