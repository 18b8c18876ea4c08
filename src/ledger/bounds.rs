//! How much the ledger remembers. A fence that finds no level goes on for months, round after round; an incident that
//! stays open gets a step for each of them. What was first, what was last, and everything that no other step repeats is
//! kept; the rest is counted.
//!
//! Not here: what is shared between copies (`shared.rs`).

use super::{Fence, Happening, Incident, Order, Shared, State, StepRecord};
use crate::types::{AgentAction, AgentName, IncidentId};
use std::collections::{BTreeMap, BTreeSet};

/// How many refusals are kept.
const REFUSALS_KEPT: usize = 200;
/// How many incidents are kept, besides those that are in use.
const INCIDENTS_KEPT: usize = 200;
/// How many orders of one fence are kept, besides those that still tell something.
const ORDERS_KEPT: usize = 32;
/// From so many steps of an incident on, one that repeats itself makes room for the next.
const STEPS_KEPT: usize = 256;
/// How many of the first are kept in any case: how it began.
const FIRST_STEPS_KEPT: usize = 64;
/// From so many steps on, any step after the first makes room for the next.
const MOST_STEPS: usize = 1024;
/// How many bytes of an agent's output are kept.
const OUTPUT_KEPT: usize = 1024;

impl State {
    /// After every entry.
    pub(super) fn forget_old(&mut self) {
        while self.refusals.len() > REFUSALS_KEPT {
            self.refusals.pop_front();
        }
        while self.incidents.len() > INCIDENTS_KEPT {
            let in_use: BTreeSet<IncidentId> = self
                .fences
                .values()
                .filter(|f| f.is_open())
                .map(|f| f.incident)
                .chain(self.services.values().filter_map(|s| s.incident))
                .collect();
            let Some(oldest) = self.incidents.keys().find(|id| !in_use.contains(id)).copied() else { break };
            self.incidents.remove(&oldest);
            self.fences.retain(|_, f| f.is_open() || f.incident != oldest);
        }
    }
}

impl Incident {
    /// Keeps a step, and forgets another for it where there are many.
    pub(super) fn keep(&mut self, mut step: StepRecord) {
        if let Happening::AgentEnded { output: text, .. } | Happening::LevelFailed { why: text, .. } = &mut step.what {
            *text = cut(std::mem::take(text));
        }
        self.steps.push(step.into());
        let after_the_first = self.first_steps();
        let of_many = (self.steps.len() > STEPS_KEPT)
            .then(|| self.steps[after_the_first..].iter().position(|step| repeats_itself(&step.what)))
            .flatten();
        let of_too_many = (self.steps.len() > MOST_STEPS).then_some(0);
        if let Some(at) = of_many.or(of_too_many) {
            self.steps.remove(after_the_first + at);
            self.forgotten += 1;
        }
    }

    /// Of how many first steps all are kept: what was forgotten came after them.
    pub fn first_steps(&self) -> usize {
        self.steps.len().min(FIRST_STEPS_KEPT)
    }

    /// How many steps were ever recorded.
    pub fn recorded(&self) -> u64 {
        self.forgotten + self.steps.len() as u64
    }

    /// The steps that were recorded after so many, as far as they are kept.
    pub fn steps_after(&self, recorded: u64) -> impl Iterator<Item = &StepRecord> {
        let new = usize::try_from(self.recorded().saturating_sub(recorded)).unwrap_or(usize::MAX);
        self.steps[self.steps.len().saturating_sub(new)..].iter().map(Shared::get)
    }
}

/// One more round, one more refusal: the next of its kind says the same.
fn repeats_itself(what: &Happening) -> bool {
    matches!(
        what,
        Happening::Ordered { .. }
            | Happening::AgentEnded { .. }
            | Happening::LevelFailed { .. }
            | Happening::FenceConfirmed { .. }
            | Happening::FenceRefuted { .. }
            | Happening::Refused { .. }
            | Happening::Joined { .. }
            | Happening::Paused { .. }
            | Happening::Resumed { .. }
    )
}

impl Fence {
    /// Forgets the oldest orders that tell nothing any more.
    pub(super) fn forget_orders(&mut self) {
        let Some(too_many) = self.orders.len().checked_sub(ORDERS_KEPT).filter(|many| *many > 0) else { return };
        let telling = self.telling();
        let old = self.orders.iter().filter(|order| !telling.contains(&order.number)).take(too_many);
        let old: BTreeSet<u32> = old.map(|order| order.number).collect();
        self.orders.retain(|order| !old.contains(&order.number));
    }

    /// The orders that something is still concluded from: what runs, what the present round has tried, and of each agent
    /// how the last of either kind ended and the last that may have changed anything.
    fn telling(&self) -> BTreeSet<u32> {
        let mut last: BTreeMap<(&AgentName, AgentAction), u32> = BTreeMap::new();
        let mut lasting: BTreeMap<(&AgentName, AgentAction), u32> = BTreeMap::new();
        for order in &self.orders {
            last.insert((&order.agent, order.action), order.number);
            // What runs may turn out to have never been begun.
            if order.is_lasting() && !order.is_running() {
                lasting.insert((&order.agent, order.action), order.number);
            }
        }
        let present = |order: &&Order| order.is_running() || order.round == self.round;
        let present = self.orders.iter().filter(present).map(|order| order.number);
        present.chain(last.into_values()).chain(lasting.into_values()).collect()
    }
}

/// The end of a text that may be long, which says most.
pub(super) fn cut(text: String) -> String {
    if text.len() <= OUTPUT_KEPT {
        return text;
    }
    let begin = (text.len() - OUTPUT_KEPT..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("[…] {}", &text[begin..])
}
