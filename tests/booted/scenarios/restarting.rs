//! The daemon ends, by a person, by systemd or by itself, and systemd starts it again: the database goes on.
//!
//! Not here: a host that ends (`rebooting.rs`).

use crate::cluster::Cluster;
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

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "restarted_ten_times",
        shows: "systemctl restart regent, ten times in a row on every host: the same postmasters, nobody is fenced",
        within: LONG,
        alone: false,
        run: ten_times,
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
    let (reign, postmasters, start) = (cluster.reign()?, cluster.postmasters()?, Stamp::now());
    for host in cluster.hosts() {
        for _ in 0..10 {
            let before = host.daemon()?;
            host.run("systemctl", &["restart", "regent"])?;
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
    cluster.judge_still(&reign)
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
