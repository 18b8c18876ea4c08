//! What operators are shown, made from values: the ledger, what a node sees, and what it alone knows. Reasons become
//! sentences here and nowhere before.
//!
//! Not here: gathering these values and sending the page (`daemon/report.rs`, `daemon/operator.rs`), the judgement of
//! failovers and moves (`plan`), and the layout on a terminal (`cli/render`).

mod copy;
mod fence;
mod incident;
mod node;
mod service;
mod survey;

pub use incident::{report, summary};
pub use service::{accepted_copy, dry_run, refused_dry_run};
pub use survey::Behind;

use crate::api::status::{AlarmStatus, Quorum, SCHEMA, Status};
use crate::config::{database_tls, slow_logins};
use crate::plan::note::{Note, Subject};
use crate::plan::{Outlook, alarm, keeper};
use crate::types::{
    AgentName, AgentOutcome, AgentRun, ChannelName, ClusterId, CopyProgress, Epoch, Failing, Instant, KeptFolder,
    NodeName, Room, ServiceName, Term, Trouble, WallTime,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many incidents `status` shows.
const INCIDENTS_SHOWN: usize = 5;

/// Everything that the answering node knows.
pub struct Known<'a> {
    pub seen: Outlook<'a>,
    pub cluster: &'a ClusterId,
    pub answered_at: WallTime,
    pub term: Term,
    pub leader: Option<&'a NodeName>,
    /// What this node's coordinator says; nothing where it does not lead.
    pub notes: &'a [Note],
    /// What Raft waits for.
    pub waiting: Vec<String>,
    /// The last renewal that this node granted in its term as the leader, by service.
    pub renewed: BTreeMap<ServiceName, (Epoch, Instant)>,
    /// This node's own databases.
    pub own: BTreeMap<ServiceName, OwnDatabase>,
    /// What this daemon must do for safety and cannot do at present, and why.
    pub failing: BTreeMap<Failing, String>,
    /// What the volume of its ledger has, once that was looked at.
    pub room: Option<Room>,
    /// For how long each standby has lacked something of what the primary is known to have written, by this node's clock.
    pub behind: BTreeMap<ServiceName, BTreeMap<NodeName, Duration>>,
    /// Why this node is not let in, while it has not joined.
    pub not_joined: Option<String>,
    /// The suspicion levels of this node's own observations.
    pub phi: BTreeMap<(NodeName, ChannelName), f64>,
    /// Channels that this node cannot use, and why.
    pub unusable: BTreeMap<ChannelName, String>,
    /// The last `monitor` of each fence device and target.
    pub monitors: &'a BTreeMap<(AgentName, NodeName), (WallTime, AgentRun)>,
    /// Units of this host that would start a server in the way of a service.
    pub rivals: Vec<String>,
    /// Who was refused by Raft's transport.
    pub refused: Vec<Refused>,
    /// Heartbeats that were refused.
    pub unheard: Vec<Unheard>,
    pub log_lines_dropped: u64,
    pub answers_dropped: u64,
}

/// What a node knows of its own copy of a database alone.
#[derive(Clone, Debug, Default)]
pub struct OwnDatabase {
    /// What its keeper does or waits for.
    pub step: Option<keeper::Step>,
    /// Of which epoch its lease is, and until when it lasts; `None`: none was granted yet.
    pub lease: Option<(Epoch, Option<Instant>)>,
    pub trouble: Option<Trouble>,
    /// Why the last action on it failed.
    pub last_error: Option<String>,
    /// How far the rewind or copy is that runs.
    pub copy: Option<CopyProgress>,
    /// Those that came to nothing.
    pub failed_copy: Option<keeper::FailedCopy>,
    /// What lies aside beside it.
    pub kept: Vec<KeptFolder>,
    /// The operator's parameters that something else overrides.
    pub overridden: Vec<String>,
}

/// Somebody who was refused, as often as it came with the same reason.
#[derive(Clone, Debug)]
pub struct Refused {
    pub who: String,
    pub address: String,
    pub reason: String,
    pub count: u64,
}

/// Heartbeats of one sort that were refused on one channel.
#[derive(Clone, Debug)]
pub struct Unheard {
    pub channel: ChannelName,
    /// The last of them, in a sentence.
    pub last: String,
    pub count: u64,
}

