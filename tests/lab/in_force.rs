//! What is in force on a host for the sake of fences: its firewall rules, its databases' hba lines, the roles that may
//! log in. Read with the host's own programs, to be compared byte for byte.
//!
//! Not here: what should be in force.

use crate::cluster::Cluster;
use crate::plan::SERVICE;
use crate::postgres;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// By host.
pub type OnEveryHost = BTreeMap<String, InForce>;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    rules: String,
    /// Both empty on a witness.
    hba: String,
    roles: String,
}

/// What is in force now, everywhere.
pub fn everywhere(cluster: &Cluster) -> Result<OnEveryHost> {
    cluster.hosts().iter().map(|host| Ok((host.name.clone(), on(cluster, &host.name)?))).collect()
}

fn on(cluster: &Cluster, node: &str) -> Result<InForce> {
    let host = cluster.host(node)?;
    let rules = host.run("nft", &["list", "ruleset"])?;
    let (mut hba, mut roles) = (String::new(), String::new());
    if cluster.plan.database_names().iter().any(|name| name == node) {
        hba = host.run("cat", &[&format!("/run/regent/{SERVICE}/pg_hba.conf")])?;
        roles = postgres::sql(host, "select rolname, rolcanlogin from pg_roles order by rolname")?;
    }
    Ok(InForce { rules, hba, roles })
}

/// Watches for `time` that everything stays in force as it was, and nothing else.
pub fn stays(cluster: &Cluster, before: &OnEveryHost, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        for (node, was) in before {
            let is = on(cluster, node).with_context(|| format!("look at what is in force on {node}"))?;
            ensure!(is == *was, "what is in force on {node} is not what it was: {was:#?} became {is:#?}");
        }
        if Instant::now() >= end {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
