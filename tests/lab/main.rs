//! The lab: regent on real hosts (namespaces, cgroups, simulated power devices) with real PostgreSQL and real faults.
//!
//! `cargo test --test lab -- [FILTER…] [--repeat N] [--list] [--keep]`. Needs root; without it everything is SKIPPED.
//! The same program also plays the parts of its world: a host's first process, a device's hook, clients.
//! The lab judges by the clock and by what clients saw, never by what the program under test says about itself alone.

mod bmc;
mod cgroup;
mod client;
mod cluster;
mod disk;
mod harness;
mod host;
mod init;
mod network;
mod ping;
mod plan;
mod postgres;
mod scenarios;
mod status;
mod system;
mod time;
mod world;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let done = match args.first().map(String::as_str) {
        Some("__init") => init::main(rest).map(|()| 0),
        Some("__ping") => ping::main(rest),
        Some("__writer") => client::writer_process::main(rest).map(|()| 0),
        Some("__prober") => client::prober_process::main(rest).map(|()| 0),
        Some("__chassis") => bmc::hook(rest).map(|()| 0),
        Some("__scenario") => Ok(harness::run_in_this_process(&scenarios::all(), rest)),
        _ => harness::main(&scenarios::all(), &args),
    };
    match done {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(2);
        }
    }
}
