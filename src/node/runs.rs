//! Agents on this host: the orders of fences that are this node's to run, and assistants, which every voter runs.
//!
//! Not here: whether an order may still be begun (`reading.rs`), and how a fence is seen to hold (`witness.rs`).

use super::context::Context;
use super::desk::Desk;
use super::mail::Mail;
use super::reading::{Reading, Warrant};
use super::{Effect, RunKey};
use crate::config::Drift;
use crate::known_bugs::{self, Bug};
use crate::ledger::{Command, Fence, FenceState, Order, State};
use crate::types::{AgentAction, AgentKind, AgentName, AgentOutcome, AgentRun, Epoch, FenceId, Instant, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause before an assistant that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// An order of whose time less than this part is left is not begun any more.
const LEAST: u32 = 4;

/// How far a local run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    /// It is being ended before its time.
    Ending,
    Done,
    RetryAt(Instant),
}

/// All runs of this daemon.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: BTreeMap<RunKey, RunState>,
    /// Ended orders that the ledger has not heard of.
    ended_orders: BTreeMap<(FenceId, u32), AgentRun>,
    /// Ended assistants that the ledger has not heard of.
    assists_to_say: Vec<(RunKey, AgentRun)>,
    /// How each assistant ended last.
    assist_said: BTreeMap<RunKey, AgentOutcome>,
}

impl Runs {
    /// Runs what the ledger orders this node to run.
    pub fn settle(&mut self, desk: &mut Desk, reading: &mut Reading) {
        // Before its own join is applied, a copy shows what was so before this daemon existed.
        let Some(incarnation) = desk.context.incarnation.filter(|_| desk.context.has_applied_its_join()) else {
            return;
        };
        let state = desk.context.state.clone();
        for fence in state.fences.values().filter(|f| f.is_open()) {
            for order in fence.orders.iter().filter(|o| o.is_running() && !o.agent.is_lease()) {
                let mine = order.executor == desk.context.config.node && order.executor_incarnation == incarnation;
                let key = RunKey::Order { fence: fence.id, order: order.number };
                if !mine || self.runs.contains_key(&key) {
                    continue;
                }
                let begin = match known_bugs::has(Bug::FenceDisabled) {
                    false => begin(desk, reading, fence, order),
                    true => Begin::Never(AgentRun::pretended()),
                };
                match begin {
                    Begin::Asks => {}
                    Begin::For(limit) => {
                        // In the first round the next voter and the next level wait for it.
                        let persists = order.action == AgentAction::On || order.level.is_some() && order.round > 0;
                        self.run(&mut desk.mail, key, (&order.agent, order.action), fence, (limit, persists));
                    }
                    Begin::Never(run) => self.ended(desk.context.now, key, run),
                }
            }
            self.end_what_is_not_needed(&mut desk.mail, fence);
            if fence.target != desk.context.config.node && !known_bugs::has(Bug::FenceDisabled) {
                self.assist(desk, reading, fence);
            }
        }
        self.runs.retain(|key, state_of_run| {
            let is_of_use = match key {
                RunKey::Order { fence, order } => is_running(&state, *fence, *order),
                RunKey::Assist { fence, .. } => state.fences.get(fence).is_some_and(|f| f.is_open()),
            };
            is_of_use || matches!(state_of_run, RunState::Running | RunState::Ending)
        });
    }

    /// The node is back, or nothing hangs on it any more: an `off` that still tries would hit what lives now.
    fn end_what_is_not_needed(&mut self, mail: &mut Mail, fence: &Fence) {
        if !matches!(fence.state, FenceState::Void | FenceState::Lifting) {
            return;
        }
        for order in fence.orders.iter().filter(|o| o.is_running() && o.action == AgentAction::Off) {
            let key = RunKey::Order { fence: fence.id, order: order.number };
            if let Some(run @ RunState::Running) = self.runs.get_mut(&key) {
                *run = RunState::Ending;
                mail.push(Effect::EndAgent { key });
            }
        }
    }

