//! What monitoring is told: a cluster that is well is OK, and a primary that takes no writes is CRITICAL on every node.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "a_primary_that_takes_no_writes_is_critical_everywhere",
    shows: "OK with three voters that are well; CRITICAL on every node within twice the probe's times, with its reason",
    within: Duration::from_secs(180),
    alone: false,
    run: no_writes,
}];

/// Profile `lan`: twice `probe_interval` and `probe_timeout`.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

fn nagios(cluster: &Cluster, node: &str) -> Result<(Option<i32>, String)> {
    let output = cluster.regent(node, &["status", "--nagios"])?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Waits until every node says so.
fn everywhere(cluster: &Cluster, code: i32, words: &str, within: Duration) -> Result<Duration> {
    let began = Instant::now();
    for node in cluster.plan.node_names() {
        loop {
            let (said, text) = nagios(cluster, &node)?;
            if said == Some(code) && text.contains(words) {
                break;
            }
            ensure!(began.elapsed() < within, "{node} says {said:?} after {:?}: {text}", began.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(began.elapsed())
}

fn no_writes(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let whole = |status: &crate::status::Status| {
        status.services.get(SERVICE).is_some_and(|s| s.readiness.failover_ready && s.is_complete())
    };
    cluster.wait("a cluster that is well", Duration::from_secs(60), whole)?;
    let well = everywhere(&cluster, 0, "OK", Duration::from_secs(90))?;
    println!("OK on every node after {well:?}");
    let host = cluster.host(&before.primary)?.clone();
    // Whatever keeps writes from being taken: here, of regent's own table.
    let lock = "begin; lock table regent.probe in access exclusive mode; select pg_sleep(600)";
    let mut session = postgres::start_session(&host, lock)?;
    let told = everywhere(&cluster, 2, "takes no writes: ", TOLD_WITHIN)?;
    println!("CRITICAL on every node after {told:?}");
    postgres::sql(
        &host,
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)%' \
         and pid <> pg_backend_pid()",
    )?;
    session.wait()?;
    let well = everywhere(&cluster, 0, "OK", Duration::from_secs(30))?;
    println!("OK again on every node after {well:?}");
    ensure!(cluster.reign()? == before, "it moved");
    cluster.judge(&[&before.primary]).map(drop)
}
