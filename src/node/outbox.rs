//! Proposals on their way to the ledger: at most one of an intent at a time, none again at once after its answer.
//! Retrying is the level-triggered plan's own business; nothing is queued here.

use super::context::Route;
use super::event::{Effect, PeerRequest};
use super::intent::Intent;
use crate::ledger::Command;
use crate::types::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an intent that was answered is not proposed again, if nothing changed it.
const HOLD: Duration = Duration::from_millis(500);
/// How long after a failure to reach the leader the same intent waits.
const RETRY: Duration = Duration::from_millis(30);
/// The longest pause before a join that came to nothing is proposed again: [`RETRY`] after the first, doubling to this.
const JOIN_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Of how many intents it is remembered how often they failed.
const INTENTS: usize = 64;
/// After this a proposal without an answer is unknown.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    under_way: BTreeMap<u64, (Intent, Command)>,
    held: Vec<(Intent, Instant)>,
    /// Failures to reach the leader in a row, by intent: every second try of it goes through another voter. One count for
    /// all would let what succeeds choose the way of what does not, the same broken one again and again.
    failures: Vec<(Intent, u32)>,
    /// How often in a row the present join came to nothing, refused or not answered.
    joins_in_vain: Option<(Intent, u32)>,
}

/// How a proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Accepted,
    Refused,
    /// It did not reach the leader, or nobody knows what became of it.
    Unreached,
}

impl Outbox {
    /// The effect that proposes the command, unless the same is under way or held back.
    pub fn propose(&mut self, now: Instant, id: u64, command: Command, route: Option<Route>) -> Option<Effect> {
        self.held.retain(|(_, until)| now < *until);
        let wanted = Intent::of(&command);
        let known = self.under_way.values().any(|(i, _)| *i == wanted) || self.held.iter().any(|(i, _)| *i == wanted);
        let route = route.filter(|_| !known)?;
        self.under_way.insert(id, (wanted, command.clone()));
        let request = || PeerRequest::Propose(Box::new(command.clone()));
        Some(match route {
            Route::Local => Effect::Propose { id, command: Box::new(command) },
            Route::Leader(to) => Effect::Ask { id, to, request: request(), deadline: DEADLINE },
            Route::Through(to) => {
                Effect::Ask { id, to, request: PeerRequest::Relay(Box::new(request())), deadline: DEADLINE }
            }
        })
    }

    /// The number under which the very same is under way, if it is.
    pub fn number_of(&self, command: &Command) -> Option<u64> {
        self.under_way.iter().find(|(_, (_, c))| c == command).map(|(id, _)| *id)
    }

    /// A person's command leaves at once, also where the same was answered a moment ago.
    pub fn submit(&mut self, id: u64, command: Command) -> Effect {
        self.under_way.insert(id, (Intent::of(&command), command.clone()));
        Effect::Propose { id, command: Box::new(command) }
    }

    /// How often in a row this did not reach the leader.
    pub fn failures_of(&self, command: &Command) -> u32 {
        if self.failures.is_empty() {
            return 0;
        }
        let wanted = Intent::of(command);
        self.failures.iter().find(|(i, _)| *i == wanted).map_or(0, |(_, n)| *n)
    }

    /// A proposal ended. Returns its command.
    pub fn ended(&mut self, now: Instant, id: u64, end: End) -> Option<Command> {
        let (wanted, command) = self.under_way.remove(&id)?;
        let failed = if end == End::Unreached { self.failures_of(&command) + 1 } else { 0 };
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
        let hold = match end {
            End::Refused | End::Unreached if matches!(command, Command::Join { .. }) => self.joined_in_vain(&wanted),
            End::Unreached => RETRY,
            End::Accepted | End::Refused => HOLD,
        };
        self.held.push((wanted, now + hold));
        Some(command)
    }

    /// The pause after a join that came to nothing. What is refused on an old copy of the ledger may be accepted on the
    /// next one, so it is short at first; whatever is wrong for longer is not asked of the ledger with every entry.
    fn joined_in_vain(&mut self, wanted: &Intent) -> Duration {
        let before = self.joins_in_vain.as_ref().filter(|(intent, _)| intent == wanted).map_or(0, |(_, times)| *times);
        self.joins_in_vain = Some((wanted.clone(), before + 1));
        RETRY.saturating_mul(1 << before.min(6)).min(JOIN_PAUSE_MAX)
    }

    /// A new leader or term: what is under way is not waited for any more.
    pub fn forget(&mut self) {
        self.under_way.clear();
        self.held.clear();
        self.failures.clear();
        self.joins_in_vain = None;
    }

    /// When a held intent may be tried again.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.held.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Claim, ClaimState, Machine};
    use crate::types::{Epoch, FenceId};

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
            (0..2).for_each(|id| assert!(outbox.ended(now, id, End::Unreached).is_some()));
            now += RETRY;
        }
        outbox.propose(now, 9, commands[0].clone(), Some(Route::Local));
        outbox.ended(now, 9, End::Accepted);
        assert_eq!(
            commands.map(|c| outbox.failures_of(&c)),
            [0, 4],
            "what one reaches says nothing of the other's way"
        );
    }

    fn join(request: u64, epoch: u64) -> Command {
        let claim = Claim { epoch: Epoch(epoch), state: ClaimState::Over { position: None } };
        Command::Join {
            node: "db1".parse().expect("a valid name"),
            boot: crate::types::Boot("db1-boot1".into()),
            request,
            succeeds: None,
            machine: Machine { id: "db1".to_owned(), ..Machine::default() },
            claims: [("orders".parse().expect("a valid name"), claim)].into(),
        }
    }

    #[test]
    fn a_join_is_proposed_again_after_a_pause_that_grows_whatever_it_claims_by_then() {
        let (mut outbox, mut now) = (Outbox::default(), Instant(0));
        let mut pauses = Vec::new();
        for (id, end) in (0..7).zip([End::Refused, End::Unreached].into_iter().cycle()) {
            assert!(outbox.propose(now, id, join(1, id), Some(Route::Local)).is_some());
            assert!(outbox.propose(now, 100, join(1, id + 1), Some(Route::Local)).is_none(), "one at a time");
            outbox.ended(now, id, end);
            assert!(outbox.propose(now, 100, join(1, id + 1), Some(Route::Local)).is_none(), "not at once");
            let at = outbox.next_wakeup().expect("it is proposed again");
            pauses.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 500, 500]);
        assert!(outbox.propose(now, 8, join(2, 9), Some(Route::Local)).is_some(), "the next need to join has its own");
        outbox.ended(now, 8, End::Refused);
        assert_eq!(outbox.next_wakeup(), Some(now + RETRY));
        outbox.forget();
        assert!(outbox.propose(now, 9, join(2, 9), Some(Route::Local)).is_some(), "a new leader is asked at once");
    }
}
