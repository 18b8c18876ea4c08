//! The power of a host that boots: on, off, cut, and what it does itself: `reboot` starts it again, `poweroff` does not.
//!
//! Not here: what its first process is (`boot.rs`) and what is run in it (`host.rs`).

use crate::cgroup::Cgroup;
use crate::host::OnPowerLoss;
use crate::network::{self, NETS, Net, Switch};
use crate::system;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The exit status by which systemd-nspawn says that its host wants to be started again.
const REBOOT: i32 = 133;
/// How long the firmware of a host takes before it boots.
const FIRMWARE: Duration = Duration::from_secs(12);
/// How long a host may take until its first process says that it is up.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// The power switch of one host. One without a tree is a NIC and whatever is run behind it.
pub struct Machine {
    pub name: String,
    pub index: u8,
    pub directory: PathBuf,
    pub cgroup: Cgroup,
    switch: Arc<Switch>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What it boots, the uppermost layer first.
    tree: Option<String>,
    /// What of the lab it sees on its disk, and under which name.
    attached: Vec<(PathBuf, String)>,
    pulled: Vec<Net>,
    power: Power,
    /// How often it has booted.
    boots: u32,
    on_power_loss: Option<OnPowerLoss>,
}

#[derive(Default)]
enum Power {
    #[default]
    Off,
    /// Its firmware has it.
    Rebooting,
    On(Option<First>),
}

/// The first process of a host that boots: its number, as the lab counts, and itself.
struct First {
    pid: u32,
    process: OwnedFd,
}

impl Machine {
    pub fn new(name: &str, index: u8, directory: PathBuf, cgroup: Cgroup, switch: Arc<Switch>) -> Machine {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Machine { name: name.to_owned(), index, directory, cgroup, switch, state, changed }
    }

    pub fn set_tree(&self, tree: String) {
        self.lock().tree = Some(tree);
    }

    pub fn attach(&self, source: PathBuf, name: &str) {
        self.lock().attached.push((source, name.to_owned()));
    }

    pub fn set_on_power_loss(&self, act: OnPowerLoss) {
        self.lock().on_power_loss = Some(act);
    }

    pub fn is_on(&self) -> bool {
        matches!(self.lock().power, Power::On(_))
    }

    pub fn boots(&self) -> u32 {
        self.lock().boots
    }

    /// The first process of a host that is on; `None` where it has none of its own.
    pub fn first_process(&self) -> Result<Option<OwnedFd>> {
        match &self.lock().power {
            Power::On(first) => Ok(first.as_ref().map(|first| first.process.try_clone()).transpose()?),
            _ => bail!("host {} is off", self.name),
        }
    }

    /// The number of that process.
    pub fn first_pid(&self) -> Option<u32> {
        match &self.lock().power {
            Power::On(first) => first.as_ref().map(|first| first.pid),
            _ => None,
        }
    }

    /// Nothing happens when it is on already. A host that boots is up when this returns.
    pub fn power_on(self: &Arc<Self>) -> Result<()> {
        let mut state = self.lock();
        if !matches!(state.power, Power::On(_)) {
            self.boot(&mut state)?;
        }
        Ok(())
    }

    fn boot(self: &Arc<Self>, state: &mut State) -> Result<()> {
        // What is left of the last boot: NICs that remember, cgroups of the services that ran.
        if network::exists(&self.name) {
            self.switch.detach(&self.name)?;
        }
        self.cgroup.remove()?;
        Cgroup::create(self.cgroup.path().to_owned())?;
        self.switch.attach(&self.name, self.index)?;
        self.switch.links(&self.name, &state.pulled, false)?;
        state.boots += 1;
        state.power = match state.tree.clone() {
            None => Power::On(None),
            Some(tree) => {
                let (nspawn, first) = self.start(&tree, &state.attached)?;
                let (machine, boot) = (self.clone(), state.boots);
                std::thread::spawn(move || machine.attend(nspawn, boot));
                Power::On(Some(first))
            }
        };
        self.changed.notify_all();
        Ok(())
    }

