//! A database of 4 GB, half of it in a tablespace, its WAL on a volume of its own: what takes no time when there is nothing
//! to copy. Every row happens three times; its figures are printed, and what regent promises is held against them.
//!
//! It runs when it is asked for by its name alone (`make lab-large`): it takes its time, and tens of gigabytes.

use crate::bounds::Bound;
use crate::cluster::{Cluster, Reign};
use crate::harness::{Scenario, skip};
use crate::host::Host;
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::recovery::Slowed;
use crate::seed;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::time::{Duration, Instant};

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "large_database",
    shows: "4 GB, a tablespace and WAL on volumes: power cuts, recoveries of 60 s, copies, rewinds and switchovers",
    within: Duration::from_secs(2400),
    alone: true,
    run: large,
}];

const TIMES: usize = 3;
/// Within which a database of this size is whole again, whatever happened to it.
const WHOLE: Duration = Duration::from_secs(600);
const RECOVERY: Duration = Duration::from_secs(60);

const VOLUMES: &[(&str, &str, u32)] = &[("db1", "wal", 2048), ("db2", "wal", 2048), ("db3", "wal", 2048)];
const PARAMETERS: &str = "wal_keep_size = \"256MB\"\nmax_wal_size = \"1GB\"\nmax_slot_wal_keep_size = \"512MB\"\n\
    checkpoint_timeout = \"30min\"";

/// One kind of fault, and how long each time took.
struct Row {
    name: &'static str,
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl Row {
    fn print(&self) {
        let mut took = self.took.clone();
        took.sort();
        match &took[..] {
            [] => println!("{}: no run was measured", self.name),
            [smallest, .., largest] | [smallest @ largest] => println!(
                "{}: median {} ms, min {} ms, max {} ms, {} runs",
                self.name,
                took[took.len() / 2].as_millis(),
                smallest.as_millis(),
                largest.as_millis(),
                took.len()
            ),
        }
        self.failed.iter().for_each(|why| println!("  failed: {why}"));
    }
}

type Fault = fn(&Cluster, &Reign) -> Result<Duration>;

const ROWS: [(&str, Fault); 5] = [
    ("power cut of the primary: writes not served", power_cut),
    ("power cut of every host, recovery of 60 s: writes not served from the return of power on", whole_cluster),
    ("directory of a standby lost: until everybody streams", copied),
    ("8 MiB that nobody else has, power cut: until the old primary is rewound and streams", rewound),
    ("switchover: writes not served", switchover),
];

fn large(world: &mut World) -> Result<()> {
    if let Err(missing) = seed::has_room(&world.directory, seed::ROOM_GB)? {
        return skip(missing);
    }
    let start = Instant::now();
    let seed = seed::ready()?;
    println!("the seed was ready after {:.0?}", start.elapsed());
    let plan = Plan {
        volumes: VOLUMES,
        database: "wal_dir = \"/srv/wal/main\"",
        parameters: PARAMETERS,
        // To copy the seed is to create the database, for which an appointee has this long.
        failover: "install = \"3m\"",
        probers: false,
        seed: Some(seed),
        whole_within: WHOLE,
        ..Plan::default()
    };
    let mut cluster = Cluster::start(world, plan)?;
    println!("copied to every host and whole after {:.0?}", start.elapsed());
    for (act, number) in [(Act::Start, 6), (Act::Copy, 3), (Act::Rewind, 3), (Act::Checkpoint, 6)] {
        cluster.world.pace.allow(act, number, "one fault follows another, and the next comes when the last has healed");
    }
    let mut rows = Vec::new();
    for (name, fault) in ROWS {
        // The one before may have failed, and left it broken.
        cluster.hosts().iter().try_for_each(|host| host.power_on())?;
        if let Err(error) = whole(&cluster) {
            rows.iter().for_each(Row::print);
            return Err(error.context(format!("before {name:?}")));
        }
        let mut row = Row { name, took: Vec::new(), failed: Vec::new() };
        for number in 1..=TIMES {
            let done = cluster.reign().and_then(|before| {
                let took = fault(&cluster, &before)?;
                whole(&cluster)?;
                Ok(took)
            });
            match done {
                Ok(took) => row.took.push(took),
                Err(error) => row.failed.push(format!("run {number}: {error:#}")),
            }
            if !row.failed.is_empty() {
                break;
            }
            println!("{name}, run {number}: {:?}, at {:.0?}", row.took.last(), start.elapsed());
        }
        rows.push(row);
    }
    rows.iter().for_each(Row::print);
    let failed: usize = rows.iter().map(|row| row.failed.len()).sum();
    ensure!(failed == 0, "{failed} runs failed");
    cluster.judge(&[]).map(drop)
}

/// Everybody streams, and a failover would succeed. What a copy replaced is not kept here.
fn whole(cluster: &Cluster) -> Result<()> {
    cluster.wait("a whole cluster", WHOLE, |status| {
        status.fences.is_empty()
            && status.services.get(SERVICE).is_some_and(|s| s.is_complete() && s.readiness.failover_ready)
    })?;
    for node in cluster.plan.database_names() {
        let host = cluster.host(&node)?;
        holds_everything(host)?;
        host.run("sh", &["-c", "rm -rf /srv/*.replaced-* /srv/postgresql/*.replaced-*"])?;
    }
    let left = seed::has_room(&cluster.world.directory, seed::LEFT_GB)?;
    left.map_err(|missing| anyhow!("it ends here: {missing}"))
}

/// The tables are whole by their indexes, and lie where they belong.
fn holds_everything(host: &Host) -> Result<()> {
    for table in seed::TABLES {
        let question = format!("select count(*) from {table} where id in (1, {0} / 2, {0})", seed::ROWS);
        let rows = postgres::sql(host, &question)?;
        ensure!(rows == "3", "{}: {rows} of 3 rows of {table}", host.name);
    }
    let places = host.run("readlink", &["/srv/postgresql/data/pg_wal"])?;
    ensure!(places.trim() == "/srv/wal/main", "the WAL of {} is in {places}", host.name);
    let links = host.run("sh", &["-c", "readlink /srv/postgresql/data/pg_tblspc/*"])?;
    ensure!(links.trim() == seed::SPACE, "the tablespace of {} is in {links}", host.name);
    Ok(())
}

fn power_cut(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    Ok(cluster.wait_failover(before, fault, Duration::from_secs(120))?.1)
}

/// Pages all over both tables, so that each is in the WAL as a whole.
fn write_much(host: &Host) -> Result<()> {
    postgres::sql(host, "checkpoint")?;
    for table in seed::TABLES {
        let statement = format!("update {table} set filler = filler where id % 100 = (random() * 99)::int");
        postgres::sql(host, &statement)?;
    }
    Ok(())
}

fn whole_cluster(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    let primary = cluster.host(&before.primary)?.clone();
    write_much(&primary)?;
    let (last, first): (Vec<_>, Vec<_>) = cluster.hosts().into_iter().partition(|host| host.name == before.primary);
    first.iter().chain(&last).try_for_each(|host| host.power_cut())?;
    let slowed = Slowed::to(&primary, RECOVERY);
    let start = Stamp::now();
    cluster.hosts().iter().try_for_each(|host| host.power_on())?;
    cluster.wait("the service to be installed under a later epoch", WHOLE, |s| {
        s.services.get(SERVICE).is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch)
    })?;
    let outage = cluster.writer()?.first_after(start, Duration::from_secs(60))?.ack.since(start);
    drop(slowed);
    let after = cluster.reign()?;
    ensure!(after.primary == before.primary, "{before:?}, and now {after:?}");
    ensure!(outage >= RECOVERY, "its recovery took less than {RECOVERY:?}: served after {outage:?}");
    cluster.holds(outage, Bound::Started)?;
    Ok(outage)
}

