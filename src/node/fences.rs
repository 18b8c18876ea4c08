//! This node's own part in fences: executing orders, assisting, and watching a confirmed fence (S9).

use super::reading::Warrant;
use super::{Effect, Node, PeerResponse, RunKey};
use crate::config::Drift;
use crate::known_bugs::{self, Bug};
use crate::ledger::{CheckAnswer, Command, Fence, FenceState, Order, Settings};
use crate::types::{
    AgentAction, AgentKind, AgentName, AgentOutcome, AgentRun, Boot, ChannelName, Epoch, FenceId, HeartbeatBody,
    Instant, NodeName, ServiceName, Sight, Term,
};
use std::collections::{BTreeMap, BTreeSet};
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

/// What this voter hears of a fenced boot after it applied the confirmation.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    since: Instant,
    /// Channels on which the node was heard when the confirmation was applied, and those on which it was heard since:
    /// advances since, and when the last one came.
    beats: BTreeMap<ChannelName, (u32, Instant)>,
    refuted: Option<(ChannelName, String)>,
}

/// Two advances of a counter: one late disk write or a drained buffer is not a heartbeat.
const ADVANCES: u32 = 2;

impl Node {
    /// Runs what the ledger orders this node to run.
    pub(super) fn run_fences(&mut self) {
        // Before its own join is applied, a copy shows what was so before this daemon existed.
        let Some(incarnation) = self.context.incarnation.filter(|_| self.context.has_applied_its_join()) else {
            return;
        };
        let state = self.context.state.clone();
        for fence in state.fences.values().filter(|f| f.is_open()) {
            for order in fence.orders.iter().filter(|o| o.is_running() && !o.agent.is_lease()) {
                let mine = order.executor == self.context.config.node && order.executor_incarnation == incarnation;
                let key = RunKey::Order { fence: fence.id, order: order.number };
                if mine && !self.runs.contains_key(&key) {
                    match known_bugs::has(Bug::FenceDisabled) {
                        false => self.run_order(key, order, fence),
                        true => self.agent_ended(key, AgentRun::pretended()),
                    }
                }
            }
            self.end_what_is_not_needed(fence);
            if fence.target != self.context.config.node && !known_bugs::has(Bug::FenceDisabled) {
                self.assist(fence);
            }
        }
        self.runs.retain(|key, state_of_run| {
            let (RunKey::Order { fence, .. } | RunKey::Assist { fence, .. }) = key;
            matches!(state_of_run, RunState::Running | RunState::Ending)
                || state.fences.get(fence).is_some_and(Fence::is_open)
        });
    }

    /// The node is back, or nothing hangs on it any more: an `off` that still tries would hit what lives now.
    fn end_what_is_not_needed(&mut self, fence: &Fence) {
        if !matches!(fence.state, FenceState::Void | FenceState::Lifting) {
            return;
        }
        for order in fence.orders.iter().filter(|o| o.is_running() && o.action == AgentAction::Off) {
            let key = RunKey::Order { fence: fence.id, order: order.number };
            if let Some(run @ RunState::Running) = self.runs.get_mut(&key) {
                *run = RunState::Ending;
                self.mail.push(Effect::EndAgent { key });
            }
        }
    }

    /// Starts the agent of an order if it surely still runs, for the rest of its time; else says that it never will.
    fn run_order(&mut self, key: RunKey, order: &Order, fence: &Fence) {
        let timeout = self.context.state.agent_timeout(&order.agent);
        if known_bugs::has(Bug::StaleOrderRuns) {
            return self.run(key, &order.agent, order.action, fence, timeout);
        }
        let inherited = order.term < self.context.term;
        let limit = match if inherited { None } else { Some(self.warrant(fence.id, order)) } {
            Some(None) => return,
            Some(Some(Warrant::Runs { asked, age, term })) if term == order.term => {
                let drift = self.context.state.settings.as_ref().map_or(Drift(0), Settings::drift);
                let spent = drift.lengthened(age) + self.context.now.since(asked);
                drift.shortened(timeout).checked_sub(spent).filter(|left| *left >= timeout / LEAST)
            }
            _ => None,
        };
        match limit {
            Some(limit) => self.run(key, &order.agent, order.action, fence, limit),
            None => {
                let output = "never begun: the leader that ordered it leads no more, or its time is over".to_owned();
                let run = AgentRun { outcome: AgentOutcome::NotBegun, tries: 0, took: Duration::ZERO, output };
                self.agent_ended(key, run);
            }
        }
    }

    /// How long an agent may take: the ledger's word, whatever this host's file says.
    fn run(&mut self, key: RunKey, agent: &AgentName, action: AgentAction, fence: &Fence, limit: Duration) {
        self.runs.insert(key.clone(), RunState::Running);
        self.mail.push(Effect::RunAgent {
            key,
            agent: agent.clone(),
            action,
            target: fence.target.clone(),
            fence: fence.id,
            limit,
        });
    }

