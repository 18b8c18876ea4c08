//! The README, followed word by word on hosts that boot.
//!
//! Not here: how each line is typed (`install.rs`).

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "page_install",
    shows: "README: installed and started as it says; status says READY, the unit is enabled, its sandbox lets it work",
    within: Duration::from_secs(300),
    alone: false,
    run: install,
}];

fn install(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let reign = cluster.reign()?;
    for host in cluster.hosts() {
        let said = cluster.first_status(&host)?;
        ensure!(said.contains("READY"), "{} does not say READY: {said}", host.name);
        let state = host.run("systemctl", &["is-enabled", "regent"])?;
        ensure!(state.trim() == "enabled", "regent on {} is {state}", host.name);
        ensure!(host.restarts()? == 0, "regent was started {} times again on {}", host.restarts()?, host.name);
        let policy = host.run("chrt", &["--pid", &host.daemon()?])?;
        ensure!(policy.contains("SCHED_RR"), "the daemon on {} is scheduled as {policy}", host.name);
    }
    println!("{}", cluster.first_status(cluster.host(&reign.primary)?)?);
    cluster.judge_still(&reign)
}
