//! S2: when an appointment commits, the holder of the epoch before cannot write any more, now or later.

use crate::cluster::World;
use regent::ledger::State;
use regent::types::ServiceName;

pub fn appointment(world: &mut World, before: &State, service: &ServiceName) {
    let Some(holder) = before.services.get(service).and_then(|s| s.holder.as_ref()) else { return };
    let host = world.host(&holder.node);
    let same_boot = world.hosts[host].boot() == holder.boot;
    if same_boot && world.could_acknowledge_later(host) && !world.is_excused(host) {
        world.violate("S2", format!("an appointment while {} could still write", holder.node));
    }
}
