//! What leaves a node while one event is handled: effects in their order, proposals to the ledger, and questions to peers
//! with what each is about, so that an answer finds its way back.
//!
//! Not here: what is proposed or asked, and what an answer means (each part's own).

use super::context::{Context, Route};
use super::outbox::{End, Outbox};
use super::reading::Subject;
use super::{Effect, PeerRequest, PeerResponse, Said};
use crate::lease::LeaseRequest;
use crate::ledger::{Answer, Command};
use crate::plan::Question;
use crate::types::{Epoch, Incarnation, Instant, NodeName, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Mail {
    effects: Vec<Effect>,
    last_id: u64,
    asks: BTreeMap<u64, Asking>,
    reads: BTreeMap<u64, QuorumRead>,
    outbox: Outbox,
    /// Proposals whose end an operator waits for, and under which number.
    awaited: Vec<(u64, u64)>,
}

/// How a proposal ended. `Err`: it did not reach the leader (who that is, if known), or nobody knows what became of it.
pub(super) type Proposed = Result<Answer, Option<NodeName>>;

/// A quorum read under way: what waits for it.
#[derive(Clone, Debug)]
pub(super) enum QuorumRead {
    /// A grant.
    Lease { reply: ReplyTo, request: LeaseRequest },
    /// The word that a copy of the ledger is current.
    Copy { reply: ReplyTo, subject: Subject },
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyTo {
    Peer(u64),
    /// This node asked itself: it leads.
    Own,
    /// The same, for the read with this number.
    OwnRead(u64),
}

/// A question under way.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub to: NodeName,
    pub what: What,
}

/// What a question under way is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Proposal,
    /// How current this node's copy is.
    Read,
    Lease(Wanted),
    Question {
        to: NodeName,
        question: Question,
    },
    /// Passed on for somebody else.
    Relayed {
        reply: u64,
    },
}

/// A lease that was asked for: what the answer is about, by whichever way it comes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub service: ServiceName,
    pub epoch: Epoch,
    pub incarnation: Incarnation,
}

impl Wanted {
    pub fn of(request: &LeaseRequest) -> Wanted {
        Wanted { service: request.service.clone(), epoch: request.epoch, incarnation: request.incarnation }
    }
}

impl Default for Mail {
    fn default() -> Self {
        let (asks, reads) = (BTreeMap::new(), BTreeMap::new());
        Mail { effects: Vec::new(), last_id: 1, asks, reads, outbox: Outbox::default(), awaited: Vec::new() }
    }
}

impl Mail {
    /// A number that nothing else of this daemon has.
    pub fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn say(&mut self, said: Said) {
        self.effects.push(Effect::Say(said));
    }

    pub fn reply(&mut self, reply: u64, response: PeerResponse) {
        self.effects.push(Effect::Reply { reply, response });
    }

    /// Everything, in the order in which it came.
    pub fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Proposes a command to wherever the leader is. True where this node itself, as the leader, does so now.
    pub fn propose(&mut self, context: &Context, command: Command) -> bool {
        let route = context.route(self.outbox.failures_of(&command));
        let id = self.id();
        let (is_own, to) = match &route {
            Some(Route::Leader(to) | Route::Through(to)) => (false, Some(to.clone())),
            route => (*route == Some(Route::Local), None),
        };
        let Some(effect) = self.outbox.propose(context.now, id, command, route) else { return false };
        if let Some(to) = to {
            self.asks.insert(id, Asking { to, what: What::Proposal });
        }
        self.effects.push(effect);
        is_own
    }

    /// Proposes what an operator asks for. Where the very same is under way, its end is told for both; nothing is held
    /// back, because a person waits.
    pub fn submit(&mut self, context: &Context, number: u64, command: Command) {
        if context.leads.is_none() {
            return self.effects.push(Effect::Told { number, result: Err(context.leader.clone()) });
        }
        let id = self.outbox.number_of(&command).unwrap_or_else(|| {
            let id = self.id();
            let effect = self.outbox.submit(id, command);
            self.effects.push(effect);
            id
        });
        self.awaited.push((id, number));
    }

    /// A proposal ended: what it was, if it was this node's own and is still wanted.
    pub fn proposal_ended(&mut self, now: Instant, id: u64, result: &Proposed) -> Option<Command> {
        let told = self.awaited.extract_if(.., |(of, _)| *of == id).map(|(_, number)| number);
        self.effects.extend(told.map(|number| Effect::Told { number, result: result.clone() }));
        let end = match result {
            Ok(Answer::Refused(_)) => End::Refused,
            Ok(Answer::Done(_)) => End::Accepted,
            Err(_) => End::Unreached,
        };
        self.outbox.ended(now, id, end)
    }

    /// Puts a question to a peer. Returns its number.
    pub fn ask(&mut self, to: NodeName, what: What, request: PeerRequest, deadline: Duration) -> u64 {
        let id = self.id();
        self.asks.insert(id, Asking { to: to.clone(), what });
        self.effects.push(Effect::Ask { id, to, request, deadline });
        id
    }

    /// Proposes for a peer, which is told how it ended.
    pub fn propose_for(&mut self, from: NodeName, reply: Option<u64>, command: Box<Command>) {
        let id = self.id();
        if let Some(reply) = reply {
            self.asks.insert(id, Asking { to: from, what: What::Relayed { reply } });
        }
        self.effects.push(Effect::Propose { id, command });
    }

    /// Begins a quorum read, for what waits for it.
    pub fn read(&mut self, what: QuorumRead) {
        let id = self.id();
        self.reads.insert(id, what);
        self.effects.push(Effect::QuorumRead { id });
    }

    /// What waited for this read, once.
    pub fn read_ended(&mut self, id: u64) -> Option<QuorumRead> {
        self.reads.remove(&id)
    }

    /// What this node asked of itself as the leader is answered by nobody any more.
    pub fn forget_own_reads(&mut self) {
        self.reads.clear();
    }

    /// What was asked under this number, once.
    pub fn answered(&mut self, id: u64) -> Option<Asking> {
        self.asks.remove(&id)
    }

    /// Whom the end of this proposal is to be told, if it was a peer's.
    pub fn relayed(&mut self, id: u64) -> Option<u64> {
        match self.asks.remove(&id)? {
            Asking { what: What::Relayed { reply }, .. } => Some(reply),
            _ => None,
        }
    }

    pub fn is_asking(&self, what: &What) -> bool {
        self.asks.values().any(|asking| asking.what == *what)
    }

    /// A new leader or term: proposals and reads under way are not waited for any more.
    pub fn forget(&mut self) {
        self.outbox.forget();
        self.asks.retain(|_, a| !matches!(a.what, What::Proposal | What::Read));
    }

    /// When a proposal that was held back may be made again.
    pub fn due(&self) -> Option<Instant> {
        self.outbox.next_wakeup()
    }
}
