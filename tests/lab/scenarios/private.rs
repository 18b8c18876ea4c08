//! Replication that is kept private: a full round in each way in which it can be set up, a running cluster that gets its
//! certificates, and a manager's port as the database's user sees it.

use super::nobody_else::lose_directory;
use super::restarts::nothing_moved;
use crate::cluster::{Cluster, DATABASE_FILES};
use crate::harness::Scenario;
use crate::host::{DISK, Host};
use crate::network::Net;
use crate::pace::Act;
use crate::plan::{CONFIG, ODD_PASSWORD, OPEN, Plan, Replication};
use crate::postgres::{self, FOLDERS};
use crate::restart::Ending;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(120);

pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "replication_by_certificates",
        shows: "power cut, rewind, copy, switchover: every connection by TLS and by certificate",
        within: LONG,
        alone: false,
        run: |world| full_round(world, Replication::Certificates),
    },
    Scenario {
        name: "replication_with_a_password_beside",
        shows: "the same with a password beside the certificates",
        within: LONG,
        alone: false,
        run: |world| full_round(world, Replication::Password),
    },
    Scenario {
        name: "replication_by_a_companys_certificates",
        shows: "the same with certificates of an operator's own CA",
        within: LONG,
        alone: false,
        run: |world| full_round(world, Replication::Company),
    },
    Scenario {
        name: "replication_over_ipv6_with_odd_names_whose_password_is_changed",
        shows: "the same over IPv6, with a user and a password of odd characters and with names of nodes as long as may be; the \
            password is changed by reload on the way",
        within: LONG,
        alone: false,
        run: ipv6,
    },
    Scenario {
        name: "certificates_come_to_a_running_cluster",
        shows: "the same postmasters, the same primary, writes go on; in the end every connection is by certificate",
        within: LONG,
        alone: false,
        run: rolling,
    },
    Scenario {
        name: "the_databases_user_at_a_managers_port",
        shows: "with every key that it can read it is refused, and status says so",
        within: LONG,
        alone: false,
        run: port,
    },
];

/// How many standbys stream, and how many of them by TLS with a certificate.
fn streams(cluster: &Cluster) -> Result<(usize, usize)> {
    let question = "select count(*) || ' ' || count(*) filter (where ssl and client_dn is not null) \
        from pg_stat_replication r join pg_stat_ssl s using (pid) where state = 'streaming'";
    let text = postgres::sql(cluster.host(&cluster.reign()?.primary)?, question)?;
    let (all, proved) = text.split_once(' ').context("two numbers are expected")?;
    Ok((all.parse()?, proved.parse()?))
}

