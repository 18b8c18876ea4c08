//! The second phase of a run: a majority heals, and L1 must hold. What heals is said here; what must be so then is
//! `invariants/l1.rs`.

use crate::clones::boot_again;
use crate::cluster::{MS, S, World};
use crate::database::{Database, Process};
use crate::faults::resume;
use crate::host::Host;
use crate::setup;
use rand::RngExt;
use rand::rngs::StdRng;
use regent::config::PowerOn;
use regent::ledger::{Cause, Command, Fence, FenceState, Service};
use regent::types::{Alarm, Epoch, NodeName, ServiceName};

/// Which hosts stay broken, at most a minority: drawn, unless nobody else could take over.
pub fn draw_rest(w: &World, rng: &mut StdRng) -> Vec<usize> {
    let n = w.hosts.len();
    let most = (n - 1) / 2;
    let mut rest: Vec<usize> = Vec::new();
    for _ in 0..rng.random_range(0..=most) {
        let host = rng.random_range(0..n);
        if !rest.contains(&host) {
            rest.push(host);
        }
    }
    if (0..w.services.len()).all(|s| has_candidate(w, s, &rest)) { rest } else { Vec::new() }
}

/// Whether one of the others could take over: its log descends from the timeline that was installed last, or is being
/// written although the ledger has not heard of it yet. In a synchronous service so many standbys must be left beside it,
/// too.
pub fn has_candidate(w: &World, service: usize, rest: &[usize]) -> bool {
    if w.log.refused.iter().any(|h| !rest.contains(h)) && !rest.is_empty() {
        return false;
    }
    let others = || w.hosts.iter().enumerate().filter(|(i, _)| !rest.contains(i)).map(|(_, h)| h);
    let databases = || others().filter_map(|h| h.databases.get(service));
    if w.sync > 0 && databases().count() <= w.sync {
        return false;
    }
    let Some(record) = w.log.state().services.get(&w.services[service]) else { return rest.is_empty() };
    let open = |db: &&Database| db.process == Process::Primary;
    let written = w.hosts.iter().filter_map(|h| h.databases.get(service)).filter(open).map(|db| db.at.timeline).max();
    let newest = record.timeline.max(written.unwrap_or_default()).max(w.log.installing(&w.services[service]));
    let members = &w.hosts[0].config.services[&w.services[service]];
    let leads = others().filter(|h| members.may_lead(&h.name)).filter_map(|h| h.databases.get(service));
    leads.into_iter().any(|db| {
        let descends = newest.0 == 0 || db.history.descends_from(db.at, newest);
        !db.unfinished && db.system.is_some() && db.system == record.system && descends
    })
}

/// Everything works again but for the rest, which is off or cut off from everybody.
pub fn heal(w: &mut World, rng: &mut StdRng, rest: &[usize]) {
    w.note(|w| {
        let names: Vec<_> = rest.iter().map(|h| w.hosts[*h].name.as_str()).collect();
        format!("everything heals, but for {names:?}")
    });
    w.healings += 1;
    let now = w.now;
    w.net.heal();
    w.devices.clear();
    (w.log.holds, w.log.inherits, w.log.repeats) = (false, None, 0);
    for h in 0..w.hosts.len() {
        let host = &mut w.hosts[h];
        (host.misses_elections, host.log_slow_until, host.speaks_unknown) = (false, 0, false);
        host.broken.clear();
        (host.behind_until, host.slow_boot, host.pace) = (0, 0, 0);
        for db in &mut host.databases {
            (db.backlog, db.stop_hangs) = (0, 0);
            db.ails.heal(now);
        }
        w.report_disk(h, MS, Ok(()));
    }
    for h in 0..w.hosts.len() {
        match rest.contains(&h) {
            // For good, whatever an earlier fault or a device would do later.
            true if rng.random_range(0..2) == 0 => {
                w.power_off(h);
                w.hosts[h].unplugged = true;
            }
            true => (0..2).for_each(|c| w.net.set_card(c, h, true)),
            // Only what a fault switched off; what regent did is regent's to take back.
            false if is_for_regent(w, rest, h) => {}
            false => w.power_on(h),
        }
    }
}

