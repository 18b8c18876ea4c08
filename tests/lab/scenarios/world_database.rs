//! The lab tests its clients and its judge, with real PostgreSQL and without regent.

use crate::client::oracle::{self, Commit};
use crate::client::prober;
use crate::client::writer::{Writer, compare};
use crate::harness::Scenario;
use crate::network::Net;
use crate::postgres;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "world_writer_and_probers",
        shows: "one primary: nothing lost, one tenure",
        within: LONG,
        alone: false,
        run: one,
    },
    Scenario {
        name: "world_two_writers_are_found",
        shows: "two primaries: the oracle says so",
        within: LONG,
        alone: false,
        run: two,
    },
    Scenario {
        name: "world_oracle_arithmetic",
        shows: "overlaps and turns, on made-up stamps",
        within: LONG,
        alone: false,
        run: arithmetic,
    },
];

fn one(world: &mut World) -> Result<()> {
    let (db, client) = (world.add_host("db1")?, world.add_host("client")?);
    db.power_on()?;
    client.power_on()?;
    let _server = postgres::start_plain(&db)?;
    let _prober = prober::start(&db, &postgres::data_dir())?;
    let addresses = [db.address(Net::Primary), db.address(Net::Secondary), Net::Primary.address(99)];
    let writer = Writer::start(&client, postgres::PORT, &addresses, Duration::from_millis(5))?;
    writer.first_after(Stamp::now(), Duration::from_secs(10))?;

    // The network under the writer's feet goes: it finds the way over the other one.
    let first = writer.acks()?.pop().expect("one was acknowledged").address;
    let net = if first == addresses[0] { Net::Primary } else { Net::Secondary };
    db.link_down(net)?;
    let moved = writer.first_after(Stamp::now(), Duration::from_secs(10))?;
    ensure!(moved.address != first, "the writer says that it writes over a cut network");
    println!("gap while the network changed: {:?}", writer.longest_gap_after(Stamp::default())?);
    db.link_up(net)?;

    // A frozen server acknowledges nothing, and goes on where it was.
    db.freeze()?;
    let frozen = Stamp::now();
    std::thread::sleep(Duration::from_millis(500));
    db.thaw()?;
    let thawed = writer.first_after(frozen, Duration::from_secs(10))?;
    ensure!(thawed.ack.since(frozen) >= Duration::from_millis(450), "a frozen server acknowledged a write");

    let enough = Instant::now() + Duration::from_secs(20);
    while writer.acks()?.len() < 100 || prober::commits(&db)?.len() < 100 {
        ensure!(Instant::now() < enough, "only {} writes in all", writer.acks()?.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    let acks = writer.stop()?;
    let mut seen = compare(&acks, &postgres::written_ids(&db)?);
    ensure!(seen.lost.is_empty() && seen.duplicates.is_empty(), "without a failover: {seen:?}");
    oracle::judge(prober::commits(&db)?, &["db1"])?;

    // The comparison can fail.
    let (gone, doubled) = (acks[7].id, acks[9].id);
    let harm = format!("delete from lab_writes where id = {gone}; insert into lab_writes (id) values ({doubled})");
    postgres::sql(&db, &harm)?;
    seen = compare(&acks, &postgres::written_ids(&db)?);
    ensure!(seen.lost == [gone] && seen.duplicates == [doubled], "a lost and a doubled row were not found: {seen:?}");
    Ok(())
}

fn two(world: &mut World) -> Result<()> {
    let (a, b) = (world.add_host("db1")?, world.add_host("db2")?);
    for host in [&a, &b] {
        host.power_on()?;
        postgres::start_plain(host)?;
        prober::start(host, &postgres::data_dir())?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let mut commits = prober::commits(&a)?;
    commits.extend(prober::commits(&b)?);
    let verdict = oracle::tenures(commits);
    ensure!(verdict.is_err(), "two primaries at once were not found: {verdict:?}");
    println!("{:#}", verdict.unwrap_err());
    Ok(())
}

fn arithmetic(_: &mut World) -> Result<()> {
    let commit = |host: &str, start, ack| Commit { host: host.into(), start: Stamp(start), ack: Stamp(ack) };
    let clean = vec![commit("a", 1, 3), commit("a", 2, 5), commit("b", 6, 7)];
    ensure!(oracle::judge(clean.clone(), &["a", "b"]).is_ok(), "a clean handover was refused");
    ensure!(oracle::judge(clean, &["a"]).is_err(), "a handover that nobody expected was accepted");
    // The commit that reaches into the other's tenure is not the last that began.
    let overlap = vec![commit("a", 1, 9), commit("a", 2, 3), commit("b", 6, 7)];
    ensure!(oracle::tenures(overlap).is_err(), "an overlap was not found");
    let turns = vec![commit("a", 1, 2), commit("b", 3, 4), commit("a", 5, 6)];
    ensure!(oracle::judge(turns, &["a", "b"]).is_err(), "a writer that came back was not found");
    Ok(())
}