/// The answer to `status`.
pub fn status(known: &Known) -> Status {
    let Outlook { state, config, .. } = known.seen;
    let alarms = alarms(known);
    Status {
        schema: SCHEMA,
        cluster: config.cluster.clone(),
        cluster_id: Some(known.cluster.clone()),
        answered_by: known.seen.me.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        answered_at_ms: known.answered_at,
        quorum: quorum(known),
        nodes: config.nodes.keys().map(|name| (name.clone(), node::status(known, name))).collect(),
        channels: config.channels(),
        matrix: known.seen.rows.iter().map(|(name, row)| (name.clone(), node::matrix(known, name, row))).collect(),
        services: config.services.keys().map(|name| (name.clone(), service::status(known, &alarms, name))).collect(),
        alarms: alarms.iter().map(alarm_status).collect(),
        fences: state.fences.values().filter(|fence| fence.is_open()).map(|fence| fence::status(fence)).collect(),
        devices: fence::devices(known),
        incidents: state.incidents.values().rev().take(INCIDENTS_SHOWN).map(|incident| summary(incident)).collect(),
        warnings: warnings(known),
        ledger_volume: known.room,
        log_lines_dropped: known.log_lines_dropped,
        answers_dropped: known.answers_dropped,
    }
}

fn quorum(known: &Known) -> Quorum {
    let nodes = &known.seen.config.nodes;
    let connected = nodes.keys().filter(|node| known.seen.is_connected(node)).count();
    Quorum {
        leader: known.leader.cloned(),
        term: known.term,
        voters: nodes.len() as u32,
        connected: connected as u32,
        margin: known.seen.margin(),
    }
}

/// What needs a person, from the ledger and from what the present leader says.
fn alarms(known: &Known) -> Vec<Note> {
    let leader = known.leader.and_then(|leader| known.seen.present(leader));
    alarm::alarms(known.seen.state, leader)
}

fn alarm_status(note: &Note) -> AlarmStatus {
    let Subject { service, node, incident, .. } = note.subject();
    AlarmStatus { severity: note.severity(), what: note.to_string(), service, node, incident }
}

/// Whether a fence device answered as it should.
fn is_ok(outcome: AgentOutcome) -> bool {
    matches!(outcome, AgentOutcome::Succeeded | AgentOutcome::IsOff)
}

fn warnings(known: &Known) -> Vec<String> {
    let config = known.seen.config;
    let switches = [
        (config.security.insecure, "insecure = true: nodes do not prove who they are"),
        (
            config.fencing.lease_without_watchdog,
            "lease_without_watchdog = true: a host whose daemons are dead or stuck may write past its lease",
        ),
        (
            config.fencing.lease_on_virtual_machine,
            "lease_on_virtual_machine = true: a paused virtual machine may write past its lease when it wakes",
        ),
    ];
    let switches = switches.into_iter().filter(|(is_on, _)| *is_on).map(|(_, warning)| warning.to_owned());
    let services = config.services.iter();
    let open = services.filter_map(|(name, service)| database_tls::warning(name.as_str(), &service.postgresql.tls));
    let refused = known.refused.iter();
    let refused = refused.map(|r| format!("refused {} from {}: {} ({} times)", r.who, r.address, r.reason, r.count));
    let unheard = known.unheard.iter();
    let unheard = unheard.map(|u| format!("refused on {}: {} ({} times)", u.channel, u.last, u.count));
    let unusable = known.unusable.iter();
    let unusable = unusable.map(|(channel, why)| format!("{} cannot use channel {channel}: {why}", known.seen.me));
    let rivals = known.rivals.iter().map(|rival| format!("{}: {rival}", known.seen.me));
    let not_joined = known.not_joined.iter().map(|why| format!("{} has not joined: {why}", known.seen.me));
    let slow = slow_logins(config);
    let peers = not_joined.chain(refused).chain(unheard).chain(unusable);
    switches.chain(open).chain(slow).chain(peers).chain(rivals).collect()
}

#[cfg(test)]
mod pages_test;
#[cfg(test)]
pub(crate) mod scene_test;
