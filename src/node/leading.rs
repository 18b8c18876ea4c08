//! Following the ledger and, on the leader, running the coordinator.

use super::mail::{ReplyTo, What};
use super::outbox::End;
use super::{Effect, Node, PeerRequest, Said};
use crate::known_bugs::{self, Bug};
use crate::ledger::{Answer, Command, Entry, Event as LedgerEvent, State};
use crate::plan::{self, Lead, LookRound, Note, Question, Step};
use crate::types::{Incarnation, NodeName, Term};
use std::sync::Arc;

impl Node {
    /// A newer ledger: note when this node learned of what waiting counts from.
    pub(super) fn take_state(&mut self, state: Arc<State>) {
        let (now, before) = (self.context.now, self.context.state.clone());
        self.applied.note(&before, &state, now);
        for (id, fence) in &state.fences {
            self.note_accepted(*id, plan::lead::new_orders(before.fences.get(id), fence));
        }
        for (name, service) in &state.services {
            let old = before.services.get(name);
            if old.is_none_or(|o| o.epoch != service.epoch) {
                self.tenants.epoch_began(&self.context, name, service.holder.as_ref().map(|h| &h.node));
            }
            if let Some(settings) = &state.settings {
                self.tenants.resumed_unseen(&self.context, &mut self.mail, name, service, settings.lease_use());
            }
            // Only a pause that this daemon itself saw end as the holder: an earlier one may have asked for a lease since.
            if !service.paused
                && old.is_some_and(|o| o.paused)
                && service.holder.as_ref().is_some_and(|h| self.context.is_mine(h))
            {
                self.tenants.resumed(&self.context, name);
            }
        }
        for (name, record) in &state.nodes {
            if before.nodes.get(name).is_none_or(|o| o.incarnation != record.incarnation) {
                self.detector.known(now, name, &record.boot, record.incarnation);
                self.replay.told(name, record.incarnation, 0);
            }
        }
        self.context.state = state;
        self.start_watches();
    }

    /// What an entry did concerns the proposer too, even if its answer was lost; not what an earlier daemon proposed.
    pub(super) fn note_answer(&mut self, entry: &Entry, answer: &Answer) {
        if let (Command::Join { node, request, .. }, Answer::Done(LedgerEvent::Joined { incarnation })) =
            (&entry.command, answer)
            && *node == self.context.config.node
            && *request == self.join_request
        {
            self.take_incarnation(*incarnation);
        }
    }

    fn take_incarnation(&mut self, incarnation: Incarnation) {
        let present =
            self.context.state.nodes.get(&self.context.config.node).is_none_or(|n| n.incarnation <= incarnation);
        if present && self.context.incarnation.is_none_or(|mine| mine < incarnation) {
            self.joined(incarnation);
        }
    }

    pub(super) fn take_leadership(&mut self, term: Term, leader: Option<NodeName>, i_lead: bool) {
        if term < self.context.term {
            return;
        }
        if term > self.context.term || leader != self.context.leader {
            self.forget_reads();
            self.questions.forget();
            self.mail.forget();
            self.tenants.led_by_another(self.context.now);
        }
        self.context.term = term;
        self.context.leader = leader;
        let leading = i_lead.then_some(term);
        self.context.leads = leading;
        if self.lead.as_ref().map(|l| l.term) != leading {
            // The book of a term is kept for that term alone, and begins when this node holds the votes (H1.8).
            let book = self.lead.take().filter(|_| known_bugs::has(Bug::LeaseBookKept));
            let (now, round) = (self.context.now, self.last_round);
            self.lead = leading.map(|term| Lead { term, ..book.unwrap_or_else(|| Lead::new(term, now, round)) });
            // What this node asked of itself as the leader is answered by nobody.
            self.mail.forget_own_reads();
            self.forget_reads();
        }
    }

