//! Channels that fail, one at a time and together, and devices that lie about it.

use crate::bmc::Mode as BmcMode;
use crate::cluster::Cluster;
use crate::disk::Mode as DiskMode;
use crate::harness::Scenario;
use crate::network::Net;
use crate::plan::Plan;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);
const FAILOVER: Duration = Duration::from_secs(60);
/// Much longer than any detection.
const WATCH: Duration = Duration::from_secs(15);
/// Profile `lan`: the time for which a lease is granted.
const LEASE: Duration = Duration::from_secs(8);

pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "both_networks_of_the_primary",
        shows: "4: dead by 2 of 3, fenced while it runs",
        within: LONG,
        alone: false,
        run: both,
    },
    Scenario {
        name: "only_the_primary_network",
        shows: "5: no fence, no failover",
        within: LONG,
        alone: false,
        run: only_primary,
    },
    Scenario {
        name: "only_the_secondary_network",
        shows: "5: no fence, no failover",
        within: LONG,
        alone: false,
        run: only_secondary,
    },
    Scenario {
        name: "only_the_disk_hangs",
        shows: "5: no fence, no failover",
        within: LONG,
        alone: false,
        run: disk_hangs,
    },
    Scenario {
        name: "only_the_disk_fails",
        shows: "5: no fence, no failover (EIO)",
        within: LONG,
        alone: false,
        run: disk_fails,
    },
    Scenario {
        name: "isolated_from_everything",
        shows: "9: stops before its lease ends",
        within: LONG,
        alone: false,
        run: isolated,
    },
    Scenario {
        name: "a_fence_agent_that_lies",
        shows: "10: refuted by signs of life, next level",
        within: LONG,
        alone: false,
        run: liar,
    },
];

fn both(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.link_down(Net::Primary)?;
    cluster.host(&before.primary)?.link_down(Net::Secondary)?;
    let (after, outage) = cluster.wait_failover(&before, fault, FAILOVER)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "it was not fenced");
    cluster.host(&before.primary)?.reconnect()?;
    cluster.wait_complete(Duration::from_secs(90))?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn only(world: &mut World, break_it: impl Fn(&Cluster, &str) -> Result<()>) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let fault = Stamp::now();
    break_it(&cluster, &reign.primary)?;
    let watched = cluster.stays(&reign, WATCH);
    // Whatever was seen: a disk that hangs must not hang on.
    cluster.disk(&reign.primary)?.set(DiskMode::Ok);
    watched?;
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    println!("writes paused for {gap:?}");
    ensure!(gap < Duration::from_secs(3), "writes paused for {gap:?} although nothing moved");
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although nothing moved: {:?}", seen.lost);
    Ok(())
}

fn only_primary(world: &mut World) -> Result<()> {
    only(world, |cluster, primary| cluster.host(primary)?.link_down(Net::Primary))
}

fn only_secondary(world: &mut World) -> Result<()> {
    only(world, |cluster, primary| cluster.host(primary)?.link_down(Net::Secondary))
}

fn disk_hangs(world: &mut World) -> Result<()> {
    only(world, |cluster, primary| {
        cluster.disk(primary)?.set(DiskMode::Hang);
        Ok(())
    })
}

fn disk_fails(world: &mut World) -> Result<()> {
    only(world, |cluster, primary| {
        cluster.disk(primary)?.set(DiskMode::Eio);
        Ok(())
    })
}

fn isolated(world: &mut World) -> Result<()> {
    // The device does not switch: what ends the epoch is the lease alone.
    let mut cluster = Cluster::start(world, Plan { levels: &[&["ipmi"], &["lease"]], ..Plan::default() })?;
    let before = cluster.reign()?;
    cluster.device("ipmi", &before.primary)?.set_mode(BmcMode::Stuck);
    let fault = Stamp::now();
    cluster.host(&before.primary)?.isolate()?;
    cluster.disk(&before.primary)?.set(DiskMode::Eio);
    let waited = cluster.wait_failover(&before, fault, Duration::from_secs(120));
    cluster.disk(&before.primary)?.set(DiskMode::Ok);
    let (after, outage) = waited?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    let (_, tenures) = cluster.judge(&[&before.primary, &after.primary])?;
    let went_on = tenures[0].last.since(fault);
    println!("the isolated primary took its last write after {went_on:?}");
    ensure!(went_on < LEASE, "it took writes for {went_on:?} after it was cut off; its lease lasts {LEASE:?}");
    Ok(())
}

fn liar(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { levels: &[&["ipmi"], &["pdu"]], ..Plan::default() })?;
    let before = cluster.reign()?;
    cluster.device("ipmi", &before.primary)?.set_mode(BmcMode::Lying);
    let fault = Stamp::now();
    cluster.host(&before.primary)?.link_down(Net::Primary)?;
    cluster.host(&before.primary)?.link_down(Net::Secondary)?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(90))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "the lying device was not asked");
    ensure!(cluster.device("pdu", &before.primary)?.offs() > 0, "the next level was not tried");
    let report = cluster.explain(None)?;
    ensure!(
        report.text().contains("refuted"),
        "the explanation does not say that the lie was found:\n{}",
        report.text()
    );
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
