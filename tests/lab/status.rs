//! What the lab reads of `regent status --json` and `regent explain --json`: a part of their schema, in one place.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The cluster as one node knows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub quorum: Quorum,
    pub nodes: BTreeMap<String, Node>,
    pub services: BTreeMap<String, Service>,
    /// Fences that are not closed.
    pub fences: Vec<Fence>,
    /// Newest first.
    pub incidents: Vec<Incident>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Quorum {
    pub leader: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// `up`, `suspect`, `dead` or `not_joined`.
    pub state: String,
    pub config_differs: bool,
    pub refusals: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// `installed` when a primary takes writes.
    pub phase: String,
    pub primary: Option<String>,
    pub epoch: u64,
    pub databases: BTreeMap<String, Database>,
    pub readiness: Readiness,
    pub what_now: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Database {
    /// `standby`, `primary`, ...
    pub state: String,
    pub streams_from: Option<String>,
    /// `primary` or `secondary`.
    pub network: Option<String>,
    /// Where its WAL ends, as it was heard last.
    pub position: Option<String>,
    #[serde(default)]
    pub trouble: Option<String>,
    /// Parameters that its next start changes.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// Who ordered a restart that is not done yet.
    pub restart_ordered: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Readiness {
    pub failover_ready: bool,
    pub would_lose_seconds: Option<u64>,
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Fence {
    pub node: String,
    pub incident: Option<u64>,
    pub stage: String,
    pub attempts: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Incident {
    pub id: u64,
    /// `bootstrap`, `failover`, `switchover` or `fence`.
    pub kind: String,
    pub subject: Option<String>,
    pub outcome: String,
    pub headline: String,
}

/// One incident, explained.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub summary: Incident,
    pub steps: Vec<Step>,
    pub durations: Durations,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    pub what: String,
    pub details: Vec<String>,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Durations {
    pub detect_ms: Option<u64>,
    pub verdict_ms: Option<u64>,
    pub fence_ms: Option<u64>,
    pub check_ms: Option<u64>,
    pub choose_ms: Option<u64>,
    pub promote_ms: Option<u64>,
    pub total_ms: Option<u64>,
}

impl Service {
    /// A primary takes writes and every other database streams from it, by way of another one perhaps.
    pub fn is_complete(&self) -> bool {
        let Some(primary) = &self.primary else { return false };
        self.phase == "installed"
            && self.databases.iter().all(|(node, database)| {
                if node == primary {
                    database.state == "primary"
                } else {
                    database.state == "standby" && self.leads_to(node, primary)
                }
            })
    }
}

impl Service {
    fn leads_to(&self, node: &str, primary: &str) -> bool {
        let from = |node: &str| self.databases.get(node).and_then(|database| database.streams_from.clone());
        let chain = std::iter::successors(from(node), |node| from(node));
        chain.take(self.databases.len()).any(|node| node == primary)
    }
}

impl Durations {
    /// The parts by name, in the order of a failover; without the total.
    pub fn parts(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("detect", self.detect_ms),
            ("verdict", self.verdict_ms),
            ("fence", self.fence_ms),
            ("check", self.check_ms),
            ("choose", self.choose_ms),
            ("promote", self.promote_ms),
        ]
    }
}

impl Report {
    /// All of its words: for "does the explanation say why".
    pub fn text(&self) -> String {
        let steps = self.steps.iter().flat_map(|step| std::iter::once(&step.what).chain(&step.details));
        steps.fold(self.summary.headline.clone(), |text, line| text + "\n" + line)
    }
}
