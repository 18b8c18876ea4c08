//! What the command line shows, filled from the ledger and from what this node sees. It judges as little as it can:
//! most of it is copying.

use super::{Daemon, operator, pages};
use crate::api::status::{
    AlarmStatus, DatabaseStatus, DeviceStatus, Durations, FenceStatus, IncidentKind, IncidentOutcome, IncidentReport,
    IncidentStep, IncidentSummary, LeaseStatus, MonitorStatus, NodeRole, NodeState, NodeStatus, Phase, Quorum,
    Readiness, SCHEMA, Seen, SeenOn, ServiceStatus, Status, WatchdogState,
};
use crate::clock;
use crate::config::Role;
use crate::ledger::{
    self, CheckAnswer, Confirmation, Fence, FenceState, Happening, Incident, Life, Outcome, Service, State,
};
use crate::plan::note::{Note, Subject};
use crate::plan::readiness::{self, Beside};
use crate::plan::{Row, alarm};
use crate::types::{AgentOutcome, DbState, NodeName, PeerView, ServiceName, Sight, WallTime};
use std::collections::BTreeMap;

/// The highest suspicion level that is shown: JSON has no infinity.
const PHI_MAX: f64 = 999.0;
/// How many incidents `status` shows.
const INCIDENTS_SHOWN: usize = 5;

pub(super) fn status(daemon: &Daemon) -> Status {
    let (node, config) = (&daemon.node, &daemon.config);
    let state = node.state();
    let incidents = state.incidents.values().rev().take(INCIDENTS_SHOWN).map(summary).collect();
    Status {
        schema: SCHEMA,
        cluster: config.cluster.clone(),
        cluster_id: Some(daemon.consensus.cluster().clone()),
        answered_by: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        answered_at_ms: clock::wall(),
        quorum: quorum(daemon),
        nodes: config.nodes.keys().map(|n| (n.clone(), node_status(daemon, n))).collect(),
        channels: config.channels(),
        matrix: node.rows().iter().map(|(o, row)| (o.clone(), seen(daemon, o, row))).collect(),
        services: config.services.keys().map(|s| (s.clone(), service_status(daemon, s))).collect(),
        alarms: alarms(daemon).iter().map(alarm_status).collect(),
        fences: state.fences.values().filter(|f| f.is_open()).map(fence_status).collect(),
        devices: devices(daemon),
        incidents,
        warnings: warnings(daemon),
        log_lines_dropped: daemon.dropped.lines(),
        answers_dropped: operator::undelivered(),
    }
}

fn quorum(daemon: &Daemon) -> Quorum {
    let (term, leader) = daemon.node.leader();
    let voters = daemon.config.nodes.len();
    let seen = daemon.node.outlook(clock::now());
    let connected = daemon.config.nodes.keys().filter(|node| seen.is_connected(node)).count();
    Quorum { leader: leader.cloned(), term, voters: voters as u32, connected: connected as u32, margin: seen.margin() }
}

fn node_status(daemon: &Daemon, name: &NodeName) -> NodeStatus {
    let config = &daemon.config.nodes[name];
    let record = daemon.node.state().nodes.get(name);
    let row = present_row(daemon, name);
    let own_view = daemon.node.rows().get(&daemon.config.node).and_then(|r| r.views.get(name));
    let suspects = own_view.is_some_and(|v| v.suspects(daemon.config.channels().len()));
    let state = match record.map(|r| r.life) {
        None => NodeState::NotJoined,
        Some(Life::Dead) => NodeState::Dead,
        Some(Life::Up) if suspects => NodeState::Suspect,
        Some(Life::Up) => NodeState::Up,
    };
    let armed = row.map(|r| r.health.watchdog_armed);
    let refusals = daemon.consensus.refusals().into_iter();
    let refusals = refusals.filter(|r| r.who == name.as_str()).map(|r| format!("{} ({} times)", r.reason, r.count));
    NodeStatus {
        role: match config.role {
            Role::Database => NodeRole::Database,
            Role::Witness => NodeRole::Witness,
        },
        addresses: vec![config.primary.to_string(), config.secondary.to_string()],
        state,
        leader: daemon.node.leader().1 == Some(name),
        boot: record.map(|r| r.boot.clone()),
        incarnation: record.map(|r| r.incarnation),
        self_doubt: row.is_some_and(|r| r.health.self_doubt),
        config_differs: row.is_some_and(|r| r.health.config_hash != daemon.config.hash),
        watchdog: match (daemon.config.watchdog.is_some(), armed) {
            (false, _) => Some(WatchdogState::Absent),
            (true, Some(true)) => Some(WatchdogState::Armed),
            (true, Some(false)) => Some(WatchdogState::Disarmed),
            (true, None) => None,
        },
        log_write_ms: row.map(|r| r.health.log_write.as_millis() as u64),
        failing: failing(daemon, name),
        refusals: refusals.collect(),
    }
}