    /// Assistants on every voter: put in place from the ledger, also after a reboot, and taken back when lifted. Each says
    /// that it begins before it does, so that the fence is not closed over what it leaves behind; and it begins only on a
    /// copy of the ledger that is current. A lifted fence stays lifted: taking back needs no such question.
    fn assist(&mut self, fence: &Fence) {
        let Some(settings) = self.context.state.settings.clone() else { return };
        let paused = fence.epochs.keys().any(|s| self.context.state.services.get(s).is_some_and(|s| s.paused));
        let wanted = match fence.state {
            FenceState::Open | FenceState::Confirmed if !paused => AgentAction::Off,
            FenceState::Void | FenceState::Lifting => AgentAction::On,
            _ => return,
        };
        for agent in settings.assist.iter() {
            let Some(kind) = settings.agents.get(agent).filter(|a| a.everywhere).map(|a| a.kind) else { continue };
            let tried = fence.assisted.get(&self.context.config.node).is_some_and(|a| a.contains(agent));
            let stage = match wanted {
                AgentAction::Off => self.stage(fence, kind),
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
                Some(RunState::RetryAt(at)) => self.context.now >= *at,
                Some(_) => false,
            };
            if !due || opposite_running {
                continue;
            }
            if wanted == AgentAction::Off && !known_bugs::has(Bug::StaleOrderRuns) {
                if !tried && !known_bugs::has(Bug::AssistantStays) {
                    self.announce(fence, agent);
                    continue;
                }
                if !self.is_current() {
                    continue;
                }
            }
            let limit = self.context.state.agent_timeout(agent);
            self.run(key, agent, wanted, fence, limit);
        }
    }

    fn announce(&mut self, fence: &Fence, agent: &AgentName) {
        let Some(incarnation) = self.context.incarnation else { return };
        let (fence, agent, node) = (fence.id, agent.clone(), self.context.me());
        self.propose(Command::Assisting { fence, agent, node, incarnation });
    }

    /// What can only be done on the new primary is repeated there after it is installed, for each service anew.
    fn stage(&self, fence: &Fence, kind: AgentKind) -> BTreeMap<ServiceName, Epoch> {
        let services = fence.epochs.keys().filter_map(|name| Some((name, self.context.state.services.get(name)?)));
        let installed = services.filter(|(_, s)| kind == AgentKind::Access && self.context.is_primary_of(s));
        installed.map(|(name, s)| (name.clone(), s.epoch)).collect()
    }

    pub(super) fn retry_runs(&self) -> impl Iterator<Item = Instant> {
        self.runs.values().filter_map(|s| if let RunState::RetryAt(at) = s { Some(*at) } else { None })
    }

