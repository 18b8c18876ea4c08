//! Whose data win, where a person decides it: an older copy in the place of the primary's directory, and a standby that is to
//! be copied anew.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::Status;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "an_older_copy_that_a_person_accepts",
        shows: "in a pause an older copy replaces the primary's directory: refused, and the service's data once it is accepted",
        within: LONG,
        alone: false,
        run: accepted,
    },
    Scenario {
        name: "a_copy_on_a_standby_that_a_person_accepts",
        shows: "the same on a standby, which is no standby any more: the primary stops in order for it when the pause ends",
        within: LONG,
        alone: false,
        run: accepted_on_a_standby,
    },
    Scenario {
        name: "a_standby_is_copied_anew_on_order",
        shows: "reinit of a healthy standby, and of one with another cluster's directory: each is a standby again",
        within: LONG,
        alone: false,
        run: copied_anew,
    },
];

fn stop_database(cluster: &Cluster, node: &str) -> Result<()> {
    let (host, bin) = (cluster.host(node)?, postgres::bin_dir()?);
    let (ctl, data) = (format!("{}/pg_ctl", bin.display()), postgres::data_dir());
    let stop = format!("{ctl} -D {data} stop -m fast -w -t 60 || ! {ctl} -D {data} status");
    host.run("runuser", &["-u", "postgres", "--", "sh", "-c", &stop]).map(drop)
}

