//! L1: it comes back. Once a majority has healed, every service takes writes within the bound that `regent config
//! check` prints for the last fencing level; a little later every database of it replicates.
//!
//! It prints two: one for candidates that run, and one with `start_timeout` where a database must be started first. Which
//! applies is seen: the time for which a database starts that nobody could do without comes on top, and no more than that.
//!
//! The bound counts from the moment at which the premises hold (hosts and daemons up, no pause, nothing hangs), and is
//! counted anew only after a fault broke one of them: what regent itself switches off counts against it, so two nodes that
//! fence each other in turn do not come back. One thing comes on top, because the rule itself grants it: a fence whose
//! levels had all failed before is in its back-off, and so is an `on` that failed. However that is, the phase has an end.
//!
//! Then it is quiet: for some seconds no daemon does anything of its own accord (`rest.rs`), no rule of a fence that is
//! over is in force anywhere, and no host is left without power by regent where regent is to give it back.

use crate::cluster::{MS, S, World};
use crate::database::Process;
use crate::liveness;
use rand::rngs::StdRng;
use regent::config::timing;
use regent::ledger::{Fence, FenceState, Order};
use regent::types::{AgentAction, CopyHealth};

/// The bound for this cluster at this moment, in ns.
fn bound(w: &World) -> u64 {
    let config = &w.hosts[0].config;
    let printed = timing::bounds(config).failover_worst.expect("every cluster here has a level");
    let failed = |o: &Order| o.action == AgentAction::On && !o.is_running() && !o.has_succeeded();
    let waits = |f: &Fence| f.state == FenceState::Open && f.round > 0 || f.is_open() && f.orders.iter().any(failed);
    let back_off = if w.log.state().fences.values().any(|fence| waits(fence)) {
        config.fencing.retry_max
    } else {
        std::time::Duration::ZERO
    };
    (printed + back_off).as_nanos() as u64
}

/// Whether some service waits for a start: that of its holder's database, or of a candidate where none runs.
fn waits_for_a_start(w: &World, rest: &[usize]) -> bool {
    let starts = |service: usize| {
        let holder = w.log.state().services.get(&w.services[service]).and_then(|s| s.holder.as_ref());
        let of = |(h, host): (usize, &crate::host::Host)| {
            let process = host.databases.get(service).map(|db| db.process)?;
            (host.power && !rest.contains(&h)).then(|| (holder.is_some_and(|held| held.node == host.name), process))
        };
        let all: Vec<_> = w.hosts.iter().enumerate().filter_map(of).collect();
        let runs = all.iter().any(|(_, process)| matches!(process, Process::Standby | Process::Primary));
        all.iter().any(|(holds, process)| *process == Process::Starting && (*holds || !runs))
    };
    (0..w.services.len()).any(starts)
}

/// Whether some database rests between two copies, because the last ones failed: its cure is noticed with the next one, or by
/// a person. In a synchronous service it may be the one that commits wait for.
fn rests_between_copies(w: &World, rest: &[usize]) -> bool {
    let failed = |host: &crate::host::Host| {
        let own = host.daemon.as_ref().and_then(|daemon| daemon.rows().get(&host.name));
        let databases = own.into_iter().flat_map(|row| row.health.services.values());
        databases.into_iter().any(|database| matches!(database.copy, Some(CopyHealth::Failed(_))))
    };
    let left = |(h, _): &(usize, &crate::host::Host)| !rest.contains(h);
    w.hosts.iter().enumerate().filter(left).any(|(_, host)| failed(host))
}

/// The longest pause between two copies that fail.
const COPIES_REST: u64 = 300 * S;

/// One of the rest has its power and its networks again (an `on` came late): it may be the primary like any other.
fn is_back(w: &World, host: usize) -> bool {
    w.log.leader.is_some_and(|(leader, _)| leader == host || w.net.connects(leader, host))
}

/// The phase has an end after so many bounds, whatever broke a premise meanwhile.
const CAP: u64 = 6;
/// For how long nothing may happen, and within which time after everything replicates: the longest pause between two tries
/// of anything is a minute.
const QUIET: u64 = 4 * S;
const QUIET_WITHIN: u64 = 150 * S;

/// How the liveness phase went.
#[derive(Clone, Copy, Default)]
pub struct Recovery {
    /// Until every service took writes again.
    pub writes: u64,
    /// Until nothing happened any more.
    pub quiet: u64,
}

/// The liveness phase.
pub fn comes_back(w: &mut World, rng: &mut StdRng, rest: &[usize]) -> Recovery {
    let healed = w.now;
    liveness::heal(w, rng, rest);
    let Some(writes) = serves(w, rest, healed) else { return Recovery::default() };
    super::client::at_the_end(w, rest);
    let quiet = comes_to_rest(w, rest, healed);
    super::rules::at_the_end(w, rest);
    left_off(w, rest);
    Recovery { writes, quiet }
}

