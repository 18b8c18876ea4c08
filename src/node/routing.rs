//! How an event finds the parts that it concerns, and how what one part answers finds the other: everything that takes
//! more than one part.
//!
//! Not here: what a part makes of it (each in a file of its own).

use super::context::{Context, Route};
use super::leave::{Leave, ToDo};
use super::mail::{Proposed, QuorumRead, ReplyTo, Wanted, What};
use super::outbox;
use super::owed::Pending;
use super::said::GoesOn;
use super::watchdog::Guarded;
use super::witness::Check;
use super::{Event, Node, PeerRequest, PeerResponse, Said};
use crate::config::timing;
use crate::known_bugs::{self, Bug};
use crate::lease::LeaseRequest;
use crate::ledger::{Answer, Command, Entry, Event as LedgerEvent, Shared, Sighting, State};
use crate::plan::keeper::Input;
use crate::plan::switchover::{self, Hindrance};
use crate::plan::{self, Outlook, Question, Step, alarm};
use crate::types::{
    ChannelName, Health, Heartbeat, Incarnation, Instant, Leaving, NodeName, PeerView, ServiceName, Term,
};
use std::sync::Arc;
use std::time::Duration;

/// What comes in.
impl Node {
    /// S10: how late the node runs says how long it was stopped itself.
    pub(super) fn notice_lateness(&mut self) {
        if let Some(late) = self.beats.lateness(&self.desk.context) {
            self.desk.mail.say(Said::RanLate { late });
            self.peers.doubt(self.desk.context.now, late);
        }
    }

    /// Whether everything must be compared anew.
    pub(super) fn take_in(&mut self, event: Event) -> bool {
        let now = self.desk.context.now;
        match event {
            Event::Wake => {}
            Event::Heard { channel, at, heartbeat } => return self.hear(&channel, at, &heartbeat),
            Event::Channel { channel, usable } => self.peers.channel_state(now, &channel, usable),
            Event::Applied { entry, answer, state } => {
                self.take_state(state);
                self.note_answer(&entry, &answer);
            }
            Event::Ledger { state } => self.take_state(state),
            Event::Leadership { term, leader, i_lead } => self.take_leadership(term, leader, i_lead),
            Event::Proposed { id, result } => self.proposal_ended(id, result),
            Event::Submitted { number, command } => self.desk.mail.submit(&self.desk.context, number, *command),
            Event::QuorumRead { id, confirmed } => self.quorum_read(id, confirmed),
            Event::Asked { reply, from, request } => self.asked(ReplyTo::Peer(reply), from, request),
            Event::Answered { id, response } => self.answered(id, response),
            Event::AgentEnded { key, run } => self.runs.ended(now, key, run),
            Event::Seen { service, seen } => self.tenants.database_seen(&self.desk.context, &service, *seen),
            Event::Monitored { agent, target, works } => self.leading.device_monitored(now, agent, target, works),
            Event::InForce { standing, whole } => self.lookout.found(now, standing, whole),
            Event::DbEnded { service, action, outcome } => {
                self.tenants.database_ended(&mut self.desk, &service, &action, outcome);
            }
            Event::Tombstoned { service, epoch, result } => {
                self.tenants.tombstone_ended(&mut self.desk, &service, epoch, result);
            }
            Event::LeaseKept { service, result } => {
                return self.tenants.lease_kept(&mut self.desk, &service, result);
            }
            Event::LeaseTried { service, result } => {
                return self.tenants.lease_tried(self.desk.context.now, &service, result);
            }
            Event::LogWrite { took } => self.log_wrote(took),
            Event::LedgerRoom { room } => self.room = Some(room),
            Event::Watchdog(said) => self.watchdog.said(now, &mut self.desk.mail, said),
            Event::Leave(leaving) => self.begin_to_leave(leaving),
            Event::Goodbye { back_within } => self.say_goodbye(back_within),
        }
        true
    }