fn seen(daemon: &Daemon, observer: &NodeName, row: &Row) -> BTreeMap<NodeName, Seen> {
    let own = *observer == daemon.config.node;
    let now = clock::now();
    let channels = daemon.config.channels().len();
    let one = |peer: &NodeName, view: &PeerView| {
        let on = view.channels.iter().map(|(channel, sight)| {
            let phi = own.then(|| daemon.node.detector().phi(now, peer, channel)).flatten();
            (channel.clone(), SeenOn { sight: *sight, phi: phi.map(|phi| phi.min(PHI_MAX)) })
        });
        Seen { suspects: view.suspects(channels), channels: on.collect() }
    };
    row.views.iter().map(|(peer, view)| (peer.clone(), one(peer, view))).collect()
}

fn service_status(daemon: &Daemon, name: &ServiceName) -> ServiceStatus {
    let node = &daemon.node;
    let record = node.state().services.get(name);
    let primary = record.and_then(|s| s.holder.as_ref()).map(|h| h.node.clone());
    let mut what_now: Vec<_> = node.notes().iter().map(ToString::to_string).collect();
    what_now.extend(daemon.consensus.waiting());
    if let Some(own) = node.keeping().get(name) {
        what_now.push(format!("{}: {}", daemon.config.node, own.now()));
    }
    ServiceStatus {
        phase: phase(daemon, name, record),
        primary: primary.clone(),
        epoch: record.map_or(crate::types::Epoch(0), |s| s.epoch),
        lease: lease_status(daemon, name, record),
        databases: databases(daemon, name, primary.as_ref()),
        readiness: readiness(daemon, name),
        what_now,
    }
}

fn phase(daemon: &Daemon, name: &ServiceName, record: Option<&Service>) -> Phase {
    let Some(service) = record else { return Phase::Unmanaged };
    if service.paused {
        return Phase::Paused;
    }
    if service.over.is_some() {
        return Phase::Vacant;
    }
    if daemon.node.state().fence_of(service).is_some() {
        return Phase::Fencing;
    }
    if alarms(daemon).iter().any(|alarm| matches!(alarm, Note::Lapsed { service, .. } if service == name)) {
        return Phase::Lapsed;
    }
    match service.phase {
        ledger::Phase::Creating | ledger::Phase::Appointed => Phase::Appointed,
        ledger::Phase::Promoting { .. } => Phase::Promoting,
        ledger::Phase::Installed => Phase::Installed,
    }
}

/// What needs a person, from the ledger and from what the present leader says.
fn alarms(daemon: &Daemon) -> Vec<Note> {
    let leader = daemon.node.leader().1.and_then(|leader| present_row(daemon, leader));
    alarm::alarms(daemon.node.state(), leader)
}

fn alarm_status(note: &Note) -> AlarmStatus {
    let Subject { service, node, incident, .. } = note.subject();
    AlarmStatus { severity: note.severity(), what: note.to_string(), service, node, incident }
}

