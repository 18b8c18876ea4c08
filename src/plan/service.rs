//! The coordinator's part about one service: seeing that its epoch is over, choosing and appointing.
//!
//! Not here: the first epoch, for which the database is made (`creation.rs`).

use super::accepted_copy::{self, Unacceptable};
use super::candidate::{self, Choice};
use super::known_end::{KnownEnd, known_end};
use super::note::{Missing, Passing};
use super::objection::would_lose;
use super::strike::{Strike, strike};
use super::{
    Checked, Input, Note, Plan, Purpose, Question, appointee, creation, giving_back, objection, old_boot, pause,
    stands_aside,
};
use crate::known_bugs::{self, Bug};
use crate::ledger::{
    AcceptedCopy, Basis, CheckAnswer, Command, Fence, FenceReason, FenceState, Life, Over, Phase, Service, Shared,
};
use crate::types::{DbState, Failing, Instant, NodeName, Position, Seal, ServiceName, Sight};
use std::collections::BTreeMap;
use std::time::Duration;

/// The rest of an appointee after its second failure, doubled with each up to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(20);

/// The pause between two entries that say how far a primary has written.
const KEEP_END: Duration = Duration::from_secs(10);

/// The next step of one service.
pub fn advance(input: &Input, name: &ServiceName, plan: &mut Plan) {
    let Some(service) = input.state.services.get(name) else { return creation::first(input, name, plan) };
    if service.paused {
        return pause::goes_on(input, name, service, plan);
    }
    if service.over.is_none() && service.claimed.is_some() {
        old_boot::wait(input, name, service, plan);
    }
    match (&service.over, input.state.fence_of(service)) {
        (Some(over), _) => after_the_end(input, name, service, over, plan),
        (None, Some(fence)) => fenced(input, name, service, fence, plan),
        (None, None) if service.claimed.is_some() => {}
        (None, None) => holding(input, name, service, plan),
    }
}

/// The epoch goes on. Watch for a final word that the holder could not bring to the ledger itself, and for a lapse.
fn holding(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let Some(holder) = &service.holder else { return };
    let row = input.rows.get(&holder.node).filter(|r| r.incarnation == holder.incarnation);
    let said = row.and_then(|r| r.health.services.get(name)).and_then(|h| h.released.as_ref());
    if let Some(released) = said.filter(|r| r.epoch == service.epoch) {
        return plan.propose(Command::Release {
            service: name.clone(),
            epoch: service.epoch,
            node: holder.node.clone(),
            boot: holder.boot.clone(),
            incarnation: holder.incarnation,
            position: released.position,
            lapsed: released.lapsed,
            leaving: released.leaving,
            why: match released.why.as_str() {
                "" => "said in its heartbeats".to_owned(),
                why => why.to_owned(),
            },
        });
    }
    if service.unproven_resume.is_some() && input.lead.granted(name, service.epoch).is_some() {
        plan.say(Note::AwaitsRenewal { service: name.clone(), holder: holder.node.clone() });
    }
    lapsed(input, name, service, plan);
    if let Some(copy) = service.awaited_copy().filter(|_| service.moving.is_none() && service.phase == Phase::Installed)
    {
        return give_way(input, name, service, copy, plan);
    }
    match service.phase {
        Phase::Installed => keep_known_end(input, name, service, plan),
        phase => {
            let (service, holder, epoch) = (name.clone(), holder.node.clone(), service.epoch);
            plan.say(Note::AwaitsInstallation { service, holder, epoch, phase });
        }
    }
}

/// A copy was accepted in a pause, which has ended: the primary is stopped in order for it, once it can take over.
fn give_way(input: &Input, name: &ServiceName, service: &Service, copy: &AcceptedCopy, plan: &mut Plan) {
    match accepted_copy::decide(&input.outlook(), name, &copy.node) {
        Ok(_) => plan.propose(Command::Switchover {
            service: name.clone(),
            epoch: service.epoch,
            to: Some(copy.node.clone()),
            who: copy.who.clone(),
        }),
        Err(why) => {
            for Unacceptable { node, why } in why {
                plan.say(Note::NotEligible { service: name.clone(), node, why });
            }
            plan.say(Note::AwaitsAcceptedCopy { service: name.clone(), node: copy.node.clone() });
        }
    }
}

