//! `regent restart`: a parameter that needs a restart comes into force on a cluster that serves. What a person ordered is no
//! crash, no failure and no incident but the move.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "a_rolling_restart",
        shows: "a changed max_connections: standbys first, then a switchover; nothing is pending afterwards, nothing lost",
        within: LONG,
        alone: false,
        run: rolling,
    },
    Scenario {
        name: "a_rolling_restart_that_lowers",
        shows: "a lower max_connections: the primary first, in its place and epoch, then the standbys; nothing is pending \
            afterwards",
        within: LONG,
        alone: false,
        run: lowered,
    },
    Scenario {
        name: "one_database_is_restarted_on_order",
        shows: "a standby stays one, the primary goes on in its epoch, a daemon that dies meanwhile forgets nothing",
        within: LONG,
        alone: false,
        run: one,
    },
];

/// Every host's file has another value, and its daemon has read it.
fn change(cluster: &Cluster, to: &str) -> Result<()> {
    let line = "max_connections = 50";
    for name in cluster.plan.node_names() {
        let file = cluster.host(&name)?.disk().join("regent.toml");
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(line), "the lab's file is another one");
        fs::write(&file, text.replace(line, to))?;
        cluster.command(&name, &["reload"])?;
    }
    cluster.wait("what waits for a restart to be told of every node", Duration::from_secs(30), |status| {
        let databases = &status.services[SERVICE].databases;
        databases.values().all(|database| database.pending_restart == ["max_connections"])
    })?;
    Ok(())
}

/// Everybody streams, too: whoever was told of another primary last may need a moment.
fn nothing_waits(cluster: &Cluster) -> Result<()> {
    cluster.wait("nothing to be pending on a whole cluster", Duration::from_secs(30), |status| {
        let service = &status.services[SERVICE];
        service.is_complete() && service.databases.values().all(|database| database.pending_restart.is_empty())
    })?;
    Ok(())
}

fn started(cluster: &Cluster, node: &str) -> Result<String> {
    postgres::postmaster_since(cluster.host(node)?, postgres::FOLDERS[0])
}

fn nothing_failed(cluster: &Cluster, kinds: &[&str]) -> Result<()> {
    let status = cluster.status()?;
    let other = status.incidents.iter().find(|i| i.kind != "bootstrap" && !kinds.contains(&i.kind.as_str()));
    ensure!(other.is_none(), "an incident: {other:?}");
    ensure!(status.fences.is_empty(), "a fence: {:?}", status.fences);
    let history = cluster.power_offs();
    ensure!(history.values().all(|offs| *offs == 0), "a device was used: {history:?}");
    Ok(())
}

fn rolling(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { databases: 3, ..Plan::default() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "the primary writes one before it hands over");
    let before = cluster.reign()?;
    change(&cluster, "max_connections = 60")?;
    let plan = cluster.command(&before.primary, &["restart", "--rolling", "--dry-run"])?;
    ensure!(plan.contains(&format!("moves away from {}", before.primary)), "the plan: {plan}");
    let begun = Stamp::now();
    // Asked of a host that does not lead, which says all the same how the move gets on.
    let leader = cluster.status()?.quorum.leader.context("a leader")?;
    let other = cluster.plan.node_names().into_iter().find(|name| *name != leader).context("another node")?;
    let said = cluster.regent(&other, &["restart", "--rolling"])?;
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    println!("{told}{}", String::from_utf8_lossy(&said.stdout));
    ensure!(said.status.success(), "it did not succeed: {}", said.status);
    ensure!(told.contains(&format!("asking {leader}, which leads")), "it was not passed on: {told}");
    ensure!(told.contains("is open") && told.contains("switchover of"), "nothing of the move is told: {told}");
    nothing_waits(&cluster)?;
    let after = cluster.reign()?;
    ensure!(after.primary != before.primary && after.epoch == before.epoch + 1, "{before:?}, then {after:?}");
    println!("the longest gap between two acknowledged writes: {:?}", cluster.writer()?.longest_gap_after(begun)?);
    nothing_failed(&cluster, &["switchover"])?;
    // There is nothing left, and the command says so.
    let again = cluster.command(&after.primary, &["restart", "--rolling"])?;
    ensure!(again.contains("nothing is to be restarted"), "{again}");
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.lost.is_empty(), "rows are lost: {:?}", seen.lost);
    Ok(())
}

