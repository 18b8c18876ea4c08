//! One network takes no database traffic any more, without a word, while everything else goes on over both: the streams go on
//! over the other one, and nothing moves.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::host::Host;
use crate::network::Net;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use regent::types::Lsn;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(240);
/// The streams of PostgreSQL by itself need ten seconds and more.
const TURNED: Duration = Duration::from_secs(9);
const READY: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_secs(15);

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "database_traffic_of_a_standby_is_lost_on_the_primary_network",
        shows: "its stream goes on over the secondary network within seconds; nothing moves",
        within: LONG,
        alone: true,
        run: of_a_standby,
    },
    Scenario {
        name: "database_traffic_of_the_primary_is_lost_on_the_primary_network",
        shows: "all streams go on over the secondary network; a switchover works, and so does the way back",
        within: LONG,
        alone: true,
        run: of_the_primary,
    },
    Scenario {
        name: "database_traffic_of_a_standby_is_lost_on_both_networks",
        shows: "nothing is turned or restarted; it streams again when one of them is back",
        within: LONG,
        alone: false,
        run: on_both,
    },
];

/// The hosts of the standbys.
fn standbys(cluster: &Cluster, reign: &Reign) -> Vec<Arc<Host>> {
    let databases = cluster.hosts().into_iter().filter(|host| host.name.starts_with("db"));
    databases.filter(|host| host.name != reign.primary).collect()
}

/// Waits until everything has arrived at the standby that the primary has written up to now; how long that took.
fn catches_up(cluster: &Cluster, reign: &Reign, standby: &Host, within: Duration) -> Result<Duration> {
    let since = Instant::now();
    let written: Lsn = postgres::sql(cluster.host(&reign.primary)?, "select pg_current_wal_lsn()")?.parse()?;
    loop {
        let received = postgres::sql(standby, "select pg_last_wal_receive_lsn()")?;
        if received.parse::<Lsn>().is_ok_and(|received| received >= written) {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < within, "{} is at {received}, and not at {written}", standby.name);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_ready(cluster: &Cluster) -> Result<()> {
    let ready = cluster.wait("a failover to be possible", READY, |status| {
        status.services.get(SERVICE).is_some_and(|s| s.is_complete() && s.readiness.failover_ready)
    });
    ready.map(drop)
}

/// Every node says so, and that next to nothing would be lost: writes go on, and the other standby has them.
fn streams_over(cluster: &Cluster, standby: &Host, network: &str) -> Result<()> {
    let said = cluster.wait("the network of a stream to be said", READY, |status| {
        status.services.get(SERVICE).is_some_and(|service| {
            let database = service.databases.get(&standby.name);
            let is_over = database.is_some_and(|database| database.network.as_deref() == Some(network));
            is_over && service.readiness.would_lose_seconds.is_some_and(|seconds| seconds < 5)
        })
    });
    said.map(drop)
}

/// How often its daemon said so; the lines are printed.
fn said(host: &Host, words: &str) -> Result<usize> {
    let log = host.log("regent");
    let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(words)).collect();
    lines.iter().for_each(|line| println!("{}: {line}", host.name));
    Ok(lines.len())
}

const TURNED_TO_THE_SECONDARY: &str = "the stream is turned from the primary network to the secondary network";
const OVER_THE_SECONDARY: &str = "streams over the secondary network";

fn of_a_standby(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let standby = standbys(&cluster, &reign).swap_remove(0);
    let server = postgres::postmaster(&standby)?;
    standby.block_databases(Net::Primary)?;
    let took = catches_up(&cluster, &reign, &standby, TURNED)?;
    println!("{} streams again after {took:?}", standby.name);
    is_ready(&cluster)?;
    streams_over(&cluster, &standby, "secondary")?;
    cluster.stays(&reign, WATCH)?;
    standby.unblock_databases(Net::Primary)?;
    cluster.stays(&reign, WATCH)?;
    is_ready(&cluster)?;
    let log = (said(&standby, TURNED_TO_THE_SECONDARY)?, said(&standby, OVER_THE_SECONDARY)?);
    ensure!(log == (1, 1), "it was turned, and streamed over the secondary network, so often: {log:?}");
    ensure!(postgres::postmaster(&standby)? == server, "{} was restarted", standby.name);
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although nothing moved: {:?}", seen.lost);
    Ok(())
}

fn of_the_primary(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    host.block_databases(Net::Primary)?;
    for standby in standbys(&cluster, &before) {
        let took = catches_up(&cluster, &before, &standby, TURNED)?;
        println!("{} has caught up after {took:?} more", standby.name);
    }
    is_ready(&cluster)?;
    cluster.stays(&before, WATCH)?;
    let to = standbys(&cluster, &before).swap_remove(0).name.clone();
    let words = ["switchover", "--to", &to];
    cluster.wait_movable(&before, &words)?;
    cluster.order(&before.primary, &words)?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let after = cluster.reign()?;
    ensure!(after.primary == to, "{} is the primary, and not {to}", after.primary);
    // It follows over the network that takes its traffic.
    println!("{} follows: {:?}", host.name, catches_up(&cluster, &after, &host, TURNED)?);
    is_ready(&cluster)?;
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.lost.is_empty(), "a switchover lost writes: {:?}", seen.lost);
    Ok(())
}

fn on_both(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let standby = standbys(&cluster, &reign).swap_remove(0);
    let server = postgres::postmaster(&standby)?;
    standby.block_databases(Net::Primary)?;
    standby.block_databases(Net::Secondary)?;
    cluster.stays(&reign, WATCH * 2)?;
    ensure!(said(&standby, "the stream is turned")? == 0, "it was turned to nowhere");
    standby.unblock_databases(Net::Secondary)?;
    println!("{} streams again after {:?}", standby.name, catches_up(&cluster, &reign, &standby, TURNED)?);
    is_ready(&cluster)?;
    cluster.stays(&reign, WATCH)?;
    ensure!(postgres::postmaster(&standby)? == server, "{} was restarted", standby.name);
    standby.unblock_databases(Net::Primary)?;
    cluster.judge(&[&reign.primary]).map(drop)
}
