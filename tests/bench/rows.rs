//! The rows of the table: which fault, in which cluster, and what it should cost at most.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::idle;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::summary::{self, Run};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result};
use std::time::Duration;

const ROW: Duration = Duration::from_secs(1800);
const FAILOVER: Duration = Duration::from_secs(60);
const HEAL: Duration = Duration::from_secs(120);
/// For the detector's window to hold quiet intervals again after a return.
const SETTLE: Duration = Duration::from_secs(5);

/// The rows, as scenarios of the lab's harness.
pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "power_cut_fast",
            shows: "profile fast, at most 800 ms",
            within: ROW,
            alone: true,
            run: power_cut_fast,
        },
        Scenario {
            name: "power_cut_lan",
            shows: "profile lan, at most 2200 ms",
            within: ROW,
            alone: true,
            run: power_cut_lan,
        },
        Scenario {
            name: "postmaster_killed",
            shows: "on_crash = failover, at most 500 ms",
            within: ROW,
            alone: true,
            run: killed,
        },
        Scenario { name: "switchover", shows: "at most 500 ms", within: ROW, alone: true, run: switchover },
        Scenario {
            name: "idle",
            shows: "at most 1.5 % of a core and 40 MiB a manager",
            within: ROW,
            alone: true,
            run: idle::measure,
        },
    ]
}

fn plan(profile: &'static str) -> Plan {
    // Many incidents an hour are what is wanted here.
    Plan { profile, probers: false, ..Plan::default() }
}

fn power_cut_fast(world: &mut World) -> Result<()> {
    row(world, "power cut, profile fast", plan("fast"), Duration::from_millis(800), power_cut)
}

fn power_cut_lan(world: &mut World) -> Result<()> {
    row(world, "power cut, profile lan", plan("lan"), Duration::from_millis(2200), power_cut)
}

fn killed(world: &mut World) -> Result<()> {
    let plan = Plan { on_crash: "failover", ..plan("lan") };
    row(world, "kill -9 of the postmaster, on_crash = failover", plan, Duration::from_millis(500), |cluster, before| {
        let fault = Stamp::now();
        postgres::signal_postmaster(cluster.host(&before.primary)?, "KILL")?;
        Ok(cluster.wait_failover(before, fault, FAILOVER)?.1)
    })
}

fn switchover(world: &mut World) -> Result<()> {
    row(world, "switchover", plan("lan"), Duration::from_millis(500), |cluster, before| {
        let start = Stamp::now();
        cluster.command(&before.primary, &["switchover"])?;
        cluster.wait_failover(before, start, FAILOVER)?;
        // Writes go on until the old primary stops: what counts is the gap, not the command.
        cluster.writer()?.longest_gap_after(start)
    })
}

fn power_cut(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    Ok(cluster.wait_failover(before, fault, FAILOVER)?.1)
}

/// Repeats one fault in one cluster, which must be whole again before each. A run that cannot be measured is
/// discarded, with the reason; so many may be discarded as are wanted, then the row ends.
fn row(
    world: &mut World,
    name: &str,
    plan: Plan,
    target: Duration,
    fault: impl Fn(&Cluster, &Reign) -> Result<Duration>,
) -> Result<()> {
    let wanted = runs()?;
    let cluster = Cluster::start(world, plan)?;
    cluster.world.pace.is_not_judged();
    let (mut runs, mut discarded) = (Vec::new(), Vec::new());
    while runs.len() < wanted && discarded.len() < wanted {
        if let Err(error) = settle(&cluster) {
            discarded.push(format!("the cluster did not become whole again: {error:#}"));
            break;
        }
        let number = runs.len() + discarded.len() + 1;
        match cluster.reign().and_then(|before| one(&cluster, &before, &fault)) {
            Ok(run) => runs.push(run),
            Err(error) => discarded.push(format!("run {number}: {error:#}")),
        }
    }
    summary::print(name, target, &runs, &discarded);
    Ok(())
}

fn one(cluster: &Cluster, before: &Reign, fault: impl Fn(&Cluster, &Reign) -> Result<Duration>) -> Result<Run> {
    let outage = fault(cluster, before)?;
    Ok(Run { outage, durations: cluster.explain(None)?.durations })
}

fn settle(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        host.power_on()?;
    }
    cluster.wait("a whole cluster, ready for a failover", HEAL, |status| {
        status.fences.is_empty()
            && status.services.get(SERVICE).is_some_and(|s| s.is_complete() && s.readiness.failover_ready)
    })?;
    std::thread::sleep(SETTLE);
    Ok(())
}

fn runs() -> Result<usize> {
    let text = std::env::var("RUNS").unwrap_or_else(|_| "7".to_owned());
    text.parse().with_context(|| format!("RUNS={text}: expected a number"))
}
