//! The judge of S1: given what was committed inside each host and when, did two hosts ever acknowledge writes at once?
//!
//! All hosts of a lab share one clock. A commit happened somewhere between its start and its acknowledgement; two
//! hosts whose commits overlap, or that take turns more often than the primary was moved, are two writers.

use crate::time::Stamp;
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;

/// One acknowledged commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub host: String,
    pub start: Stamp,
    pub ack: Stamp,
}

/// A stretch in which one host alone committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    pub host: String,
    pub first: Stamp,
    pub last: Stamp,
    pub commits: usize,
}

/// The stretches, in order. Fails when two hosts overlap.
pub fn tenures(mut commits: Vec<Commit>) -> Result<Vec<Tenure>> {
    commits.sort_by_key(|c| c.start);
    let mut latest: BTreeMap<String, Commit> = BTreeMap::new();
    let mut tenures: Vec<Tenure> = Vec::new();
    for commit in commits {
        if let Some(other) = latest.values().find(|other| other.host != commit.host && other.ack > commit.start) {
            bail!(
                "two writers: {} committed between {} and {}, and {} between {} and {}",
                other.host,
                other.start.0,
                other.ack.0,
                commit.host,
                commit.start.0,
                commit.ack.0
            );
        }
        match tenures.last_mut().filter(|t| t.host == commit.host) {
            Some(tenure) => {
                tenure.last = tenure.last.max(commit.ack);
                tenure.commits += 1;
            }
            None => {
                tenures.push(Tenure { host: commit.host.clone(), first: commit.start, last: commit.ack, commits: 1 })
            }
        }
        let last = latest.entry(commit.host.clone()).or_insert_with(|| commit.clone());
        if commit.ack > last.ack {
            *last = commit;
        }
    }
    Ok(tenures)
}

/// One writer at every moment, and these hosts in this order.
pub fn judge(commits: Vec<Commit>, expected: &[&str]) -> Result<Vec<Tenure>> {
    let tenures = tenures(commits)?;
    let hosts: Vec<&str> = tenures.iter().map(|t| t.host.as_str()).collect();
    ensure!(hosts == expected, "expected commits in {expected:?}, in this order; they were in {hosts:?}");
    Ok(tenures)
}
