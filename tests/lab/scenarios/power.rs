//! Power cuts: of the primary's host, with and without its power device, and when no device helps.

use crate::bmc::Mode;
use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::host::Host;
use crate::plan::{Plan, SERVICE};
use crate::status::Report;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);
const FAILOVER: Duration = Duration::from_secs(40);

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "power_cut_of_the_primary",
        shows: "1: IPMI confirms, promotion, others follow",
        within: LONG,
        alone: false,
        run: cut,
    },
    Scenario {
        name: "power_cut_with_the_bmc",
        shows: "2: the first level fails, the second confirms",
        within: LONG,
        alone: false,
        run: with_bmc,
    },
    Scenario {
        name: "bmc_refuses_for_40_s",
        shows: "a BMC without a free session is named as such and used as soon as it has one",
        within: LONG,
        alone: false,
        run: no_session,
    },
    Scenario {
        name: "unfence_after_a_device_that_lied",
        shows: "a closed fence left its node off: regent unfence orders the power on again",
        within: LONG,
        alone: false,
        run: left_off,
    },
    Scenario {
        name: "all_levels_fail",
        shows: "3: nobody is promoted until a person confirms",
        within: LONG,
        alone: false,
        run: no_level,
    },
];

fn cut(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, FAILOVER)?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    let report = explained(&cluster, &before.primary)?;
    ensure!(report.summary.outcome == "succeeded", "the incident did not succeed: {report:#?}");
    ensure!(
        report.text().contains("ipmi"),
        "the explanation does not name the agent that confirmed: {}",
        report.text()
    );
    println!("{:?}, in all {:?} ms", report.durations.parts(), report.durations.total_ms);
    // With automatic power-on the old primary returns by itself, and everybody follows the new one.
    cluster.wait_complete(Duration::from_secs(90))?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

/// The failover away from `node`, explained.
fn explained(cluster: &Cluster, node: &str) -> Result<Report> {
    let incidents = cluster.status()?.incidents;
    let found = incidents.iter().find(|i| i.kind == "failover" && i.subject.as_deref() == Some(node));
    cluster.explain(Some(found.with_context(|| format!("no failover away from {node} in {incidents:?}"))?.id))
}

fn with_bmc(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { levels: &[&["ipmi"], &["pdu"]], ..Plan::default() })?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.power_cut_with_bmc(&before.primary)?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(90))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(cluster.device("ipmi", &before.primary)?.offs() == 0, "a device without power was reached");
    ensure!(cluster.device("pdu", &before.primary)?.offs() > 0, "the second power device was not used");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn no_session(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.device("ipmi", &before.primary)?.refuse_sessions()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    cluster.wait("the words for it", Duration::from_secs(20), |status| {
        let attempts = status.fences.iter().filter(|f| f.node == before.primary).flat_map(|f| &f.attempts);
        attempts.into_iter().any(|attempt| attempt.contains("no free session"))
    })?;
    nobody_is_promoted(&cluster, &before, Duration::from_secs(40).saturating_sub(Stamp::now().since(fault)))?;
    let device = cluster.device("ipmi", &before.primary)?;
    ensure!(device.offs() == 0, "a device without a session was used");
    device.has_sessions()?;
    let works = std::time::Instant::now();
    while device.offs() == 0 {
        ensure!(works.elapsed() < Duration::from_secs(3), "it works for 3 s and nobody has used it");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("the device was used {:?} after it worked", works.elapsed());
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(20))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn left_off(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { power_on: "manual", ..Plan::default() })?;
    let reign = cluster.reign()?;
    let (hosts, leader) = (cluster.hosts(), cluster.leader(|_| true)?);
    let is_other = |host: &&Host| host.name != reign.primary && host.name != leader;
    let standby = hosts.iter().map(AsRef::as_ref).find(is_other).context("no such standby")?.name.clone();
    cluster.command(&reign.primary, &["fence", &standby, "--yes"])?;
    ensure!(!cluster.host(&standby)?.is_on(), "{standby} is fenced and on");
    cluster.device("ipmi", &standby)?.set_mode(Mode::Lying);
    cluster.command(&reign.primary, &["unfence", &standby])?;
    cluster.wait("a closed fence of a silent node", Duration::from_secs(20), |status| {
        status.fences.is_empty() && status.nodes.get(&standby).is_some_and(|node| node.state != "up")
    })?;
    ensure!(!cluster.host(&standby)?.is_on(), "a device that lies has switched {standby} on");
    cluster.device("ipmi", &standby)?.set_mode(Mode::Honest);
    cluster.command(&reign.primary, &["unfence", &standby])?;
    cluster.wait_complete(Duration::from_secs(60))?;
    ensure!(cluster.reign()? == reign, "the primary moved");
    cluster.judge(&[&reign.primary]).map(drop)
}

