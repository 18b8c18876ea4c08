//! Local trouble of a primary whose host is well: it moves in order where somebody can take over, and is said where nobody can.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Ballast;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);
/// Profile `lan`: two probes that find no room begin within that.
const CERTAIN: Duration = Duration::from_secs(2);
/// And from there on.
const OUT: Duration = Duration::from_secs(5);
const FULL: &str = "its volume is full";

const ONE: &[(&str, &str, u32)] = &[("db1", "postgresql", 400)];
const ALL: &[(&str, &str, u32)] = &[("db1", "postgresql", 400), ("db2", "postgresql", 400), ("db3", "postgresql", 400)];

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "a_full_volume_moves",
        shows: "the primary's volume is full: writes again within 5 s of the second probe, nothing lost, no fence, the incident says why",
        within: LONG,
        alone: true,
        run: moves,
    },
    Scenario {
        name: "full_volumes_everywhere_move_nothing",
        shows: "every volume is full: nothing moves, every node says so, and it goes on once there is room",
        within: LONG,
        alone: false,
        run: stays,
    },
    Scenario {
        name: "the_directory_of_a_running_primary_is_moved_away",
        shows: "killed after probe_timeout, the service moves, and its node gets a copy in its place",
        within: LONG,
        alone: false,
        run: moved_away,
    },
];

fn first_on(cluster: &Cluster, node: &str) -> Result<crate::cluster::Reign> {
    let reign = cluster.reign()?;
    ensure!(reign.primary == node, "{} is primary", reign.primary);
    Ok(reign)
}

fn no_power_was_cut(cluster: &Cluster) -> Result<()> {
    for name in cluster.plan.database_names() {
        ensure!(cluster.device("ipmi", &name)?.offs() == 0, "the device of {name} was told to switch off");
    }
    Ok(())
}

fn moves(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { volumes: ONE, ..Plan::default() })?;
    let before = first_on(&cluster, "db1")?;
    let host = cluster.host("db1")?.clone();
    let fault = Stamp::now();
    host.fill_volume("postgresql", Ballast::Bytes)?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    println!("{} took over {outage:?} after the volume was full; writes paused for {gap:?}", after.primary);
    ensure!(outage <= CERTAIN + OUT && gap <= OUT, "it took {outage:?}, and writes paused for {gap:?}");
    no_power_was_cut(&cluster)?;
    let incident = cluster.status()?.incidents.first().context("there is an incident")?.id;
    let said = cluster.explain(Some(incident))?;
    ensure!(said.steps.iter().any(|step| step.what.contains(FULL)), "no step says why: {:?}", said.steps);
    host.free_volume("postgresql")?;
    cluster.wait_complete(BACK)?;
    let (seen, _) = cluster.judge(&["db1", &after.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost in a move in order: {:?}", seen.lost);
    Ok(())
}

fn stays(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { volumes: ALL, ..Plan::default() })?;
    cluster.world.pace.allow(Act::Start, 6, "a standby without room is started again, after pauses that double");
    let before = first_on(&cluster, "db1")?;
    for (name, volume, _) in ALL.iter().rev() {
        cluster.host(name)?.fill_volume(volume, Ballast::Bytes)?;
    }
    // A standby whose volume is full does not run: it is no candidate either way.
    let is_full = |service: &crate::status::Service| {
        let trouble = service.databases.get("db1").and_then(|database| database.trouble.clone());
        trouble.is_some_and(|said| said.contains(FULL)) && !service.readiness.failover_ready
    };
    cluster.wait("a full primary, and nobody to take over", Duration::from_secs(20), |status| {
        status.services.get(SERVICE).is_some_and(is_full)
    })?;
    std::thread::sleep(Duration::from_secs(8));
    let status = cluster.status_from("db1")?;
    let service = &status.services[SERVICE];
    ensure!(service.epoch == before.epoch, "it moved: {service:?}");
    let stays = |now: &String| now.contains("it stays, because nobody can take over now");
    ensure!(service.what_now.iter().any(stays), "it does not say why it stays: {:?}", service.what_now);
    ensure!(!service.readiness.failover_ready, "full standbys are no candidates: {:?}", service.readiness);
    // The primary first: while it has trouble, it moves to whoever has room.
    cluster.host("db1")?.free_volume("postgresql")?;
    cluster.wait("room on the primary", Duration::from_secs(20), |status| {
        let database = status.services.get(SERVICE).and_then(|service| service.databases.get("db1"));
        database.is_some_and(|database| database.trouble.is_none())
    })?;
    for (name, volume, _) in ALL.iter().filter(|(name, ..)| *name != "db1") {
        cluster.host(name)?.free_volume(volume)?;
    }
    cluster.wait("room everywhere", Duration::from_secs(60), |status| {
        status
            .services
            .get(SERVICE)
            .is_some_and(|s| s.is_complete() && s.databases.values().all(|d| d.trouble.is_none()))
    })?;
    ensure!(cluster.reign()?.epoch == before.epoch, "it moved after all");
    no_power_was_cut(&cluster)?;
    let (seen, _) = cluster.judge(&["db1"])?;
    ensure!(seen.lost.is_empty(), "writes were lost: {:?}", seen.lost);
    Ok(())
}

fn moved_away(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let fault = Stamp::now();
    host.run("mv", &["/srv/postgresql/data", "/srv/postgresql/data-lost"])?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over {outage:?} after the directory was moved away", after.primary);
    ensure!(outage <= Duration::from_secs(12), "it took {outage:?}");
    no_power_was_cut(&cluster)?;
    cluster.wait_complete(BACK)?;
    ensure!(cluster.reign()?.epoch == after.epoch, "it moved once more");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
