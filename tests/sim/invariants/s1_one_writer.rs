//! S1: at no moment would two postmasters acknowledge a write.

use crate::cluster::World;

pub fn check(world: &mut World) {
    let mut first = None;
    for host in 0..world.hosts.len() {
        if !world.acknowledges(host) || world.is_excused(host) {
            continue;
        }
        if let Some(other) = first {
            return world.violate("S1", format!("hosts {other} and {host} both acknowledge writes"));
        }
        first = Some(host);
    }
}