/// What is known of the primary's WAL goes to the ledger from time to time, for those who start when it is gone.
fn keep_known_end(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let Some(KnownEnd { end, .. }) = known_end(&input.outlook(), name) else { return };
    let kept = service.known_end.or(service.history.last().map(|last| last.start));
    if kept.is_some_and(|kept| end <= kept) || end.timeline != service.timeline {
        return;
    }
    let last = input.applied.progress.get(name).or_else(|| input.applied.epoch.get(name));
    let due = last.copied().unwrap_or(input.lead.since) + KEEP_END;
    match input.now < due {
        true => plan.wake_at(due),
        false => plan.propose(Command::Progress { service: name.clone(), epoch: service.epoch, end }),
    }
}

/// A holder that is not dead and does not renew.
fn lapsed(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let (Some(holder), Some(settings)) = (&service.holder, &input.state.settings) else { return };
    let last = old_boot::last_lease(input, name, service);
    if appointee::pass_over(input, name, service, last, plan) {
        return;
    }
    let limit = last + settings.lease_wait() + input.timing.grace;
    if input.now < limit {
        return plan.wake_at(limit);
    }
    let silent = Passing(Some(input.now.since(last)));
    let epoch = service.epoch;
    plan.say(Note::Lapsed { service: name.clone(), holder: holder.node.clone(), epoch, silent });
    let dead = input.state.nodes.get(&holder.node).is_some_and(|n| n.life == Life::Dead);
    // A holder that has closed its database and cannot make its final word durable asks for the fence itself.
    let mute = input.fresh(&holder.node).is_some_and(|row| row.health.failing.contains(&Failing::FinalWord));
    // Of one that never took over there is nothing that a person could decide.
    let bars = appointee::bars(input, service);
    let fences = settings.on_lapsed == crate::config::OnLapsed::Fence || mute || bars;
    if fences && !dead && !input.doubts_itself {
        plan.propose(Command::OpenFence {
            target: holder.node.clone(),
            boot: holder.boot.clone(),
            reason: FenceReason::Lapsed { service: name.clone(), epoch: service.epoch, term: input.lead.term },
        });
    }
}

/// Asks every living database node but the holder's for its sealed end of WAL, and that too where its copy was accepted.
fn ask_seals(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let (Some(settings), Some(holder)) = (&input.state.settings, &service.holder) else { return };
    let answers = input.lead.seals.get(&(name.clone(), service.epoch));
    let is_asked = |node: &&NodeName| **node != holder.node && is_candidate(input, name, node);
    for node in settings.database_nodes().filter(|node| is_asked(node) || service.accepts_copy_of(node)) {
        let sealed = answers.and_then(|a| a.get(node)).is_some_and(Result::is_ok);
        if !sealed && input.is_living(node) {
            plan.ask(node, Question::Seal { service: name.clone(), epoch: service.epoch });
        }
    }
}

/// Whether it is asked and waited for at all.
fn is_candidate(input: &Input, name: &ServiceName, node: &NodeName) -> bool {
    !stands_aside(input.state, input.config, name, node) && input.outlook().leaving(node).is_none()
}

fn seals<'a>(
    input: &'a Input,
    name: &ServiceName,
    service: &Service,
) -> Option<&'a BTreeMap<NodeName, Result<Seal, String>>> {
    input.lead.seals.get(&(name.clone(), service.epoch))
}

