//! Nothing is ordered or proposed again and again without end: a level-triggered plan must come to rest.

use crate::cluster::World;

/// More than this in ten seconds, for each service, is a loop.
const ACTS: usize = 150;
const COMMITS: usize = 400;

pub fn check(w: &mut World) {
    let services = w.services.len();
    if w.facts.acts.len() > ACTS * services {
        w.violate("rest", format!("{} database actions in ten seconds", w.facts.acts.len()));
    } else if w.facts.commits.len() > COMMITS * services {
        w.violate("rest", format!("{} entries in ten seconds", w.facts.commits.len()));
    }
}