/// One word to the cluster, once somebody leads it: a daemon that was restarted may have led.
fn said(cluster: &Cluster, node: &str, words: &[&str]) -> Result<String> {
    let until = Instant::now() + BACK;
    loop {
        let output = cluster.regent(node, words)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        ensure!(
            error.contains("no leader is known") && Instant::now() < until,
            "regent {} on {node}: {error}",
            words.join(" ")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn accepted(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.wait_complete(BACK)?;
    cluster.stop_writer()?;
    let primary = before.primary.clone();
    let host = cluster.host(&primary)?.clone();
    let data = postgres::data_dir();
    postgres::sql(&host, "create table told as select 1 as word")?;
    let other = cluster.plan.database_names().into_iter().find(|name| *name != primary).context("another node")?;
    // A cold copy; another node takes over meanwhile, and gives back.
    said(&cluster, &primary, &["pause"])?;
    cluster.stop_daemon(&primary, Duration::from_secs(30))?;
    stop_database(&cluster, &primary)?;
    host.run("cp", &["-a", &data, &format!("{data}.copy")])?;
    cluster.start_daemon(&primary)?;
    said(&cluster, &other, &["resume"])?;
    cluster.wait_complete(BACK)?;
    let moved = cluster.reign()?;
    if moved.primary != primary {
        cluster.wait_movable(&moved, &["switchover", "--to", &primary])?;
        said(&cluster, &other, &["switchover", "--to", &primary])?;
        cluster.wait_complete(BACK)?;
    }
    let before = cluster.reign()?;
    postgres::sql(&host, "insert into told select 2")?;
    // The copy takes the directory's place.
    said(&cluster, &other, &["pause"])?;
    cluster.stop_daemon(&primary, Duration::from_secs(30))?;
    stop_database(&cluster, &primary)?;
    host.run("mv", &[&data, &format!("{data}.newer")])?;
    host.run("mv", &[&format!("{data}.copy"), &data])?;
    cluster.start_daemon(&primary)?;
    let stopped = |status: &Status| {
        let database = status.services.get(SERVICE).and_then(|s| s.databases.get(&primary));
        database.is_some_and(|database| database.state == "stopped")
    };
    cluster.wait("the copy to be seen", BACK, stopped)?;
    let plan = said(&cluster, &other, &["accept", &primary, "--dry-run"])?;
    println!("{}", plan.trim());
    ensure!(plan.contains("given up:") && plan.contains("regent resume"), "{plan}");
    println!("{}", said(&cluster, &other, &["accept", &primary, "--yes"])?.trim());
    said(&cluster, &other, &["resume"])?;
    let later = |status: &Status| {
        status.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    };
    cluster.wait("the copy as the primary", BACK, later)?;
    ensure!(cluster.reign()?.primary == primary, "{} is the primary", cluster.reign()?.primary);
    ensure!(postgres::sql(&host, "select count(*) from told")?.trim() == "1", "not the copy's rows");
    cluster.wait_complete(BACK)?;
    for node in cluster.plan.database_names().iter().filter(|name| **name != primary) {
        let rows = postgres::sql(cluster.host(node)?, "select count(*) from told")?;
        ensure!(rows.trim() == "1", "{node} has {} rows of another history", rows.trim());
    }
    let report = cluster.explain(None)?;
    let steps: Vec<_> = report.steps.iter().map(|step| step.what.as_str()).collect();
    ensure!(steps.iter().any(|step| step.contains("lets the copy on")), "the incident is silent: {steps:?}");
    Ok(())
}

fn accepted_on_a_standby(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.wait_complete(BACK)?;
    cluster.stop_writer()?;
    let standby =
        cluster.plan.database_names().into_iter().find(|name| *name != before.primary).context("a standby")?;
    let (host, primary) = (cluster.host(&standby)?.clone(), cluster.host(&before.primary)?.clone());
    let data = postgres::data_dir();
    postgres::sql(&primary, "create table told as select 1 as word")?;
    postgres::wait_for(&host, "select from told", BACK)?;
    cluster.stop_daemon(&standby, Duration::from_secs(30))?;
    stop_database(&cluster, &standby)?;
    host.run("cp", &["-a", &data, &format!("{data}.copy")])?;
    host.run("rm", &[&format!("{data}.copy/standby.signal")])?;
    cluster.start_daemon(&standby)?;
    cluster.wait_complete(BACK)?;
    postgres::sql(&primary, "insert into told select 2")?;
    said(&cluster, &standby, &["pause"])?;
    cluster.stop_daemon(&standby, Duration::from_secs(30))?;
    stop_database(&cluster, &standby)?;
    host.run("mv", &[&data, &format!("{data}.newer")])?;
    host.run("mv", &[&format!("{data}.copy"), &data])?;
    cluster.start_daemon(&standby)?;
    let stopped = |status: &Status| {
        let database = status.services.get(SERVICE).and_then(|s| s.databases.get(&standby));
        database.is_some_and(|database| database.state == "stopped")
    };
    cluster.wait("the copy to be seen", BACK, stopped)?;
    println!("{}", said(&cluster, &standby, &["accept", &standby, "--yes"])?.trim());
    ensure!(
        postgres::sql(&primary, "select count(*) from told")?.trim() == "2",
        "the primary did not go on in the pause"
    );
    said(&cluster, &standby, &["resume"])?;
    let moved = |status: &Status| {
        let service = status.services.get(SERVICE);
        service.is_some_and(|s| s.phase == "installed" && s.primary.as_ref() == Some(&standby))
    };
    cluster.wait("the copy as the primary", BACK, moved)?;
    cluster.wait_complete(BACK)?;
    for node in cluster.plan.database_names() {
        let rows = postgres::sql(cluster.host(&node)?, "select count(*) from told")?;
        ensure!(rows.trim() == "1", "{node} has {} rows of another history", rows.trim());
    }
    Ok(())
}

fn copied_anew(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.wait_complete(BACK)?;
    let standby =
        cluster.plan.database_names().into_iter().find(|name| *name != before.primary).context("a standby")?;
    let host = cluster.host(&standby)?.clone();
    let data = postgres::data_dir();
    let inode = || host.run("stat", &["-c", "%i", &data]);
    let first = inode()?;
    println!("{}", said(&cluster, &standby, &["reinit", &standby, "--yes"])?.trim());
    let until = Instant::now() + BACK;
    while inode().map_or(true, |now| now == first) {
        ensure!(Instant::now() < until, "{standby} was not copied anew");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.wait_complete(BACK)?;
    let refused = cluster.regent(&standby, &["reinit", &before.primary, "--yes"])?;
    ensure!(refused.status.code() == Some(3), "the primary was to be copied anew: {}", refused.status);
    // Another cluster's directory.
    said(&cluster, &standby, &["pause"])?;
    cluster.stop_daemon(&standby, Duration::from_secs(30))?;
    stop_database(&cluster, &standby)?;
    host.run("mv", &[&data, &format!("{data}.right")])?;
    let bin = postgres::bin_dir()?;
    let make = format!("{}/initdb -D {data} > /dev/null", bin.display());
    host.run("runuser", &["-u", "postgres", "--", "sh", "-c", &make])?;
    cluster.start_daemon(&standby)?;
    said(&cluster, &before.primary, &["resume"])?;
    let until = Instant::now() + BACK;
    let says =
        || Ok::<_, anyhow::Error>(String::from_utf8_lossy(&cluster.regent(&standby, &["status"])?.stdout).into_owned());
    while !says()?.contains("regent reinit") {
        ensure!(Instant::now() < until, "the status does not name the ways out: {}", says()?);
        std::thread::sleep(Duration::from_millis(100));
    }
    said(&cluster, &before.primary, &["reinit", &standby, "--yes"])?;
    cluster.wait_complete(BACK)?;
    cluster.judge(&[&before.primary]).map(drop)
}