/// Whether every living candidate has answered, or the wait for the others is over.
fn is_complete(input: &Input, name: &ServiceName, service: &Service, since: Instant, plan: &mut Plan) -> bool {
    let Some(settings) = &input.state.settings else { return false };
    let answers = seals(input, name, service);
    let holder = service.holder.as_ref().map(|h| &h.node);
    let has_answered = |node: &NodeName| match answers.and_then(|a| a.get(node)) {
        Some(Ok(_)) => true,
        Some(Err(_)) => !is_on_its_way(input, name, node),
        None => false,
    };
    let missing =
        settings.database_nodes().filter(|n| Some(*n) != holder && input.is_living(n) && is_candidate(input, name, n));
    let Some(missing) = missing.into_iter().find(|node| !has_answered(node)) else { return true };
    let limit = since + input.timing.choose;
    if input.now >= limit {
        return true;
    }
    plan.wake_at(limit);
    plan.say(Note::AwaitsSeal { service: name.clone(), node: missing.clone() });
    false
}

/// What a database says on its way up or down is no answer.
fn is_on_its_way(input: &Input, name: &ServiceName, node: &NodeName) -> bool {
    let state = input.outlook().database(node, name).map(|database| database.state);
    matches!(state, Some(DbState::Starting | DbState::Stopping | DbState::Unclear))
}

/// Whether a former holder's own heartbeats say by now that its database is not open any more.
fn has_ended(input: &Input, name: &ServiceName, node: &NodeName) -> bool {
    let open = input.outlook().database(node, name).is_some_and(|database| database.state == DbState::Primary);
    !open && !is_on_its_way(input, name, node)
}

fn fenced(input: &Input, name: &ServiceName, service: &Service, fence: &Fence, plan: &mut Plan) {
    // Of a host without power nothing more is received: the reports are here by the time that it is known to be off. Of
    // any other what it still acknowledges is, and that its database feeds a standby is a sign of life, which the check
    // looks for first.
    let powerless = input.state.takes_power(fence);
    if powerless {
        ask_seals(input, name, service, plan);
    }
    let hasty = known_bugs::has(Bug::PromoteBeforeFence);
    if fence.state != FenceState::Confirmed && !hasty {
        return plan.say(Note::AwaitsFence { service: name.clone(), target: fence.target.clone() });
    }
    let mut checks = input.lead.checks.get(&(fence.id, fence.refuted)).cloned().unwrap_or_default();
    for (voter, checked) in silent_by_heartbeats(input, fence) {
        checks.entry(voter).or_insert(checked);
    }
    if checks.values().any(|c| c.answer != CheckAnswer::Holds) {
        return plan.say(Note::FenceIsRefuted { fence: fence.id });
    }
    let all = |checks: &BTreeMap<NodeName, Checked>| -> BTreeMap<NodeName, CheckAnswer> {
        checks.iter().map(|(node, checked)| (node.clone(), checked.answer.clone())).collect()
    };
    if let Some(missing) = unchecked(input, fence, &all(&checks)).filter(|_| !hasty) {
        if let Some(looks) = settled(input, fence).map(|at| at + input.timing.recent).filter(|at| *at > input.now) {
            plan.wake_at(looks);
        }
        return plan.say(Note::Checking { fence: fence.id, target: fence.target.clone(), missing });
    }
    match strike(input, fence) {
        Strike::Nobody => {}
        Strike::Struck(_) => return plan.say(Note::FenceIsRefuted { fence: fence.id }),
        Strike::Awaits(node, limit) => {
            plan.wake_at(limit);
            let missing = Missing::Unheard(node);
            return plan.say(Note::Checking { fence: fence.id, target: fence.target.clone(), missing });
        }
    }
    if !powerless {
        ask_seals(input, name, service, plan);
    }
    let since = input.applied.fence_confirmed.get(&fence.id).copied().unwrap_or(input.lead.since);
    if !is_complete(input, name, service, since, plan) {
        return;
    }
    let reports = seals(input, name, service);
    let mut choice = reports.map(|s| candidate::choose(input, (name, service), s, None)).unwrap_or_default();
    if choice.best.is_none()
        && let Some(replaced) = replaced(input, name, service, fence)
    {
        choice.best = replaced.best;
        choice.refused.extend(replaced.refused);
    }
    // What was heard while there was no candidate yet says nothing of now.
    let recent = |checked: &Checked| input.now.since(checked.at) <= input.timing.acceptable_pause;
    let (recent, old): (BTreeMap<_, _>, BTreeMap<_, _>) = checks.into_iter().partition(|(_, c)| recent(c));
    if choice.best.is_some()
        && !hasty
        && let Some(missing) = unchecked(input, fence, &all(&recent))
    {
        for voter in old.keys().filter(|voter| input.is_living(voter)) {
            plan.ask(voter, Question::Check { fence: fence.id, refuted: fence.refuted, term: input.lead.term });
        }
        return plan.say(Note::ChecksAgain { fence: fence.id, target: fence.target.clone(), missing });
    }
    let basis = Basis::Fenced { fence: fence.id, term: input.lead.term, checks: all(&recent) };
    appoint(input, name, service, basis, choice, plan);
}

