//! The coordinator's part about one fence: levels in order and voter by voter, then all levels at once in rounds without
//! end; the check; lifting.

use super::giving_back::{is_power_given_back, lift, power_on};
use super::note::Passing;
use super::strike::{Strike, strike};
use super::{Input, Note, Outlook, Plan, Question, evidence};
use crate::config::Drift;
use crate::ledger::{
    CheckAnswer, Command, Confirmation, Fence, FenceState, IncidentKind, Life, NewOrder, Order, OrderState, Phase,
    Refusal, Service,
};
use crate::types::{
    AgentAction, AgentKind, AgentName, AgentOutcome, AgentRun, ChannelName, DbState, Epoch, Instant, NodeName,
    ServiceHealth, ServiceName, Sight,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long it may take until an agent is gone once its time is over, and until its executor has said so.
const REPORTING: Duration = Duration::from_secs(1);

/// The longest pause between two rounds while a service waits for the fence.
const SHORT: Duration = Duration::from_secs(1);

/// The next step of one fence.
pub fn advance(input: &Input, fence: &Fence, plan: &mut Plan) {
    expire_orders(input, fence, plan);
    match fence.state {
        FenceState::Open => try_level(input, fence, plan),
        FenceState::Confirmed => watch(input, fence, plan),
        FenceState::Void => {
            if !fence.has_running(AgentAction::Off) {
                let who = "its node is back or its epochs are over".to_owned();
                // What an order began before the fence became void may have switched off a host that came back.
                plan.propose(Command::Lift { fence: fence.id, who, power_on: is_power_given_back(input) });
            }
        }
        FenceState::Lifting => lift(input, fence, plan),
        FenceState::Closed => {}
    }
}

/// An order whose executor does not say how it ended ends by time, on this leader's clock: agents die with their deadline,
/// also where the daemon that started them is dead by then.
fn expire_orders(input: &Input, fence: &Fence, plan: &mut Plan) {
    for order in fence.orders.iter().filter(|o| o.is_running() && !o.agent.is_lease()) {
        let timeout = input.state.agent_timeout(&order.agent);
        let ordered = input.applied.ordered.get(&(fence.id, order.number)).copied().unwrap_or(input.lead.since);
        // Its agent acted, if at all, in time that counted from before it was proposed, on a clock that may be slower.
        let drift = input.state.settings.as_ref().map_or(Drift(0), |s| s.drift());
        let limit = ordered + drift.lengthened(timeout) + REPORTING;
        if input.now >= limit {
            let output = format!("{} did not report in time", order.executor);
            let run = AgentRun { outcome: AgentOutcome::TimedOut, tries: 1, took: timeout, output };
            plan.propose(Command::OrderDone { fence: fence.id, order: order.number, run });
        } else {
            plan.wake_at(limit);
        }
    }
}

fn try_level(input: &Input, fence: &Fence, plan: &mut Plan) {
    let Some(settings) = &input.state.settings else { return };
    let paused = fence.epochs.keys().find(|s| input.state.services.get(*s).is_some_and(|s| s.paused));
    let on_order = input.state.incidents.get(&fence.incident).is_some_and(|i| i.kind == IncidentKind::Fencing);
    if let (Some(service), false) = (paused, on_order) {
        return plan.say(Note::FencePaused { target: fence.target.clone(), service: service.clone() });
    }
    let Some(level) = settings.levels.get(fence.level as usize) else {
        return plan.say(Note::NoLevel { target: fence.target.clone(), incident: fence.incident });
    };
    if has_come_back(input, fence) {
        let who = "it was refuted, its epochs were followed by others, and its node has joined again, with its databases \
                   closed";
        // What an earlier round began may have switched it off behind a device that did not say so.
        let power_on = is_power_given_back(input);
        return plan.propose(Command::Lift { fence: fence.id, who: who.to_owned(), power_on });
    }
    if let Some(at) = retry_at(input, fence)
        && input.now < at
    {
        plan.wake_at(at);
        return plan.say(exhausted(fence, Some(at.since(input.now))));
    }
    if fence.round > fence.all_levels_from.unwrap_or(0) {
        plan.say(exhausted(fence, None));
    }
    if fence.has_running(AgentAction::On) {
        return plan.say(Note::AwaitsOn { target: fence.target.clone() });
    }
    if !evidence::is_fresh(input, fence, plan) {
        return;
    }
    if fence.tries_every_level() {
        return try_every_level(input, fence, &settings.levels, plan);
    }
    if let Some(why) = work_on_level(input, fence, fence.level, level, plan) {
        give_level_up(input, fence, why, plan);
    }
}

/// Every level has failed, and is tried again now, or after so long.
fn exhausted(fence: &Fence, wait: Option<Duration>) -> Note {
    let (target, incident, round) = (fence.target.clone(), fence.incident, fence.round);
    Note::LevelsExhausted { target, incident, round, wait: Passing(wait) }
}

/// Orders what of a level is to be ordered, and waits for it; says why when it has ended and did not confirm.
fn work_on_level(input: &Input, fence: &Fence, number: u32, level: &[AgentName], plan: &mut Plan) -> Option<String> {
    if let Some(node) = fence.struck.get(&number) {
        return Some(format!("it is not believed: {node} fell silent when it said that {} is off", fence.target));
    }
    let ended = ordered(fence, number);
    let missing: Vec<_> = level.iter().filter(|a| !ended.contains_key(a)).collect();
    if missing.iter().any(|a| a.is_lease())
        && let Some(why) = input.state.lease_objection(fence)
    {
        return Some(format!("lease proves nothing: {why}"));
    }
    let due = match missing.is_empty() {
        true => for_the_next_voter(input, fence, number, &ended),
        false => missing,
    };
    if !due.is_empty() {
        order_level(input, fence, number, &due, plan);
        return None;
    }
    follow_level(input, fence, &ended, plan)
}

/// The agents of a level that failed on one voter, and so soon that another has its turn in the same round: one of them
/// may reach the device, and what a level may take stays bounded however many voters there are.
fn for_the_next_voter<'a>(
    input: &Input,
    fence: &Fence,
    level: u32,
    ended: &BTreeMap<&'a AgentName, &Order>,
) -> Vec<&'a AgentName> {
    let soon = |agent: &AgentName| {
        let runs = fence.orders.iter().filter(|o| is_of(o, fence, level) && o.agent == *agent);
        runs.map(took).sum::<Duration>() < input.state.agent_timeout(agent) / 2
    };
    let failed = ended.iter().filter(|(agent, order)| !agent.is_lease() && has_failed(order) && soon(agent));
    failed.filter(|(agent, _)| executor(input, fence, level, agent).is_some()).map(|(agent, _)| *agent).collect()
}

