//! Random clusters: each seed draws a cluster, which kinds of faults exist and how often; a phase with faults, then
//! everything heals and the service must come back (L1).

use crate::cluster::{MS, S, Setup, World};
use crate::database::Process;
use crate::fence::Device;
use crate::setup;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regent::config::{OnCrash, OnLapsed, PowerOn};
use regent::ledger::Command;
use std::collections::BTreeMap;
use std::fmt;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PowerCut,
    Freeze,
    DaemonKilled,
    PlannedRestart,
    CardCut,
    OneWayCut,
    PairCut,
    Partition,
    DiskHangs,
    DatabaseDies,
    DatabaseHangs,
    Loss,
    Device,
    Switchover,
    Pause,
    Blackout,
    Transfer,
}

const KINDS: [Kind; 17] = [
    Kind::PowerCut,
    Kind::Freeze,
    Kind::DaemonKilled,
    Kind::PlannedRestart,
    Kind::CardCut,
    Kind::OneWayCut,
    Kind::PairCut,
    Kind::Partition,
    Kind::DiskHangs,
    Kind::DatabaseDies,
    Kind::DatabaseHangs,
    Kind::Loss,
    Kind::Device,
    Kind::Switchover,
    Kind::Pause,
    Kind::Blackout,
    Kind::Transfer,
];

/// The bound of L1 here: levels of 3 s each in two rounds, lease and watchdog, install, with room for boots.
const COMES_BACK: u64 = 120 * S;

/// How one seed ended.
pub struct Ended {
    pub violation: Option<String>,
    pub hash: u64,
    simulated: u64,
    recovery: u64,
    faults: BTreeMap<&'static str, u64>,
    appointments: u64,
    verdicts: u64,
    refuted: u64,
    events: u64,
}