fn lowered(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { databases: 3, ..Plan::default() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "the primary writes one before it stops on order");
    let before = cluster.reign()?;
    change(&cluster, "max_connections = 40")?;
    let plan = cluster.command(&before.primary, &["restart", "--rolling", "--dry-run"])?;
    ensure!(plan.contains(&format!("1. {} is restarted, the primary", before.primary)), "the plan: {plan}");
    let begun = Stamp::now();
    println!("{}", cluster.command(&before.primary, &["restart", "--rolling", "--yes"])?);
    nothing_waits(&cluster)?;
    ensure!(cluster.reign()? == before, "the primary moved: {:?}", cluster.reign()?);
    for name in cluster.plan.database_names() {
        let has = postgres::sql(cluster.host(&name)?, "show max_connections")?;
        ensure!(has.trim() == "40", "{name} has {has}");
    }
    println!("the primary's restart: no write for {:?}", cluster.writer()?.longest_gap_after(begun)?);
    nothing_failed(&cluster, &[])?;
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "rows are lost: {:?}", seen.lost);
    Ok(())
}

fn one(world: &mut World) -> Result<()> {
    // An outage by order must not look like a crash, which would move the service.
    let mut cluster = Cluster::start(world, Plan { on_crash: "failover", ..Plan::with_witness() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "the primary writes one before it stops on order");
    let reign = cluster.reign()?;
    let standby = cluster.plan.database_names().into_iter().find(|name| *name != reign.primary).context("a standby")?;
    restarted(&cluster, &reign, &standby, &[])?;
    let begun = Stamp::now();
    restarted(&cluster, &reign, &reign.primary, &["--yes"])?;
    println!("the primary's restart: no write for {:?}", cluster.writer()?.longest_gap_after(begun)?);
    for words in [["pause"], ["resume"]] {
        let refused = cluster.regent("w1", &["restart", "--node", &standby])?;
        ensure!(refused.status.success() != (words == ["resume"]), "before {words:?}: {refused:?}");
        cluster.command("w1", &words)?;
    }
    // Its daemon hangs and dies before it has carried the order out: the next one does.
    let before = started(&cluster, &standby)?;
    let daemon = nix::unistd::Pid::from_raw(i32::try_from(cluster.daemon_process(&standby)?)?);
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP)?;
    let mut order = cluster.host("w1")?.start(restart_command(&standby), "restart")?;
    let end = Instant::now() + Duration::from_secs(20);
    while cluster.status_from("w1")?.services[SERVICE].databases[&standby].restart_ordered.is_none() {
        ensure!(Instant::now() < end, "nothing is ordered");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.kill_daemon(&standby)?;
    cluster.start_daemon(&standby)?;
    ensure!(order.wait()?.success(), "the command that waited for it failed");
    ensure!(started(&cluster, &standby)? != before, "{standby} was not restarted");
    ensure!(cluster.reign()? == reign, "the primary moved");
    nothing_failed(&cluster, &[])?;
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "rows are lost: {:?}", seen.lost);
    Ok(())
}

fn restart_command(node: &str) -> std::process::Command {
    let mut command = std::process::Command::new(crate::cluster::regent());
    command.args(["restart", "--node", node, "--config", crate::plan::CONFIG]);
    command
}

/// It is another postmaster afterwards, of the same role, in the same epoch.
fn restarted(cluster: &Cluster, reign: &Reign, node: &str, more: &[&str]) -> Result<()> {
    let before = started(cluster, node)?;
    let words: Vec<&str> = ["restart", "--node", node].into_iter().chain(more.iter().copied()).collect();
    println!("{}", cluster.command("w1", &words)?);
    ensure!(started(cluster, node)? != before, "{node} runs on as before");
    ensure!(cluster.reign()? == *reign, "the primary or its epoch is another one: {:?}", cluster.reign()?);
    nothing_failed(cluster, &[])
}