    /// Whether it says anything that somebody here may wait for.
    fn hear(&mut self, channel: &ChannelName, at: Instant, heartbeat: &Heartbeat) -> bool {
        if !self.peers.is_sign_of_life(channel, at, heartbeat) {
            return false;
        }
        // Also one of an incarnation that is over: it may be of the very boot that was fenced.
        self.witness.heard(&self.desk.context, channel, at, heartbeat);
        let is_news = self.peers.hear(&self.desk.context, channel, at, heartbeat);
        // A fence that is looked at, or a question that waits for life or silence.
        is_news || self.witness.is_watching() || !self.owed.is_empty()
    }

    /// It hands over what it holds, and closes its databases. Where its host goes down after its daemon was asked to stop,
    /// the time for it goes on.
    fn begin_to_leave(&mut self, leaving: Leaving) {
        let (config, now) = (&self.desk.context.config, self.desk.context.now);
        let (within, patience) = (timing::leave_within(config), config.lease.ttl);
        // Where everybody goes down at once, each hears of the others first.
        let hears_at =
            now + if leaving == Leaving::HostGoesDown { config.detector.interval * 3 } else { Duration::ZERO };
        self.leave.get_or_insert_with(|| Leave::begins(now, hears_at, within, patience));
        self.desk.context.take_leaving(leaving);
        self.desk.mail.say(Said::Leaves(leaving));
    }

    /// This daemon ends now. What runs on is told.
    fn say_goodbye(&mut self, back_within: Duration) {
        self.beats.say_goodbye(back_within);
        for input in self.tenants.inputs(&self.desk.context).filter(|input| input.runs()) {
            let how = match () {
                () if input.goes_on_without_its_daemon() => GoesOn::LeftAlone,
                () if input.could_commit() => GoesOn::Leased,
                () => GoesOn::Standby,
            };
            self.desk.mail.say(Said::GoesOn { service: input.name.clone(), how });
        }
    }

    fn log_wrote(&mut self, took: Duration) {
        self.beats.log_wrote(took);
        if took > self.desk.context.timing.acceptable_pause {
            self.peers.doubt(self.desk.context.now, took);
        }
    }

    /// A newer ledger. Each part notes what is new in it for itself.
    fn take_state(&mut self, state: Arc<State>) {
        let now = self.desk.context.now;
        let before = self.desk.context.state.clone();
        self.leading.ledger_moved(now, &before, &state);
        for (id, fence) in &state.fences {
            self.reading.note_accepted(*id, plan::lead::new_orders(before.fences.get(id).map(Shared::get), fence));
        }
        self.tenants.ledger_moved(&mut self.desk, &state);
        self.peers.ledger_moved(now, &before, &state);
        self.desk.context.take_state(state);
        self.witness.ledger_moved(&self.desk.context, &self.peers);
    }

    /// What an entry did concerns the proposer too, even if its answer was lost; not what an earlier daemon proposed.
    fn note_answer(&mut self, entry: &Entry, answer: &Answer) {
        if let Answer::Done(LedgerEvent::Joined { incarnation }) = answer {
            self.take_join(&entry.command, *incarnation);
        }
    }

    /// A join was accepted; perhaps this daemon's own.
    fn take_join(&mut self, command: &Command, incarnation: Incarnation) {
        if self.membership.is_answered(&self.desk.context, command, incarnation) {
            self.desk.context.take_incarnation(Some(incarnation));
            let (node, boot) = (self.desk.context.me(), self.desk.context.start.boot.clone());
            self.desk.mail.say(Said::Joined { node, incarnation, boot });
            self.membership.joined();
            self.beats.restart(self.desk.context.now);
        }
    }

    fn take_leadership(&mut self, term: Term, leader: Option<NodeName>, i_lead: bool) {
        if term < self.desk.context.term {
            return;
        }
        if term > self.desk.context.term || leader != self.desk.context.leader {
            self.desk.mail.forget();
            self.reading.forget();
            self.leading.forget_questions();
            self.tenants.led_by_another(self.desk.context.now);
        }
        self.desk.context.take_leadership(term, leader, i_lead);
        if self.leading.take(&self.desk.context) {
            // What this node asked of itself as the leader is answered by nobody.
            self.desk.mail.forget_own_reads();
            self.reading.forget();
        }
    }

