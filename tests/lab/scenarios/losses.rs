//! How much a failover may lose: a standby that lacks more than `max_lag` of what the primary wrote is not promoted by itself.

use super::switchovers::signal_receiver;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::page::NO_PRIMARY;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::ready::Wrong;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "a_standby_that_lacks_too_much_waits_for_the_primary",
        shows: "the primary's host dies with 64 MiB that nobody else has: it is switched on again, and nothing is lost",
        within: LONG,
        alone: false,
        run: waits,
    },
    Scenario {
        name: "a_loss_that_a_person_accepts",
        shows: "the same, and the host stays off: nobody is promoted until a person says so, which the incident says",
        within: LONG,
        alone: false,
        run: accepts,
    },
];

/// A cluster whose only standby gets nothing any more, while the primary writes 64 MiB.
fn lacking<'w>(world: &'w mut World, power_on: &'static str) -> Result<(Cluster<'w>, String)> {
    let plan = Plan { databases: 2, witnesses: 1, power_on, ..Plan::default() };
    let cluster = Cluster::start(world, plan)?;
    let before = cluster.reign()?;
    let names = cluster.plan.database_names();
    let standby = names.into_iter().find(|name| *name != before.primary).context("there is no standby")?;
    cluster.wait_complete(Duration::from_secs(60))?;
    cluster.wait_movable(&before, &["switchover", "--to", &standby])?;
    signal_receiver(cluster.host(&standby)?, "STOP")?;
    let much = "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 64)";
    postgres::sql(cluster.host(&before.primary)?, much)?;
    let lacks = |status: &Status| {
        let readiness = status.services.get(SERVICE).map(|service| &service.readiness);
        readiness.is_some_and(|r| !r.failover_ready && r.reasons.iter().any(|why| why.contains("it lacks")))
    };
    cluster.wait("a status that says what a failover would lose", Duration::from_secs(20), lacks)?;
    Ok((cluster, standby))
}

fn waits(world: &mut World) -> Result<()> {
    let (mut cluster, standby) = lacking(world, "auto")?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let again = |status: &Status| {
        let service = status.services.get(SERVICE);
        service.is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch && s.primary.is_some())
    };
    cluster.wait("a primary again", Duration::from_secs(120), again)?;
    // It was made to follow again, or is told to now.
    drop(signal_receiver(cluster.host(&standby)?, "CONT"));
    let after = cluster.reign()?;
    ensure!(after.primary == before.primary, "{} was promoted, which lacked 64 MiB", after.primary);
    let ack = cluster.writer()?.first_after(fault, Duration::from_secs(30))?;
    println!("the primary came back, {:?} after its power was cut", ack.ack.since(fault));
    cluster.wait_complete(Duration::from_secs(120))?;
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "acknowledged writes were lost: {:?}", seen.lost);
    Ok(())
}

fn accepts(world: &mut World) -> Result<()> {
    let (mut cluster, standby) = lacking(world, "manual")?;
    cluster.world.ready.allow(Wrong::NotReady, "a person lets be lost what the other node lacks");
    let before = cluster.reign()?;
    let early = cluster.regent(&standby, &["failover", "--accept-loss", "--yes"])?;
    ensure!(early.status.code() == Some(3), "a loss beside a primary that lives was accepted: {}", early.status);
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    signal_receiver(cluster.host(&standby)?, "CONT")?;
    let alarmed = |status: &Status| {
        let service = status.services.get(SERVICE);
        let says = |s: &crate::status::Service| s.what_now.iter().any(|now| now.contains("--accept-loss"));
        service.is_some_and(|s| s.phase != "installed" || s.epoch == before.epoch) && service.is_some_and(says)
    };
    cluster.wait("a status that says what a person may do", Duration::from_secs(60), alarmed)?;
    ensure!(cluster.reign().is_err() || cluster.reign()? == before, "somebody was promoted by itself");
    // As the page has it.
    let page = "orders has no eligible candidate";
    ensure!(
        cluster.status()?.services[SERVICE].what_now.iter().any(|now| now.starts_with(page)),
        "status does not say {page:?}"
    );
    let said = cluster.follow(&standby, &NO_PRIMARY.block("2. Nobody may take over", 0)?, &[])?;
    println!("{}", said.trim());
    let (after, _) = cluster.wait_takeover(&before, fault, Duration::from_secs(60))?;
    ensure!(after.primary == standby, "{} is primary", after.primary);
    let incident = cluster.status()?.incidents.last().map(|i| i.id);
    let report = cluster.explain(incident)?;
    let steps: Vec<_> = report.steps.iter().map(|step| step.what.as_str()).collect();
    ensure!(steps.iter().any(|step| step.contains("lose what that lacks")), "the incident is silent: {steps:?}");
    cluster.judge(&[&before.primary, &standby]).map(drop)
}
