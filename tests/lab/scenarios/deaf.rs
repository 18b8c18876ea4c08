//! One direction of both networks of the primary's host is lost: nothing gets in, or nothing gets out.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Host;
use crate::network::Net;
use crate::plan::Plan;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);
const FAILOVER: Duration = Duration::from_secs(60);

/// `lease.ttl` and two seconds, by profile.
const LAN_LEASE: Duration = Duration::from_secs(10);
const FAST_LEASE: Duration = Duration::from_secs(5);

pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "nothing_gets_in_with_a_disk",
        shows: "14: moved without a fence, within 3 s",
        within: LONG,
        alone: true,
        run: |world| nothing_gets_in(world, "lan", true, Duration::from_secs(3)),
    },
    Scenario {
        name: "nothing_gets_in_with_a_disk_fast",
        shows: "14: moved without a fence, within 1.5 s",
        within: LONG,
        alone: true,
        run: |world| nothing_gets_in(world, "fast", true, Duration::from_millis(1500)),
    },
    Scenario {
        name: "nothing_gets_in_without_a_disk",
        shows: "14: moved without a fence, within lease.ttl + 2 s",
        within: LONG,
        alone: false,
        run: |world| nothing_gets_in(world, "lan", false, LAN_LEASE),
    },
    Scenario {
        name: "nothing_gets_in_without_a_disk_fast",
        shows: "14: moved without a fence, within lease.ttl + 2 s",
        within: LONG,
        alone: false,
        run: |world| nothing_gets_in(world, "fast", false, FAST_LEASE),
    },
    Scenario {
        name: "nothing_gets_out_with_a_disk",
        shows: "14: dead by 2 of 3, fenced",
        within: LONG,
        alone: false,
        run: |world| nothing_gets_out(world, true),
    },
    Scenario {
        name: "nothing_gets_out_without_a_disk",
        shows: "14: dead by 2 of 2, fenced",
        within: LONG,
        alone: false,
        run: |world| nothing_gets_out(world, false),
    },
];

fn both(host: &Host, what: impl Fn(&Host, Net) -> Result<()>) -> Result<()> {
    what(host, Net::Primary)?;
    what(host, Net::Secondary)
}

/// Everybody hears it, and no answer gets to it.
fn nothing_gets_in(world: &mut World, profile: &'static str, disk: bool, within: Duration) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { profile, disk, ..Plan::default() })?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    both(cluster.host(&before.primary)?, Host::block_input)?;
    let (after, outage) = cluster.wait_failover(&before, fault, FAILOVER)?;
    println!("{} took over from {} after {outage:?}; the bound is {within:?}", after.primary, before.primary);
    ensure!(outage <= within, "it took {outage:?}, more than {within:?}");
    ensure!(cluster.device("ipmi", &before.primary)?.offs() == 0, "it was fenced, although everybody heard it");
    both(cluster.host(&before.primary)?, Host::unblock_input)?;
    cluster.wait_complete(Duration::from_secs(90))?;
    ensure!(cluster.device("ipmi", &before.primary)?.offs() == 0, "it was fenced when the network was back");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

/// Nobody hears it on a network, so it is dead, like a host that is cut off both ways.
fn nothing_gets_out(world: &mut World, disk: bool) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { disk, ..Plan::default() })?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    both(cluster.host(&before.primary)?, Host::block_output)?;
    let (after, outage) = cluster.wait_failover(&before, fault, FAILOVER)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "it was not fenced");
    both(cluster.host(&before.primary)?, Host::unblock_output)?;
    cluster.wait_complete(Duration::from_secs(90))?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
