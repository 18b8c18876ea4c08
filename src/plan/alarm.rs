//! What needs a person now: the same on every node, because it comes from the ledger and from what the leader says in
//! its heartbeats.
//!
//! Not here: what a node finds in its own way for its own host (`Failing`), and the judgement whether a failover would
//! succeed.

use super::note::{Note, Passing};
use super::{Plan, Row};
use crate::ledger::{Fence, FenceState, State};
use crate::types::Alarm;
use std::collections::BTreeSet;

/// Every alarm, fences first. `leader`: what the present leader said last, if there is one.
pub fn alarms(state: &State, leader: Option<&Row>) -> Vec<Note> {
    let fences = state.fences.values().filter_map(|fence| of_a_fence(state, fence));
    let said = leader.into_iter().flat_map(|row| &row.health.alarms).filter_map(|alarm| still_so(state, alarm));
    fences.chain(said).collect()
}

/// What the leader's heartbeats carry of its plan: what no other node can find in the ledger.
pub fn carried(plan: &Plan) -> BTreeSet<Alarm> {
    let carried = plan.notes.iter().filter_map(|note| match note {
        Note::Lapsed { service, epoch, .. } => Some(Alarm::Lapsed { service: service.clone(), epoch: *epoch }),
        Note::NoCandidate { service } => Some(Alarm::NoCandidate { service: service.clone() }),
        Note::Left { service, .. } => Some(Alarm::Left { service: service.clone() }),
        Note::TwoMachines { node, boot, other } => {
            Some(Alarm::TwoMachines { node: node.clone(), boot: boot.clone(), other: other.clone() })
        }
        _ => None,
    });
    carried.collect()
}

/// It cannot be fenced, or not yet, and nothing is appointed meanwhile.
fn of_a_fence(state: &State, fence: &Fence) -> Option<Note> {
    let settings = state.settings.as_ref().filter(|_| fence.state == FenceState::Open)?;
    let (target, incident, round) = (fence.target.clone(), fence.incident, fence.round);
    if settings.levels.is_empty() {
        return Some(Note::NoLevel { target, incident });
    }
    // A refutation begins a round too, in which nothing has failed yet.
    let first = fence.all_levels_from.unwrap_or(0);
    (round > first).then_some(Note::LevelsExhausted { target, incident, round, wait: Passing(None) })
}

/// The leader's word may be older than this copy of the ledger.
fn still_so(state: &State, alarm: &Alarm) -> Option<Note> {
    match alarm {
        Alarm::Lapsed { service: name, epoch } => {
            let service = state.services.get(name).filter(|s| s.epoch == *epoch && s.over.is_none())?;
            let holder = service.holder.as_ref().filter(|_| state.fence_of(service).is_none())?.node.clone();
            Some(Note::Lapsed { service: name.clone(), holder, epoch: *epoch, silent: Passing(None) })
        }
        Alarm::NoCandidate { service: name } => {
            let service = state.services.get(name)?;
            let vacant = service.over.is_some() || state.fence_of(service).is_some();
            vacant.then(|| Note::NoCandidate { service: name.clone() })
        }
        Alarm::Left { service: name } => {
            let service = state.services.get(name)?;
            let end = service.over.as_ref().filter(|over| over.is_leave())?.position();
            let node = service.holder.as_ref()?.node.clone();
            Some(Note::Left { service: name.clone(), node, end })
        }
        Alarm::TwoMachines { node, boot, other } => {
            state.nodes.get(node).filter(|record| record.boot == *boot)?;
            Some(Note::TwoMachines { node: node.clone(), boot: boot.clone(), other: other.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::world_test::*;
    use crate::types::{AgentAction, AgentOutcome, Epoch, Health, Instant, Severity};
    use std::sync::Arc;

    fn says(alarms: BTreeSet<Alarm>) -> Row {
        let health = Arc::new(Health { alarms, ..Health::default() });
        Row { at: Instant(0), incarnation: DB1, views: Arc::default(), health }
    }

    fn texts(state: &State, leader: Option<&Row>) -> Vec<String> {
        let all = alarms(state, leader);
        assert!(all.iter().all(|note| note.severity() == Severity::Error), "an alarm needs a person: {all:?}");
        all.iter().map(ToString::to_string).collect()
    }

    /// The leader knows from its own book that the holder lapsed; every other node from the leader's heartbeat.
    #[test]
    fn what_the_leader_alone_knows_every_node_shows() {
        let world = World::new();
        let silent = Passing(Some(std::time::Duration::from_secs(40)));
        let note = Note::Lapsed { service: orders(), holder: node("db1"), epoch: Epoch(1), silent };
        let leader = says(carried(&Plan { notes: vec![note], ..Plan::default() }));
        let lapsed = "LAPSED: db1 holds epoch 1 of orders, is not dead, and has not renewed";
        assert_eq!(texts(&world.state, Some(&leader)), [lapsed]);
        assert!(texts(&world.state, None).is_empty(), "without a leader nobody counts renewals");
        // What the leader said of an epoch that is over by now.
        let mut world = World::new();
        world.done(release(1, 1, DB1));
        assert!(texts(&world.state, Some(&leader)).is_empty());
    }

    #[test]
    fn two_machines_under_one_name_are_told_by_every_node_until_one_of_them_is_the_node() {
        let alarm = Alarm::TwoMachines { node: node("db2"), boot: boot("db2", 1), other: boot("db2", 2) };
        let leader = says([alarm].into());
        let mut world = World::new();
        let both = "two machines use the name db2: boot db2-boot-1 sends heartbeats, and boot db2-boot-2 wants to join; \
                    stop one of them";
        assert_eq!(texts(&world.state, Some(&leader)), [both]);
        world.done(join("db2", 2, &[]));
        assert!(texts(&world.state, Some(&leader)).is_empty());
    }

    #[test]
    fn a_fence_whose_levels_all_failed_is_an_alarm_on_every_node_until_it_is_confirmed() {
        let mut world = World::with(machine("db1"), |settings| settings.levels.truncate(1));
        world.declare_dead();
        assert!(texts(&world.state, None).is_empty(), "it is being tried");
        world.done(order("ipmi", AgentAction::Off, Some(0)));
        world.done(ended(0, AgentOutcome::TimedOut));
        world.done(next_level(0));
        let texts = texts(&world.state, None);
        let [alarm] = &texts[..] else { panic!("{texts:?}") };
        assert!(alarm.starts_with("every fencing level of db1 failed; trying again in round 2."), "{alarm}");
        assert!(alarm.ends_with("regent fence confirm db1 --incident 1"), "{alarm}");
    }

    #[test]
    fn nobody_eligible_is_an_alarm_while_nobody_serves() {
        let leader = says([Alarm::NoCandidate { service: orders() }].into());
        assert!(texts(&World::new().state, Some(&leader)).is_empty(), "there is a primary by now");
        let texts = texts(&World::fenced().state, Some(&leader));
        let [alarm] = &texts[..] else { panic!("{texts:?}") };
        assert!(alarm.starts_with("orders has no eligible candidate: "), "{alarm}");
    }
}
