//! Faults: what each kind breaks, and how it ends by itself. Which kinds there are is `kinds.rs`, when they strike
//! `swarm.rs`.

use crate::ailment::Ailment;
use crate::clones;
use crate::cluster::{MS, S, World};
use crate::database::Process;
use crate::effects::{Part, any_action};
use crate::fence::Device;
use crate::kinds::{KINDS, Kind, LATER};
use rand::RngExt;
use rand::rngs::StdRng;
use regent::ledger::{Command, FenceReason, FenceState};
use regent::types::{Leaving, NodeName};
use std::time::Duration;

/// One fault: what it hits, and for how long.
struct Hit {
    kind: Kind,
    host: usize,
    other: usize,
    lasts: u64,
}

/// Strikes once.
pub fn strike(w: &mut World, rng: &mut StdRng, kind: Kind) {
    let n = w.hosts.len();
    let (host, other) = (rng.random_range(0..n), rng.random_range(0..n));
    let hit = Hit { kind, host, other, lasts: rng.random_range(300 * MS..20 * S) };
    let later = LATER.iter().map(|(kind, name, ..)| (kind, name));
    let all = KINDS.iter().map(|(kind, name)| (kind, name));
    let name = all.chain(later).find(|(k, _)| **k == kind).map_or("?", |(_, name)| name);
    w.fault(name, format!("{} (and {}), {} ms", w.hosts[host].name, w.hosts[other].name, hit.lasts / MS));
    match kind {
        Kind::PowerCut | Kind::Blackout | Kind::Freeze | Kind::GuestPause | Kind::CommonStall => power(w, rng, &hit),
        Kind::SlowBoot | Kind::Slew | Kind::Clone => machine(w, rng, &hit),
        Kind::LogFull => log_full(w, host, (w.hosts[host].boots, w.now + hit.lasts * 3, w.healings)),
        Kind::DaemonKilled | Kind::PlannedRestart | Kind::Upgrade => restart(w, rng, &hit),
        Kind::Leave => {
            let leaving = [Leaving::DaemonStops, Leaving::HostGoesDown][rng.random_range(0..2)];
            w.leave(host, leaving, hit.lasts * 2);
        }
        Kind::CardCut | Kind::OneWayCut | Kind::PairCut | Kind::Partition | Kind::Flapping => cut(w, rng, &hit),
        Kind::Unconnected | Kind::Loss | Kind::Delay | Kind::Doubling | Kind::Reordering => network(w, rng, &hit),
        Kind::OneWayConnections | Kind::Stalled | Kind::LateMessages => connections(w, rng, &hit),
        Kind::DiskHangs | Kind::DiskFails | Kind::DiskTorn | Kind::DiskStale => disk(w, &hit),
        Kind::DatabaseDies | Kind::DatabaseHangs | Kind::SlowPromotion | Kind::StuckStop | Kind::RogueStart => {
            database(w, rng, &hit)
        }
        Kind::SlowStart
        | Kind::SlowRecovery
        | Kind::TooManyClients
        | Kind::ProbeFails
        | Kind::VolumeFull
        | Kind::VolumeStalls
        | Kind::Unclear
        | Kind::Lingers
        | Kind::DirectoryGone => ailment(w, rng, &hit),
        Kind::Device => device(w, rng, &hit),
        Kind::Switchover
        | Kind::Pause
        | Kind::OperatorFence
        | Kind::Confirm
        | Kind::WrongConfirm
        | Kind::Reinit
        | Kind::AcceptCopy
        | Kind::Restart
        | Kind::Maintenance => operator(w, rng, &hit),
        Kind::Transfer
        | Kind::LeaderLost
        | Kind::Uncommitted
        | Kind::SlowLog
        | Kind::FallsBehind
        | Kind::Repeats
        | Kind::MissedElections => log(w, &hit),
        _ => effect(w, rng, &hit),
    }
}

