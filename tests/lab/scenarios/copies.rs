//! Whose data win, where a person decides it: an older copy in the place of the primary's directory, and a standby that is to
//! be copied anew.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::{Service, Status};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "a_service_that_commands_make_and_copy",
        shows: "bootstrap_command makes it on a timeline of its own, clone_command its standbys, and it survives a power cut",
        within: LONG,
        alone: false,
        run: by_commands,
    },
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

/// A restore of something, by a program that knows neither regent nor certificates.
const MADE: &str = r#"bootstrap = "command"
bootstrap_command = ["/bin/sh", "-c", 'exec "$REGENT_BIN_DIR/initdb" -D "$1" -k -U postgres >&2', "make", "{data_dir}"]
start_timeout = "2m""#;
/// A copy of the primary as its own standbys reach it.
const COPIED: &str = r#"clone_command = ["/bin/sh", "-c",
    'test -z "$REGENT_TABLESPACES" && exec "$REGENT_BIN_DIR/pg_basebackup" -D "$1" -d "$2" -c fast', "copy", "{data_dir}", "{conninfo}"]"#;

fn by_commands(world: &mut World) -> Result<()> {
    let plan = Plan { bootstrap: MADE, database: COPIED, ..Plan::default() };
    let mut cluster = Cluster::start(world, plan)?;
    let before = cluster.reign()?;
    let timeline = "select min(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))";
    let began = postgres::sql(cluster.host(&before.primary)?, timeline)?;
    ensure!(began.trim() == "00000002", "the first primary writes on {began}");
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(40))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    let goes_on = postgres::sql(cluster.host(&after.primary)?, timeline)?;
    ensure!(goes_on.trim() == "00000003", "the second primary writes on {goes_on}");
    cluster.wait_complete(BACK)?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn stop_database(cluster: &Cluster, node: &str) -> Result<()> {
    let (host, bin) = (cluster.host(node)?, postgres::bin_dir()?);
    let (ctl, data) = (format!("{}/pg_ctl", bin.display()), postgres::data_dir());
    let stop = format!("{ctl} -D {data} stop -m fast -w -t 60 || ! {ctl} -D {data} status");
    host.run("runuser", &["-u", "postgres", "--", "sh", "-c", &stop]).map(drop)
}

/// What a scenario is about: a cluster without clients, and its primary with a table of one row.
fn told(world: &mut World) -> Result<Cluster<'_>> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.wait_complete(BACK)?;
    cluster.stop_writer()?;
    postgres::sql(cluster.host(&cluster.reign()?.primary)?, "create table told as select 1 as word")?;
    Ok(cluster)
}

fn a_standby(cluster: &Cluster, primary: &str) -> Result<String> {
    cluster.plan.database_names().into_iter().find(|name| name != primary).context("there is no standby")
}

/// A person at work on a host: regent and the database are stopped.
fn stop(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.stop_daemon(node, Duration::from_secs(30))?;
    stop_database(cluster, node)
}

/// In a pause the copy takes the directory's place.
fn put_in_place(cluster: &Cluster, node: &str) -> Result<()> {
    let (host, data) = (cluster.host(node)?, postgres::data_dir());
    cluster.order(node, &["pause"])?;
    stop(cluster, node)?;
    host.run("mv", &[&data, &format!("{data}.newer")])?;
    host.run("mv", &[&format!("{data}.copy"), &data])?;
    cluster.start_daemon(node)?;
    let stopped = |status: &Status| {
        let database = status.services.get(SERVICE).and_then(|s| s.databases.get(node));
        database.is_some_and(|database| database.state == "stopped")
    };
    cluster.wait("the copy to be seen", BACK, stopped).map(drop)
}

/// The node is the primary of a later epoch, everybody streams from it, and has so many rows of the table.
pub(super) fn wins(cluster: &Cluster, node: &str, before: u64, (table, rows): (&str, &str)) -> Result<()> {
    cluster.wait("the copy as the primary", BACK, |status| {
        let service = status.services.get(SERVICE);
        let leads = |s: &Service| s.phase == "installed" && s.primary.as_deref() == Some(node) && s.epoch > before;
        service.is_some_and(leads)
    })?;
    cluster.wait_complete(BACK)?;
    for name in cluster.plan.database_names() {
        let found = postgres::sql(cluster.host(&name)?, &format!("select count(*) from {table}"))?;
        ensure!(found.trim() == rows, "{name} has {} rows of {rows}", found.trim());
    }
    let report = cluster.explain(None)?;
    let said = report.steps.iter().any(|step| step.what.contains("lets the copy on"));
    ensure!(said, "the incident is silent: {}", report.text());
    Ok(())
}

