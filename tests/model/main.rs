//! The model of the protocol, searched exhaustively: the small core of lease, verdict, fence and appointment with three
//! nodes, and the same with one mistake at a time, which must be found.
//! `cargo test --test model -- [NAME] [--deep] [--trace]`.
//!
//! Not here: the program. The model is written from the design and imports nothing of regent.
//!
//! The search is our own and not stateright's, for three reasons. stateright keeps the whole path with every queued
//! state and copies it for every step, known or not; a state here is 32 bytes and knows its parent. It takes two states
//! for one when their 64-bit fingerprints agree; here all bits are compared. And its search, being generic, would be
//! built without optimisation in this test's crate, with seventeen more packages, among them a web server.

#![expect(clippy::disallowed_methods, reason = "how long a search took is printed, and nothing hangs on it")]

mod packing;
mod properties;
mod protocol;
mod scopes;
mod search;
mod search_test;
mod state;
mod step;

use properties::RULES;
use protocol::Protocol;
use scopes::{MISTAKES, Mistake, SEARCHED, Searched};
use search::{Found, Search, Trace, run};
use std::process::ExitCode;
use std::time::Instant;
use step::Scope;

/// More states than these are not kept: at 48 bytes each that is half of a small machine.
const STATES_MAX: usize = 60_000_000;

struct Wanted {
    name: Option<String>,
    deep: bool,
    trace: bool,
    depth: Option<usize>,
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { name: None, deep: false, trace: false, depth: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--deep" => wanted.deep = true,
            "--trace" => wanted.trace = true,
            "--depth" => {
                let depth = args.next().and_then(|depth| depth.parse().ok());
                wanted.depth = Some(depth.ok_or("--depth needs a number of steps")?);
            }
            "--nocapture" | "--quiet" | "-q" => {}
            name if !name.starts_with('-') => wanted.name = Some(name.to_owned()),
            other => return Err(format!("{other} is not known; known are NAME, --deep, --depth, --trace")),
        }
    }
    Ok(wanted)
}

fn main() -> ExitCode {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("model: {why}");
            return ExitCode::from(2);
        }
    };
    let is_wanted = |name: &str| wanted.name.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let (mut passed, mut failed) = (0, 0);
    let mut count = |name: &str, ended: Result<String, String>| match ended {
        Ok(told) => {
            passed += 1;
            println!("PASS {name}: {told}");
        }
        Err(why) => {
            failed += 1;
            println!("FAIL {name}: {why}");
        }
    };
    for (name, test) in search_test::TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        count(name, test());
    }
    for searched in SEARCHED.iter().filter(|s| is_wanted(s.name) && (wanted.deep || !s.deep)) {
        count(searched.name, holds(searched, &wanted));
    }
    for mistake in MISTAKES.iter().filter(|m| is_wanted(m.name)) {
        count(mistake.name, is_found(mistake, &wanted));
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn in_words(trace: &Trace) -> String {
    trace.steps.iter().enumerate().map(|(at, step)| format!("\n     {:>2} {step}", at + 1)).collect()
}

fn size(found: &Found, since: Instant) -> String {
    let all = if found.complete { "all " } else { "" };
    let took = since.elapsed().as_secs_f64();
    format!(
        "{all}{} states, {} steps between them, depth {}, {took:.1} s",
        found.states, found.transitions, found.depth
    )
}

/// Every rule holds in every state of the scope, and every goal is reached.
fn holds(searched: &Searched, wanted: &Wanted) -> Result<String, String> {
    let since = Instant::now();
    let depth = searched.depth.map(|depth| wanted.depth.unwrap_or(if wanted.deep { depth + 3 } else { depth }));
    let limit = depth.unwrap_or(usize::MAX);
    let search = Search { rules: &RULES, goals: searched.goals, depth: limit, states: STATES_MAX };
    let found = run(&Protocol { scope: searched.scope }, &search);
    if let Some(broken) = &found.broken {
        return Err(format!("{} is broken after {} steps:{}", broken.what, broken.steps.len(), in_words(broken)));
    }
    if !found.complete && found.depth < limit {
        return Err(format!("not searched to its end: {}", size(&found, since)));
    }
    let mut told = size(&found, since);
    for (goal, _) in searched.goals {
        let Some(way) = found.reached.iter().find(|way| way.what == *goal) else {
            return Err(format!("no {goal} is reachable: the model shows nothing"));
        };
        told += &format!("; {goal} after {} steps", way.steps.len());
        if wanted.trace {
            told += &in_words(way);
        }
    }
    Ok(told)
}

/// With the mistake the rule is broken, and no other one is broken by a shorter way.
fn is_found(mistake: &Mistake, wanted: &Wanted) -> Result<String, String> {
    let since = Instant::now();
    let searched = SEARCHED.iter().find(|s| s.name == mistake.scope).ok_or("no such scope")?;
    let protocol = Protocol { scope: Scope { bug: Some(mistake.bug), ..searched.scope } };
    let search = Search { rules: &RULES, goals: &[], depth: usize::MAX, states: STATES_MAX };
    let found = run(&protocol, &search);
    let Some(broken) = &found.broken else {
        return Err(format!("not found: {}", size(&found, since)));
    };
    if !broken.what.starts_with(mistake.rule) {
        return Err(format!("breaks {} and not {}:{}", broken.what, mistake.rule, in_words(broken)));
    }
    let mut told = format!("breaks {} after {} steps ({} states)", broken.what, broken.steps.len(), found.states);
    if wanted.trace {
        told += &in_words(broken);
    }
    let one_writer = &RULES[..1];
    let search = Search { rules: one_writer, ..search };
    let worse = run(&protocol, &search);
    match (&worse.broken, mistake.two_writers) {
        (Some(two), true) => {
            told += &format!("; two writers after {} steps ({} states)", two.steps.len(), worse.states);
            if wanted.trace {
                told += &in_words(two);
            }
        }
        (None, false) => told += &format!("; never two writers ({})", size(&worse, since)),
        (Some(two), false) => return Err(format!("two writers, which was not known:{}", in_words(two))),
        (None, true) => return Err(format!("no two writers: {}", size(&worse, since))),
    }
    Ok(format!("{told}; {:.1} s", since.elapsed().as_secs_f64()))
}
