//! How current this node's copy of the ledger is. A copy that catches up passes through states that ended long ago, so
//! whatever acts on the world from the ledger asks first: the leader makes a quorum read and says how far a copy must be
//! applied to be no older than the question. Ages are counted on one clock, from before the question.
//!
//! For an order of a fence the answer is a warrant too: only the leader that proposed it, in that same term, knows how
//! long it has been running at most. The agent may act for the rest of its time, and nobody ends the order before all of
//! that time has passed since it was applied (as with a lease: whoever acts counts from before, everybody else from
//! after). The leader's own proposal, once committed, is such an answer to itself.
//!
//! Not here: what is run, and what the ledger says of it (`fences.rs`).

use super::context::Route;
use super::mail::{QuorumRead, ReplyTo, What};
use super::{Node, PeerRequest, PeerResponse};
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

impl Node {
    /// Whether this copy is no older than what is accepted of anybody; otherwise it asks.
    pub(super) fn is_current(&mut self) -> bool {
        let fresh =
            self.reading.current.is_some_and(|at| self.context.now.since(at) <= self.context.timing.acceptable_pause);
        if !fresh {
            self.read(None);
        }
        fresh
    }

    /// Whether this copy has everything that was committed before that moment; otherwise it asks.
    pub(super) fn is_current_since(&mut self, moment: Instant) -> bool {
        let is_newer = self.reading.current.is_some_and(|at| at >= moment);
        if !is_newer {
            self.read(None);
        }
        is_newer
    }

    /// Whether this copy was ever current since the daemon started, or had a join of this daemon; otherwise it asks.
    pub(super) fn has_been_current(&mut self) -> bool {
        let known = self.was_current();
        if !known {
            self.read(None);
        }
        known
    }

    /// Whether this copy was ever current since the daemon started.
    pub(super) fn was_current(&self) -> bool {
        self.reading.has_own_join || self.reading.current.is_some()
    }

    /// The own join is applied.
    pub(super) fn note_own_join(&mut self) {
        self.reading.has_own_join = true;
    }

    /// The present leader's word on an order that is this node's to run; `None` while it is asked for.
    pub(super) fn warrant(&mut self, fence: FenceId, order: &Order) -> Option<Warrant> {
        let (now, pause) = (self.context.now, self.context.timing.acceptable_pause);
        // What this very leader proposed a moment ago, and is committed, needs no question.
        if self.lead.as_ref().is_some_and(|lead| lead.term == order.term)
            && let Some(asked) = self.proposed_at(fence, order).filter(|at| now.since(*at) <= pause)
        {
            return Some(Warrant::Runs { asked, age: Duration::ZERO, term: order.term });
        }
        let key = (fence, order.number);
        let fits = |w: &Warrant| match w {
            Warrant::Runs { asked, term, .. } | Warrant::None { asked, term } => {
                // This node may hear of an election after the leader's own answer.
                *term >= self.context.term && now.since(*asked) <= pause
            }
        };
        if let Some(warrant) = self.reading.warrants.get(&key).copied().filter(fits) {
            return Some(warrant);
        }
        self.reading.warrants.remove(&key);
        self.read(Some(key));
        None
    }

    fn proposed_at(&self, fence: FenceId, order: &Order) -> Option<Instant> {
        self.reading.accepted.get(&(fence, order.number)).copied()
    }

    /// The ledger has new orders: the age of those that this leader proposed is known, and what is proposed from now on has
    /// an age of its own.
    pub(super) fn note_accepted(&mut self, fence: FenceId, orders: &[Order]) {
        let key = |order: &Order| (order.term, fence, order.action, order.level, order.round);
        for order in orders {
            if let Some(at) = self.reading.proposed.get(&key(order)) {
                self.reading.accepted.insert((fence, order.number), *at);
            }
        }
        for order in orders {
            self.reading.proposed.remove(&key(order));
        }
    }

    /// This leader proposes it: the first time is what its age counts from.
    pub(super) fn note_proposed(&mut self, command: &Command) {
        let now = self.context.now;
        for key in proposed(command) {
            self.reading.proposed.entry(key).or_insert(now);
        }
        if let (Command::OpenFence { target, .. }, Some(lead)) = (command, &mut self.lead) {
            lead.lapse_said.insert(target.clone(), now);
        }
    }

    /// The ledger refused it: it will be another order that is accepted.
    pub(super) fn forget_proposed_order(&mut self, command: &Command) {
        for key in proposed(command) {
            self.reading.proposed.remove(&key);
        }
    }

