//! The coordinator: the next steps of the whole cluster, decided on the Raft leader. It may crash at any line: all
//! that a new leader needs is in the ledger.

use super::note::TransferReason;
use super::{Input, Note, Plan, Question, Step, failures, fencing, maintenance, old_boot, service};
use crate::config::Role;
use crate::known_bugs::{self, Bug};
use crate::ledger::{Command, FenceState, Life, Phase, Settings, Sighting};
use crate::types::{Incarnation, Leaving, NodeName, Round};
use std::collections::{BTreeMap, BTreeSet};

/// What to do now.
pub fn coordinate(input: &Input) -> Plan {
    let mut plan = Plan::default();
    if input.state.settings.is_none() {
        plan.say(Note::Seeding);
        plan.propose(Command::Seed { settings: Box::new(Settings::seed(input.config)) });
        return plan;
    }
    verdicts(input, &mut plan);
    old_boot::say_twins(input, &mut plan);
    for fence in input.state.fences.values().filter(|f| f.is_open()) {
        fencing::advance(input, fence, &mut plan);
    }
    for name in input.config.services.keys() {
        service::advance(input, name, &mut plan);
    }
    maintenance::end(input, &mut plan);
    failures::forgive(input, &mut plan);
    if plan.steps.is_empty() || input.outlook().leaving(input.me).is_some() {
        leadership(input, &mut plan);
    }
    plan
}

/// S3: when a majority of all voters suspects a node, everybody looks again; when they still do, it is declared dead.
fn verdicts(input: &Input, plan: &mut Plan) {
    for (target, record) in &input.state.nodes {
        if record.life == Life::Dead || target == input.me || was_stopped_in_a_pause(input, target, record.incarnation)
        {
            continue;
        }
        let suspecting = suspecting(input, target, record.incarnation);
        if !input.state.is_majority(suspecting.iter()) {
            if !suspecting.is_empty() {
                plan.say(Note::Suspected { target: target.clone(), by: suspecting });
            }
            continue;
        }
        if input.doubts_itself {
            plan.say(Note::JudgesNobody { target: target.clone() });
            continue;
        }
        look_again(input, target, record.incarnation, plan);
    }
}

/// It said that its daemon stops, in a pause in which its database goes on: it is back to go on with that. The pause holds
/// every fence back, and a verdict would only keep it from joining.
fn was_stopped_in_a_pause(input: &Input, target: &NodeName, incarnation: Incarnation) -> bool {
    let row = input.rows.get(target).filter(|row| row.incarnation == incarnation);
    let stopped = row.is_some_and(|row| row.health.leaving == Some(Leaving::DaemonStops));
    let held = input.state.services.values().filter(|s| s.over.is_none());
    let held = held.filter(|s| s.holder.as_ref().is_some_and(|h| &h.node == target));
    stopped && held.clone().next().is_some() && held.clone().all(|s| s.paused)
}

fn suspecting(input: &Input, target: &NodeName, incarnation: Incarnation) -> Vec<NodeName> {
    let channels = input.state.settings.as_ref().map_or(usize::MAX, |s| s.channels.len());
    input
        .state
        .nodes
        .keys()
        .filter(|voter| *voter != target)
        .filter(|voter| {
            input
                .fresh(voter)
                .and_then(|row| row.views.get(target))
                .is_some_and(|view| view.incarnation == incarnation && view.suspects(channels))
        })
        .cloned()
        .collect()
}

fn look_again(input: &Input, target: &NodeName, incarnation: Incarnation, plan: &mut Plan) {
    if known_bugs::has(Bug::OldViewsCount) {
        return plan.propose(from_rows(input, target, incarnation));
    }
    let open = input.lead.looks.get(target).filter(|l| l.incarnation == incarnation);
    // A round that took longer than a pause that we accept of others proves nothing (F17).
    let open = open.filter(|l| input.now.since(l.opened) <= input.timing.acceptable_pause);
    let round = open.map_or(input.lead.last_round.next(), |l| l.round);
    plan.say(Note::LooksAgain { target: target.clone(), round });
    if let Some(look) = open {
        if suspects_again(input, target, incarnation) {
            plan.propose(Command::DeclareDead {
                target: target.clone(),
                incarnation,
                term: input.lead.term,
                round,
                hearing: hearing(input, target, incarnation, &look.answers),
                answers: look.answers.clone(),
            });
            return;
        }
        plan.wake_at(look.opened + input.timing.acceptable_pause);
    }
    ask_all(input, target, incarnation, round, plan);
}

