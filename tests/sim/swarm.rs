//! Random clusters: each seed draws a cluster, which kinds of faults exist and how often they strike; a phase with
//! faults, then one in which a majority heals.

use crate::cluster::{S, Setup, Tell, World};
use crate::faults;
use crate::invariants::l1::{self, Recovery};
use crate::kinds::{self, KINDS, Kind};
use crate::liveness;
use crate::oracle::Counts;
use crate::setup;
use nix::time::ClockId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regent::config::{Config, OnCrash, OnLapsed, PowerOn, Role};
use std::collections::BTreeMap;
use std::time::Duration;

/// How one seed ended.
#[derive(Default)]
pub struct Ended {
    pub seed: u64,
    pub violation: Option<String>,
    pub hash: u64,
    pub told: Vec<String>,
    pub simulated: u64,
    pub recovery: Recovery,
    pub moves: Vec<u64>,
    pub faults: BTreeMap<&'static str, u64>,
    pub counts: Counts,
    /// The most that one daemon did in ten seconds, by kind.
    pub busiest: BTreeMap<&'static str, u64>,
    pub events: u64,
    pub hosts: usize,
    /// Time on a processor.
    pub took: Duration,
}

/// How many nodes this seed draws.
pub fn nodes(seed: u64) -> usize {
    draw_setup(&mut dice(seed), Tell::Nobody).config.nodes.len()
}

fn dice(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x5eed)
}

/// How long this thread has been on a processor: what a seed costs, whoever else runs on this machine.
fn time_on_processor() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("every thread has such a clock").into()
}

/// One seed, from the first boot to the verdict on it. A panic (the ledger aborts where it breaks its own rules) is a
/// violation of that seed, and not the end of a long run.
pub fn run(seed: u64, minutes: u64, tell: Tell) -> Ended {
    std::panic::catch_unwind(|| live(seed, minutes, tell)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Ended { seed, violation: Some(format!("panic: {words}")), ..Ended::default() }
    })
}

fn live(seed: u64, minutes: u64, tell: Tell) -> Ended {
    let began = time_on_processor();
    let mut rng = dice(seed);
    let mut setup = draw_setup(&mut rng, tell);
    if seed % 4 == 3 {
        // From few writes to some seconds of them.
        let max_lag = 64 << (seed / 4 % 8);
        setup.config = setup::with_max_lag(setup.config, max_lag);
        let others = setup.differing.into_iter();
        setup.differing = others.map(|(host, config)| (host, setup::with_max_lag(config, max_lag))).collect();
    }
    setup = with_roles(seed, setup);
    let mut kinds = draw_kinds(&mut rng, setup.is_virtual);
    kinds.extend(kinds::later(seed));
    let mean = if rng.random_range(0..3) == 0 { 1 } else { rng.random_range(4..40) } * S;
    let mut w = World::new(seed, &setup);
    w.note(|w| format!("{} hosts, {} services, sync {}", w.hosts.len(), w.services.len(), w.sync));
    w.note(|_| format!("faults: {kinds:?} every {} s", mean / S));
    // Faults may strike during the creation of the service as well.
    let calm = if rng.random_range(0..4) == 0 { S } else { 40 * S };
    w.run_until(calm);
    let until = w.now + minutes * 60 * S;
    while w.now < until && w.facts.violation.is_none() {
        let next = w.now + rng.random_range(mean / 4..mean * 2);
        w.run_until(next.min(until));
        let kind = kinds[rng.random_range(0..kinds.len())];
        faults::strike(&mut w, &mut rng, kind);
    }
    let mut recovery = Recovery::default();
    if w.facts.violation.is_none() {
        let rest = liveness::draw_rest(&w, &mut rng);
        recovery = l1::comes_back(&mut w, &mut rng, &rest);
    }
    Ended {
        seed,
        violation: w.facts.violation.clone(),
        hash: w.hash,
        simulated: w.now,
        recovery,
        moves: w.facts.services.iter().flat_map(|s| s.moves.clone()).collect(),
        faults: w.facts.faults.clone(),
        counts: w.facts.counts.clone(),
        busiest: w.facts.rest.most.clone(),
        events: w.events,
        hosts: w.hosts.len(),
        told: std::mem::take(&mut w.told),
        took: time_on_processor() - began,
    }
}

/// Where there are enough databases, some seeds have one that never leads, and others one that follows a standby.
fn with_roles(seed: u64, mut setup: Setup) -> Setup {
    let databases = setup.config.nodes.values().filter(|node| node.role == Role::Database).count();
    if seed < kinds::ROLES_FROM || databases < 3 {
        return setup;
    }
    let role: fn(Config) -> Config = match seed % 6 {
        1 => setup::one_never_leads,
        // Its upstream acknowledges nothing for it.
        2 if setup.sync == 0 => setup::one_follows,
        _ => return setup,
    };
    setup.config = role(setup.config);
    setup.differing = setup.differing.into_iter().map(|(host, config)| (host, role(config))).collect();
    setup
}

/// At least three kinds, mostly many.
fn draw_kinds(rng: &mut StdRng, is_virtual: bool) -> Vec<Kind> {
    let share = [10, 30, 60, 90][rng.random_range(0..4)];
    let may = |kind: &Kind| (is_virtual || *kind != Kind::GuestPause) && kinds::is_drawn(*kind);
    let all: Vec<Kind> = KINDS.iter().map(|(kind, _)| *kind).filter(may).collect();
    let mut kinds: Vec<_> = all.iter().copied().filter(|_| rng.random_range(0..100) < share).collect();
    while kinds.len() < 3 {
        let more = all[rng.random_range(0..all.len())];
        if !kinds.contains(&more) {
            kinds.push(more);
        }
    }
    kinds
}

fn draw_setup(rng: &mut StdRng, tell: Tell) -> Setup {
    let sizes = [(2, 1), (2, 1), (2, 1), (3, 0), (3, 0), (3, 2), (5, 0), (2, 3), (5, 2), (7, 0), (4, 1)];
    let (databases, witnesses) = sizes[rng.random_range(0..sizes.len())];
    let mut config = setup::config(databases, witnesses);
    let is_virtual = rng.random_range(0..6) == 0;
    if rng.random_range(0..3) == 0 {
        config = setup::with_watchdog(config);
    }
    if rng.random_range(0..4) == 0 {
        config = setup::diskless_witnesses(config);
    } else if rng.random_range(0..8) == 0 {
        config.disk = None;
    }
    if rng.random_range(0..5) == 0 {
        config = setup::two_services(config);
    }
    if rng.random_range(0..2) == 0 {
        config = setup::with_access(config);
    }
    config.fencing.on_lapsed = if rng.random_range(0..3) == 0 { OnLapsed::Alarm } else { OnLapsed::Fence };
    config.fencing.power_on = if rng.random_range(0..4) == 0 { PowerOn::Manual } else { PowerOn::Auto };
    let on_crash = [OnCrash::Auto, OnCrash::Auto, OnCrash::Restart, OnCrash::Failover][rng.random_range(0..4)];
    config.services.values_mut().for_each(|s| s.on_crash = on_crash);
    let sync = match rng.random_range(0..8) {
        0 => 1,
        1 => usize::from(databases) - 1,
        _ => 0,
    };
    let mut setup = Setup::new(config, tell);
    (setup.is_virtual, setup.sync) = (is_virtual, sync);
    if rng.random_range(0..8) == 0 {
        let host = rng.random_range(1..setup.config.nodes.len());
        let other = setup::shorter(setup.config.clone(), rng.random_range(60..100));
        setup.differing.insert(host, other);
    }
    setup
}