/// What was ordered last of each agent of a level in the present round.
fn ordered(fence: &Fence, level: u32) -> BTreeMap<&AgentName, &Order> {
    fence.orders.iter().filter(|o| is_of(o, fence, level)).map(|o| (&o.agent, o)).collect()
}

/// Whether it is an order of that level in the present round, and was begun.
fn is_of(order: &Order, fence: &Fence, level: u32) -> bool {
    (order.level, order.round, order.action) == (Some(level), fence.round, AgentAction::Off) && order.was_begun()
}

/// No level waits for another: each has failed before, and any device may be the first that works again. Or the fence was
/// refuted although an appointment rests on it (S9), and two nodes may write now; the new primary stays.
fn try_every_level(input: &Input, fence: &Fence, levels: &[Vec<AgentName>], plan: &mut Plan) {
    let mut given_up = Vec::new();
    for (number, level) in (0u32..).zip(levels) {
        given_up.extend(work_on_level(input, fence, number, level, plan));
    }
    if given_up.len() == levels.len() {
        give_level_up(input, fence, given_up.join("; "), plan);
    }
}

/// When the next round may begin; `None` in the first two, which follow each other at once, and once something of this
/// round was ordered. At once where a monitor found a device of the node that answers again.
fn retry_at(input: &Input, fence: &Fence) -> Option<Instant> {
    let fresh = fence.all_levels_from == Some(fence.round);
    if fence.round <= 1 || fence.level != 0 || fresh || fence.orders.iter().any(|o| o.round == fence.round) {
        return None;
    }
    let since = input.applied.fence_level.get(&fence.id).copied().unwrap_or(input.lead.since);
    let last = fence.orders.iter().filter(|o| o.round + 1 == fence.round).map(took).max();
    let at = since + pause(input, fence, fence.round - 1, last.unwrap_or_default());
    (!input.monitored.is_good_since(&fence.target, since)).then_some(at)
}

