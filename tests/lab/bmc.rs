//! Power devices: one real `ipmi_sim` a device, on the management network. The simulator asks its chassis hook, the
//! hook asks the lab, and the lab really cuts the host's power. A device can be told to lie, to be slow, or not to be
//! there.
//!
//! Here: the lab's side and the hook. Not here: what a power cut is (`host.rs`).

use crate::busy_bmc::Busy;
use crate::cgroup::Cgroup;
use crate::host::Host;
use crate::network::{Net, Switch, run};
use crate::ready::Blow;
use crate::system;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The account that the devices know.
pub const USER: &str = "fence";
pub const PASSWORD: &str = "secret";

/// What a scenario does at the moment of a fence.
pub type AfterOff = Box<dyn FnOnce() + Send>;

/// How a device behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Honest,
    /// Says what it was told, and leaves the host alone.
    Lying,
    /// Takes this long for everything.
    Slow(Duration),
    /// Refuses to switch: the state stays as it is.
    Stuck,
}

/// One device that switches one host.
pub struct Bmc {
    pub name: String,
    pub address: String,
    index: u8,
    switch: Arc<Switch>,
    chassis: Arc<Chassis>,
    simulator: Mutex<Option<Child>>,
    busy: Mutex<Option<Busy>>,
    directory: PathBuf,
    group: Cgroup,
}

/// What the hook asks.
struct Chassis {
    host: Arc<Host>,
    mode: Mutex<Mode>,
    /// What a lying device claims.
    claim: Mutex<Option<bool>>,
    /// Every `set power 0` that arrived, whatever came of it.
    offs: Mutex<u32>,
    /// Done once, when the power is off and before anybody is told so.
    after_off: Mutex<Option<AfterOff>>,
}

impl Bmc {
    /// Starts a device for `host` at the last number `index` of the management network, and waits until it listens.
    pub fn start(
        name: &str,
        index: u8,
        host: Arc<Host>,
        switch: Arc<Switch>,
        world: &Path,
        group: &Cgroup,
    ) -> Result<Bmc> {
        let directory = world.join(name);
        fs::create_dir_all(directory.join("state"))?;
        let chassis = Arc::new(Chassis {
            host,
            mode: Mutex::default(),
            claim: Mutex::default(),
            offs: Mutex::default(),
            after_off: Mutex::default(),
        });
        let socket = directory.join("chassis.sock");
        let listener = UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
        let answering = chassis.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let chassis = answering.clone();
                std::thread::spawn(move || chassis.answer(stream));
            }
        });
        write_configuration(&directory, &Net::Management.address(index))?;
        let bmc = Bmc {
            name: name.to_owned(),
            address: Net::Management.address(index),
            index,
            switch,
            chassis,
            simulator: Mutex::new(None),
            busy: Mutex::new(None),
            directory,
            group: group.child(name)?,
        };
        bmc.power_up()?;
        Ok(bmc)
    }

    pub fn set_mode(&self, mode: Mode) {
        self.chassis.host.struck(Blow::Device);
        *self.chassis.mode.lock().unwrap() = mode;
        *self.chassis.claim.lock().unwrap() = None;
    }

    /// The next time that it switches the host off, `act` is done before the device says so.
    pub fn after_next_off(&self, act: AfterOff) {
        *self.chassis.after_off.lock().unwrap() = Some(act);
    }

    /// How often it was told to switch off.
    pub fn offs(&self) -> u32 {
        *self.chassis.offs.lock().unwrap()
    }

    /// All of its sessions are taken: it answers, and nobody can log in.
    pub fn refuse_sessions(&self) -> Result<()> {
        self.power_down()?;
        self.switch.add_device(self.index)?;
        *self.busy.lock().unwrap() = Some(Busy::at(&self.address, &self.switch)?);
        Ok(())
    }

    /// It has free sessions again.
    pub fn has_sessions(&self) -> Result<()> {
        *self.busy.lock().unwrap() = None;
        self.switch.remove_device(self.index)?;
        self.power_up()
    }

    /// The device itself loses its power: nobody answers at its address.
    pub fn power_down(&self) -> Result<()> {
        self.chassis.host.struck(Blow::Device);
        let Some(mut simulator) = self.simulator.lock().unwrap().take() else { return Ok(()) };
        self.switch.remove_device(self.index)?;
        simulator.kill()?;
        simulator.wait()?;
        Ok(())
    }

    /// And gets it back.
    pub fn power_up(&self) -> Result<()> {
        let mut slot = self.simulator.lock().unwrap();
        if slot.is_some() {
            return Ok(());
        }
        self.switch.add_device(self.index)?;
        let (network, procs) = (self.switch.namespace()?, self.group.procs()?);
        let log = fs::File::create(self.directory.join("ipmi_sim.log"))?;
        let mut command = Command::new("ipmi_sim");
        command.arg("-n").arg("-c").arg(self.directory.join("lan.conf"));
        command.arg("-f").arg(self.directory.join("bmc.emu")).arg("-s").arg(self.directory.join("state"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                system::join_cgroup(&procs)?;
                system::enter(&network, libc::CLONE_NEWNET)
            });
        }
        let mut child = command.spawn().context("start ipmi_sim (package openipmi)")?;
        wait_for_port(&mut child, &self.address)?;
        *slot = Some(child);
        Ok(())
    }

    /// Asks the device through the network, as any client would: one ipmitool command in the switch's namespace.
    pub fn ipmitool(&self, words: &[&str]) -> Result<String> {
        let mut args = vec!["netns", "exec", "switch", "ipmitool", "-C", "3", "-N", "1", "-R", "1", "-I", "lanplus"];
        args.extend(["-H", &self.address, "-U", USER, "-P", PASSWORD]);
        args.extend(words);
        run("ip", &args, "")
    }
}