    fn proposal_ended(&mut self, id: u64, result: Proposed) {
        if let Some(reply) = self.desk.mail.relayed(id) {
            let response = match &result {
                Ok(answer) => PeerResponse::Proposed(Box::new(answer.clone())),
                Err(leader) => PeerResponse::NotLeader { leader: leader.clone() },
            };
            self.desk.mail.reply(reply, response);
        }
        let Some(command) = self.desk.mail.proposal_ended(self.desk.context.now, id, &result) else { return };
        match result {
            Ok(Answer::Done(LedgerEvent::Joined { incarnation })) => self.take_join(&command, incarnation),
            Ok(Answer::Refused(refusal)) => {
                if self.membership.is_news(&command, &refusal) {
                    self.desk.mail.say(Said::Refused { command: command.name(), refusal });
                }
                self.reading.forget_proposed_order(&command);
                self.runs.reported(&self.desk.context, &command);
            }
            Ok(Answer::Done(_)) => {
                self.tenants.rejoin_reported(&self.desk.context, &command);
                self.runs.reported(&self.desk.context, &command);
            }
            Err(_) => {}
        }
    }

    /// The quorum has answered, or did not; the ledger here is applied up to the read.
    fn quorum_read(&mut self, id: u64, confirmed: bool) {
        match self.desk.mail.read_ended(id) {
            Some(QuorumRead::Lease { reply, request }) => {
                self.lease_read(reply, &request, confirmed || known_bugs::has(Bug::LeaseWithoutQuorum));
            }
            Some(QuorumRead::Copy { reply, subject }) => {
                let response = match confirmed {
                    true => self.reading.confirmed(&self.desk.context, subject),
                    false => PeerResponse::NotLeader { leader: None },
                };
                self.reply(reply, response);
            }
            None => {}
        }
    }

    fn lease_read(&mut self, reply: ReplyTo, request: &LeaseRequest, confirmed: bool) {
        if !confirmed || self.desk.context.leads.is_none() {
            return self.reply(reply, PeerResponse::NotLeader { leader: None });
        }
        let decision = self.leading.grant(&mut self.desk, request);
        match reply {
            ReplyTo::Own => self.tenants.lease_result(&mut self.desk, &Wanted::of(request), decision),
            ReplyTo::Peer(_) | ReplyTo::OwnRead(_) => self.reply(reply, PeerResponse::Lease(decision)),
        }
    }
}

/// Questions: what this node was asked, and what it is answered.
impl Node {
    pub(super) fn asked(&mut self, reply: ReplyTo, from: NodeName, request: PeerRequest) {
        let of_leader = matches!(request, PeerRequest::Lease(_) | PeerRequest::Propose(_) | PeerRequest::Read { .. });
        if of_leader && self.desk.context.leads.is_none() {
            return self.reply(reply, PeerResponse::NotLeader { leader: self.desk.context.leader.clone() });
        }
        match request {
            PeerRequest::Question(question) => self.question(reply, from, question),
            // A grant leaves only after a quorum read that began after its request came.
            PeerRequest::Lease(request) => self.desk.mail.read(QuorumRead::Lease { reply, request }),
            PeerRequest::Read { order } => self.desk.mail.read(QuorumRead::Copy { reply, subject: order }),
            PeerRequest::Propose(command) => {
                if let Command::Join { node, boot, .. } = &*command
                    && let Some(refusal) = self.leading.refuses_join(&self.desk.context, &self.peers, node, boot)
                {
                    return self.reply(reply, PeerResponse::Proposed(Box::new(Answer::Refused(refusal))));
                }
                let reply = if let ReplyTo::Peer(reply) = reply { Some(reply) } else { None };
                self.desk.mail.propose_for(from, reply, command);
            }
            PeerRequest::Relay(request) => self.relay(reply, from, *request),
        }
    }

    /// Passes a request on to the leader, once.
    fn relay(&mut self, reply: ReplyTo, from: NodeName, request: PeerRequest) {
        match (self.desk.context.route(0), reply) {
            (Some(Route::Local), _) => self.asked(reply, from, request),
            (Some(Route::Leader(to)), ReplyTo::Peer(reply)) if to != from => {
                self.desk.mail.ask(to, What::Relayed { reply }, request, outbox::DEADLINE);
            }
            _ => self.reply(reply, PeerResponse::NotLeader { leader: self.desk.context.leader.clone() }),
        }
    }