fn lease_status(daemon: &Daemon, name: &ServiceName, record: Option<&Service>) -> Option<LeaseStatus> {
    let service = record.filter(|s| s.over.is_none())?;
    let holder = service.holder.as_ref()?;
    let now = clock::now();
    let own = daemon.node.keepers().get(name).and_then(|keeper| keeper.lease_of(service.epoch));
    let remaining = if holder.node == daemon.config.node {
        own.and_then(|l| l.until()).map(|until| until.since(now))
    } else {
        let renewed = daemon.node.leads().and_then(|l| l.renewed.get(name)).filter(|(e, _)| *e == service.epoch);
        renewed.map(|(_, at)| (*at + daemon.config.lease.ttl).since(now))
    };
    Some(LeaseStatus { holder: holder.node.clone(), remaining_ms: remaining.map(|d| d.as_millis() as u64) })
}

fn databases(daemon: &Daemon, name: &ServiceName, primary: Option<&NodeName>) -> BTreeMap<NodeName, DatabaseStatus> {
    let health = |node: &NodeName| daemon.node.rows().get(node).and_then(|r| r.health.services.get(name));
    let primary_lsn = primary.and_then(health).map(|h| h.position.lsn);
    let nodes = daemon.config.nodes.iter().filter(|(_, n)| n.role == Role::Database);
    nodes
        .map(|(node, _)| {
            let found = health(node);
            let lag = found
                .filter(|_| primary != Some(node))
                .zip(primary_lsn)
                .map(|(h, end)| end.0.saturating_sub(h.position.lsn.0));
            let trouble = (*node == daemon.config.node).then(|| daemon.node.keepers().get(name)).flatten();
            let trouble = trouble
                .and_then(|k| k.seen().trouble.as_ref().map(ToString::to_string).or(k.last_error().map(str::to_owned)));
            let status = DatabaseStatus {
                state: found.map_or(DbState::Unclear, |h| h.state),
                timeline: found.map(|h| h.timeline).unwrap_or_default(),
                position: found.map(|h| h.position.lsn),
                lag_bytes: lag,
                streams_from: found.and_then(|h| h.streams_from.clone()),
                trouble,
            };
            (node.clone(), status)
        })
        .collect()
}

/// Would a failover succeed now, and if not, why.
fn readiness(daemon: &Daemon, name: &ServiceName) -> Readiness {
    let failed = daemon.monitors.iter().filter(|(_, (_, run))| !is_ok(run.outcome));
    let beside = Beside {
        has_leader: daemon.node.leader().1.is_some(),
        own_failing: daemon.node.failing(),
        broken_devices: failed.map(|(device, _)| device.clone()).collect(),
    };
    pages::readiness(readiness::judge(&daemon.node.outlook(clock::now()), &beside, name))
}

/// What a node's daemon must do for safety and cannot do at present, as it says itself; on this node, with the reason.
fn failing(daemon: &Daemon, node: &NodeName) -> Vec<String> {
    if *node == daemon.config.node {
        return daemon.node.failing().iter().map(|(what, why)| format!("{what}: {why}")).collect();
    }
    let row = present_row(daemon, node);
    row.into_iter().flat_map(|row| &row.health.failing).map(ToString::to_string).collect()
}

/// What a node said last in its present incarnation.
fn present_row<'a>(daemon: &'a Daemon, node: &NodeName) -> Option<&'a Row> {
    let incarnation = daemon.node.state().nodes.get(node)?.incarnation;
    daemon.node.rows().get(node).filter(|row| row.incarnation == incarnation)
}

fn is_ok(outcome: AgentOutcome) -> bool {
    matches!(outcome, AgentOutcome::Succeeded | AgentOutcome::IsOff)
}

fn devices(daemon: &Daemon) -> Vec<DeviceStatus> {
    let mut all = Vec::new();
    for (agent, settings) in &daemon.config.fencing.agents {
        let targets: Vec<_> = match settings.node.is_empty() {
            true => daemon.config.nodes.keys().take(1).collect(),
            false => settings.node.keys().collect(),
        };
        for target in targets {
            let monitor = daemon.monitors.get(&(agent.clone(), target.clone())).map(|(at, run)| MonitorStatus {
                ok: is_ok(run.outcome),
                at_ms: *at,
                error: (!is_ok(run.outcome)).then(|| run.output.clone()),
            });
            all.push(DeviceStatus { agent: agent.clone(), kind: settings.kind, target: target.clone(), monitor });
        }
    }
    all
}

