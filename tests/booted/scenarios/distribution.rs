//! A server of the distribution's own beside regent's: it is named with the command that ends it, and that command is right.
//!
//! Not here: what regent does with such a server once it runs (`tests/engine/foreign.rs`).

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Host;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "distributions_unit",
    shows: "a cluster that Debian would start on the service's port: named by config check --host and status; masked, it stays down",
    within: Duration::from_secs(300),
    alone: false,
    run: named_and_masked,
}];

const UNIT: &str = "postgresql@15-other.service";

/// What `status` on a host says of the unit.
fn warned(cluster: &Cluster, node: &str) -> Result<Option<String>> {
    Ok(cluster.status_from(node)?.warnings.into_iter().find(|warning| warning.contains(UNIT)))
}

/// The daemon looks at its start, and then once an hour.
fn restart(cluster: &Cluster, host: &Host, warns: bool) -> Result<()> {
    host.run("systemctl", &["restart", "regent"])?;
    cluster.wait("the standby", Duration::from_secs(60), |_| {
        warned(cluster, &host.name).is_ok_and(|warning| warning.is_some() == warns)
    })?;
    cluster.wait_complete(Duration::from_secs(60)).map(drop)
}

fn named_and_masked(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world)?;
    let reign = cluster.reign()?;
    let names = cluster.plan.database_names();
    let standby = names.iter().find(|name| **name != reign.primary).context("there is no standby")?;
    let host = cluster.host(standby)?.clone();
    host.run("regent", &["config", "check", "--host"]).context("before there is such a unit")?;
    host.run("pg_createcluster", &["15", "other", "--port", "5432"])?;

    let refused = host.output("regent", &["config", "check", "--host"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    println!("{said}");
    ensure!(!refused.status.success() && said.contains(UNIT), "the unit is not named: {said}");
    restart(&cluster, &host, true)?;
    let warning = warned(&cluster, standby)?.context("the warning is gone")?;
    let (_, cure) = warning.split_once("): ").context("no command is named")?;
    println!("{standby}: {cure}");
    host.shell(cure)?;
    host.run("regent", &["config", "check", "--host"]).context("once it is masked")?;
    restart(&cluster, &host, false)?;

    host.type_in("sudo reboot")?;
    cluster.wait_complete(Duration::from_secs(90))?;
    let clusters = host.run("pg_lsclusters", &["--no-header"])?;
    ensure!(clusters.contains(" down "), "it was started: {clusters}");
    let state = host.property(UNIT, "LoadState")?;
    ensure!(state == "masked", "{UNIT} is {state}");
    cluster.judge_still(&reign)
}
