//! What the ledger wants of one node for one service: a goal. Total: whatever a coordinator can bring about has a goal
//! for everybody. The keeper reaches it from every state that a database can be in (`docs/keeper.md`).
//!
//! Not here: the steps towards it (`keeper/table.rs`), and the reasons for which a holder gives its epoch up
//! (`keeper/release.rs`).

use super::reason::GiveUp;
use crate::config::Config;
use crate::ledger::{Holder, Life, Phase, Service, State};
use crate::types::{Boot, Epoch, Incarnation, NodeName, ServiceName, Timeline, Upstream};

/// Who this node is.
#[derive(Clone, Copy)]
pub struct Me<'a> {
    pub node: &'a NodeName,
    pub boot: &'a Boot,
    /// `None` before the join.
    pub incarnation: Option<Incarnation>,
}

impl Me<'_> {
    /// Whether this very incarnation holds it.
    pub fn is(&self, holder: &Holder) -> bool {
        &holder.node == self.node && &holder.boot == self.boot && Some(holder.incarnation) == self.incarnation
    }
}

/// What is wanted of one database node for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// No epoch yet: whatever runs is left alone.
    Unmanaged,
    /// Make the database, under epoch 1 or the one after a failed try.
    MakeIt,
    /// Appointed: become the primary. `timeline`: the one that the ledger has heard it will begin.
    TakeOver { timeline: Option<Timeline> },
    /// The primary, and to go on.
    GoOn,
    /// The primary in a pause: to be left as it is.
    GoOnPaused,
    /// The primary, and to stop in order for a switchover.
    HandOver,
    /// The primary, and its node leaves: to stop in order and give the epoch back. Only the node itself knows.
    Leave,
    /// It holds the epoch, and cannot or must not go on: to close the database and give the epoch back. Only the node
    /// itself knows; to the ledger it is to make it, to take over or to go on.
    GiveUp(GiveUp),
    /// It has given the epoch up, durably, and the ledger has to hear it.
    SayReleased,
    /// A standby of the present primary.
    Follow(Upstream),
    /// Nobody to follow: the epoch is over, or its holder is dead or not installed.
    StandBy,
}

/// What the ledger wants of this node, which never writes again under an epoch up to `tombstone`.
pub fn goal(state: &State, config: &Config, service: &ServiceName, me: Me, tombstone: Epoch) -> Goal {
    let Some(s) = state.services.get(service) else { return Goal::Unmanaged };
    match s.holder.as_ref().filter(|_| s.over.is_none()) {
        Some(holder) if me.is(holder) => goal_of_the_holder(s, tombstone),
        // What an earlier incarnation of this node holds is no other node's, and not this one's.
        Some(holder) if &holder.node != me.node && s.phase == Phase::Installed && is_there(state, holder) => {
            upstream(config, service, &holder.node).map_or(Goal::StandBy, Goal::Follow)
        }
        _ => Goal::StandBy,
    }
}

fn goal_of_the_holder(s: &Service, tombstone: Epoch) -> Goal {
    match s.phase {
        _ if s.epoch <= tombstone => Goal::SayReleased,
        _ if s.moving.is_some() => Goal::HandOver,
        Phase::Creating => Goal::MakeIt,
        Phase::Appointed => Goal::TakeOver { timeline: None },
        Phase::Promoting { timeline } => Goal::TakeOver { timeline: Some(timeline) },
        Phase::Installed if s.paused => Goal::GoOnPaused,
        Phase::Installed => Goal::GoOn,
    }
}

/// Whether that incarnation is the present one, and no verdict stands against it.
fn is_there(state: &State, holder: &Holder) -> bool {
    state.present(&holder.node, holder.incarnation).is_some_and(|n| n.life == Life::Up)
}

/// All addresses of a node, primary network first.
pub(super) fn upstream(config: &Config, service: &ServiceName, node: &NodeName) -> Option<Upstream> {
    config.upstream(service, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::world_test::*;

    /// What a ledger wants of a node, in a boot and an incarnation, after this tombstone.
    fn wanted(world: &World, name: &str, on: u32, incarnation: Option<Incarnation>, tombstone: u64) -> Goal {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, name).expect("an example");
        let (node, boot) = (node(name), boot(name, on));
        let me = Me { node: &node, boot: &boot, incarnation };
        goal(&world.state, &config, &orders(), me, Epoch(tombstone))
    }

    #[test]
    fn an_epoch_is_held_by_one_incarnation_on_one_boot_until_its_tombstone() {
        let world = World::new();
        assert_eq!(wanted(&world, "db1", 1, Some(DB1), 0), Goal::GoOn);
        assert_eq!(wanted(&world, "db1", 1, Some(DB1), 1), Goal::SayReleased);
        assert_eq!(wanted(&world, "db1", 2, Some(DB1), 0), Goal::StandBy, "another boot");
        assert_eq!(wanted(&world, "db1", 1, Some(Incarnation(9)), 0), Goal::StandBy, "another incarnation");
        assert_eq!(wanted(&world, "db1", 1, None, 0), Goal::StandBy, "not joined");
    }

    #[test]
    fn only_a_living_installed_primary_is_followed() {
        let follows =
            |world: &World| matches!(wanted(world, "db2", 1, Some(DB2), 0), Goal::Follow(up) if up.node == node("db1"));
        assert!(follows(&World::new()));
        assert_eq!(wanted(&World::fenced(), "db2", 1, Some(DB2), 0), Goal::StandBy, "a verdict stands");
        let mut world = World::fenced();
        world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
        assert_eq!(wanted(&world, "db2", 1, Some(DB2), 0), Goal::TakeOver { timeline: None });
        assert_eq!(wanted(&world, "db1", 2, None, 0), Goal::StandBy, "its holder is not installed");
        world.done(promoting(2, "db2", DB2));
        assert!(matches!(wanted(&world, "db2", 1, Some(DB2), 0), Goal::TakeOver { timeline: Some(_) }));
    }
}