/// Another machine that joined under the fenced node's name. Whatever it has is not what the holder wrote last, which the
/// appointment names as lost: it comes after everybody else.
fn replaced(input: &Input, name: &ServiceName, service: &Service, fence: &Fence) -> Option<Choice> {
    let record = input.state.nodes.get(&fence.target);
    // A copy that was accepted is asked where it ends.
    record.filter(|record| record.boot != fence.boot && !service.accepts_copy_of(&fence.target))?;
    // What it has is what it says: it never held the epoch.
    let has = input.outlook().database(&fence.target, name)?.position;
    if let Some(why) = would_lose(&input.outlook(), name, &fence.target, has) {
        return Some(Choice { best: None, refused: BTreeMap::from([(fence.target.clone(), why)]) });
    }
    resume_choice(input, name, service, "its machine was replaced, and nobody else can take over")
}

/// From when on heartbeats tell whether the fenced boot fell silent, where silence is what confirms.
fn settled(input: &Input, fence: &Fence) -> Option<Instant> {
    let confirmed = input.applied.fence_confirmed.get(&fence.id)?;
    let demands = fence.confirmed.as_ref().is_some_and(|c| c.demands_silence());
    demands.then(|| *confirmed + input.timing.detection + input.timing.recent)
}

/// What voters say in their heartbeats that cannot be asked, long enough after the confirmation: the boot is silent on
/// every channel, and none of them is blind.
fn silent_by_heartbeats<'a>(input: &'a Input, fence: &'a Fence) -> impl Iterator<Item = (NodeName, Checked)> + 'a {
    let settled = settled(input, fence);
    fence.heard_by.keys().filter_map(move |voter| {
        let row = input.fresh(voter).filter(|row| settled.is_some_and(|settled| row.at > settled))?;
        let view = row.views.get(&fence.target).filter(|view| view.boot == fence.boot)?;
        let silent = view.channels.values().all(|sight| *sight == Sight::Lost) && !row.health.self_doubt;
        silent.then(|| (voter.clone(), Checked { answer: CheckAnswer::Holds, at: row.at }))
    })
}

/// Who is still missing for the check; mirrors nothing of the ledger's rule but its words: the ledger decides.
fn unchecked(input: &Input, fence: &Fence, checks: &BTreeMap<NodeName, CheckAnswer>) -> Option<Missing> {
    if let Some((node, _)) = fence.heard_by.iter().find(|(node, incarnation)| {
        input.state.present(node, **incarnation).is_some_and(|n| n.life == Life::Up) && !checks.contains_key(*node)
    }) {
        return Some(Missing::Heard(node.clone()));
    }
    (!input.state.is_majority(checks.keys())).then_some(Missing::Majority)
}