/// What a supervisor and an operator do meanwhile. Whether somebody waits for a person's decision.
pub fn tend(w: &mut World, rest: &[usize], turn: u64) -> bool {
    for h in (0..w.hosts.len()).filter(|h| !rest.contains(h)) {
        let idle = w.hosts[h].power && !w.hosts[h].is_frozen() && w.hosts[h].daemon.is_none();
        if turn % 25 == 24 && idle {
            w.start_daemon(h);
        }
        // A copy's join may commit when the copy is long gone.
        if turn % 25 == 12 {
            boot_again(w, h);
        }
        // What a fault switched off; and what regent did, where an operator is to give it back.
        if !w.hosts[h].power && turn % 50 == 49 && !is_for_regent(w, rest, h) {
            w.power_on(h);
        }
    }
    if turn.is_multiple_of(20) {
        resume(w);
        lift(w);
        confirm_struck(w, rest);
        accept_loss(w);
        take_back(w);
        replace_strays(w);
    }
    !lacking(w).is_empty()
}

/// The services of which the leader says that nobody can take over, and whose bound on what may be lost is so small here
/// that a standby may lack more, or whose primary left in order and may not be back.
fn lacking(w: &World) -> Vec<(ServiceName, Epoch)> {
    let Some((leader, _)) = w.log.leader else { return Vec::new() };
    let small = w.hosts[0].config.failover.max_lag < setup::MAX_LAG;
    let row = w.hosts[leader].daemon.as_ref().and_then(|d| d.rows().get(&w.hosts[leader].name));
    let says = |name: &ServiceName| {
        let alarms = row.into_iter().flat_map(|row| &row.health.alarms);
        alarms.into_iter().any(|alarm| matches!(alarm, Alarm::NoCandidate { service } if service == name))
    };
    let has_left = |s: &Service| s.over.as_ref().is_some_and(|over| over.is_leave());
    let services = w.log.state().services.iter().filter(|(name, s)| says(name) && s.accepted_loss.is_none());
    let services = services.filter(|(_, s)| small || has_left(s));
    services.map(|(name, s)| (name.clone(), s.epoch)).collect()
}

/// A person orders nothing any more about whose data win.
fn take_back(w: &mut World) {
    let who = || "sim".to_owned();
    let mut orders = Vec::new();
    for (service, record) in &w.log.state().services {
        let epoch = record.epoch;
        let nodes = record.to_copy.keys().filter(|node| !is_stray(w, service, w.host(node))).cloned();
        orders.extend(nodes.map(|node| Command::Reinit {
            service: service.clone(),
            epoch,
            node,
            who: who(),
            cancel: true,
        }));
        if record.awaited_copy().is_some() {
            let service = service.clone();
            orders.push(Command::AcceptCopy { service, epoch, node: None, bytes: None, who: who() });
        }
    }
    let ends = |node: &NodeName| Command::EndMaintenance { node: node.clone(), number: None, who: who() };
    w.log.state().maintenance.keys().map(ends).collect::<Vec<_>>().into_iter().for_each(|end| w.order(end));
    if !orders.is_empty() {
        w.facts.taken_back = w.now;
    }
    orders.into_iter().for_each(|command| w.order(command));
}

/// A copy of a host spoke for its name while another node made the database, and the host had made one of its own. Its
/// status says what a person has to decide.
fn replace_strays(w: &mut World) {
    let mut orders = Vec::new();
    for (service, record) in &w.log.state().services {
        for host in (0..w.hosts.len()).filter(|h| is_stray(w, service, *h)) {
            let (service, epoch, node) = (service.clone(), record.epoch, w.hosts[host].name.clone());
            orders.push(Command::Reinit { service, epoch, node, who: "sim".to_owned(), cancel: false });
        }
    }
    orders.into_iter().for_each(|command| w.order(command));
}

