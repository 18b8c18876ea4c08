//! A voter that was away from the log comes back, and reads there what was ordered of it long ago.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::network::Net;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(400);
/// The peer port, on both networks: Raft, and what peers ask each other. Heartbeats go elsewhere.
const PEER_PORT: u16 = 7420;
/// How long nothing may be switched off once the voter is back.
const WATCH: Duration = Duration::from_secs(20);

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "the_executor_of_an_old_order_comes_back",
    shows: "five voters: an `off` that was ordered before the failover switches off nobody after it",
    within: LONG,
    alone: false,
    run: executor,
}];

/// Drops both directions of the peer port on a host; its heartbeats pass.
fn cut_from_the_log(cluster: &Cluster, node: &str) -> Result<()> {
    let rules = format!(
        "table inet lab_cut {{\n chain in {{ type filter hook input priority -5; policy accept; tcp dport {PEER_PORT} \
         drop; tcp sport {PEER_PORT} drop; }}\n chain out {{ type filter hook output priority -5; policy accept; tcp \
         dport {PEER_PORT} drop; tcp sport {PEER_PORT} drop; }}\n}}\n"
    );
    cluster.host(node)?.run("sh", &["-c", "printf '%s' \"$0\" | nft -f -", &rules]).map(drop)
}

fn joined_to_the_log(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.host(node)?.run("nft", &["delete", "table", "inet", "lab_cut"]).map(drop)
}

/// Who is told to switch the primary off when the leader itself could not: the next voter by name.
fn next_executor(cluster: &Cluster, leader: &str, primary: &str) -> Result<String> {
    let mut names = cluster.plan.node_names();
    names.sort();
    names.into_iter().find(|name| name != leader && name != primary).context("there are five voters")
}

fn executor(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { impatient: true, ..Plan::five_voters() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "a node takes over and gives its service up again within a minute");
    let before = cluster.reign()?;
    // It hands leadership away from the primary's host by itself.
    let leader = cluster.leader(|leader| leader != before.primary)?;
    let executor = next_executor(&cluster, &leader, &before.primary)?;
    cluster.host(&leader)?.link_down(Net::Management)?;
    cut_from_the_log(&cluster, &executor)?;
    println!("{leader} leads and reaches no device; {executor} is cut from the log");
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(90))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    let report = cluster.explain(None)?.text();
    ensure!(
        report.contains(&format!("{executor} did not report in time")),
        "nothing was ordered of {executor}, so this shows nothing:\n{report}"
    );

    let again = back_again(&cluster, &before, &after, &executor)?;
    let (offs, incidents) = (cluster.power_offs(), cluster.status()?.incidents.len());
    joined_to_the_log(&cluster, &executor)?;
    let back = Stamp::now();
    nobody_is_switched_off(&cluster, &again, &offs, incidents)?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let gap = cluster.writer()?.longest_gap_after(back)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?} because {executor} came back");
    cluster.judge(&[&before.primary, &after.primary, &again.primary]).map(drop)
}

/// The fenced node returns and is made primary again, all without the voter that is cut off.
fn back_again(cluster: &Cluster, before: &Reign, after: &Reign, executor: &str) -> Result<Reign> {
    cluster.wait("the fenced node to stream again", Duration::from_secs(120), |status| {
        let service = status.services.get(SERVICE);
        service.and_then(|s| s.databases.get(&before.primary)).is_some_and(|database| {
            database.state == "standby" && database.streams_from.as_ref() == Some(&after.primary)
        })
    })?;
    let words = ["switchover", "--to", &before.primary];
    cluster.wait_movable(after, &words)?;
    let start = Stamp::now();
    cluster.command(&after.primary, &words)?;
    let (again, _) = cluster.wait_failover(after, start, Duration::from_secs(30))?;
    ensure!(again.primary == before.primary, "{} is primary after the switchover", again.primary);
    let heard = cluster.status()?.nodes.get(executor).is_some_and(|node| node.state == "up");
    ensure!(heard, "{executor} is not up: its heartbeats were to pass");
    Ok(again)
}

fn nobody_is_switched_off(
    cluster: &Cluster,
    reign: &Reign,
    offs: &std::collections::BTreeMap<String, u32>,
    incidents: usize,
) -> Result<()> {
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        let now = cluster.power_offs();
        ensure!(now == *offs, "a device was told to switch off: {offs:?} before, {now:?} now");
        ensure!(cluster.reign()? == *reign, "the primary moved: {reign:?} before, {:?} now", cluster.reign()?);
        std::thread::sleep(Duration::from_millis(250));
    }
    let now = cluster.status()?.incidents;
    ensure!(now.len() == incidents, "there were {incidents} incidents, now there are {now:?}");
    Ok(())
}
