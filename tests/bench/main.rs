//! How long writes are not served: `make bench-failover`. Not a test: it prints what it measured, targets beside it.
//!
//! Uses the lab's world (`tests/lab`), one fresh cluster a row, without probers, with one writer. From the first act of
//! the fault to the first acknowledged write on the new primary. `RUNS=N` sets the number of runs a row (default 7).

#![expect(
    clippy::disallowed_methods,
    reason = "the lab is no part of the program: it waits, draws names and reads clocks of the one machine that it runs on"
)]
// The lab's modules are shared as they are; a benchmark needs only some of what they offer.
#![allow(dead_code)]

#[path = "../lab/asking.rs"]
mod asking;
#[path = "../lab/bmc.rs"]
mod bmc;
#[path = "../lab/bounds.rs"]
mod bounds;
#[path = "../lab/busy_bmc.rs"]
mod busy_bmc;
#[path = "../lab/cgroup.rs"]
mod cgroup;
#[path = "../lab/client/mod.rs"]
mod client;
#[path = "../lab/cluster.rs"]
mod cluster;
#[path = "../engine/company.rs"]
mod company;
#[path = "../lab/disk.rs"]
mod disk;
#[path = "../lab/harness.rs"]
mod harness;
#[path = "../lab/host.rs"]
mod host;
mod idle;
#[path = "../lab/init.rs"]
mod init;
#[path = "../lab/network.rs"]
mod network;
#[path = "../lab/pace.rs"]
mod pace;
#[path = "../lab/ping.rs"]
mod ping;
#[path = "../lab/plan.rs"]
mod plan;
#[path = "../lab/postgres.rs"]
mod postgres;
#[path = "../lab/ready.rs"]
mod ready;
#[path = "../lab/roles.rs"]
mod roles;
mod rows;
#[path = "../lab/seed.rs"]
mod seed;
#[path = "../lab/status.rs"]
mod status;
mod summary;
#[path = "../lab/system.rs"]
mod system;
#[path = "../lab/time.rs"]
mod time;
#[path = "../lab/turns.rs"]
mod turns;
#[path = "../lab/watchdogs.rs"]
mod watchdogs;
#[path = "../lab/world.rs"]
mod world;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rows = rows::all();
    let done = roles::play(&rows, &args).unwrap_or_else(|| {
        let shown: Vec<String> = args.iter().cloned().chain(["--show-output".to_owned()]).collect();
        harness::main(&rows, &shown)
    });
    match done {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(2);
        }
    }
}
