//! Daemons that are asked to stop, and hosts that go down in order: what they hold is handed over, or waits for them. And
//! daemons that are restarted instead, again and again: nothing moves.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Host;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::restart::Ending;
use crate::scenarios::restarts::{LEASE, nothing_moved};
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(60);
/// A clean stop of a small database, and a word to the others.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
const RESTARTS: usize = 10;

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "the_primarys_daemon_is_stopped",
        shows: "SIGTERM with ready standbys: the gap, nothing lost, nobody fenced, its database stopped cleanly",
        within: LONG,
        alone: false,
        run: handed_over,
    },
    Scenario {
        name: "the_only_complete_node_is_stopped",
        shows: "SIGTERM without a ready standby: the service waits for it, nobody is fenced, nothing is lost",
        within: LONG,
        alone: false,
        run: waited_for,
    },
    Scenario {
        name: "restarted_ten_times_in_a_row",
        shows: "SIGINT, as the unit's restart sends it: nothing moves, the longest gap",
        within: LONG,
        alone: false,
        run: restarted,
    },
    Scenario {
        name: "stopped_in_a_pause",
        shows: "SIGTERM leaves the database running and says so; a host that goes down closes it and keeps the epoch",
        within: LONG,
        alone: false,
        run: in_a_pause,
    },
    Scenario {
        name: "every_daemon_is_stopped",
        shows: "all hosts go down in order, and come back: nothing is lost, nobody is fenced",
        within: LONG,
        alone: false,
        run: everybody,
    },
];

/// A service manager that says of its host that it goes down, and answers nothing else. What a host has there, its daemon
/// finds first.
fn goes_down(host: &Host) -> Result<()> {
    let place = host.disk().join("bin");
    std::fs::create_dir_all(&place)?;
    let program = place.join("systemctl");
    std::fs::write(&program, "#!/bin/sh\necho Job=17\necho ActiveState=inactive\n")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn stays_up(host: &Host) -> Result<()> {
    std::fs::remove_file(host.disk().join("bin/systemctl")).context("it was to go down")
}

/// What its control file says of a database that is closed.
fn closed_as(host: &Host) -> Result<String> {
    let (bin, data) = (postgres::bin_dir()?, postgres::data_dir());
    let control = host.run("sh", &["-c", &format!("LC_ALL=C {}/pg_controldata -D {data}", bin.display())])?;
    let line = control.lines().find_map(|line| line.strip_prefix("Database cluster state:"));
    Ok(line.context("pg_controldata says how it is")?.trim().to_owned())
}

fn nobody_fenced(cluster: &Cluster) -> Result<()> {
    let offs = cluster.power_offs();
    ensure!(offs.values().all(|offs| *offs == 0), "somebody was switched off: {offs:?}");
    ensure!(cluster.status()?.fences.is_empty(), "a fence was opened");
    Ok(())
}

fn log_has(host: &Host, words: &str) -> Result<()> {
    let log = std::fs::read_to_string(host.log("regent"))?;
    ensure!(log.contains(words), "{} did not say {words:?}", host.name);
    Ok(())
}

fn handed_over(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.wait_complete(BACK)?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let start = Stamp::now();
    cluster.stop_daemon(&before.primary, LEAVES_WITHIN)?;
    println!("{} left after {:?}", before.primary, Stamp::now().since(start));
    ensure!(closed_as(&host)? == "shut down", "its database is {}", closed_as(&host)?);
    let (after, _) = cluster.wait_takeover(&before, start, BACK)?;
    let gap = cluster.writer()?.longest_gap_after(start)?;
    println!("handed over from {} to {}: writes paused for {gap:?}", before.primary, after.primary);
    ensure!(gap < Duration::from_secs(5), "writes paused for {gap:?}");
    let told = cluster.explain(None)?.text();
    ensure!(told.contains("it leaves: its daemon was asked to stop"), "the incident does not say why: {told}");
    // Long after its silence would have been a reason to.
    std::thread::sleep(LEASE * 2);
    nobody_fenced(&cluster)?;
    let shown = cluster.order(&after.primary, &["status"]).or_else(|_| {
        let output = cluster.regent(&after.primary, &["status"])?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })?;
    ensure!(shown.contains("left in order"), "status does not say where {} is: {shown}", before.primary);
    cluster.start_daemon(&before.primary)?;
    cluster.wait_complete(BACK)?;
    nobody_fenced(&cluster)?;
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.lost.is_empty(), "a hand-over lost acknowledged writes: {:?}", seen.lost);
    Ok(())
}

