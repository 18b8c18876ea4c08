//! The simulator: whole clusters of the real `regent::node::Node` in a modelled world, under virtual time, from one
//! seed. `cargo test --test sim -- [--seeds N] [--seed S] [--minutes M] [--story NAME] [--trace]`.

mod cluster;
mod database;
mod faults;
mod fence;
mod invariants;
mod log;
mod network;
mod oracle;
mod setup;
mod stories;

use std::process::ExitCode;

/// What was asked for on the command line.
struct Wanted {
    seeds: u64,
    seed: Option<u64>,
    minutes: u64,
    story: Option<String>,
    trace: bool,
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { seeds: 24, seed: None, minutes: 4, story: None, trace: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text:?} is no number: {e}"));
        match arg.as_str() {
            "--seeds" => wanted.seeds = number(value()?)?,
            "--seed" => wanted.seed = Some(number(value()?)?),
            "--minutes" => wanted.minutes = number(value()?)?,
            "--story" => wanted.story = Some(value()?),
            "--trace" => wanted.trace = true,
            "--nocapture" | "--quiet" | "-q" => {}
            filter if !filter.starts_with('-') => wanted.story = Some(filter.to_owned()),
            other => {
                return Err(format!("{other} is not known; known are --seeds, --seed, --minutes, --story, --trace"));
            }
        }
    }
    Ok(wanted)
}

fn commit() -> String {
    let head = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    head.map_or("unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn main() -> ExitCode {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("sim: {why}");
            return ExitCode::from(2);
        }
    };
    let (mut passed, mut failed) = (0, 0);
    let mut count = |ok: bool| if ok { passed += 1 } else { failed += 1 };
    if wanted.seed.is_none() {
        for (name, story) in stories::STORIES {
            if wanted.story.as_ref().is_some_and(|s| !name.contains(s.as_str())) {
                continue;
            }
            let told = story(wanted.trace);
            count(told.is_ok());
            match told {
                Ok(told) => println!("PASS {name}: {told}"),
                Err(why) => println!("FAIL {name}: {why}"),
            }
        }
    }
    if wanted.story.is_none() {
        random(&wanted, &mut count);
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn random(wanted: &Wanted, count: &mut impl FnMut(bool)) {
    let seeds = wanted.seed.map_or(1..wanted.seeds + 1, |s| s..s + 1);
    let mut total = faults::Total::default();
    for seed in seeds {
        let ended = faults::run(seed, wanted.minutes, wanted.trace);
        if let Some(violation) = &ended.violation {
            println!("FAIL seed {seed}: {violation}");
            println!(
                "REGENT seed {seed}, commit {}, cargo test --test sim -- --seed {seed} --minutes {} --trace",
                commit(),
                wanted.minutes
            );
        }
        count(ended.violation.is_none());
        total.add(&ended);
    }
    println!("{total}");
    let first = wanted.seed.unwrap_or(1);
    let same = faults::run(first, 1, false).hash == faults::run(first, 1, false).hash;
    println!("{} the same seed gives the same trace", if same { "PASS" } else { "FAIL" });
    count(same);
}