    fn read(&mut self, subject: Subject) {
        if self.reading.reads.values().any(|read| read.subject == subject) {
            return;
        }
        let (again_at, failures) = self.reading.again.get(&subject).copied().unwrap_or_default();
        if self.context.now < again_at {
            return;
        }
        let Some(route) = self.context.route(failures) else { return };
        let (now, deadline) = (self.context.now, self.context.timing.acceptable_pause);
        let request = PeerRequest::Read { order: subject };
        let (to, request) = match route {
            Route::Local => {
                let id = self.mail.id();
                self.reading.reads.insert(id, Read { subject, asked: now, answer: None });
                return self.read_asked(ReplyTo::OwnRead(id), subject);
            }
            Route::Leader(to) => (to, request),
            Route::Through(to) => (to, PeerRequest::Relay(Box::new(request))),
        };
        let id = self.mail.ask(to, What::Read, request, deadline);
        self.reading.reads.insert(id, Read { subject, asked: now, answer: None });
    }

    /// The leader's side: first the quorum read, as for a lease.
    pub(super) fn read_asked(&mut self, reply: ReplyTo, subject: Subject) {
        if self.lead.is_none() {
            return self.reply(reply, PeerResponse::NotLeader { leader: self.context.leader.clone() });
        }
        self.mail.read(QuorumRead::Copy { reply, subject });
    }

    /// The quorum has answered; the ledger here is applied up to the read.
    pub(super) fn read_confirmed(&mut self, reply: ReplyTo, subject: Subject) {
        let Some(term) = self.lead.as_ref().map(|lead| lead.term) else {
            return self.reply(reply, PeerResponse::NotLeader { leader: None });
        };
        let order = subject.and_then(|(fence, order)| {
            let order = self.context.state.fences.get(&fence)?.orders.get(order as usize)?;
            (order.is_running() && order.term == term).then_some((fence, order))
        });
        let age = order.and_then(|(fence, order)| Some(self.context.now.since(self.proposed_at(fence, order)?)));
        self.reply(reply, PeerResponse::Read { term, applied: self.context.state.applied, age });
    }

    /// The answer to a read of this node, its own as the leader included.
    pub(super) fn read_answered(&mut self, id: u64, response: Result<PeerResponse, String>) {
        let now = self.context.now;
        let Some(read) = self.reading.reads.get_mut(&id) else { return };
        let subject = read.subject;
        match response {
            Ok(PeerResponse::Read { term, applied, age }) => {
                read.answer = Some(Answer { term, applied, age });
                self.reading.again.remove(&subject);
                self.finish_reads();
            }
            Ok(_) | Err(_) => {
                self.reading.reads.remove(&id);
                let failures = self.reading.again.get(&subject).map_or(0, |(_, n)| *n) + 1;
                self.reading.again.insert(subject, (now + PAUSE, failures));
            }
        }
    }

    /// What is answered, and applied here up to the answer, is known.
    pub(super) fn finish_reads(&mut self) {
        if self.reading.reads.is_empty() {
            return;
        }
        let (now, applied) = (self.context.now, self.context.state.applied);
        let mut done = Vec::new();
        self.reading.reads.retain(|_, read| {
            let ready = read.answer.as_ref().is_some_and(|answer| applied >= answer.applied);
            if ready {
                done.push(read.clone());
            }
            !ready
        });
        for Read { subject, asked, answer } in done {
            let Some(Answer { term, age, .. }) = answer else { continue };
            self.reading.current = self.reading.current.max(Some(asked));
            // Whatever it is worth, the same is not asked again at once.
            self.reading.again.insert(subject, (now + PAUSE, 0));
            let Some(key) = subject else { continue };
            let warrant = match age {
                Some(age) => Warrant::Runs { asked, age, term },
                None => Warrant::None { asked, term },
            };
            self.reading.warrants.insert(key, warrant);
        }
    }

    /// Drops what nobody asks about any more, and what leads nowhere under another leader.
    pub(super) fn forget_reads(&mut self) {
        self.reading.reads.retain(|_, read| read.answer.is_some());
        self.reading.again.clear();
    }

    /// What ended is not looked at any more.
    pub(super) fn tidy_reads(&mut self) {
        let state = &self.context.state;
        let runs = |(fence, order): &(FenceId, u32)| {
            state.fences.get(fence).and_then(|f| f.orders.get(*order as usize)).is_some_and(Order::is_running)
        };
        self.reading.warrants.retain(|key, _| runs(key));
        self.reading.again.retain(|subject, _| subject.as_ref().is_none_or(runs));
        self.reading.accepted.retain(|key, _| runs(key));
        self.reading.proposed.retain(|(_, fence, ..), _| state.fences.get(fence).is_some_and(|f| f.is_open()));
    }

    /// When a read that failed may be tried again.
    pub(super) fn reads_due(&self) -> impl Iterator<Item = Instant> {
        self.reading.again.values().map(|(at, _)| *at)
    }
}

/// Whether it matters when it was proposed.
pub(super) fn has_an_age(command: &Command) -> bool {
    matches!(command, Command::Order { .. } | Command::OpenFence { .. })
}

fn proposed(command: &Command) -> Vec<Proposed> {
    let Command::Order { fence, term, level, round, orders } = command else { return Vec::new() };
    let mut keys: Vec<_> = orders.iter().map(|o| (*term, *fence, o.action, *level, *round)).collect();
    keys.dedup();
    keys
}
