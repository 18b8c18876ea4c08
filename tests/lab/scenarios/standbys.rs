//! Standbys with a part of their own: one that somebody works on, one that never leads, one that follows another.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);
const BACK: Duration = Duration::from_secs(90);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "a_standby_in_maintenance",
        shows: "its database stays down, another one takes over, and it returns when its time is over",
        within: LONG,
        alone: false,
        run: maintenance,
    },
    Scenario {
        name: "a_standby_that_never_leads_and_one_that_follows_it",
        shows: "power cut: the one behind it takes over, and everybody follows",
        within: LONG,
        alone: false,
        run: roles,
    },
];

fn state_of(status: &Status, node: &str) -> String {
    let databases = status.services.get(SERVICE).map(|service| &service.databases);
    databases.and_then(|all| all.get(node)).map(|database| database.state.clone()).unwrap_or_default()
}

fn maintenance(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    ensure!(before.primary == "db1", "{} is primary", before.primary);
    let refused = |node: &str, words: &[&str]| -> Result<String> {
        let output = cluster.regent(node, words)?;
        ensure!(output.status.code() == Some(3), "{words:?} was not refused: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let why = refused("db1", &["maintenance", "db1"])?;
    ensure!(why.contains("move it away first"), "{why}");
    cluster.command("db3", &["maintenance", "db2", "--for", "40s"])?;
    let began = Stamp::now();
    let why = refused("db2", &["maintenance", "db3"])?;
    ensure!(why.contains("db3 alone could take over orders from db1"), "{why}");
    let host = cluster.host("db2")?.clone();
    let process = postgres::postmaster_of(&host, postgres::FOLDERS[0])?;
    host.run("kill", &["-INT", &process.to_string()])?;
    cluster.wait("its database to be down", Duration::from_secs(20), |status| state_of(status, "db2") == "stopped")?;
    let fault = Stamp::now();
    cluster.host("db1")?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, BACK)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(after.primary == "db3", "{} took over", after.primary);
    let status = cluster.status()?;
    let left = Stamp::now().since(began);
    ensure!(left > Duration::from_secs(40) || state_of(&status, "db2") == "stopped", "its database was started");
    let text = String::from_utf8_lossy(&cluster.regent("db3", &["status"])?.stdout).into_owned();
    ensure!(left > Duration::from_secs(40) || text.contains("in maintenance by "), "{text}");
    cluster.wait_complete(BACK)?;
    let time = Stamp::now().since(began);
    println!("everything replicates {time:?} after the maintenance of 40 s began");
    ensure!(time >= Duration::from_secs(40), "it did not last");
    cluster.judge(&["db1", "db3"]).map(drop)
}

/// Their tables come after the last one of the service.
const PARTS: &str = "[service.orders.node.db2]\nmay_lead = false\nparameters = { work_mem = \"5MB\" }\n\
     [service.orders.node.db3]\nfollow = \"db2\"";

fn roles(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { parameters: PARTS, ..Plan::default() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "a node is promoted and gives its service up again within a minute");
    let before = cluster.reign()?;
    ensure!(before.primary == "db1", "{} is primary", before.primary);
    let from = |status: &Status, node: &str| {
        status.services.get(SERVICE).and_then(|service| service.databases.get(node)?.streams_from.clone())
    };
    let is_fed = |status: &Status| from(status, "db3").as_deref() == Some("db2");
    let status = cluster.wait("db3 to be fed by db2, and ready", BACK, |status| {
        is_fed(status) && status.services.get(SERVICE).is_some_and(|service| service.readiness.failover_ready)
    })?;
    ensure!(from(&status, "db2").as_deref() == Some("db1"), "{status:#?}");
    let refused = cluster.regent("db1", &["switchover", "--to", "db2", "--dry-run"])?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure!(refused.status.code() == Some(3) && said.contains("it does not lead"), "{}: {said}", refused.status);
    for (node, memory) in [("db1", "4MB"), ("db2", "5MB"), ("db3", "4MB")] {
        let shown = postgres::sql_in(cluster.host(node)?, postgres::FOLDERS[0], "show work_mem")?;
        ensure!(shown.trim() == memory, "work_mem of {node} is {shown}");
    }
    let fault = Stamp::now();
    cluster.host("db1")?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, BACK)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(after.primary == "db3", "{} took over", after.primary);
    let status = cluster.wait_complete(BACK)?;
    from(&status, "db2").context("db2 streams from nobody")?;
    // The one that is fed by another is moved away from in order, and fed by it again.
    cluster.wait_movable(&after, &["switchover", "--to", "db1"])?;
    cluster.command("db3", &["switchover", "--to", "db1"])?;
    cluster.wait("db3 to be fed by db2 again", BACK, is_fed)?;
    cluster.wait_complete(BACK)?;
    cluster.judge(&["db1", "db3", "db1"]).map(drop)
}
