//! Files that people change while the service runs: a wrong line in one of the database's, and regent's own read again.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::Host;
use crate::plan::{Plan, SERVICE};
use crate::postgres;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use std::fs;
use std::io::Write;
use std::time::Duration;

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "a_wrong_line_in_the_standbys_files_and_a_power_cut",
        shows: "READY goes with file and line; without a word to anybody the service moves all the same",
        within: Duration::from_secs(240),
        alone: false,
        run: wrong_line,
    },
    Scenario {
        name: "a_file_is_read_again",
        shows: "new parameters and access lines count at once on every node; a wrong file changes nothing",
        within: Duration::from_secs(240),
        alone: false,
        run: read_again,
    },
];

const WRONG: &str = "\nidle_sesion_timeout = 5min\n";

fn append(host: &Host, line: &str) -> Result<()> {
    let path = host.disk().join("postgresql/data/postgresql.conf");
    Ok(fs::OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes())?)
}

fn wrong_line(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let before = cluster.reign()?;
    let names = cluster.plan.database_names();
    let standbys: Vec<_> = names.iter().filter(|name| **name != before.primary).collect();
    for name in &standbys {
        append(cluster.host(name)?, WRONG)?;
    }
    let fault = Stamp::now();
    cluster.host(&before.primary)?.power_cut()?;
    let (after, outage) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    println!("writes again after {outage:?}, with a wrong line on every standby");
    // It is told with file and line, and READY is gone, whoever is asked.
    let told = |reasons: &[String]| {
        let all = reasons.join("\n");
        standbys.iter().all(|name| all.contains(&format!("{name}: ")))
            && all.contains("postgresql.conf line ")
            && all.contains("idle_sesion_timeout")
    };
    cluster.wait("the wrong lines to be told", Duration::from_secs(90), |status| {
        let ready = &status.services[SERVICE].readiness;
        !ready.failover_ready && told(&ready.reasons)
    })?;
    for name in &standbys {
        let host = cluster.host(name)?;
        let path = host.disk().join("postgresql/data/postgresql.conf");
        let text = fs::read_to_string(&path)?.replace(WRONG, "\n");
        fs::write(path, text)?;
        cluster.command(name, &["reload"])?;
    }
    cluster.wait("everything to be in order", Duration::from_secs(120), |status| {
        let service = &status.services[SERVICE];
        service.readiness.failover_ready && service.is_complete()
    })?;
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.duplicates.is_empty(), "rows are there twice");
    Ok(())
}

fn read_again(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { databases: 2, witnesses: 1, ..Plan::default() })?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let reign = cluster.reign()?;
    let primary = cluster.host(&reign.primary)?.clone();
    postgres::sql(&primary, "create role app login")?;
    let file = |name: &str| cluster.host(name).map(|host| host.disk().join("regent.toml"));
    let (line, access) = ("max_connections = 50", "\"host all postgres");
    let text = fs::read_to_string(file(&reign.primary)?)?;
    ensure!(text.contains(line) && text.contains(access), "the lab's file is another one");
    // What is wrong is named, by regent's own rules and by PostgreSQL, and changes nothing.
    for (wrong, words) in [
        ("port = 99", "regent sets this parameter itself"),
        ("work_mem = \"64 megabytes\"", "expected a size"),
        ("work_mem = \"1kB\"", "outside the valid range"),
        ("shared_preload_libraries = \"no_such\"", "no_such"),
    ] {
        fs::write(file(&reign.primary)?, text.replace(line, &format!("{line}\n{wrong}")))?;
        let said = cluster.regent(&reign.primary, &["reload"])?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(!said.status.success() && error.contains(words), "{wrong}: {error}");
        let checked = cluster.regent(&reign.primary, &["config", "check", "--host"])?;
        let error = String::from_utf8_lossy(&checked.stderr).into_owned();
        ensure!(!checked.status.success() && error.contains(words), "{wrong}, checked: {error}");
    }
    let changed = |text: &str| {
        let lines = "max_connections = 60\nwork_mem = \"9MB\"";
        let access = format!("\"local postgres app trust\", {access}");
        text.replace(line, lines)
            .replace("\"host all postgres", &access)
            .replace("on_crash = \"restart\"", "on_crash = \"auto\"")
    };
    for name in cluster.plan.node_names() {
        let text = fs::read_to_string(file(&name)?)?;
        let text =
            if name == reign.primary { text.replace("\nshared_preload_libraries = \"no_such\"", "") } else { text };
        fs::write(file(&name)?, changed(&text))?;
        cluster.command(&name, &["config", "check", "--host"])?;
        let said = cluster.command(&name, &["reload"])?;
        ensure!(said.contains(&format!("needs a restart of regent: service.{SERVICE}.on_crash")), "{said}");
    }
    for name in cluster.plan.database_names() {
        let host = cluster.host(&name)?;
        let is_set = "select 1 / (current_setting('work_mem') = '9MB')::int";
        postgres::wait_for(host, is_set, Duration::from_secs(10))?;
        let lets_in = "select 1 / count(*) from pg_hba_file_rules where user_name = '{app}'";
        postgres::wait_for(host, lets_in, Duration::from_secs(10))?;
    }
    cluster.wait("what waits for a restart to be told of every node", Duration::from_secs(30), |status| {
        let databases = &status.services[SERVICE].databases;
        databases.values().all(|database| database.pending_restart == ["max_connections"])
            && status.nodes.values().all(|node| !node.config_differs)
    })?;
    // The daemon's signal does the same.
    let path = file(&reign.primary)?;
    fs::write(&path, fs::read_to_string(&path)?.replace("work_mem = \"9MB\"", "work_mem = \"10MB\""))?;
    let daemon = nix::unistd::Pid::from_raw(i32::try_from(cluster.daemon_process(&reign.primary)?)?);
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGHUP)?;
    let is_set = "select 1 / (current_setting('work_mem') = '10MB')::int";
    postgres::wait_for(&primary, is_set, Duration::from_secs(20))?;
    cluster.stays(&reign, Duration::from_secs(5))?;
    cluster.judge(&[&reign.primary])?;
    Ok(())
}