fn fence_status(fence: &Fence) -> FenceStatus {
    let stage = match fence.state {
        FenceState::Open if fence.refuted > 0 => "refuted",
        FenceState::Open => "trying",
        FenceState::Confirmed if fence.used => "checked",
        FenceState::Confirmed => "confirmed",
        FenceState::Void | FenceState::Lifting => "unfencing",
        FenceState::Closed => "closed",
    };
    let attempts = fence.orders.iter().map(|o| {
        let end = match &o.state {
            ledger::OrderState::Running => "is running".to_owned(),
            ledger::OrderState::Done { run } => {
                format!("{}: {}", run.outcome, run.output.lines().last().unwrap_or(""))
            }
        };
        format!("{} {} on {} {end}", o.agent, o.action.word(), o.executor)
    });
    FenceStatus {
        id: fence.id,
        node: fence.target.clone(),
        boot: fence.boot.clone(),
        incident: Some(fence.incident),
        stage: stage.to_owned(),
        confirmed_by: fence.confirmed.as_ref().map(|c| match c {
            Confirmation::Level { level, .. } => format!("level {}", level + 1),
            Confirmation::Human { who, .. } => who.clone(),
        }),
        attempts: attempts.collect(),
    }
}

fn warnings(daemon: &Daemon) -> Vec<String> {
    let config = &daemon.config;
    let mut warnings = Vec::new();
    if config.security.insecure {
        warnings.push("insecure = true: nodes do not prove who they are".to_owned());
    }
    if config.fencing.lease_without_watchdog {
        warnings.push(
            "lease_without_watchdog = true: a host whose daemons are dead or stuck may write past its lease".to_owned(),
        );
    }
    if config.fencing.lease_on_virtual_machine {
        warnings.push(
            "lease_on_virtual_machine = true: a paused virtual machine may write past its lease when it wakes"
                .to_owned(),
        );
    }
    let strangers = daemon.consensus.refusals().into_iter();
    warnings
        .extend(strangers.map(|r| format!("refused {} from {}: {} ({} times)", r.who, r.address, r.reason, r.count)));
    warnings.extend(
        daemon
            .intake
            .refused()
            .into_iter()
            .map(|r| format!("refused on {}: {} ({} times)", r.channel, r.last, r.count)),
    );
    for channel in config.channels() {
        if let Some(why) = daemon.node.detector().unusable(&channel) {
            warnings.push(format!("{} cannot use channel {channel}: {why}", config.node));
        }
    }
    warnings
}

/// One line of `history`.
pub(super) fn summary(incident: &Incident) -> IncidentSummary {
    let kind = match incident.kind {
        ledger::IncidentKind::Failover | ledger::IncidentKind::LocalFailure => IncidentKind::Failover,
        ledger::IncidentKind::Switchover => IncidentKind::Switchover,
        ledger::IncidentKind::Fencing => IncidentKind::Fence,
    };
    let (outcome, what) = match &incident.outcome {
        Outcome::Open => (IncidentOutcome::Open, "is open".to_owned()),
        Outcome::Moved { to, epoch } => {
            (IncidentOutcome::Succeeded, format!("ended with {to} as primary in epoch {epoch}"))
        }
        Outcome::Stayed { on, epoch } => {
            (IncidentOutcome::Failed, format!("ended with {on} as primary again, in epoch {epoch}"))
        }
        Outcome::Ended { why } => (IncidentOutcome::Abandoned, format!("ended: {why}")),
    };
    let name = match incident.kind {
        ledger::IncidentKind::Failover => "failover",
        ledger::IncidentKind::LocalFailure => "failover without a fence",
        ledger::IncidentKind::Switchover => "switchover",
        ledger::IncidentKind::Fencing => "fence",
    };
    let closed = installed_at(incident).or_else(|| incident.steps.last().map(|s| s.at));
    IncidentSummary {
        id: incident.id,
        kind,
        services: incident.services.iter().cloned().collect(),
        subject: Some(incident.subject.clone()),
        opened_at_ms: incident.opened,
        closed_at_ms: closed.filter(|_| incident.outcome != Outcome::Open),
        outcome,
        headline: format!("{name} of {} {what}", incident.subject),
    }
}

