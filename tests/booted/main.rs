//! Hosts that boot: regent installed as the README says, under the systemd of three Debian hosts, and what systemd does to
//! it: restarts, reboots, the service watchdog, the distribution's own units.
//!
//! `make booted`, or `cargo test --test booted -- [FILTER…]` with the options of the lab. Needs root, systemd-nspawn and
//! debootstrap; without them everything is SKIPPED. Networks, power devices, clients and the harness are the lab's.
//! Not here: what breaks beside a boot (the lab).

#![expect(
    clippy::disallowed_methods,
    reason = "it is no part of the program: it waits and reads clocks of the one machine that it runs on"
)]
// The lab's modules are shared as they are; hosts that boot need only some of what they offer.
#![allow(dead_code)]

#[path = "../lab/asking.rs"]
mod asking;
#[path = "../lab/bmc.rs"]
mod bmc;
mod boot;
#[path = "../lab/bounds.rs"]
mod bounds;
#[path = "../lab/busy_bmc.rs"]
mod busy_bmc;
#[path = "../lab/cgroup.rs"]
mod cgroup;
#[path = "../lab/client/mod.rs"]
mod client;
mod cluster;
#[path = "../lab/disk.rs"]
mod disk;
mod following;
#[path = "../lab/harness.rs"]
mod harness;
mod host;
mod install;
mod machine;
#[path = "../lab/network.rs"]
mod network;
#[path = "../lab/pace.rs"]
mod pace;
#[path = "../lab/page.rs"]
mod page;
mod plan;
#[path = "../lab/postgres.rs"]
mod postgres;
#[path = "../lab/ready.rs"]
mod ready;
mod roles;
#[path = "../lab/said.rs"]
mod said;
mod scenarios;
#[path = "../lab/status.rs"]
mod status;
#[path = "../lab/system.rs"]
mod system;
#[path = "../lab/time.rs"]
mod time;
mod tree;
#[path = "../lab/turns.rs"]
mod turns;
mod unit;
#[path = "../lab/watchdogs.rs"]
mod watchdogs;
#[path = "../lab/world.rs"]
mod world;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scenarios = scenarios::all();
    let done = roles::play(&scenarios, &args).unwrap_or_else(|| harness::main(&scenarios, &args));
    match done {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(2);
        }
    }
}
