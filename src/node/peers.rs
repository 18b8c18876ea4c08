//! Questions between nodes: what this node asked, what it was asked, and what it still owes an answer to.

use super::context::Route;
use super::mail::{ReplyTo, What};
use super::{Node, PeerRequest, PeerResponse, outbox};
use crate::ledger::{Answer, Sighting};
use crate::plan::{Checked, Question};
use crate::types::{Instant, NodeName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause before a question that got no answer of use is put again; it doubles.
const PAUSE: Duration = Duration::from_millis(30);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Questions of the coordinator that got no answer of use: each has a pause of its own. A peer that cannot be connected
/// answers at once, and so does one that has nothing to say.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<(NodeName, Question, u32, Instant)>);

impl Questions {
    /// Whether it is not to be put again yet.
    pub fn rests(&self, now: Instant, to: &NodeName, question: &Question) -> bool {
        self.0.iter().any(|(n, q, _, at)| (n, q) == (to, question) && now < *at)
    }

    fn answered(&mut self, now: Instant, by: &NodeName, question: &Question, of_use: bool) {
        let before = self.0.iter().find(|(n, q, ..)| (n, q) == (by, question)).map_or(0, |(_, _, times, _)| *times);
        self.0.retain(|(n, q, _, at)| (n, q) != (by, question) && now < *at + PAUSE_MAX * 4);
        if !of_use {
            let pause = PAUSE.saturating_mul(1 << before.min(6)).min(PAUSE_MAX);
            self.0.push((by.clone(), question.clone(), before + 1, now + pause));
        }
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// When one may be put again.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.0.iter().map(|(.., at)| *at).min()
    }
}

/// A question whose answer takes time.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub reply: ReplyTo,
    pub from: NodeName,
    pub question: Question,
    pub since: Instant,
}

impl Pending {
    /// Whether it is this question of this node to itself.
    pub fn is(&self, from: &NodeName, question: &Question) -> bool {
        self.reply == ReplyTo::Own && &self.from == from && &self.question == question
    }
}

impl Node {
    pub(super) fn asked(&mut self, reply: ReplyTo, from: NodeName, request: PeerRequest) {
        match request {
            PeerRequest::Question(question) => self.question(reply, from, question),
            PeerRequest::Lease(request) => self.lease_asked(reply, request),
            PeerRequest::Propose(command) => {
                if self.lead.is_none() {
                    return self.reply(reply, PeerResponse::NotLeader { leader: self.context.leader.clone() });
                }
                let reply = if let ReplyTo::Peer(reply) = reply { Some(reply) } else { None };
                self.mail.propose_for(from, reply, command);
            }
            PeerRequest::Read { order } => self.read_asked(reply, order),
            PeerRequest::Relay(request) => self.relay(reply, from, *request),
        }
    }

    /// Passes a request on to the leader, once.
    fn relay(&mut self, reply: ReplyTo, from: NodeName, request: PeerRequest) {
        match (self.context.route(0), reply) {
            (Some(Route::Local), _) => self.asked(reply, from, request),
            (Some(Route::Leader(to)), ReplyTo::Peer(reply)) if to != from => {
                self.mail.ask(to, What::Relayed { reply }, request, outbox::DEADLINE);
            }
            _ => self.reply(reply, PeerResponse::NotLeader { leader: self.context.leader.clone() }),
        }
    }

    fn question(&mut self, reply: ReplyTo, from: NodeName, question: Question) {
        if let Question::Look { target, .. } = &question {
            let answer = match self.views().remove(target) {
                Some(view) => PeerResponse::Sighting(Sighting { silent_ms: self.silence(target), view }),
                None => PeerResponse::Failed { why: format!("no view of {target}") },
            };
            return self.answer_question(reply, &from, &question, answer);
        }
        self.pending.push(Pending { reply, from, question, since: self.context.now });
    }

    fn silence(&self, target: &NodeName) -> BTreeMap<crate::types::ChannelName, u64> {
        let heard = self.beats_heard.get(target);
        heard
            .into_iter()
            .flatten()
            .map(|(channel, at)| (channel.clone(), self.context.now.since(*at).as_millis() as u64))
            .collect()
    }

