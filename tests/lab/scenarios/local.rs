//! Trouble that is not death: processes killed or stopped on a host that is fine.

use crate::bounds::Bound;
use crate::cluster::{Cluster, RESTART_AFTER};
use crate::harness::{Scenario, skip};
use crate::host::Host;
use crate::pace::Act;
use crate::plan::Plan;
use crate::postgres;
use crate::restart::Ending;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);

pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "postmaster_killed",
        shows: "11: kill -9: restarted in place, no fence",
        within: LONG,
        alone: false,
        run: killed,
    },
    Scenario {
        name: "postmaster_killed_beside_standbys",
        shows: "11: kill -9, on_crash = \"auto\": moved within 2 s to a standby that has all of the WAL, no fence, nothing lost",
        within: LONG,
        alone: true,
        run: killed_beside_standbys,
    },
    Scenario {
        name: "postmaster_stopped",
        shows: "11: SIGSTOP: killed and restarted in place, no fence",
        within: LONG,
        alone: false,
        run: stopped,
    },
    Scenario {
        name: "daemon_killed",
        shows: "11: kill -9, restarted as its unit does it, after 100 ms: no fence",
        within: LONG,
        alone: false,
        run: daemon,
    },
    Scenario {
        name: "killed_ten_times_on_a_busy_machine",
        shows: "11: kill -9 ten times while two cores spin: within its lease nobody suspects it",
        within: LONG,
        alone: true,
        run: busy,
    },
    Scenario {
        name: "daemon_away_for_most_of_its_lease",
        shows: "11: kill -9, back after 4 s: its guard has said goodbye, and nobody suspects it",
        within: LONG,
        alone: false,
        run: away,
    },
    Scenario {
        name: "daemon_restarted",
        shows: "11: a planned restart: no fence, writes go on",
        within: LONG,
        alone: false,
        run: restart,
    },
    Scenario {
        name: "threads_that_the_loop_waits_for",
        shows: "11: the log's writer, the shared disk's thread and systemd's are as real-time as the daemon: load is not death",
        within: LONG,
        alone: false,
        run: threads,
    },
];

/// Breaks something on the primary's host; then writes must be served there again, and nothing else may have moved.
fn on_primary(world: &mut World, act: impl Fn(&Cluster, &str) -> Result<()>, longest: Duration) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    act(&cluster, &before.primary)?;
    // Sent after the act and acknowledged: served again, or still.
    cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(60))?;
    std::thread::sleep(Duration::from_secs(10));
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    println!("writes paused for {gap:?}");
    ensure!(gap <= longest, "writes paused for {gap:?}, expected at most {longest:?}");
    cluster.holds(gap, Bound::Started)?;
    let status = cluster.status()?;
    ensure!(status.fences.is_empty(), "there is a fence: {:?}", status.fences);
    for name in cluster.plan.database_names() {
        ensure!(cluster.device("ipmi", &name)?.offs() == 0, "the device of {name} was told to switch off");
    }
    ensure!(cluster.reign()?.primary == before.primary, "the primary moved to {}", cluster.reign()?.primary);
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost on a disk that was never away: {:?}", seen.lost);
    Ok(())
}

fn killed(world: &mut World) -> Result<()> {
    on_primary(world, |c, node| postgres::signal_postmaster(c.host(node)?, "KILL"), Duration::from_secs(20))
}

/// Every standby of it has received all of its WAL.
fn everything_is_received(host: &Host) -> Result<bool> {
    let question = "select count(*) from pg_stat_replication where flush_lsn >= pg_current_wal_insert_lsn()";
    Ok(postgres::sql(host, question)?.trim() == "2")
}

/// The writer stands still until the standbys have everything, and goes on when the postmaster is dead. Regent's own probe
/// may write at that moment: then it recovers in place, and the postmaster dies once more. Nothing is lost either way.
fn killed_beside_standbys(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { on_crash: "auto", probers: false, ..Plan::default() })?;
    let mut gap = None;
    for _ in 0..3 {
        let before = cluster.reign()?;
        let host = cluster.host(&before.primary)?.clone();
        cluster.writer()?.stand_still(true)?;
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !everything_is_received(&host)? {
            ensure!(std::time::Instant::now() < end, "the standbys do not receive everything");
            std::thread::sleep(Duration::from_millis(5));
        }
        let fault = Stamp::now();
        postgres::signal_postmaster(&host, "KILL")?;
        cluster.writer()?.stand_still(false)?;
        let ack = cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(60))?;
        let after = cluster.reign()?;
        if after.primary != before.primary {
            gap = Some(ack.ack.since(fault));
            println!("{} took over after {gap:?}", after.primary);
            break;
        }
        println!("it recovered in place");
        cluster.world.pace.allow(Act::Checkpoint, 3, "each crash ends in an epoch, here on the same node");
        cluster.wait_complete(Duration::from_secs(60))?;
    }
    let gap = gap.context("no standby ever had all of it")?;
    ensure!(gap <= Duration::from_secs(2), "writes paused for {gap:?}");
    let status = cluster.wait_complete(Duration::from_secs(60))?;
    ensure!(status.fences.is_empty(), "there is a fence: {:?}", status.fences);
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "acknowledged writes were lost: {:?}", seen.lost);
    Ok(())
}

