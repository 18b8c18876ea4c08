//! Nothing is ordered or proposed again and again without end: a level-triggered plan must come to rest.

use crate::cluster::World;

/// More than this in ten seconds is a loop.
const ACTS: usize = 150;
const COMMITS: usize = 400;

pub fn check(world: &mut World) {
    if world.facts.acts.len() > ACTS {
        world.violate("rest", format!("{} database actions in ten seconds", world.facts.acts.len()));
    } else if world.facts.commits.len() > COMMITS {
        world.violate("rest", format!("{} entries in ten seconds", world.facts.commits.len()));
    }
}
