//! Daemons that are restarted while nothing is wrong: what was settled long ago stays settled, and no database notices.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::in_force;
use crate::plan::{Plan, SERVICE};
use crate::restart::{ENDINGS, Ending};
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
/// Longer than anything that a daemon does after its start.
const SETTLED: Duration = Duration::from_secs(4);
/// Profile `lan`: the time for which a lease is granted.
pub(super) const LEASE: Duration = Duration::from_secs(8);

pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "daemons_restarted_after_a_healed_failover",
        shows: "rules, roles and hba lines of every host stay as they are; nobody is fenced",
        within: LONG,
        alone: false,
        run: healed,
    },
    Scenario {
        name: "paused_and_the_daemons_restarted",
        shows: "the same postmaster on every host, writes go on",
        within: LONG,
        alone: false,
        run: paused,
    },
    Scenario {
        name: "paused_and_the_primarys_daemon_is_away_for_long",
        shows: "declared dead in a pause, and back: the same postmaster, writes go on, nobody is fenced after the pause",
        within: LONG,
        alone: false,
        run: away,
    },
    Scenario {
        name: "resumed_while_a_daemon_is_away",
        shows: "it comes back: the same postmaster, writes go on",
        within: LONG,
        alone: false,
        run: resumed,
    },
    Scenario {
        name: "all_daemons_restarted_at_once",
        shows: "SIGINT: writes pause for less than a second, the same postmasters, no fence",
        within: LONG,
        alone: false,
        run: |world| all_at_once(world, Ending::InOrder),
    },
    Scenario {
        name: "all_daemons_killed_at_once",
        shows: "kill -9: writes pause for less than a second, the same postmasters, no fence",
        within: LONG,
        alone: false,
        run: |world| all_at_once(world, Ending::Killed),
    },
];

/// The fault is over, its fence is closed, its incident is history: no daemon may do any of it again.
fn healed(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    cluster.wait_complete(Duration::from_secs(90))?;
    let (in_force, offs, postmasters) = (in_force::everywhere(&cluster)?, cluster.power_offs(), cluster.postmasters()?);
    let (incidents, start) = (cluster.status()?.incidents.len(), Stamp::now());
    for ending in ENDINGS {
        for node in cluster.plan.node_names() {
            cluster.restart_daemon(&node, ending)?;
            in_force::stays(&cluster, &in_force, SETTLED)?;
            ensure!(cluster.postmasters()? == postmasters, "{ending:?} on {node}: another postmaster runs");
        }
    }
    cluster.wait_complete(Duration::from_secs(30))?;
    ensure!(cluster.power_offs() == offs, "switched off by a restart: {offs:?} before, {:?} now", cluster.power_offs());
    ensure!(cluster.reign()? == after, "the primary moved: {after:?} before, {:?} now", cluster.reign()?);
    let now = cluster.status()?.incidents;
    ensure!(now.len() == incidents, "there were {incidents} incidents, now there are {now:?}");
    let gap = cluster.writer()?.longest_gap_after(start)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?} because a daemon was restarted");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

/// Nothing moved at all: the same primary, the same servers, writes within a second, none lost, nobody switched off.
pub(super) fn nothing_moved(mut cluster: Cluster, reign: &Reign, since: Stamp, longest: Duration) -> Result<()> {
    cluster.wait_complete(Duration::from_secs(30))?;
    cluster.stays(reign, SETTLED)?;
    let gap = cluster.writer()?.longest_gap_after(since)?;
    println!("writes paused for {gap:?}");
    ensure!(gap < longest, "writes paused for {gap:?}, expected less than {longest:?}");
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although nothing moved: {:?}", seen.lost);
    Ok(())
}

/// As an operator does it: again, when the leader has just gone.
fn set_paused(cluster: &Cluster, asked: &str, paused: bool) -> Result<()> {
    let (word, phase) = if paused { ("pause", "paused") } else { ("resume", "installed") };
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = cluster.command(asked, &[word]) {
        ensure!(Instant::now() < end, "no {word} for ten seconds: {error:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let wanted = |status: &Status| status.services.get(SERVICE).is_some_and(|s| s.phase == phase);
    cluster.wait(&format!("the phase {phase}"), Duration::from_secs(10), wanted).map(drop)
}

fn paused(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    set_paused(&cluster, &reign.primary, true)?;
    for ending in ENDINGS {
        for node in cluster.plan.node_names() {
            cluster.restart_daemon(&node, ending)?;
            std::thread::sleep(SETTLED);
            ensure!(cluster.postmasters()? == postmasters, "{ending:?} on {node}: another postmaster runs");
        }
    }
    // No lease ends in a pause.
    std::thread::sleep(LEASE);
    ensure!(cluster.postmasters()? == postmasters, "in the pause another postmaster was started");
    set_paused(&cluster, &reign.primary, false)?;
    // After the pause a lease counts again.
    std::thread::sleep(LEASE + SETTLED);
    ensure!(cluster.postmasters()? == postmasters, "after the pause another postmaster runs");
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}

/// Nobody acts on the verdict, and the daemon that is back takes its epoch up again.
fn away(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    set_paused(&cluster, &reign.primary, true)?;
    let joins = cluster.joins(&reign.primary)?;
    cluster.end_daemon(&reign.primary, Ending::Killed)?;
    let dead = |status: &Status| status.nodes[&reign.primary].state == "dead";
    cluster.wait("a verdict on the primary's node", Duration::from_secs(30), dead)?;
    // No lease ends in a pause.
    std::thread::sleep(LEASE);
    cluster.start_daemon(&reign.primary)?;
    cluster.wait_joined(&reign.primary, joins)?;
    cluster.wait("the end of what the pause held up", Duration::from_secs(10), |status| status.fences.is_empty())?;
    set_paused(&cluster, &reign.primary, false)?;
    std::thread::sleep(LEASE + SETTLED);
    ensure!(cluster.postmasters()? == postmasters, "another postmaster runs");
    ensure!(cluster.reign()? == reign, "it moved: {:?}", cluster.reign()?);
    let offs = cluster.power_offs();
    ensure!(offs.values().all(|offs| *offs == 0), "somebody was switched off: {offs:?}");
    let gap = cluster.writer()?.longest_gap_after(start)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?}");
    cluster.judge(&[&reign.primary]).map(drop)
}

fn resumed(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    for node in cluster.plan.node_names() {
        let names = cluster.plan.node_names();
        let other = names.iter().find(|name| **name != node).expect("there are three");
        set_paused(&cluster, other, true)?;
        let joins = cluster.joins(&node)?;
        cluster.end_daemon(&node, Ending::InOrder)?;
        set_paused(&cluster, other, false)?;
        cluster.start_daemon(&node)?;
        cluster.wait_joined(&node, joins)?;
        std::thread::sleep(LEASE + SETTLED);
        ensure!(cluster.postmasters()? == postmasters, "{node} came back after the pause: another postmaster runs");
    }
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}

fn all_at_once(world: &mut World, ending: Ending) -> Result<()> {
    let cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    cluster.restart_every_daemon(ending)?;
    std::thread::sleep(LEASE + SETTLED);
    ensure!(cluster.postmasters()? == postmasters, "other postmasters run than before: {postmasters:?}");
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}