    fn question(&mut self, reply: ReplyTo, from: NodeName, question: Question) {
        let Question::Look { target, .. } = &question else {
            return self.owed.push(Pending { reply, from, question, since: self.desk.context.now });
        };
        let answer = match self.view_of(target) {
            Some(view) => {
                let silent_ms = self.peers.silence(self.desk.context.now, target);
                PeerResponse::Sighting(Sighting { silent_ms, view })
            }
            None => PeerResponse::Failed { why: format!("no view of {target}") },
        };
        self.answer_question(reply, &from, &question, answer);
    }

    fn view_of(&self, target: &NodeName) -> Option<PeerView> {
        self.peers.views(self.desk.context.now, self.feeding()).remove(target)
    }

    /// Answers what can be answered by now.
    pub(super) fn answer_owed(&mut self) {
        let mut own = false;
        for p in self.owed.take() {
            let answer = match &p.question {
                Question::Check { fence, refuted, term } => {
                    let check = Check { fence: *fence, refuted: *refuted, term: *term, since: p.since };
                    self.witness.answer(&self.desk.context, &self.peers, check, |target| self.view_of(target))
                }
                Question::Seal { service, epoch } => {
                    let (asked, unguarded) = ((service, *epoch), self.watchdog.failure());
                    self.tenants.seal_answer(&mut self.desk, asked, p.since, unguarded)
                }
                Question::Look { .. } => Some(PeerResponse::Failed { why: "answered at once".to_owned() }),
            };
            match answer {
                Some(answer) => {
                    own |= p.reply == ReplyTo::Own;
                    self.answer_question(p.reply, &p.from, &p.question, answer);
                }
                None => self.owed.push(p),
            }
        }
        if own {
            self.coordinate();
        }
    }

    fn answer_question(&mut self, reply: ReplyTo, from: &NodeName, question: &Question, answer: PeerResponse) {
        match reply {
            ReplyTo::Peer(_) | ReplyTo::OwnRead(_) => self.reply(reply, answer),
            ReplyTo::Own => self.leading.take_answer(self.desk.context.now, from.clone(), question, Ok(answer)),
        }
    }

    fn reply(&mut self, reply: ReplyTo, response: PeerResponse) {
        match reply {
            ReplyTo::Peer(reply) => self.desk.mail.reply(reply, response),
            ReplyTo::OwnRead(id) => self.reading.answered(&self.desk.context, id, Ok(response)),
            ReplyTo::Own => {}
        }
    }

    /// The end of something that this node asked.
    fn answered(&mut self, id: u64, response: Result<PeerResponse, String>) {
        let Some(asking) = self.desk.mail.answered(id) else { return };
        match asking.what {
            What::Relayed { reply } => {
                self.desk.mail.reply(reply, response.unwrap_or_else(|why| PeerResponse::Failed { why }));
            }
            What::Proposal => {
                let result = match response {
                    Ok(PeerResponse::Proposed(answer)) => Ok(*answer),
                    Ok(PeerResponse::NotLeader { leader }) => Err(leader),
                    Ok(_) | Err(_) => Err(None),
                };
                self.proposal_ended(id, result);
            }
            What::Read => self.reading.answered(&self.desk.context, id, response),
            What::Lease(wanted) => self.tenants.lease_answered(&mut self.desk, &wanted, response),
            What::Question { question, .. } => {
                self.leading.take_answer(self.desk.context.now, asking.to, &question, response);
            }
        }
    }
}

/// What this node does with what several parts know.
impl Node {
    /// Proposes a command. Of some a leader remembers that it proposed them, and when.
    pub(super) fn propose(&mut self, command: Command) {
        let now = self.desk.context.now;
        let is_noted = matches!(command, Command::Order { .. } | Command::OpenFence { .. } | Command::Appoint { .. });
        let noted = is_noted.then(|| command.clone());
        if self.desk.propose(command)
            && let Some(command) = noted
        {
            self.reading.note_proposed(now, &command);
            self.leading.note_proposed(now, &command);
        }
    }

