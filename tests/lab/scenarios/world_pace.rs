//! The lab tests its judge of starts and copies: on the text of logs, and on a cluster in which a minute holds too many of
//! each kind, by faults that come too fast.

use super::nobody_else::lose_directory;
use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::pace::{self, Act, Event, Pace};
use crate::plan::Plan;
use crate::postgres::{self, FOLDERS};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "world_starts_and_copies_are_counted",
        shows: "what a server's log tells of starts, copies, rewinds and checkpoints, and how many a minute may hold",
        within: Duration::from_secs(30),
        alone: false,
        run: counted,
    },
    Scenario {
        name: "too_many_starts_and_copies_are_found",
        shows: "faults that come too fast: the judge finds a minute with too many of each kind",
        within: Duration::from_secs(300),
        alone: false,
        run: found,
    },
];

/// A copy with its checkpoint, a rewind, a checkpoint of nobody's copy; and what is none of them.
const LOG: &str = "\
1669786229.100 [10] [] LOG:  starting PostgreSQL 15.9 on x86_64-pc-linux-gnu
1669786229.200 [11] [] LOG:  checkpoint starting: end-of-recovery immediate wait
1669786230.000 [12] [[unknown]] LOG:  connection authorized: user=r database=postgres application_name=regent rejoin
1669786230.100 [13] [[unknown]] LOG:  replication connection authorized: user=r application_name=db2 SSL enabled (x)
1669786230.200 [13] [db2] LOG:  received replication command: BASE_BACKUP ( LABEL 'pg_basebackup base backup' )
1669786230.200 [13] [db2] STATEMENT:  BASE_BACKUP LOG:  starting PostgreSQL
1669786230.300 [14] [] LOG:  checkpoint starting: immediate force wait
1669786231.000 [15] [[unknown]] LOG:  connection authorized: user=r database=postgres application_name=db3 SSL enabled (x)
1669786232.000 [14] [] LOG:  checkpoint starting: time
1669786232.500 [14] [] LOG:  checkpoint starting: shutdown immediate
1669786233.000 [14] [] LOG:  checkpoint starting: immediate force wait
1669786234.000 [16] [pg_basebackup] LOG:  received replication command: BASE_BACKUP ( LABEL 'a person' )
";

fn counted(_: &mut World) -> Result<()> {
    let names: BTreeMap<String, String> = ["db1", "db2", "db3"].map(|name| (name.to_owned(), name.to_owned())).into();
    let at = |ms: u64| Duration::from_millis(1_669_786_229_000 + ms);
    let event = |database: &str, act, ms| Event { database: database.to_owned(), act, at: at(ms) };
    let expected = [
        event("db1", Act::Start, 100),
        event("db2", Act::Copy, 1200),
        event("db3", Act::Rewind, 2000),
        event("db1", Act::Checkpoint, 4000),
    ];
    let found = pace::read(LOG, "db1", &names);
    let close = |a: &Event, b: &Event| {
        a.database == b.database && a.act == b.act && a.at.abs_diff(b.at) < Duration::from_millis(1)
    };
    let same = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| close(a, b));
    ensure!(same, "the log was read as {found:#?}");

    let mut pace = Pace::default();
    pace.judge(&[]).context("a world without a cluster")?;
    pace.begins()?;
    ensure!(pace.judge(&[]).is_err(), "without a word of a start it was judged");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let starts = |seconds: &[u64]| -> Vec<Event> {
        let start = |s: &u64| Event { database: "db1".into(), act: Act::Start, at: now + Duration::from_secs(*s) };
        seconds.iter().map(start).collect()
    };
    pace.judge(&starts(&[1, 2, 3, 4])).context("four in a minute")?;
    pace.judge(&starts(&[1, 2, 3, 4, 61, 62, 63, 64])).context("four in every minute")?;
    let five = starts(&[10, 50, 51, 52, 69]);
    ensure!(pace.judge(&five).is_err(), "five within a minute that is none of the clock's");
    let mut early = starts(&[1, 2, 3, 4]);
    early[0].at = now - Duration::from_secs(1);
    early.extend(starts(&[5]));
    pace.judge(&early).context("one of five came before the cluster was whole")?;
    pace.allow(Act::Start, 5, "a test");
    pace.judge(&five).context("five are allowed")
}

fn moved_back(cluster: &Cluster, to: &str) -> Result<Reign> {
    let reign = cluster.reign()?;
    let words = ["switchover", "--to", to];
    cluster.wait_movable(&reign, &words)?;
    cluster.command(&reign.primary, &words)?;
    cluster.wait_complete(BACK)?;
    cluster.reign()
}

/// The same primary loses its power twice in a minute; a standby loses its directory twice, and its postmaster until it
/// was started too often.
fn found(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let first = cluster.reign()?;
    let cut = |cluster: &Cluster, reign: &Reign| {
        let fault = Stamp::now();
        cluster.host(&reign.primary)?.power_cut()?;
        cluster.wait_takeover(reign, fault, BACK)?;
        cluster.wait_complete(BACK).map(drop)
    };
    cut(&cluster, &first)?;
    let again = moved_back(&cluster, &first.primary)?;
    cut(&cluster, &again)?;
    let reign = cluster.reign()?;
    let standby = cluster.plan.database_names().into_iter().find(|name| *name != reign.primary);
    let standby = standby.context("there are standbys")?;
    let host = cluster.host(&standby)?.clone();
    for _ in 0..2 {
        lose_directory(&host, FOLDERS[0])?;
        restarted(&host, None)?;
        cluster.wait_complete(BACK)?;
        host.run("rm", &["-r", "/srv/postgresql/data-lost"])?;
    }
    for _ in 0..5 {
        let before = postgres::postmaster(&host)?;
        postgres::signal_postmaster(&host, "KILL")?;
        restarted(&host, Some(before))?;
    }
    for _ in 0..2 {
        postgres::sql(cluster.host(&reign.primary)?, "checkpoint")?;
    }
    cluster.stop_writer()?;
    let said = match pace::judge(cluster.world) {
        Err(found) => found.to_string(),
        Ok(()) => bail!("too many of each kind, and the judge saw nothing"),
    };
    println!("found, as it must be: {said}");
    for (act, node) in [
        (Act::Rewind, &first.primary),
        (Act::Copy, &standby),
        (Act::Start, &standby),
        (Act::Checkpoint, &reign.primary),
    ] {
        let words = format!("{act:?} of orders on {node}: ");
        ensure!(said.contains(&words), "{words}was not found");
    }
    cluster.world.pace.is_not_judged();
    Ok(())
}

/// Waits until a server answers: another postmaster than `before`.
fn restarted(host: &crate::host::Host, before: Option<String>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    let is_there = || {
        let postmaster = postgres::postmaster(host).ok().filter(|now| Some(now) != before.as_ref());
        postmaster.is_some() && postgres::sql(host, "select 1").is_ok()
    };
    while !is_there() {
        ensure!(Instant::now() < end, "no server is started on {}", host.name);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