/// Waits until the simulator has bound its UDP port: `ipmi_sim` says nothing when it is ready.
fn wait_for_port(child: &mut Child, address: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    let table = format!("/proc/{}/net/udp", child.id());
    let last: Vec<u8> = address.split('.').filter_map(|n| n.parse().ok()).collect();
    let entry = format!("{:02X}{:02X}{:02X}{:02X}:026F", last[3], last[2], last[1], last[0]);
    while Instant::now() < end {
        if fs::read_to_string(&table).is_ok_and(|text| text.contains(&entry)) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("ipmi_sim for {address} ended at once: {status}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("ipmi_sim did not listen on {address} within 5 s")
}

fn write_configuration(directory: &Path, address: &str) -> Result<()> {
    let hook = format!("{} __chassis {}", std::env::current_exe()?.display(), directory.join("chassis.sock").display());
    let lan = format!(
        "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n    \
         allowed_auths_callback md5\n    allowed_auths_user md5\n    allowed_auths_operator md5\n    \
         allowed_auths_admin md5\n    guid a123456789abcdefa123456789abcde1\n  endlan\n  chassis_control \"{hook}\"\n  \
         user 1 false \"\" \"\" user 10 md5\n  user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 md5\n"
    );
    fs::write(directory.join("lan.conf"), lan)?;
    let emulator = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    fs::write(directory.join("bmc.emu"), emulator)?;
    Ok(())
}

impl Chassis {
    /// One question of the hook: a line of words; the answer is what the hook shall print, or an error after `!`.
    fn answer(&self, stream: UnixStream) {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            return;
        }
        let answer = match self.obey(line.trim()) {
            Ok(text) => text,
            Err(error) => format!("!{error:#}"),
        };
        // A hook that went away meanwhile was given up by its simulator: nobody is left to tell.
        let _ = (&stream).write_all(answer.as_bytes());
    }

    fn obey(&self, words: &str) -> Result<String> {
        let mode = *self.mode.lock().unwrap();
        if let Mode::Slow(by) = mode {
            std::thread::sleep(by);
        }
        match words {
            "get power" => {
                let claim = *self.claim.lock().unwrap();
                let on = claim.unwrap_or_else(|| self.host.is_on());
                Ok(format!("power:{}\n", u8::from(on)))
            }
            "set power 0" => {
                *self.offs.lock().unwrap() += 1;
                match mode {
                    Mode::Stuck => bail!("stuck"),
                    Mode::Lying => *self.claim.lock().unwrap() = Some(false),
                    _ => {
                        self.host.power_off()?;
                        let after = self.after_off.lock().unwrap().take();
                        if let Some(act) = after {
                            act();
                        }
                    }
                }
                Ok(String::new())
            }
            "set power 1" => {
                match mode {
                    Mode::Stuck => bail!("stuck"),
                    Mode::Lying => *self.claim.lock().unwrap() = Some(true),
                    _ => self.host.power_on()?,
                }
                Ok(String::new())
            }
            "set reset 1" => {
                self.host.power_off()?;
                self.host.power_on()?;
                Ok(String::new())
            }
            // The simulator asks for more (boot device, identify); a chassis need not have it.
            _ => Ok(String::new()),
        }
    }
}

/// The hook, as `ipmi_sim` runs it: `SOCKET WORDS…`. Prints the answer.
pub fn hook(args: &[String]) -> Result<()> {
    let [socket, words @ ..] = args else { bail!("__chassis SOCKET WORDS") };
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connect to {socket}"))?;
    writeln!(stream, "{}", words.join(" "))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.starts_with('!'), "the chassis refuses: {answer}");
    print!("{answer}");
    Ok(())
}
