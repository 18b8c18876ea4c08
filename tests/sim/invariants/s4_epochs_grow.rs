//! S4: epochs only grow, and what carries an older one has no effect.

use crate::cluster::World;
use regent::ledger::State;
use regent::types::{Epoch, ServiceName};

pub fn appointment(world: &mut World, before: &State, after: &State, service: &ServiceName, epoch: Epoch) {
    let was = before.services.get(service).map_or(Epoch(0), |s| s.epoch);
    let is = after.services.get(service).map_or(Epoch(0), |s| s.epoch);
    if is != epoch || is.0 != was.0 + 1 || epoch <= world.facts.epoch {
        world.violate("S4", format!("epoch {epoch} appointed after {was}, {} was seen before", world.facts.epoch));
    }
    world.facts.epoch = epoch;
}

impl World {
    /// A postmaster was opened for writes under `epoch`.
    pub fn opened(&mut self, host: usize, epoch: Epoch) {
        let service = self.service();
        let current = self.log.state().services.get(&service).map_or(Epoch(0), |s| s.epoch);
        if epoch < current && !self.is_excused(host) {
            self.violate("S4", format!("host {host} opened in epoch {epoch}, the present one is {current}"));
        }
    }
}
