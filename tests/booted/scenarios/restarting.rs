//! The daemon ends, by a person, by systemd or by itself, and systemd starts it again: the database goes on.
//!
//! Not here: a host that ends (`rebooting.rs`).

use crate::cluster::Cluster;
use crate::following::OPERATIONS;
use crate::harness::Scenario;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
/// Well within a lease of the profile `lan`, 8 s: the next daemon must be there to take it up.
const AGAIN_WITHIN: Duration = Duration::from_secs(20);
/// For how long writes may pause while nothing moves.
const PAUSE: Duration = Duration::from_secs(1);

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "restarted_ten_times",
        shows: "systemctl restart regent, ten times in a row on every host: the same postmasters, nobody is fenced",
        within: LONG,
        alone: false,
        run: ten_times,
    },
    Scenario {
        name: "restarted_ten_times_in_a_pause",
        shows: "the same in a pause, and after it",
        within: LONG,
        alone: false,
        run: ten_times_in_a_pause,
    },
    Scenario {
        name: "upgraded",
        shows: "regent is installed anew on one host after the other and restarted; the primary is moved once, by a switchover",
        within: LONG,
        alone: false,
        run: upgraded,
    },
    Scenario {
        name: "daemon_that_hangs",
        shows: "WatchdogSec: systemd kills a daemon that stands still and starts the next; the database goes on",
        within: LONG,
        alone: false,
        run: hangs,
    },
    Scenario {
        name: "daemon_that_crashes",
        shows: "Restart=: after SIGKILL and after an abort systemd starts the next; the database goes on",
        within: LONG,
        alone: false,
        run: crashes,
    },
];

fn ten_times(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let reign = cluster.reign()?;
    restart_everywhere(&cluster)?;
    cluster.judge_still(&reign)
}

fn ten_times_in_a_pause(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let (reign, postmasters) = (cluster.reign()?, cluster.postmasters()?);
    cluster.order(&reign.primary, &["pause", "--reason", "restarts", "--wait"])?;
    restart_everywhere(&cluster)?;
    let phase = cluster.service()?.phase;
    ensure!(phase == "paused", "in the pause the service is {phase}");
    cluster.order(&reign.primary, &["resume"])?;
    cluster.judge_still(&reign)?;
    ensure!(cluster.postmasters()? == postmasters, "after the pause other postmasters run");
    Ok(())
}

/// Ten times in a row on every host: the same servers, and writes go on.
fn restart_everywhere(cluster: &Cluster) -> Result<()> {
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    for host in cluster.hosts() {
        for _ in 0..10 {
            let before = host.daemon()?;
            host.follow(&OPERATIONS.block("Restart regent", 0)?)?;
            ensure!(host.daemon()? != before, "the daemon on {} was not restarted", host.name);
        }
        ensure!(host.restarts()? == 0, "systemd had to start regent again on {}", host.name);
        ensure!(cluster.postmasters()? == postmasters, "after ten restarts on {} another postmaster runs", host.name);
        println!(
            "{}: ten restarts, the longest gap so far {:?}",
            host.name,
            cluster.writer()?.longest_gap_after(start)?
        );
    }
    let gap = cluster.writer()?.longest_gap_after(start)?;
    ensure!(gap < PAUSE, "writes paused for {gap:?}");
    Ok(())
}

/// As the page on upgrades says: witnesses and standbys first, the primary's host last and after a switchover.
fn upgraded(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let (before, start) = (cluster.reign()?, Stamp::now());
    let mut names = cluster.plan.node_names();
    names.retain(|name| *name != before.primary);
    names.reverse();
    for name in &names {
        upgrade(&cluster, name)?;
    }
    cluster.wait_movable(&before, &["switchover"])?;
    cluster.order(&before.primary, &["switchover"])?;
    upgrade(&cluster, &before.primary)?;
    let after = cluster.reign()?;
    println!("the longest gap {:?}, of the switchover", cluster.writer()?.longest_gap_after(start)?);
    ensure!(after.primary != before.primary && after.epoch == before.epoch + 1, "after {before:?} came {after:?}");
    cluster.judge_moves(&[&before.primary, &after.primary])
}

/// The program and its unit are other files afterwards, as a package leaves them.
fn upgrade(cluster: &Cluster, name: &str) -> Result<()> {
    let host = cluster.host(name)?;
    for file in ["/usr/bin/regent", "/usr/lib/systemd/system/regent.service"] {
        host.shell(&format!("cp -p {file} {file}.new && mv {file}.new {file}"))?;
    }
    host.follow(&OPERATIONS.block("Upgrading regent", 0)?[..2])?;
    cluster.wait_complete(Duration::from_secs(60)).map(drop)
}

fn hangs(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let (reign, postmasters, start) = (cluster.reign()?, cluster.postmasters()?, Stamp::now());
    for host in cluster.hosts() {
        let (before, since) = (host.restarts()?, Stamp::now());
        host.signal_daemon("STOP")?;
        cluster.wait_restarted(&host.name, before, AGAIN_WITHIN)?;
        println!("{}: a daemon that stood still was replaced after {:?}", host.name, Stamp::now().since(since));
        let journal =
            host.run("journalctl", &["--boot", "--output", "cat", "--no-pager", "--identifier", "systemd"])?;
        ensure!(journal.contains("regent.service: Watchdog timeout"), "not by its watchdog: {journal}");
        cluster.wait_complete(Duration::from_secs(30))?;
    }
    let now = cluster.postmasters()?;
    ensure!(now == postmasters, "other postmasters run: {now:?} after {postmasters:?}");
    let gap = cluster.writer()?.longest_gap_after(start)?;
    println!("the longest gap {gap:?}");
    ensure!(gap < PAUSE, "writes paused for {gap:?}");
    cluster.judge_still(&reign)
}

fn crashes(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let (reign, postmasters, start) = (cluster.reign()?, cluster.postmasters()?, Stamp::now());
    for signal in ["KILL", "ABRT"] {
        for host in cluster.hosts() {
            let (before, since) = (host.restarts()?, Stamp::now());
            host.signal_daemon(signal)?;
            cluster.wait_restarted(&host.name, before, AGAIN_WITHIN)?;
            println!("{}: {signal}, the next daemon was up after {:?}", host.name, Stamp::now().since(since));
            cluster.wait_complete(Duration::from_secs(30))?;
        }
    }
    let now = cluster.postmasters()?;
    ensure!(now == postmasters, "other postmasters run: {now:?} after {postmasters:?}");
    let gap = cluster.writer()?.longest_gap_after(start)?;
    println!("the longest gap {gap:?}");
    ensure!(gap < PAUSE, "writes paused for {gap:?}");
    cluster.judge_still(&reign)
}