/// The epoch is over without a fence: the holder released it, or never took over.
fn after_the_end(input: &Input, name: &ServiceName, service: &Service, over: &Over, plan: &mut Plan) {
    let position = over.position();
    // A planned stop that did not end in order leaves no final position; the primary alone surely has all that it wrote.
    let cut_short = service.moving.is_some() && position.is_none();
    let goes_on =
        matches!(over, Over::Released { at_join: true, .. } | Over::Released { lapsed: true, .. }) || cut_short;
    let since = input.applied.over.get(name).copied().unwrap_or(input.lead.since);
    if creation::again(input, name, service, since, plan) {
        return;
    }
    if let Some(copy) = service.awaited_copy() {
        return accepted(input, name, service, (&copy.node, since), plan);
    }
    if over.is_leave() && service.phase == Phase::Installed {
        return left(input, name, service, (position, since), plan);
    }
    // The node that held the epoch has everything: after a restart of its host, or of the network that kept it from
    // renewing its lease, or a planned stop that did not end in order, it goes on, before anybody is asked to lose
    // something. Where it failed to take over once, not again before the others.
    let failed = service.holder.as_ref().and_then(|h| service.failed.get(&h.node)).copied().unwrap_or(0);
    let back = service.holder.as_ref().map(|h| &h.node).filter(|_| goes_on && failed <= 1);
    if let Some(choice) =
        back.and_then(|_| resume_choice(input, name, service, "it held the last epoch and has all of its WAL"))
    {
        return appoint(input, name, service, Basis::Released, choice, plan);
    }
    ask_seals(input, name, service, plan);
    if let Some((node, limit)) = back.and_then(|n| Some((n, awaited(input, name, n, (since, cut_short))?))) {
        plan.wake_at(limit);
        return plan.say(Note::AwaitsHolder { service: name.clone(), node: node.clone() });
    }
    if service.phase != Phase::Installed {
        return given_back(input, name, service, since, plan);
    }
    let planned = service.moving.as_ref();
    let limit = since + planned.map_or(input.timing.reach, |_| input.timing.catch_up);
    // The order names a target for a primary that stops in order: whoever reaches its final position loses nothing. One
    // that died on the way left no such position, and then most WAL counts.
    let target = planned.and_then(|m| m.to.as_ref()).filter(|_| position.is_some());
    let none = BTreeMap::new();
    let all = seals(input, name, service).unwrap_or(&none);
    let mut wanted: BTreeMap<_, _> = all.clone();
    if let Some(target) = target {
        wanted.retain(|node, _| node == target);
    }
    let choice = candidate::choose(input, (name, service), &wanted, position);
    let complete =
        if target.is_some() { choice.best.is_some() } else { is_complete(input, name, service, since, plan) };
    if choice.best.is_some() && complete {
        return appoint(input, name, service, Basis::Released, choice, plan);
    }
    if input.now < limit {
        plan.wake_at(limit);
        say_refused(name, &choice, plan);
        return plan.say(Note::AwaitsCandidate { service: name.clone() });
    }
    if let Some(choice) = resume_choice(input, name, service, "no candidate reached the final position in time") {
        return appoint(input, name, service, Basis::Released, choice, plan);
    }
    // Nobody has it all, and the node that has is not there: the best of the rest, rather than nobody (asynchronous).
    let mut choice = candidate::choose(input, (name, service), all, None);
    if let (Some(end), Some((_, why))) = (position, &mut choice.best) {
        why.push_str(&format!("; nobody has reached the final position {end}: what lies after its own end is lost"));
    }
    appoint(input, name, service, Basis::Released, choice, plan);
}

