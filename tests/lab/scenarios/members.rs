//! Others than the primary die: a standby, a witness, the Raft leader in the middle of a failover.

use crate::client::prober;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "a_standby_dies",
        shows: "8: nothing moves; it returns by itself",
        within: LONG,
        alone: false,
        run: standby,
    },
    Scenario { name: "a_witness_dies", shows: "8: nothing moves", within: LONG, alone: false, run: witness },
    Scenario {
        name: "the_leader_dies_between_fence_and_promotion",
        shows: "8: five voters: finished by the next leader",
        within: LONG,
        alone: false,
        run: leader_host,
    },
    Scenario {
        name: "the_leader_is_killed_between_fence_and_promotion",
        shows: "8: three voters: finished after its restart",
        within: LONG,
        alone: false,
        run: leader_daemon,
    },
    Scenario {
        name: "the_appointee_loses_power_while_it_promotes",
        shows: "the next takes over on a timeline of its own; what may be lost is named and kept",
        within: LONG,
        alone: false,
        run: appointee,
    },
];

fn standby(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let names = cluster.plan.database_names();
    let standby = names.into_iter().find(|name| *name != reign.primary).context("there is no standby")?;
    let fault = Stamp::now();
    cluster.host(&standby)?.power_cut()?;
    cluster.stays(&reign, Duration::from_secs(15))?;
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?} because a standby died");
    cluster.host(&standby)?.power_on()?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let (seen, _) = cluster.judge(&[&reign.primary])?;
    ensure!(seen.lost.is_empty(), "writes were lost although nothing moved: {:?}", seen.lost);
    Ok(())
}

fn witness(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::with_witness())?;
    let reign = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host("w1")?.power_cut()?;
    cluster.stays(&reign, Duration::from_secs(15))?;
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    ensure!(gap < Duration::from_secs(1), "writes paused for {gap:?} because a witness died");
    cluster.host("w1")?.power_on()?;
    cluster.wait("the witness to be up", Duration::from_secs(30), |s| {
        s.nodes.get("w1").is_some_and(|n| n.state == "up")
    })?;
    cluster.judge(&[&reign.primary]).map(drop)
}

/// Cuts the primary's power and does `act` to the leader's name once the fence has cut it too, before anybody knows.
fn between(cluster: &mut Cluster, act: impl FnOnce(&Cluster, String) -> Result<crate::bmc::AfterOff>) -> Result<()> {
    let before = cluster.reign()?;
    // It hands leadership away from the primary's host by itself.
    let leader = cluster.leader(|leader| leader != before.primary)?;
    let act = act(cluster, leader)?;
    cluster.device("ipmi", &before.primary)?.after_next_off(act);
    let fault = Stamp::now();
    // Not a power cut: the fence itself must be what switches it off, so that the moment is known.
    cluster.host(&before.primary)?.freeze()?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    cluster.wait("the service to be whole", Duration::from_secs(90), |s| {
        s.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.primary.as_ref() == Some(&after.primary))
    })?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

fn leader_host(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::five_voters())?;
    between(&mut cluster, |cluster, leader| {
        let host = cluster.host(&leader)?.clone();
        Ok(Box::new(move || host.power_cut().expect("the leader's host has power to lose")))
    })
}

fn leader_daemon(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    between(&mut cluster, |cluster, leader| {
        let switch = cluster.daemon_switch(&leader)?;
        Ok(Box::new(move || {
            switch(false).expect("the leader's daemon runs");
            // As its service manager would, after a moment; the device's answer need not wait for it.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(500));
                switch(true).expect("the daemon can be started again");
            });
        }))
    })
}

/// Cut off in the middle of its promotion, the appointee opens and takes writes that nobody hears of; then its power
/// goes. Recovery is stopped at its very end, so that the moment can be chosen.
fn appointee(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::five_voters())?;
    let before = cluster.reign()?;
    let standbys: Vec<_> = cluster.plan.database_names().into_iter().filter(|name| *name != before.primary).collect();
    let mut startup = std::collections::BTreeMap::new();
    for name in &standbys {
        let question = "select pid from pg_stat_activity where backend_type = 'startup'";
        startup.insert(name.clone(), postgres::sql(cluster.host(name)?, question)?);
    }
    let signal = |cluster: &Cluster, name: &str, signal: &str| {
        cluster.host(name)?.run("kill", &["-s", signal, &startup[name]]).map(drop)
    };
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    for name in &standbys {
        signal(&cluster, name, "STOP")?;
    }
    let status = cluster.wait("a promotion", Duration::from_secs(40), |status| {
        status.services.get(SERVICE).is_some_and(|s| s.phase == "promoting")
    })?;
    let appointee = status.services[SERVICE].primary.clone().context("somebody promotes")?;
    let other = standbys.iter().find(|name| **name != appointee).context("there is another standby")?;
    let host = cluster.host(&appointee)?.clone();
    // It has its lease by then.
    until("it was told to end recovery", || {
        Ok(std::fs::read_to_string(host.log("regent"))?.contains("orders: promote"))
    })?;
    host.isolate()?;
    for name in &standbys {
        signal(&cluster, name, "CONT")?;
    }
    // It holds a lease and is open now. Its own clients, who are on its host, write; the ledger never hears of it.
    until("it took a write", || Ok(!prober::commits(&host)?.is_empty()))?;
    if host.is_on() {
        host.power_cut()?;
    }
    host.reconnect()?;
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over from {} and {appointee} after {outage:?}", after.primary, before.primary);
    ensure!(after.primary == *other && after.epoch == before.epoch + 2, "expected {other} to follow, found {after:?}");
    cluster.wait_complete(Duration::from_secs(120))?;

    let incidents = cluster.status()?.incidents;
    let about = incidents.iter().find(|i| i.kind == "failover" && i.subject.as_ref() == Some(&appointee));
    let text = cluster.explain(Some(about.context("its failover is in the list")?.id))?.text();
    let named = format!("may be lost to {SERVICE}: what {appointee} acknowledged in epoch {}", before.epoch + 1);
    ensure!(text.contains(&named), "the loss is not named: {text}");
    ensure!(text.contains("divergent WAL kept in"), "what {appointee} had is not kept: {text}");
    let timeline = "select timeline_id from pg_control_checkpoint()";
    let timeline = postgres::sql(cluster.host(&after.primary)?, timeline)?;
    ensure!(timeline == "3", "{} is on timeline {timeline}", after.primary);
    cluster.judge(&[&before.primary, &appointee, &after.primary]).map(drop)
}

fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds()? {
        ensure!(std::time::Instant::now() < end, "waited ten seconds until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