/// An effect fails on this host, for a moment or for good.
fn effect(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let part = match hit.kind {
        Kind::WatchdogUnarmed => Part::WatchdogArm,
        Kind::WatchdogUnfed => Part::WatchdogFeed,
        Kind::WatchdogStays => Part::WatchdogDisarm,
        Kind::NoWayOut => Part::WayOut,
        Kind::FinalWordUnwritten => Part::FinalWord,
        Kind::LeaseUnkept => Part::LeaseFile,
        Kind::AgentsNotRun => Part::Agents,
        Kind::ReadsFail => Part::QuorumReads,
        Kind::TransfersFail => Part::Transfers,
        Kind::QuestionsLost => Part::Questions,
        Kind::AnswersLost => Part::Answers,
        _ => any_action(rng),
    };
    let lasts = (rng.random_range(0..4) > 0).then_some(hit.lasts * 2);
    w.break_part(hit.host, part, lasts);
}

fn power(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let (host, lasts) = (hit.host, hit.lasts);
    match hit.kind {
        Kind::PowerCut => {
            w.power_off(host);
            w.after(lasts, move |w| w.power_back(host));
        }
        Kind::Blackout => {
            for h in 0..w.hosts.len() {
                w.power_off(h);
                let back = rng.random_range(S..15 * S);
                w.after(back, move |w| w.power_back(h));
            }
        }
        // Only a guest's clock can stop, and a guest is fenced by other means than its lease.
        Kind::GuestPause if w.hosts[host].is_virtual => w.freeze(host, lasts * 2, true),
        Kind::CommonStall => {
            for h in 0..w.hosts.len() {
                let differs = rng.random_range(0..20 * MS);
                w.freeze(h, lasts / 4 + differs, false);
            }
        }
        _ => w.freeze(host, lasts / 2, false),
    }
}

fn restart(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let host = hit.host;
    let boots = w.hosts[host].boots;
    let back = rng.random_range(100 * MS..3 * S);
    let again = move |w: &mut World| {
        if w.hosts[host].boots == boots && !w.hosts[host].is_frozen() {
            w.start_daemon(host);
        } else if w.hosts[host].boots == boots {
            w.after(20 * S, move |w| w.start_daemon(host));
        }
    };
    if hit.kind == Kind::DaemonKilled {
        w.kill_daemon(host);
        return w.after(back, again);
    }
    let upgrades = hit.kind == Kind::Upgrade;
    w.give(host, regent::node::Event::Goodbye { back_within: Duration::from_secs(4) });
    w.after(300 * MS, move |w| {
        if w.hosts[host].boots == boots {
            w.kill_daemon(host);
            // The new version's heartbeats have a body that the others learn to read only later.
            w.hosts[host].speaks_unknown = upgrades;
            w.after(back, again);
            w.after(back + 8 * S, move |w| w.hosts[host].speaks_unknown = false);
        }
    });
}

fn cut(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let n = w.hosts.len();
    let channels: &[usize] = [&[0][..], &[1], &[0, 1]][rng.random_range(0..3)];
    let group: Vec<bool> = (0..n).map(|_| rng.random_range(0..2) == 0).collect();
    let (kind, a, b) = (hit.kind, hit.host, hit.other);
    let hits = move |from: usize, to: usize| match kind {
        Kind::CardCut | Kind::Flapping => from == a || to == a,
        Kind::OneWayCut => from == a,
        Kind::PairCut => (from, to) == (a, b) || (from, to) == (b, a),
        _ => group[from] != group[to],
    };
    let paths: Vec<_> = (0..n)
        .flat_map(|from| (0..n).map(move |to| (from, to)))
        .filter(|(from, to)| from != to && hits(*from, *to))
        .flat_map(|(from, to)| channels.iter().map(move |c| (*c, from, to)))
        .collect();
    if kind == Kind::Flapping {
        let every = rng.random_range(200 * MS..1500 * MS);
        return flap(w, paths, every, (hit.lasts / every).max(2), w.healings);
    }
    paths.iter().for_each(|(c, from, to)| w.net.cut(*c, *from, *to));
    let healings = w.healings;
    w.after(hit.lasts, move |w| {
        if w.healings == healings {
            paths.iter().for_each(|(c, from, to)| w.net.join(*c, *from, *to));
        }
    });
}

/// Off and on again, so many times, until everything heals.
fn flap(w: &mut World, paths: Vec<(usize, usize, usize)>, every: u64, times: u64, healings: u64) {
    paths.iter().for_each(|(c, from, to)| w.net.cut(*c, *from, *to));
    w.after(every, move |w| {
        if w.healings != healings {
            return;
        }
        paths.iter().for_each(|(c, from, to)| w.net.join(*c, *from, *to));
        if times > 1 {
            w.after(every, move |w| {
                if w.healings == healings {
                    flap(w, paths, every, times - 1, healings);
                }
            });
        }
    });
}