fn a_standby(cluster: &Cluster, reign: &Reign) -> Result<String> {
    let names = cluster.plan.database_names();
    names.into_iter().rfind(|name| *name != reign.primary).context("there is no standby")
}

fn copied(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    let standby = a_standby(cluster, before)?;
    let host = cluster.host(&standby)?.clone();
    let start = Stamp::now();
    let postmaster = postgres::postmaster(&host)?;
    let lose = format!("cd /srv/postgresql && mv data lost && kill -9 {postmaster} && rm -r lost");
    host.run("sh", &["-c", &lose])?;
    let copied = host.disk().join("postgresql/data/PG_VERSION");
    let end = Instant::now() + WHOLE;
    while !copied.exists() {
        ensure!(Instant::now() < end, "{standby} is not copied");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.wait_complete(WHOLE)?;
    let took = Stamp::now().since(start);
    ensure!(cluster.reign()? == *before, "it moved: {before:?}, and now {:?}", cluster.reign()?);
    Ok(took)
}

fn rewound(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    let old = cluster.host(&before.primary)?.clone();
    let rewinds = || Ok::<_, anyhow::Error>(std::fs::read_to_string(old.log("regent"))?.matches("rewound").count());
    let (earlier, fault) = (rewinds()?, Stamp::now());
    let standbys: Vec<String> =
        cluster.plan.database_names().into_iter().filter(|name| *name != before.primary).collect();
    standbys.iter().try_for_each(|name| cluster.host(name)?.block_servers())?;
    let lost = "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 8)";
    let written = postgres::sql(&old, lost);
    old.power_cut()?;
    standbys.iter().try_for_each(|name| cluster.host(name)?.unblock_servers())?;
    written?;
    cluster.wait_takeover(before, fault, Duration::from_secs(120))?;
    cluster.wait_complete(WHOLE)?;
    let took = Stamp::now().since(fault);
    if rewinds()? == earlier {
        bail!("{} was not rewound", before.primary);
    }
    Ok(took)
}

fn switchover(cluster: &Cluster, before: &Reign) -> Result<Duration> {
    cluster.wait_movable(before, &["switchover"])?;
    let start = Stamp::now();
    cluster.command(&before.primary, &["switchover"])?;
    cluster.wait_failover(before, start, Duration::from_secs(60))?;
    cluster.writer()?.longest_gap_after(start)
}
