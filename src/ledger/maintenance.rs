//! A node in maintenance, by a person's word: it holds no epoch, its database is started, restarted and copied by nobody,
//! and it is not counted on.
//!
//! Not here: whether the cluster can do without it (`plan/maintenance.rs`), and when a time is over (the leader says so).

use super::{Event, Refusal, State};
use crate::types::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Each word has its own, so that the end of one does not end the next.
    pub number: u64,
    pub who: String,
    /// It ends by itself after that; `None`: when a person says so.
    pub lasts: Option<Duration>,
}

impl State {
    /// Whether the node is in maintenance.
    pub fn is_in_maintenance(&self, node: &NodeName) -> bool {
        self.maintenance.contains_key(node)
    }

    /// It begins, or is given another time. The holder of an epoch, the last one too, is moved away first.
    pub(super) fn begin_maintenance(
        &mut self,
        node: NodeName,
        who: String,
        lasts: Option<Duration>,
    ) -> Result<Event, Refusal> {
        if !self.set().nodes.contains_key(&node) {
            return Err(Refusal::UnknownNode { node });
        }
        let holds = self.services.iter().find(|(_, s)| s.holder.as_ref().is_some_and(|h| h.node == node));
        if let Some((service, record)) = holds {
            let epoch = record.epoch;
            let why = format!(
                "{node} holds epoch {epoch} of {service}, or did last: move it away first, with `regent switchover`"
            );
            return Err(Refusal::NotAllowed { why });
        }
        self.services.values_mut().for_each(|service| drop(service.to_restart.remove(&node)));
        self.maintenances += 1;
        let word = Maintenance { number: self.maintenances, who, lasts };
        self.maintenance.insert(node, word);
        Ok(Event::Noted)
    }

    /// It ends. `number`: only that very word does; without one, whichever stands.
    pub(super) fn end_maintenance(&mut self, node: NodeName, number: Option<u64>) -> Result<Event, Refusal> {
        let word = self.maintenance.get(&node);
        if word.is_none_or(|word| number.is_some_and(|number| number != word.number)) {
            return Err(Refusal::NotAllowed { why: format!("{node} is not in maintenance") });
        }
        self.maintenance.remove(&node);
        Ok(Event::Noted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::world_test::*;
    use super::super::{Command, Ineligible};
    use super::*;

    fn begins(name: &str) -> Command {
        Command::Maintenance { node: node(name), who: "a person".to_owned(), lasts: None }
    }

    fn ends(name: &str, number: Option<u64>) -> Command {
        Command::EndMaintenance { node: node(name), number, who: "a person".to_owned() }
    }

    #[test]
    fn a_node_in_maintenance_may_hold_no_epoch_until_it_ends() {
        let mut world = World::new();
        world.done(begins("db2"));
        assert_eq!(world.state.may_hold(&node("db2")), Err(Ineligible::InMaintenance));
        world.done(begins("db2"));
        assert!(matches!(world.refused(ends("db2", Some(1))), Refusal::NotAllowed { .. }));
        assert!(world.state.is_in_maintenance(&node("db2")), "an earlier word ended it");
        world.done(ends("db2", Some(2)));
        assert_eq!(world.state.may_hold(&node("db2")), Ok(()));
        assert!(matches!(world.refused(ends("db2", None)), Refusal::NotAllowed { .. }));
    }

    #[test]
    fn the_primary_is_moved_away_first_and_a_stranger_is_no_node() {
        let mut world = World::new();
        assert!(world.refused(begins("db1")).to_string().contains("move it away first"));
        assert_eq!(world.refused(begins("db9")), Refusal::UnknownNode { node: node("db9") });
        world.done(begins("w1"));
    }

    /// Nobody forgets a word because its node boots.
    #[test]
    fn it_outlives_a_boot_of_its_node() {
        let mut world = World::new();
        world.done(begins("db2"));
        world.done(join("db2", 2, &[]));
        assert!(world.state.is_in_maintenance(&node("db2")));
    }
}
