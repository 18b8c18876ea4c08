//! Nothing is ordered or proposed again and again without end: a level-triggered plan must come to rest. Counted is what
//! a leader's daemon proposes: what operators order, and what a fault proposes once more, is not regent's.

use crate::cluster::World;

/// More than this in ten seconds, for each service, is a loop.
const ACTS: usize = 150;
const PROPOSALS: usize = 400;

pub fn check(w: &mut World) {
    let services = w.services.len();
    if w.facts.acts.len() > ACTS * services {
        w.violate("rest", format!("{} database actions in ten seconds", w.facts.acts.len()));
    } else if w.facts.proposals.len() > PROPOSALS * services {
        w.violate("rest", format!("{} proposals in ten seconds", w.facts.proposals.len()));
    }
}
