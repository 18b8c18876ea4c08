//! Who may speak: strangers are refused and the refusal shows, and a cluster without TLS says so.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::host::DISK;
use crate::network::Net;
use crate::plan::{CLUSTER, Plan};
use crate::status::Status;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use regent::clock;
use regent::consensus::certs;
use std::fs;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "refused_nodes",
        shows: "an unknown address, another cluster's node, a second data directory: refused, and status says so",
        within: LONG,
        alone: false,
        run: refused,
    },
    Scenario {
        name: "without_tls",
        shows: "insecure = true: everything works, and status warns",
        within: LONG,
        alone: false,
        run: insecure,
    },
];

fn is_insecure(status: &Status) -> bool {
    status.warnings.iter().any(|w| w.starts_with("insecure = true"))
}

/// Runs a daemon on w1 with its file changed, until the status of one that it met shows what it must.
fn intruder(cluster: &Cluster, what: &str, change: [(&str, &str); 2], shows: impl Fn(&Status) -> bool) -> Result<()> {
    let host = cluster.host("w1")?;
    let mut text = fs::read_to_string(host.disk().join("regent.toml"))?;
    for (from, to) in change {
        ensure!(text.contains(from), "the configuration has no {from}");
        text = text.replace(from, to);
    }
    fs::write(host.disk().join("intruder.toml"), text)?;
    let mut daemon = cluster.run_daemon("w1", &format!("{DISK}/intruder.toml"))?;
    let met = cluster.plan.database_names();
    let shows = |node: &String| cluster.status_from(node).is_ok_and(|status| shows(&status));
    let seen = cluster.wait(what, Duration::from_secs(30), |_| met.iter().any(shows));
    // It may have ended by itself: it was told that it is not wanted.
    daemon.kill().or_else(|error| if daemon.try_wait()?.is_some() { Ok(()) } else { Err(error) })?;
    daemon.wait()?;
    seen.map(drop)
}

fn refused(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan::with_witness())?;
    let reign = cluster.reign()?;
    let status = cluster.status()?;
    let others: Vec<_> = status.warnings.iter().filter(|w| w.starts_with("refused")).collect();
    ensure!(!is_insecure(&status) && others.is_empty(), "a healthy cluster warns: {:?}", status.warnings);

    // The client's host is no node. It connects to every daemon that may be asked for its status.
    let stranger = cluster.host("client")?.address(Net::Primary);
    for name in cluster.plan.node_names() {
        let to = cluster.host(&name)?.address(Net::Primary);
        cluster.host("client")?.run("bash", &["-c", &format!("exec 3<>/dev/tcp/{to}/7420; read -t 2 -u 3; true")])?;
    }
    let unknown = format!("refused unknown from {stranger}: no configured node has this address");
    cluster.wait("the unknown address to show", Duration::from_secs(10), |status| {
        status.warnings.iter().any(|w| w.starts_with(&unknown))
    })?;

    cluster.stop_daemon("w1", Duration::from_secs(20))?;
    let w1 = cluster.host("w1")?;
    let authority = cluster.world.directory.join("other-ca");
    certs::init(&authority, CLUSTER, clock::wall())?;
    certs::issue(&authority, &"w1".parse()?, &[], 1, clock::wall())?;
    fs::rename(authority.join("w1"), w1.disk().join("foreign"))?;
    let (tls, foreign) = (format!("{DISK}/tls/"), format!("{DISK}/foreign/"));
    let (own, blank) = (format!("data_dir = \"{DISK}/regent\""), format!("data_dir = \"{DISK}/blank\""));
    let address = w1.address(Net::Primary);
    intruder(&cluster, "another cluster's node to show", [(&tls, &foreign), (&own, &blank)], |status| {
        let shown = |w: &String| w.contains(&address) && w.contains("its certificate was issued by another CA");
        status.warnings.iter().any(shown)
    })?;
    let (blank, file) = (format!("data_dir = \"{DISK}/second\""), "node = \"w1\"");
    intruder(&cluster, "a second w1 to show", [(&own, &blank), (file, file)], |status| {
        let of_w1 = status.nodes.get("w1").map(|node| node.refusals.as_slice()).unwrap_or_default();
        of_w1.iter().any(|why| why.contains("it has another data directory than the w1 that founded the cluster"))
    })?;

    cluster.start_daemon("w1")?;
    cluster.wait("the witness to be up", Duration::from_secs(30), |status| {
        status.nodes.get("w1").is_some_and(|node| node.state == "up")
    })?;
    cluster.stays(&reign, Duration::from_secs(3))?;
    cluster.judge(&[&reign.primary]).map(drop)
}

fn insecure(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { insecure: true, ..Plan::default() })?;
    let before = cluster.reign()?;
    let status = cluster.status()?;
    ensure!(is_insecure(&status), "status does not warn: {:?}", status.warnings);
    let start = Stamp::now();
    cluster.wait_movable(&before, &["switchover"])?;
    cluster.command(&before.primary, &["switchover"])?;
    let (after, _) = cluster.wait_failover(&before, start, Duration::from_secs(30)).context("the switchover")?;
    cluster.wait_complete(Duration::from_secs(60))?;
    let (seen, _) = cluster.judge(&[&before.primary, &after.primary])?;
    ensure!(seen.lost.is_empty(), "a switchover lost acknowledged writes: {:?}", seen.lost);
    Ok(())
}