fn give_level_up(input: &Input, fence: &Fence, why: String, plan: &mut Plan) {
    plan.say(Note::LevelGivenUp { target: fence.target.clone(), level: fence.level, why: why.clone() });
    plan.propose(Command::NextLevel {
        fence: fence.id,
        term: input.lead.term,
        level: fence.level,
        round: fence.round,
        why,
    });
}

fn order_level(input: &Input, fence: &Fence, level: u32, missing: &[&AgentName], plan: &mut Plan) {
    let new = |level: Option<u32>, agent: &AgentName| {
        let executor = match (agent.is_lease(), level) {
            (true, _) => Some(input.me.clone()),
            (_, Some(level)) => executor(input, fence, level, agent),
            _ => voter(input, fence, fence.round as usize),
        };
        executor.map(|executor| NewOrder { agent: agent.clone(), action: AgentAction::Off, executor })
    };
    let orders: Option<Vec<_>> = missing.iter().map(|a| new(Some(level), a)).collect();
    let Some(orders) = orders else {
        return plan.say(Note::NoExecutor { target: fence.target.clone() });
    };
    let agents = orders.iter().map(|o| o.agent.clone()).collect();
    plan.say(Note::Fencing { target: fence.target.clone(), agents, level });
    let order =
        |level, orders| Command::Order { fence: fence.id, term: input.lead.term, level, round: fence.round, orders };
    plan.propose(order(Some(level), orders));
    let Some(settings) = &input.state.settings else { return };
    let assist: Vec<_> = settings
        .assist
        .iter()
        .filter(|a| settings.agents.get(*a).is_some_and(|s| !s.everywhere))
        .filter(|a| !fence.orders.iter().any(|o| &o.agent == *a && o.level.is_none() && o.was_begun()))
        .filter_map(|a| new(None, a))
        .collect();
    if !assist.is_empty() && level == 0 && fence.round == 0 {
        plan.propose(order(None, assist));
    }
}

/// Who runs an agent of a level: the first in turn that has not failed with it in this round.
fn executor(input: &Input, fence: &Fence, level: u32, agent: &AgentName) -> Option<NodeName> {
    let has_tried = |voter: &NodeName| {
        fence.orders.iter().any(|o| is_of(o, fence, level) && o.agent == *agent && o.executor == *voter)
    };
    in_turn(input, fence, fence.round as usize).into_iter().find(|voter| !has_tried(voter))
}

pub(super) fn voter(input: &Input, fence: &Fence, turn: usize) -> Option<NodeName> {
    in_turn(input, fence, turn).into_iter().next()
}

/// The living voters that may run an agent: the leader itself first, and each first in its turn. One of them may reach the
/// device.
fn in_turn(input: &Input, fence: &Fence, turn: usize) -> Vec<NodeName> {
    let mut voters: Vec<_> =
        input.state.nodes.keys().filter(|n| **n != fence.target && input.is_living(n)).cloned().collect();
    voters.sort_by_key(|n| n != input.me);
    let turn = turn % voters.len().max(1);
    voters.rotate_left(turn);
    voters
}

/// Waits for a level; says why when it has ended and did not confirm.
fn follow_level(input: &Input, fence: &Fence, ended: &BTreeMap<&AgentName, &Order>, plan: &mut Plan) -> Option<String> {
    let settings = input.state.settings.as_ref()?;
    for order in ended.values() {
        match &order.state {
            OrderState::Running if order.agent.is_lease() => {
                let since = input.applied.fence_opened.get(&fence.id).copied().unwrap_or(input.lead.since);
                let at = since + settings.lease_wait();
                if input.now < at {
                    plan.wake_at(at);
                    let left = Passing(at.since(input.now));
                    plan.say(Note::AwaitsLeaseEnd { target: fence.target.clone(), left });
                    continue;
                }
                let objection = input.state.lease_objection(fence);
                let outcome = if objection.is_none() { AgentOutcome::Succeeded } else { AgentOutcome::NotRun };
                let output = objection.unwrap_or_else(|| {
                    format!(
                        "{} ms have passed since this leader applied the verdict",
                        settings.lease_wait().as_millis()
                    )
                });
                let run = AgentRun { outcome, tries: 1, took: input.now.since(since), output };
                plan.propose(Command::OrderDone { fence: fence.id, order: order.number, run });
            }
            OrderState::Running => {
                let (agent, executor) = (order.agent.clone(), order.executor.clone());
                plan.say(Note::AwaitsAgent { target: fence.target.clone(), agent, executor });
            }
            OrderState::Done { .. } => {}
        }
    }
    let failed: Vec<_> = ended
        .values()
        .filter_map(|o| match &o.state {
            OrderState::Done { run } if run.outcome != AgentOutcome::Succeeded => Some(o.agent.as_str()),
            _ => None,
        })
        .collect();
    if ended.values().any(|o| o.is_running()) {
        return None;
    }
    // What succeeded has confirmed the fence when it ended; unless its word did not count then, because a person's stood,
    // which was refuted since, or power was being given back. It is not known to hold.
    Some(match failed.is_empty() {
        true => format!("{} ended while its word did not count", names(ended.keys())),
        false => format!("{} did not confirm", failed.join(" and ")),
    })
}

