//! Reports on the standbys that hold replay up: what arrived counts, and the service does not wait for them.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Host;
use crate::plan::Plan;
use crate::postgres;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::process::Child;
use std::time::Duration;

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "reports_hold_replay_up_on_every_standby",
    shows: "reports with max_standby_streaming_delay = -1, rows that vanish below them, and a power cut of the primary",
    within: Duration::from_secs(240),
    alone: false,
    run: reports,
}];

const TABLE: &str = "create table reported as select generate_series(1, 1000) as id";
/// It sees the rows, and goes on for five minutes.
const REPORT: &str = "begin isolation level repeatable read; select count(*) from reported; select pg_sleep(300)";
/// An error until replay is held up.
const HELD_UP: &str = "select 1 / count(*) from pg_stat_activity where backend_type = 'startup' and wait_event like \
                       'RecoveryConflict%'";

fn report(host: &Host) -> Result<Child> {
    postgres::wait_for(host, "select from reported limit 0", Duration::from_secs(20))?;
    let session = postgres::start_session(host, REPORT)?;
    let runs = "select 1 / count(*) from pg_stat_activity where state = 'active' and query like 'begin isolation%'";
    postgres::wait_for(host, runs, Duration::from_secs(10))?;
    Ok(session)
}

fn reports(world: &mut World) -> Result<()> {
    let parameters = "max_standby_streaming_delay = \"-1\"\nmax_standby_archive_delay = \"-1\"";
    let mut cluster = Cluster::start(world, Plan { parameters, ..Plan::default() })?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let before = cluster.reign()?;
    let primary = cluster.host(&before.primary)?.clone();
    postgres::sql(&primary, TABLE)?;
    let names = cluster.plan.database_names();
    let standbys: Vec<_> = names.iter().filter(|name| **name != before.primary).collect();
    let mut sessions = Vec::new();
    for name in &standbys {
        sessions.push(report(cluster.host(name)?)?);
    }
    postgres::sql(&primary, "delete from reported")?;
    postgres::sql(&primary, "vacuum reported")?;
    for name in &standbys {
        postgres::wait_for(cluster.host(name)?, HELD_UP, Duration::from_secs(20))?;
    }
    let fault = Stamp::now();
    primary.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    println!("writes again after {outage:?}, beside reports on every standby");
    // What is not promoted waits for its reports, as the setting says.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where query like 'begin isolation%'";
    for name in standbys.iter().filter(|name| ***name != after.primary) {
        postgres::sql(cluster.host(name)?, end)?;
    }
    for session in &mut sessions {
        session.wait()?;
    }
    cluster.wait_complete(Duration::from_secs(120))?;
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.duplicates.is_empty(), "rows are there twice");
    Ok(())
}