fn network(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let host = hit.host;
    match hit.kind {
        Kind::Unconnected => {
            w.net.unconnected[host] = true;
            w.after(hit.lasts, move |w| w.net.unconnected[host] = false);
        }
        Kind::Loss => {
            w.net.loss = [rng.random_range(0..400), rng.random_range(0..400)];
            w.after(hit.lasts, |w| w.net.loss = [0, 0]);
        }
        Kind::Delay => {
            w.net.delay_max[rng.random_range(0..2)] = rng.random_range(10 * MS..300 * MS);
            w.after(hit.lasts, |w| w.net.delay_max = [3 * MS; 2]);
        }
        Kind::Doubling => {
            w.net.twice = rng.random_range(1..300);
            w.after(hit.lasts, |w| w.net.twice = 0);
        }
        _ => {
            w.net.late = rng.random_range(1..100);
            w.after(hit.lasts, |w| w.net.late = 0);
        }
    }
}

/// Questions and answers between daemons come late or on one way only; heartbeats and the log go on.
fn connections(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let host = hit.host;
    match hit.kind {
        Kind::OneWayConnections => {
            w.net.one_way[host] = true;
            w.after(hit.lasts, move |w| w.net.one_way[host] = false);
        }
        Kind::Stalled => {
            let mut stall = || if rng.random_range(0..2) == 0 { rng.random_range(100 * MS..10 * S) } else { 0 };
            w.net.stalls[host] = (stall(), stall());
            w.after(hit.lasts, move |w| w.net.stalls[host] = (0, 0));
        }
        _ => {
            w.net.late_messages = rng.random_range(5..200);
            w.after(hit.lasts, |w| w.net.late_messages = 0);
        }
    }
}

/// The machine itself: its firmware takes minutes, its clock is slewed, there are two of it.
fn machine(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let host = hit.host;
    match hit.kind {
        Kind::SlowBoot => {
            w.hosts[host].slow_boot = rng.random_range(20 * S..150 * S);
            w.after(hit.lasts * 6, move |w| w.hosts[host].slow_boot = 0);
        }
        Kind::Slew => {
            let rate = w.hosts[host].rate_ppm;
            // As fast as chrony slews by default, where the configuration allows for that.
            let most = (i64::from(w.hosts[host].config.lease.drift_permille) * 1000 * 9 / 10).min(83_333);
            let slewed = if rng.random_range(0..2) == 0 { most } else { -most };
            w.slew(host, slewed);
            w.after(hit.lasts, move |w| w.slew(host, rate));
        }
        _ => clones::boots(w, rng, host),
    }
}

/// The log's disk is full: the daemon aborts, and again a second after each restart, until somebody makes room.
fn log_full(w: &mut World, host: usize, (boots, until, healings): (u64, u64, u64)) {
    if w.hosts[host].boots != boots || w.healings != healings {
        return;
    }
    w.kill_daemon(host);
    let back = w.rng.random_range(500 * MS..3 * S);
    w.after(back, move |w| {
        if w.hosts[host].boots == boots {
            w.start_daemon(host);
            if w.now < until && w.healings == healings {
                w.after(S, move |w| log_full(w, host, (boots, until, healings)));
            }
        }
    });
}

fn disk(w: &mut World, hit: &Hit) {
    let (host, kind) = (hit.host, hit.kind);
    let (mute, deaf) = (kind != Kind::DiskStale, kind != Kind::DiskTorn);
    (w.net.disk_mute[host], w.net.disk_deaf[host]) = (mute, deaf);
    // When the observer itself finds out: an error at once, a hang after its deadline, a stale path when its own slot
    // does not read back. A torn slot is whole for whoever wrote it.
    let found = match kind {
        Kind::DiskFails => Some(20 * MS),
        Kind::DiskHangs => Some(500 * MS),
        Kind::DiskStale => Some(S),
        _ => None,
    };
    if let Some(delay) = found {
        w.report_disk(host, delay, Err("the disk cannot be used"));
    }
    w.after(hit.lasts.max(2 * S), move |w| {
        (w.net.disk_mute[host], w.net.disk_deaf[host]) = (false, false);
        w.report_disk(host, MS, Ok(()));
    });
}

