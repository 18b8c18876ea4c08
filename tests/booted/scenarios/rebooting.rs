//! A host that reboots or is switched off in order, as somebody types it: what it holds goes to whoever is ready, or waits
//! for it.
//!
//! Not here: a power cut (the lab).

use crate::asking::Reign;
use crate::cluster::Cluster;
use crate::following::OPERATIONS;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::SERVICE;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(90);
/// For how long writes may pause for a move in order.
const MOVE: Duration = Duration::from_secs(10);

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "reboot_with_a_ready_candidate",
        shows: "reboot of the primary's host: it hands over, nothing is lost, nobody is fenced, and it comes back as a standby",
        within: LONG,
        alone: false,
        run: with_a_candidate,
    },
    Scenario {
        name: "reboot_without_a_candidate",
        shows: "reboot of the primary's host, the other in maintenance: stopped in order, and the service comes back with it",
        within: LONG,
        alone: false,
        run: without_a_candidate,
    },
    Scenario {
        name: "reboot_in_a_pause",
        shows: "reboot of the primary's host beside a ready candidate in a pause: nothing is released, it opens again",
        within: LONG,
        alone: false,
        run: in_a_pause,
    },
    Scenario {
        name: "reboot_in_a_pause_without_a_candidate",
        shows: "the same with the other in maintenance",
        within: LONG,
        alone: false,
        run: in_a_pause_without_a_candidate,
    },
    Scenario {
        name: "reboot_of_the_others",
        shows: "reboot of the standby's and the witness's host: writes go on",
        within: LONG,
        alone: false,
        run: the_others,
    },
];

fn other(cluster: &Cluster, reign: &Reign) -> Result<String> {
    let names = cluster.plan.database_names();
    names.into_iter().find(|name| *name != reign.primary).context("there is no standby")
}

/// Reboots the primary's host and waits until it is up.
fn reboot(cluster: &Cluster, reign: &Reign) -> Result<Stamp> {
    let start = Stamp::now();
    cluster.host(&reign.primary)?.follow(&OPERATIONS.block("Reboot a host", 0)?)?;
    println!("{} is up again {:?} after the word", reign.primary, Stamp::now().since(start));
    Ok(start)
}

/// Everything replicates, and the writer was served again. Says for how long it was not.
fn served(cluster: &Cluster, since: Stamp) -> Result<Duration> {
    cluster.wait_complete(BACK)?;
    cluster.writer()?.first_after(Stamp::now(), BACK)?;
    let gap = cluster.writer()?.longest_gap_after(since)?;
    println!("the longest gap {gap:?}");
    Ok(gap)
}

fn with_a_candidate(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let before = cluster.reign()?;
    let start = reboot(&cluster, &before)?;
    let gap = served(&cluster, start)?;
    let after = cluster.reign()?;
    ensure!(after.primary != before.primary && after.epoch == before.epoch + 1, "after {before:?} came {after:?}");
    ensure!(gap < MOVE, "writes paused for {gap:?}");
    let incident = cluster.explain(None)?;
    println!("{}", incident.text());
    ensure!(incident.summary.kind == "switchover", "it was a {}", incident.summary.kind);
    cluster.judge_moves(&[&before.primary, &after.primary])
}

fn without_a_candidate(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let before = cluster.reign()?;
    cluster.order(&before.primary, &["maintenance", &other(&cluster, &before)?, "--force"])?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "one before it is stopped in order, one when it is opened again");
    let start = reboot(&cluster, &before)?;
    served(&cluster, start)?;
    let after = cluster.reign()?;
    ensure!(after.primary == before.primary, "{} is primary now", after.primary);
    cluster.judge_moves(&[&before.primary])
}

fn reboot_paused(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.reign()?;
    let (host, start) = (cluster.host(&before.primary)?.clone(), Stamp::now());
    host.follow(&OPERATIONS.block("Reboot a host in a pause", 0)?)?;
    let is_up = |status: &Status| status.nodes[&before.primary].state == "up";
    cluster.wait("the host that rebooted", BACK, is_up)?;
    let phase = cluster.service()?.phase;
    ensure!(phase == "paused", "in the pause the service is {phase}");
    let during = cluster.reign()?;
    ensure!(during == before, "in the pause {before:?} became {during:?}");
    let resumed = Stamp::now();
    host.follow(&OPERATIONS.block("Reboot a host in a pause", 1)?)?;
    served(cluster, start)?;
    println!("of it {:?} after resume", cluster.writer()?.first_after(resumed, BACK)?.ack.since(resumed));
    let after = cluster.reign()?;
    ensure!(after.primary == before.primary, "after the pause {} is primary", after.primary);
    let log = cluster.host(&after.primary)?.server_log(SERVICE);
    let log = std::fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    ensure!(!log.contains("was not properly shut down"), "the database was not stopped in order:\n{log}");
    cluster.judge_moves(&[&before.primary])
}

fn in_a_pause(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    reboot_paused(&mut cluster)
}

fn in_a_pause_without_a_candidate(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let before = cluster.reign()?;
    cluster.order(&before.primary, &["maintenance", &other(&cluster, &before)?, "--force"])?;
    reboot_paused(&mut cluster)
}

fn the_others(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let (reign, start) = (cluster.reign()?, Stamp::now());
    for name in [other(&cluster, &reign)?, "w1".to_owned()] {
        cluster.host(&name)?.follow(&OPERATIONS.block("Reboot a host", 0)?)?;
        cluster.wait(&format!("{name} to be up"), BACK, |status| status.nodes[&name].state == "up")?;
    }
    let gap = served(&cluster, start)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?}");
    cluster.judge_still(&reign)
}
