//! The coordinator's part about an appointee that does not take over: it is alive, and does not hear of its appointment,
//! or cannot say so. Nobody waits for it for ever.
//!
//! Not here: that no grant leaves after the first step, and what each step must find (`ledger/pass_over.rs`); and a holder
//! that was installed and does not renew (`service.rs`).

use super::{Input, Note, Plan};
use crate::known_bugs::{self, Bug};
use crate::ledger::{Command, NoLease, Phase, Service};
use crate::types::{Instant, NodeName, ServiceName};

/// Passes over an appointee that has no lease, where that can be known. `renewed`: the last moment at which it may have been
/// granted one, as far as this leader knows. True where that is done.
pub(super) fn pass_over(
    input: &Input,
    name: &ServiceName,
    service: &Service,
    renewed: Instant,
    plan: &mut Plan,
) -> bool {
    let Some(holder) = service.holder.as_ref().map(|h| &h.node).filter(|_| bars(input, service)) else { return false };
    let Some((no_lease, at)) = surely_none(input, name, service, renewed) else { return false };
    if input.now < at {
        plan.wake_at(at);
        return false;
    }
    let epoch = service.epoch;
    plan.say(Note::PassesOver { service: name.clone(), holder: holder.clone(), epoch, no_lease });
    plan.propose(match service.denied {
        false => Command::DenyLease { service: name.clone(), epoch },
        true => Command::PassOver { service: name.clone(), epoch, term: input.lead.term, no_lease },
    });
    true
}

/// Whether an appointee has not taken over that bars the way of another, who could: where there is none, an epoch more
/// brings nothing.
pub(super) fn bars(input: &Input, service: &Service) -> bool {
    let takes_over = matches!(service.phase, Phase::Appointed | Phase::Promoting { .. });
    let outlook = input.outlook();
    let could =
        |node: &NodeName| input.state.may_hold(node).is_ok() && outlook.is_living(node) && !outlook.is_deaf(node);
    let (holder, settings) = (service.holder.as_ref().map(|h| &h.node), input.state.settings.as_ref());
    // What was begun is gone through with: one that is denied its lease can do nothing, whoever is there by now.
    takes_over
        && (service.denied
            || settings.is_some_and(|s| s.database_nodes().any(|node| Some(node) != holder && could(node))))
}

/// Why it surely has no lease, and from when on that may be used against it.
fn surely_none(input: &Input, name: &ServiceName, service: &Service, renewed: Instant) -> Option<(NoLease, Instant)> {
    let granted = input.lead.granted(name, service.epoch).filter(|_| !known_bugs::has(Bug::PassedOverAfterGrant));
    let own = input.lead.appointed.get(name) == Some(&service.epoch) && service.appointed_in == input.lead.term;
    if own && granted.is_none() && service.phase == Phase::Appointed {
        let began = input.applied.epoch.get(name).copied().unwrap_or(input.lead.since);
        return Some((NoLease::NeverGranted, began + input.timing.answer()));
    }
    let wait = input.state.settings.as_ref().filter(|_| input.state.pass_over_objection(name).is_none())?.lease_wait();
    Some((NoLease::Waited, renewed + wait))
}
