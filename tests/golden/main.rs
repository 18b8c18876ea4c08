//! Stories of the pure modules, text in and text out: `tests/golden/FOLDER/SITUATION.txt`. A story ends as its file says,
//! or the test fails with the difference; `REWRITE=1` writes what comes out instead. `COVERAGE.md` beside the stories
//! says which rule, refusal, transition, hazard and point of the design is shown by which of them, and is checked.
//!
//! `format/` is the written form of the log, not a story (`encoding.rs`).
//!
//! Not here: `cli` and `config`, whose texts are tested where they are made.

mod commands;
mod coordinating;
mod coverage;
mod desk;
mod detector;
mod encoding;
mod fates;
mod goals;
mod keeping;
mod node;
mod samples;
mod setup;
mod story;
mod words;

use crate::fates::Seen;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of stories.
const FOLDERS: &[&str] = &["detector", "ledger", "coordinator", "candidate", "keeper", "node"];

/// The file that the test of the goals writes as a whole.
const GOALS: &str = "keeper/every-goal-is-reached.txt";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_rewriting() -> bool {
    std::env::var_os("REWRITE").is_some()
}

/// The stories of one folder: name and text.
fn stories(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("tests/golden/{folder}: {e}")) {
        let path = entry.expect("a readable folder").path();
        let name = format!("{folder}/{}", path.file_name().expect("a file has a name").display());
        if path.extension().is_some_and(|e| e == "txt") && name != GOALS {
            found.insert(name, fs::read_to_string(&path).expect("a readable story"));
        }
    }
    assert!(!found.is_empty(), "tests/golden/{folder} has no stories");
    found
}

/// Plays one story: what comes out, and what it showed by itself.
fn play(name: &str, text: &str) -> (String, Seen) {
    println!("== {name}");
    match name.split('/').next() {
        Some("detector") => (story::replay(text, &mut detector::Observer::new()), Seen::default()),
        Some("node") => {
            let mut stage = node::Stand::new();
            let played = story::replay(text, &mut stage);
            (played, stage.desk.seen)
        }
        _ => {
            let mut desk = desk::Desk::new();
            let played = story::replay(text, &mut desk);
            (played, desk.seen)
        }
    }
}

/// Compares with the file, or writes it; the first lines that differ.
fn difference(name: &str, expected: &str, played: &str) -> Option<String> {
    if is_rewriting() {
        // At once or not at all: another test may be reading it.
        let (path, new) = (root().join(name), root().join(format!("{name}.new")));
        fs::write(&new, played).and_then(|()| fs::rename(&new, &path)).expect("a writable folder");
        return None;
    }
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), played.lines().collect());
    let at = (0..old.len().max(new.len())).find(|i| old.get(*i) != new.get(*i))?;
    let line = |lines: &[&str]| lines.get(at).map_or("(the end)".to_owned(), |l| (*l).to_owned());
    Some(format!("{name}, line {}:\n  written:   {}\n  comes out: {}", at + 1, line(&old), line(&new)))
}

fn check(folder: &str) {
    let played = stories(folder).into_iter().map(|(name, text)| (play(&name, &text).0, name, text));
    let wrong: Vec<_> = played.filter_map(|(played, name, text)| difference(&name, &text, &played)).collect();
    assert!(wrong.is_empty(), "REWRITE=1 accepts what follows; read the difference\n{}", wrong.join("\n"));
}

#[test]
fn detector_stories_end_as_they_are_written() {
    check("detector");
}

#[test]
fn ledger_stories_end_as_they_are_written() {
    check("ledger");
}

#[test]
fn coordinator_stories_end_as_they_are_written() {
    check("coordinator");
}

#[test]
fn candidate_stories_end_as_they_are_written() {
    check("candidate");
}

#[test]
fn keeper_stories_end_as_they_are_written() {
    check("keeper");
}

#[test]
fn stories_of_a_whole_node_end_as_they_are_written() {
    check("node");
}

#[test]
fn every_goal_is_reached_by_the_keeper_from_every_state() {
    let expected = fs::read_to_string(root().join(GOALS)).unwrap_or_default();
    let wrong = difference(GOALS, &expected, &goals::table());
    assert!(wrong.is_none(), "REWRITE=1 accepts what follows\n{}", wrong.unwrap_or_default());
}

/// The document with the keeper's table, between these two lines.
const KEEPER: (&str, &str, &str) = ("../../docs/keeper.md", "<!-- the table begins -->", "<!-- the table ends -->");

#[test]
fn the_table_of_the_keeper_is_the_one_in_the_documents() {
    let (name, begin, end) = KEEPER;
    let written = fs::read_to_string(root().join(name)).expect("docs/keeper.md");
    let (before, rest) = written.split_once(begin).expect("a line that begins the table");
    let (_, after) = rest.split_once(end).expect("a line that ends the table");
    let wrong = difference(name, &written, &format!("{before}{begin}\n{}\n{end}{after}", goals::document()));
    assert!(wrong.is_none(), "REWRITE=1 accepts what follows\n{}", wrong.unwrap_or_default());
}

#[test]
fn every_rule_refusal_transition_hazard_and_point_is_shown() {
    let mut shown = coverage::Shown::default();
    for folder in FOLDERS {
        for (name, text) in stories(folder) {
            let (_, seen) = play(&name, &text);
            shown.note(&name, &text, seen);
        }
    }
    shown.note(GOALS, &goals::table(), Seen::default());
    let missing = shown.missing();
    assert!(missing.is_empty(), "no story shows:\n{}", missing.join("\n"));
    let expected = fs::read_to_string(root().join("COVERAGE.md")).unwrap_or_default();
    let wrong = difference("COVERAGE.md", &expected, &shown.table());
    assert!(wrong.is_none(), "REWRITE=1 accepts what follows\n{}", wrong.unwrap_or_default());
}

#[test]
fn what_no_story_shows_is_missing() {
    let nothing = coverage::Shown::default().missing();
    assert!(nothing.len() > 130, "only {} things are wanted", nothing.len());
    let text = stories("ledger").remove("ledger/two-voters-judge-nobody.txt").expect("that story");
    let (_, seen) = play("ledger/two-voters-judge-nobody.txt", &text);
    let mut one = coverage::Shown::default();
    one.note("ledger/two-voters-judge-nobody.txt", &text, seen);
    // A rule, a hazard, a refusal; what a goal is was noted too.
    assert!(one.missing().len() < nothing.len() - 2);
    assert!(!one.missing().iter().any(|line| line.contains("NoDoubleMajority")));
    assert!(one.missing().iter().any(|line| line.contains("ShowsLife")));
}

#[test]
fn a_change_of_a_story_is_seen() {
    let (name, text) = stories("ledger").into_iter().next().expect("there are stories");
    let line = text.lines().skip_while(|l| *l != "----").nth(1).expect("a story shows something");
    let changed = text.replacen(line, &format!("{line} not"), 1);
    let played = play(&name, &changed).0;
    assert_eq!(played, text, "what comes out does not depend on what was written");
    assert_ne!(played, changed);
}
