//! Every scenario, one file a subject.

mod distribution;
mod installing;
mod rebooting;
mod restarting;

use crate::harness::Scenario;

pub fn all() -> Vec<Scenario> {
    let all = installing::SCENARIOS.into_iter().chain(restarting::SCENARIOS);
    all.chain(rebooting::SCENARIOS).chain(distribution::SCENARIOS).collect()
}
