//! What the ledger can be at, as words: for each node, epoch, fence, switchover, pause and incident one word, so that a
//! change of the ledger is a row of the table of transitions.

use regent::ledger::{FenceState, Life, Outcome, Over, Phase, State};
use std::collections::{BTreeMap, BTreeSet};

/// Every change that may happen, by what it happens to. A change that is not listed fails the story in which it is
/// seen; a row that no story shows fails the table of coverage.
pub const TRANSITIONS: &[(&str, &[&str])] = &[
    ("node", &["unknown -> up", "up -> dead", "dead -> up", "up -> up again"]),
    (
        "epoch",
        &[
            "none -> creating",
            "creating -> installed",
            "creating -> released",
            "released -> creating",
            "released -> appointed",
            "installed -> appointed",
            "appointed -> appointed",
            "promoting -> appointed",
            "appointed -> promoting",
            "appointed -> installed",
            "promoting -> installed",
            "appointed -> released",
            "promoting -> released",
            "installed -> released",
            "appointed -> passed over",
            "promoting -> passed over",
            "passed over -> appointed",
        ],
    ),
    (
        "fence",
        &[
            "none -> open",
            "open -> confirmed",
            "confirmed -> open",
            "open -> void",
            "confirmed -> void",
            "open -> lifting",
            "confirmed -> lifting",
            "void -> lifting",
            "void -> closed",
            "lifting -> closed",
            "closed -> lifting",
        ],
    ),
    ("switchover", &["none -> asked", "asked -> none"]),
    ("pause", &["none -> paused", "paused -> resumed", "resumed -> none", "resumed -> paused"]),
    ("incident", &["none -> open", "open -> moved", "open -> stayed", "open -> ended"]),
];

/// What stories showed by themselves, whatever they say they show.
#[derive(Default)]
pub struct Seen {
    pub refusals: BTreeSet<String>,
    pub transitions: BTreeSet<String>,
    pub goals: BTreeSet<String>,
}

/// One subject's fate: its kind, its word, and a number that tells two equal words apart.
type Fate = (&'static str, &'static str, u64);

pub fn fates(state: &State) -> BTreeMap<String, Fate> {
    let mut fates = BTreeMap::new();
    for (name, n) in &state.nodes {
        let life = if n.life == Life::Up { "up" } else { "dead" };
        fates.insert(format!("node {name}"), ("node", life, n.incarnation.0));
    }
    for (name, s) in &state.services {
        let phase = match (&s.over, s.phase) {
            (Some(Over::Released { .. }), _) => "released",
            (Some(Over::PassedOver), _) => "passed over",
            (None, Phase::Creating) => "creating",
            (None, Phase::Appointed) => "appointed",
            (None, Phase::Promoting { .. }) => "promoting",
            (None, Phase::Installed) => "installed",
        };
        fates.insert(format!("epoch of {name}"), ("epoch", phase, s.epoch.0));
        let moving = if s.moving.is_some() { "asked" } else { "none" };
        fates.insert(format!("switchover of {name}"), ("switchover", moving, 0));
        let pause = match (s.paused, s.unproven_resume) {
            (true, _) => "paused",
            (false, Some(_)) => "resumed",
            (false, None) => "none",
        };
        fates.insert(format!("pause of {name}"), ("pause", pause, 0));
    }
    for (id, f) in &state.fences {
        let word = match f.state {
            FenceState::Open => "open",
            FenceState::Confirmed => "confirmed",
            FenceState::Void => "void",
            FenceState::Lifting => "lifting",
            FenceState::Closed => "closed",
        };
        fates.insert(format!("fence {id} of {}", f.target), ("fence", word, 0));
    }
    for (id, i) in &state.incidents {
        let word = match i.outcome {
            Outcome::Open => "open",
            Outcome::Moved { .. } => "moved",
            Outcome::Stayed { .. } => "stayed",
            Outcome::Ended { .. } => "ended",
        };
        fates.insert(format!("incident {id}"), ("incident", word, 0));
    }
    fates
}

fn first(kind: &str) -> &'static str {
    if kind == "node" { "unknown" } else { "none" }
}

/// What changed, as sentences; each is noted as seen.
pub fn changes(before: &State, after: &State, seen: &mut Seen) -> Vec<String> {
    let (old, new) = (fates(before), fates(after));
    let mut lines = Vec::new();
    for (subject, (kind, word, number)) in new {
        let (_, was, had) = old.get(&subject).copied().unwrap_or((kind, first(kind), 0));
        if was == word && had == number {
            continue;
        }
        let again = if kind == "node" && was == "up" && word == "up" { " again" } else { "" };
        let row = format!("{was} -> {word}{again}");
        let known = TRANSITIONS.iter().any(|(k, rows)| *k == kind && rows.contains(&row.as_str()));
        assert!(known, "{subject}: {row} is not in the table of transitions");
        seen.transitions.insert(format!("{kind}: {row}"));
        let number = match kind {
            "node" => format!(", incarnation {number}"),
            "epoch" => format!(", epoch {number}"),
            _ => String::new(),
        };
        lines.push(format!("{subject}: {row}{number}"));
    }
    lines
}
