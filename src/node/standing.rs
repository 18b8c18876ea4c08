//! What is in force on this host and not wanted by the ledger: left behind by a crash, a slow agent, a fence that was
//! closed meanwhile, or another ledger. It is looked at once the own join is applied, once this node is a new primary (what
//! lies in the database is seen and undone only there), and until nothing is left to undo.
//!
//! Not here: looking (`crate::action::in_force`) and undoing (the daemon).
//!
//! **In this order.** First the host is looked at, then a quorum read begins, and the state is the one of that read.
//! What this node put in place before the look belongs to a fence that was committed before, so a state of afterwards
//! has it; a fence that is opened in between has a higher number and is not among what was found. A closed fence stays
//! closed. In the other order, or with a state that still catches up, a fence that is needed could be taken for unknown.

use super::context::Context;
use super::desk::Desk;
use super::reading::Reading;
use super::{Effect, Said, agent_order};
use crate::config::Config;
use crate::ledger::{Fence, FenceState, State};
use crate::types::{AgentAction, AgentName, AgentOrder, Epoch, FenceId, Instant, NodeName, ServiceName, Standing};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The pause before it is looked whether what was to be undone is undone.
const AGAIN: Duration = Duration::from_secs(10);

/// The number that the agents take when nobody names a fence: somebody used one by hand, and no ledger.
const BY_HAND: FenceId = FenceId(0);

/// Why something in force is not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// The ledger has no such fence: it was closed so long ago that it is forgotten, or was another ledger's.
    Unknown,
    /// The fence is over.
    Closed,
    /// It is not needed any more, and the ledger does not know that anything was done here: nothing else would undo it.
    Untold { state: FenceState },
    /// It is a fence of this very node, which does not fence itself.
    Own,
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwanted::Unknown => f.write_str("the ledger has no such fence, or none any more"),
            Unwanted::Closed => f.write_str("the fence is closed"),
            Unwanted::Untold { state } => write!(f, "the fence is {state}, and nothing of it is to be undone here"),
            Unwanted::Own => f.write_str("it is a fence of this node itself"),
        }
    }
}

/// One thing to undo: `on` of this agent under this fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    pub agent: AgentName,
    pub fence: FenceId,
    /// As the host tells it, else as the ledger does; `None` where neither does.
    pub node: Option<NodeName>,
    pub what: String,
    pub why: Unwanted,
}

impl Undo {
    /// The run that undoes it. Where nobody knows the node, the agent is told this one's name, and goes by what its
    /// `off` wrote down.
    pub fn order(&self, config: &Config) -> Option<AgentOrder> {
        let target = self.node.as_ref().unwrap_or(&config.node);
        agent_order(config, &self.agent, AgentAction::On, target, Some(self.fence))
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Undo { agent, fence, node, what, why } = self;
        let node = node.as_ref().map_or("an unknown node", NodeName::as_str);
        write!(f, "{what}: of fence {fence} of {node}, by {agent}; {why}")
    }
}

/// What is in force here and not wanted, in the order in which it was found. See the module for when the state is read.
pub fn undone(state: &State, me: &NodeName, standing: &[(AgentName, Standing)]) -> Vec<Undo> {
    // Without settings this is no ledger yet, and knows nothing.
    let all = standing.iter().filter(|(_, standing)| standing.fence != BY_HAND && state.settings.is_some());
    all.filter_map(|(agent, standing)| {
        let fence = state.fences.get(&standing.fence);
        let why = match fence {
            None => Unwanted::Unknown,
            Some(fence) => unwanted(fence, me, agent)?,
        };
        let node = standing.node.clone().or_else(|| fence.map(|fence| fence.target.clone()));
        Some(Undo { agent: agent.clone(), fence: standing.fence, node, what: standing.what.clone(), why })
    })
    .collect()
}