/// How long it took until every service took writes again; then every database of it replicates.
fn serves(w: &mut World, rest: &[usize], healed: u64) -> Option<u64> {
    let (mut since, mut back, mut turn, mut starting, mut resting) = (None, None, 0, 0, 0);
    let start_timeout = timing::bounds(&w.hosts[0].config).start.as_nanos() as u64;
    let end = healed + CAP * bound(w);
    loop {
        w.run_until(w.now + 200 * MS);
        if w.facts.violation.is_some() {
            return None;
        }
        turn += 1;
        if waits_for_a_start(w, rest) {
            starting = start_timeout.min(starting + 200 * MS);
        }
        if rests_between_copies(w, rest) {
            resting = COPIES_REST.min(resting + 200 * MS);
        }
        let asks_a_person = liveness::tend(w, rest, turn);
        if asks_a_person || !liveness::premises(w, rest) {
            // What broke before may end meanwhile (a freeze, a late device); it is not counted against the bound.
            since = None;
        } else if since.is_none() {
            since = Some((w.now, bound(w)));
        }
        let served =
            (0..w.services.len()).all(|s| w.primary_of(s).is_some_and(|p| !rest.contains(&p) || is_back(w, p)));
        if served && w.is_served(S) && w.now > healed + S {
            back.get_or_insert(w.now - healed);
        }
        if back.is_some() && w.now > healed + 30 * S && w.is_whole_but(rest) {
            return back;
        }
        // What was refuted meanwhile has its back-off too.
        let (from, before) = since.unwrap_or((w.now, 0));
        let bound = before.max(bound(w)) + starting;
        let (copied, writes) = (bound + resting, if w.sync > 0 { bound + resting } else { bound });
        if back.is_none() && (w.now > from + writes || w.now > end + writes - bound) {
            return fails(w, rest, bound, format!("no writes within the bound of {} s", bound / S));
        }
        if w.now > from + bound + copied || w.now > end + copied {
            return fails(w, rest, bound, format!("not every database replicates within {} s", 2 * bound / S));
        }
    }
}

/// Whether the ledger takes the boot that runs for the past: its daemon asks to join for ever.
fn is_superseded(w: &World, host: usize) -> bool {
    let h = &w.hosts[host];
    w.log.state().nodes.get(&h.name).is_some_and(|n| n.boot != h.boot())
}

/// A host that regent itself switched off, and left off, is a kind of its own; so is one that the ledger takes for another.
fn fails(w: &mut World, rest: &[usize], bound: u64, what: String) -> Option<u64> {
    if let Some(host) = (0..w.hosts.len()).find(|h| !rest.contains(h) && is_superseded(w, *h)) {
        let what = format!("{what}: the ledger takes another boot of {} for the present one", w.hosts[host].name);
        w.violate("L1", what);
        return None;
    }
    let waits = (0..w.hosts.len()).find(|h| !rest.contains(h) && w.off_by_regent_for(*h) > bound / 2);
    match waits {
        Some(host) => {
            let what = format!("{what}: regent switched {} off and leaves it off", w.hosts[host].name);
            w.violate("L1/off", what);
        }
        None => w.violate("L1", what),
    }
    None
}

/// Nothing is proposed, asked, run or said any more. Returns after how long it was so.
fn comes_to_rest(w: &mut World, rest: &[usize], healed: u64) -> u64 {
    let from = w.now;
    while w.facts.violation.is_none() {
        let last = w.facts.rest.last(|host| !rest.contains(&host));
        let Some((at, host, what)) = last.filter(|(at, ..)| w.now < at + QUIET) else { break };
        if w.now > from + QUIET_WITHIN {
            let what = format!("{what} of {} at {:.1} s, and no end", w.hosts[host].name, at as f64 / S as f64);
            w.violate("rest", what);
            break;
        }
        w.run_until(w.now + 200 * MS);
    }
    let last = w.facts.rest.last(|host| !rest.contains(&host));
    last.map_or(0, |(at, ..)| at.saturating_sub(healed))
}

/// Regent gives back the power that it took, where that is left to it: what an operator ordered, an operator lifts. A device
/// that refused before everything healed is asked once more after the longest pause.
fn left_off(w: &mut World, rest: &[usize]) {
    if w.log.state().settings.as_ref().is_none_or(|s| s.power_on != regent::config::PowerOn::Auto) {
        return;
    }
    let off = |w: &World| {
        let is_due = |h: &usize| !rest.contains(h) && w.is_off_by_regent(*h) && !w.is_off_by_order(*h);
        (0..w.hosts.len()).find(is_due).filter(|_| w.facts.violation.is_none())
    };
    let until = w.now + w.hosts[0].config.fencing.retry_max.as_nanos() as u64 + 30 * S;
    while off(w).is_some() && w.now < until {
        w.run_until(w.now + 200 * MS);
    }
    if let Some(host) = off(w) {
        let what = format!("regent switched {} off and leaves it off, although all is well", w.hosts[host].name);
        w.violate("L1/off", what);
    }
}
