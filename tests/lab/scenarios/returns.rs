//! Coming back: a fenced node gets its power again, and a whole cluster that was off.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "power_returns_before_the_promotion",
        shows: "12: one primary, everybody follows, fences undone",
        within: LONG,
        alone: false,
        run: early,
    },
    Scenario {
        name: "power_returns_after_the_promotion",
        shows: "12: comes back as a standby, fences undone",
        within: LONG,
        alone: false,
        run: late,
    },
    Scenario {
        name: "the_whole_cluster_loses_power",
        shows: "14: the last primary resumes under a new epoch",
        within: LONG,
        alone: false,
        run: everything,
    },
    Scenario {
        name: "the_last_primary_never_returns",
        shows: "14: it is fenced and replaced",
        within: LONG,
        alone: false,
        run: without_primary,
    },
    Scenario {
        name: "the_whole_cluster_is_stopped",
        shows: "14: stopped in order and started again",
        within: LONG,
        alone: false,
        run: stopped,
    },
];

fn early(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { power_on: "manual", ..Plan::default() })?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let again = host.clone();
    // At the moment of the fence, before anybody is told of it, the power is back.
    let device = cluster.device("ipmi", &before.primary)?;
    device.after_next_off(Box::new(move || again.power_on().expect("a host that is off can be switched on")));
    let fault = Stamp::now();
    host.freeze()?;
    let status = cluster.wait("a later epoch", Duration::from_secs(90), |s| {
        s.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    })?;
    println!("{:?} is primary now", status.services[SERVICE].primary);
    cluster.writer()?.first_after(fault, Duration::from_secs(30))?;
    cluster.wait_complete(BACK)?;
    let after = cluster.reign()?;
    let order = [before.primary.as_str(), after.primary.as_str()];
    // It may be the same node again: then there is one stretch on one host.
    let order = if after.primary == before.primary { &order[..1] } else { &order[..] };
    cluster.judge(order).map(drop)
}

fn late(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { power_on: "manual", ..Plan::default() })?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, _) = cluster.wait_failover(&before, fault, Duration::from_secs(40))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!cluster.host(&before.primary)?.is_on(), "the node was switched on although power_on is manual");
    cluster.host(&before.primary)?.power_on()?;
    cluster.wait_complete(BACK)?;
    ensure!(cluster.reign()? == after, "the return of {} moved the primary", before.primary);
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn cut_everything(cluster: &Cluster) -> Result<()> {
    // The primary last, so that nobody has time to take over.
    let primary = cluster.reign()?.primary;
    let (last, first): (Vec<_>, Vec<_>) = cluster.hosts().into_iter().partition(|host| host.name == primary);
    first.iter().chain(&last).try_for_each(|host| host.power_cut())
}

fn wait_later(cluster: &Cluster, before: &Reign) -> Result<Reign> {
    let what = "the service to be installed under a later epoch";
    cluster.wait(what, BACK, |s| {
        s.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    })?;
    cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(30))?;
    cluster.reign()
}

fn everything(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cut_everything(&cluster)?;
    // The last primary neither first nor last.
    let (primary, others): (Vec<_>, Vec<_>) = cluster.hosts().into_iter().partition(|h| h.name == before.primary);
    for host in others[..1].iter().chain(&primary).chain(&others[1..]) {
        host.power_on()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let after = wait_later(&cluster, &before)?;
    ensure!(after.primary == before.primary, "{} was the last primary, {} resumed", before.primary, after.primary);
    cluster.wait_complete(BACK)?;
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "the last primary resumed and writes are lost: {:?}", seen.lost);
    Ok(())
}

fn without_primary(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { power_on: "manual", ..Plan::default() })?;
    let before = cluster.reign()?;
    cut_everything(&cluster)?;
    for host in cluster.hosts().iter().filter(|host| host.name != before.primary) {
        host.power_on()?;
    }
    let after = wait_later(&cluster, &before)?;
    ensure!(after.primary != before.primary, "a host without power is primary");
    ensure!(cluster.device("ipmi", &before.primary)?.offs() > 0, "the last primary was replaced without a fence");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn stopped(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "it leaves, and is primary again within a minute");
    let before = cluster.reign()?;
    // As an operator shuts a site down: every host in turn and the primary last, the daemon in order, then the power.
    let mut hosts = cluster.hosts();
    hosts.sort_by_key(|host| host.name == before.primary);
    for host in hosts {
        cluster.stop_daemon(&host.name, Duration::from_secs(90))?;
    }
    for host in cluster.hosts() {
        host.power_cut()?;
    }
    for host in cluster.hosts().iter().rev() {
        host.power_on()?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let after = wait_later(&cluster, &before)?;
    println!("{} was primary, {} is", before.primary, after.primary);
    cluster.wait_complete(BACK)?;
    ensure!(after.primary == before.primary, "{} is primary, and has not all of it", after.primary);
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "acknowledged writes were lost: {:?}", seen.lost);
    Ok(())
}