    pub(super) fn input<'a>(&'a self, lead: &'a Lead) -> plan::Input<'a> {
        plan::Input {
            now: self.context.now,
            me: &self.context.config.node,
            state: &self.context.state,
            config: &self.context.config,
            timing: &self.context.timing,
            lead,
            applied: &self.applied,
            rows: &self.rows,
            doubts_itself: self.detector.is_self_doubting(self.context.now),
        }
    }

    pub(super) fn coordinate(&mut self) {
        // One step often makes the next one possible at once (the leader's own answers): go on until nothing changes.
        for _ in 0..4 {
            let Some(lead) = &self.lead else {
                self.plan = plan::Plan::default();
                return;
            };
            let new = plan::coordinate(&self.input(lead));
            let steps = new.steps.clone();
            self.say_what_is_new(&new.notes);
            self.plan = new;
            let mut own = false;
            for step in steps {
                own |= self.take_step(step);
            }
            if !own {
                return;
            }
        }
    }

    /// What is new in the coordinator's notes goes to the journal, once: every step, every wait and every alarm.
    fn say_what_is_new(&mut self, notes: &[Note]) {
        let new = notes.iter().filter(|note| !self.plan.notes.contains(note));
        new.cloned().for_each(|note| self.mail.say(Said::Coordinator(note)));
    }

    /// Hands one step out. True when this node answered a question of its own.
    fn take_step(&mut self, step: Step) -> bool {
        match step {
            // What opens a fence again is said on a current copy only; it is asked for until it is.
            Step::Propose(Command::Refute { .. }) if !self.is_current() => false,
            Step::Propose(command) => {
                self.propose(command);
                false
            }
            Step::Transfer { to, why } => {
                let now = self.context.now;
                if let Some(lead) = &mut self.lead {
                    lead.last_transfer = Some(now);
                }
                self.mail.say(Said::LeadershipGoes { to: to.clone(), why });
                self.mail.push(Effect::Transfer { to });
                false
            }
            Step::Ask { to, question } => self.put_question(to, question),
        }
    }

    fn put_question(&mut self, to: NodeName, question: Question) -> bool {
        if let Question::Look { target, incarnation, round, .. } = &question {
            let now = self.context.now;
            if let Some(lead) = &mut self.lead
                && lead.looks.get(target).is_none_or(|l| l.round < *round)
            {
                lead.last_round = *round;
                self.last_round = *round;
                let look =
                    LookRound { incarnation: *incarnation, round: *round, opened: now, answers: Default::default() };
                lead.looks.insert(target.clone(), look);
            }
        }
        let what = What::Question { to: to.clone(), question: question.clone() };
        if self.mail.is_asking(&what) || self.pending.iter().any(|p| p.is(&to, &question)) {
            return false;
        }
        if self.questions.rests(self.context.now, &to, &question) {
            return false;
        }
        if to == self.context.config.node {
            self.asked(ReplyTo::Own, to, PeerRequest::Question(question));
            return true;
        }
        let deadline = self.context.timing.acceptable_pause * 2 + self.context.timing.detection;
        self.mail.ask(to, what, PeerRequest::Question(question), deadline);
        false
    }

    pub(super) fn proposal_ended(&mut self, id: u64, result: Result<Answer, Option<NodeName>>) {
        self.reply_relayed_proposal(id, &result);
        let end = match &result {
            Ok(Answer::Refused(_)) => End::Refused,
            Ok(Answer::Done(_)) => End::Accepted,
            Err(_) => End::Unreached,
        };
        let Some(command) = self.mail.proposal_ended(self.context.now, id, end) else { return };
        match result {
            Ok(Answer::Done(LedgerEvent::Joined { incarnation })) => {
                if matches!(&command, Command::Join { request, .. } if *request == self.join_request) {
                    self.take_incarnation(incarnation);
                }
            }
            Ok(Answer::Refused(refusal)) => {
                self.mail.say(Said::Refused { command: command.name(), refusal });
                self.forget_proposed_order(&command);
                self.assist_reported(&command);
            }
            Ok(Answer::Done(_)) => {
                self.tenants.rejoin_reported(&self.context, &command);
                self.assist_reported(&command);
            }
            Err(_) => {}
        }
    }
}
