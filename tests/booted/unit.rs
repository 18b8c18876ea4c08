//! regent as a service of systemd: what systemd says of it, and what it is told to do with it.
//!
//! Not here: what the cluster must say meanwhile (`scenarios/`).

use crate::cluster::Cluster;
use crate::host::Host;
use crate::postgres;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const UNIT: &str = "regent.service";

impl Host {
    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let said = self.run("systemctl", &["show", "--value", "--property", name, unit])?;
        Ok(said.trim().to_owned())
    }

    /// The process of the daemon, as the host numbers it.
    pub fn daemon(&self) -> Result<String> {
        let pid = self.property(UNIT, "MainPID")?;
        ensure!(pid != "0", "no daemon runs on {}", self.name);
        Ok(pid)
    }

    /// How often systemd has started the daemon again by itself.
    pub fn restarts(&self) -> Result<u32> {
        let said = self.property(UNIT, "NRestarts")?;
        said.parse().with_context(|| format!("NRestarts of regent on {}: {said:?}", self.name))
    }

    /// What the journal of this boot has of regent.
    pub fn journal(&self) -> Result<String> {
        self.run("journalctl", &["--unit", UNIT, "--boot", "--output", "cat", "--no-pager"])
    }

    /// Sends the daemon alone a signal.
    pub fn signal_daemon(&self, signal: &str) -> Result<()> {
        self.run("kill", &["-s", signal, &self.daemon()?]).map(drop)
    }
}

impl Cluster<'_> {
    /// A daemon whose service has failed: systemd does not start it any more.
    pub fn fallen_daemon(&self) -> Option<String> {
        self.hosts().iter().filter(|host| host.is_on()).find_map(|host| {
            let state = host.property(UNIT, "ActiveState").ok()?;
            (state == "failed").then(|| format!("regent.service on {} has failed", host.name))
        })
    }

    /// Waits until systemd has started a node's daemon more often than so, and that is up.
    pub fn wait_restarted(&self, node: &str, before: u32, within: Duration) -> Result<()> {
        let (host, end) = (self.host(node)?, Instant::now() + within);
        while host.restarts()? <= before || host.property(UNIT, "ActiveState")? != "active" {
            ensure!(Instant::now() < end, "systemd has not started regent again on {node} for {within:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Which postmaster runs on each database host.
    pub fn postmasters(&self) -> Result<BTreeMap<String, String>> {
        let names = self.plan.database_names().into_iter();
        names
            .map(|name| Ok((name.clone(), postgres::postmaster_since(self.host(&name)?, postgres::FOLDERS[0])?)))
            .collect()
    }
}
