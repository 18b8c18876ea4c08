//! The written form of the log and of snapshots, `format/NUMBER.txt`: one line for each value of each kind, and a whole
//! state. What comes out for the present number must be what its file says, and every file must be read for ever.
//!
//! A change of what is written fails here until `regent::ledger::format::FORMAT` is raised; then `REWRITE=1` writes the
//! file of the new number. It never writes over one: what was released does not change. (While a number is new and was
//! never released, remove its file first.)

use crate::{is_rewriting, root, samples};
use regent::config::{OnLapsed, PowerOn, Role};
use regent::consensus::{Proposal, snapshot};
use regent::ledger::format::{FIRST, FORMAT};
use regent::ledger::{
    Basis, Cause, CheckAnswer, ClaimState, Confirmation, Entry, FenceReason, FenceState, Happening, IncidentKind, Life,
    OrderState, Outcome, Over, Phase, Refusal,
};
use regent::types::{AgentAction, AgentKind, AgentOutcome, Sight, WallTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

fn file(format: u32) -> PathBuf {
    root().join(format!("format/{format}.txt"))
}

/// The names of all variants, from the words of serde for one that does not exist.
fn variants<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let text = serde_json::from_str::<T>("\"?\"").expect_err("no variant is called ?").to_string();
    let (_, known) = text.split_once("expected ").expect("serde names what it knows");
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn variant(json: &serde_json::Value) -> String {
    match json {
        serde_json::Value::String(name) => name.clone(),
        other => other.as_object().and_then(|o| o.keys().next()).expect("a variant has a name").clone(),
    }
}

/// Writes the samples of one enum, and reads what earlier formats wrote.
struct Book {
    text: String,
    old: Vec<(u32, String)>,
}

impl Book {
    fn open() -> Self {
        let read = |format| (format, fs::read_to_string(file(format)).expect("every format has its file"));
        Book { text: String::new(), old: (FIRST..FORMAT).map(read).collect() }
    }

    fn section<T: DeserializeOwned>(&mut self, name: &str, lines: Vec<String>) {
        for (format, text) in &self.old {
            let written = text.split("\n== ").find(|section| section.lines().next() == Some(name)).unwrap_or_default();
            for line in written.lines().skip(1).filter(|line| !line.is_empty()) {
                let read = serde_json::from_str::<T>(line);
                assert!(read.is_ok(), "{name} of format {format} is not read any more: {line}: {:?}", read.err());
            }
        }
        self.text.push_str(&format!("\n== {name}\n"));
        lines.iter().for_each(|line| self.text.push_str(&format!("{line}\n")));
    }

    fn kind<T>(&mut self, name: &str, samples: impl IntoIterator<Item = T>)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        self.section::<T>(name, lines(name, samples));
    }
}

/// Each sample on a line, and one of every variant.
fn lines<T>(name: &str, samples: impl IntoIterator<Item = T>) -> Vec<String>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut missing = variants::<T>();
    let mut lines = Vec::new();
    for sample in samples {
        let json = serde_json::to_value(&sample).expect("plain data");
        missing.remove(&variant(&json));
        let line = serde_json::to_string(&sample).expect("plain data");
        assert_eq!(serde_json::from_str::<T>(&line).expect("its own words"), sample);
        lines.push(line);
    }
    assert!(missing.is_empty(), "no sample of {name}: {missing:?}; add it in tests/golden/samples.rs");
    lines
}