fn installed_at(incident: &Incident) -> Option<WallTime> {
    incident.steps.iter().find(|s| matches!(s.what, Happening::Installed { .. })).map(|s| s.at)
}

/// One incident, explained.
pub(super) fn incident(_state: &State, incident: &Incident) -> IncidentReport {
    let steps = incident.steps.iter().map(|s| IncidentStep {
        at_ms: s.at,
        since_open_ms: s.at.0 as i64 - incident.opened.0 as i64,
        what: s.what.to_string(),
        details: details(&s.what),
    });
    IncidentReport {
        schema: SCHEMA,
        summary: summary(incident),
        steps: steps.collect(),
        durations: durations(incident),
    }
}

/// The evidence of one step, line by line.
fn details(what: &Happening) -> Vec<String> {
    match what {
        Happening::DeclaredDead { answers, .. } => answers
            .iter()
            .map(|(voter, s)| {
                let channels = s.view.channels.iter().map(|(channel, sight)| {
                    let silent = s.silent_ms.get(channel).map_or(String::new(), |ms| format!(" for {ms} ms"));
                    match sight {
                        Sight::Up => format!("{channel} up"),
                        Sight::Lost => format!("{channel} lost{silent}"),
                        Sight::Blind => format!("{channel} blind"),
                    }
                });
                let alive = if s.view.database_alive { "; its database still feeds a standby here" } else { "" };
                format!("{voter}: {}{alive}", channels.collect::<Vec<_>>().join(", "))
            })
            .collect(),
        Happening::AgentEnded { output, .. } => output.lines().map(str::to_owned).collect(),
        Happening::Appointed { positions, checks, .. } => {
            let positions = positions.iter().map(|(node, p)| format!("{node} reported its end of WAL at {p}"));
            let checks = checks.iter().map(|(node, answer)| match answer {
                CheckAnswer::Holds => format!("{node} watched: the fence holds"),
                CheckAnswer::Refuted { what, .. } => format!("{node}: {what}"),
            });
            positions.chain(checks).collect()
        }
        _ => Vec::new(),
    }
}

/// Where the time went, from the ledger's own stamps.
fn durations(incident: &Incident) -> Durations {
    let at = |wanted: fn(&Happening) -> bool| incident.steps.iter().find(|s| wanted(&s.what)).map(|s| s.at.0);
    let between = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| b.saturating_sub(a));
    let declared = at(|w| matches!(w, Happening::DeclaredDead { .. }));
    let ordered = at(|w| matches!(w, Happening::Ordered { .. }));
    let confirmed = at(|w| matches!(w, Happening::FenceConfirmed { .. }));
    let released = at(|w| matches!(w, Happening::Released { .. }));
    let appointed = at(|w| matches!(w, Happening::Appointed { .. }));
    let installed = installed_at(incident).map(|t| t.0);
    let silent = incident.steps.iter().find_map(|s| match &s.what {
        Happening::DeclaredDead { answers, .. } => {
            // The node is dead since its last sign of life on any channel that anybody had.
            answers.values().filter_map(|a| a.silent_ms.values().min()).min().copied()
        }
        _ => None,
    });
    Durations {
        detect_ms: silent,
        verdict_ms: between(declared, ordered),
        fence_ms: between(ordered, confirmed),
        check_ms: between(confirmed, appointed),
        choose_ms: between(released, appointed),
        promote_ms: between(appointed, installed),
        total_ms: between(Some(incident.opened.0), installed).map(|ms| ms + silent.unwrap_or(0)),
    }
}
