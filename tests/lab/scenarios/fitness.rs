//! A standby that could not serve, and one that could: the service goes to the second, and everybody was told before.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::Plan;
use crate::restart::Ending;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "a_standby_that_could_not_serve",
    shows: "READY, a switchover and a failover pass it over, although its priority is higher; cured, it is a candidate again",
    within: LONG,
    alone: false,
    run: passed_over,
}];

/// The archive is not reached from a host that has this.
const UNREACHABLE: &str = "/srv/unreachable";

fn passed_over(world: &mut World) -> Result<()> {
    let plan = Plan {
        service: "bars = [\"archive\"]",
        database: "archive_check = [\"/usr/bin/test\", \"!\", \"-e\", \"/srv/unreachable\"]",
        ..Plan::default()
    };
    let mut cluster = Cluster::start(world, plan)?;
    cluster.wait_complete(BACK)?;
    let before = cluster.reign()?;
    // In the order of their priority.
    let standbys: Vec<String> =
        cluster.plan.database_names().into_iter().filter(|name| *name != before.primary).collect();
    let [unfit, fit] = &standbys[..] else { anyhow::bail!("there are {standbys:?}") };
    let says = |reasons: &[String], node: &str| {
        reasons.iter().any(|reason| reason.starts_with(node) && reason.contains("(bars: archive)"))
    };
    let service = |status: &crate::status::Status| status.services[crate::plan::SERVICE].readiness.clone();
    // What seldom changes is looked at when a daemon starts.
    cluster.host(unfit)?.run("touch", &[UNREACHABLE])?;
    cluster.restart_daemon(unfit, Ending::InOrder)?;
    let status = cluster.wait("one to be barred, and one to be a candidate", BACK, |status| {
        let ready = service(status);
        ready.failover_ready && says(&ready.reasons, unfit)
    })?;
    println!("{}", service(&status).reasons.join("\n"));
    let refused = cluster.regent(&before.primary, &["switchover", "--to", unfit])?;
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    ensure!(!refused.status.success() && said.contains("could not be archived"), "{said}");
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over after {outage:?}", after.primary);
    ensure!(after.primary == *fit, "{} took over, and {unfit} could not serve", after.primary);
    let told = cluster.explain(None)?.text();
    ensure!(
        told.contains(&format!("{unfit} could not serve (archive)")),
        "the incident is silent about {unfit}: {told}"
    );
    cluster.wait_complete(BACK)?;
    cluster.host(unfit)?.run("rm", &[UNREACHABLE])?;
    cluster.wait("it to be cured", BACK, |status| !says(&service(status).reasons, unfit)).context("once more")?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