fn written() -> String {
    let mut book = Book::open();
    lines("command", samples::commands());
    let entry = |command| Proposal(Arc::new(Entry { at: WallTime(1_700_000_000_000), command }));
    let entries = samples::commands().into_iter().map(entry);
    let lines = entries.map(|entry| serde_json::to_string(&entry).expect("plain data")).collect();
    book.section::<Proposal>("entry", lines);
    book.kind::<Refusal>("refusal", samples::refusals());
    book.kind::<Happening>("happening", samples::happenings());
    book.kind::<FenceReason>("reason of a fence", samples::fence_reasons());
    book.kind::<CheckAnswer>("answer to a check", samples::check_answers());
    book.kind::<ClaimState>("claim", samples::claim_states());
    book.kind::<Basis>("basis", samples::bases());
    book.kind::<Cause>("cause of a fence", samples::causes());
    book.kind::<Confirmation>("confirmation", samples::confirmations());
    book.kind::<Phase>("phase", samples::phases());
    book.kind::<Over>("end of an epoch", samples::ends());
    book.kind::<OrderState>("order", samples::order_states());
    book.kind::<Outcome>("outcome of an incident", samples::outcomes());
    book.kind::<Life>("life", [Life::Up, Life::Dead]);
    {
        use FenceState::{Closed, Confirmed, Lifting, Open, Void};
        book.kind::<FenceState>("state of a fence", [Open, Confirmed, Void, Lifting, Closed]);
        use IncidentKind::{Failover, Fencing, LocalFailure, Switchover};
        book.kind::<IncidentKind>("incident", [Failover, LocalFailure, Switchover, Fencing]);
        use AgentOutcome::{Failed, IsOff, NotBegun, NotRun, Succeeded, TimedOut};
        let failed = Failed { status: 2 };
        book.kind::<AgentOutcome>("outcome of an agent", [Succeeded, IsOff, failed, TimedOut, NotRun, NotBegun]);
        use AgentKind::{Access, Lease, Network, Power, Storage};
        book.kind::<AgentKind>("agent", [Power, Storage, Lease, Network, Access]);
    }
    book.kind::<AgentAction>("action", AgentAction::ALL);
    book.kind::<Sight>("sight", [Sight::Up, Sight::Lost, Sight::Blind]);
    book.kind::<OnLapsed>("on_lapsed", [OnLapsed::Alarm, OnLapsed::Fence]);
    book.kind::<PowerOn>("power_on", [PowerOn::Auto, PowerOn::Manual]);
    book.kind::<Role>("role", [Role::Database, Role::Witness]);
    let bytes = snapshot::encode(&samples::state());
    assert_eq!(snapshot::decode(&bytes).expect("its own words"), samples::state());
    for (format, text) in &book.old {
        let (_, stored) = text.split_once("\n== snapshot\n").expect("every format has one");
        let read = snapshot::decode(stored.as_bytes());
        assert!(read.is_ok(), "the snapshot of format {format} is not read any more: {:?}", read.err());
    }
    book.text.push_str(&format!("\n== snapshot\n{}\n", indented(&bytes)));
    format!("The written form of format {FORMAT}.\n{}", book.text)
}

/// A line for each field of the outermost objects. No text in the samples has a bracket in it.
fn indented(json: &[u8]) -> String {
    let (mut text, mut depth) = (String::new(), 0_usize);
    for letter in std::str::from_utf8(json).expect("JSON is text").chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        text.push(letter);
        if letter == ',' && depth < 4 {
            text.push('\n');
            text.push_str(&" ".repeat(depth));
        }
    }
    text
}

#[test]
fn what_is_written_has_the_form_of_its_number() {
    let (written, path) = (written(), file(FORMAT));
    if is_rewriting() && !path.exists() {
        fs::write(&path, &written).expect("a writable folder");
    }
    let name = format!("tests/golden/format/{FORMAT}.txt");
    let expected = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} is missing: REWRITE=1 writes it"));
    let differs = expected.lines().zip(written.lines()).position(|(old, new)| old != new);
    let Some(at) =
        differs.or_else(|| (expected != written).then(|| expected.lines().count().min(written.lines().count())))
    else {
        return;
    };
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    panic!(
        "what is written has changed: raise FORMAT in src/ledger/format.rs and see that the old form is still read, then \
         REWRITE=1 writes the file of the new number\n{name}, line {}:\n  written:   {}\n  comes out: {}",
        at + 1,
        line(&expected),
        line(&written)
    );
}
