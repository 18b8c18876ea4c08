//! The properties, one file each. They compare the modelled world with plain values of the ledger; none calls a rule
//! of the code under test.

mod busy;
mod s1_one_writer;
mod s2_fence_first;
mod s4_epochs_grow;
mod s5_holder_stops;
mod s8_no_false_verdict;

use crate::cluster::World;
use regent::ledger::State;
use regent::types::{Epoch, ServiceName};

pub use s8_no_false_verdict::verdict;

/// After every event.
pub fn check(world: &mut World) {
    s1_one_writer::check(world);
    s5_holder_stops::check(world);
    busy::check(world);
}

/// At every appointment.
pub fn appointment(world: &mut World, before: &State, after: &State, service: &ServiceName, epoch: Epoch) {
    s2_fence_first::appointment(world, before, service);
    s4_epochs_grow::appointment(world, before, after, service, epoch);
}