    /// Starts its first process and waits until that says that the host is up.
    fn start(&self, tree: &str, attached: &[(PathBuf, String)]) -> Result<(Child, First)> {
        let told = self.directory.join("notify.sock");
        let _ = fs::remove_file(&told);
        let ear = UnixDatagram::bind(&told).with_context(|| format!("listen on {}", told.display()))?;
        let console = OpenOptions::new().create(true).append(true).open(self.directory.join("console.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("__boot").arg(&self.name).arg(&self.directory).arg(tree);
        for (source, name) in attached {
            command.arg(source).arg(name);
        }
        command.env("NOTIFY_SOCKET", &told).stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let procs = self.cgroup.procs()?;
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                system::join_cgroup(&procs)?;
                system::leave(libc::CLONE_NEWNS)
            });
        }
        let mut nspawn = command.spawn().context("start the host's process")?;
        match first_process(&ear) {
            Ok(first) => Ok((nspawn, first)),
            Err(error) => {
                let _ = nspawn.kill();
                let _ = nspawn.wait();
                Err(error).with_context(|| format!("host {} did not come up; see its console.log", self.name))
            }
        }
    }

    /// Waits for the end of a boot, and boots again where the host asked for that.
    fn attend(self: Arc<Self>, mut nspawn: Child, boot: u32) {
        let status = nspawn.wait();
        let again = status.is_ok_and(|status| status.code() == Some(REBOOT));
        {
            let mut state = self.lock();
            if state.boots != boot || !matches!(state.power, Power::On(_)) {
                return;
            }
            state.power = if again { Power::Rebooting } else { Power::Off };
            self.changed.notify_all();
        }
        if !again {
            return;
        }
        std::thread::sleep(FIRMWARE);
        let mut state = self.lock();
        if matches!(state.power, Power::Rebooting)
            && let Err(error) = self.boot(&mut state)
        {
            println!("{} does not come back from its reboot: {error:#}", self.name);
            state.power = Power::Off;
        }
    }

    /// Waits until it has booted more often than so.
    pub fn wait_boot(&self, before: u32, within: Duration) -> Result<()> {
        let state = self.lock();
        let (state, late) = self
            .changed
            .wait_timeout_while(state, within, |state| state.boots <= before || !matches!(state.power, Power::On(_)))
            .expect("panics abort");
        ensure!(!late.timed_out(), "{} has not booted within {within:?}, {} times so far", self.name, state.boots);
        Ok(())
    }

    /// Waits until nothing of it runs.
    pub fn wait_off(&self, within: Duration) -> Result<()> {
        let state = self.lock();
        let on = |state: &mut State| matches!(state.power, Power::On(_));
        let (_state, late) = self.changed.wait_timeout_while(state, within, on).expect("panics abort");
        ensure!(!late.timed_out(), "{} is still on after {within:?}", self.name);
        Ok(())
    }

    /// From one moment to the next nothing of it runs and nothing of it is heard. Nothing happens when it is off.
    pub fn power_off(&self) -> Result<()> {
        let mut state = self.lock();
        if matches!(std::mem::take(&mut state.power), Power::Off) {
            return Ok(());
        }
        // The cables first: the kernel closes the connections of a killed process politely, a dead host does not.
        self.switch.links(&self.name, &NETS, false)?;
        self.cgroup.kill()?;
        if let Some(release) = &state.on_power_loss {
            release();
        }
        self.changed.notify_all();
        self.cgroup.wait_empty(Duration::from_secs(10))
    }

    /// Pulls or plugs cables.
    pub fn cables(&self, nets: &[Net], plugged: bool) -> Result<()> {
        let mut state = self.lock();
        state.pulled.retain(|net| !nets.contains(net));
        if !plugged {
            state.pulled.extend(nets);
        }
        let on = matches!(state.power, Power::On(_));
        if on { self.switch.links(&self.name, nets, plugged) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock goes on after a panic: panics abort")
    }
}

/// What systemd-nspawn says: which process is the host's first, and later that it is up.
fn first_process(ear: &UnixDatagram) -> Result<First> {
    let (end, mut first) = (Instant::now() + UP_WITHIN, None);
    let mut said = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "its first process did not say within {UP_WITHIN:?} that it is up");
        ear.set_read_timeout(Some(left))?;
        let Ok(length) = ear.recv(&mut said) else { continue };
        let text = String::from_utf8_lossy(&said[..length]).into_owned();
        for line in text.lines() {
            if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                let pid = pid.parse()?;
                first = Some(First { pid, process: system::pidfd(pid)? });
            }
            if line == "READY=1" {
                return first.context("it is up, and nobody said as which process");
            }
        }
    }
}
