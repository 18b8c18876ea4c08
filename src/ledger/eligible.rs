//! Who may hold an epoch, as far as the ledger knows: what it refuses an appointment for, told once, for `appoint.rs` and
//! for whoever plans (`plan/objection.rs` adds what only a leader sees).
//!
//! Not here: whether the epoch before is over (`appoint.rs`).

use super::{Life, Refusal, Service, State};
use crate::config::Role;
use crate::types::{Epoch, NodeName, Position, Seal, ServiceName, SystemId, Timeline};

/// Why a node may not hold an epoch. Its words stand in the ledger's refusals for ever: another sentence is another
/// written form (`format.rs`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ineligible {
    /// No such node is in the settings.
    #[error("it is no node of this cluster")]
    Unknown,
    #[error("it is a witness")]
    Witness,
    #[error("it has not joined")]
    NotJoined,
    #[error("it is declared dead")]
    Dead,
    #[error("its present boot is fenced")]
    Fenced,
    /// H1.11: it could be switched off after its appointment.
    #[error("an `off` against it may still be under way")]
    OffMayLand,
    /// An earlier boot of it may still write: what it says itself is not proven to be of the same machine.
    #[error("an earlier boot of it holds epoch {epoch} of {service}, and is not proven to have ended")]
    EarlierBoot { service: ServiceName, epoch: Epoch },
    /// It never held the epoch, so nobody knows what it has.
    #[error("it gave no sealed report")]
    NoReport,
    #[error("its database is another one (system identifier {system})")]
    OtherDatabase { system: SystemId },
    #[error("its WAL ends at {end} and does not descend from timeline {timeline}")]
    OtherLineage { end: Position, timeline: Timeline },
    #[error("it is the primary already")]
    Primary,
    #[error("it is in maintenance (`regent maintenance --end` ends that)")]
    InMaintenance,
}

impl Ineligible {
    /// The ledger's refusal of a command that names the node.
    pub(super) fn refusal(self, node: &NodeName) -> Refusal {
        match self {
            Ineligible::Unknown => Refusal::UnknownNode { node: node.clone() },
            why => Refusal::NotEligible { node: node.clone(), why: why.to_string() },
        }
    }
}

impl State {
    /// S4 and H1.11: a database node that lives, and against whose present boot no fence acts or may act.
    pub fn may_hold(&self, node: &NodeName) -> Result<(), Ineligible> {
        match self.settings.as_ref().and_then(|settings| settings.nodes.get(node)) {
            None => return Err(Ineligible::Unknown),
            Some(settings) if settings.role == Role::Witness => return Err(Ineligible::Witness),
            Some(_) => {}
        }
        let Some(record) = self.nodes.get(node) else { return Err(Ineligible::NotJoined) };
        if record.life == Life::Dead {
            return Err(Ineligible::Dead);
        }
        if self.is_fenced(node, &record.boot) {
            return Err(Ineligible::Fenced);
        }
        if self.is_in_maintenance(node) {
            return Err(Ineligible::InMaintenance);
        }
        if let Some((service, epoch)) = self.unproven(node) {
            return Err(Ineligible::EarlierBoot { service: service.clone(), epoch });
        }
        if self.off_may_land(node) {
            return Err(Ineligible::OffMayLand);
        }
        Ok(())
    }
}

impl Service {
    /// Lineage comes first: the appointee's WAL descends from the timeline that was installed last, in the same database.
    ///
    /// A timeline that was begun and never installed binds nobody: its node may have died in the first moment, and nobody
    /// could follow it yet. This is the rule of an asynchronous service, and every service is one; in a synchronous one a
    /// begun timeline would have to bind like an installed one, because its node may have acknowledged under the claim
    /// that came with its appointment.
    pub fn may_follow(&self, seal: &Seal) -> Result<(), Ineligible> {
        if self.system.is_some_and(|system| system != seal.system) {
            return Err(Ineligible::OtherDatabase { system: seal.system });
        }
        if self.timeline > Timeline(0) && !seal.history.descends_from(seal.end, self.timeline) {
            return Err(Ineligible::OtherLineage { end: seal.end, timeline: self.timeline });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::world_test::*;
    use super::*;
    use crate::ledger::Command;
    use crate::types::AgentAction;

    #[test]
    fn each_reason_is_told_of_whom_it_is_true() {
        let mut world = World::new();
        let of = |world: &World, name: &str| world.state.may_hold(&node(name));
        assert_eq!(of(&world, "db2"), Ok(()));
        assert_eq!(of(&world, "db9"), Err(Ineligible::Unknown));
        assert_eq!(of(&world, "w1"), Err(Ineligible::Witness));
        let record = world.state.nodes.remove(&node("db2")).expect("it has joined");
        assert_eq!(of(&world, "db2"), Err(Ineligible::NotJoined));
        world.state.nodes.insert(node("db2"), record);
        world.declare_dead();
        assert_eq!(of(&world, "db1"), Err(Ineligible::Dead));
        world.done(order("ipmi", AgentAction::Off, Some(0)));
        // A new boot is under no fence, and the order against the old one may still land.
        world.done(join("db1", 2, &[(1, crate::ledger::ClaimState::Over { position: None })]));
        assert_eq!(of(&world, "db1"), Err(Ineligible::OffMayLand));
    }

    #[test]
    fn a_fence_of_the_present_boot_speaks_against_a_node_that_is_up() {
        let mut world = World::new();
        world.done(open_fence("db2", 1));
        let record = world.state.nodes.get_mut(&node("db2")).expect("it has joined");
        record.life = Life::Up;
        assert_eq!(world.state.may_hold(&node("db2")), Err(Ineligible::Fenced));
        let who = "the operator".to_owned();
        world.done(Command::Lift { fence: FENCE, who, power_on: false });
        assert_eq!(world.state.may_hold(&node("db2")), Ok(()));
    }
}
