//! Incidents for people: a line of `history`, and the whole story with its evidence and where the time went.
//!
//! Not here: the sentences of the steps (`ledger/incident.rs`).

use crate::api::status::{
    CameBack, Durations, IncidentKind, IncidentOutcome, IncidentReport, IncidentStep, IncidentSummary, MayBeLost,
    SCHEMA,
};
use crate::ledger::{self, CheckAnswer, Happening, Incident, Outcome, Shared, State, StepRecord};
use crate::types::{LogIndex, NodeName, ServiceName, Sight, WallTime};

/// One line of `history`.
pub fn summary(incident: &Incident) -> IncidentSummary {
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

/// One incident, explained. What became of a loss may stand in a later one.
pub fn report(state: &State, incident: &Incident) -> IncidentReport {
    let (first, later) = incident.steps.split_at(incident.first_steps());
    let gap = first.last().filter(|_| incident.forgotten > 0).map(|last| {
        let what = format!("{} later steps that repeat others are not kept", incident.forgotten);
        told(incident, last.at, what, Vec::new())
    });
    let step = |s: &Shared<StepRecord>| told(incident, s.at, s.what.to_string(), details(&s.what));
    IncidentReport {
        schema: SCHEMA,
        summary: summary(incident),
        steps: first.iter().map(step).chain(gap).chain(later.iter().map(step)).collect(),
        durations: durations(incident),
        losses: incident.steps.iter().filter_map(|step| may_be_lost(state, step)).collect(),
    }
}

fn may_be_lost(state: &State, step: &StepRecord) -> Option<MayBeLost> {
    let Happening::MayBeLost { service, epoch, node, timeline, after, by } = &step.what else { return None };
    Some(MayBeLost {
        service: service.clone(),
        epoch: *epoch,
        node: node.clone(),
        timeline: *timeline,
        after: *after,
        by: by.clone(),
        came_back: came_back(state, step.index, service, node),
    })
}

/// How the node came back after this entry, until it was a primary again. The ledger does not say of which of its services a
/// rejoin was.
fn came_back(state: &State, since: LogIndex, service: &ServiceName, node: &NodeName) -> Option<CameBack> {
    let incidents = state.incidents.values().filter(|incident| incident.services.contains(service));
    let mut steps: Vec<_> = incidents.flat_map(|incident| &incident.steps).filter(|step| step.index > since).collect();
    steps.sort_by_key(|step| step.index);
    let is_primary = |step: &&&Shared<StepRecord>| matches!(&step.what, Happening::Installed { service: s, node: n, .. } if s == service && n == node);
    let until = steps.iter().find(is_primary).map(|step| step.index);
    let mut back: Option<CameBack> = None;
    for step in steps.into_iter().take_while(|step| until.is_none_or(|until| step.index < until)) {
        if let Happening::Rejoined { node: n, how, kept } = &step.what
            && n == node
        {
            let back = back.get_or_insert(CameBack { at_ms: step.at, how: how.clone(), kept: Vec::new() });
            back.kept.extend(kept.clone());
        }
    }
    back
}

fn told(incident: &Incident, at: WallTime, what: String, details: Vec<String>) -> IncidentStep {
    IncidentStep { at_ms: at, since_open_ms: at.0 as i64 - incident.opened.0 as i64, what, details }
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
