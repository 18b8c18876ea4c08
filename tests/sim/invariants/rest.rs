//! Nothing is done again and again without end: a level-triggered plan must come to rest. Counted is what each daemon does
//! of its own accord, by kind: what it orders of its databases, proposes as the leader, asks of others, runs, arms, and
//! says. What operators order, and what a fault proposes once more, is not regent's.

use crate::cluster::{Handling, S, World};
use regent::ledger::OrderState;
use regent::node::{Effect, PeerRequest};
use std::collections::{BTreeMap, VecDeque};

/// One kind of doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Action,
    Proposal,
    Question,
    Read,
    Agent,
    Arming,
    Line,
}

/// Each kind, its name, and how many in ten seconds are a loop: for one daemon, and for each service and each fence that is
/// open, or each of its orders where several run at once. Nothing that fails is tried more often than each 500 ms for long (an assistant each two seconds, a look at how
/// current the own copy is each 100 ms). Questions are counted for each peer that is asked: each has pauses of its own, and
/// what is asked of everybody is asked of so many.
const KINDS: &[(Kind, &str, usize)] = &[
    (Kind::Action, "database actions", 40),
    (Kind::Proposal, "proposals", 100),
    (Kind::Question, "questions to one peer", 60),
    (Kind::Read, "reads", 120),
    (Kind::Agent, "runs of agents", 24),
    (Kind::Arming, "tries to arm the watchdog", 12),
    (Kind::Line, "lines in the log", 160),
];

const WINDOW: u64 = 10 * S;

/// What is counted together: what a daemon does of a kind, or of whom it asks.
type Counted = (usize, Kind, Option<usize>);

/// What every daemon did in the last ten seconds.
#[derive(Default)]
pub struct Rest {
    /// When, and how many services and open fences there were then: a fence that was closed since explains what was done
    /// for it before.
    done: BTreeMap<Counted, VecDeque<(u64, usize)>>,
    last: BTreeMap<(usize, Kind), u64>,
    /// The most of each kind that one daemon did in ten seconds.
    pub most: BTreeMap<&'static str, u64>,
    over: Option<(usize, &'static str, usize)>,
}

impl Rest {
    fn note(&mut self, now: u64, counted: Counted, concerns: usize) {
        let (host, kind, _) = counted;
        let done = self.done.entry(counted).or_default();
        done.push_back((now, concerns));
        while done.front().is_some_and(|(at, _)| at + WINDOW < now) {
            done.pop_front();
        }
        let count = done.len();
        let concerns = done.iter().map(|(_, concerns)| *concerns).max().unwrap_or(1);
        self.last.insert((host, kind), now);
        let (_, name, limit) = KINDS.iter().find(|(k, ..)| *k == kind).expect("every kind is listed");
        let most = self.most.entry(name).or_default();
        *most = (*most).max(count as u64);
        if count > limit * concerns {
            self.over.get_or_insert((host, name, count));
        }
    }

    /// What was done last, by somebody of these, and when.
    pub fn last(&self, of: impl Fn(usize) -> bool) -> Option<(u64, usize, &'static str)> {
        let last = self.last.iter().filter(|((host, _), _)| of(*host)).max_by_key(|(_, at)| **at);
        let name = |kind| KINDS.iter().find(|(k, ..)| *k == kind).map_or("?", |(_, name, _)| *name);
        last.map(|((host, kind), at)| (*at, *host, name(*kind)))
    }
}

fn kind(w: &World, host: usize, effect: &Effect) -> Option<(Kind, Option<usize>)> {
    let kind = match effect {
        Effect::Db { .. } => Kind::Action,
        Effect::Propose { .. } if w.log.leader.is_some_and(|(leader, _)| leader == host) => Kind::Proposal,
        Effect::Ask { request: PeerRequest::Question(_), to, .. } => return Some((Kind::Question, Some(w.host(to)))),
        Effect::Ask { request, .. } if is_read(request) => Kind::Read,
        Effect::RunAgent { .. } => Kind::Agent,
        Effect::ArmWatchdog => Kind::Arming,
        Effect::Say(_) => Kind::Line,
        _ => return None,
    };
    Some((kind, None))
}

/// A read, also one that another voter is to pass on.
fn is_read(request: &PeerRequest) -> bool {
    match request {
        PeerRequest::Read { .. } => true,
        PeerRequest::Relay(inner) => is_read(inner),
        _ => false,
    }
}

/// What is passed on for another node counts for that one, and not for the voter that it goes through.
pub fn asked_for(w: &mut World, host: usize, handling: Handling, effect: &Effect) {
    if handling == Handling::PassingOn && matches!(effect, Effect::Ask { .. }) {
        return;
    }
    if let Some((kind, of)) = kind(w, host, effect) {
        let open = w.log.state().fences.values().filter(|f| f.is_open());
        let orders = open.map(|f| f.orders.iter().filter(|o| o.state == OrderState::Running).count().max(1));
        let concerns = w.services.len() + orders.sum::<usize>();
        w.facts.rest.note(w.now, (host, kind, of), concerns);
    }
}

pub fn check(w: &mut World) {
    if let Some((host, name, count)) = w.facts.rest.over {
        w.violate("rest", format!("{count} {name} of {} in ten seconds", w.hosts[host].name));
    }
}
