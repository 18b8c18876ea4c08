//! The lab: regent on real hosts (namespaces, cgroups, simulated power devices) with real PostgreSQL and real faults.
//!
//! `cargo test --test lab -- [FILTER…] [--repeat N] [--jobs N] [--list] [--keep] [--show-output]`. Needs root; without it everything is SKIPPED.
//! The same program also plays the parts of its world: a host's first process, a device's hook, clients.
//! The lab judges by the clock and by what clients saw, never by what the program under test says about itself alone.

#![expect(
    clippy::disallowed_methods,
    reason = "the lab is no part of the program: it waits, draws names and reads clocks of the one machine that it runs on"
)]

mod asking;
mod bmc;
mod bounds;
mod busy_bmc;
mod cgroup;
mod client;
mod cluster;
#[path = "../engine/company.rs"]
mod company;
mod disk;
mod following;
mod harness;
mod host;
mod in_force;
mod init;
mod network;
mod pace;
mod page;
mod ping;
mod plan;
mod postgres;
mod ready;
mod recovery;
mod restart;
mod roles;
mod said;
mod scenarios;
mod seed;
mod status;
mod system;
mod time;
mod turns;
mod watchdogs;
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
