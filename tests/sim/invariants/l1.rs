//! L1: it comes back. Once a majority has healed, every service takes writes within the bound that `regent config
//! check` prints for the last fencing level; a little later every database of it replicates.
//!
//! The bound counts from the moment at which the premises hold (hosts and daemons up, no pause, nothing hangs). One
//! thing comes on top, because the rule itself grants it: a fence whose levels had all failed before is in its back-off.

use crate::cluster::{MS, S, World};
use crate::liveness;
use rand::rngs::StdRng;
use regent::config::timing;
use regent::ledger::FenceState;

/// The bound for this cluster at this moment, in ns.
fn bound(w: &World) -> u64 {
    let config = &w.hosts[0].config;
    let printed = timing::bounds(config).failover_worst.expect("every cluster here has a level");
    let waits = w.log.state().fences.values().any(|f| f.state == FenceState::Open && f.round > 0);
    let back_off = if waits { config.fencing.retry_max } else { std::time::Duration::ZERO };
    (printed + back_off).as_nanos() as u64
}

/// One of the rest has its power and its networks again (an `on` came late): it may be the primary like any other.
fn is_back(w: &World, host: usize) -> bool {
    w.log.leader.is_some_and(|(leader, _)| leader == host || w.net.connects(leader, host))
}

/// The liveness phase. Returns how long it took until every service took writes again.
pub fn comes_back(w: &mut World, rng: &mut StdRng, rest: &[usize]) -> u64 {
    let healed = w.now;
    liveness::heal(w, rng, rest);
    let (mut since, mut back, mut turn) = (None, None, 0);
    loop {
        w.run_until(w.now + 200 * MS);
        if w.facts.violation.is_some() {
            return 0;
        }
        turn += 1;
        liveness::tend(w, rest, turn);
        if !liveness::premises(w, rest) {
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
            break;
        }
        let Some((from, bound)) = since else { continue };
        if back.is_none() && w.now > from + bound {
            w.violate("L1", format!("no writes within the bound of {} s", bound / S));
            return 0;
        }
        if w.now > from + 2 * bound {
            w.violate("L1", format!("not every database replicates within {} s", 2 * bound / S));
            return 0;
        }
    }
    super::client::at_the_end(w, rest);
    back.unwrap_or(0)
}
