//! Incidents as text: the list, and one explained with its timeline.

use super::table;
use super::words::{incident_kind, incident_outcome, milliseconds, or_dash, time_of_day};
use crate::api::status::{Durations, IncidentReport, IncidentSummary};

/// The list, in the order given.
pub fn history(incidents: &[IncidentSummary]) -> String {
    if incidents.is_empty() {
        return "No incident yet.\n".to_owned();
    }
    let header = ["id", "opened", "took", "kind", "services", "of", "outcome", "what"];
    table(
        &header,
        incidents.iter().map(|incident| {
            vec![
                incident.id.to_string(),
                time_of_day(incident.opened_at_ms),
                or_dash(took(incident).map(milliseconds)),
                incident_kind(incident.kind).to_owned(),
                services(incident),
                or_dash(incident.subject.as_ref()),
                incident_outcome(incident.outcome).to_owned(),
                incident.headline.clone(),
            ]
        }),
    )
}

/// One incident: what it was, where the time went, then every step with its evidence.
pub fn incident(report: &IncidentReport) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "Incident {}: {}{}{}, {}\n  {}\n  Opened {}",
        summary.id,
        incident_kind(summary.kind),
        if summary.services.is_empty() { String::new() } else { format!(" of {}", services(summary)) },
        summary.subject.as_ref().map(|subject| format!(" from {subject}")).unwrap_or_default(),
        incident_outcome(summary.outcome),
        summary.headline,
        time_of_day(summary.opened_at_ms),
    );
    text += &match (summary.closed_at_ms, took(summary)) {
        (Some(closed), Some(took)) => format!(", closed {} ({})\n", time_of_day(closed), milliseconds(took)),
        _ => ", not closed yet\n".to_owned(),
    };
    text += &durations(&report.durations);
    text += "\n";
    for step in &report.steps {
        text += &format!("{:>9} ms  {}\n", step.since_open_ms, step.what);
        for detail in &step.details {
            text += &format!("{:14}{detail}\n", "");
        }
    }
    if !report.losses.is_empty() {
        text += &format!("\nWhat may be lost: `regent lost {}` lists it.\n", summary.id);
    }
    text
}

fn took(incident: &IncidentSummary) -> Option<u64> {
    incident.closed_at_ms.map(|closed| closed.0.saturating_sub(incident.opened_at_ms.0))
}

fn services(incident: &IncidentSummary) -> String {
    incident.services.iter().map(|service| service.as_str()).collect::<Vec<_>>().join(", ")
}

/// One line of what is known; nothing when nothing is.
fn durations(durations: &Durations) -> String {
    let parts = [
        ("detect", durations.detect_ms),
        ("verdict", durations.verdict_ms),
        ("fence", durations.fence_ms),
        ("check", durations.check_ms),
        ("choose", durations.choose_ms),
        ("promote", durations.promote_ms),
        ("total", durations.total_ms),
    ];
    let known: Vec<String> =
        parts.into_iter().filter_map(|(word, ms)| Some(format!("{word} {}", milliseconds(ms?)))).collect();
    if known.is_empty() { String::new() } else { format!("  Time: {}\n", known.join(" · ")) }
}
