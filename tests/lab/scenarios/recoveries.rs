//! Recoveries that take long, and one that hangs: who is waited for, who goes on instead, and that nothing is lost.

use crate::bounds::Bound;
use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::host::Host;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::ready::Wrong;
use crate::recovery::Slowed;
use crate::status::{Service, Status};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use regent::types::Lsn;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
/// No checkpoint shortens a recovery.
const NO_CHECKPOINTS: &str = "checkpoint_timeout = \"1h\"\nmax_wal_size = \"8GB\"";

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "the_best_standby_is_just_starting",
        shows: "power of the primary cut while it replays: it is waited for and appointed, not the one that lags",
        within: LONG,
        alone: false,
        run: starting,
    },
    Scenario {
        name: "the_whole_cluster_recovers_for_a_minute",
        shows: "14: the last primary resumes after a crash recovery of 60 s: nothing lost, nobody fenced",
        within: LONG,
        alone: false,
        run: minute,
    },
    Scenario {
        name: "postmaster_killed_before_a_long_recovery",
        shows: "11: kill -9: moved within 2 s to a standby that has all of the WAL, whatever a recovery would take",
        within: LONG,
        alone: true,
        run: moves,
    },
    Scenario {
        name: "postmaster_killed_and_no_standby_has_all",
        shows: "11: kill -9: recovered in place, however long it takes, where both standbys lack the last writes",
        within: LONG,
        alone: false,
        run: stays,
    },
    Scenario {
        name: "a_recovery_that_hangs",
        shows: "start_stalled ends a start without progress; the next try opens the database, and nothing moves",
        within: LONG,
        alone: false,
        run: hangs,
    },
];

pub fn plan(on_crash: &'static str) -> Plan {
    Plan { on_crash, parameters: NO_CHECKPOINTS, probers: false, ..Plan::default() }
}

/// More WAL than a startup process reads in the moments in which a slowed one runs.
pub fn write_much(host: &Host) -> Result<()> {
    postgres::sql(host, "create table ballast as select i, repeat('x', 1000) from generate_series(1, 120000) i")
        .map(drop)
}

/// Waits until everybody has been heard to have what the primary has now: looked at once a second, told in heartbeats.
fn wait_heard(cluster: &Cluster, primary: &Host) -> Result<()> {
    let end: Lsn = postgres::sql(primary, "select pg_current_wal_flush_lsn()")?.trim().parse()?;
    let has_it = |position: &Option<String>| {
        position.as_ref().and_then(|position| position.parse::<Lsn>().ok()).is_some_and(|position| position >= end)
    };
    let everybody = |service: &Service| service.databases.values().all(|database| has_it(&database.position));
    let wanted = |status: &Status| status.services.get(SERVICE).is_some_and(everybody);
    cluster.wait("everybody to be heard of", Duration::from_secs(30), wanted).map(drop)
}

/// Who received everything that the primary has flushed.
fn has_all(primary: &Host, standby: &str) -> Result<bool> {
    let question = format!(
        "select count(*) from pg_stat_replication where application_name = '{standby}' and \
         flush_lsn >= pg_current_wal_insert_lsn()"
    );
    Ok(postgres::sql(primary, &question)?.trim() == "1")
}

