//! Nothing is done again and again without end: a level-triggered plan must come to rest. Counted is what each daemon does
//! of its own accord, by kind: what it orders of its databases, proposes as the leader, asks of others, runs, arms, and
//! says. What operators order, and what a fault proposes once more, is not regent's.

use crate::cluster::{S, World};
use regent::node::{Effect, PeerRequest};
use std::collections::{BTreeMap, VecDeque};

/// One kind of doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Action,
    Proposal,
    Question,
    Agent,
    Arming,
    Line,
}

/// Each kind, its name, and how many in ten seconds are a loop: for one daemon, and for each service and each fence that is
/// open. Nothing that fails is tried more often than each 500 ms for long (an assistant each two seconds), and what is
/// asked of everybody is asked of so many.
const KINDS: &[(Kind, &str, usize)] = &[
    (Kind::Action, "database actions", 40),
    (Kind::Proposal, "proposals", 60),
    (Kind::Question, "questions", 120),
    (Kind::Agent, "runs of agents", 16),
    (Kind::Arming, "tries to arm the watchdog", 12),
    (Kind::Line, "lines in the log", 160),
];

const WINDOW: u64 = 10 * S;

/// What every daemon did in the last ten seconds.
#[derive(Default)]
pub struct Rest {
    done: BTreeMap<(usize, Kind), VecDeque<u64>>,
    last: BTreeMap<(usize, Kind), u64>,
    /// The most of each kind that one daemon did in ten seconds.
    pub most: BTreeMap<&'static str, u64>,
    over: Option<(usize, &'static str, usize)>,
}

impl Rest {
    fn note(&mut self, now: u64, host: usize, kind: Kind, concerns: usize) {
        let done = self.done.entry((host, kind)).or_default();
        done.push_back(now);
        while done.front().is_some_and(|at| at + WINDOW < now) {
            done.pop_front();
        }
        let count = done.len();
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

fn kind(w: &World, host: usize, effect: &Effect) -> Option<Kind> {
    match effect {
        Effect::Db { .. } => Some(Kind::Action),
        Effect::Propose { .. } if w.log.leader.is_some_and(|(leader, _)| leader == host) => Some(Kind::Proposal),
        Effect::Ask { request: PeerRequest::Question(_) | PeerRequest::Read { .. }, .. } => Some(Kind::Question),
        Effect::RunAgent { .. } => Some(Kind::Agent),
        Effect::ArmWatchdog => Some(Kind::Arming),
        Effect::Say { .. } => Some(Kind::Line),
        _ => None,
    }
}

pub fn asked_for(w: &mut World, host: usize, effect: &Effect) {
    if let Some(kind) = kind(w, host, effect) {
        let open = w.log.state().fences.values().filter(|f| f.is_open()).count();
        let concerns = w.services.len() + open;
        w.facts.rest.note(w.now, host, kind, concerns);
    }
}

pub fn check(w: &mut World) {
    if let Some((host, name, count)) = w.facts.rest.over {
        w.violate("rest", format!("{count} {name} of {} in ten seconds", w.hosts[host].name));
    }
}
