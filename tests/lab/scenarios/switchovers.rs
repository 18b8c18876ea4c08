//! The operator moves the primary: to a named node, to the best one, not at all, and only on paper.

use crate::cluster::{Cluster, Reign};
use crate::harness::Scenario;
use crate::host::{DISK, Host};
use crate::pace::Act;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);

pub const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "switchover",
        shows: "13: to a named and to the best candidate, under load",
        within: LONG,
        alone: false,
        run: moves,
    },
    Scenario {
        name: "switchover_refused",
        shows: "13: a candidate that lags, is off, or is no database",
        within: LONG,
        alone: false,
        run: refused,
    },
    Scenario {
        name: "switchover_dry_run",
        shows: "13: prints the plan and changes nothing",
        within: LONG,
        alone: false,
        run: dry,
    },
    Scenario {
        name: "switchover_whose_stop_does_not_end",
        shows: "a session that no stop ends, and standbys that are behind: the primary goes on, and nothing is lost",
        within: LONG,
        alone: false,
        run: stop_does_not_end,
    },
];

/// Moves the primary and returns where it is. Writes pause for a moment.
fn switch(cluster: &Cluster, to: Option<&str>) -> Result<Reign> {
    let before = cluster.reign()?;
    let start = Stamp::now();
    let words: Vec<&str> = ["switchover"].into_iter().chain(to.into_iter().flat_map(|to| ["--to", to])).collect();
    cluster.wait_movable(&before, &words)?;
    cluster.command(&before.primary, &words)?;
    let (after, _) = cluster.wait_failover(&before, start, Duration::from_secs(30))?;
    let gap = cluster.writer()?.longest_gap_after(start)?;
    println!("switchover from {} to {}: writes paused for {gap:?}", before.primary, after.primary);
    ensure!(
        to.is_none_or(|to| to == after.primary),
        "{} was asked for, {} is primary",
        to.unwrap_or(""),
        after.primary
    );
    ensure!(gap < Duration::from_secs(5), "writes paused for {gap:?}");
    cluster.wait_complete(Duration::from_secs(60))?;
    Ok(after)
}

fn moves(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "a node is promoted and gives its service up again within a minute");
    let first = cluster.reign()?;
    let named = standby(&cluster, &first)?;
    let second = switch(&cluster, Some(&named))?;
    let third = switch(&cluster, None)?;
    for name in cluster.plan.database_names() {
        ensure!(cluster.device("ipmi", &name)?.offs() == 0, "a switchover fenced {name}");
    }
    let (seen, _) = cluster.judge(&[&first.primary, &second.primary, &third.primary])?;
    ensure!(seen.lost.is_empty(), "a switchover lost acknowledged writes: {:?}", seen.lost);
    Ok(())
}

fn standby(cluster: &Cluster, reign: &Reign) -> Result<String> {
    let names = cluster.plan.database_names();
    // The last one: not the one that would be chosen anyway.
    names.into_iter().rfind(|name| *name != reign.primary).context("there is no standby")
}

/// Stops or continues the standby's WAL receiver.
pub(super) fn signal_receiver(host: &Host, signal: &str) -> Result<()> {
    let script = format!(
        "for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline | grep -q '^postgres: .*walreceiver'; then \
         kill -s {signal} ${{p#/proc/}} && found=1; fi; done; test -n \"$found\""
    );
    host.run("sh", &["-c", &script]).map(drop)
}

/// `why`: what the refusal says of it, in one of these words.
fn must_refuse(cluster: &Cluster, before: &Reign, to: &str, why: &[&str]) -> Result<()> {
    let output = cluster.regent(&before.primary, &["switchover", "--to", to])?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("to {to}: {}", said.trim());
    ensure!(output.status.code() == Some(3), "a switchover to {to} ended with {}, expected 3: {said}", output.status);
    let is_named = said.contains(to) && why.iter().any(|why| said.contains(why));
    ensure!(is_named, "the refusal does not name {to} and any of {why:?}: {said}");
    ensure!(cluster.reign()? == *before, "a refused switchover moved the primary");
    Ok(())
}

fn refused(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { witnesses: 1, ..Plan::default() })?;
    let before = cluster.reign()?;
    must_refuse(&cluster, &before, "w1", &["it is a witness"])?;

    let lagging = standby(&cluster, &before)?;
    let host = cluster.host(&lagging)?.clone();
    signal_receiver(&host, "STOP")?;
    let much = "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 64)";
    postgres::sql(cluster.host(&before.primary)?, much)?;
    // The lag is known once the next heartbeats have told of both positions.
    std::thread::sleep(Duration::from_secs(2));
    let answer = must_refuse(&cluster, &before, &lagging, &["behind"]);
    signal_receiver(&host, "CONT")?;
    answer?;

    host.power_cut()?;
    cluster.wait("the standby to be seen dead", Duration::from_secs(30), |s| s.nodes[&lagging].state != "up")?;
    // Whichever the leader finds first: its own view, its ledger, or that the last word of it is old.
    let gone = ["it is suspected", "it is declared dead", "nothing recent is known"];
    must_refuse(&cluster, &before, &lagging, &gone)?;
    cluster.judge(&[&before.primary]).map(drop)
}