fn names<'a>(agents: impl Iterator<Item = &'a &'a AgentName>) -> String {
    agents.map(|agent| agent.as_str()).collect::<Vec<_>>().join(" and ")
}

/// A confirmed fence is checked before it is used, and watched afterwards (S9).
fn watch(input: &Input, fence: &Fence, plan: &mut Plan) {
    let key = (fence.id, fence.refuted);
    let answers = input.lead.checks.get(&key);
    let refuted = answers.into_iter().flatten().find_map(|(node, checked)| match &checked.answer {
        CheckAnswer::Refuted { channel, what } => Some((node.clone(), channel.clone(), what.clone())),
        CheckAnswer::Holds => None,
    });
    let refuted = refuted.or_else(|| late_life(input, fence));
    let struck = match strike(input, fence) {
        Strike::Struck(node) if refuted.is_none() => Some(node),
        _ => None,
    };
    let fell_silent = struck.as_ref().map(|node| {
        let what = format!("{node} fell silent while it acted: does the device switch the right host?");
        (input.me.clone(), ChannelName::primary(), what)
    });
    if let Some((by, channel, what)) = refuted.or(fell_silent) {
        let (target, fence_id) = (fence.target.clone(), fence.id);
        plan.say(Note::Refuted { fence: fence_id, target, by: by.clone(), what: what.clone() });
        let level = match &fence.confirmed {
            Some(Confirmation::Level { level, .. }) => Some(*level),
            _ => None,
        };
        let (round, refuted) = (fence.round, fence.refuted);
        return plan.propose(Command::Refute { fence: fence.id, level, round, refuted, by, channel, what, struck });
    }
    // Not only until its first use: another service of the same node may have been paused meanwhile.
    if hangs(input, fence) || fence.epochs.is_empty() && !fence.used {
        for voter in input.state.nodes.keys().filter(|v| **v != fence.target && input.state.is_voter(v)) {
            let answered = answers.is_some_and(|a| a.contains_key(voter));
            if !answered && input.is_living(voter) {
                plan.ask(voter, Question::Check { fence: fence.id, refuted: fence.refuted, term: input.lead.term });
            }
        }
    }
    power_on(input, fence, plan);
    not_needed(input, fence, plan);
}

/// Whether an epoch that was held by the fenced boot still waits for its end.
fn hangs(input: &Input, fence: &Fence) -> bool {
    fence
        .epochs
        .iter()
        .any(|(name, epoch)| input.state.services.get(name).is_some_and(|s| s.epoch == *epoch && s.over.is_none()))
}

/// The wait for the lease has proved that a holder wrote no more, and left it alive: once the services need the fence no
/// more and it has joined again, nothing is left to fence. What an operator ordered, an operator lifts.
fn not_needed(input: &Input, fence: &Fence, plan: &mut Plan) {
    let waited = |c: &Confirmation| match c {
        Confirmation::Level { kinds, .. } => kinds.iter().eq([&AgentKind::Lease]),
        Confirmation::Human { .. } => false,
    };
    if is_moot(input, fence) && is_replaced(input, fence) {
        // Or the same device cut the power of the later boot too: that is seen to be dead in a moment, and is powered on.
        if !is_heard_afterwards(input, fence, plan) {
            return;
        }
        let who = "its epochs were followed by others, and another machine has joined under its name".to_owned();
        return plan.propose(Command::Lift { fence: fence.id, who, power_on: false });
    }
    if is_spent(input, fence) && fence.confirmed.as_ref().is_some_and(waited) {
        let who = "its lease had ended, its epochs were followed by others, and it has joined again".to_owned();
        // An `off` that was under way beside the wait may have cut its power since it joined.
        plan.propose(Command::Lift { fence: fence.id, who, power_on: is_power_given_back(input) });
    }
}