fn wait_streams(cluster: &Cluster, wanted: (usize, usize)) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while streams(cluster)? != wanted {
        ensure!(
            Instant::now() < end,
            "{:?} standbys stream (all, by certificate), expected {wanted:?}",
            streams(cluster)?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn full_round(world: &mut World, replication: Replication) -> Result<()> {
    let cluster = Cluster::start(world, Plan { replication, ..Plan::default() })?;
    round(cluster)
}

/// As long as any may be, a host's whole name, and one of which only its letters' case and its marks tell it from others.
const ODD_NAMES: [&str; 3] =
    ["db1.in-a-rack-whose-name-is-as-long-as-any-may-be.dc.example.eu", "db2.rack-7.Example.org", "db-3_Reports"];

/// The nodes know one another by IPv6 alone, and the password becomes another one before anything fails.
fn ipv6(world: &mut World) -> Result<()> {
    let database = "replication_user = \"Replikator-Größe.1\"";
    let plan = Plan { replication: Replication::Password, ipv6: true, database, names: &ODD_NAMES, ..Plan::default() };
    let cluster = Cluster::start(world, plan)?;
    wait_streams(&cluster, (2, 2))?;
    let reign = cluster.reign()?;
    let verifiers = "select string_agg(rolpassword, ' ' order by rolname) from pg_authid where rolreplication \
        and rolname like 'Replikator%'";
    let before = postgres::sql(cluster.host(&reign.primary)?, verifiers)?;
    for text in [format!("{ODD_PASSWORD}\nanother\n"), format!("another\n{ODD_PASSWORD}\n"), "another\n".to_owned()] {
        for node in cluster.plan.database_names() {
            fs::write(cluster.host(&node)?.disk().join("tls/replication.pw"), &text)?;
            println!("{node}: {}", cluster.command(&node, &["reload"])?.trim());
        }
        // Every standby has to log in anew.
        let primary = cluster.host(&reign.primary)?;
        postgres::sql(primary, "select pg_terminate_backend(pid) from pg_stat_replication")?;
        wait_streams(&cluster, (2, 2))?;
    }
    let after = postgres::sql(cluster.host(&reign.primary)?, verifiers)?;
    ensure!(before != after && after.starts_with("SCRAM-SHA-256$"), "{before} has become {after}");
    cluster.stays(&reign, Duration::from_secs(1))?;
    round(cluster)
}

fn round(mut cluster: Cluster<'_>) -> Result<()> {
    cluster.world.pace.allow(Act::Checkpoint, 2, "a node takes over and gives its service up again within a minute");
    wait_streams(&cluster, (2, 2))?;
    let first = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&first.primary)?.power_cut()?;
    let (second, outage) = cluster.wait_failover(&first, fault, Duration::from_secs(60))?;
    println!("{} took over from {} after {outage:?}", second.primary, first.primary);
    cluster.wait_complete(BACK)?;
    wait_streams(&cluster, (2, 2))?;
    // The third loses its database, and is copied.
    let names = cluster.plan.database_names();
    let third = names.iter().find(|name| **name != first.primary && **name != second.primary);
    let third = third.context("there are three")?;
    lose_directory(cluster.host(third)?, FOLDERS[0])?;
    let copied = cluster.host(third)?.disk().join(FOLDERS[0]).join("data/PG_VERSION");
    let end = Instant::now() + BACK;
    while !copied.exists() {
        ensure!(Instant::now() < end, "{third} is not copied");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.wait_complete(BACK)?;
    wait_streams(&cluster, (2, 2))?;
    cluster.wait_movable(&second, &["switchover"])?;
    let start = Stamp::now();
    cluster.command(&second.primary, &["switchover"])?;
    let (last, _) = cluster.wait_failover(&second, start, Duration::from_secs(30)).context("the switchover")?;
    cluster.wait_complete(BACK)?;
    wait_streams(&cluster, (2, 2))?;
    cluster.judge(&[&first.primary, &second.primary, &last.primary]).map(drop)
}

/// Each host gets something new, and its daemon is restarted; then the next.
fn step(cluster: &Cluster, what: &str, change: impl Fn(&Host) -> Result<()>) -> Result<()> {
    for node in cluster.plan.node_names() {
        change(cluster.host(&node)?)?;
        cluster.restart_daemon(&node, Ending::InOrder).with_context(|| format!("{what}: {node}"))?;
        cluster.wait("everybody to be back", Duration::from_secs(30), |status| {
            status.nodes.values().all(|node| node.state == "up") && status.services.values().all(|s| s.is_complete())
        })?;
    }
    Ok(())
}

fn rolling(world: &mut World) -> Result<()> {
    let cluster = Cluster::start(world, Plan { replication: Replication::Open, ..Plan::default() })?;
    wait_streams(&cluster, (2, 0))?;
    let (reign, postmasters, start) = (cluster.reign()?, cluster.postmasters()?, Stamp::now());
    let open = cluster.status()?.warnings;
    ensure!(open.iter().any(|w| w.contains("replication_tls")), "status does not warn: {open:?}");
    step(&cluster, "the certificates", |host| {
        let tls = host.disk().join("tls");
        DATABASE_FILES.iter().try_for_each(|file| fs::rename(tls.join("later").join(file), tls.join(file)))?;
        Ok(())
    })?;
    step(&cluster, "nothing else is taken", |host| {
        let file = host.disk().join("regent.toml");
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(OPEN), "{} does not say {OPEN}", file.display());
        Ok(fs::write(&file, text.replace(OPEN, ""))?)
    })?;
    wait_streams(&cluster, (2, 2))?;
    ensure!(
        cluster.postmasters()? == postmasters,
        "a server was restarted: {postmasters:?}, {:?}",
        cluster.postmasters()?
    );
    let closed = cluster.status()?.warnings;
    ensure!(!closed.iter().any(|w| w.contains("replication_tls")), "status still warns: {closed:?}");
    nothing_moved(cluster, &reign, start, Duration::from_secs(1))
}

/// What the database's user of a host can read of keys, as that host sees them.
fn readable_keys(host: &Host) -> Result<Vec<String>> {
    let search = format!(
        "runuser -u postgres -- find {DISK} /run/regent /etc/regent -type f -readable -size -64k 2>/dev/null; true"
    );
    let files = host.run("sh", &["-c", &search])?;
    let is_key = |path: &&str| {
        let looked = format!("grep -q 'PRIVATE KEY' '{path}'");
        host.output("runuser", &["-u", "postgres", "--", "sh", "-c", &looked]).is_ok_and(|o| o.status.success())
    };
    Ok(files.lines().filter(is_key).map(ToOwned::to_owned).collect())
}

/// What is answered at a manager's port, to this user with this certificate and key.
fn knock(host: &Host, user: &str, at: &str, certificate: &str, key: &str) -> Result<String> {
    let ca = "/run/regent/orders/database-ca.pem";
    // The last message of the handshake is the client's: a refusal comes after it.
    let knock = format!(
        "sleep 1 | timeout 10 openssl s_client -connect {at}:7420 -tls1_3 -alpn h2 -CAfile {ca} -cert {certificate} \
         -key {key} 2>&1; true"
    );
    host.run("runuser", &["-u", user, "--", "sh", "-c", &knock])
}

fn port(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::default())?;
    let reign = cluster.reign()?;
    let (db1, other) = (cluster.host("db1")?.clone(), cluster.host("db2")?.address(Net::Primary));
    let keys = readable_keys(&db1)?;
    println!("the database's user of db1 can read {keys:?}");
    ensure!(keys.iter().any(|key| key.ends_with("/database.key")), "it cannot read its own key: {keys:?}");
    ensure!(!keys.iter().any(|key| key.ends_with("/node.key")), "it can read the manager's key: {keys:?}");
    let heartbeat = format!("cat {DISK}/tls/heartbeat.key");
    let read = db1.output("runuser", &["-u", "postgres", "--", "sh", "-c", &heartbeat])?;
    ensure!(!read.status.success(), "it can read the heartbeat key");
    let run = Path::new("/run/regent/orders");
    for key in &keys {
        for certificate in ["database.pem", "database-ca.pem"].map(|name| run.join(name).display().to_string()) {
            let said = knock(&db1, "postgres", &other, &certificate, key)?;
            let refused = said.contains("alert") || said.contains("key values mismatch") || said.contains("Could not");
            ensure!(refused, "with {certificate} and {key}: {said}");
        }
    }
    let said = knock(&db1, "postgres", &other, &run.join("database.pem").display().to_string(), &keys[0])?;
    ensure!(said.contains("alert"), "with its own certificate: {said}");
    // The same with the manager's own files, as root: nothing is refused, so what was refused was refused for its name.
    let said = knock(&db1, "root", &other, &format!("{DISK}/tls/node.pem"), &format!("{DISK}/tls/node.key"))?;
    ensure!(said.contains("Verification: OK") && !said.contains("alert"), "with the manager's: {said}");
    let refused = |w: &String| w.contains("db1") && w.contains("its certificate is that of a database");
    let status = cluster.status_from("db2")?;
    ensure!(status.warnings.iter().any(refused), "status does not say so: {:?}", status.warnings);
    let file = fs::read_to_string(db1.disk().join("regent.toml"))?;
    ensure!(file.contains("database.key"), "{CONFIG} names the database's key");
    cluster.stays(&reign, Duration::from_secs(2))?;
    cluster.judge(&[&reign.primary]).map(drop)
}