    /// Hands out what the coordinator wants. One step often makes the next one possible at once (the leader's own
    /// answers): goes on until nothing changes.
    pub(super) fn coordinate(&mut self) {
        for _ in 0..4 {
            let steps = self.leading.coordinate(&mut self.desk, &self.peers);
            let mut own = false;
            for step in steps {
                own |= self.take_step(step);
            }
            if !own {
                return;
            }
        }
    }

    /// Hands one step out. True when this node answered a question of its own.
    fn take_step(&mut self, step: Step) -> bool {
        match step {
            // What opens a fence again is said on a current copy only; it is asked for until it is.
            Step::Propose(Command::Refute { .. }) if !self.reading.is_current(&mut self.desk) => {}
            Step::Propose(command) => self.propose(command),
            Step::Transfer { to, why } => {
                self.leading.transfers(self.desk.context.now);
                self.desk.mail.say(Said::LeadershipGoes { to: to.clone(), why });
                self.desk.mail.push(super::Effect::Transfer { to });
            }
            Step::Ask { to, question } => {
                let asked = self.leading.ask(&mut self.desk, &self.owed, (to, question));
                let Some(question) = asked else { return false };
                self.asked(ReplyTo::Own, self.desk.context.me(), PeerRequest::Question(question));
                return true;
            }
        }
        false
    }

    /// The nodes that feed a standby here.
    fn feeding(&self) -> impl Iterator<Item = &NodeName> + Clone {
        self.tenants.upstreams()
    }

    /// Notices that this incarnation is over, and joins when it may.
    pub(super) fn join(&mut self) {
        if let Some(over) = self.membership.ended(&self.desk.context) {
            self.desk.mail.say(Said::IncarnationOver(over));
            self.desk.context.take_incarnation(None);
            self.tenants.incarnation_over(self.desk.context.now);
        }
        if self.desk.context.incarnation.is_some() {
            return;
        }
        let (me, boot) = (self.desk.context.me(), self.desk.context.start.boot.clone());
        if let Some(refusal) = self.leading.refuses_join(&self.desk.context, &self.peers, &me, &boot) {
            return self.membership.refuses(&mut self.desk.mail, refusal);
        }
        // The others wait for the first heartbeat: a lease that goes on is claimed before the log has been read.
        let claims = if self.desk.context.state.settings.is_none() {
            self.tenants.early_claims(&self.desk.context)
        } else {
            self.tenants.claims(&mut self.desk, self.reading.was_current())
        };
        if let Some(claims) = claims {
            self.membership.join(&mut self.desk, claims);
        }
    }

    /// Once its own join is applied, the ledger says whether a pause stands.
    pub(super) fn take_up_what_was_held_open(&mut self) {
        if self.desk.context.has_applied_its_join() {
            self.reading.note_own_join();
            self.tenants.joined();
        }
    }

    /// One step for each local database.
    pub(super) fn keep_databases(&mut self) {
        for name in self.tenants.served().iter() {
            let informed = self.is_informed();
            if informed {
                self.tenants.report_rejoined(&mut self.desk, name);
            }
            let (rows, unguarded) = (self.peers.rows(), self.watchdog.failure());
            let moves = self.leading.applied().moves_of(name, self.desk.context.now);
            let heir = self.heir(name);
            self.tenants.keep(&mut self.desk, name, informed, rows, unguarded, (moves, heir.as_ref()));
        }
    }

    /// Who could take a service over in order from a database here that has trouble, or why nobody.
    fn heir(&self, name: &ServiceName) -> Option<Result<NodeName, String>> {
        self.tenants.keepers().get(name)?.seen().trouble.as_ref()?;
        let Context { config, state, timing, now, .. } = &self.desk.context;
        let (applied, rows) = (self.leading.applied(), self.peers.rows());
        let seen = Outlook { now: *now, me: &config.node, state, config, timing, applied, rows };
        let why_not = |hindrances: Vec<Hindrance>| {
            let all: Vec<_> = hindrances.iter().map(ToString::to_string).collect();
            if all.is_empty() { "there is no other node".to_owned() } else { all.join("; ") }
        };
        Some(switchover::decide(&seen, name, None).map(|way| way.to).map_err(why_not))
    }