    /// Begins a run: the agent and what it is to do, against the fence's target, for no longer than `limit`, and whether it
    /// is tried for all of that time.
    fn run(
        &mut self,
        mail: &mut Mail,
        key: RunKey,
        what: (&AgentName, AgentAction),
        fence: &Fence,
        (limit, persists): (Duration, bool),
    ) {
        self.runs.insert(key.clone(), RunState::Running);
        mail.push(Effect::RunAgent {
            key,
            agent: what.0.clone(),
            action: what.1,
            target: fence.target.clone(),
            fence: fence.id,
            limit,
            persists,
        });
    }

    /// Assistants on every voter: put in place from the ledger, also after a reboot, and taken back when lifted. Each says
    /// that it begins before it does, so that the fence is not closed over what it leaves behind; and it begins only on a
    /// copy of the ledger that is current. A lifted fence stays lifted: taking back needs no such question.
    fn assist(&mut self, desk: &mut Desk, reading: &mut Reading, fence: &Fence) {
        let Some(settings) = desk.context.state.settings.clone() else { return };
        let paused = fence.epochs.keys().any(|s| desk.context.state.services.get(s).is_some_and(|s| s.paused));
        let wanted = match fence.state {
            FenceState::Open | FenceState::Confirmed if !paused => AgentAction::Off,
            FenceState::Void | FenceState::Lifting => AgentAction::On,
            _ => return,
        };
        for agent in settings.assist.iter() {
            let Some(kind) = settings.agents.get(agent).filter(|a| a.everywhere).map(|a| a.kind) else { continue };
            let tried = fence.assisted.get(&desk.context.config.node).is_some_and(|a| a.contains(agent));
            let stage = match wanted {
                AgentAction::Off => stage(&desk.context, fence, kind),
                _ if tried => BTreeMap::new(),
                _ => continue,
            };
            let opposite_running = self.runs.iter().any(|(k, s)| {
                matches!(k, RunKey::Assist { fence: f, agent: a, action, .. }
                    if *f == fence.id && a == agent && *action != wanted)
                    && *s == RunState::Running
            });
            let key = RunKey::Assist { fence: fence.id, agent: agent.clone(), stage, action: wanted };
            let due = match self.runs.get(&key) {
                None => true,
                Some(RunState::RetryAt(at)) => desk.context.now >= *at,
                Some(_) => false,
            };
            if !due || opposite_running {
                continue;
            }
            if wanted == AgentAction::Off && !known_bugs::has(Bug::StaleOrderRuns) {
                if !tried && !known_bugs::has(Bug::AssistantStays) {
                    announce(desk, fence, agent);
                    continue;
                }
                if !reading.is_current(desk) {
                    continue;
                }
            }
            let limit = desk.context.state.agent_timeout(agent);
            self.run(&mut desk.mail, key, (agent, wanted), fence, (limit, false));
        }
    }

    pub fn due(&self) -> impl Iterator<Item = Instant> {
        self.runs.values().filter_map(|s| if let RunState::RetryAt(at) = s { Some(*at) } else { None })
    }

    pub fn ended(&mut self, now: Instant, key: RunKey, run: AgentRun) {
        match &key {
            RunKey::Order { fence, order } => {
                self.ended_orders.insert((*fence, *order), run.clone());
                self.runs.insert(key.clone(), RunState::Done);
            }
            RunKey::Assist { fence, agent, action, .. } => {
                let ok = run.outcome == AgentOutcome::Succeeded;
                let retry = RunState::RetryAt(now + RETRY);
                let first = !matches!(self.assist_said.get(&key), Some(said) if *said == run.outcome);
                self.runs.insert(key.clone(), if ok { RunState::Done } else { retry });
                self.assist_said.insert(key.clone(), run.outcome);
                if *action == AgentAction::On && ok {
                    let (fence, agent) = (*fence, agent.clone());
                    self.runs.retain(|k, _| {
                        !matches!(k, RunKey::Assist { fence: f, agent: a, action: AgentAction::Off, .. } if *f == fence && *a == agent)
                    });
                }
                if first {
                    self.assists_to_say.push((key.clone(), run));
                }
            }
        }
    }

