//! What many seeds came to, in words.

use crate::cluster::S;
use crate::oracle::Counts;
use crate::swarm::Ended;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// Seeds of one size of cluster.
#[derive(Clone, Copy, Default)]
struct Size {
    seeds: u64,
    simulated: u64,
    /// Time on a processor.
    took: Duration,
}

impl Size {
    /// Simulated cluster-hours in a minute of one core.
    fn speed(&self) -> f64 {
        seconds(self.simulated) / 60.0 / self.took.as_secs_f64().max(1e-9)
    }

    fn plus(self, other: &Size) -> Size {
        Size {
            seeds: self.seeds + other.seeds,
            simulated: self.simulated + other.simulated,
            took: self.took + other.took,
        }
    }
}

/// Over all seeds.
#[derive(Default)]
pub struct Totals {
    seeds: u64,
    violations: u64,
    /// Violations of kinds on the list of known failures, by kind.
    known: BTreeMap<&'static str, u64>,
    simulated: u64,
    events: u64,
    /// By number of nodes.
    sizes: BTreeMap<usize, Size>,
    counts: Counts,
    recoveries: Vec<u64>,
    rests: Vec<u64>,
    busiest: BTreeMap<&'static str, u64>,
    moves: Vec<u64>,
    minutes: Vec<u64>,
    per_seed: Vec<u64>,
    kinds_per_seed: Vec<u64>,
    faults: BTreeMap<&'static str, u64>,
    pub took: Duration,
    pub jobs: usize,
}

impl Totals {
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    pub fn violations(&self) -> u64 {
        self.violations
    }

    pub fn known(&self) -> u64 {
        self.known.values().sum()
    }

    /// One more; `known`: its violation is of this kind, which is on the list of known failures.
    pub fn add(&mut self, ended: &Ended, known: Option<&'static str>) {
        self.seeds += 1;
        match known {
            Some(kind) => self.known.entry(kind).or_default().add_assign(1),
            None => self.violations += u64::from(ended.violation.is_some()),
        }
        self.simulated += ended.simulated;
        self.events += ended.events;
        let size = self.sizes.entry(ended.hosts).or_default();
        (size.seeds, size.simulated, size.took) =
            (size.seeds + 1, size.simulated + ended.simulated, size.took + ended.took);
        let (all, one) = (&mut self.counts, &ended.counts);
        all.appointments += one.appointments;
        all.failovers += one.failovers;
        all.verdicts += one.verdicts;
        all.fences += one.fences;
        all.refuted += one.refuted;
        all.passed_over += one.passed_over;
        all.refusals += one.refusals;
        all.false_failovers += one.false_failovers;
        all.lost += one.lost;
        all.unprotected += one.unprotected;
        all.late_verdicts += one.late_verdicts;
        one.cuts.iter().for_each(|(why, n)| *all.cuts.entry(why).or_default() += n);
        for (kind, most) in &ended.busiest {
            let all = self.busiest.entry(kind).or_default();
            *all = (*all).max(*most);
        }
        if ended.violation.is_none() {
            self.recoveries.push(ended.recovery.writes);
            self.rests.push(ended.recovery.quiet);
        }
        self.moves.extend(&ended.moves);
        self.minutes.push(ended.simulated / (60 * S));
        self.per_seed.push(ended.faults.values().sum());
        self.kinds_per_seed.push(ended.faults.len() as u64);
        for (kind, n) in &ended.faults {
            *self.faults.entry(kind).or_default() += n;
        }
    }

    /// What devices did, and when nothing happened any more.
    fn tell_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |of: &BTreeMap<&'static str, u64>| {
            of.iter().map(|(what, n)| format!("{what} {n}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(
            f,
            "power cuts: {}; {} verdicts came when their node was heard again",
            list(&self.counts.cuts),
            self.counts.late_verdicts
        )?;
        writeln!(
            f,
            "at rest after healing: median {:.1} s, longest {:.1} s; the busiest ten seconds of a daemon: {}",
            seconds(median(&self.rests)),
            seconds(self.rests.iter().copied().max().unwrap_or(0)),
            list(&self.busiest)
        )
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / S as f64
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = seconds(self.simulated) / 3600.0;
        let all = self.sizes.values().fold(Size::default(), Size::plus);
        let real = self.took.as_secs_f64() / 60.0;
        writeln!(
            f,
            "{} seeds, {hours:.2} simulated cluster-hours, {} events, {} violations",
            self.seeds, self.events, self.violations
        )?;
        if !self.known.is_empty() {
            let known = self.known.iter().map(|(kind, n)| format!("{kind} {n}")).collect::<Vec<_>>().join(", ");
            writeln!(f, "and {} that ended in a failure on the list of known ones: {known}", self.known())?;
        }
        writeln!(
            f,
            "speed: {:.1} simulated cluster-hours in a minute of one core; {:.1} in a real minute, with {} threads",
            all.speed(),
            hours / real.max(1e-9),
            self.jobs
        )?;
        for (n, size) in &self.sizes {
            writeln!(
                f,
                "clusters of {n} nodes at profile lan: {} seeds, {:.2} hours, {:.1} hours in a minute of one core",
                size.seeds,
                seconds(size.simulated) / 3600.0,
                size.speed()
            )?;
        }
        writeln!(
            f,
            "median seed: {} simulated minutes, {} faults of {} kinds; least: {} minutes, {} faults; {} with fewer than three",
            median(&self.minutes),
            median(&self.per_seed),
            median(&self.kinds_per_seed),
            self.minutes.iter().min().unwrap_or(&0),
            self.per_seed.iter().min().unwrap_or(&0),
            self.per_seed.iter().filter(|faults| **faults < 3).count()
        )?;
        let c = &self.counts;
        writeln!(
            f,
            "{} verdicts, {} fences, {} refuted; {} appointments, {} of them failovers, {} appointees \
             passed over, {} false failovers; {} refusals",
            c.verdicts, c.fences, c.refuted, c.appointments, c.failovers, c.passed_over, c.false_failovers, c.refusals
        )?;
        writeln!(
            f,
            "without a primary at a move: median {:.1} s, worst {:.1} s; writes again after healing: median {:.1} s, worst {:.1} s",
            seconds(median(&self.moves)),
            seconds(self.moves.iter().copied().max().unwrap_or(0)),
            seconds(median(&self.recoveries)),
            seconds(self.recoveries.iter().copied().max().unwrap_or(0))
        )?;
        writeln!(
            f,
            "clients: {} acknowledged writes lost by asynchronous failovers, {} synchronous choices on too few reports",
            c.lost, c.unprotected
        )?;
        self.tell_rest(f)?;
        let faults: Vec<_> = self.faults.iter().map(|(k, n)| format!("{k} {n}")).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
