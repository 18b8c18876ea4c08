//! docs/by-hand.md, followed word by word: the last copy serves without regent, and comes back with what it took meanwhile.

use super::copies::wins;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::page::BY_HAND;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(360);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "page_the_last_primary_without_regent",
        shows: "docs/by-hand.md: the others are lost, the last primary serves by hand and goes on under regent with all of it",
        within: LONG,
        alone: false,
        run: primary,
    },
    Scenario {
        name: "page_the_last_standby_without_regent",
        shows: "docs/by-hand.md: the last copy is a standby's: it is promoted by hand, and wins afterwards",
        within: LONG,
        alone: false,
        run: standby,
    },
];

/// Everything but that node's host is lost; it serves by hand and takes a row.
fn serves_by_hand(cluster: &Cluster, node: &str, promote: bool) -> Result<()> {
    let host = cluster.host(node)?.clone();
    postgres::sql(cluster.host(&cluster.reign()?.primary)?, "create table by_hand (id int)")?;
    postgres::wait_for(&host, "select from by_hand", Duration::from_secs(30))?;
    for other in cluster.hosts().iter().filter(|other| other.name != node) {
        other.power_cut()?;
    }
    cluster.follow(node, &BY_HAND.block("Take it out of regent's hands", 0)?, &[])?;
    if promote {
        cluster.follow(node, &BY_HAND.block("Take it out of regent's hands", 1)?, &[])?;
    }
    let ask = BY_HAND.block("Take it out of regent's hands", 2)?;
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !cluster.follow(node, &ask, &[])?.contains("no server running") {
        ensure!(std::time::Instant::now() < end, "a server runs on");
        std::thread::sleep(Duration::from_millis(500));
    }
    cluster.follow(node, &BY_HAND.block("Start it", 0)?, &[])?;
    cluster.follow(node, &BY_HAND.block("Start it", 1)?, &[])?;
    let recovers = cluster.follow(node, &BY_HAND.block("Start it", 2)?, &[])?;
    ensure!((recovers.trim() == "t") == promote, "whether it is a standby: {recovers}");
    if promote {
        cluster.follow(node, &BY_HAND.block("Start it", 3)?, &[])?;
    }
    let psql = postgres::bin_dir()?.join("psql").display().to_string();
    let insert = ["-h", "/tmp", "-c", "insert into by_hand values (1)"];
    host.run("runuser", &[&["-u", "postgres", "--", &psql][..], &insert].concat())?;
    cluster.follow(node, &BY_HAND.block("Back to regent", 0)?, &[])?;
    for other in cluster.hosts().iter().filter(|other| other.name != node) {
        // The page has it done before regent starts there, which it does here with the host.
        if promote {
            std::fs::rename(other.disk().join("postgresql/data"), other.disk().join("postgresql/data.before"))?;
        }
        other.power_on()?;
    }
    cluster.follow(node, &BY_HAND.block("Back to regent", 1)?, &[]).map(drop)
}

fn primary(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Start, 6, "everything is switched off and on, and one is started by hand besides");
    cluster.world.pace.allow(Act::Checkpoint, 2, "it leaves, and is primary again within a minute");
    let before = cluster.reign()?;
    serves_by_hand(&cluster, &before.primary, false)?;
    let status = cluster.wait_complete(BACK)?;
    let primary = status.services[SERVICE].primary.clone().context("no primary")?;
    ensure!(primary == before.primary, "{primary} took over from {}, which has more", before.primary);
    let rows = postgres::sql(cluster.host(&primary)?, "select count(*) from by_hand")?;
    ensure!(rows == "1", "what was written by hand: {rows} rows");
    cluster.stop_writer().map(drop)
}

fn standby(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Start, 6, "everything is switched off and on, and one is started by hand besides");
    cluster.world.pace.allow(Act::Checkpoint, 2, "it leaves, and is primary again within a minute");
    let before = cluster.reign()?;
    let names = cluster.plan.database_names();
    let node = names.into_iter().find(|name| *name != before.primary).context("a standby")?;
    serves_by_hand(&cluster, &node, true)?;
    cluster.wait("a service that nobody holds", BACK, |status| status.services[SERVICE].phase != "installed")?;
    cluster.stop_writer()?;
    cluster.follow(&node, &BY_HAND.block("Back to regent", 3)?, &[("db1", &node)])?;
    wins(&cluster, &node, before.epoch, ("by_hand", "1"))
}
