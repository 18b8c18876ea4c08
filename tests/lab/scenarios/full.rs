//! Volumes that are full on the host of the primary, and freed again: what cannot be written is said on every node and
//! tried again, and nobody's database is killed for a file that could not be written.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::{Ballast, Host};
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::scenarios::restarts::nothing_moved;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(300);
/// Profile `lan`: the time for which a lease is granted.
const LEASE: Duration = Duration::from_secs(8);
/// Volumes of the first primary's host. A log needs few MiB; the database has about 100 before it is used.
const LOG_ONLY: &[(&str, &str, u32)] = &[("db1", "regent", 32)];
const LOG_AND_DATABASE: &[(&str, &str, u32)] = &[("db1", "regent", 32), ("db1", "postgresql", 400)];
const LEASE_WORDS: &str = "its lease cannot be kept for the guard";
const LEDGER_WORDS: &str = "the volume of its ledger (data_dir) is full";
const FINAL_WORDS: &str = "its final word on an epoch cannot be written";

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "run_dir_full_and_freed",
        shows: "no database is killed for it, said on every node",
        within: LONG,
        alone: false,
        run: run_dir,
    },
    Scenario {
        name: "data_dir_full_and_freed",
        shows: "the manager goes on in the room that its log keeps, nobody moves, said on every node",
        within: LONG,
        alone: false,
        run: data_dir,
    },
    Scenario {
        name: "an_application_has_its_server_log_all_it_can",
        shows: "beside a ledger on a small volume: nobody dies, nobody moves, the log is bounded",
        within: LONG,
        alone: false,
        run: chatter,
    },
    Scenario {
        name: "the_final_word_waits_for_room",
        shows: "the database died, data_dir is full: said on every node; once it is freed the service moves, no fence",
        within: LONG,
        alone: false,
        run: |world| final_word(world, true),
    },
    Scenario {
        name: "the_final_word_is_never_written",
        shows: "the database died, data_dir stays full: said on every node, its holder is fenced, the service moves",
        within: LONG,
        alone: false,
        run: |world| final_word(world, false),
    },
];

/// From now on nothing more fits into the host's `/run`.
fn fill_run(host: &Host) -> Result<()> {
    let script = "used=$(df -k --output=used /run | tail -n 1); mount -o remount,size=$((used + 64))k /run && \
                  ! cat /dev/zero > /run/ballast && ! cp /run/ballast /run/more && rm -f /run/more";
    host.run("sh", &["-c", script]).map(drop)
}

/// The room that the lease file keeps for its renewals is taken as well. A renewal may be quicker and take it back: then
/// once more.
fn fill_the_spare_too(host: &Host) -> Result<()> {
    let script = format!(
        "spare=/run/regent/{SERVICE}/lease.spare; for try in $(seq 50); do \
         rm -f $spare; cat /dev/zero >> /run/ballast 2> /dev/null; test -s $spare || exit 0; done; exit 1"
    );
    host.run("sh", &["-c", &script]).map(drop)
}

fn run_dir(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (postmasters, start) = (cluster.postmasters()?, Stamp::now());
    let names = cluster.plan.node_names();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = cluster.host(&reign.primary)?;
    let same = || -> Result<()> {
        let now = cluster.postmasters()?;
        ensure!(now == postmasters, "another postmaster runs: {postmasters:?} before, {now:?} now");
        Ok(())
    };
    fill_run(host)?;
    // The guard would know of no later end than the one before.
    std::thread::sleep(LEASE * 2);
    same()?;
    // Said at once, well before the lease ends; room in time, and nobody notices.
    fill_the_spare_too(host)?;
    let said = cluster.wait_said(&asked, &reign.primary, LEASE_WORDS, true, LEASE / 2);
    host.run("rm", &["/run/ballast"])?;
    said?;
    cluster.wait_said(&asked, &reign.primary, LEASE_WORDS, false, LEASE)?;
    std::thread::sleep(LEASE * 2);
    same()?;
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}