fn waited_for(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { databases: 2, witnesses: 3, ..Plan::default() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "it leaves, and is primary again within a minute");
    cluster.wait_complete(BACK)?;
    let before = cluster.reign()?;
    let standby = cluster.plan.database_names().into_iter().find(|name| *name != before.primary);
    let standby = standby.context("there is a standby")?;
    cluster.stop_daemon(&standby, LEAVES_WITHIN)?;
    std::thread::sleep(Duration::from_secs(3));
    cluster.stop_daemon(&before.primary, LEAVES_WITHIN)?;
    // The one that lacks what was written since is back first.
    cluster.start_daemon(&standby)?;
    let waits = |status: &Status| {
        let service = status.services.get(SERVICE);
        service.is_some_and(|s| s.what_now.iter().any(|line| line.contains("left in order")))
    };
    cluster.wait("the service to wait for the node that left", BACK, waits)?;
    std::thread::sleep(LEASE * 2);
    let service = cluster.service()?;
    ensure!(service.epoch == before.epoch, "{:?} took over, and lacks something", service.primary);
    nobody_fenced(&cluster)?;
    cluster.start_daemon(&before.primary)?;
    cluster.wait_complete(BACK)?;
    ensure!(cluster.reign()?.primary == before.primary, "another one is primary");
    nobody_fenced(&cluster)?;
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although everybody waited: {:?}", seen.lost);
    Ok(())
}

fn restarted(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan::default())?;
    cluster.wait_complete(BACK)?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    for number in 1..=RESTARTS {
        cluster.restart_daemon(&reign.primary, Ending::InOrder)?;
        ensure!(cluster.postmasters()? == postmasters, "restart {number}: another postmaster runs");
    }
    nobody_fenced(&cluster)?;
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}

fn in_a_pause(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "its host goes down in the pause, and it is primary again after it");
    cluster.wait_complete(BACK)?;
    let reign = cluster.reign()?;
    let host = cluster.host(&reign.primary)?.clone();
    let other = cluster.plan.database_names().into_iter().find(|name| *name != reign.primary).context("a standby")?;
    cluster.order(&other, &["pause"])?;
    let postmasters = cluster.postmasters()?;
    for _ in 0..RESTARTS {
        cluster.restart_daemon(&reign.primary, Ending::InOrder)?;
    }
    ensure!(cluster.postmasters()? == postmasters, "a restart in a pause started another postmaster");
    cluster.stop_daemon(&reign.primary, LEAVES_WITHIN)?;
    log_has(&host, "its database goes on: it is paused")?;
    std::thread::sleep(LEASE * 2);
    ensure!(cluster.postmasters()? == postmasters, "its database did not go on");
    cluster.start_daemon(&reign.primary)?;
    std::thread::sleep(LEASE);
    ensure!(cluster.postmasters()? == postmasters, "its database did not go on when the daemon was back");
    nobody_fenced(&cluster)?;
    goes_down(&host)?;
    cluster.stop_daemon(&reign.primary, LEAVES_WITHIN)?;
    ensure!(closed_as(&host)? == "shut down", "its database is {}", closed_as(&host)?);
    ensure!(cluster.service()?.epoch == reign.epoch, "another epoch began in the pause");
    host.power_cut()?;
    stays_up(&host)?;
    host.power_on()?;
    std::thread::sleep(LEASE);
    nobody_fenced(&cluster)?;
    cluster.order(&other, &["resume"])?;
    cluster.wait_complete(BACK)?;
    ensure!(cluster.reign()?.primary == reign.primary, "{} is not primary any more", reign.primary);
    nobody_fenced(&cluster)?;
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost in a pause: {:?}", seen.lost);
    Ok(())
}

fn everybody(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.wait_complete(BACK)?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "everybody leaves, and one is primary again within a minute");
    let before = cluster.reign()?;
    let names = cluster.plan.node_names();
    let start = Stamp::now();
    for host in cluster.hosts().iter().filter(|host| names.contains(&host.name)) {
        goes_down(host)?;
    }
    std::thread::scope(|scope| {
        let stop = |name| cluster.stop_daemon(name, LEAVES_WITHIN);
        let all: Vec<_> = names.iter().map(|name| scope.spawn(move || stop(name))).collect();
        all.into_iter().try_for_each(|one| one.join().expect("panics abort"))
    })?;
    println!("everybody left after {:?}", Stamp::now().since(start));
    let host = cluster.host(&before.primary)?;
    ensure!(closed_as(host)? == "shut down", "its database is {}", closed_as(host)?);
    for host in cluster.hosts().iter().filter(|host| names.contains(&host.name)) {
        stays_up(host)?;
        host.power_cut()?;
    }
    for host in cluster.hosts().iter().filter(|host| names.contains(&host.name)) {
        host.power_on()?;
    }
    cluster.wait_complete(BACK)?;
    nobody_fenced(&cluster)?;
    let after = cluster.reign()?;
    println!("{} was primary, {} is", before.primary, after.primary);
    let order = [before.primary.as_str(), after.primary.as_str()];
    let order = if after.primary == before.primary { &order[..1] } else { &order[..] };
    let (seen, _) = cluster.judge(order)?;
    ensure!(seen.lost.is_empty(), "writes were lost although everybody left in order: {:?}", seen.lost);
    Ok(())
}
