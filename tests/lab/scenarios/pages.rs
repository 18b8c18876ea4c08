//! Pages for operators, followed word by word: what they say to type is typed, and what they promise comes of it.
//!
//! Not here: which command of a page runs how (`page.rs`).

use super::copies::wins;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::page::RECOVERY;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::Service;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(360);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "page_a_lost_directory",
        shows: "docs/recovery.md: one that is gone needs nobody, on a standby and on the primary; a spoilt one is moved away",
        within: LONG,
        alone: false,
        run: directory,
    },
    Scenario {
        name: "page_a_lost_volume",
        shows: "docs/recovery.md: the volume of a standby's WAL does not come back; an empty one takes its place",
        within: LONG,
        alone: false,
        run: volume,
    },
    Scenario {
        name: "page_a_restore_to_a_moment",
        shows: "docs/recovery.md: a base backup, the archive up to the moment before a table was emptied, and that copy wins",
        within: LONG,
        alone: false,
        run: restore,
    },
    Scenario {
        name: "page_what_a_failover_lost",
        shows: "docs/recovery.md: the row that no standby had is listed on the host of the former primary",
        within: LONG,
        alone: false,
        run: lost,
    },
];

fn a_standby(cluster: &Cluster, primary: &str) -> Result<String> {
    let names = cluster.plan.database_names();
    names.into_iter().rfind(|name| name != primary).context("there is no standby")
}

/// Everybody streams, and that node runs in a directory that was copied: the mark of the old one is not in it.
fn copied(cluster: &Cluster, node: &str) -> Result<()> {
    let data = cluster.host(node)?.disk().join("postgresql/data");
    let end = Instant::now() + BACK;
    while !data.join("PG_VERSION").exists() || data.join("old-one").exists() {
        ensure!(Instant::now() < end, "{node} was not copied");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.wait_complete(BACK).map(drop)
}

fn directory(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Copy, 3, "a standby loses its directory three times, one right after the other");
    let before = cluster.reign()?;
    let standby = a_standby(&cluster, &before.primary)?;
    let vanish = |node: &str| {
        cluster
            .host(node)?
            .run("sh", &["-c", "cd /srv/postgresql && mv data gone && until rm -rf gone; do sleep 0.05; done"])
    };
    vanish(&standby)?;
    copied(&cluster, &standby)?;

    cluster.host(&standby)?.run("touch", &["/srv/postgresql/data/old-one"])?;
    cluster.follow(&standby, &RECOVERY.block("A lost directory", 0)?, &[("db2", &standby)])?;
    copied(&cluster, &standby)?;

    cluster.host(&standby)?.run("touch", &["/srv/postgresql/data/old-one"])?;
    cluster.follow(&standby, &RECOVERY.block("A lost directory", 1)?, &[])?;
    copied(&cluster, &standby)?;

    let fault = Stamp::now();
    vanish(&before.primary)?;
    let (after, outage) = cluster.wait_takeover(&before, fault, BACK)?;
    println!("{} took over {outage:?} after the directory of {} was gone", after.primary, before.primary);
    copied(&cluster, &before.primary)?;
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}

const VOLUMES: &[(&str, &str, u32)] = &[("db1", "wal", 512), ("db2", "wal", 512), ("db3", "wal", 512)];

fn volume(world: &mut World) -> Result<()> {
    let plan = Plan {
        volumes: VOLUMES,
        database: "wal_dir = \"/srv/wal/main\"",
        parameters: "wal_keep_size = \"64MB\"\nmax_wal_size = \"128MB\"",
        ..Plan::default()
    };
    let mut cluster = Cluster::start(world, plan)?;
    let before = cluster.reign()?;
    let standby = a_standby(&cluster, &before.primary)?;
    let host = cluster.host(&standby)?.clone();
    host.run("touch", &["/srv/postgresql/data/old-one"])?;
    host.power_cut()?;
    host.lose_volume("wal")?;
    host.power_on()?;
    cluster.wait_said(&[&standby], &standby, "which is not mounted", true, Duration::from_secs(60))?;
    cluster.follow(&standby, &RECOVERY.block("A lost volume", 0)?, &[])?;
    copied(&cluster, &standby)?;
    let wal = host.run("readlink", &["/srv/postgresql/data/pg_wal"])?;
    ensure!(wal.trim() == "/srv/wal/main", "its WAL is in {wal}");
    host.run("mountpoint", &["/srv/wal"])?;
    ensure!(cluster.reign()? == before, "it moved: {before:?}, and now {:?}", cluster.reign()?);
    cluster.judge(&[&before.primary]).map(drop)
}

