//! The simulator: whole clusters of the real `regent::node::Node` in a modelled world, under virtual time, from one
//! seed. `cargo test --test sim -- --help` lists what can be asked for.
#![expect(
    clippy::disallowed_methods,
    reason = "how long a run takes in real time is printed; nothing simulated reads it"
)]

mod ailment;
mod bugs;
mod clones;
mod cluster;
mod database;
mod effects;
mod faults;
mod fence;
mod hearing;
mod host;
mod invariants;
mod kinds;
mod known;
mod leaving;
mod liveness;
mod log;
mod network;
mod oracle;
mod rejoin;
mod replay;
mod replication;
mod rules;
mod runs;
mod setup;
mod stopping;
mod stories;
mod swarm;
mod totals;

use cluster::Tell;
use runs::Score;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
  --seeds N       so many random seeds (160), from 1 or --from N
  --seed S        this seed alone
  --minutes M     of faults in each seed, before a majority heals (3)
  --for N         random seeds for N minutes of real time, instead of --seeds
  --nodes N       only those of these seeds that draw a cluster of N nodes
  --jobs N        threads (as many as there are processors)
  --story NAME    the stories whose names contain NAME
  --only-random   no stories
  --all-kinds     also the faults that regent does not stand yet
  --trace         every step is printed
  --bug NAME      with this bug on purpose
  --bugs          the bugs on purpose: each must be found
  --replay FILE   steps through the event log of a failed run";

/// What was asked for on the command line.
pub struct Wanted {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    minutes: u64,
    lasts: Option<Duration>,
    nodes: Option<usize>,
    jobs: usize,
    story: Option<String>,
    only_random: bool,
    trace: bool,
    bugs: bool,
    replay: Option<String>,
}

impl Wanted {
    fn tell(&self) -> Tell {
        if self.trace { Tell::Print } else { Tell::Nobody }
    }
}

fn wanted() -> Result<Wanted, String> {
    let jobs = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut wanted = Wanted {
        seeds: 160,
        from: 1,
        seed: None,
        minutes: 3,
        lasts: None,
        nodes: None,
        jobs,
        story: None,
        only_random: false,
        trace: false,
        bugs: false,
        replay: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text:?} is no number: {e}"));
        match arg.as_str() {
            "--seeds" => wanted.seeds = number(value()?)?,
            "--from" => wanted.from = number(value()?)?,
            "--seed" => wanted.seed = Some(number(value()?)?),
            "--minutes" => wanted.minutes = number(value()?)?,
            "--for" => wanted.lasts = Some(Duration::from_secs(60 * number(value()?)?)),
            "--nodes" => wanted.nodes = Some(number(value()?)? as usize),
            "--jobs" => wanted.jobs = number(value()?)?.max(1) as usize,
            "--story" => wanted.story = Some(value()?),
            "--only-random" => wanted.only_random = true,
            "--all-kinds" => kinds::ALL_KINDS.store(true, std::sync::atomic::Ordering::Relaxed),
            "--trace" => wanted.trace = true,
            "--bug" => choose_bug(&value()?)?,
            "--bugs" => wanted.bugs = true,
            "--replay" => wanted.replay = Some(value()?),
            "--nocapture" | "--quiet" | "-q" => {}
            "--help" => return Err(format!("what can be asked for:\n{HELP}")),
            filter if !filter.starts_with('-') => wanted.story = Some(filter.to_owned()),
            other => return Err(format!("{other} is not known; known are\n{HELP}")),
        }
    }
    if wanted.trace {
        wanted.jobs = 1;
    }
    Ok(wanted)
}

/// Everything that follows is run with this bug on purpose.
fn choose_bug(name: &str) -> Result<(), String> {
    use regent::known_bugs::{ALL, choose};
    let found = ALL.iter().find(|(n, _)| *n == name).ok_or(format!("no bug is named {name}"))?;
    choose(Some(found.1));
    Ok(())
}

fn main() -> ExitCode {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("sim: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(path) = &wanted.replay {
        return match replay::step_through(path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("sim: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let began = Instant::now();
    let mut score = Score::default();
    if wanted.bugs {
        runs::bugs(&wanted, &mut score);
    } else {
        let all = wanted.seed.is_none() && !wanted.only_random;
        if all && wanted.story.is_none() {
            runs::found_seeds(&wanted, &mut score);
        }
        if all {
            runs::stories(&wanted, &mut score);
            runs::known_failures(&wanted, &mut score);
        }
        if wanted.story.is_none() {
            runs::random(&wanted, &mut score);
        }
    }
    let Score { passed, failed, known } = score;
    let took = began.elapsed().as_secs_f64();
    println!("{known} failed in a way that is known, in {took:.1} s; the others:");
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