fn database(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let service = rng.random_range(0..w.services.len());
    // Mostly where it hurts.
    let host = w.primary_of(service).filter(|_| rng.random_range(0..2) == 0).unwrap_or(hit.host);
    if w.hosts[host].databases.is_empty() {
        return;
    }
    match hit.kind {
        Kind::DatabaseDies => w.database_killed(host, service),
        Kind::DatabaseHangs => hang(w, host, service, hit.lasts),
        Kind::SlowPromotion => {
            let shows = rng.random_range(0..2) == 0;
            for h in 0..w.hosts.len() {
                if let Some(db) = w.hosts[h].databases.get_mut(service) {
                    (db.backlog, db.backlog_shows) = (hit.lasts * 2, shows);
                }
            }
        }
        Kind::StuckStop => w.db(host, service).stop_hangs = hit.lasts,
        _ => w.rogue_start(host, service),
    }
}

fn ailment(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let service = rng.random_range(0..w.services.len());
    let host = w.primary_of(service).filter(|_| rng.random_range(0..2) == 0).unwrap_or(hit.host);
    if w.hosts[host].databases.is_empty() {
        return;
    }
    let ailment = match hit.kind {
        Kind::SlowStart => Ailment::SlowStart,
        Kind::SlowRecovery => Ailment::SlowRecovery,
        Kind::TooManyClients => Ailment::Crowded,
        Kind::ProbeFails => Ailment::ProbeFails,
        Kind::VolumeFull => Ailment::VolumeFull,
        Kind::VolumeStalls => Ailment::VolumeStalls,
        Kind::Unclear => Ailment::Unclear,
        Kind::Lingers => Ailment::Lingers,
        _ => Ailment::DirectoryGone,
    };
    w.ail(rng, (host, service), ailment, hit.lasts);
    // It shows at the next start, which may as well come now.
    let starts = matches!(ailment, Ailment::SlowStart | Ailment::SlowRecovery | Ailment::Lingers);
    if starts && rng.random_range(0..2) == 0 {
        w.database_killed(host, service);
    }
}

/// The postmaster of this host, if one runs, stands still for so long.
fn hang(w: &mut World, host: usize, service: usize, lasts: u64) {
    let now = w.now;
    let db = w.db(host, service);
    if db.process == Process::None {
        return;
    }
    db.hung_since = Some(now);
    let postmaster = db.postmaster;
    w.after(lasts, move |w| {
        if w.db(host, service).postmaster == postmaster {
            w.db(host, service).hung_since = None;
        }
    });
}

fn device(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let late = rng.random_range(100 * MS..30 * S);
    let modes = [
        Device::Honest,
        Device::Slow,
        Device::Failing,
        Device::Lying,
        Device::Late(late),
        Device::Half,
        Device::Reboots,
        Device::OnHostPower,
        Device::OnlyFrom(hit.other),
        Device::Busy(w.now + hit.lasts),
        Device::NeverOn,
        Device::Wired(hit.other),
    ];
    // Of an assistant the host is the voter that runs it. It says nothing on which anybody rests.
    let assists = [
        Device::Honest,
        Device::Slow,
        Device::Failing,
        Device::Late(late),
        Device::Half,
        Device::Busy(w.now + hit.lasts),
        Device::NeverOn,
    ];
    let agents: Vec<_> =
        w.hosts[hit.host].config.fencing.agents.iter().map(|(n, a)| (n.clone(), a.everywhere)).collect();
    let (agent, everywhere) = agents[rng.random_range(0..agents.len())].clone();
    let modes = if everywhere { &assists[..] } else { &modes[..] };
    let mode = modes[rng.random_range(0..modes.len())];
    w.note(|w| format!("{agent} of {}: {mode:?}", w.hosts[hit.host].name));
    w.set_device(hit.host, agent.as_str(), mode);
}