/// The holder left in order, and is no loss: who has reached its final position takes over, else it does itself once it is
/// back. Whoever lacks something waits for a person's word, however little it is.
fn left(
    input: &Input,
    name: &ServiceName,
    service: &Service,
    (end, since): (Option<Position>, Instant),
    plan: &mut Plan,
) {
    ask_seals(input, name, service, plan);
    if !is_complete(input, name, service, since, plan) {
        return;
    }
    let none = BTreeMap::new();
    let all = seals(input, name, service).unwrap_or(&none);
    let choose = |at_least| candidate::choose(input, (name, service), all, at_least);
    let mut choice = end.map(|end| choose(Some(end))).unwrap_or_default();
    if choice.best.is_none() {
        let back = resume_choice(input, name, service, "it left in order, is back, and has all of its WAL");
        let word = || service.accepted_loss.is_some().then(|| choose(None)).filter(|choice| choice.best.is_some());
        match back.or_else(word) {
            Some(other) => choice = other,
            None => {
                let node = service.holder.as_ref().map(|holder| holder.node.clone());
                plan.notes.extend(node.map(|node| Note::Left { service: name.clone(), node, end }));
            }
        }
    }
    appoint(input, name, service, Basis::Released, choice, plan);
}

/// A person let the copy on one node win: it is waited for, and nobody else is appointed while that word stands.
fn accepted(
    input: &Input,
    name: &ServiceName,
    service: &Service,
    (node, since): (&NodeName, Instant),
    plan: &mut Plan,
) {
    ask_seals(input, name, service, plan);
    let reports = seals(input, name, service);
    let choice = reports.map(|all| candidate::choose(input, (name, service), all, None)).unwrap_or_default();
    if choice.best.is_none() {
        say_refused(name, &choice, plan);
        plan.say(Note::AwaitsAcceptedCopy { service: name.clone(), node: node.clone() });
        return end_in_time(input, name, service, since, plan);
    }
    give_again(input, name, service, (choice, since), plan);
}

/// The primary that stopped for the copy is alive and complete: where the copy comes to nothing in time, that one goes on.
fn end_in_time(input: &Input, name: &ServiceName, service: &Service, since: Instant, plan: &mut Plan) {
    let limit = since + input.timing.catch_up;
    if service.moving.is_none() {
        return;
    }
    if input.now < limit {
        return plan.wake_at(limit);
    }
    let (service, epoch, who) = (name.clone(), service.epoch, "it did not get ready in time".to_owned());
    plan.propose(Command::AcceptCopy { service, epoch, node: None, bytes: None, who });
}

/// Until when it is worth a wait for the former holder to say how it is: its join commits before its first heartbeat is
/// heard; and after a network that failed for all there is a leader before the others have heard anybody for long enough.
/// `cut_short`: in a planned move, which loses nothing that a node could still bring that is not declared dead.
fn awaited(input: &Input, name: &ServiceName, node: &NodeName, (since, cut_short): (Instant, bool)) -> Option<Instant> {
    let is_up = input.state.nodes.get(node).is_some_and(|n| n.life == Life::Up);
    let state = input.outlook().database(node, name).map(|database| database.state);
    let is_gone = matches!(state, Some(DbState::Absent | DbState::Unstartable));
    let limit = match input.fresh(node) {
        _ if cut_short && is_up && !is_gone => since + input.timing.catch_up,
        None if input.is_living(node) => since + input.timing.choose,
        // What it said last is of before its final word.
        Some(_) if input.is_living(node) && !has_ended(input, name, node) => since + input.timing.choose,
        Some(_) if input.outlook().is_deaf(node) => input.lead.since + input.timing.recent * 2,
        _ => return None,
    };
    (input.now < limit).then_some(limit)
}

/// An appointee could not take over. Nobody's WAL grows before somebody does, so there is nothing to wait for but the
/// reports; the appointee itself is tried again when nobody else can be.
fn given_back(input: &Input, name: &ServiceName, service: &Service, since: Instant, plan: &mut Plan) {
    if !is_complete(input, name, service, since, plan) {
        return;
    }
    let mut choice =
        seals(input, name, service).map(|s| candidate::choose(input, (name, service), s, None)).unwrap_or_default();
    if choice.best.is_none()
        && let Some(node) = service.holder.as_ref().map(|holder| &holder.node)
    {
        match objection(&input.outlook(), node, Purpose::Resume { name }) {
            None => choice.best = Some((node.clone(), "it could not take over, and nobody else can".to_owned())),
            Some(why) => drop(choice.refused.insert(node.clone(), why)),
        }
    }
    give_again(input, name, service, (choice, since), plan);
}