    /// Results stay until the ledger has them.
    pub fn bring_results(&mut self, desk: &mut Desk) {
        let state = desk.context.state.clone();
        self.ended_orders.retain(|(fence, order), _| is_running(&state, *fence, *order));
        let ended: Vec<_> = self.ended_orders.iter().map(|((f, o), run)| (*f, *o, run.clone())).collect();
        for (fence, order, run) in ended {
            desk.propose(Command::OrderDone { fence, order, run });
        }
        self.assists_to_say.retain(|(key, run)| match key {
            RunKey::Assist { fence, agent, action, .. } => state.fences.get(fence).is_some_and(|f| {
                let stands = f.assisted.get(&desk.context.config.node).is_some_and(|a| a.contains(agent));
                let known = *action == AgentAction::On && run.outcome == AgentOutcome::Succeeded && !stands;
                f.is_open() && !known
            }),
            RunKey::Order { .. } => false,
        });
        for (key, run) in self.assists_to_say.clone() {
            if let RunKey::Assist { fence, agent, action, .. } = key {
                desk.propose(Command::Assisted { fence, agent, node: desk.context.me(), action, run });
            }
        }
    }

    /// The ledger has, or will not have, how an assistant ended.
    pub fn reported(&mut self, context: &Context, command: &Command) {
        let Command::Assisted { fence, agent, node, action, run } = command else { return };
        if *node == context.config.node {
            self.assists_to_say.retain(|(key, said)| match key {
                RunKey::Assist { fence: f, agent: a, action: b, .. } => {
                    (f, a, b) != (fence, agent, action) || said != run
                }
                RunKey::Order { .. } => true,
            });
        }
    }
}

/// Whether the ledger still waits for the end of an order.
fn is_running(state: &State, fence: FenceId, order: u32) -> bool {
    state.fences.get(&fence).and_then(|f| f.order(order)).is_some_and(Order::is_running)
}

/// Whether an order is begun.
enum Begin {
    /// It is being asked whether it still runs.
    Asks,
    /// For this long: the ledger's word, whatever this host's file says.
    For(Duration),
    /// That it never will be is how it ended.
    Never(AgentRun),
}

/// An order is begun where it surely still runs, for the rest of its time; else it is said that it never will be.
fn begin(desk: &mut Desk, reading: &mut Reading, fence: &Fence, order: &Order) -> Begin {
    let timeout = desk.context.state.agent_timeout(&order.agent);
    if known_bugs::has(Bug::StaleOrderRuns) {
        return Begin::For(timeout);
    }
    let inherited = order.term < desk.context.term;
    let limit = match if inherited { None } else { Some(reading.warrant(desk, fence.id, order)) } {
        Some(None) => return Begin::Asks,
        Some(Some(Warrant::Runs { asked, age, term })) if term == order.term => {
            let drift = desk.context.state.settings.as_ref().map_or(Drift(0), |s| s.drift());
            let spent = drift.lengthened(age) + desk.context.now.since(asked);
            drift.shortened(timeout).checked_sub(spent).filter(|left| *left >= timeout / LEAST)
        }
        _ => None,
    };
    limit.map_or_else(
        || {
            let output = "never begun: the leader that ordered it leads no more, or its time is over".to_owned();
            Begin::Never(AgentRun { outcome: AgentOutcome::NotBegun, tries: 0, took: Duration::ZERO, output })
        },
        Begin::For,
    )
}

fn announce(desk: &mut Desk, fence: &Fence, agent: &AgentName) {
    let Some(incarnation) = desk.context.incarnation else { return };
    let (fence, agent, node) = (fence.id, agent.clone(), desk.context.me());
    desk.propose(Command::Assisting { fence, agent, node, incarnation });
}

/// What can only be done on the new primary is repeated there after it is installed, for each service anew.
fn stage(context: &Context, fence: &Fence, kind: AgentKind) -> BTreeMap<ServiceName, Epoch> {
    let services = fence.epochs.keys().filter_map(|name| Some((name, context.state.services.get(name)?)));
    let installed = services.filter(|(_, s)| kind == AgentKind::Access && context.is_primary_of(s));
    installed.map(|(name, s)| (name.clone(), s.epoch)).collect()
}