fn operator(w: &mut World, rng: &mut StdRng, hit: &Hit) {
    let service = rng.random_range(0..w.services.len());
    let name = w.services[service].clone();
    let Some(record) = w.log.state().services.get(&name) else { return };
    let (epoch, who) = (record.epoch, "sim".to_owned());
    match hit.kind {
        Kind::Switchover => {
            let to = Some(w.hosts[hit.other].name.clone()).filter(|_| rng.random_range(0..2) == 0);
            w.order(Command::Switchover { service: name, epoch, to, who });
        }
        Kind::Pause => {
            w.order(Command::Pause { service: name, who, why: None, lasts: None });
            w.after(hit.lasts, resume);
        }
        Kind::Reinit => {
            let node = w.hosts[hit.host].name.clone();
            w.order(Command::Reinit { service: name, epoch, node, who, cancel: false });
        }
        Kind::AcceptCopy => {
            let node = Some(w.hosts[hit.host].name.clone());
            w.order(Command::AcceptCopy { service: name, epoch, node, bytes: None, who });
        }
        Kind::Restart => {
            let node = w.hosts[hit.host].name.clone();
            w.order(Command::Restart { service: name, epoch, node, who, cancel: false });
        }
        Kind::Maintenance => {
            let node = w.hosts[hit.host].name.clone();
            let lasts = (rng.random_range(0..2) == 0).then(|| Duration::from_nanos(hit.lasts));
            w.order(Command::Maintenance { node: node.clone(), who: who.clone(), lasts });
            if lasts.is_none() {
                w.after(hit.lasts, move |w| w.order(Command::EndMaintenance { node, number: None, who }));
            }
        }
        Kind::OperatorFence => {
            let target = w.hosts[hit.host].name.clone();
            let boot = w.hosts[hit.host].boot();
            w.order(Command::OpenFence { target, boot, reason: FenceReason::Operator { who } });
        }
        _ => confirm(w, hit.kind == Kind::WrongConfirm),
    }
}

/// A person vouches for one open fence: rightly, or wrongly, which breaks an assumption and is noted as a lie.
fn confirm(w: &mut World, wrongly: bool) {
    let open = |w: &World| -> Option<(regent::types::IncidentId, NodeName)> {
        let fences = w.log.state().fences.values();
        let open = fences.filter(|f| f.state == FenceState::Open);
        open.map(|f| (f.incident, f.target.clone())).find(|(_, t)| w.hosts[w.host(t)].power == wrongly)
    };
    let Some((incident, target)) = open(w) else { return };
    let host = w.host(&target);
    w.order(Command::HumanConfirm { incident, target, who: "sim".to_owned(), force: false });
    let boots = w.hosts[host].boots;
    if wrongly {
        w.lied(host, boots);
    }
}

/// An operator ends every pause.
pub fn resume(w: &mut World) {
    let paused: Vec<_> = w.log.state().services.iter().filter(|(_, s)| s.paused).map(|(n, _)| n.clone()).collect();
    for service in paused {
        w.order(Command::Resume { service, who: "sim".to_owned(), number: None });
    }
}

fn log(w: &mut World, hit: &Hit) {
    let host = hit.host;
    match hit.kind {
        Kind::Transfer => w.transfer(host),
        Kind::LeaderLost => w.elect_now(),
        Kind::Uncommitted => {
            w.log.holds = true;
            w.after(hit.lasts / 8, |w| w.elect_now());
        }
        Kind::SlowLog => {
            w.hosts[host].log_slow_until = w.now + hit.lasts;
            let took = Duration::from_nanos(hit.lasts / 4);
            w.give(host, regent::node::Event::LogWrite { took });
            w.give_later(hit.lasts, host, regent::node::Event::LogWrite { took: Duration::from_millis(2) });
        }
        Kind::FallsBehind => w.fall_behind(host, hit.lasts * 8),
        Kind::Repeats => {
            w.log.repeats = 200;
            w.after(hit.lasts, |w| w.log.repeats = 0);
        }
        _ => {
            w.hosts[host].misses_elections = true;
            w.after(hit.lasts, move |w| w.hosts[host].misses_elections = false);
        }
    }
}

impl World {
    /// What an operator orders goes to whoever leads.
    pub fn order(&mut self, command: Command) {
        if let Some((leader, _)) = self.log.leader {
            let id = u64::MAX - self.events;
            self.propose(leader, id, command);
        }
    }

    /// The leader loses its leadership now, to anybody who may have it; what it had under way may get lost.
    pub fn elect_now(&mut self) {
        self.log.holds = false;
        let leader = self.log.leader.map(|(l, _)| l);
        let n = self.hosts.len();
        let first = self.rng.random_range(0..n);
        let next = (0..n).map(|i| (first + i) % n).find(|h| Some(*h) != leader && self.may_lead(*h));
        if let Some(next) = next {
            self.elect(next);
        }
    }
}