fn until(what: &str, mut wanted: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !wanted()? {
        ensure!(Instant::now() < end, "waited 30 s until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The sessions of a server, as its host numbers them. To ask may write WAL (hints), so it is asked beforehand.
fn sessions(host: &Host) -> Result<Vec<String>> {
    let question = "select pid from pg_stat_activity where backend_type = 'client backend'";
    Ok(postgres::sql(host, question)?.lines().map(str::to_owned).collect())
}

/// Kills the postmaster, and waits until nobody is served by what it leaves for a moment.
fn kill_postmaster(host: &Host, sessions: &[String]) -> Result<()> {
    postgres::signal_postmaster(host, "KILL")?;
    // `kill -0` says whether one of them is still there.
    let words: Vec<&str> = std::iter::once("-0").chain(sessions.iter().map(String::as_str)).collect();
    until("its sessions have ended", || Ok(!host.output("kill", &words)?.status.success()))
}

/// The primary and the standbys.
fn hosts(cluster: &Cluster, reign: &Reign) -> Result<(Arc<Host>, Vec<Arc<Host>>)> {
    let databases = cluster.hosts().into_iter().filter(|host| host.name.starts_with("db"));
    let (primary, standbys): (Vec<_>, Vec<_>) = databases.partition(|host| host.name == reign.primary);
    Ok((primary.into_iter().next().context("there is a primary")?, standbys))
}

fn starting(world: &mut World) -> Result<()> {
    // The best one is waited for until this is over.
    let failover = "choose = \"20s\"";
    let mut cluster = Cluster::start(world, Plan { failover, ..plan("auto") })?;
    cluster.world.ready.allow(Wrong::NotReady, "the best standby starts at that moment, and is waited for");
    let before = cluster.reign()?;
    let (primary, standbys) = hosts(&cluster, &before)?;
    let [best, lags] = &standbys[..] else { anyhow::bail!("there are two standbys") };
    lags.block_servers()?;
    write_much(&primary)?;
    cluster.writer()?.stand_still(true)?;
    until("the best standby has received everything", || has_all(&primary, &best.name))?;
    ensure!(!has_all(&primary, &lags.name)?, "{} does not lag", lags.name);
    let slowed = Slowed::to(best, Duration::from_secs(6));
    postgres::signal_postmaster(best, "KILL")?;
    let wanted = best.name.clone();
    cluster.wait("its database to start", Duration::from_secs(10), |status| {
        let service = status.services.get(SERVICE);
        service.and_then(|s| s.databases.get(&wanted)).is_some_and(|database| database.state == "starting")
    })?;
    let fault = Stamp::now();
    primary.power_cut()?;
    cluster.writer()?.stand_still(false)?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    ensure!(after.primary == best.name, "{} took over, and {} has more", after.primary, best.name);
    drop(slowed);
    lags.unblock_servers()?;
    cluster.wait_complete(Duration::from_secs(120))?;
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "writes were lost that {} had: {:?}", best.name, seen.lost);
    Ok(())
}

fn minute(world: &mut World) -> Result<()> {
    let least = Duration::from_secs(60);
    let mut cluster = Cluster::start(world, plan("auto"))?;
    let before = cluster.reign()?;
    let (primary, standbys) = hosts(&cluster, &before)?;
    write_much(&primary)?;
    // The primary last, so that nobody has time to take over.
    standbys.iter().try_for_each(|host| host.power_cut())?;
    primary.power_cut()?;
    let slowed = Slowed::to(&primary, least);
    let start = Stamp::now();
    cluster.hosts().iter().try_for_each(|host| host.power_on())?;
    let what = "the service to be installed under a later epoch";
    cluster.wait(what, Duration::from_secs(120), |s| {
        s.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    })?;
    let outage = cluster.writer()?.first_after(start, Duration::from_secs(30))?.ack.since(start);
    ensure!(outage >= least, "its recovery took no minute: served after {outage:?}");
    cluster.holds(outage, Bound::Started)?;
    drop(slowed);
    ensure!(cluster.reign()?.primary == before.primary, "{before:?}, and now {:?}", cluster.reign()?);
    nobody_was_fenced(&cluster)?;
    cluster.wait_complete(Duration::from_secs(120))?;
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "the last primary resumed and writes are lost: {:?}", seen.lost);
    Ok(())
}

fn nobody_was_fenced(cluster: &Cluster) -> Result<()> {
    let (status, offs) = (cluster.status()?, cluster.power_offs());
    ensure!(status.fences.is_empty(), "there is a fence: {:?}", status.fences);
    ensure!(offs.values().all(|offs| *offs == 0), "a device was told to switch off: {offs:?}");
    Ok(())
}

/// The writer stands still until both standbys have everything. Regent's own probe may write at the moment of the crash:
/// then it recovers in place, for so long, and the postmaster dies once more. Nothing is lost either way.
fn moves(world: &mut World) -> Result<()> {
    let least = Duration::from_secs(15);
    let mut cluster = Cluster::start(world, plan("auto"))?;
    let mut moved = None;
    for _ in 0..3 {
        let before = cluster.reign()?;
        let (primary, standbys) = hosts(&cluster, &before)?;
        postgres::sql(&primary, "drop table if exists ballast")?;
        write_much(&primary)?;
        cluster.writer()?.stand_still(true)?;
        wait_heard(&cluster, &primary)?;
        let sessions = sessions(&primary)?;
        let all = || standbys.iter().try_fold(true, |all, host| Ok(all && has_all(&primary, &host.name)?));
        until("both standbys have received everything", all)?;
        let _slowed = Slowed::to(&primary, least);
        let fault = Stamp::now();
        kill_postmaster(&primary, &sessions)?;
        cluster.writer()?.stand_still(false)?;
        let ack = cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(60))?;
        let (after, gap) = (cluster.reign()?, ack.ack.since(fault));
        if after.primary != before.primary {
            println!("{} took over after {gap:?}", after.primary);
            moved = Some(gap);
            break;
        }
        println!("it recovered in place, in {gap:?}");
        ensure!(gap >= least, "its recovery was short: {gap:?}");
        cluster.holds(gap, Bound::Started)?;
        cluster.wait_complete(Duration::from_secs(60))?;
    }
    let gap = moved.context("no standby ever had all of it")?;
    ensure!(gap <= Duration::from_secs(2), "writes paused for {gap:?}");
    cluster.holds(gap, Bound::Failover)?;
    cluster.wait_complete(Duration::from_secs(120))?;
    nobody_was_fenced(&cluster)?;
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "acknowledged writes were lost: {:?}", seen.lost);
    Ok(())
}

