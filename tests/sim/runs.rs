//! What is run, in which order, on how many threads, and what is printed and kept of it.

use crate::Wanted;
use crate::cluster::Tell;
use crate::known;
use crate::stories::{self, Listed, Told};
use crate::swarm::{self, Ended};
use crate::totals::Totals;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds that once found something: `SEED MINUTES what it found`, one a line.
const FOUND: &str = include_str!("seeds.txt");

/// How many passed and failed.
#[derive(Default)]
pub struct Score {
    pub passed: u64,
    pub failed: u64,
    /// Ended in a failure that is on the list of known ones.
    pub known: u64,
}

impl Score {
    fn count(&mut self, ok: bool) {
        if ok { self.passed += 1 } else { self.failed += 1 }
    }
}

fn commit() -> String {
    let head = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    head.map_or("unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

/// Does all of it on so many threads, handing each result on as it comes.
fn on_threads<T: Send>(jobs: usize, next: impl Fn() -> Option<T> + Sync, take: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(result) = next() {
                    take(result);
                }
            });
        }
    });
}

/// A seed that ran into what is known to fail: said, and never taken for one that passed.
fn report_known(seed: u64, kind: &str, violation: &str, minutes: u64) {
    println!("KNOWN seed {seed} of {minutes} minutes, {kind}: {violation}");
}

/// The line that reproduces a failing seed; its event log is kept.
fn report_failure(ended: &Ended, minutes: u64) {
    let seed = ended.seed;
    let violation = ended.violation.as_deref().unwrap_or_default();
    let command = format!("cargo test --test sim -- --seed {seed} --minutes {minutes} --trace");
    let line = format!("REGENT seed {seed}, commit {}, {command}", commit());
    println!("FAIL seed {seed}: {violation}\n{line}");
    let again = swarm::run(seed, minutes, Tell::Keep);
    let path = format!("target/sim-logs/seed-{seed}.log");
    let text = format!("{line}\n{violation}\n{}\n", again.told.join("\n"));
    match std::fs::create_dir_all("target/sim-logs").and_then(|()| std::fs::write(&path, text)) {
        Ok(()) => println!("its event log: make sim-replay LOG={path}"),
        Err(why) => println!("its event log cannot be kept: {path}: {why}"),
    }
}

/// The seeds that once found something run first, always.
pub fn found_seeds(wanted: &Wanted, score: &mut Score) {
    let lines = FOUND.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    let lines: Vec<&str> = lines.collect();
    let (turn, score) = (AtomicU64::new(0), Mutex::new(score));
    let next = || {
        let line = *lines.get(turn.fetch_add(1, Ordering::Relaxed) as usize)?;
        let found = found(line);
        let ended = found.as_ref().map(|(seed, minutes, _)| swarm::run(*seed, *minutes, wanted.tell()));
        Some((line, found.zip(ended)))
    };
    on_threads(wanted.jobs, next, |(line, ran)| {
        let mut score = score.lock().expect("no thread panics");
        let Some(((seed, minutes, found), ended)) = ran else {
            println!("FAIL tests/sim/seeds.txt: {line:?} does not begin with a seed and its minutes");
            return score.count(false);
        };
        let known = known::kind(ended.violation.as_deref());
        match known {
            Some(_) => score.known += 1,
            None => score.count(ended.violation.is_none()),
        }
        match (&ended.violation, known) {
            (None, _) => println!("PASS seed {seed} ({found})"),
            (Some(violation), Some(kind)) => report_known(seed, kind, violation, minutes),
            (Some(_), None) => report_failure(&ended, minutes),
        }
    });
}

