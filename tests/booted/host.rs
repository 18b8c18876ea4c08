//! A host that boots, as the lab's modules use one: addresses, a disk that survives, a power switch, and programs that are
//! run in it beside its services.
//!
//! Not here: how it boots (`machine.rs`).

use crate::cgroup::Cgroup;
use crate::machine::Machine;
use crate::network::{NETS, Net, Switch, namespace};
use crate::ready::{Blow, OnFault};
use crate::system;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// Where a host sees what is attached to its disk.
pub const DISK: &str = "/srv";
/// The shared disk's name there.
pub const SHARED_DISK_NAME: &str = "shared-disk";

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
/// Where somebody types who logs in.
pub const HOME: &str = "/root";
/// Where Debian has its programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Called when the power goes.
pub type OnPowerLoss = Arc<dyn Fn() + Send + Sync>;

/// One host of a world.
pub struct Host {
    pub name: String,
    /// The last number of its addresses.
    pub index: u8,
    pub machine: Arc<Machine>,
    pub on_fault: Mutex<Option<OnFault>>,
}

impl Host {
    /// A host that is off. Its disk is empty.
    pub fn new(name: &str, index: u8, world: &Path, group: &Cgroup, switch: Arc<Switch>) -> Result<Host> {
        let directory = world.join(name);
        for (folder, _) in crate::boot::VOLUMES {
            let folder = directory.join("disk").join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let cgroup = Cgroup::at(group.path().join(name));
        let machine = Arc::new(Machine::new(name, index, directory, cgroup, switch));
        Ok(Host { name: name.to_owned(), index, machine, on_fault: Mutex::default() })
    }

    /// The host's disk, as the lab sees it.
    pub fn disk(&self) -> PathBuf {
        self.machine.directory.join("disk")
    }

    /// Where that service's server writes its log, as the lab sees it.
    pub fn server_log(&self, service: &str) -> PathBuf {
        self.upper(&format!("var/log/postgresql/regent-{service}.log"))
    }

    /// A file of the host that lies on no volume, as the lab sees it while the host is off.
    pub fn upper(&self, path: &str) -> PathBuf {
        self.disk().join(crate::boot::UPPER).join(path.trim_start_matches('/'))
    }

    /// Where the lab keeps what a program of this host prints.
    pub fn log(&self, program: &str) -> PathBuf {
        self.machine.directory.join(format!("{program}.log"))
    }

    pub fn address(&self, net: Net) -> String {
        net.address(self.index)
    }

    /// From the next boot on, the host sees `source` under that name on its disk.
    pub fn attach(&self, source: PathBuf, name: &str) -> Result<()> {
        self.machine.attach(source, name);
        Ok(())
    }

    pub fn set_on_power_loss(&self, act: OnPowerLoss) {
        self.machine.set_on_power_loss(act);
    }

    pub fn is_on(&self) -> bool {
        self.machine.is_on()
    }

    /// Hosts that boot are not frozen.
    pub fn is_frozen(&self) -> bool {
        false
    }

    /// The number of its first process, as the lab counts; `None` while it is off.
    pub fn first_pid(&self) -> Option<u32> {
        self.machine.first_pid()
    }

    pub fn boot_id(&self) -> Result<String> {
        Ok(self.run("cat", &[crate::boot::BOOT_ID])?.trim().to_owned())
    }

    pub fn power_on(&self) -> Result<()> {
        self.machine.power_on()
    }

    /// Its power fails. Nothing happens when it is off already.
    pub fn power_cut(&self) -> Result<()> {
        if self.is_on() {
            self.struck(Blow::Gone);
        }
        self.power_off()
    }

    /// The same by a device or a watchdog: no fault, but what answers one.
    pub fn power_off(&self) -> Result<()> {
        self.machine.power_off()
    }

    /// Pulls every cable.
    pub fn isolate(&self) -> Result<()> {
        self.struck(Blow::Gone);
        self.machine.cables(&NETS, false)
    }

    /// Plugs every cable in again.
    pub fn reconnect(&self) -> Result<()> {
        self.machine.cables(&NETS, true)
    }

    /// Starts a program in the host, in a cgroup `unit` of its own beside those of its services.
    pub fn spawn(&self, mut command: Command, unit: &str) -> Result<Child> {
        let first = self.machine.first_process()?;
        let procs = self.machine.cgroup.child(unit)?.procs()?;
        let Some(first) = first else {
            let network = namespace(&self.name)?;
            // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
            unsafe {
                command.pre_exec(move || {
                    system::join_cgroup(&procs)?;
                    system::enter(&network, libc::CLONE_NEWNET)
                });
            }
            return command.spawn().with_context(|| format!("start {command:?}"));
        };
        command.env_clear().envs([("PATH", PATH), ("HOME", HOME), ("LANG", "C.UTF-8")]);
        let inside = first.try_clone()?;
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                system::join_cgroup(&procs)?;
                system::enter(&inside, NAMESPACES)
            });
        }
        let program = format!("{command:?}");
        // A thread of its own, whose children are numbered as the host numbers them.
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || system::enter(&first, libc::CLONE_NEWPID).and_then(|()| command.spawn()));
            thread.join().expect("panics abort").with_context(|| format!("start {program}"))
        })
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
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {args:?} in host {}: {}: {}{}", self.name, output.status, said, error.trim());
        }
        Ok(said)
    }

    /// As somebody types it on the host, in root's home.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run("sh", &["-c", &format!("cd {HOME} && {line}")])
    }

    /// Puts a file there, with its directory.
    pub fn write(&self, path: &str, text: &str, mode: &str) -> Result<()> {
        let mut command = Command::new("install");
        command.args(["-D", "-m", mode, "/dev/stdin", path]).stdin(Stdio::piped());
        let mut install = self.spawn(command, "shell")?;
        install.stdin.take().expect("it is piped").write_all(text.as_bytes())?;
        let done = install.wait()?;
        ensure!(done.success(), "{path} was not written in host {}: {done}", self.name);
        Ok(())
    }

    /// Starts a long-running program whose output goes to [`Host::log`]`(unit)`.
    pub fn start(&self, mut command: Command, unit: &str) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(unit))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.spawn(command, unit)
    }
}