/// After an epoch that nobody took over: a node that gave back rests first.
fn give_again(
    input: &Input,
    name: &ServiceName,
    service: &Service,
    (choice, since): (Choice, Instant),
    plan: &mut Plan,
) {
    if let Some((node, _)) = &choice.best
        && rests(input, (name, service), node, since, plan)
    {
        return;
    }
    let basis = if service.over == Some(Over::PassedOver) { Basis::PassedOver } else { Basis::Released };
    appoint(input, name, service, basis, choice, plan);
}

/// Whether a node that gave back, and would be next, rests still.
pub(super) fn rests(
    input: &Input,
    (name, service): (&ServiceName, &Service),
    node: &NodeName,
    since: Instant,
    plan: &mut Plan,
) -> bool {
    let failed = service.failed.get(node).copied().unwrap_or(0);
    let at = since + rest_after(failed);
    let rests = input.now < at;
    if rests {
        plan.wake_at(at);
        let (service, node, wait) = (name.clone(), node.clone(), Passing(at.since(input.now)));
        plan.say(Note::RestsBeforeAnother { service, node, failed, wait });
    }
    rests
}

/// Before a node is appointed again that has given back so many appointments since somebody could take over: each costs an
/// epoch, the number of a timeline and lines in the incident. A reason that its heartbeats tell keeps it from being a
/// candidate at all while it lasts.
fn rest_after(failed: u32) -> Duration {
    match failed {
        0 | 1 => Duration::ZERO,
        _ => (FIRST_REST * 2u32.pow((failed - 2).min(16))).min(LONGEST_REST),
    }
}

/// The previous holder's node itself, where it lives and its database is startable.
fn resume_choice(input: &Input, name: &ServiceName, service: &Service, why: &str) -> Option<Choice> {
    let node = &service.holder.as_ref()?.node;
    objection(&input.outlook(), node, Purpose::Resume { name })
        .is_none()
        .then(|| Choice { best: Some((node.clone(), why.to_owned())), refused: BTreeMap::new() })
}

fn say_refused(name: &ServiceName, choice: &Choice, plan: &mut Plan) {
    for (node, why) in &choice.refused {
        plan.say(Note::NotEligible { service: name.clone(), node: node.clone(), why: why.clone() });
    }
}

fn appoint(input: &Input, name: &ServiceName, service: &Service, basis: Basis, choice: Choice, plan: &mut Plan) {
    say_refused(name, &choice, plan);
    let Some((node, why)) = choice.best else {
        // Who held it before may have what nobody else has.
        let now = input.state.fence_of(service).map(|fence| fence.id);
        let held = |f: &&Shared<Fence>| f.epochs.contains_key(name) && (f.used || Some(f.id) == now);
        input.state.fences.values().filter(held).for_each(|fence| giving_back::without_candidate(input, fence, plan));
        return plan.say(Note::NoCandidate { service: name.clone() });
    };
    let Some(record) = input.state.nodes.get(&node) else { return };
    let reports = seals(input, name, service).into_iter().flatten();
    let seals = reports.filter_map(|(node, r)| Some((node.clone(), r.clone().ok()?))).collect();
    plan.say(Note::Appointing { service: name.clone(), node: node.clone(), why: why.clone() });
    plan.propose(Command::Appoint {
        service: name.clone(),
        prior: service.epoch,
        node: node.clone(),
        boot: record.boot.clone(),
        incarnation: record.incarnation,
        basis,
        seals,
        why,
    });
}
