//! Every scenario, one file a subject.

mod installing;
mod restarting;

use crate::harness::Scenario;

pub fn all() -> Vec<Scenario> {
    installing::SCENARIOS.into_iter().chain(restarting::SCENARIOS).collect()
}
