//! A simulated BMC: `ipmi_sim`, with a small script as its host's power.

use crate::{call, eventually, must};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

pub const USER: &str = "fence";
pub const PASSWORD: &str = "s3cret-of-bmc";

/// How the host behind the BMC takes an order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Obeys,
    /// Is off or on only after this many tenths of a second.
    Lingers(u32),
    /// Says yes, and does nothing.
    Ignores,
    /// Says no.
    Refuses,
}

pub struct Bmc {
    pub port: u16,
    address: &'static str,
    folder: tempfile::TempDir,
    simulator: Child,
}

impl Bmc {
    /// Starts one whose host is on, and waits until it answers.
    pub fn start(power: Power) -> Bmc {
        Bmc::start_at("127.0.0.1", power)
    }

    /// The same, on this address of this host.
    pub fn start_at(address: &'static str, power: Power) -> Bmc {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let port = UdpSocket::bind((address, 0)).and_then(|s| s.local_addr()).expect("a free port").port();
        let set = match power {
            Power::Obeys => "echo \"$last\" > STATE".to_owned(),
            Power::Lingers(tenths) => format!("(sleep 0.{tenths}; echo \"$last\" > STATE) >/dev/null 2>&1 &"),
            Power::Ignores => ":".to_owned(),
            Power::Refuses => "exit 1".to_owned(),
        };
        let hook = format!(
            "#!/bin/sh\nfor last; do :; done\ncase \"$*\" in\n*get*power*) echo \"power:$(cat STATE)\";;\n\
             *set*power*) {set} ;;\nesac\n"
        );
        std::fs::write(path("hook"), hook.replace("STATE", &path("state"))).expect("written");
        std::fs::set_permissions(path("hook"), PermissionsExt::from_mode(0o755)).expect("executable");
        std::fs::write(path("state"), "1\n").expect("written");
        std::fs::create_dir(path("sim")).expect("a folder");
        let lan = format!(
            "name \"bmc1\"\nset_working_mc 0x20\nstartlan 1\naddr {address} {port}\npriv_limit admin\n\
             allowed_auths_callback md5\nallowed_auths_user md5\nallowed_auths_operator md5\nallowed_auths_admin md5\n\
             guid a123456789abcdefa123456789abcde1\nendlan\nchassis_control \"{}\"\nuser 1 false \"\" \"\" user 10 md5\n\
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 md5\n",
            path("hook")
        );
        std::fs::write(path("lan.conf"), lan).expect("written");
        let emulator = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                        sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
        std::fs::write(path("bmc.emu"), emulator).expect("written");
        let simulator = simulate(folder.path());
        let bmc = Bmc { port, address, folder, simulator };
        eventually("ipmi_sim answers", || (bmc.ask("status").status == 0).then_some(()));
        bmc
    }

    /// Options of an agent that reach it, the password on standard input.
    pub fn options(&self) -> String {
        format!("ip={}\nipport={}\nusername={USER}\npassword={PASSWORD}\n", self.address, self.port)
    }

    /// Takes every session that it has (63): each is asked for, and none is ever used. They time out, so this is repeated
    /// for as long as it shall have none; `forget_sessions` frees them at once.
    pub fn take_all_sessions(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(("127.0.0.1", self.port)).expect("loopback");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).expect("a time-out");
        for number in 0..64_u8 {
            socket.send(&open_session_request(number)).expect("sent");
            let mut answer = [0; 128];
            socket.recv(&mut answer).expect("an answer");
            // The status of an RMCP+ open session response: 01h, insufficient resources.
            if answer[17] == 1 {
                return;
            }
        }
        panic!("64 sessions were not enough");
    }

    /// A restart: the host's power stays as it is.
    pub fn forget_sessions(&mut self) {
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
        self.simulator = simulate(self.folder.path());
        eventually("ipmi_sim answers", || (self.ask("status").status == 0).then_some(()));
    }

    /// What ipmitool itself says.
    fn ask(&self, word: &str) -> crate::Said {
        let port = self.port.to_string();
        let target = ["-I", "lanplus", "-H", self.address, "-p", &port, "-U", USER, "-P", PASSWORD];
        let rest = ["-C", "3", "-N", "1", "-R", "1", "chassis", "power", word];
        call("ipmitool", &[&target[..], &rest[..]].concat(), "")
    }

    /// Whether the host has power: from the hook's own state, not through the agent.
    pub fn is_on(&self) -> bool {
        let state = std::fs::read_to_string(self.folder.path().join("state")).expect("the hook's state");
        state.trim() == "1"
    }

    /// Sets the host's power from outside.
    pub fn set(&self, on: bool) {
        std::fs::write(self.folder.path().join("state"), if on { "1\n" } else { "0\n" }).expect("written");
    }

    /// The GUID in the form in which ipmitool prints it.
    pub fn guid(&self) -> String {
        let port = self.port.to_string();
        let target = ["-I", "lanplus", "-H", self.address, "-p", &port, "-U", USER, "-P", PASSWORD, "-C", "3"];
        let text = must("ipmitool", &[&target[..], &["mc", "guid"]].concat());
        let line = text.lines().find(|line| line.starts_with("System GUID")).expect("a line");
        line.split_once(':').expect("a value").1.trim().to_owned()
    }
}

fn simulate(folder: &std::path::Path) -> Child {
    let path = |name: &str| folder.join(name).display().to_string();
    Command::new("ipmi_sim")
        .args(["-n", "-c", &path("lan.conf"), "-f", &path("bmc.emu"), "-s", &path("sim")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ipmi_sim starts (package openipmi)")
}

/// An RMCP+ open session request with cipher suite 3.
fn open_session_request(number: u8) -> Vec<u8> {
    let algorithms = [[0, 0, 0, 8, 1, 0, 0, 0], [1, 0, 0, 8, 1, 0, 0, 0], [2, 0, 0, 8, 1, 0, 0, 0]].concat();
    let payload = [&[number, 0, 0, 0, 1 + number, 0x10, 0, 0][..], &algorithms].concat();
    let header = [6, 0, 0xff, 7, 6, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, payload.len() as u8, 0];
    [&header[..], &payload].concat()
}

impl Drop for Bmc {
    fn drop(&mut self) {
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
    }
}