/// A session of the primary waits for a pipe that nobody writes to, and no standby gets the last of its WAL. Its stop takes
/// longer than a lease lasts, and then it is no stop in order.
fn stop_does_not_end(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { service: "stop_fast = \"12s\"", ..Plan::default() })?;
    cluster.world.pace.allow(Act::Checkpoint, 2, "the primary is to give its service up, and is opened again");
    let before = cluster.reign()?;
    let to = standby(&cluster, &before)?;
    let primary = cluster.host(&before.primary)?.clone();
    let pipe = format!("{DISK}/postgresql/pipe");
    primary.run("mkfifo", &["-m", "666", &pipe])?;
    let mut session = postgres::start_session(&primary, &format!("select pg_read_file('{pipe}')"))?;
    // An error until the session is there, and open for long enough to be warned of.
    let waits = "select 1 / count(*) from pg_stat_activity where state = 'active' and query like 'select pg_read_file%' \
                 and xact_start < clock_timestamp() - interval '1 second'";
    postgres::wait_for(&primary, waits, Duration::from_secs(10))?;
    let standbys: Vec<_> = cluster.plan.database_names().into_iter().filter(|name| *name != before.primary).collect();
    for name in &standbys {
        cluster.wait_movable(&before, &["switchover", "--to", name])?;
        signal_receiver(cluster.host(name)?, "STOP")?;
    }
    let start = Stamp::now();
    let output = cluster.regent(&before.primary, &["switchover", "--to", &to])?;
    for name in &standbys {
        // One that was made to follow another, or was started anew, has no stopped receiver any more.
        drop(signal_receiver(cluster.host(name)?, "CONT"));
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{}", said.trim());
    ensure!(output.status.code() == Some(1), "a move that did not happen ended with {}: {said}", output.status);
    let warning = format!("warning: transactions that are open on {} for longer than a second", before.primary);
    ensure!(said.contains(&warning), "what it would meet was not said: {said}");
    let again = |status: &Status| {
        let of = status.services.get(SERVICE);
        of.is_some_and(|s| s.phase == "installed" && s.epoch > before.epoch && s.primary.is_some())
    };
    cluster.wait("a primary again", Duration::from_secs(60), again)?;
    let after = cluster.reign()?;
    ensure!(after.primary == before.primary, "{} is primary, which did not have all", after.primary);
    cluster.writer()?.first_after(start, Duration::from_secs(30))?;
    println!("writes paused for {:?}", cluster.writer()?.longest_gap_after(start)?);
    session.kill()?;
    session.wait()?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let (seen, _) = cluster.judge(&[&before.primary])?;
    ensure!(seen.lost.is_empty(), "a planned move lost acknowledged writes: {:?}", seen.lost);
    Ok(())
}

fn dry(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let to = standby(&cluster, &reign)?;
    let start = Stamp::now();
    cluster.wait_movable(&reign, &["switchover", "--to", &to])?;
    // A client forgot its transaction. Every node says so, whoever leads and whoever is asked.
    let host = cluster.host(&reign.primary)?;
    let mut session = postgres::start_session(host, "begin; select pg_current_xact_id(); select pg_sleep(600)")?;
    let old = "select 1 / count(*) from pg_stat_activity where query like '%sleep%' and pid <> pg_backend_pid() \
               and xact_start < clock_timestamp() - interval '1 second'";
    postgres::wait_for(host, old, Duration::from_secs(10))?;
    for host in cluster.hosts() {
        let plan = cluster.command(&host.name, &["switchover", "--to", &to, "--dry-run"])?;
        println!("{plan}");
        ensure!(plan.contains(&to) && plan.contains(&reign.primary), "the plan does not name both nodes: {plan}");
        ensure!(plan.contains("would be cut off: pid"), "nobody would be cut off: {plan}");
        ensure!(plan.contains(&format!("{to} has replayed all")) || plan.contains("left to replay"), "{plan}");
        ensure!(plan.contains("It would begin now."), "a session keeps it from being begun: {plan}");
    }
    session.kill()?;
    session.wait()?;
    cluster.stays(&reign, Duration::from_secs(5))?;
    let gap = cluster.writer()?.longest_gap_after(start)?;
    ensure!(gap < Duration::from_secs(1), "a dry run stopped writes for {gap:?}");
    cluster.judge(&[&reign.primary]).map(drop)
}