/// Who hears this incarnation, as it says in its heartbeats, and has not answered: it has to look again before anything
/// rests on the fence.
fn hearing(
    input: &Input,
    target: &NodeName,
    incarnation: Incarnation,
    answers: &BTreeMap<NodeName, Sighting>,
) -> BTreeSet<NodeName> {
    let hears = |voter: &&NodeName| {
        let view = input.fresh(voter).and_then(|row| row.views.get(target));
        view.is_some_and(|view| view.incarnation == incarnation && view.is_heard())
    };
    let silent = input.state.nodes.keys().filter(|voter| *voter != target && !answers.contains_key(*voter));
    silent.filter(hears).cloned().collect()
}

/// Whether a majority of all voters suspects this incarnation in the round that is open for it.
pub(super) fn suspects_again(input: &Input, target: &NodeName, incarnation: Incarnation) -> bool {
    let channels = input.state.settings.as_ref().map_or(usize::MAX, |s| s.channels.len());
    let look = input.lead.looks.get(target).filter(|l| l.incarnation == incarnation);
    let again = look.into_iter().flat_map(|l| &l.answers);
    let again = again.filter(|(_, s)| s.view.incarnation == incarnation && s.view.suspects(channels));
    input.state.is_majority(again.map(|(voter, _)| voter))
}

/// What only a bug does: the verdict from what stands in the rows.
fn from_rows(input: &Input, target: &NodeName, incarnation: Incarnation) -> Command {
    let said = |(voter, row): (&NodeName, &super::Row)| {
        let view = row.views.get(target).filter(|_| voter != target)?.clone();
        Some((voter.clone(), Sighting { view, silent_ms: Default::default() }))
    };
    let answers = input.rows.iter().filter_map(said).collect();
    let round = input.lead.last_round.next();
    let hearing = BTreeSet::new();
    Command::DeclareDead { target: target.clone(), incarnation, term: input.lead.term, round, answers, hearing }
}

pub(super) fn ask_all(input: &Input, target: &NodeName, incarnation: Incarnation, round: Round, plan: &mut Plan) {
    let answered = |voter: &NodeName| {
        input.lead.looks.get(target).is_some_and(|l| l.round == round && l.answers.contains_key(voter))
    };
    for voter in input.state.nodes.keys().filter(|v| *v != target && input.state.is_voter(v)) {
        if !answered(voter) && input.is_living(voter) {
            let question = Question::Look { target: target.clone(), incarnation, term: input.lead.term, round };
            plan.ask(voter, question);
        }
    }
}

/// The leader stays off the primary's host, and off a slow disk, where it can.
fn leadership(input: &Input, plan: &mut Plan) {
    let holds = input
        .state
        .services
        .values()
        .any(|s| s.over.is_none() && s.holder.as_ref().is_some_and(|h| &h.node == input.me));
    let slow = |node: &NodeName| input.fresh(node).is_some_and(|r| r.health.log_write > input.timing.slow_write);
    let leaves = |node: &NodeName| input.outlook().leaving(node).is_some();
    let why = if leaves(input.me) {
        TransferReason::Leaves
    } else if slow(input.me) {
        TransferReason::SlowLog
    } else if holds {
        TransferReason::HoldsPrimary
    } else {
        return;
    };
    // Never in the middle of a move: what is under way ends where it began.
    let moving =
        input.state.services.values().any(|s| s.over.is_some() || s.phase != Phase::Installed || s.moving.is_some());
    let fences = input.state.fences.values().any(|f| f.state == FenceState::Open);
    let settled = !moving && !fences && input.now.since(input.lead.since) > input.timing.acceptable_pause;
    let recent = input.lead.last_transfer.is_some_and(|at| input.now.since(at) < input.timing.transfer);
    // One that leaves is gone soon: whoever leads then ends it.
    if (!settled && why != TransferReason::Leaves) || recent {
        return;
    }
    let role = |node: &NodeName| input.state.settings.as_ref().and_then(|s| s.nodes.get(node)).map(|n| n.role);
    let hosts_primary =
        |node: &NodeName| input.state.services.values().any(|s| s.holder.as_ref().is_some_and(|h| &h.node == node));
    let best = input
        .state
        .nodes
        .keys()
        .filter(|n| *n != input.me && input.state.is_voter(n) && input.is_living(n) && !hosts_primary(n))
        .filter(|n| !slow(n) && !leaves(n) && input.fresh(n).is_some_and(|r| !r.health.self_doubt))
        .max_by_key(|n| (role(n) == Some(Role::Witness), std::cmp::Reverse((*n).clone())));
    if let Some(to) = best {
        plan.say(Note::HandsLeadership { from: input.me.clone(), to: to.clone(), why });
        plan.steps.push(Step::Transfer { to: to.clone(), why });
    }
}
