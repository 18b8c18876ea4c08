//! The first database is made, and something is in its way.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::plan::{Plan, SERVICE};
use crate::status::Status;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "no_room_where_the_database_is_made",
    shows: "initdb fails on the first node, which leaves a half-made directory; the next node makes the database",
    within: Duration::from_secs(120),
    alone: false,
    run: no_room,
}];

/// Less than one segment of WAL has room on the first node.
const VOLUMES: &[(&str, &str, u32)] = &[("db1", "wal", 8), ("db2", "wal", 512), ("db3", "wal", 512)];

fn no_room(world: &mut World) -> Result<()> {
    let plan = Plan {
        volumes: VOLUMES,
        database: "wal_dir = \"/srv/wal/main\"",
        parameters: "wal_keep_size = \"64MB\"\nmax_wal_size = \"128MB\"",
        ..Plan::default()
    };
    let began = Instant::now();
    let mut cluster = Cluster::start_with(world, plan, |cluster| {
        let primary = |status: &Status| {
            status.services.get(SERVICE).filter(|service| service.phase == "installed")?.primary.clone()
        };
        let status = cluster.wait("another node's database", Duration::from_secs(60), |status| {
            primary(status).is_some_and(|primary| primary != "db1")
        })?;
        println!("made on {} after {:?}", primary(&status).unwrap_or_default(), began.elapsed());
        // It has room for a copy now.
        cluster.host("db1")?.enlarge_volume("wal", 512)
    })?;
    let reign = cluster.reign()?;
    ensure!(reign.primary != "db1", "db1 made it after all");
    cluster.judge(&[&reign.primary]).map(drop)
}
