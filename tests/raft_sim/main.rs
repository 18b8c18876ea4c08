//! The cluster of `tests/sim` on the real openraft, under openraft's own deterministic runtime: the same world, faults
//! properties and stories, but the log is regent's `consensus` itself, and no model of it. Slower, so fewer seeds. Every
//! kind of fault exists here too; how those of the log are done to openraft is told in `log.rs`. Only where one of them
//! needs the model to be told who leads next (`Kind::LeaderLost`, the story h04), openraft decides instead.
//! `cargo test --test raft_sim -- [--seeds N] [--seed S] [--minutes M] [--story NAME] [--trace]`.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a run takes in real time is printed; nothing simulated reads it"
)]

mod disk;
mod log;
mod member;
mod wires;

// The world, as it is: only its `log` is another.
#[path = "../sim/ailment.rs"]
mod ailment;
#[path = "../sim/clones.rs"]
mod clones;
#[path = "../sim/cluster.rs"]
mod cluster;
#[path = "../sim/database.rs"]
mod database;
#[path = "../sim/effects.rs"]
mod effects;
#[path = "../sim/faults.rs"]
mod faults;
#[path = "../sim/fence.rs"]
mod fence;
#[path = "../sim/hearing.rs"]
mod hearing;
#[allow(dead_code, reason = "what the model of the log keeps with each host")]
#[path = "../sim/host.rs"]
mod host;
#[path = "../sim/invariants/mod.rs"]
mod invariants;
#[path = "../sim/kinds.rs"]
mod kinds;
#[allow(dead_code, reason = "what is known to fail is told by the runner of tests/sim")]
#[path = "../sim/known.rs"]
mod known;
#[path = "../sim/leaving.rs"]
mod leaving;
#[path = "../sim/liveness.rs"]
mod liveness;
#[path = "../sim/network.rs"]
mod network;
#[path = "../sim/oracle.rs"]
mod oracle;
#[path = "../sim/rejoin.rs"]
mod rejoin;
#[allow(dead_code, reason = "the event logs that tests/sim keeps are stepped through there")]
#[path = "../sim/replay.rs"]
mod replay;
#[path = "../sim/replication.rs"]
mod replication;
#[path = "../sim/rules.rs"]
mod rules;
#[path = "../sim/setup.rs"]
mod setup;
#[path = "../sim/stopping.rs"]
mod stopping;
#[path = "../sim/stories/mod.rs"]
mod stories;
#[allow(dead_code, reason = "what the runner of tests/sim prints of a seed, and this one does not")]
#[path = "../sim/swarm.rs"]
mod swarm;
#[allow(dead_code, reason = "what the runner of tests/sim prints of a seed, and this one does not")]
#[path = "../sim/totals.rs"]
mod totals;

use cluster::Tell;
use std::process::ExitCode;
use std::time::Instant;

/// The stories that a plain run tells, once each: where the log itself is what is tried. `--story ""` tells all, for
/// each of their seeds.
const STORIES: [&str; 4] = [
    "bootstrap_by_initdb_from_empty_directories",
    "a_leader_that_dies_between_fence_and_promotion_is_succeeded",
    "the_whole_cluster_loses_power_and_comes_back",
    "h05_a_release_commits_one_election_later",
];

/// What was asked for on the command line.
struct Wanted {
    seeds: u64,
    seed: Option<u64>,
    minutes: u64,
    story: Option<String>,
    trace: bool,
}

impl Wanted {
    fn tell(&self) -> Tell {
        if self.trace { Tell::Print } else { Tell::Nobody }
    }
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { seeds: 3, seed: None, minutes: 2, story: None, trace: false };
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
            eprintln!("raft_sim: {why}");
            return ExitCode::from(2);
        }
    };
    let (mut passed, mut failed) = (0, 0);
    let mut count = |ok: bool| if ok { passed += 1 } else { failed += 1 };
    if wanted.seed.is_none() {
        tell_stories(&wanted, &mut count);
    }
    if wanted.story.is_none() {
        random(&wanted, &mut count);
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tell_stories(wanted: &Wanted, count: &mut impl FnMut(bool)) {
    for (name, story, seeds) in stories::all() {
        let seeds = match &wanted.story {
            Some(filter) if name.contains(filter.as_str()) => *seeds,
            None if STORIES.contains(name) => 1,
            _ => continue,
        };
        let mut told = Ok(String::new());
        let mut seed = 0;
        while seed < seeds && told.is_ok() {
            seed += 1;
            told = story(seed, wanted.tell());
        }
        count(told.is_ok());
        match told {
            Ok(told) => println!("PASS {name}: {told} (seeds: {seeds})"),
            Err(why) => {
                println!("FAIL {name}: {why} (seed {seed})");
                println!("REGENT commit {}, cargo test --test raft_sim -- --story {name} --trace", commit());
            }
        }
    }
}

fn random(wanted: &Wanted, count: &mut impl FnMut(bool)) {
    let seeds = wanted.seed.map_or(1..wanted.seeds + 1, |s| s..s + 1);
    let mut totals = totals::Totals::default();
    let mut raft = log::Total::default();
    let began = Instant::now();
    for seed in seeds {
        let ended = swarm::run(seed, wanted.minutes, wanted.tell());
        let known = known::kind(ended.violation.as_deref());
        if let (Some(violation), Some(kind)) = (&ended.violation, known) {
            println!("KNOWN seed {seed}, {kind}: {violation}");
        } else if let Some(violation) = &ended.violation {
            println!("FAIL seed {seed}: {violation}");
            println!(
                "REGENT seed {seed}, commit {}, cargo test --test raft_sim -- --seed {seed} --minutes {} --trace",
                commit(),
                wanted.minutes
            );
        }
        if known.is_none() {
            count(ended.violation.is_none());
        }
        totals.add(&ended, known);
        raft.add();
    }
    (totals.took, totals.jobs) = (began.elapsed(), 1);
    println!("{totals}");
    println!("{raft}");
    if !wanted.trace {
        let first = wanted.seed.unwrap_or(1);
        let (one, two) = (swarm::run(first, 1, Tell::Keep), swarm::run(first, 1, Tell::Keep));
        let same = one.hash == two.hash && one.told == two.told;
        println!("{} the same seed gives the same trace", if same { "PASS" } else { "FAIL" });
        count(same);
    }
}