fn accepted(world: &mut World) -> Result<()> {
    let cluster = told(world)?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "it moves to another node and back");
    let primary = cluster.reign()?.primary;
    let (host, data) = (cluster.host(&primary)?.clone(), postgres::data_dir());
    let other = a_standby(&cluster, &primary)?;
    // A cold copy; another node takes over meanwhile, and gives back.
    cluster.order(&primary, &["pause"])?;
    stop(&cluster, &primary)?;
    host.run("cp", &["-a", &data, &format!("{data}.copy")])?;
    cluster.start_daemon(&primary)?;
    cluster.order(&other, &["resume"])?;
    cluster.wait_complete(BACK)?;
    let moved = cluster.reign()?;
    if moved.primary != primary {
        cluster.wait_movable(&moved, &["switchover", "--to", &primary])?;
        cluster.order(&other, &["switchover", "--to", &primary])?;
        cluster.wait_complete(BACK)?;
    }
    let before = cluster.reign()?;
    postgres::sql(&host, "insert into told select 2")?;
    put_in_place(&cluster, &primary)?;
    let plan = cluster.order(&other, &["accept", &primary, "--dry-run"])?;
    println!("{}", plan.trim());
    ensure!(plan.contains("given up:") && plan.contains("regent resume"), "{plan}");
    println!("{}", cluster.order(&other, &["accept", &primary, "--yes"])?.trim());
    cluster.order(&other, &["resume"])?;
    wins(&cluster, &primary, before.epoch, ("told", "1"))
}

fn accepted_on_a_standby(world: &mut World) -> Result<()> {
    let cluster = told(world)?;
    let before = cluster.reign()?;
    let standby = a_standby(&cluster, &before.primary)?;
    let (host, primary) = (cluster.host(&standby)?.clone(), cluster.host(&before.primary)?.clone());
    let data = postgres::data_dir();
    postgres::wait_for(&host, "select from told", BACK)?;
    stop(&cluster, &standby)?;
    host.run("cp", &["-a", &data, &format!("{data}.copy")])?;
    host.run("rm", &[&format!("{data}.copy/standby.signal")])?;
    cluster.start_daemon(&standby)?;
    cluster.wait_complete(BACK)?;
    postgres::sql(&primary, "insert into told select 2")?;
    put_in_place(&cluster, &standby)?;
    println!("{}", cluster.order(&standby, &["accept", &standby, "--yes"])?.trim());
    let rows = postgres::sql(&primary, "select count(*) from told")?;
    ensure!(rows.trim() == "2", "the primary did not go on in the pause");
    cluster.order(&standby, &["resume"])?;
    wins(&cluster, &standby, before.epoch, ("told", "1"))
}

fn copied_anew(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.wait_complete(BACK)?;
    let standby = a_standby(&cluster, &before.primary)?;
    let host = cluster.host(&standby)?.clone();
    let data = postgres::data_dir();
    let inode = || host.run("stat", &["-c", "%i", &data]);
    cluster.world.pace.allow(Act::Copy, 2, "it is copied twice, one right after the other");
    let first = inode()?;
    let said = cluster.regent(&standby, &["reinit", &standby, "--wait", "--yes"])?;
    let told = String::from_utf8_lossy(&said.stderr);
    println!("{told}{}", String::from_utf8_lossy(&said.stdout));
    ensure!(said.status.success() && told.contains("is copied and streams"), "{}: {told}", said.status);
    ensure!(inode()? != first, "{standby} was not copied anew");
    cluster.wait_complete(BACK)?;
    let refused = cluster.regent(&standby, &["reinit", &before.primary, "--yes"])?;
    ensure!(refused.status.code() == Some(3), "the primary was to be copied anew: {}", refused.status);
    // Another cluster's directory.
    cluster.order(&standby, &["pause"])?;
    stop(&cluster, &standby)?;
    host.run("mv", &[&data, &format!("{data}.right")])?;
    let bin = postgres::bin_dir()?;
    let make = format!("{}/initdb -D {data} > /dev/null", bin.display());
    host.run("runuser", &["-u", "postgres", "--", "sh", "-c", &make])?;
    cluster.start_daemon(&standby)?;
    cluster.order(&before.primary, &["resume"])?;
    let until = Instant::now() + BACK;
    let says =
        || Ok::<_, anyhow::Error>(String::from_utf8_lossy(&cluster.regent(&standby, &["status"])?.stdout).into_owned());
    while !says()?.contains("regent reinit") {
        ensure!(Instant::now() < until, "the status does not name the ways out: {}", says()?);
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.order(&before.primary, &["reinit", &standby, "--yes"])?;
    cluster.wait_complete(BACK)?;
    cluster.judge(&[&before.primary]).map(drop)
}
