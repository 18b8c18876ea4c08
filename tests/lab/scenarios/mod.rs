//! Every scenario, by name. `world_*` test the lab itself and need no regent; the others are numbered as in the list of
//! what regent must survive.

mod broken;
mod by_hand;
mod copies;
mod creation;
mod cuts;
mod deaf;
mod files;
mod fitness;
mod freezes;
mod full;
mod identity;
mod large;
mod leaves;
mod local;
mod losses;
mod members;
mod monitoring;
mod networks;
mod no_primary;
mod nobody_else;
mod pages;
mod pauses;
mod power;
mod private;
mod recoveries;
mod reports;
mod restarted;
mod restarts;
mod returns;
mod stale;
mod standbys;
mod switchovers;
mod troubles;
mod unguarded;
mod volumes;
mod world_database;
mod world_devices;
mod world_faults;
mod world_pace;
mod world_plans;
mod world_ready;

use crate::harness::Scenario;

/// All of them, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(world_faults::SCENARIOS);
    all.extend(world_devices::SCENARIOS);
    all.extend(world_database::SCENARIOS);
    all.extend(world_plans::SCENARIOS);
    all.extend(world_pace::SCENARIOS);
    all.extend(world_ready::SCENARIOS);
    all.extend(pauses::SCENARIOS);
    all.extend(power::SCENARIOS);
    all.extend(creation::SCENARIOS);
    all.extend(cuts::SCENARIOS);
    all.extend(deaf::SCENARIOS);
    all.extend(files::SCENARIOS);
    all.extend(fitness::SCENARIOS);
    all.extend(freezes::SCENARIOS);
    all.extend(members::SCENARIOS);
    all.extend(full::SCENARIOS);
    all.extend(local::SCENARIOS);
    all.extend(copies::SCENARIOS);
    all.extend(losses::SCENARIOS);
    all.extend(monitoring::SCENARIOS);
    all.extend(networks::SCENARIOS);
    all.extend(nobody_else::SCENARIOS);
    all.extend(recoveries::SCENARIOS);
    all.extend(reports::SCENARIOS);
    all.extend(restarts::SCENARIOS);
    all.extend(restarted::SCENARIOS);
    all.extend(returns::SCENARIOS);
    all.extend(stale::SCENARIOS);
    all.extend(standbys::SCENARIOS);
    all.extend(unguarded::SCENARIOS);
    all.extend(switchovers::SCENARIOS);
    all.extend(troubles::SCENARIOS);
    all.extend(identity::SCENARIOS);
    all.extend(private::SCENARIOS);
    all.extend(volumes::SCENARIOS);
    all.extend(pages::SCENARIOS);
    all.extend(by_hand::SCENARIOS);
    all.extend(no_primary::SCENARIOS);
    all.extend(large::SCENARIOS);
    all.extend(leaves::SCENARIOS);
    all.extend(broken::SCENARIOS);
    all
}
