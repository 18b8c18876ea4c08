//! A watchdog that cannot be armed on the host whose turn it is: somebody else takes over, at once, and no other service
//! notices. In the lab a watchdog really resets a host that does not feed it.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::plan::{Devices, Plan, SECOND, SERVICE};
use crate::postgres::{self, FOLDERS};
use crate::scenarios::switchovers::signal_receiver;
use crate::status::{Service, Status};
use crate::time::Stamp;
use crate::watchdogs::Watchdogs;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
/// From the confirmed fence to the first write of the candidate after the one that cannot.
const NEXT_CANDIDATE: Duration = Duration::from_secs(5);
/// Whose turn it is: the next by priority.
const APPOINTEE: &str = "db2";
/// Who is left. It has the second service's primary.
const OTHER: &str = "db3";
const WORDS: &str = "watchdog cannot be armed";

pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "no_watchdog_on_the_candidate",
        shows: "the device is missing: the next within 5 s, said on every node, the other service goes on",
        within: LONG,
        alone: false,
        run: |world| from_the_start(world, Devices::MissingOn(APPOINTEE)),
    },
    Scenario {
        name: "no_watchdog_but_a_file_on_the_candidate",
        shows: "a plain file in its place: the next within 5 s, said on every node, the other service goes on",
        within: LONG,
        alone: false,
        run: |world| from_the_start(world, Devices::PlainFileOn(APPOINTEE)),
    },
    Scenario {
        name: "the_watchdog_of_the_appointee_breaks",
        shows: "found out when it is armed: the next within 5 s, said on every node, the other service goes on",
        within: LONG,
        alone: false,
        run: appointee,
    },
    Scenario {
        name: "the_watchdog_of_the_leader_breaks",
        shows: "the leader is the appointee: the next within 5 s, no lease of the other service is lost",
        within: LONG,
        alone: false,
        run: leader,
    },
];

fn from_the_start(world: &mut World, watchdogs: Devices) -> Result<()> {
    let cluster = Cluster::start(world, Plan { watchdogs, second: true, ..Plan::five_voters() })?;
    let asked = cluster.plan.node_names();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    // Found out before it is needed.
    cluster.wait_said(&asked, APPOINTEE, WORDS, true, Duration::from_secs(15))?;
    next_takes_over(cluster, false, |_| Ok(()))
}

fn appointee(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan { watchdogs: Devices::All, second: true, ..Plan::five_voters() })?;
    next_takes_over(cluster, false, |watchdogs| watchdogs.break_device(APPOINTEE))
}

fn leader(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan { watchdogs: Devices::All, second: true, ..Plan::default() })?;
    next_takes_over(cluster, true, |watchdogs| watchdogs.break_device(APPOINTEE))
}

fn second(status: &Status) -> Option<&Service> {
    status.services.get(SECOND)
}

/// The second service has its primary on [`OTHER`], the first on another host. Returns the second's reign.
fn place_second(cluster: &Cluster) -> Result<Reign> {
    let is_whole = |status: &Status| second(status).is_some_and(|s| s.is_complete() && s.readiness.failover_ready);
    cluster.wait("the second service", Duration::from_secs(90), is_whole)?;
    let status = cluster.status()?;
    let service = second(&status).context("it is whole")?;
    let reign = Reign { primary: service.primary.clone().context("it is whole")?, epoch: service.epoch };
    if reign.primary != OTHER {
        let words = ["switchover", "--service", SECOND, "--to", OTHER];
        cluster.wait_movable(&reign, &words)?;
        cluster.command(&reign.primary, &words)?;
    }
    let status = cluster.wait("the second service to have moved", Duration::from_secs(60), |status| {
        second(status).is_some_and(|s| s.is_complete() && s.primary.as_deref() == Some(OTHER))
    })?;
    Ok(Reign { primary: OTHER.to_owned(), epoch: second(&status).context("it is whole")?.epoch })
}

fn watchdogs<'a>(cluster: &'a Cluster) -> Result<&'a Watchdogs> {
    cluster.world.watchdogs.as_ref().context("this cluster has no watchdogs")
}

fn next_takes_over(mut cluster: Cluster, leads: bool, act: impl Fn(&Watchdogs) -> Result<()>) -> Result<()> {
    let (before, other) = (cluster.reign()?, place_second(&cluster)?);
    ensure!(before.primary != APPOINTEE && before.primary != OTHER, "{} is primary", before.primary);
    // It hands leadership away from the primaries' hosts by itself.
    let leader = cluster.leader(|leader| if leads { leader == APPOINTEE } else { leader.starts_with('w') })?;
    ensure!(watchdogs(&cluster)?.is_armed(&before.primary)?, "a primary's watchdog is not armed");
    let postmaster = postgres::postmaster_since(cluster.host(OTHER)?, FOLDERS[1])?;
    act(watchdogs(&cluster)?)?;
    let fenced = Arc::new(Mutex::new(None));
    let at = fenced.clone();
    let device = cluster.device("ipmi", &before.primary)?;
    device.after_next_off(Box::new(move || *at.lock().unwrap() = Some(Stamp::now())));
    let resets = watchdogs(&cluster)?.resets();
    // So that the one that cannot is the one that has most.
    signal_receiver(cluster.host(OTHER)?, "STOP")?;
    let rows = |node: &str| Ok::<_, anyhow::Error>(postgres::written_ids(cluster.host(node)?)?.len());
    let is_ahead = |_: &Status| rows(APPOINTEE).is_ok_and(|more| rows(OTHER).is_ok_and(|less| more > less));
    cluster.wait("the appointee to have most", Duration::from_secs(20), is_ahead)?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    signal_receiver(cluster.host(OTHER)?, "CONT")?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    let fenced = fenced.lock().unwrap().context("nobody was fenced")?;
    let waited = outage.saturating_sub(fenced.since(fault));
    println!("{leader} leads; {} took over {waited:?} after the fence, {outage:?} after the fault", after.primary);
    ensure!(after.primary == OTHER, "{} took over, and its watchdog cannot be armed", after.primary);
    ensure!(waited < NEXT_CANDIDATE, "the next candidate took over {waited:?} after the fence");
    let names: Vec<String> = cluster.plan.node_names().into_iter().filter(|name| *name != before.primary).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.wait_said(&asked, APPOINTEE, WORDS, true, Duration::from_secs(5))?;

    cluster.wait_complete(Duration::from_secs(120))?;
    second_went_on(&cluster, &other, &postmaster)?;
    ensure!(watchdogs(&cluster)?.resets() == resets, "a watchdog reset a host that was to be fed");
    for name in [APPOINTEE, OTHER] {
        ensure!(cluster.device("ipmi", name)?.offs() == 0, "{name} was switched off");
    }
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

/// Its lease was renewed all the time.
fn second_went_on(cluster: &Cluster, reign: &Reign, postmaster: &str) -> Result<()> {
    let status = cluster.status()?;
    let service = second(&status).context("the second service is gone")?;
    let now = Reign { primary: service.primary.clone().unwrap_or_default(), epoch: service.epoch };
    ensure!(now == *reign, "the second service moved: {reign:?} before, {now:?} now");
    let now = postgres::postmaster_since(cluster.host(OTHER)?, FOLDERS[1])?;
    ensure!(now == postmaster, "the second service's postmaster was {postmaster}, is {now}");
    let moved = status.incidents.iter().filter(|i| i.kind == "failover").count();
    ensure!(moved == 1, "{SERVICE} alone was to move: {:?}", status.incidents);
    Ok(())
}
