//! What `regent config check` promises for a cluster's own configuration, and what was measured in it.
//!
//! Not here: which fault begins an outage, and when it is over (the scenarios).

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// The bound that a scenario must hold to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// One failure, and a candidate runs.
    Failover,
    /// The database must be started first, in place or on a node whose own does not run.
    Started,
}

impl Bound {
    fn key(self) -> &'static str {
        match self {
            Bound::Failover => "failover_worst_ms",
            Bound::Started => "started_worst_ms",
        }
    }
}

impl Cluster<'_> {
    /// The bound as it is printed on a host that runs.
    pub fn bound(&self, bound: Bound) -> Result<Duration> {
        let runs = self.hosts().into_iter().find(|host| host.is_on() && !host.is_frozen()).context("no host runs")?;
        let said = self.command(&runs.name, &["config", "check", "--json"])?;
        let report: Value = serde_json::from_str(&said).with_context(|| format!("regent config check: {said}"))?;
        let printed = report["bounds"][bound.key()].as_u64();
        printed.map(Duration::from_millis).with_context(|| format!("no {} is printed: {said}", bound.key()))
    }

    /// Writes were not served for so long: no longer than is printed.
    pub fn holds(&self, outage: Duration, bound: Bound) -> Result<()> {
        let printed = self.bound(bound)?;
        println!("{outage:?}, and the bound that is printed ({bound:?}) is {printed:?}");
        ensure!(outage <= printed, "writes were not served for {outage:?}; regent config check promises {printed:?}");
        Ok(())
    }
}
