//! docs/no-primary.md, followed word by word: `status` says the words of the page, and its command brings a primary back.
//! (What a person accepts to lose is in `losses.rs`. A lease that lapsed without a word from its holder comes about in the
//! golden stories alone: in every fault of a real host the holder says so itself, or is declared dead.)

use super::recoveries;
use crate::bmc::Mode;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::page::NO_PRIMARY;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::recovery::Slowed;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "page_no_primary_paused_or_unconfirmed",
        shows: "docs/no-primary.md: a pause that somebody forgot, then a dead primary that no device confirms",
        within: LONG,
        alone: false,
        run: paused_or_unconfirmed,
    },
    Scenario {
        name: "page_no_primary_without_quorum",
        shows: "docs/no-primary.md: two of three daemons are down; one that is started is enough",
        within: LONG,
        alone: false,
        run: without_quorum,
    },
    Scenario {
        name: "page_no_primary_while_it_recovers",
        shows: "docs/no-primary.md: a recovery in place that takes minutes, and a person who moves the service at once",
        within: LONG,
        alone: false,
        run: recovers,
    },
];

fn says(cluster: &Cluster, words: &str) -> Result<()> {
    let begins = |said: &String| said.starts_with(words);
    cluster.wait(words, Duration::from_secs(90), |status| {
        status.services.get(SERVICE).is_some_and(|service| service.what_now.iter().any(begins))
    })?;
    Ok(())
}

fn paused_or_unconfirmed(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    cluster.order(&before.primary, &["pause", "--reason", "a test"])?;
    postgres::signal_postmaster(cluster.host(&before.primary)?, "KILL")?;
    says(&cluster, "orders is paused")?;
    cluster.follow(&before.primary, &NO_PRIMARY.block("6. The service is paused", 0)?, &[])?;
    cluster.wait_complete(BACK)?;
    let before = cluster.reign()?;

    cluster.device("ipmi", &before.primary)?.set_mode(Mode::Stuck);
    let fault = Stamp::now();
    cluster.power_cut_with_bmc(&before.primary)?;
    says(&cluster, &format!("every fencing level of {} failed", before.primary))?;
    let fences = cluster.status()?.fences;
    let open = fences.iter().find(|fence| fence.node == before.primary).context("no fence")?;
    let incident = format!(" {}", open.incident.context("the fence has no incident")?);
    let asked = cluster.leader(|_| true)?;
    let block = NO_PRIMARY.block("1. No device confirms the fence", 0)?;
    cluster.follow(&asked, &block, &[("db1", &before.primary), (" 7", &incident)])?;
    let (after, outage) = cluster.wait_takeover(&before, fault, BACK)?;
    println!("{} took over after {outage:?}", after.primary);
    cluster.stop_writer().map(drop)
}

fn without_quorum(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let others: Vec<String> = cluster.plan.node_names().into_iter().filter(|name| *name != before.primary).collect();
    others.iter().try_for_each(|name| cluster.kill_daemon(name))?;
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let said = cluster.regent(&before.primary, &["status"])?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        if text.contains("NO QUORUM") && said.status.code() == Some(7) {
            println!("{text}");
            break;
        }
        ensure!(std::time::Instant::now() < end, "status does not say that there is no quorum: {text}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let stopped = |status: &Status| status.services[SERVICE].databases[&before.primary].state != "primary";
    cluster.wait("the primary to stop by itself", Duration::from_secs(60), stopped)?;
    let begun = Stamp::now();
    cluster.follow(&others[0], &NO_PRIMARY.block("3. The quorum is lost", 0)?, &[])?;
    let ack = cluster.writer()?.first_after(begun, BACK)?;
    println!("a write was served {:?} after one more daemon ran", ack.ack.since(begun));
    cluster.start_daemon(&others[1])?;
    cluster.wait_complete(BACK)?;
    cluster.stop_writer().map(drop)
}

fn recovers(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, recoveries::plan("restart"))?;
    let before = cluster.reign()?;
    let primary = cluster.host(&before.primary)?.clone();
    recoveries::write_much(&primary)?;
    cluster.wait_complete(BACK)?;
    let slowed = Slowed::to(&primary, LONG);
    let fault = Stamp::now();
    postgres::signal_postmaster(&primary, "KILL")?;
    cluster.wait("a recovery that runs", BACK, |status| {
        status.services[SERVICE].databases[&before.primary].state == "starting"
    })?;
    let begun = Stamp::now();
    let asked = cluster.leader(|_| true)?;
    cluster.follow(&asked, &NO_PRIMARY.block("4. A recovery runs", 0)?, &[])?;
    let (after, _) = cluster.wait_takeover(&before, fault, BACK)?;
    let ack = cluster.writer()?.first_after(begun, BACK)?;
    println!("{} took over {:?} after the word", after.primary, ack.ack.since(begun));
    drop(slowed);
    cluster.wait_complete(BACK)?;
    // By force: what no standby had received when the postmaster died is lost.
    cluster.judge(&[]).map(drop)
}