    /// Whether this copy of the ledger says how things are, and not how they were before this daemon: its own join is
    /// applied, or (before it joins) it was current once since the daemon started.
    fn is_informed(&mut self) -> bool {
        match self.desk.context.incarnation {
            Some(_) => self.desk.context.has_applied_its_join(),
            None => self.reading.has_been_current(&mut self.desk) && self.desk.context.state.settings.is_some(),
        }
    }

    /// Asks for each lease that is wanted.
    pub(super) fn renew_leases(&mut self) {
        for name in self.tenants.served().iter() {
            let wanted = self.tenants.wants_lease(&self.desk.context, name);
            // Armed before the first request, and before a promotion.
            let Some(epoch) = wanted.filter(|_| self.watchdog.guards(self.desk.context.now, &mut self.desk.mail))
            else {
                continue;
            };
            if let Some(request) = self.tenants.renew(&mut self.desk, name, epoch) {
                self.desk.mail.read(QuorumRead::Lease { reply: ReplyTo::Own, request });
            }
        }
    }

    /// Whether a lease that has ended could be renewed by others who have a quorum without this node, and whether their
    /// answers could get here.
    pub(super) fn look_for_quorum_elsewhere(&mut self) {
        let elsewhere = self.tenants.has_lease_ended(self.desk.context.now)
            && self.peers.have_a_quorum_without_us(&self.desk.context);
        self.tenants.quorum_elsewhere(self.desk.context.now, elsewhere);
        let deaf = self.peers.have_all_fallen_silent(self.desk.context.now);
        self.tenants.is_deaf(self.desk.context.now, deaf);
    }

    /// This node's own row, as its next heartbeat carries it.
    pub(super) fn refresh_own_row(&mut self) {
        let Some(incarnation) = self.desk.context.incarnation else { return };
        let health = self.health();
        self.peers.refresh_own_row(&self.desk.context, incarnation, self.tenants.upstreams(), health);
        let Context { config, state, timing, now, .. } = &self.desk.context;
        let (applied, rows) = (self.leading.applied(), self.peers.rows());
        self.written.look(&Outlook { now: *now, me: &config.node, state, config, timing, applied, rows });
    }

    fn health(&self) -> Health {
        let paused = self.desk.context.state.services.iter().filter(|(_, service)| service.paused);
        Health {
            paused: paused.map(|(name, _)| name.clone()).collect(),
            services: self.tenants.health(&self.desk.context),
            watchdog_armed: self.watchdog.is_armed(),
            log_write: self.beats.log_write(),
            self_doubt: self.peers.doubts_itself(self.desk.context.now),
            follows: self.desk.context.leader.clone(),
            leaving: self.desk.context.leaving,
            config_hash: self.desk.context.config.hash,
            failing: self.failing().into_keys().collect(),
            ends: self.peers.heard_ends(&self.desk.context.state),
            alarms: alarm::carried(self.leading.plan()),
        }
    }

    /// Whether there is nothing left here for which this daemon is needed.
    pub(super) fn look_whether_it_left(&mut self) {
        let Some(leave) = &mut self.leave else { return };
        let context = &self.desk.context;
        let inputs = || self.tenants.inputs(context);
        let leads = context.leads.is_some() && context.state.settings.is_some();
        let its_own = leads || self.watchdog.is_to_be_disarmed() || inputs().any(|i| i.owes_its_word());
        let owes = its_own || self.peers.hear_a_holder_leave(context);
        leave.settle(context.now, ToDo { closed: inputs().all(|i| i.is_left()), owes });
    }

    /// The watchdog is fed only by the loop that has just checked every database.
    pub(super) fn tend_watchdog(&mut self) {
        let inputs = || self.tenants.inputs(&self.desk.context);
        let may = |i: &Input| i.may_write(Duration::ZERO) || i.runs_on_kept(Duration::ZERO);
        let fine = inputs().all(|i| !i.could_commit() || may(&i));
        // What a pause lets run on without this daemon, or kept for this node while it is down, nobody feeds the device for.
        let counts = |i: &Input| i.could_commit() || i.held().is_some() || i.runs_on_kept(Duration::ZERO);
        let needed = inputs().any(|i| counts(&i) && !i.has_left());
        self.watchdog.tend(self.desk.context.now, &mut self.desk.mail, Guarded { fine, needed });
    }
}
