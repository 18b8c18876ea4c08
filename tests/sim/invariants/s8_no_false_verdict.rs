//! S3 and S8: nobody is declared dead who was not silent, or cut off on two channels from a majority, a moment ago.

use crate::cluster::{S, World};

/// The longest time that a verdict may come after its reason.
const MEMORY: u64 = 6 * S;

pub fn verdict(world: &mut World, host: usize) {
    let impaired = world.facts.impaired_at[host];
    if world.now > impaired + MEMORY {
        let name = world.hosts[host].name.clone();
        world.violate(
            "S8",
            format!("{name} is declared dead, and nothing justified that for {} s", (world.now - impaired) / S),
        );
    }
}
