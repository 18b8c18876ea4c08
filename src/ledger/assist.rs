//! Assistants of a fence: what each voter is about to run, and what it ran. The fence is not closed over any of them.

use super::apply::Moment;
use super::{Event, FenceState, Happening, Refusal, State};
use crate::types::{AgentAction, AgentName, AgentOutcome, AgentRun, FenceId, Incarnation, NodeName};

impl State {
    /// Said before an assistant runs: whatever it leaves behind then is known to be there, also if nobody lives to say how
    /// the run ended.
    pub(super) fn assisting(
        &mut self,
        fence: FenceId,
        agent: AgentName,
        node: NodeName,
        incarnation: Incarnation,
    ) -> Result<Event, Refusal> {
        if !self.set().agents.get(&agent).is_some_and(|a| a.everywhere) || !self.set().assist.contains(&agent) {
            return Err(Refusal::UnknownAgent { agent });
        }
        if self.present(&node, incarnation).is_none() {
            return Err(Refusal::OldIncarnation { node, incarnation });
        }
        self.fence_in(fence, &[FenceState::Open, FenceState::Confirmed])?;
        self.fence_mut(fence)?.assisted.entry(node).or_default().insert(agent);
        Ok(Event::Noted)
    }

    pub(super) fn assisted(
        &mut self,
        m: Moment,
        fence: FenceId,
        agent: AgentName,
        node: NodeName,
        action: AgentAction,
        run: AgentRun,
    ) -> Result<Event, Refusal> {
        if !self.set().agents.get(&agent).is_some_and(|a| a.everywhere) {
            return Err(Refusal::UnknownAgent { agent });
        }
        let f = self.fence_mut(fence)?;
        let incident = f.incident;
        // One that ended after the fence was lifted, and was undone since, is not there any more.
        let acts = matches!(f.state, FenceState::Open | FenceState::Confirmed);
        let tried = f.assisted.entry(node.clone()).or_default();
        match action {
            // Tried is enough: it may have acted before it failed, so it must be undone.
            AgentAction::Off if acts => {
                tried.insert(agent.clone());
            }
            AgentAction::On if run.outcome == AgentOutcome::Succeeded => {
                tried.remove(&agent);
            }
            _ => {}
        }
        f.assisted.retain(|_, agents| !agents.is_empty());
        let took_ms = run.took.as_millis() as u64;
        let AgentRun { outcome, tries, output, .. } = run;
        let ended = Happening::AgentEnded { fence, agent, action, executor: node, outcome, took_ms, tries, output };
        self.record(incident, m, ended);
        Ok(Event::Noted)
    }
}