/// Breaks the primary's database; it is opened again there after `least`, nobody is fenced, and nothing is lost.
fn in_place(mut cluster: Cluster, least: Duration, act: impl FnOnce(&Cluster, &Host) -> Result<Slowed>) -> Result<()> {
    let before = cluster.reign()?;
    let (primary, standbys) = hosts(&cluster, &before)?;
    write_much(&primary)?;
    cluster.wait_complete(Duration::from_secs(30))?;
    let (slowed, sessions) = (act(&cluster, &primary)?, sessions(&primary)?);
    let fault = Stamp::now();
    kill_postmaster(&primary, &sessions)?;
    cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(90))?;
    let gap = cluster.writer()?.longest_gap_after(fault)?;
    println!("writes paused for {gap:?}");
    ensure!(gap >= least, "its recovery took no {least:?}: writes paused for {gap:?}");
    cluster.holds(gap, Bound::Started)?;
    drop(slowed);
    ensure!(cluster.reign()? == before, "it moved: {before:?}, and now {:?}", cluster.reign()?);
    standbys.iter().try_for_each(|host| host.unblock_servers().or(Ok::<_, anyhow::Error>(())))?;
    nobody_was_fenced(&cluster)?;
    cluster.wait_complete(Duration::from_secs(120))?;
    let (seen, _) = cluster.judge(&[])?;
    ensure!(seen.lost.is_empty(), "writes were lost on a disk that was never away: {:?}", seen.lost);
    Ok(())
}

fn stays(world: &mut World) -> Result<()> {
    let least = Duration::from_secs(15);
    let cluster = Cluster::start(world, plan("auto"))?;
    in_place(cluster, least, |cluster, primary| {
        let (_, standbys) = hosts(cluster, &cluster.reign()?)?;
        standbys.iter().try_for_each(|host| host.block_servers())?;
        cluster.writer()?.first_after(Stamp::now(), Duration::from_secs(10))?;
        Ok(Slowed::to(primary, least))
    })
}

fn hangs(world: &mut World) -> Result<()> {
    let stalled = Duration::from_secs(6);
    let cluster = Cluster::start(world, Plan { service: "start_stalled = \"6s\"", ..plan("restart") })?;
    let log = cluster.host(&cluster.reign()?.primary)?.log("regent");
    in_place(cluster, stalled, |_, primary| Ok(Slowed::hang_next(primary)))?;
    let said = std::fs::read_to_string(&log)?;
    let ends = said.matches("its start shows no progress").count();
    ensure!(ends == 1, "{ends} starts were ended for want of progress");
    Ok(())
}