fn stopped(world: &mut World) -> Result<()> {
    // Sessions that are there go on under a stopped postmaster; new ones do not. It must have been replaced.
    on_primary(
        world,
        |cluster, node| {
            let host = cluster.host(node)?;
            let before = postgres::postmaster(host)?;
            postgres::signal_postmaster(host, "STOP")?;
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while !postgres::postmaster(host).is_ok_and(|now| now != before) {
                ensure!(std::time::Instant::now() < end, "the stopped postmaster was not replaced");
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        },
        Duration::from_secs(40),
    )
}

fn daemon(world: &mut World) -> Result<()> {
    on_primary(
        world,
        |cluster, node| {
            cluster.kill_daemon(node)?;
            std::thread::sleep(RESTART_AFTER);
            cluster.start_daemon(node)
        },
        Duration::from_secs(1),
    )
}

/// Processes that do nothing but spin, until this is dropped.
struct Spinning(Vec<std::process::Child>);

impl Spinning {
    fn start(count: usize) -> Result<Spinning> {
        let one = || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Ok(Spinning((0..count).map(|_| one()).collect::<Result<_, _>>()?))
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn busy(world: &mut World) -> Result<()> {
    on_primary(
        world,
        |cluster, node| {
            let _spinning = Spinning::start(2)?;
            for _ in 0..10 {
                cluster.restart_daemon(node, Ending::Killed)?;
            }
            nobody_is_suspected(cluster)
        },
        Duration::from_secs(2),
    )
}

fn away(world: &mut World) -> Result<()> {
    on_primary(
        world,
        |cluster, node| {
            let joins = cluster.joins(node)?;
            cluster.kill_daemon(node)?;
            std::thread::sleep(Duration::from_secs(4));
            cluster.start_daemon(node)?;
            cluster.wait_joined(node, joins)?;
            nobody_is_suspected(cluster)
        },
        Duration::from_secs(1),
    )
}

/// No leader's journal has such a word so far.
fn nobody_is_suspected(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let log = fs::read_to_string(host.log("regent"))?;
        let word = log.lines().find(|line| line.contains("is suspected by"));
        ensure!(word.is_none(), "on {}: {word:?}", host.name);
    }
    Ok(())
}

fn restart(world: &mut World) -> Result<()> {
    on_primary(
        world,
        |cluster, node| {
            let before = cluster.daemon_process(node)?;
            cluster.end_daemon(node, Ending::InOrder)?;
            cluster.start_daemon(node)?;
            ensure!(cluster.daemon_process(node)? != before, "the daemon is the old one");
            Ok(())
        },
        Duration::from_secs(1),
    )
}

/// Policy and priority of each thread of a process, by the thread's name (proc(5), `stat`).
fn scheduling(process: u32) -> Result<BTreeMap<String, (u32, u32)>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (before, after) = stat.rsplit_once(')').context("stat has a name in parentheses")?;
        let name = before.split_once('(').context("stat has a name in parentheses")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // Counted from the state, the third field.
        let field = |number: usize| fields.get(number - 3).context("a short stat")?.parse().context("a number");
        threads.insert(name.to_owned(), (field(41)?, field(40)?));
    }
    Ok(threads)
}

fn threads(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    for node in cluster.plan.node_names() {
        let threads = scheduling(cluster.daemon_process(&node)?)?;
        let own = *threads.get("regent").context("the daemon has a first thread")?;
        if own.0 != libc::SCHED_RR as u32 {
            return skip("no real-time scheduling is permitted here");
        }
        for name in ["raft-log", "regent-disk", "supervisor"] {
            let found = threads.get(name).with_context(|| format!("{node} has no thread {name}: {threads:?}"))?;
            ensure!(*found == own, "{name} on {node} has policy and priority {found:?}, the loop {own:?}");
        }
    }
    cluster.judge(&[&reign.primary]).map(drop)
}