    /// Answers what can be answered by now.
    pub(super) fn answer_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let mut own = false;
        for p in pending {
            let answer = match &p.question {
                Question::Check { fence, refuted, term } => self.check_answer(*fence, *refuted, *term, p.since),
                Question::Seal { service, epoch } => {
                    let (subject, unguarded) = ((service, *epoch), self.watchdog.failure());
                    self.tenants.seal_answer(&self.context, &mut self.mail, subject, p.since, unguarded)
                }
                Question::Look { .. } => Some(PeerResponse::Failed { why: "answered at once".to_owned() }),
            };
            match answer {
                Some(answer) => {
                    own |= p.reply == ReplyTo::Own;
                    self.answer_question(p.reply, &p.from, &p.question, answer);
                }
                None => self.pending.push(p),
            }
        }
        if own {
            self.coordinate();
        }
    }

    fn answer_question(&mut self, reply: ReplyTo, from: &NodeName, question: &Question, answer: PeerResponse) {
        match reply {
            ReplyTo::Peer(_) | ReplyTo::OwnRead(_) => self.reply(reply, answer),
            ReplyTo::Own => self.take_answer(from.clone(), question, Ok(answer)),
        }
    }

    pub(super) fn reply(&mut self, reply: ReplyTo, response: PeerResponse) {
        match (reply, response) {
            (ReplyTo::Peer(reply), response) => self.mail.reply(reply, response),
            (ReplyTo::OwnRead(id), response) => self.read_answered(id, Ok(response)),
            (ReplyTo::Own, _) => {}
        }
    }

    /// The end of something that this node asked.
    pub(super) fn answered(&mut self, id: u64, response: Result<PeerResponse, String>) {
        let Some(asking) = self.mail.answered(id) else { return };
        match asking.what {
            What::Relayed { reply } => {
                let response = response.unwrap_or_else(|why| PeerResponse::Failed { why });
                self.mail.reply(reply, response);
            }
            What::Proposal => self.proposal_answered(id, response),
            What::Read => self.read_answered(id, response),
            What::Lease { service } => {
                self.tenants.lease_answered(&self.context, &mut self.mail, &service, response);
            }
            What::Question { question, .. } => self.take_answer(asking.to, &question, response),
        }
    }

    fn proposal_answered(&mut self, id: u64, response: Result<PeerResponse, String>) {
        let result = match response {
            Ok(PeerResponse::Proposed(answer)) => Ok(*answer),
            Ok(PeerResponse::NotLeader { leader }) => Err(leader),
            Ok(_) | Err(_) => Err(None),
        };
        self.proposal_ended(id, result);
    }

    /// A proposal of somebody else, made here, ended.
    pub(super) fn reply_relayed_proposal(&mut self, id: u64, result: &Result<Answer, Option<NodeName>>) {
        let Some(reply) = self.mail.relayed(id) else { return };
        let response = match result {
            Ok(answer) => PeerResponse::Proposed(Box::new(answer.clone())),
            Err(leader) => PeerResponse::NotLeader { leader: leader.clone() },
        };
        self.mail.reply(reply, response);
    }

    /// An answer to one of the coordinator's questions; those of an earlier term have nobody to go to.
    fn take_answer(&mut self, from: NodeName, question: &Question, answer: Result<PeerResponse, String>) {
        let of_use = match &answer {
            Ok(PeerResponse::Failed { .. } | PeerResponse::Seal(Err(_))) | Err(_) => false,
            Ok(_) => true,
        };
        self.questions.answered(self.context.now, &from, question, of_use);
        let Some(lead) = &mut self.lead else { return };
        match (question, answer) {
            (Question::Look { target, round, term, .. }, Ok(PeerResponse::Sighting(sighting)))
                if *term == lead.term =>
            {
                if let Some(look) = lead.looks.get_mut(target).filter(|l| l.round == *round) {
                    look.answers.insert(from, sighting);
                }
            }
            (Question::Check { fence, refuted, term }, Ok(PeerResponse::Check(answer))) if *term == lead.term => {
                let checked = Checked { answer, at: self.context.now };
                lead.checks.entry((*fence, *refuted)).or_default().insert(from, checked);
            }
            (Question::Seal { service, epoch }, answer) => {
                let report = match answer {
                    Ok(PeerResponse::Seal(report)) => report,
                    Ok(PeerResponse::Failed { why }) | Err(why) => Err(why),
                    Ok(_) => Err("it gave an answer that does not fit".to_owned()),
                };
                lead.seals.entry((service.clone(), *epoch)).or_default().insert(from, report);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Term};

    #[test]
    fn a_question_without_an_answer_of_use_is_put_again_after_a_pause_that_grows() {
        let node = |name: &str| name.parse::<NodeName>().expect("a valid name");
        let seal = |epoch| Question::Seal { service: "orders".parse().expect("a valid name"), epoch: Epoch(epoch) };
        let check = Question::Check { fence: crate::types::FenceId(1), refuted: 0, term: Term(1) };
        let (mut questions, mut now) = (Questions::default(), Instant(0));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(!questions.rests(now, &node("db2"), &seal(1)));
            questions.answered(now, &node("db2"), &seal(1), false);
            assert!(questions.rests(now, &node("db2"), &seal(1)), "not at once");
            let at = questions.next_wakeup().expect("it is put again");
            pauses.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 500, 500, 500]);
        questions.answered(now, &node("db2"), &seal(1), false);
        let other = [(node("db3"), seal(1)), (node("db2"), seal(2)), (node("db2"), check)];
        assert!(other.iter().all(|(to, question)| !questions.rests(now, to, question)), "each has a pause of its own");
        questions.answered(now, &node("db2"), &seal(1), true);
        assert!(!questions.rests(now, &node("db2"), &seal(1)));
    }
}