/// A later boot joined while an epoch hung on the fence: another machine has the name now. The fenced one stays off.
pub(super) fn is_replaced(input: &Input, fence: &Fence) -> bool {
    let node = input.state.nodes.get(&fence.target);
    fence.state == FenceState::Confirmed && node.is_some_and(|n| n.boot != fence.boot && n.life == Life::Up)
}

/// Whether the node is heard so long after the confirmation that no heartbeat was on its way then.
fn is_heard_afterwards(input: &Input, fence: &Fence, plan: &mut Plan) -> bool {
    let confirmed = input.applied.fence_confirmed.get(&fence.id).copied().unwrap_or(input.lead.since);
    let settled = confirmed + input.timing.recent;
    if input.now <= settled {
        plan.wake_at(settled);
    }
    input.fresh(&fence.target).is_some_and(|row| row.at > settled)
}

/// Nothing is left that the fence could be for, and its node has joined again, in the same boot.
fn is_spent(input: &Input, fence: &Fence) -> bool {
    let node = input.state.nodes.get(&fence.target);
    is_moot(input, fence) && node.is_some_and(|n| n.boot == fence.boot && n.life == Life::Up)
}

/// The fence's services are back, or wait for somebody to take them over after a later epoch that ended too.
fn is_moot(input: &Input, fence: &Fence) -> bool {
    let ordered = input.state.incidents.get(&fence.incident).is_none_or(|i| i.kind == IncidentKind::Fencing);
    let served = |s: &Service| s.over.is_none() && s.phase == Phase::Installed;
    let vacant = |s: &Service| s.over.is_some() || input.state.fence_of(s).is_some();
    let moot = |(name, epoch): (&ServiceName, &Epoch)| {
        input.state.services.get(name).is_some_and(|s| served(s) || s.epoch > *epoch && vacant(s))
    };
    let over = !fence.epochs.is_empty() && !hangs(input, fence) && fence.epochs.iter().all(moot);
    over && !ordered && !fence.has_running(AgentAction::Off)
}

/// A refuted fence of a node that counted as dead, lived, and has joined again since: it serves under none of those
/// epochs, and its heartbeats say of each of its databases that it is closed, or streams, or it has answered for where its
/// WAL ends, which only a database does that is in recovery and nothing else. To switch such a node off protects nothing,
/// and may cost the majority. While any of that is not so, it is fenced at every level at once (S9).
fn has_come_back(input: &Input, fence: &Fence) -> bool {
    let record = input.state.nodes.get(&fence.target);
    let row = input.fresh(&fence.target).filter(|row| record.is_some_and(|n| n.incarnation == row.incarnation));
    let sealed = |name: &ServiceName| {
        let epoch = input.state.services.get(name).map_or(Epoch(0), |s| s.epoch);
        let seals = input.lead.seals.get(&(name.clone(), epoch));
        seals.and_then(|seals| seals.get(&fence.target)).is_some_and(Result::is_ok)
    };
    let all_closed = row.is_some_and(|row| {
        let databases = &row.health.services;
        let closed = |name, db: &ServiceHealth| {
            is_closed(db) || db.holds.is_none() && db.state == DbState::Standby && sealed(name)
        };
        fence.epochs.keys().all(|name| databases.get(name).is_some_and(|db| closed(name, db)))
    });
    fence.refuted > 0 && fence.used && all_closed && is_spent(input, fence)
}

/// Nothing of it commits, and nothing of it comes to that by itself, as a promotion would that goes on without a daemon.
fn is_closed(database: &ServiceHealth) -> bool {
    let gone = matches!(database.state, DbState::Stopped | DbState::Absent | DbState::Unstartable);
    let streams = database.state == DbState::Standby && database.streams_from.is_some();
    database.holds.is_none() && (gone || streams)
}