/// A line's seed, its minutes and what it found.
fn found(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.splitn(3, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    Some((number()?, number()?, words.next().unwrap_or_default()))
}

/// Every story, for each of its seeds; with a seed given, for that one.
pub fn stories(wanted: &Wanted, score: &mut Score) {
    let is_wanted = |name: &str| wanted.story.as_ref().is_none_or(|s| name.contains(s.as_str()));
    let told: Vec<&Listed> = stories::all().filter(|(name, _, _)| is_wanted(name)).collect();
    let (turn, score) = (AtomicU64::new(0), Mutex::new(score));
    let next = || -> Option<(&str, u64, Told)> {
        let (name, story, seeds) = told.get(turn.fetch_add(1, Ordering::Relaxed) as usize)?;
        let mut last = Ok(String::new());
        for seed in 1..=*seeds {
            last = story(seed, wanted.tell());
            if let Err(why) = &last {
                return Some((name, seed, Err(why.clone())));
            }
        }
        Some((name, *seeds, last))
    };
    on_threads(wanted.jobs, next, |(name, seeds, told)| {
        score.lock().expect("no thread panics").count(told.is_ok());
        match told {
            Ok(told) => {
                println!("PASS {name}: {told}{}", if seeds > 1 { format!(" ({seeds} seeds)") } else { String::new() })
            }
            Err(why) => println!("FAIL {name}: {why} (seed {seeds})"),
        }
    });
}

/// Random seeds, and whether the same one gives the same trace.
pub fn random(wanted: &Wanted, score: &mut Score) {
    let began = Instant::now();
    let (first, last) = wanted.seed.map_or((wanted.from, wanted.from + wanted.seeds), |s| (s, s + 1));
    let turn = AtomicU64::new(first);
    let next = || {
        let over = match wanted.lasts.filter(|_| wanted.seed.is_none()) {
            Some(lasts) => began.elapsed() >= lasts,
            None => turn.load(Ordering::Relaxed) >= last,
        };
        if over {
            return None;
        }
        let asked = |seed: &u64| wanted.nodes.is_none_or(|n| swarm::nodes(*seed) == n);
        let seed = std::iter::repeat_with(|| turn.fetch_add(1, Ordering::Relaxed));
        let seed = seed.take_while(|seed| wanted.lasts.is_some() || *seed < last).find(asked)?;
        (wanted.lasts.is_some() || seed < last).then(|| swarm::run(seed, wanted.minutes, wanted.tell()))
    };
    let totals = Mutex::new(Totals::default());
    on_threads(wanted.jobs, next, |ended: Ended| {
        let known = known::kind(ended.violation.as_deref());
        match (&ended.violation, known) {
            (Some(violation), Some(kind)) => report_known(ended.seed, kind, violation, wanted.minutes),
            (Some(_), None) if !wanted.trace => report_failure(&ended, wanted.minutes),
            _ => {}
        }
        totals.lock().expect("no thread panics").add(&ended, known);
    });
    let mut totals = totals.into_inner().expect("no thread panics");
    (totals.took, totals.jobs) = (began.elapsed(), wanted.jobs);
    println!("{totals}");
    score.known += totals.known();
    (0..totals.seeds() - totals.known()).for_each(|i| score.count(i >= totals.violations()));
    if !wanted.trace {
        let (one, two) = (swarm::run(first, 1, Tell::Keep), swarm::run(first, 1, Tell::Keep));
        let same = one.hash == two.hash && one.told == two.told;
        println!(
            "{} the same seed gives the same trace ({} lines)",
            if same { "PASS" } else { "FAIL" },
            one.told.len()
        );
        score.count(same);
    }
}

/// What is known to fail must still fail, and in that way.
pub fn known_failures(wanted: &Wanted, score: &mut Score) {
    let is_wanted = |name: &str| wanted.story.as_ref().is_none_or(|s| name.contains(s.as_str()));
    for failure in known::FAILURES.iter().filter(|f| is_wanted(f.name)) {
        let told = failure.tell(wanted.tell());
        match told {
            Ok(how) => {
                score.known += 1;
                println!("KNOWN {}: {how}; {}", failure.name, failure.ends);
            }
            Err(why) => {
                score.count(false);
                println!("FAIL {}: {why}", failure.name);
            }
        }
    }
}

/// The bugs on purpose: each must be found.
pub fn bugs(wanted: &Wanted, score: &mut Score) {
    crate::bugs::all(wanted.story.as_deref(), |name, found| {
        score.count(found.is_ok());
        match found {
            Ok(by) => println!("FOUND {name}: {by}"),
            Err(why) => println!("FAIL {name}: {why}"),
        }
    });
}
