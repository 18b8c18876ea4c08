//! A database on many volumes: its WAL on one, a tablespace on another, one beside it and one within. It is copied, rewound
//! and moved like any other.

use super::nobody_else::lose_directory;
use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::pace::Act;
use crate::plan::Plan;
use crate::postgres::{self, FOLDERS};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "a_database_on_many_volumes",
        shows: "two copies, a power cut with a rewind and a switchover: everything is where it belongs",
        within: LONG,
        alone: false,
        run: many,
    },
    Scenario {
        name: "many_volumes_copied_by_a_command",
        shows: "the same by a program of the operator's, which is told of tablespaces and knows nothing of the WAL's volume",
        within: LONG,
        alone: false,
        run: many_by_a_command,
    },
];

const VOLUMES: &[(&str, &str, u32)] = &[
    ("db1", "wal", 512),
    ("db2", "wal", 512),
    ("db3", "wal", 512),
    ("db1", "space", 64),
    ("db2", "space", 64),
    ("db3", "space", 64),
];

/// The tablespaces, as every host sees them.
const SPACES: [(&str, &str); 3] =
    [("volume", "/srv/space"), ("beside", "/srv/beside"), ("within", "/srv/postgresql/data/within")];

/// Everything is there, and nothing else: rows in each tablespace, the WAL on its volume, no left-over.
fn is_whole(cluster: &Cluster, node: &str, rows: usize) -> Result<()> {
    let host = cluster.host(node)?;
    for (name, place) in SPACES {
        let count = postgres::sql(host, &format!("select count(*) from in_{name}"))?;
        ensure!(count == rows.to_string(), "{node} has {count} rows in {name}, expected {rows}");
        let held = host.run("sh", &["-c", &format!("ls -A {place}")])?;
        let held: Vec<&str> = held.split_whitespace().collect();
        ensure!(held.len() == 1 && held[0].starts_with("PG_"), "{node}: {place} holds {held:?}");
        let link = host.run("sh", &["-c", "readlink /srv/postgresql/data/pg_tblspc/*"])?;
        ensure!(link.lines().any(|to| to == place), "{node}: no tablespace is in {place}: {link}");
    }
    let wal = host.run("readlink", &["/srv/postgresql/data/pg_wal"])?;
    ensure!(wal.trim() == "/srv/wal/main", "{node}: its WAL is in {wal}");
    Ok(())
}

/// Once more a row in each, and everybody has it.
fn write(cluster: &Cluster, rows: usize) -> Result<()> {
    let primary = cluster.reign()?.primary;
    for (name, _) in SPACES {
        postgres::sql(cluster.host(&primary)?, &format!("insert into in_{name} values ({rows})"))?;
    }
    for node in cluster.plan.database_names() {
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = is_whole(cluster, &node, rows) {
            ensure!(Instant::now() < end, "{error:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// A copy of the primary that asks it where its tablespaces are, and puts them where it is told.
const BY_A_COMMAND: &str = r#"wal_dir = "/srv/wal/main"
clone_command = ["/bin/sh", "-c", '''
maps=$(printf %s "$REGENT_TABLESPACES" | while IFS== read -r name place; do
    asked="select pg_tablespace_location(oid) from pg_tablespace where spcname = '$name'"
    echo "--tablespace-mapping=$("$REGENT_BIN_DIR/psql" -XAtq -d "$2 dbname=postgres" -c "$asked")=$place"
done)
exec "$REGENT_BIN_DIR/pg_basebackup" -D "$1" -d "$2" -c fast $maps''', "copy", "{data_dir}", "{conninfo}"]"#;

fn many(world: &mut World) -> Result<()> {
    copied(world, "wal_dir = \"/srv/wal/main\"", 0)
}

fn many_by_a_command(world: &mut World) -> Result<()> {
    copied(world, BY_A_COMMAND, 2 * SPACES.len())
}

fn copied(world: &mut World, database: &'static str, asked: usize) -> Result<()> {
    let plan = Plan {
        volumes: VOLUMES,
        database,
        // The volume of the WAL is a small one.
        parameters: "wal_keep_size = \"64MB\"\nmax_wal_size = \"128MB\"",
        ..Plan::default()
    };
    let mut cluster = Cluster::start(world, plan)?;
    cluster.world.pace.allow(Act::Copy, 2, "a standby loses its directory twice, one right after the other");
    cluster.world.pace.allow(
        Act::Checkpoint,
        3,
        "a node takes over, is asked to move, and gives its service up within a minute",
    );
    if asked > 0 {
        // They come as a rewind does, and the one rewind that there is comes on top, of another node.
        cluster.world.pace.allow(
            Act::Rewind,
            asked,
            "the program asks the primary for each tablespace, in both copies",
        );
    }
    let first = cluster.reign()?;
    for node in cluster.plan.database_names() {
        let places = SPACES.map(|(_, place)| place).join(" ");
        cluster.host(&node)?.run("sh", &["-c", &format!("mkdir -p {places} && chown postgres: {places}")])?;
    }
    for (name, place) in SPACES {
        let host = cluster.host(&first.primary)?;
        postgres::sql(host, &format!("create tablespace {name} location '{place}'"))?;
        postgres::sql(host, &format!("create table in_{name} (id int) tablespace {name}"))?;
    }
    write(&cluster, 1)?;
    let standby =
        cluster.plan.database_names().into_iter().find(|name| *name != first.primary).context("there are three")?;
    for rows in 2..4 {
        lose_directory(cluster.host(&standby)?, FOLDERS[0])?;
        let copied = cluster.host(&standby)?.disk().join(FOLDERS[0]).join("data/PG_VERSION");
        let end = Instant::now() + BACK;
        while !copied.exists() {
            ensure!(Instant::now() < end, "{standby} is not copied");
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster.wait_complete(BACK)?;
        write(&cluster, rows)?;
        cluster.host(&standby)?.run("rm", &["-r", "/srv/postgresql/data-lost"])?;
    }
    let fault = Stamp::now();
    cluster.host(&first.primary)?.power_cut()?;
    let (second, outage) = cluster.wait_failover(&first, fault, Duration::from_secs(60))?;
    println!("{} took over from {} after {outage:?}", second.primary, first.primary);
    cluster.wait_complete(BACK)?;
    write(&cluster, 4)?;
    cluster.wait_movable(&second, &["switchover"])?;
    let start = Stamp::now();
    cluster.command(&second.primary, &["switchover"])?;
    let (last, _) = cluster.wait_failover(&second, start, Duration::from_secs(30)).context("the switchover")?;
    cluster.wait_complete(BACK)?;
    write(&cluster, 5)?;
    cluster.judge(&[&first.primary, &second.primary, &last.primary]).map(drop)
}