fn no_level(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    // The device answers and cannot switch; the host is dead in truth, which only a person can know.
    cluster.device("ipmi", &before.primary)?.set_mode(Mode::Stuck);
    let fault = Stamp::now();
    cluster.power_cut_with_bmc(&before.primary)?;
    let status = cluster.wait("a fence that failed", Duration::from_secs(60), |status| {
        status.fences.iter().any(|f| f.node == before.primary && f.incident.is_some() && !f.attempts.is_empty())
    })?;
    nobody_is_promoted(&cluster, &before, Duration::from_secs(10))?;
    let service = &status.services[SERVICE];
    ensure!(!service.what_now.is_empty(), "the status does not say what it waits for");
    println!("the status says: {:?}; {:?}", service.what_now, status.fences);
    is_an_alarm_everywhere(&cluster, &before.primary)?;

    let open = status.fences.iter().find(|f| f.node == before.primary).context("the fence is gone")?;
    ensure!(open.stage == "trying", "nothing confirmed, and the fence is {}", open.stage);
    let ready = &service.readiness;
    ensure!(!ready.failover_ready && !ready.reasons.is_empty(), "ready for a failover without a device: {ready:?}");
    let incident = open.incident.context("the fence has no incident")?.to_string();
    let asked = cluster.leader(|_| true)?;
    let other = cluster.regent(&asked, &["fence", "confirm", &before.primary, "--incident", "999999", "--yes"])?;
    ensure!(!other.status.success(), "a confirmation for an incident that does not exist was accepted");
    cluster.command(&asked, &["fence", "confirm", &before.primary, "--incident", &incident, "--yes"])?;
    let (after, outage) = cluster.wait_takeover(&before, fault, FAILOVER)?;
    println!("{} took over after {outage:?}, once a person had confirmed", after.primary);
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

/// Every node that lives says it in `status` and to the monitoring, and the leader's journal has it as an error.
fn is_an_alarm_everywhere(cluster: &Cluster, dead: &str) -> Result<()> {
    let alarm = format!("every fencing level of {dead} failed");
    let hosts: Vec<_> = cluster.hosts().into_iter().filter(|host| host.name != dead).collect();
    for host in &hosts {
        cluster.wait_said(&[&host.name], dead, &alarm, true, Duration::from_secs(20))?;
        let nagios = cluster.regent(&host.name, &["status", "--nagios"])?;
        let line = String::from_utf8_lossy(&nagios.stdout).into_owned();
        ensure!(line.starts_with("REGENT CRITICAL") && line.contains(&alarm), "on {}: {line}", host.name);
    }
    let said = |host: &Host| {
        let log = std::fs::read_to_string(host.log("regent")).unwrap_or_default();
        log.lines().any(|line| line.contains("ERROR") && line.contains(&alarm))
    };
    ensure!(hosts.iter().any(|host| said(host)), "no daemon's log has {alarm:?} as an error");
    Ok(())
}

fn nobody_is_promoted(cluster: &Cluster, before: &Reign, time: Duration) -> Result<()> {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        let service = cluster.service()?;
        ensure!(service.epoch == before.epoch, "epoch {} began although nothing was confirmed", service.epoch);
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}