/// Whether what lies there is another database than the service's, whole and closed.
fn is_stray(w: &World, service: &ServiceName, host: usize) -> bool {
    let Some(index) = w.services.iter().position(|s| s == service) else { return false };
    let system = w.log.state().services.get(service).and_then(|record| record.system);
    w.hosts[host].databases.get(index).is_some_and(|db| {
        let closed = db.process == Process::None && !db.unfinished;
        closed && system.is_some() && db.system.is_some() && db.system != system
    })
}

/// A person would rather lose some than wait.
fn accept_loss(w: &mut World) {
    for (service, epoch) in lacking(w) {
        w.order(Command::AcceptLoss { service, epoch, to: None, bytes: None, who: "sim".to_owned() });
    }
}

/// A person answers the alarm of a fence that regent cannot end: a voter fell silent for good while the only level acted, so
/// that the level is not believed any more (S9), and the host is seen to be off.
fn confirm_struck(w: &mut World, rest: &[usize]) {
    let gone = |node: &NodeName| rest.contains(&w.host(node));
    let waits = |f: &Fence| f.state == FenceState::Open && f.struck.values().any(gone);
    let is_off = |f: &Fence| !w.hosts[w.host(&f.target)].power;
    let fences = w.log.state().fences.values().filter(|f| waits(f) && is_off(f));
    let orders: Vec<_> = fences.map(|f| (f.incident, f.target.clone())).collect();
    for (incident, target) in orders {
        w.order(Command::HumanConfirm { incident, target, who: "sim".to_owned(), force: false });
    }
}

/// Whether regent had this host switched off and is to give it its power back: not where the file leaves that to operators,
/// not where an operator ordered the fence, and not without a majority, as after a fence that was followed by another
/// fault before it was done: without one regent can do nothing at all.
fn is_for_regent(w: &World, rest: &[usize], host: usize) -> bool {
    let manual = w.log.state().settings.as_ref().is_none_or(|s| s.power_on == PowerOn::Manual);
    w.is_off_by_regent(host) && !manual && !w.is_off_by_order(host) && has_majority(w, rest)
}

fn has_majority(w: &World, rest: &[usize]) -> bool {
    let runs = |(host, h): &(usize, &Host)| h.power && !rest.contains(host) && !w.log.refused.contains(host);
    2 * w.hosts.iter().enumerate().filter(runs).count() > w.hosts.len()
}

/// The operators take back the fences that they ordered, once nothing hangs on them any more: regent never does, and where
/// the level that confirmed was `lease`, no new boot makes one void either.
fn lift(w: &mut World) {
    let state = w.log.state();
    let hangs =
        |f: &Fence| f.epochs.iter().any(|(name, epoch)| state.services.get(name).is_some_and(|s| s.epoch == *epoch));
    let ordered = |f: &Fence| matches!(f.cause, Cause::Order);
    let theirs = |f: &Fence| f.state == FenceState::Confirmed && (f.epochs.is_empty() || ordered(f) && !hangs(f));
    let fences: Vec<_> = w.log.state().fences.values().filter(|f| theirs(f)).map(|f| f.id).collect();
    for fence in fences {
        w.order(Command::Lift { fence, who: "sim".to_owned(), power_on: true });
    }
}

/// Whether what L1 demands first is so: the rest of the cluster is a connected majority that runs, is not stalled and
/// not paused. A host that is down because regent had it switched off breaks nothing: that is counted against regent.
pub fn premises(w: &World, rest: &[usize]) -> bool {
    let healed = w.hosts.iter().enumerate().filter(|(i, _)| !rest.contains(i) && !w.log.refused.contains(i));
    let runs = |h: &Host| h.power && !h.is_frozen() && h.daemon.is_some();
    healed.into_iter().all(|(i, h)| runs(h) || w.is_down_by_regent(i))
        && has_majority(w, rest)
        && w.log.state().services.values().all(|s| !s.paused)
        && w.log.state().maintenance.is_empty()
        && w.hosts.iter().flat_map(|h| &h.databases).all(|db| db.hung_since.is_none())
        && w.now > S
}
