//! What a cluster is asked and waited for, and how it is judged. It begins with where the primary is.
//!
//! Not here: how its hosts and daemons come to be (`cluster.rs`). Hosts that boot are asked the same (`tests/booted`).

use crate::bounds::Bound;
use crate::client::oracle::{self, Tenure};
use crate::client::prober;
use crate::client::writer::{Comparison, compare};
use crate::cluster::Cluster;
use crate::network::Net;
use crate::plan::SERVICE;
use crate::postgres;
use crate::status::{Report, Service, Status};
use crate::time::Stamp;
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// Where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    pub primary: String,
    pub epoch: u64,
}

impl Cluster<'_> {
    /// One `regent` command on a node; must succeed. Returns what it printed.
    pub fn command(&self, node: &str, words: &[&str]) -> Result<String> {
        let output = self.regent(node, words)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("regent {} on {node}: {}\n{said}{error}", words.join(" "), output.status);
        }
        Ok(said)
    }

    /// The same, once somebody leads and the node has been heard: a daemon that was restarted may have led.
    pub fn order(&self, node: &str, words: &[&str]) -> Result<String> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.regent(node, words)?;
            let error = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let early = ["no leader is known", "nothing recent is known"].iter().any(|why| error.contains(why));
            ensure!(
                early && Instant::now() < until,
                "regent {} on {node}: {}\n{error}",
                words.join(" "),
                output.status
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The status as one node tells it.
    pub fn status_from(&self, node: &str) -> Result<Status> {
        let output = self.regent(node, &["status", "--json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            format!("regent status --json on {node}: {}: {out}{err}", output.status)
        })
    }

    /// The status from the Raft leader where one can be asked, else from any node that answers.
    pub fn status(&self) -> Result<Status> {
        let mut answer = Err(anyhow::anyhow!("no host is on"));
        for host in self.hosts().iter().filter(|host| host.is_on() && !host.is_frozen()) {
            match self.status_from(&host.name) {
                Ok(status) if status.quorum.leader.as_ref() == Some(&host.name) => return Ok(status),
                Ok(status) if answer.as_ref().is_ok_and(|a: &Status| a.quorum.leader.is_some()) => drop(status),
                Ok(status) => answer = Ok(status),
                Err(error) if answer.is_err() => answer = Err(error),
                Err(_) => {}
            }
        }
        answer
    }

    pub fn service(&self) -> Result<Service> {
        let mut status = self.status()?;
        status.services.remove(SERVICE).with_context(|| format!("status knows no service {SERVICE}"))
    }

    pub fn reign(&self) -> Result<Reign> {
        let service = self.service()?;
        Ok(Reign { primary: service.primary.context("there is no primary")?, epoch: service.epoch })
    }

    /// Waits until the status is as wanted; the error says what it was last.
    pub fn wait(&self, what: &str, within: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let end = Instant::now() + within;
        loop {
            if let Some(fallen) = self.fallen_daemon() {
                bail!("waiting for {what}: {fallen}");
            }
            let status = self.status();
            match status {
                Ok(status) if wanted(&status) => return Ok(status),
                last if Instant::now() >= end => bail!("waited {within:?} for {what}; the last status was {last:#?}"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Waits until another node than `before` is primary under a later epoch and has acknowledged a write of the
    /// writer that was sent after `fault`. Returns the reign and how long writes were not served.
    pub fn wait_takeover(&self, before: &Reign, fault: Stamp, within: Duration) -> Result<(Reign, Duration)> {
        let status = self.wait("a failover", within, |status| {
            status.services.get(SERVICE).is_some_and(|s| {
                s.phase == "installed" && s.epoch > before.epoch && s.primary.as_ref() != Some(&before.primary)
            })
        })?;
        let service = &status.services[SERVICE];
        let reign =
            Reign { primary: service.primary.clone().context("installed without a primary")?, epoch: service.epoch };
        let host = self.host(&reign.primary)?;
        let own = [host.address(Net::Primary), host.address(Net::Secondary)];
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(ack) = self.writer()?.acks()?.into_iter().find(|a| a.start >= fault && own.contains(&a.address))
            {
                return Ok((reign, ack.ack.since(fault)));
            }
            ensure!(Instant::now() < end, "{} is primary and the writer is not served", reign.primary);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same where one thing failed: within the bound that is printed.
    pub fn wait_failover(&self, before: &Reign, fault: Stamp, within: Duration) -> Result<(Reign, Duration)> {
        let (reign, outage) = self.wait_takeover(before, fault, within)?;
        self.holds(outage, Bound::Failover)?;
        Ok((reign, outage))
    }

    /// Waits until every database but the primary streams from it and no fence is open.
    pub fn wait_complete(&self, within: Duration) -> Result<Status> {
        self.wait("every standby to stream and every fence to be closed", within, |status| {
            status.fences.is_empty() && status.services.get(SERVICE).is_some_and(Service::is_complete)
        })
    }

    /// Waits until regent would do that switchover: it refuses while the standby, cloned a moment ago, streams and still
    /// lags by more than `max_lag`, and says so to whoever asks beforehand.
    pub fn wait_movable(&self, reign: &Reign, words: &[&str]) -> Result<()> {
        let asked: Vec<&str> = words.iter().copied().chain(["--dry-run"]).collect();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.regent(&reign.primary, &asked)?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(Instant::now() < end, "no switchover would be done for 30 s: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Watches for `time` that nothing moves: the same reign, no incident but the first, no fence, no power-off.
    pub fn stays(&self, reign: &Reign, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(250).min(end.saturating_duration_since(Instant::now())));
            if let Ok(status) = self.status() {
                let service = status.services.get(SERVICE).context("the service is gone from the status")?;
                ensure!(service.epoch == reign.epoch, "the epoch went from {} to {}", reign.epoch, service.epoch);
                ensure!(status.fences.is_empty(), "there is a fence: {:?}", status.fences);
                let moved = status.incidents.iter().find(|i| i.kind != "bootstrap");
                ensure!(moved.is_none(), "there is an incident: {moved:?}");
            }
        }
        for (device, offs) in self.power_offs() {
            ensure!(offs == 0, "the device {device} was told to switch off");
        }
        ensure!(self.reign()? == *reign, "expected {reign:?}, found {:?}", self.reign()?);
        Ok(())
    }

    /// The Raft leader, once it is a wanted one: leadership may be changing hands just now.
    pub fn leader(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let is_wanted = |status: &Status| status.quorum.leader.as_deref().is_some_and(&wanted);
        self.wait("a leader", Duration::from_secs(10), is_wanted)?.quorum.leader.context("there is no leader")
    }

    /// One incident, explained; the latest without a number.
    pub fn explain(&self, incident: Option<u64>) -> Result<Report> {
        let leader = self.leader(|_| true)?;
        let number = incident.map(|id| id.to_string());
        let words: Vec<&str> = ["explain", "--json"].into_iter().chain(number.as_deref()).collect();
        let said = self.command(&leader, &words)?;
        serde_json::from_str(&said).with_context(|| format!("regent explain --json: {said}"))
    }

    /// Ends the writer, and judges: one writer at every moment, these primaries in this order, no row twice. Returns
    /// what became of the acknowledged rows: an asynchronous failover may lose some, a switchover may not.
    pub fn judge(&mut self, primaries: &[&str]) -> Result<(Comparison, Vec<Tenure>)> {
        let acks = self.stop_writer()?;
        let table = postgres::written_ids(self.host(&self.reign()?.primary)?)?;
        let seen = compare(&acks, &table);
        println!("{} writes acknowledged, {} of them lost", seen.acknowledged, seen.lost.len());
        ensure!(seen.duplicates.is_empty(), "rows are there twice: {:?}", seen.duplicates);
        let mut commits = Vec::new();
        for name in self.plan.database_names() {
            commits.extend(prober::commits(self.host(&name)?)?);
        }
        Ok((seen, oracle::judge(commits, primaries)?))
    }
}