    pub(super) fn agent_ended(&mut self, key: RunKey, run: AgentRun) {
        match &key {
            RunKey::Order { fence, order } => {
                self.ended_orders.insert((*fence, *order), run.clone());
                self.runs.insert(key.clone(), RunState::Done);
            }
            RunKey::Assist { fence, agent, action, .. } => {
                let ok = run.outcome == AgentOutcome::Succeeded;
                let retry = RunState::RetryAt(self.context.now + RETRY);
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
    pub(super) fn bring_results(&mut self) {
        let state = self.context.state.clone();
        let running = |fence: &FenceId, order: &u32| {
            state.fences.get(fence).and_then(|f| f.orders.get(*order as usize)).is_some_and(|o| o.is_running())
        };
        self.ended_orders.retain(|(fence, order), _| running(fence, order));
        let ended: Vec<_> = self.ended_orders.iter().map(|((f, o), run)| (*f, *o, run.clone())).collect();
        for (fence, order, run) in ended {
            self.propose(Command::OrderDone { fence, order, run });
        }
        self.assists_to_say.retain(|(key, run)| match key {
            RunKey::Assist { fence, agent, action, .. } => state.fences.get(fence).is_some_and(|f| {
                let stands = f.assisted.get(&self.context.config.node).is_some_and(|a| a.contains(agent));
                let known = *action == AgentAction::On && run.outcome == AgentOutcome::Succeeded && !stands;
                f.is_open() && !known
            }),
            RunKey::Order { .. } => false,
        });
        for (key, run) in self.assists_to_say.clone() {
            if let RunKey::Assist { fence, agent, action, .. } = key {
                self.propose(Command::Assisted { fence, agent, node: self.context.me(), action, run });
            }
        }
    }

    /// The ledger has, or will not have, how an assistant ended.
    pub(super) fn assist_reported(&mut self, command: &Command) {
        let Command::Assisted { fence, agent, node, action, run } = command else { return };
        if *node == self.context.config.node {
            self.assists_to_say.retain(|(key, said)| match key {
                RunKey::Assist { fence: f, agent: a, action: b, .. } => {
                    (f, a, b) != (fence, agent, action) || said != run
                }
                RunKey::Order { .. } => true,
            });
        }
    }

    /// Begins to watch each confirmation that this node has just applied.
    pub(super) fn start_watches(&mut self) {
        let live: BTreeSet<_> = self
            .context
            .state
            .fences
            .values()
            .filter(|f| f.state == FenceState::Confirmed && f.target != self.context.config.node)
            .map(|f| (f.id, f.refuted))
            .collect();
        self.watches.retain(|key, _| live.contains(key));
        for key in live {
            if self.watches.contains_key(&key) {
                continue;
            }
            let fence = &self.context.state.fences[&key.0];
            let view = self.detector.views(self.context.now).remove(&fence.target).filter(|v| v.boot == fence.boot);
            let heard = view.into_iter().flat_map(|v| v.channels).filter(|(_, s)| *s == Sight::Up);
            let beats = heard.map(|(channel, _)| (channel, (0, self.context.now))).collect();
            self.watches.insert(key, Watch { since: self.context.now, beats, refuted: None });
        }
    }

    /// A heartbeat of any node: does it contradict a confirmed fence?
    pub(super) fn watch_life(
        &mut self,
        node: &NodeName,
        boot: &Boot,
        channel: &ChannelName,
        at: Instant,
        body: Option<&HeartbeatBody>,
    ) {
        match self.beats_heard.get_mut(node).and_then(|channels| channels.get_mut(channel)) {
            Some(last) => *last = at,
            None => drop(self.beats_heard.entry(node.clone()).or_default().insert(channel.clone(), at)),
        }
        for ((id, _), watch) in &mut self.watches {
            let Some(fence) = self.context.state.fences.get(id) else { continue };
            if &fence.target != node || &fence.boot != boot || at <= watch.since {
                continue;
            }
            let Some(confirmed) = &fence.confirmed else { continue };
            let (beats, last) = watch.beats.entry(channel.clone()).or_insert((0, at));
            (*beats, *last) = (*beats + 1, at);
            if *beats < ADVANCES || confirmed.is_forced() {
                continue;
            }
            let what = if confirmed.demands_silence() {
                Some(format!("{beats} heartbeats of boot {boot} after the confirmation"))
            } else {
                claims_to_write(fence, body)
            };
            if let Some(what) = what {
                watch.refuted.get_or_insert((channel.clone(), what));
            }
        }
    }

    /// The answer to a check, once this voter has watched for as long as its detector needs.
    pub(super) fn check_answer(
        &self,
        fence: FenceId,
        refuted: u32,
        term: Term,
        since: Instant,
    ) -> Option<PeerResponse> {
        if known_bugs::has(Bug::FenceDisabled) {
            return Some(PeerResponse::Check(CheckAnswer::Holds));
        }
        let known = self.context.state.fences.get(&fence);
        if term < self.context.term
            || known
                .is_some_and(|f| f.refuted > refuted || f.state != FenceState::Confirmed && f.state != FenceState::Open)
        {
            return Some(PeerResponse::Failed { why: "the fence has moved on".to_owned() });
        }
        let Some(watch) = self.watches.get(&(fence, refuted)) else {
            // Not applied here yet; the question runs out by itself.
            let late = self.context.now.since(since) > self.context.timing.detection * 4;
            return late
                .then(|| PeerResponse::Failed { why: "this voter has not applied the confirmation".to_owned() });
        };
        let record = known?;
        let believed = known_bugs::has(Bug::FenceBelieved);
        if let Some((channel, what)) = watch.refuted.as_ref().filter(|_| !believed) {
            let (channel, what) = (channel.clone(), what.clone());
            return Some(PeerResponse::Check(CheckAnswer::Refuted { channel, what }));
        }
        let forced = record.confirmed.as_ref().is_some_and(|c| c.is_forced());
        let view = self.views().remove(&record.target).filter(|v| v.boot == record.boot);
        let silent = record.confirmed.as_ref().is_some_and(|c| c.demands_silence());
        if !forced && !silent && view.as_ref().is_some_and(|v| v.database_alive) {
            let what = "its database still feeds a standby here".to_owned();
            let channel = ChannelName::primary();
            return Some(PeerResponse::Check(CheckAnswer::Refuted { channel, what }));
        }
        let still = |channel: &ChannelName| {
            let up = view.as_ref().and_then(|v| v.channels.get(channel)) == Some(&Sight::Up);
            let (beats, last) = watch.beats.get(channel).copied().unwrap_or_default();
            // One sign of life was heard: whether another follows is seen within the time in which the detector judges,
            // also where it began anew, because a later incarnation of that boot sent it.
            let fresh = (1..ADVANCES).contains(&beats) && self.context.now.since(last) <= self.context.timing.detection;
            fresh || up && (silent || beats < ADVANCES)
        };
        let waiting = !forced && !believed && watch.beats.keys().any(still);
        // Who doubts itself has not watched.
        let doubting = self.detector.is_self_doubting(self.context.now);
        (!waiting && !doubting).then_some(PeerResponse::Check(CheckAnswer::Holds))
    }
}

/// Whether a heartbeat contradicts a fence by lease or storage: it does not say `released`, or it holds an epoch.
fn claims_to_write(fence: &Fence, body: Option<&HeartbeatBody>) -> Option<String> {
    let body = body?;
    fence.epochs.iter().find_map(|(service, epoch)| {
        let health = body.health.services.get(service)?;
        let released = health.released.is_some_and(|r| r.epoch >= *epoch);
        (!released).then(|| format!("it still sends heartbeats without having released epoch {epoch} of {service}"))
    })
}
