//! Hosts that stand still: for longer than the threshold, and for less.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::Plan;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "frozen_for_too_long",
        shows: "6: frozen past the threshold, thawed: fenced",
        within: LONG,
        alone: false,
        run: long,
    },
    Scenario {
        name: "frozen_for_a_moment",
        shows: "7: frozen below the threshold: nothing happens",
        within: LONG,
        alone: false,
        run: short,
    },
];

fn long(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let fault = Stamp::now();
    host.freeze()?;
    std::thread::sleep(Duration::from_secs(6));
    host.thaw()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(40))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "it was not fenced");
    cluster.wait_complete(Duration::from_secs(90))?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn short(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let host = cluster.host(&reign.primary)?.clone();
    // Profile `lan` rides out a second.
    for _ in 0..3 {
        host.freeze()?;
        std::thread::sleep(Duration::from_millis(700));
        host.thaw()?;
        cluster.stays(&reign, Duration::from_secs(5))?;
    }
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although nothing moved: {:?}", seen.lost);
    Ok(())
}
