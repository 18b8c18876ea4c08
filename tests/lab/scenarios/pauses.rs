//! Somebody works on databases of a paused service: regent looks on, whatever is stopped, moved away or killed there, and
//! takes everything up when the pause ends.

use super::restarts::LEASE;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(90);
/// Longer than a database may be silent outside a pause.
const SILENT: Duration = Duration::from_secs(8);

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "somebody_works_in_a_pause",
    shows: "databases that are stopped, frozen, moved away and opened in a pause, and a daemon that restarts in it",
    within: LONG,
    alone: false,
    run: at_work,
}];

fn state_of(status: &Status, node: &str) -> String {
    let databases = status.services.get(SERVICE).map(|service| &service.databases);
    databases.and_then(|all| all.get(node)).map(|database| database.state.clone()).unwrap_or_default()
}

fn is(cluster: &Cluster, node: &str, state: &str) -> Result<()> {
    let what = format!("the database of {node} to be {state}");
    cluster.wait(&what, Duration::from_secs(20), |status| state_of(status, node) == state).map(drop)
}

fn at_work(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { probers: false, ..Plan::default() })?;
    let reign = cluster.reign()?;
    ensure!(reign.primary == "db1", "{} is primary", reign.primary);
    cluster.command("db2", &["pause", "--reason", "a new disk", "--for", "1h", "--wait"])?;
    for node in cluster.plan.node_names() {
        let status = String::from_utf8_lossy(&cluster.regent(&node, &["status"])?.stdout).into_owned();
        ensure!(status.contains("PAUSED for ") && status.contains(": a new disk"), "{node}: {status}");
    }
    let (db1, db2, db3) = (cluster.host("db1")?.clone(), cluster.host("db2")?.clone(), cluster.host("db3")?.clone());
    let folder = postgres::FOLDERS[0];
    // A debugger at the primary and at a standby.
    let before = cluster.postmasters()?;
    for host in [&db1, &db2] {
        let process = postgres::postmaster_of(host, folder)?.to_string();
        host.run("kill", &["-STOP", &process])?;
        std::thread::sleep(SILENT);
        host.run("kill", &["-CONT", &process])?;
    }
    ensure!(cluster.postmasters()? == before, "a database that was silent in a pause was killed");
    // The primary is stopped in order, and its daemon restarts; a standby's directory is away for a while.
    db1.run("kill", &["-INT", &postgres::postmaster_of(&db1, folder)?.to_string()])?;
    is(&cluster, "db1", "stopped")?;
    let data = postgres::data_dir();
    db2.run("sh", &["-c", &format!("kill -INT {}", postgres::postmaster_of(&db2, folder)?)])?;
    is(&cluster, "db2", "stopped")?;
    db2.run("mv", &[&data, &format!("{data}.away")])?;
    is(&cluster, "db2", "absent")?;
    cluster.kill_daemon("db1")?;
    cluster.start_daemon("db1")?;
    std::thread::sleep(LEASE + SILENT);
    for (node, state) in [("db1", "stopped"), ("db2", "absent")] {
        ensure!(state_of(&cluster.status()?, node) == state, "{node} is not {state} any more");
    }
    // A second writer is none that anybody paused. Clients find it closed.
    postgres::sql(&db3, "alter system set default_transaction_read_only = on")?;
    postgres::sql(&db3, "select pg_reload_conf()")?;
    postgres::sql(&db3, "select pg_promote(false)")?;
    is(&cluster, "db3", "stopped")?;
    db2.run("mv", &[&format!("{data}.away"), &data])?;
    ensure!(cluster.power_offs().values().all(|offs| *offs == 0), "somebody was fenced in a pause");
    let resumed = Stamp::now();
    cluster.order("db2", &["resume"])?;
    cluster.wait_complete(BACK)?;
    println!("everything replicates {:?} after the pause", Stamp::now().since(resumed));
    let after = cluster.reign()?;
    ensure!(after.primary == reign.primary, "{} is primary after the pause", after.primary);
    ensure!(cluster.power_offs().values().all(|offs| *offs == 0), "somebody was fenced");
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "writes were lost in a pause: {:?}", seen.lost);
    Ok(())
}
