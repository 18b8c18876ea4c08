//! The networks of a world: one namespace is the switch, with a bridge for each of three networks; each host has a
//! namespace with one NIC in each. The machine's own network is not touched.
//!
//! Namespaces are named below a private `/run` of the scenario's process, so two worlds never meet.

use crate::postgres::PORT;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// One of the three networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Primary,
    Secondary,
    /// Where the power devices listen.
    Management,
}

pub const NETS: [Net; 3] = [Net::Primary, Net::Secondary, Net::Management];

impl Net {
    fn number(self) -> u8 {
        match self {
            Net::Primary => 1,
            Net::Secondary => 2,
            Net::Management => 3,
        }
    }

    /// The NIC's name in every host.
    pub fn nic(self) -> &'static str {
        match self {
            Net::Primary => "eth1",
            Net::Secondary => "eth2",
            Net::Management => "eth3",
        }
    }

    /// The address of the host or device with this number.
    pub fn address(self, index: u8) -> String {
        format!("10.77.{}.{index}", self.number())
    }

    /// The same host's address of IPv6.
    pub fn address_v6(self, index: u8) -> String {
        format!("fd77:{}::{index:x}", self.number())
    }

    fn bridge(self) -> String {
        format!("br{}", self.number())
    }

    /// The kernel takes 15 letters, and a host's name may have 63.
    fn port(self, host: &str) -> String {
        match host.len() {
            ..=10 => format!("{host}-{}", self.number()),
            _ => format!("p{:08x}-{}", crc32fast::hash(host.as_bytes()), self.number()),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Runs a program to its end; its error output is part of the error.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {args:?} with input {input:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The switch namespace. Everything about cables is done here.
#[derive(Debug)]
pub struct Switch;

const SWITCH: &str = "switch";

impl Switch {
    /// Makes the namespace and its three bridges.
    pub fn create() -> Result<Switch> {
        run("ip", &["netns", "add", SWITCH], "")?;
        let mut batch = String::from("link set lo up\n");
        for net in NETS {
            let bridge = net.bridge();
            // A fixed hardware address: a bridge without one takes another when a port goes, and whoever knew the old
            // one does not reach the devices behind it for seconds.
            batch += &format!("link add {bridge} address 02:77:00:00:00:0{} type bridge\n", net.number());
            batch += &format!("link set {bridge} up\n");
        }
        // The devices' side of the management network is the bridge itself.
        batch += &format!("addr add {}/24 dev {}\n", Net::Management.address(1), Net::Management.bridge());
        ip(SWITCH, &batch)?;
        Ok(Switch)
    }

    /// The switch's namespace, for the devices that live in it.
    pub fn namespace(&self) -> Result<OwnedFd> {
        namespace(SWITCH)
    }

    /// Gives a host its namespace with three NICs, cables plugged in.
    pub fn attach(&self, host: &str, index: u8) -> Result<()> {
        run("ip", &["netns", "add", host], "")?;
        let (mut here, mut there) = (String::new(), String::from("link set lo up\n"));
        for net in NETS {
            let (port, nic) = (net.port(host), net.nic());
            // A host keeps its hardware addresses when it boots: with others, whoever knew the old ones would not find
            // it for half a minute.
            let hardware = format!("02:77:00:00:{:02x}:{index:02x}", net.number());
            here += &format!("link add {port} type veth peer name {nic} address {hardware} netns {host}\n");
            here += &format!("link set {port} master {} up\n", net.bridge());
            there += &format!("addr add {}/24 dev {nic}\nlink set {nic} up\n", net.address(index));
            // Of use at once: nobody else can have it.
            there += &format!("addr add {}/64 dev {nic} nodad\n", net.address_v6(index));
        }
        ip(SWITCH, &here)?;
        ip(host, &there)
    }

    /// Pulls or plugs cables of a host at the switch's side; the host sees its carrier go and come.
    pub fn links(&self, host: &str, nets: &[Net], up: bool) -> Result<()> {
        let word = if up { "up" } else { "down" };
        let batch: String = nets.iter().map(|net| format!("link set {} {word}\n", net.port(host))).collect();
        ip(SWITCH, &batch)
    }

    /// Takes the host's namespace away with all that its network stack still knows, as a reboot does.
    pub fn detach(&self, host: &str) -> Result<()> {
        let batch: String = NETS.iter().map(|net| format!("link del {}\n", net.port(host))).collect();
        ip(SWITCH, &batch)?;
        run("ip", &["netns", "del", host], "").map(drop)
    }

    /// One direction only: what arrives at the host over `net` is thrown away, what it sends is not.
    pub fn block_input(&self, host: &str, net: Net) -> Result<()> {
        throw_away(host, net.nic())
    }

    /// The other direction only: what the host sends over `net` is thrown away at the switch's side.
    pub fn block_output(&self, host: &str, net: Net) -> Result<()> {
        throw_away(SWITCH, &net.port(host))
    }

    /// Ends `block_output`.
    pub fn unblock_output(&self, host: &str, net: Net) -> Result<()> {
        nft(SWITCH, &format!("delete table netdev lab_{}\n", net.port(host)))
    }

    /// Ends `block_input`.
    pub fn unblock_input(&self, host: &str, net: Net) -> Result<()> {
        nft(host, &format!("delete table netdev lab_{}\n", net.nic()))
    }

    /// What comes from database servers is thrown away at the host.
    pub fn block_servers(&self, host: &str) -> Result<()> {
        let ports = format!("{PORT}, {}", PORT + 1);
        let rule = format!("type filter hook input priority 0; policy accept;\n tcp sport {{ {ports} }} drop;");
        nft(host, &format!("table inet lab_servers {{\n chain in {{\n {rule}\n }}\n}}\n"))
    }

    /// Ends `block_servers`.
    pub fn unblock_servers(&self, host: &str) -> Result<()> {
        nft(host, "delete table inet lab_servers\n")
    }

    /// What goes between databases over `net` is thrown away at the host, both ways; everything else goes on.
    pub fn block_databases(&self, host: &str, net: Net) -> Result<()> {
        let (nic, ports) = (net.nic(), format!("{{ {PORT}, {} }}", PORT + 1));
        let way = |hook: &str, device: &str| {
            format!(
                " chain {hook} {{\n type filter hook {hook} priority 0; policy accept;\n \
                 {device} \"{nic}\" tcp sport {ports} drop\n {device} \"{nic}\" tcp dport {ports} drop\n }}\n"
            )
        };
        let rules = way("input", "iifname") + &way("output", "oifname");
        nft(host, &format!("table inet lab_databases_{nic} {{\n{rules}}}\n"))
    }

    /// Ends `block_databases`.
    pub fn unblock_databases(&self, host: &str, net: Net) -> Result<()> {
        nft(host, &format!("delete table inet lab_databases_{}\n", net.nic()))
    }

    /// Gives a device an address on the management network.
    pub fn add_device(&self, index: u8) -> Result<()> {
        ip(SWITCH, &format!("addr add {}/24 dev {}\n", Net::Management.address(index), Net::Management.bridge()))
    }

    /// Takes a device's address away: nobody answers there any more.
    pub fn remove_device(&self, index: u8) -> Result<()> {
        ip(SWITCH, &format!("addr del {}/24 dev {}\n", Net::Management.address(index), Net::Management.bridge()))
    }
}

/// Whether there is a namespace of that name.
pub fn exists(name: &str) -> bool {
    std::path::Path::new("/run/netns").join(name).exists()
}

/// The namespace of that name, open.
pub fn namespace(name: &str) -> Result<OwnedFd> {
    let path = format!("/run/netns/{name}");
    Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
}

fn ip(namespace: &str, batch: &str) -> Result<()> {
    run("ip", &["-n", namespace, "-batch", "-"], batch).map(drop)
}

/// Whatever arrives at this device.
fn throw_away(namespace: &str, device: &str) -> Result<()> {
    let rules = format!(
        "table netdev lab_{device} {{\n chain in {{\n type filter hook ingress device {device} priority 0; policy drop;\n \
         }}\n}}\n"
    );
    nft(namespace, &rules)
}

fn nft(namespace: &str, rules: &str) -> Result<()> {
    run("ip", &["netns", "exec", namespace, "nft", "-f", "-"], rules).map(drop)
}
