//! The primary's host is lost and nobody else can take over: it gets its power back, and goes on where it was.

use crate::bounds::Bound;
use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::host::Host;
use crate::plan::{Plan, SECOND, SERVICE};
use crate::postgres::{self, FOLDERS};
use crate::status::{Service, Status};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "one_of_two_services_has_no_candidate",
        shows: "power of their host cut: one moves, the other waits until its host has power again: nothing of it is lost",
        within: LONG,
        alone: false,
        run: one_of_two,
    },
    Scenario {
        name: "frozen_while_the_only_standby_is_cloned",
        shows: "two databases and a witness: the primary is fenced, gets its power back and goes on, nothing lost",
        within: LONG,
        alone: false,
        run: frozen,
    },
];

/// Its database of that folder is gone from one moment to the next: it would be cloned now.
pub(super) fn lose_directory(host: &Host, folder: &str) -> Result<()> {
    let process = postgres::postmaster_of(host, folder)?;
    let data = format!("/srv/{folder}/data");
    host.run("sh", &["-c", &format!("mv {data} {data}-lost && kill -9 {process}")]).map(drop)
}

fn service<'a>(status: &'a Status, name: &str) -> Result<&'a Service> {
    status.services.get(name).with_context(|| format!("status knows no service {name}"))
}

fn reign_of(status: &Status, name: &str) -> Result<Reign> {
    let service = service(status, name)?;
    Ok(Reign { primary: service.primary.clone().context("there is no primary")?, epoch: service.epoch })
}

/// Waits until the service is installed under a later epoch, where it was.
fn resumes(cluster: &Cluster, name: &str, before: &Reign) -> Result<()> {
    let status = cluster.wait("the service to be installed under a later epoch", BACK, |status| {
        status.services.get(name).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    })?;
    let after = reign_of(&status, name)?;
    println!("{name}: {before:?}, then {after:?}");
    ensure!(
        after.primary == before.primary,
        "{name}: {} has its only copy, and {} is primary",
        before.primary,
        after.primary
    );
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "{} was not fenced", before.primary);
    Ok(())
}

/// Somebody's log says that nobody can take over.
fn was_waited_for(cluster: &Cluster, name: &str) -> Result<()> {
    let words = format!("{name} has no eligible candidate");
    let logs: Vec<String> =
        cluster.hosts().iter().map(|host| std::fs::read_to_string(host.log("regent"))).collect::<Result<_, _>>()?;
    ensure!(logs.iter().any(|log| log.contains(&words)), "nobody has said {words:?}");
    Ok(())
}

fn one_of_two(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { second: true, probers: false, ..Plan::with_witness() })?;
    let is_whole =
        |status: &Status| service(status, SECOND).is_ok_and(|s| s.is_complete() && s.readiness.failover_ready);
    let status = cluster.wait("the second service", Duration::from_secs(90), is_whole)?;
    let (before, other) = (cluster.reign()?, reign_of(&status, SECOND)?);
    ensure!(before.primary == other.primary, "{before:?} and {other:?} are on two hosts");
    let (host, standby) = (cluster.host("db1")?.clone(), cluster.host("db2")?.clone());
    ensure!(host.name == before.primary, "{} is primary", before.primary);
    lose_directory(&standby, FOLDERS[1])?;
    postgres::sql_in(&host, FOLDERS[1], "create table kept as select generate_series(1, 1000) id")?;
    let fault = Stamp::now();
    host.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, BACK)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    resumes(&cluster, SECOND, &other)?;
    let end = Instant::now() + Duration::from_secs(30);
    while postgres::sql_in(&host, FOLDERS[1], "insert into kept values (1001)").is_err() {
        ensure!(Instant::now() < end, "the second service is installed and takes no writes");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.holds(Stamp::now().since(fault), Bound::Started)?;
    was_waited_for(&cluster, SECOND)?;
    let rows = postgres::sql_in(&host, FOLDERS[1], "select count(*) from kept")?;
    ensure!(rows.trim() == "1001", "there are {rows} rows of 1001");
    cluster.wait_complete(BACK)?;
    let status = cluster.wait("the second service", BACK, |s| service(s, SECOND).is_ok_and(Service::is_complete))?;
    ensure!(reign_of(&status, SERVICE)? == after, "it moved again: {:?}", reign_of(&status, SERVICE)?);
    cluster.judge(&[]).map(drop)
}

fn frozen(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { probers: false, ..Plan::with_witness() })?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let standby =
        cluster.plan.database_names().into_iter().find(|name| *name != before.primary).context("there are two")?;
    lose_directory(cluster.host(&standby)?, FOLDERS[0])?;
    let fault = Stamp::now();
    host.freeze()?;
    resumes(&cluster, SERVICE, &before)?;
    let ack = cluster.writer()?.first_after(fault, Duration::from_secs(30))?;
    cluster.holds(ack.ack.since(fault), Bound::Started)?;
    was_waited_for(&cluster, SERVICE)?;
    cluster.wait_complete(BACK)?;
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "writes are lost of which {} had the only copy: {:?}", before.primary, seen.lost);
    Ok(())
}