/// Life of that boot long after the confirmation, on any fresh view.
fn late_life(input: &Input, fence: &Fence) -> Option<(NodeName, ChannelName, String)> {
    let confirmation = fence.confirmed.as_ref()?;
    if confirmation.is_forced() {
        return None;
    }
    let confirmed = input.applied.fence_confirmed.get(&fence.id)?;
    let settled = input.timing.detection + input.timing.recent;
    if input.now.since(*confirmed) <= settled {
        return None;
    }
    if !confirmation.demands_silence() {
        return writer(input, fence);
    }
    input.state.nodes.keys().filter(|n| **n != fence.target).find_map(|observer| {
        let view = input.fresh(observer)?.views.get(&fence.target)?;
        let (channel, _) = view.channels.iter().find(|(_, sight)| **sight == Sight::Up)?;
        let what = format!("heartbeats of boot {} still arrive", fence.boot);
        (view.boot == fence.boot).then(|| (observer.clone(), channel.clone(), what))
    })
}

/// The fenced boot itself says that it takes writes, although another was appointed.
fn writer(input: &Input, fence: &Fence) -> Option<(NodeName, ChannelName, String)> {
    let row = input.fresh(&fence.target)?;
    input.state.nodes.get(&fence.target).filter(|node| node.boot == fence.boot)?;
    let writes = |name: &ServiceName| row.health.services.get(name).is_some_and(|db| db.state == DbState::Primary);
    let passed_over = |(name, epoch): &(&ServiceName, &Epoch)| {
        let service = input.state.services.get(*name);
        service.is_some_and(|s| s.epoch > **epoch && s.holder.as_ref().is_some_and(|h| h.node != fence.target))
    };
    let (name, epoch) = fence.epochs.iter().filter(passed_over).find(|(name, _)| writes(name))?;
    let view = input.rows.get(input.me).and_then(|row| row.views.get(&fence.target));
    let heard = view.into_iter().flat_map(|view| &view.channels).find(|(_, sight)| **sight == Sight::Up);
    let channel = heard.map_or_else(ChannelName::primary, |(channel, _)| channel.clone());
    Some((input.me.clone(), channel, format!("it says that {name} takes writes there, after epoch {epoch}")))
}

pub(super) fn has_failed(order: &Order) -> bool {
    order.was_begun() && !order.is_running() && !order.has_succeeded()
}

pub(super) fn took(order: &Order) -> Duration {
    match &order.state {
        OrderState::Done { run } => run.took,
        OrderState::Running => Duration::ZERO,
    }
}

/// Before the next try after so many that failed, the last of which took so long. It stays short while a service waits for
/// the fence; but where nothing could be tried for any time, the ledger would fill with orders that nobody begins.
pub(super) fn pause(input: &Input, fence: &Fence, failed: u32, last: Duration) -> Duration {
    let pause = input.timing.retry * 2u32.saturating_pow(failed.saturating_sub(1).min(16));
    let longest = match is_awaited(input, fence) && last >= SHORT {
        true => SHORT,
        false => input.timing.retry_max,
    };
    pause.min(longest)
}

/// Whether a service may wait for the end of this fence: for the end of an epoch that the boot held, or for the node to
/// come back, which may have the only copy that is left, whoever ordered the fence.
fn is_awaited(input: &Input, fence: &Fence) -> bool {
    let serves = input.state.settings.as_ref().is_some_and(|s| s.database_nodes().any(|node| *node == fence.target));
    let is_down = |s: &Service| s.over.is_some() || s.phase != Phase::Installed || input.state.fence_of(s).is_some();
    hangs(input, fence) || serves && input.state.services.values().any(|s| !s.paused && is_down(s))
}

/// Whether a person may vouch that a node is off: refused while any sign of life of its present boot shows, a standby
/// that it still feeds included, unless forced, which is recorded.
pub fn may_vouch(seen: &Outlook, target: &NodeName, force: bool) -> Result<(), Refusal> {
    let Some(record) = seen.state.nodes.get(target).filter(|_| !force) else { return Ok(()) };
    // The last words of an observer that is dead by now are no sign of life.
    let observers = seen.rows.keys().filter(|observer| *observer != target);
    let life = observers.filter_map(|observer| Some((observer, seen.fresh(observer)?))).find_map(|(observer, row)| {
        let view = row.views.get(target).filter(|view| view.boot == record.boot)?;
        if let Some((channel, _)) = view.channels.iter().find(|(_, sight)| **sight == Sight::Up) {
            return Some(format!("{observer} still hears it on {channel}"));
        }
        view.database_alive.then(|| format!("its database still feeds the one on {observer}"))
    });
    life.map_or(Ok(()), |what| Err(Refusal::ShowsLife { node: target.clone(), what }))
}