fn data_dir(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan { volumes: LOG_ONLY, ..Plan::default() })?;
    let reign = cluster.reign()?;
    ensure!(reign.primary == LOG_ONLY[0].0, "{} is primary", reign.primary);
    let (names, manager) = (cluster.plan.node_names(), cluster.daemon_process(&reign.primary)?);
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let (host, start) = (cluster.host(&reign.primary)?.clone(), Stamp::now());
    host.fill_volume("regent", Ballast::Bytes)?;
    cluster.wait_said(&asked, &reign.primary, LEDGER_WORDS, true, LEASE)?;
    // Every voter's log grows by these.
    let other = cluster.leader(|leader| leader != reign.primary)?;
    for word in ["pause", "resume"].repeat(10) {
        cluster.command(&other, &[word])?;
    }
    std::thread::sleep(LEASE * 4);
    host.free_volume("regent")?;
    cluster.wait_said(&asked, &reign.primary, LEDGER_WORDS, false, LEASE)?;
    let now = cluster.daemon_process(&reign.primary)?;
    ensure!(now == manager, "another manager runs: {manager} before, {now} now");
    nothing_moved(cluster, &reign, start, Duration::from_secs(2))
}

/// So large is each server's log.
const LIMIT: &str = "log_limit = \"4MiB\"";
const LIMIT_BYTES: u64 = 4 << 20;

fn chatter(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan { volumes: LOG_ONLY, database: LIMIT, ..Plan::default() })?;
    let (reign, start) = (cluster.reign()?, Stamp::now());
    ensure!(reign.primary == LOG_ONLY[0].0, "{} is primary", reign.primary);
    let (host, manager) = (cluster.host(&reign.primary)?.clone(), cluster.daemon_process(&reign.primary)?);
    let postmasters = cluster.postmasters()?;
    let many = "do $$ begin for i in 1..40000 loop raise log '%', repeat('x', 8000); end loop; end $$";
    for _ in 0..3 {
        postgres::sql(&host, many)?;
    }
    // The last look may be a quarter of a second away.
    std::thread::sleep(Duration::from_secs(1));
    let log = host.disk().join("log").join(format!("regent-{SERVICE}.log"));
    let length = |ending: &str| std::fs::metadata(log.with_extension(ending)).map_or(0, |about| about.len());
    let kept: u64 = ["log", "log.1"].iter().map(|ending| length(ending)).sum();
    println!("960 MB were logged, {} KiB are kept", kept >> 10);
    ensure!(kept > LIMIT_BYTES / 2 && kept <= 3 * LIMIT_BYTES, "{kept} bytes of the log are kept");
    let now = (cluster.daemon_process(&reign.primary)?, cluster.postmasters()?);
    ensure!(now == (manager, postmasters.clone()), "{manager} and {postmasters:?} ran before, {now:?} now");
    nothing_moved(cluster, &reign, start, Duration::from_secs(5))
}

fn final_word(world: &mut World, freed: bool) -> Result<()> {
    let plan = Plan { volumes: LOG_AND_DATABASE, on_crash: "failover", ..Plan::default() };
    let mut cluster = Cluster::start(world, plan)?;
    let before = cluster.reign()?;
    ensure!(before.primary == LOG_AND_DATABASE[0].0, "{} is primary", before.primary);
    let host = cluster.host(&before.primary)?.clone();
    // No new file: the log, which has its own, goes on.
    host.fill_volume("regent", Ballast::Files)?;
    host.fill_volume("postgresql", Ballast::Bytes)?;
    let fault = Stamp::now();
    // More than the WAL segments that are there can take: the server ends with a panic of its own.
    let much = "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 200)";
    let said = postgres::sql(&host, much).map_err(|error| format!("{error:#}"));
    let died = said.as_ref().is_err_and(|error| error.contains("connection to server was lost"));
    ensure!(died, "the server should have ended with a panic on its full volume: {said:?}");
    let names = cluster.plan.node_names();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.wait_said(&asked[1..], &before.primary, FINAL_WORDS, true, Duration::from_secs(20))?;
    cluster.wait_said(&asked[..1], &before.primary, FINAL_WORDS, true, Duration::from_secs(5))?;
    if freed {
        host.free_volume("regent")?;
    }
    let (after, outage) = cluster.wait_takeover(&before, fault, Duration::from_secs(90))?;
    println!("{} took over from {} after {outage:?}", after.primary, before.primary);
    let offs = cluster.device("ipmi", &before.primary)?.offs();
    ensure!((offs > 0) != freed, "freed: {freed}, and {} was switched off {offs} times", before.primary);
    if !freed {
        host.free_volume("regent")?;
    }
    host.free_volume("postgresql")?;
    let status = cluster.wait_complete(Duration::from_secs(120))?;
    let primary = status.services.get(SERVICE).and_then(|s| s.primary.clone()).context("it is whole")?;
    ensure!(primary == after.primary, "{primary} is primary, {} took over", after.primary);
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
