//! The leader's part: the coordinator of the present term, what it remembers of it, and what it asks of others.
//!
//! Not here: its decisions (`plan`), and how its steps leave (`mod.rs`).

use super::Said;
use super::context::Context;
use super::desk::Desk;
use super::mail::{Mail, What};
use super::owed::Owed;
use super::peers::Peers;
use super::questions::Questions;
use super::{PeerRequest, PeerResponse};
use crate::known_bugs::{self, Bug};
use crate::lease::{self, Denial, Grant, LeaseRequest};
use crate::ledger::{Command, State};
use crate::plan::{self, Applied, Checked, Lead, LookRound, Monitored, Note, Plan, Question, Step};
use crate::types::{AgentName, Instant, NodeName, Round, Term};

/// See the module.
#[derive(Default)]
pub(super) struct Leading {
    /// The book of the term in which this node leads.
    lead: Option<Lead>,
    /// That of the term in which it led last, while no quorum is behind it.
    led: Option<Lead>,
    plan: Plan,
    /// Kept by every node, for when it leads.
    applied: Applied,
    monitored: Monitored,
    /// No round has the number of an earlier one, whoever led meanwhile.
    last_round: Round,
    questions: Questions,
}

impl Leading {
    pub fn lead(&self) -> Option<&Lead> {
        self.lead.as_ref()
    }

    pub(super) fn lead_mut(&mut self) -> Option<&mut Lead> {
        self.lead.as_mut()
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// A newer copy of the ledger: when waiting counts from.
    pub fn ledger_moved(&mut self, now: Instant, before: &State, after: &State) {
        self.applied.note(before, after, now);
        // Where a level leaves the node alive, its standbys receive from it: what they reported before is not the end.
        let (services, lead) = (&before.services, self.lead.iter_mut());
        let received: Vec<_> = services.iter().filter(|(_, s)| before.is_received_from(s)).collect();
        lead.for_each(|lead| {
            lead.seals.retain(|(name, epoch), _| !received.iter().any(|(n, s)| *n == name && s.epoch == *epoch));
        });
    }

    /// A monitor of a device ended on this node.
    pub fn device_monitored(&mut self, now: Instant, agent: AgentName, target: NodeName, works: bool) {
        self.monitored.note(agent, target, works, now);
    }

    /// What was asked for the last leader is of no use to the next.
    pub fn forget_questions(&mut self) {
        self.questions.forget();
    }

    /// Takes the term in which this node leads, if another than before. True where it is another.
    pub fn take(&mut self, context: &Context) -> bool {
        if self.lead.as_ref().map(|l| l.term) == context.leads {
            return false;
        }
        self.led = self.lead.take().or(self.led.take());
        self.lead = context.leads.map(|term| self.book(context.now, term));
        true
    }

    /// The book of a term is kept for that term alone, and begins when this node holds the votes (H1.8). Where it only had no
    /// quorum for a moment, what it appointed and granted in this term stays known; everything is waited for anew.
    fn book(&mut self, now: Instant, term: Term) -> Lead {
        let led = self.led.take();
        if known_bugs::has(Bug::LeaseBookKept) {
            return led.map_or_else(|| Lead::new(term, now, self.last_round), |led| Lead { term, ..led });
        }
        let new = Lead::new(term, now, self.last_round);
        match led.filter(|led| led.term == term) {
            Some(Lead { appointed, renewed, .. }) => Lead { appointed, renewed, ..new },
            None => new,
        }
    }

    /// What the coordinator wants now; nothing where this node does not lead.
    pub fn coordinate(&mut self, desk: &mut Desk, peers: &Peers) -> Vec<Step> {
        let Some(lead) = &self.lead else {
            self.plan = Plan::default();
            return Vec::new();
        };
        let new = plan::coordinate(&plan::Input {
            now: desk.context.now,
            me: &desk.context.config.node,
            state: &desk.context.state,
            config: &desk.context.config,
            timing: &desk.context.timing,
            lead,
            applied: &self.applied,
            rows: peers.rows(),
            monitored: &self.monitored,
            doubts_itself: peers.doubts_itself(desk.context.now),
        });
        self.say_what_is_new(&mut desk.mail, &new.notes);
        let steps = new.steps.clone();
        self.plan = new;
        steps
    }

    /// What is new in the coordinator's notes goes to the journal, once: every step, every wait and every alarm.
    fn say_what_is_new(&self, mail: &mut Mail, notes: &[Note]) {
        let new = notes.iter().filter(|note| !self.plan.notes.contains(note));
        new.cloned().for_each(|note| mail.say(Said::Coordinator(note)));
    }

    /// This leader proposes it.
    pub fn note_proposed(&mut self, now: Instant, command: &Command) {
        if let Some(lead) = &mut self.lead {
            lead.note_proposed(now, command);
        }
    }

    /// Leadership is handed over now.
    pub fn transfers(&mut self, now: Instant) {
        if let Some(lead) = &mut self.lead {
            lead.last_transfer = Some(now);
        }
    }

    /// Puts a question, unless it is under way or rests. `Some`: it is this node's own to answer.
    pub fn ask(&mut self, desk: &mut Desk, owed: &Owed, (to, question): (NodeName, Question)) -> Option<Question> {
        if let Question::Look { target, incarnation, round, .. } = &question
            && let Some(lead) = &mut self.lead
            && lead.looks.get(target).is_none_or(|l| l.round < *round)
        {
            lead.last_round = *round;
            self.last_round = *round;
            let (incarnation, round) = (*incarnation, *round);
            let look = LookRound { incarnation, round, opened: desk.context.now, answers: Default::default() };
            lead.looks.insert(target.clone(), look);
        }
        let what = What::Question { to: to.clone(), question: question.clone() };
        let is_asked = desk.mail.is_asking(&what) || owed.has_own(&to, &question);
        if is_asked || self.questions.rests(desk.context.now, &to, &question) {
            return None;
        }
        if to == desk.context.config.node {
            return Some(question);
        }
        desk.mail.ask(to, what, PeerRequest::Question(question), desk.context.timing.answer());
        None
    }

    /// An answer to one of the coordinator's questions; those of an earlier term have nobody to go to.
    pub fn take_answer(
        &mut self,
        now: Instant,
        from: NodeName,
        question: &Question,
        answer: Result<PeerResponse, String>,
    ) {
        let of_use = match &answer {
            Ok(PeerResponse::Failed { .. } | PeerResponse::Seal(Err(_))) | Err(_) => false,
            Ok(_) => true,
        };
        self.questions.answered(now, &from, question, of_use);
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
                lead.checks.entry((*fence, *refuted)).or_default().insert(from, Checked { answer, at: now });
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

    /// Decides on a lease, once a quorum read has confirmed that this node leads: its ledger is applied up to the read, or
    /// further, and can only be newer.
    pub fn grant(&mut self, desk: &mut Desk, request: &LeaseRequest) -> Result<Grant, Denial> {
        let grant = lease::decide(&desk.context.state, request)?;
        if let Some(lead) = self.lead.as_mut().or(self.led.as_mut()) {
            lead.renewed.insert(request.service.clone(), (request.epoch, desk.context.now));
        }
        if let Some(resumed) = grant.resumed {
            let (service, epoch, incarnation) = (request.service.clone(), request.epoch, request.incarnation);
            desk.propose(Command::Renewed { service, epoch, incarnation, resumed });
        }
        Ok(grant)
    }

    /// When the plan is to be made again, or a question put again.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        self.plan.wakeup.into_iter().chain(self.questions.next_wakeup())
    }
}
