//! S4: epochs only grow, and what carries an older epoch or incarnation has no effect.

use crate::cluster::World;
use regent::ledger::{Answer, Command, Event, FenceReason, State};
use regent::node::Effect;
use regent::types::{DbAction, Epoch, ServiceName, Term};

pub fn appointment(w: &mut World, before: &State, after: &State, service: &ServiceName, epoch: Epoch) {
    let was = before.services.get(service).map_or(Epoch(0), |s| s.epoch);
    let is = after.services.get(service).map_or(Epoch(0), |s| s.epoch);
    let s = w.index(service);
    let seen = w.facts.services[s].epoch;
    if is != epoch || is.0 != was.0 + 1 || epoch <= seen {
        w.violate("S4", format!("epoch {epoch} appointed after {was}, {seen} was seen before"));
    }
    w.facts.services[s].epoch = epoch;
}

/// No accepted command is based on what is not the present any more.
pub fn committed(w: &mut World, before: &State, command: &Command, answer: &Answer, term: Term) {
    let Answer::Done(event) = answer else { return };
    let epoch_of = |service| before.services.get(service).map(|s| s.epoch);
    let stale = match (command, event) {
        (Command::Release { service, epoch, .. }, _)
        | (Command::Promoting { service, epoch, .. }, _)
        | (Command::Installed { service, epoch, .. }, _)
        | (Command::Switchover { service, epoch, .. }, _)
        | (Command::Reinit { service, epoch, .. }, _)
        | (Command::Restart { service, epoch, .. }, _)
        | (Command::AcceptCopy { service, epoch, .. }, _)
        | (Command::Rejoined { service, epoch, .. }, _) => epoch_of(service) != Some(*epoch),
        (Command::Appoint { service, prior, .. }, _) => epoch_of(service) != Some(*prior),
        (Command::DeclareDead { target, incarnation, .. }, Event::Declared { .. }) => {
            before.nodes.get(target).map(|n| n.incarnation) != Some(*incarnation)
        }
        (Command::OpenFence { reason: FenceReason::Lapsed { term: waited, .. }, .. }, _) => *waited != term,
        _ => false,
    };
    if stale {
        w.violate("S4", format!("{} had an effect, and what it is based on is over", command.name()));
    }
}

/// No daemon opens a database under another epoch than the one that its own copy of the ledger has.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    let Effect::Db { service, action: DbAction::Promote { epoch, .. } | DbAction::StartPrimary { epoch, .. } } = effect
    else {
        return;
    };
    let own = w.hosts[host].state.services.get(service).map(|s| s.epoch);
    if own != Some(*epoch) {
        w.violate("S4", format!("{} opens under epoch {epoch}, its ledger says {own:?}", w.hosts[host].name));
    }
}

/// A postmaster was opened for writes under `epoch`.
pub fn opened(w: &mut World, host: usize, service: usize, epoch: Epoch) {
    let name = w.services[service].clone();
    let current = w.log.state().services.get(&name).map_or(Epoch(0), |s| s.epoch);
    if epoch < current && !w.is_excused(host, service) {
        let what = format!("{} opened in epoch {epoch}, the present one is {current}", w.hosts[host].name);
        w.violate("S4", what);
    }
}
