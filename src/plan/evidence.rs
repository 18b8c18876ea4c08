//! Is what a fence rests on still so? A verdict and the word that a holder lapsed are true of the moment in which they
//! were found. An entry of the log may commit minutes later, and under another leader: by then its node may be healthy.
//! So nobody is fenced before the evidence is fresh, by the clock of the leader that orders the fence.
//!
//! Not here: the first round of looking (`coordinator.rs`), and anything about a fence that was begun.

use super::{Input, Note, Plan, coordinator};
use crate::known_bugs::{self, Bug};
use crate::ledger::{Cause, Fence, Order};
use crate::types::{Incarnation, Instant, Round, Term};

/// Whether the first order of this fence may be given; if not, what is done about it is in the plan.
pub fn is_fresh(input: &Input, fence: &Fence, plan: &mut Plan) -> bool {
    let begun = fence.orders.iter().any(Order::was_begun) || fence.refuted > 0 || fence.round > 0;
    if begun || known_bugs::has(Bug::LateVerdictShoots) {
        return true;
    }
    match fence.cause {
        Cause::Order => true,
        Cause::Verdict { term, round } => verdict(input, fence, term, round, plan),
        Cause::Lapse { term } => lapse(input, fence, term, plan),
    }
}

/// This leader looked itself, a moment ago; otherwise everybody looks once more at that incarnation, dead as it is for
/// the ledger.
fn verdict(input: &Input, fence: &Fence, term: Term, round: Round, plan: &mut Plan) -> bool {
    let Some(record) = input.state.nodes.get(&fence.target).filter(|n| n.boot == fence.boot) else { return true };
    let recent = |opened: Instant| input.now.since(opened) <= input.timing.acceptable_pause;
    let look = input.lead.looks.get(&fence.target).filter(|l| l.incarnation == record.incarnation);
    let look = look.filter(|l| recent(l.opened));
    let own = term == input.lead.term && look.is_some_and(|l| l.round == round);
    if own || look.is_some_and(|_| coordinator::suspects_again(input, &fence.target, record.incarnation)) {
        return true;
    }
    if has_rejoined_in_vain(input, fence) {
        return true;
    }
    if input.doubts_itself {
        plan.say(Note::OldVerdictInDoubt { target: fence.target.clone() });
        return false;
    }
    look_once_more(input, fence, record.incarnation, look.map(|l| l.round), plan);
    false
}

fn look_once_more(input: &Input, fence: &Fence, incarnation: Incarnation, open: Option<Round>, plan: &mut Plan) {
    let round = open.unwrap_or(input.lead.last_round.next());
    plan.say(Note::OldVerdict { target: fence.target.clone(), round });
    coordinator::ask_all(input, &fence.target, incarnation, round, plan);
    if let Some(look) = input.lead.looks.get(&fence.target) {
        plan.wake_at(look.opened + input.timing.acceptable_pause);
    }
}

/// A node that lives joins again within a moment, which ends the fence. One that did not for as long as its lease could
/// last holds nothing any more, and nothing else would bring its service back.
fn has_rejoined_in_vain(input: &Input, fence: &Fence) -> bool {
    let Some(settings) = &input.state.settings else { return false };
    let opened = input.applied.fence_opened.get(&fence.id).copied().unwrap_or(input.lead.since);
    input.now >= opened.max(input.lead.since) + settings.lease_wait() + input.timing.grace
}

/// This leader waited itself, and said so a moment ago.
fn lapse(input: &Input, fence: &Fence, term: Term, plan: &mut Plan) -> bool {
    let said = input.lead.lapse_said.get(&fence.target);
    let own = term == input.lead.term && said.is_some_and(|at| input.now.since(*at) <= input.timing.acceptable_pause);
    if own || has_rejoined_in_vain(input, fence) {
        return true;
    }
    let settings = input.state.settings.as_ref();
    let opened = input.applied.fence_opened.get(&fence.id).copied().unwrap_or(input.lead.since);
    plan.say(Note::OldLapse { target: fence.target.clone() });
    if let Some(settings) = settings {
        plan.wake_at(opened.max(input.lead.since) + settings.lease_wait() + input.timing.grace);
    }
    false
}