/// Why what the agent has in force here for this fence is not wanted; `None` where it is, or where the ledger sees to it
/// by itself.
fn unwanted(fence: &Fence, me: &NodeName, agent: &AgentName) -> Option<Unwanted> {
    if &fence.target == me {
        return Some(Unwanted::Own);
    }
    let ordered_here = fence.orders.iter().any(|order| order.is_running() && &order.executor == me);
    let told = fence.assisted.get(me).is_some_and(|agents| agents.contains(agent));
    match fence.state {
        FenceState::Closed => Some(Unwanted::Closed),
        // Also where this agent does not assist: two agents of one program see each other's rules.
        FenceState::Open | FenceState::Confirmed => None,
        FenceState::Void | FenceState::Lifting if told || ordered_here => None,
        state @ (FenceState::Void | FenceState::Lifting) => Some(Unwanted::Untold { state }),
    }
}

/// How far the look at this host is.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    looking: Looking,
    /// The epochs that this node installed, as far as it was looked since.
    installed: BTreeMap<ServiceName, Epoch>,
}

#[derive(Debug)]
enum Looking {
    /// To be looked at from then on.
    Due(Instant),
    Under,
    /// Found, by then; waits for a copy of the ledger that is newer.
    Found(Instant, Vec<(AgentName, Standing)>, bool),
    Rests,
}

impl Default for Looking {
    fn default() -> Self {
        Looking::Due(Instant(0))
    }
}

impl Lookout {
    /// Looks at what is in force on this host, and has undone what the ledger does not want.
    pub fn settle(&mut self, desk: &mut Desk, reading: &mut Reading) {
        if !desk.context.has_applied_its_join() || !desk.context.config.fencing.agents.values().any(|a| a.everywhere) {
            return;
        }
        self.notice_installed(&desk.context);
        match self.looking {
            Looking::Due(at) if desk.context.now >= at => {
                self.looking = Looking::Under;
                desk.mail.push(Effect::LookInForce);
            }
            _ => {}
        }
        if let Looking::Found(at, ..) = self.looking
            && reading.is_current_since(desk, at)
        {
            self.judge_found(desk);
        }
    }

    pub fn found(&mut self, now: Instant, standing: Vec<(AgentName, Standing)>, whole: bool) {
        if matches!(self.looking, Looking::Under) {
            self.looking = Looking::Found(now, standing, whole);
        }
    }

    fn judge_found(&mut self, desk: &mut Desk) {
        let Looking::Found(_, standing, whole) = std::mem::replace(&mut self.looking, Looking::Rests) else {
            return;
        };
        let unwanted = undone(&desk.context.state, &desk.context.config.node, &standing);
        // What outlives a boot (in the database) is wanted by a fence that stands, and the ledger does not know yet that it
        // is here: should the fence be lifted before this node has said so, nobody else would undo it.
        let untold = |(agent, standing): &(AgentName, Standing)| {
            let fence = desk.context.state.fences.get(&standing.fence).filter(|f| f.is_open());
            fence
                .is_some_and(|f| f.assisted.get(&desk.context.config.node).is_none_or(|agents| !agents.contains(agent)))
        };
        if !whole || !unwanted.is_empty() || standing.iter().any(untold) {
            self.looking = Looking::Due(desk.context.now + AGAIN);
        }
        for undo in unwanted {
            desk.mail.say(Said::Undoing(undo.clone()));
            desk.mail.push(Effect::UndoInForce { undo: Box::new(undo) });
        }
    }

    /// A new primary sees what lies in its database.
    fn notice_installed(&mut self, context: &Context) {
        let services = context.state.services.iter().filter(|(_, s)| context.is_primary_of(s));
        let installed = services.map(|(name, s)| (name.clone(), s.epoch));
        let installed: BTreeMap<_, _> = installed.collect();
        if installed.iter().any(|(name, epoch)| self.installed.get(name) != Some(epoch)) {
            self.looking = Looking::Due(context.now);
        }
        self.installed = installed;
    }

    /// When it is to be looked again.
    pub fn due(&self) -> Option<Instant> {
        match self.looking {
            Looking::Due(at) => Some(at),
            _ => None,
        }
    }
}
