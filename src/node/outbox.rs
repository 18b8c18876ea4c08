//! Proposals on their way to the ledger: at most one of an intent at a time, none again at once after its answer.
//! Retrying is the level-triggered plan's own business; nothing is queued here.

use super::event::{Effect, PeerRequest};
use crate::ledger::{Command, FenceReason};
use crate::types::{Instant, NodeName};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an intent that was answered is not proposed again, if nothing changed it.
const HOLD: Duration = Duration::from_millis(500);
/// How long after a failure to reach the leader the same intent waits.
const RETRY: Duration = Duration::from_millis(30);
/// Of how many intents it is remembered how often they failed.
const INTENTS: usize = 64;
/// After this a proposal without an answer is unknown.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    under_way: BTreeMap<u64, Command>,
    held: Vec<(Intent, Instant)>,
    /// Failures to reach the leader in a row, by intent: every second try of it goes through another voter. One count for
    /// all would let what succeeds choose the way of what does not, the same broken one again and again.
    failures: Vec<(Intent, u32)>,
}

/// What a command wants, without the evidence that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intent(String);

fn intent(command: &Command) -> Intent {
    let detail = match command {
        Command::OrderDone { order, .. } => format!("{order}"),
        Command::Order { level, round, term, orders, .. } => {
            format!("{level:?}/{round}/{term}/{:?}", orders.iter().map(|o| (&o.agent, o.action)).collect::<Vec<_>>())
        }
        Command::NextLevel { level, round, term, .. } => format!("{level}/{round}/{term}"),
        Command::DeclareDead { target, incarnation, term, round, .. } => {
            format!("{target}/{incarnation}/{term}/{round}")
        }
        Command::Join { node, boot, request, claims, .. } => format!("{node}/{boot}/{request}/{claims:?}"),
        Command::Appoint { prior, node, incarnation, basis, .. } => {
            let term = match basis {
                crate::ledger::Basis::Fenced { term, fence, .. } => format!("{fence}/{term}"),
                crate::ledger::Basis::Released => String::new(),
            };
            format!("{prior}/{node}/{incarnation}/{term}")
        }
        Command::Assisting { agent, node, incarnation, .. } => format!("{agent}/{node}/{incarnation}"),
        Command::Assisted { agent, node, action, .. } => format!("{agent}/{node}/{action:?}"),
        Command::Release { epoch, .. } | Command::Promoting { epoch, .. } | Command::Installed { epoch, .. } => {
            format!("{epoch}")
        }
        Command::Refute { level, round, refuted, .. } => format!("{level:?}/{round}/{refuted}"),
        Command::Rejoined { epoch, node, .. } => format!("{epoch}/{node}"),
        Command::OpenFence { target, boot, reason: FenceReason::Lapsed { term, .. } } => {
            format!("{target}/{boot}/{term}")
        }
        Command::OpenFence { target, boot, .. } => format!("{target}/{boot}"),
        Command::Renewed { incarnation, resumed, .. } => format!("{incarnation}/{resumed}"),
        Command::Create { incarnation, .. } => format!("{incarnation}"),
        _ => String::new(),
    };
    Intent(format!("{} {:?} {:?} {detail}", command.name(), command.fence(), command.service()))
}

impl Outbox {
    /// The effect that proposes the command, unless the same is under way or held back.
    pub fn propose(&mut self, now: Instant, id: u64, command: Command, route: Option<Route>) -> Option<Effect> {
        self.held.retain(|(_, until)| now < *until);
        let wanted = intent(&command);
        let known = self.under_way.values().any(|c| intent(c) == wanted) || self.held.iter().any(|(i, _)| *i == wanted);
        let route = route.filter(|_| !known)?;
        self.under_way.insert(id, command.clone());
        let request = || PeerRequest::Propose(Box::new(command.clone()));
        Some(match route {
            Route::Local => Effect::Propose { id, command: Box::new(command) },
            Route::Leader(to) => Effect::Ask { id, to, request: request(), deadline: DEADLINE },
            Route::Through(to) => {
                Effect::Ask { id, to, request: PeerRequest::Relay(Box::new(request())), deadline: DEADLINE }
            }
        })
    }

    /// How often in a row this did not reach the leader.
    pub fn failures_of(&self, command: &Command) -> u32 {
        if self.failures.is_empty() {
            return 0;
        }
        let wanted = intent(command);
        self.failures.iter().find(|(i, _)| *i == wanted).map_or(0, |(_, n)| *n)
    }

    /// A proposal ended. Returns its command.
    pub fn ended(&mut self, now: Instant, id: u64, reached: bool) -> Option<Command> {
        let command = self.under_way.remove(&id)?;
        let failed = if reached { 0 } else { self.failures_of(&command) + 1 };
        let wanted = intent(&command);
        self.failures.retain(|(i, _)| *i != wanted);
        if failed > 0 {
            self.failures.push((wanted.clone(), failed));
            // What nobody wants any more is forgotten some time.
            if self.failures.len() > INTENTS {
                self.failures.remove(0);
            }
        }
        // After a success too: this node's own copy of the ledger may learn of it later than the answer came, and until
        // then its plan says the same again.
        let hold = if reached { HOLD } else { RETRY };
        self.held.push((wanted, now + hold));
        Some(command)
    }

    /// A new leader or term: what is under way is not waited for any more.
    pub fn forget(&mut self) {
        self.under_way.clear();
        self.held.clear();
        self.failures.clear();
    }

    /// When a held intent may be tried again.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.held.iter().map(|(_, until)| *until).min()
    }
}

/// The way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Local,
    Leader(NodeName),
    Through(NodeName),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FenceId;

    #[test]
    fn what_fails_beside_something_else_takes_every_way_in_turn() {
        let mut outbox = Outbox::default();
        let commands = [1, 2].map(|n| Command::CloseFence { fence: FenceId(n) });
        let mut now = Instant(0);
        for round in 0..4 {
            for (id, command) in commands.iter().enumerate() {
                assert_eq!(outbox.failures_of(command), round, "its own failures count, and no other's");
                let id = id as u64;
                assert!(outbox.propose(now, id, command.clone(), Some(Route::Local)).is_some());
            }
            (0..2).for_each(|id| assert!(outbox.ended(now, id, false).is_some()));
            now += RETRY;
        }
        outbox.propose(now, 9, commands[0].clone(), Some(Route::Local));
        outbox.ended(now, 9, true);
        assert_eq!(
            commands.map(|c| outbox.failures_of(&c)),
            [0, 4],
            "what one reaches says nothing of the other's way"
        );
    }
}