/// Over all seeds.
#[derive(Default)]
pub struct Total {
    seeds: u64,
    violations: u64,
    simulated: u64,
    events: u64,
    appointments: u64,
    verdicts: u64,
    refuted: u64,
    recoveries: Vec<u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Total {
    pub fn add(&mut self, ended: &Ended) {
        self.seeds += 1;
        self.violations += u64::from(ended.violation.is_some());
        self.simulated += ended.simulated;
        self.events += ended.events;
        self.appointments += ended.appointments;
        self.verdicts += ended.verdicts;
        self.refuted += ended.refuted;
        self.recoveries.push(ended.recovery);
        for (kind, n) in &ended.faults {
            *self.faults.entry(kind).or_default() += n;
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_unstable();
        let at = |n: usize| recoveries.get(n).copied().unwrap_or(0) as f64 / S as f64;
        writeln!(
            f,
            "{} seeds, {:.2} simulated hours, {} events, {} violations",
            self.seeds,
            self.simulated as f64 / S as f64 / 3600.0,
            self.events,
            self.violations
        )?;
        writeln!(
            f,
            "{} appointments, {} verdicts, {} fences refuted; back in service after healing: median {:.1} s, worst {:.1} s",
            self.appointments,
            self.verdicts,
            self.refuted,
            at(recoveries.len() / 2),
            at(recoveries.len().saturating_sub(1))
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(k, n)| format!("{k} {n}")).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}

/// One seed, from the first boot to the verdict on it.
pub fn run(seed: u64, minutes: u64, trace: bool) -> Ended {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let config = draw_config(&mut rng);
    let share = [15, 40, 80][rng.random_range(0..3)];
    let kinds: Vec<_> = KINDS.into_iter().filter(|_| rng.random_range(0..100) < share).collect();
    let mean = if rng.random_range(0..3) == 0 { 1 } else { rng.random_range(4..40) } * S;
    let mut w = World::new(seed, &Setup { config, trace });
    w.note(|| format!("faults: {kinds:?} every {} s", mean / S));
    // Faults may strike during the creation of the service as well.
    let calm = if rng.random_range(0..4) == 0 { S } else { 40 * S };
    w.run_until(calm);
    let until = w.now + minutes * 60 * S;
    while w.now < until && w.facts.violation.is_none() {
        let next = w.now + rng.random_range(mean / 4..mean * 2);
        w.run_until(next.min(until));
        if !kinds.is_empty() {
            let kind = kinds[rng.random_range(0..kinds.len())];
            strike(&mut w, &mut rng, kind);
        }
    }
    let stays_down = (rng.random_range(0..3) == 0).then(|| rng.random_range(0..w.hosts.len()));
    let recovery = heal(&mut w, stays_down);
    Ended {
        violation: w.facts.violation.clone(),
        hash: w.hash,
        simulated: w.now,
        recovery,
        faults: w.facts.faults.clone(),
        appointments: w.facts.appointments,
        verdicts: w.facts.verdicts,
        refuted: w.facts.refuted,
        events: w.events,
    }
}

fn draw_config(rng: &mut StdRng) -> regent::config::Config {
    let (databases, witnesses) = [(2, 1), (3, 0), (2, 1), (3, 0), (3, 2), (5, 0)][rng.random_range(0..6)];
    let mut config = setup::config(databases, witnesses);
    if rng.random_range(0..3) == 0 {
        config = setup::with_watchdog(config);
    }
    config.fencing.on_lapsed = if rng.random_range(0..3) == 0 { OnLapsed::Alarm } else { OnLapsed::Fence };
    config.fencing.power_on = if rng.random_range(0..4) == 0 { PowerOn::Manual } else { PowerOn::Auto };
    if rng.random_range(0..4) == 0 {
        config.services.values_mut().for_each(|s| s.on_crash = OnCrash::Failover);
    }
    config
}

/// One fault, and its end.
fn strike(w: &mut World, rng: &mut StdRng, kind: Kind) {
    let n = w.hosts.len();
    let (host, other) = (rng.random_range(0..n), rng.random_range(0..n));
    let lasts = rng.random_range(300 * MS..20 * S);
    let what = format!("{kind:?} host {host} (other {other}), {} ms", lasts / MS);
    match kind {
        Kind::PowerCut => {
            w.fault("power cut", what);
            w.power_off(host);
            w.after(lasts, move |w| w.power_on(host));
        }
        Kind::Freeze => {
            w.fault("freeze", what);
            w.freeze(host, lasts / 2);
        }
        Kind::DaemonKilled | Kind::PlannedRestart => restart(w, rng, kind, host, what),
        Kind::CardCut | Kind::OneWayCut | Kind::PairCut | Kind::Partition => {
            cut(w, rng, kind, (host, other), lasts, what)
        }
        Kind::DiskHangs => {
            w.fault("disk hangs", what);
            w.net.disk_hangs[host] = true;
            let report = |usable| regent::node::Event::Channel { channel: "disk".parse().expect("a constant"), usable };
            w.give_later(500 * MS, host, report(Err("the disk hangs".to_owned())));
            w.after(lasts.max(S), move |w| {
                w.net.disk_hangs[host] = false;
                w.give(host, report(Ok(())));
            });
        }
        Kind::DatabaseDies => {
            w.fault("database dies", what);
            w.database_killed(host);
        }
        Kind::DatabaseHangs => {
            w.fault("database hangs", what);
            hang(w, host, lasts);
        }
        Kind::Loss => {
            w.fault("loss", what);
            w.net.loss = [rng.random_range(0..400), rng.random_range(0..400)];
            w.after(lasts, |w| w.net.loss = [0, 0]);
        }
        Kind::Device => {
            let modes = [Device::Honest, Device::Slow, Device::Failing, Device::Lying, Device::Late];
            let mode = modes[rng.random_range(0..modes.len())];
            w.fault("device", format!("ipmi of host {host}: {mode:?}"));
            w.devices.insert((host, "ipmi".to_owned()), mode);
        }
        Kind::Switchover | Kind::Pause => operator(w, kind, lasts),
        Kind::Blackout => {
            w.fault("blackout", what);
            for h in 0..n {
                w.power_off(h);
                let back = rng.random_range(S..15 * S);
                w.after(back, move |w| w.power_on(h));
            }
        }
        Kind::Transfer => {
            w.fault("transfer", what);
            w.transfer(host);
        }
    }
}

/// The postmaster of this host, if one runs, stands still for so long.
fn hang(w: &mut World, host: usize, lasts: u64) {
    let now = w.now;
    let Some(db) = w.hosts[host].database.as_mut().filter(|db| db.process != Process::None) else { return };
    db.hung_since = Some(now);
    let postmaster = db.postmaster;
    w.after(lasts, move |w| {
        if w.db(host).postmaster == postmaster {
            w.db(host).hung_since = None;
        }
    });
}

fn restart(w: &mut World, rng: &mut StdRng, kind: Kind, host: usize, what: String) {
    let boots = w.hosts[host].boots;
    let back = rng.random_range(100 * MS..3 * S);
    let again = move |w: &mut World| {
        if w.hosts[host].boots == boots && !w.hosts[host].frozen {
            w.start_daemon(host);
        } else if w.hosts[host].boots == boots {
            w.after(20 * S, move |w| w.start_daemon(host));
        }
    };
    if kind == Kind::DaemonKilled {
        w.fault("daemon killed", what);
        w.kill_daemon(host);
        return w.after(back, again);
    }
    w.fault("planned restart", what);
    let back_within = std::time::Duration::from_secs(4);
    w.give(host, regent::node::Event::Goodbye { back_within });
    w.after(300 * MS, move |w| {
        if w.hosts[host].boots == boots {
            w.kill_daemon(host);
            w.after(back, again);
        }
    });
}

fn cut(w: &mut World, rng: &mut StdRng, kind: Kind, (a, b): (usize, usize), lasts: u64, what: String) {
    let n = w.hosts.len();
    let channels: &[usize] = [&[0][..], &[1], &[0, 1]][rng.random_range(0..3)];
    let group: Vec<bool> = (0..n).map(|_| rng.random_range(0..2) == 0).collect();
    let hit = move |from: usize, to: usize| match kind {
        Kind::CardCut => from == a || to == a,
        Kind::OneWayCut => from == a,
        Kind::PairCut => (from, to) == (a, b) || (from, to) == (b, a),
        _ => group[from] != group[to],
    };
    let name = match kind {
        Kind::CardCut => "card cut",
        Kind::OneWayCut => "one-way cut",
        Kind::PairCut => "pair cut",
        _ => "partition",
    };
    w.fault(name, format!("{what}, channels {channels:?}"));
    let paths: Vec<_> = (0..n)
        .flat_map(|from| (0..n).map(move |to| (from, to)))
        .filter(|(from, to)| hit(*from, *to))
        .flat_map(|(from, to)| channels.iter().map(move |c| (*c, from, to)))
        .collect();
    paths.iter().for_each(|(c, from, to)| w.net.set_cut(*c, *from, *to, true));
    w.after(lasts, move |w| paths.iter().for_each(|(c, from, to)| w.net.set_cut(*c, *from, *to, false)));
}

fn operator(w: &mut World, kind: Kind, lasts: u64) {
    let service = w.service();
    let Some((leader, _)) = w.log.leader else { return };
    let Some(record) = w.log.state().services.get(&service) else { return };
    let (epoch, who) = (record.epoch, "sim".to_owned());
    let id = u64::MAX - w.events;
    if kind == Kind::Switchover {
        w.fault("switchover", format!("of {service}"));
        return w.propose(leader, id, Command::Switchover { service, epoch, to: None, who });
    }
    w.fault("pause", format!("of {service}"));
    w.propose(leader, id, Command::Pause { service: service.clone(), who });
    w.after(lasts, resume);
}

fn resume(w: &mut World) {
    let service = w.service();
    let Some((leader, _)) = w.log.leader else { return };
    if w.log.state().services.get(&service).is_some_and(|s| s.paused) {
        let id = u64::MAX - w.events;
        w.propose(leader, id, Command::Resume { service, who: "sim".to_owned() });
    }
}

/// Whether one of the hosts that have power could take over: its WAL descends from the timeline of the last promotion.
fn has_candidate(w: &World) -> bool {
    let Some(service) = w.log.state().services.get(&w.service()) else { return w.hosts.iter().all(|h| h.power) };
    w.hosts.iter().filter(|h| h.power).filter_map(|h| h.database.as_ref()).any(|db| {
        let descends = service.timeline.0 == 0 || db.history.descends_from(db.at, service.timeline);
        !db.unfinished && db.system.is_some() && db.system == service.system && descends
    })
}

/// L1: everything works again and every host has power (but one, in some seeds); the service must take writes within
/// the bound, and every database must replicate soon after. Returns how long the first took.
fn heal(w: &mut World, stays_down: Option<usize>) -> u64 {
    if w.facts.violation.is_some() {
        return 0;
    }
    w.note(|| "everything heals".to_owned());
    w.net.heal();
    w.devices.clear();
    let now = w.now;
    if let Some(host) = stays_down {
        w.note(|| format!("host {host} stays down"));
        w.power_off(host);
    }
    let stays_down = stays_down.filter(|_| {
        (0..w.hosts.len()).for_each(|h| {
            if Some(h) != stays_down {
                w.power_on(h)
            }
        });
        has_candidate(w)
    });
    (0..w.hosts.len()).for_each(|h| {
        if Some(h) != stays_down {
            w.power_on(h)
        }
    });
    let mut turn = 0;
    let mut back = None;
    while w.now < now + COMES_BACK && w.facts.violation.is_none() {
        if back.is_none() && w.now >= now + 10 * MS && w.primary().is_some() && w.is_served(S) {
            back = Some(w.now - now);
        }
        // What a supervisor and an operator would do.
        for h in 0..w.hosts.len() {
            if turn % 25 == 0 && turn > 0 && w.hosts[h].power && !w.hosts[h].frozen && w.hosts[h].daemon.is_none() {
                w.start_daemon(h);
            }
            if !w.hosts[h].power && turn % 100 == 99 && Some(h) != stays_down {
                w.power_on(h);
            }
        }
        if turn % 20 == 0 {
            resume(w);
        }
        turn += 1;
        w.run_until(w.now + 200 * MS);
        if back.is_some() && w.now > now + 30 * S && w.is_whole() {
            break;
        }
    }
    let bound = COMES_BACK / S;
    if back.is_none() && w.facts.violation.is_none() {
        w.violate("L1", format!("no writes within {bound} s of healing"));
    } else if !w.is_whole() && w.facts.violation.is_none() {
        w.violate("L1", format!("not every database replicates within {bound} s of healing"));
    }
    back.unwrap_or(0)
}
