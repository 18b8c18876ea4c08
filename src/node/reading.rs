//! How current this node's copy of the ledger is. A copy that catches up passes through states that ended long ago, so
//! whatever acts on the world from the ledger asks first: the leader makes a quorum read and says how far a copy must be
//! applied to be no older than the question. Ages are counted on one clock, from before the question.
//!
//! For an order of a fence the answer is a warrant too: only the leader that proposed it, in that same term, knows how
//! long it has been running at most. The agent may act for the rest of its time, and nobody ends the order before all of
//! that time has passed since it was applied (as with a lease: whoever acts counts from before, everybody else from
//! after). The leader's own proposal, once committed, is such an answer to itself.
//!
//! Not here: what is run, and what the ledger says of it (`runs.rs`).

use super::context::{Context, Route};
use super::desk::Desk;
use super::mail::{QuorumRead, ReplyTo, What};
use super::{PeerRequest, PeerResponse};
use crate::ledger::{Command, Order};
use crate::types::{AgentAction, FenceId, Instant, LogIndex, Term};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause before the same is asked again after no answer, or one that is not enough.
const PAUSE: Duration = Duration::from_millis(100);

/// What a leader proposed, so that it can be found again once it is an order of the ledger.
pub(super) type Proposed = (Term, FenceId, AgentAction, Option<u32>, u32);

/// What a read is for: the copy as such, or one order.
pub(super) type Subject = Option<(FenceId, u32)>;

/// A read under way, or answered and not yet applied.
#[derive(Clone, Debug)]
struct Read {
    subject: Subject,
    asked: Instant,
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    term: Term,
    applied: LogIndex,
    age: Option<Duration>,
}

/// What a read of an order found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warrant {
    /// It still ran when the question was asked, and for this long already at most.
    Runs { asked: Instant, age: Duration, term: Term },
    /// The leader of this term did not order it in this term, or it does not run any more.
    None { asked: Instant, term: Term },
}

/// All reads of a node.
#[derive(Debug, Default)]
pub(super) struct Reading {
    reads: BTreeMap<u64, Read>,
    /// This copy has everything that was committed before this moment.
    current: Option<Instant>,
    /// It had this daemon's own join once: it shows nothing any more of before this daemon.
    has_own_join: bool,
    warrants: BTreeMap<(FenceId, u32), Warrant>,
    /// When this node, as the leader of that term, proposed first what is no order of the ledger yet.
    proposed: BTreeMap<Proposed, Instant>,
    /// The same for each order that came of it: its age counts from here. The next of its kind has an age of its own.
    accepted: BTreeMap<(FenceId, u32), Instant>,
    /// Nothing is asked anew before this, by subject; how often in a row that failed.
    again: BTreeMap<Subject, (Instant, u32)>,
}

impl Reading {
    /// Whether this copy is no older than what is accepted of anybody; otherwise it asks.
    pub fn is_current(&mut self, desk: &mut Desk) -> bool {
        let fresh = self.current.is_some_and(|at| desk.context.now.since(at) <= desk.context.timing.acceptable_pause);
        if !fresh {
            self.read(desk, None);
        }
        fresh
    }

    /// Whether this copy has everything that was committed before that moment; otherwise it asks.
    pub fn is_current_since(&mut self, desk: &mut Desk, moment: Instant) -> bool {
        let is_newer = self.current.is_some_and(|at| at >= moment);
        if !is_newer {
            self.read(desk, None);
        }
        is_newer
    }

    /// Whether this copy was ever current since the daemon started, or had a join of this daemon; otherwise it asks.
    pub fn has_been_current(&mut self, desk: &mut Desk) -> bool {
        let known = self.was_current();
        if !known {
            self.read(desk, None);
        }
        known
    }

    /// Whether this copy was ever current since the daemon started.
    pub fn was_current(&self) -> bool {
        self.has_own_join || self.current.is_some()
    }

    /// The own join is applied.
    pub fn note_own_join(&mut self) {
        self.has_own_join = true;
    }

    /// The present leader's word on an order that is this node's to run; `None` while it is asked for.
    pub fn warrant(&mut self, desk: &mut Desk, fence: FenceId, order: &Order) -> Option<Warrant> {
        let (now, pause) = (desk.context.now, desk.context.timing.acceptable_pause);
        // What this very leader proposed a moment ago, and is committed, needs no question.
        if desk.context.leads == Some(order.term)
            && let Some(asked) = self.proposed_at(fence, order).filter(|at| now.since(*at) <= pause)
        {
            return Some(Warrant::Runs { asked, age: Duration::ZERO, term: order.term });
        }
        let key = (fence, order.number);
        let fits = |w: &Warrant| match w {
            Warrant::Runs { asked, term, .. } | Warrant::None { asked, term } => {
                // This node may hear of an election after the leader's own answer.
                *term >= desk.context.term && now.since(*asked) <= pause
            }
        };
        if let Some(warrant) = self.warrants.get(&key).copied().filter(fits) {
            return Some(warrant);
        }
        self.warrants.remove(&key);
        self.read(desk, Some(key));
        None
    }

    fn proposed_at(&self, fence: FenceId, order: &Order) -> Option<Instant> {
        self.accepted.get(&(fence, order.number)).copied()
    }

