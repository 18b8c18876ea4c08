//! Every scenario, by name. `world_*` test the lab itself and need no regent.

mod world_database;
mod world_faults;

use crate::harness::Scenario;

/// All of them, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(world_faults::SCENARIOS);
    all.extend(world_database::SCENARIOS);
    all
}