const ARCHIVING: &str = "archive_mode = \"on\"\n\
    archive_command = \"cp %p /srv/backup/wal/.%f && mv /srv/backup/wal/.%f /srv/backup/wal/%f\"";

fn restore(world: &mut World) -> Result<()> {
    let plan = Plan {
        shared: Some("backup"),
        hba: &["local replication postgres peer"],
        parameters: ARCHIVING,
        ..Plan::default()
    };
    let mut cluster = Cluster::start(world, plan)?;
    let before = cluster.reign()?;
    let primary = cluster.host(&before.primary)?.clone();
    let below = "Backup and point-in-time restore";
    postgres::sql(&primary, "create table orders as select generate_series(1, 100) id")?;
    cluster.follow(&before.primary, &RECOVERY.block(below, 0)?, &[])?;
    postgres::sql(&primary, "insert into orders values (101)")?;
    let moment = postgres::sql(&primary, "select clock_timestamp()")?;
    postgres::sql(&primary, "delete from orders")?;
    let last = postgres::sql(&primary, "select pg_walfile_name(pg_switch_wal())")?;
    let archived = format!("select 1 / (last_archived_wal >= '{last}')::int from pg_stat_archiver");
    postgres::wait_for(&primary, &archived, Duration::from_secs(30))?;

    let (below, standby) = ("Restore to a moment", a_standby(&cluster, &before.primary)?);
    let given = [("2026-11-30 01:45:00+00", moment.as_str())];
    cluster.follow(&standby, &RECOVERY.block(below, 0)?, &given)?;
    let (ask, end) = (RECOVERY.block(below, 1)?, Instant::now() + Duration::from_secs(60));
    let rows = loop {
        match cluster.follow(&standby, &ask, &[]) {
            Ok(rows) => break rows,
            Err(error) => ensure!(Instant::now() < end, "the restored copy does not answer: {error:#}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    ensure!(rows.trim() == "101", "the restored copy has {rows} rows of 101");
    cluster.follow(&standby, &RECOVERY.block(below, 2)?, &[])?;
    cluster.host(&standby)?.run("test", &["!", "-e", "/srv/postgresql/restored/recovery.signal"])?;
    let now = postgres::sql(&primary, "select count(*) from orders")?;
    ensure!(now == "0" && cluster.reign()? == before, "the service was touched: {now} rows");
    cluster.wait_complete(BACK)?;
    cluster.judge(&[&before.primary])?;

    cluster.follow(&standby, &RECOVERY.block("Bring the restored copy in", 0)?, &[("db2", &standby)])?;
    wins(&cluster, &standby, before.epoch, ("orders", "101"))
}

fn lost(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let before = cluster.reign()?;
    let primary = cluster.host(&before.primary)?.clone();
    postgres::sql(&primary, "create table orders (id int)")?;
    let everybody = |service: &Service| service.is_complete();
    cluster.wait("everybody", BACK, |status| status.services.get(SERVICE).is_some_and(everybody))?;
    for name in cluster.plan.database_names() {
        postgres::wait_for(cluster.host(&name)?, "select from orders", Duration::from_secs(30))?;
    }
    let standbys: Vec<String> =
        cluster.plan.database_names().into_iter().filter(|name| *name != before.primary).collect();
    standbys.iter().try_for_each(|name| cluster.host(name)?.block_servers())?;
    postgres::sql(&primary, "insert into orders values (1), (2), (3)")?;
    let fault = Stamp::now();
    primary.power_cut()?;
    standbys.iter().try_for_each(|name| cluster.host(name)?.unblock_servers())?;
    let (after, _) = cluster.wait_takeover(&before, fault, BACK)?;
    cluster.wait_complete(BACK)?;
    let incident = cluster.explain(None)?.summary.id.to_string();
    let said = cluster.follow(
        &before.primary,
        &RECOVERY.block("What a failover lost", 0)?,
        &[(" 7", &format!(" {incident}"))],
    )?;
    println!("{said}");
    ensure!(said.contains("postgres.public.orders: 3 inserted"), "the lost rows are not listed: {said}");
    cluster.judge(&[&before.primary, &after.primary]).map(drop)
}