    /// The ledger has new orders: the age of those that this leader proposed is known, and what is proposed from now on has
    /// an age of its own.
    pub fn note_accepted(&mut self, fence: FenceId, orders: &[Order]) {
        let key = |order: &Order| (order.term, fence, order.action, order.level, order.round);
        for order in orders {
            if let Some(at) = self.proposed.get(&key(order)) {
                self.accepted.insert((fence, order.number), *at);
            }
        }
        for order in orders {
            self.proposed.remove(&key(order));
        }
    }

    /// This leader proposes it: the first time is what its age counts from.
    pub fn note_proposed(&mut self, now: Instant, command: &Command) {
        for key in proposed(command) {
            self.proposed.entry(key).or_insert(now);
        }
    }

    /// The ledger refused it: it will be another order that is accepted.
    pub fn forget_proposed_order(&mut self, command: &Command) {
        for key in proposed(command) {
            self.proposed.remove(&key);
        }
    }

    fn read(&mut self, desk: &mut Desk, subject: Subject) {
        if self.reads.values().any(|read| read.subject == subject) {
            return;
        }
        let (again_at, failures) = self.again.get(&subject).copied().unwrap_or_default();
        if desk.context.now < again_at {
            return;
        }
        let Some(route) = desk.context.route(failures) else { return };
        let (now, deadline) = (desk.context.now, desk.context.timing.acceptable_pause);
        let request = PeerRequest::Read { order: subject };
        let (to, request) = match route {
            Route::Local => {
                let id = desk.mail.id();
                self.reads.insert(id, Read { subject, asked: now, answer: None });
                return desk.mail.read(QuorumRead::Copy { reply: ReplyTo::OwnRead(id), subject });
            }
            Route::Leader(to) => (to, request),
            Route::Through(to) => (to, PeerRequest::Relay(Box::new(request))),
        };
        let id = desk.mail.ask(to, What::Read, request, deadline);
        self.reads.insert(id, Read { subject, asked: now, answer: None });
    }

    /// The leader's answer, once a quorum has answered it: its ledger is applied up to the read.
    pub fn confirmed(&self, context: &Context, subject: Subject) -> PeerResponse {
        let Some(term) = context.leads else { return PeerResponse::NotLeader { leader: None } };
        let order = subject.and_then(|(fence, order)| {
            let order = context.state.fences.get(&fence)?.order(order)?;
            (order.is_running() && order.term == term).then_some((fence, order))
        });
        let age = order.and_then(|(fence, order)| Some(context.now.since(self.proposed_at(fence, order)?)));
        PeerResponse::Read { term, applied: context.state.applied, age }
    }

    /// The answer to a read of this node, its own as the leader included.
    pub fn answered(&mut self, context: &Context, id: u64, response: Result<PeerResponse, String>) {
        let now = context.now;
        let Some(read) = self.reads.get_mut(&id) else { return };
        let subject = read.subject;
        match response {
            Ok(PeerResponse::Read { term, applied, age }) => {
                read.answer = Some(Answer { term, applied, age });
                self.again.remove(&subject);
                self.finish(context);
            }
            Ok(_) | Err(_) => {
                self.reads.remove(&id);
                let failures = self.again.get(&subject).map_or(0, |(_, n)| *n) + 1;
                self.again.insert(subject, (now + PAUSE, failures));
            }
        }
    }

    /// What is answered, and applied here up to the answer, is known.
    pub fn finish(&mut self, context: &Context) {
        if self.reads.is_empty() {
            return;
        }
        let (now, applied) = (context.now, context.state.applied);
        let mut done = Vec::new();
        self.reads.retain(|_, read| {
            let ready = read.answer.as_ref().is_some_and(|answer| applied >= answer.applied);
            if ready {
                done.push(read.clone());
            }
            !ready
        });
        for Read { subject, asked, answer } in done {
            let Some(Answer { term, age, .. }) = answer else { continue };
            self.current = self.current.max(Some(asked));
            // Whatever it is worth, the same is not asked again at once.
            self.again.insert(subject, (now + PAUSE, 0));
            let Some(key) = subject else { continue };
            let warrant = match age {
                Some(age) => Warrant::Runs { asked, age, term },
                None => Warrant::None { asked, term },
            };
            self.warrants.insert(key, warrant);
        }
    }

    /// Drops what nobody asks about any more, and what leads nowhere under another leader.
    pub fn forget(&mut self) {
        self.reads.retain(|_, read| read.answer.is_some());
        self.again.clear();
    }

    /// What ended is not looked at any more.
    pub fn tidy(&mut self, context: &Context) {
        let state = &context.state;
        let runs = |(fence, order): &(FenceId, u32)| {
            state.fences.get(fence).and_then(|f| f.order(*order)).is_some_and(Order::is_running)
        };
        self.warrants.retain(|key, _| runs(key));
        self.again.retain(|subject, _| subject.as_ref().is_none_or(runs));
        self.accepted.retain(|key, _| runs(key));
        self.proposed.retain(|(_, fence, ..), _| state.fences.get(fence).is_some_and(|f| f.is_open()));
    }

    /// When a read that failed may be tried again.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        self.again.values().map(|(at, _)| *at)
    }
}

fn proposed(command: &Command) -> Vec<Proposed> {
    let Command::Order { fence, term, level, round, orders } = command else { return Vec::new() };
    let mut keys: Vec<_> = orders.iter().map(|o| (*term, *fence, o.action, *level, *round)).collect();
    keys.dedup();
    keys
}
