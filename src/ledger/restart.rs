//! A person's orders to restart a node's database in place: a standby stays a standby, and the primary goes on under its own
//! epoch. One after another, and never where the service is not as it should be. An order ends when its node says that it is
//! carried out, and with its epoch: whoever is appointed next is restarted by an order of its own.
//!
//! Not here: how it is carried out (`plan/keeper/ordered.rs`), and which node is next where all are restarted (`cli`).

use super::{Event, Refusal, Service, State};
use crate::types::{Epoch, NodeName, ServiceName};
use serde::{Deserialize, Serialize};

/// A node's database is to be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartOrder {
    /// Counts the orders of the service: the node says which one it has carried out.
    pub number: u64,
    pub who: String,
}

impl Service {
    /// The order that stands for this node, in an epoch that goes on.
    pub fn restart_of(&self, node: &NodeName) -> Option<&RestartOrder> {
        self.to_restart.get(node).filter(|_| self.over.is_none())
    }
}

impl State {
    /// An order, or its end (`cancel`). Whoever asks again for what is ordered already has it.
    pub(super) fn order_restart(
        &mut self,
        (service, epoch): (ServiceName, Epoch),
        node: NodeName,
        who: String,
        cancel: bool,
    ) -> Result<Event, Refusal> {
        let not_allowed = |why: String| Err(Refusal::NotAllowed { why });
        if cancel {
            return match self.in_epoch(&service, epoch)?.to_restart.remove(&node) {
                Some(_) => Ok(Event::Noted),
                None => not_allowed(format!("{node} has no order to be restarted")),
            };
        }
        self.may_hold(&node).map_err(|why| why.refusal(&node))?;
        self.at_epoch(&service, epoch)?;
        self.may_move(&service)?;
        if let Some(fence) = self.fence_of(&self.services[&service]) {
            return not_allowed(format!("{} is being fenced", fence.target));
        }
        let record = self.in_epoch(&service, epoch)?;
        if record.to_copy.contains_key(&node) {
            return not_allowed(format!("{node} is to be copied anew, which starts it in any case"));
        }
        if let Some(other) = record.to_restart.keys().find(|other| **other != node) {
            return not_allowed(format!("{other} is being restarted: one after another"));
        }
        if !record.to_restart.contains_key(&node) {
            record.restart_orders += 1;
            record.to_restart.insert(node, RestartOrder { number: record.restart_orders, who });
        }
        Ok(Event::Noted)
    }

    /// The node has carried out its order.
    pub(super) fn restarted(&mut self, service: &ServiceName, node: &NodeName, order: u64) -> Result<Event, Refusal> {
        let record = self.services.get_mut(service);
        let record = record.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        record.to_restart.retain(|of, due| of != node || due.number != order);
        Ok(Event::Noted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::world_test::*;
    use super::*;

    fn restart(name: &str, cancel: bool) -> Command {
        Command::Restart { service: orders(), epoch: Epoch(1), node: node(name), who: "a person".to_owned(), cancel }
    }

    fn ordered(world: &World, name: &str) -> Option<u64> {
        world.state.services[&orders()].restart_of(&node(name)).map(|order| order.number)
    }

    #[test]
    fn one_after_another_and_an_order_ends_when_its_node_says_so() {
        let mut world = World::new();
        world.done(restart("db2", false));
        world.done(restart("db2", false));
        assert_eq!(ordered(&world, "db2"), Some(1), "it was ordered already");
        assert!(world.refused(restart("db1", false)).to_string().contains("db2 is being restarted"));
        let said = |order| Command::Restarted { service: orders(), node: node("db2"), order };
        world.done(said(7));
        assert_eq!(ordered(&world, "db2"), Some(1), "another order was carried out");
        world.done(said(1));
        assert_eq!(ordered(&world, "db2"), None);
        world.done(restart("db1", false));
        assert_eq!(ordered(&world, "db1"), Some(2), "the primary too");
        world.done(restart("db1", true));
        assert!(world.refused(restart("db1", true)).to_string().contains("no order"));
    }

    #[test]
    fn nothing_is_restarted_where_the_service_is_not_as_it_should_be() {
        let mut world = World::new();
        assert!(matches!(world.refused(restart("w1", false)), Refusal::NotEligible { .. }));
        assert_eq!(world.refused(restart("db9", false)), Refusal::UnknownNode { node: node("db9") });
        world.done(pause());
        assert_eq!(world.refused(restart("db2", false)), Refusal::Paused { service: orders() });
        world.done(resume());
        world.done(Command::Maintenance { node: node("db2"), who: String::new(), lasts: None });
        assert!(world.refused(restart("db2", false)).to_string().contains("maintenance"));
        world.done(Command::EndMaintenance { node: node("db2"), number: None, who: String::new() });
        let moves =
            Command::Switchover { service: orders(), epoch: Epoch(1), to: Some(node("db2")), who: String::new() };
        world.done(moves);
        assert_eq!(world.refused(restart("db2", false)), Refusal::AlreadyMoving { service: orders() });
    }

    #[test]
    fn an_order_ends_with_its_epoch_and_with_the_maintenance_of_its_node() {
        let mut world = World::new();
        world.done(restart("db2", false));
        world.done(Command::Maintenance { node: node("db2"), who: String::new(), lasts: None });
        assert_eq!(ordered(&world, "db2"), None);
        let mut world = World::new();
        world.done(restart("db1", false));
        world.declare_dead();
        assert!(world.refused(restart("db2", false)).to_string().contains("being fenced"));
        let mut world = World::fenced();
        world.state.services.get_mut(&orders()).expect("it exists").to_restart =
            [(node("db2"), RestartOrder { number: 1, who: String::new() })].into();
        world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
        assert_eq!(ordered(&world, "db2"), None);
    }
}
