//! The stage of the stories of one whole node: the real `Node::handle` on one host, with the ledger of the desk; its
//! peers, their heartbeats and answers are what the story says. What it wants done is shown, but for its heartbeats.

use crate::commands::{self, orders, present};
use crate::coordinating::database;
use crate::desk::Desk;
use crate::story::{Line, Stage};
use crate::words::variant;
use regent::config::Config;
use regent::lease;
use regent::ledger::{Answer, Command, Machine};
use regent::node::{Effect, Event, HELD_OPEN, Node, PeerRequest, PeerResponse, RunKey, Start, WatchdogSaid};
use regent::plan::Question;
use regent::types::{
    ChannelName, ClusterId, DbAction, DbDone, DbOutcome, Epoch, FenceId, Heartbeat, HeartbeatBody, Instant, NodeName,
    Released, ServiceHealth, Standing,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Heartbeats of the peers come at this pace.
const INTERVAL: Duration = Duration::from_millis(200);

pub struct Stand {
    pub desk: Desk,
    node: Option<Node>,
    name: NodeName,
    /// What is still to come, by time and then by order of writing.
    events: BTreeMap<(Instant, usize), Event>,
    written: usize,
    /// How far each peer's counter is, by incarnation.
    sequences: BTreeMap<(NodeName, u64), u64>,
    proposals: Vec<(u64, Command, bool)>,
    leases: Vec<(u64, PeerRequest)>,
    reads: Vec<u64>,
    /// Questions how current the copy is.
    copies: Vec<(u64, Option<(FenceId, u32)>)>,
    runs: Vec<RunKey>,
    actions: Vec<DbAction>,
    tombstones: Vec<Epoch>,
    /// The end of the lease that was to be kept last.
    kept: Option<Instant>,
    replies: u64,
    /// It has left in order.
    left: bool,
    /// Feeding the watchdog is shown from here on.
    shows_feeding: bool,
}

impl Stand {
    pub fn new() -> Self {
        Stand {
            desk: Desk::new(),
            node: None,
            name: "w1".parse().expect("valid"),
            events: BTreeMap::new(),
            written: 0,
            sequences: BTreeMap::new(),
            proposals: Vec::new(),
            leases: Vec::new(),
            reads: Vec::new(),
            copies: Vec::new(),
            runs: Vec::new(),
            actions: Vec::new(),
            tombstones: Vec::new(),
            kept: None,
            replies: 0,
            left: false,
            shows_feeding: false,
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.written), event);
        self.written += 1;
    }

    /// Gives the node an event now; what it wants done, as sentences.
    fn give(&mut self, event: Event) -> String {
        let Some(node) = &mut self.node else { return String::new() };
        let effects = node.handle(self.desk.now, event);
        let mut out = String::new();
        for effect in effects {
            if let Effect::Reply { response: PeerResponse::Proposed(answer), .. } = &effect
                && let Answer::Refused(refusal) = &**answer
            {
                self.desk.seen.refusals.insert(variant(refusal));
            }
            if let Some(words) = self.shown(&effect) {
                writeln!(out, "{:>8.3} s  {}: {words}", self.desk.now.0 as f64 / 1e9, self.name)
                    .expect("a string takes everything");
            }
            self.note(effect);
        }
        if !self.left && self.node.as_ref().is_some_and(Node::has_left) {
            self.left = true;
            writeln!(out, "{:>8.3} s  {}: has left, and its daemon may end", self.desk.now.0 as f64 / 1e9, self.name)
                .expect("a string takes everything");
        }
        out
    }

    /// Runs until then; the node is woken whenever it wants to be.
    fn until(&mut self, end: Instant) -> String {
        let mut out = String::new();
        loop {
            let next = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = self.node.as_ref().and_then(Node::next_wakeup);
            let Some(at) = [next, wake].into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.desk.advance(at.max(self.desk.now));
            let due = self.events.first_entry().filter(|e| e.key().0 <= at).map(|e| e.remove());
            out += &self.give(due.unwrap_or(Event::Wake));
        }
        self.desk.advance(end);
        out
    }

    /// The node hears of everything that was applied.
    fn follow_ledger(&mut self) -> String {
        let applied = std::mem::take(&mut self.desk.applied);
        applied.into_iter().map(|(entry, answer, state)| self.give(Event::Applied { entry, answer, state })).collect()
    }

    fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { id, command } => self.proposals.push((id, *command, true)),
            Effect::Ask { id, request, .. } => match unwrapped(&request) {
                PeerRequest::Propose(command) => self.proposals.push((id, (**command).clone(), false)),
                PeerRequest::Lease(_) => self.leases.push((id, request)),
                PeerRequest::Read { order } => self.copies.push((id, *order)),
                _ => {}
            },
            Effect::QuorumRead { id } => self.reads.push(id),
            Effect::RunAgent { key, .. } => self.runs.push(key),
            Effect::Db { action, .. } => self.actions.push(action),
            Effect::Tombstone { released, .. } => self.tombstones.push(released.epoch),
            Effect::KeepLease { until: Some(until), .. } => self.kept = Some(until),
            _ => {}
        }
    }

    fn shown(&self, effect: &Effect) -> Option<String> {
        Some(match effect {
            Effect::FeedWatchdog { told: true } => {
                "feeds the watchdog, and wants to know whether that worked".to_owned()
            }
            Effect::FeedWatchdog { .. } if self.shows_feeding => "feeds the watchdog".to_owned(),
            Effect::Beat(_) | Effect::FeedWatchdog { .. } => return None,
            Effect::Ask { to, request, .. } => format!("asks {to}: {}", asked(request)),
            Effect::Reply { response, .. } => format!("answers: {}", answered(response)),
            Effect::Propose { command, .. } => format!("proposes {}", command),
            Effect::Told { number, .. } => format!("tells the operator of command {number} what became of it"),
            Effect::QuorumRead { .. } => "asks a quorum whether it still leads".to_owned(),
            Effect::Transfer { to } => format!("hands leadership to {to}"),
            Effect::RunAgent { agent, action, target, fence, limit, persists, .. } => {
                let limit = limit.as_millis();
                let again = if *persists { ", again and again" } else { "" };
                format!("runs {agent} {} against {target}, fence {fence}, for at most {limit} ms{again}", action.word())
            }
            Effect::Db { action, .. } => format!("database: {}", action),
            Effect::EndAgent { key } => match key {
                RunKey::Order { fence, order } => format!("ends the agent of order {order}, fence {fence}"),
                RunKey::Assist { fence, agent, .. } => format!("ends {agent}, fence {fence}"),
            },
            Effect::LookInForce => "looks at what is in force here".to_owned(),
            Effect::UndoInForce { undo } => format!("undoes {undo}"),
            Effect::AbortDb { .. } => "database: what was under way is given up".to_owned(),
            Effect::Tombstone { released, .. } => format!("writes the tombstone of epoch {}", released.epoch),
            Effect::TryLease { .. } => "tries whether its lease file takes a lease".to_owned(),
            Effect::KeepLease { epoch, until, .. } => match until {
                Some(at) if at.0 > u64::MAX / 8 => format!("guard: epoch {epoch} is held open by a pause"),
                Some(at) => format!("guard: kill the database at {:.3} s, epoch {epoch}", at.0 as f64 / 1e9),
                None => format!("guard: nothing is held any more, epoch {epoch}"),
            },
            Effect::ArmWatchdog => "arms the watchdog".to_owned(),
            Effect::DisarmWatchdog => "disarms the watchdog".to_owned(),
            Effect::Say(said) => format!("says: {said}"),
        })
    }

    /// Starts the daemon of a host.
    fn daemon(&mut self, line: &Line) -> String {
        self.name = line.parse(line.word(1));
        let config = Config { node: self.name.clone(), ..self.desk.config.clone() };
        let kept = line.get("kept").map(|text| {
            let (epoch, until) = text.split_once('@').unwrap_or_else(|| line.fail("expected EPOCH@MOMENT"));
            let until = if until == "held" { HELD_OPEN } else { Instant(0) + line.duration(until) };
            (orders(), (Epoch(line.parse(epoch)), until))
        });
        let said = |e| Released { epoch: Epoch(e), position: None, lapsed: false, leaving: false, why: String::new() };
        let tombstone = line.number("tombstone").map(|e| (orders(), said(e)));
        let watchdog = config.watchdog.as_ref().map(|w| w.timeout);
        let start = Start {
            cluster: ClusterId("story".to_owned()),
            boot: commands::boot(&self.name, line.number("boot").unwrap_or(1)),
            machine: Machine {
                id: format!("machine of {}", self.name),
                is_virtual: false,
                watchdog,
                hardware: [line.say("hardware", &format!("hardware of {}", self.name))].into(),
            },
            tombstones: tombstone.into_iter().collect(),
            kept: kept.into_iter().collect(),
            watchdog: watchdog.map(|_| match line.get("watchdog") {
                Some("armed") => WatchdogSaid::Armed { can_be_disarmed: true },
                Some("nowayout") => WatchdogSaid::Armed { can_be_disarmed: false },
                _ => WatchdogSaid::Disarmed,
            }),
            seed: self.desk.now.0,
        };
        (self.shows_feeding, self.left) = (false, false);
        self.node = Some(Node::new(Arc::new(config), start, self.desk.now));
        self.desk.applied.clear();
        self.give(Event::Ledger { state: Arc::new(self.desk.state.clone()) })
    }

    /// A peer's heartbeats: on these channels, from then until then; `drained=` when this node takes them all at once.
    fn beats(&mut self, line: &Line) {
        let peer: NodeName = line.parse(line.word(1));
        let (boot, incarnation) = present(&self.desk.state, &peer);
        let boot = line.number("boot").map_or(boot, |n| commands::boot(&peer, n));
        let incarnation = line.number("inc").map_or(incarnation, regent::types::Incarnation);
        let on: Vec<ChannelName> =
            line.get("on").unwrap_or("primary,secondary,disk").split(',').map(|c| line.parse(c)).collect();
        let moment = |key| line.get(key).map(|text| Instant(0) + line.duration(text));
        let mut at = moment("from").unwrap_or(self.desk.now);
        let until = moment("until").unwrap_or(at);
        let body = self.body(line);
        let mut sequence = self.sequences.get(&(peer.clone(), incarnation.0)).copied().unwrap_or(0);
        if let Some(n) = line.number("number") {
            sequence = n - 1;
        }
        while at <= until {
            sequence += 1;
            for channel in &on {
                let heartbeat = Arc::new(Heartbeat {
                    cluster: ClusterId("story".to_owned()),
                    node: peer.clone(),
                    boot: boot.clone(),
                    incarnation,
                    sequence,
                    body: (!line.has("unknown-body")).then(|| body.clone()),
                });
                let arrives = moment("drained").unwrap_or(at);
                self.schedule(arrives, Event::Heard { channel: channel.clone(), at, heartbeat });
            }
            at += INTERVAL;
        }
        if line.number("number").is_none() {
            self.sequences.insert((peer, incarnation.0), sequence);
        }
    }

    fn body(&self, line: &Line) -> HeartbeatBody {
        let mut body = HeartbeatBody::default();
        for (peer, sights) in commands::pairs(line, line.get("sees").unwrap_or("")) {
            let (boot, incarnation) = present(&self.desk.state, &peer);
            Arc::make_mut(&mut body.views).insert(peer, commands::view(line, sights, &boot, incarnation));
        }
        if let Some(text) = line.get("database") {
            let position = line.get("at").map_or_else(Default::default, |at| commands::position(line, at));
            let (lapsed, leaving, why) = (false, false, String::new());
            let said = |e| Released { epoch: Epoch(e), position: Some(position), lapsed, leaving, why };
            let released = line.number("released").map(said);
            let health = ServiceHealth {
                state: database(line, text),
                holds: line.number("holds").map(Epoch),
                writable: text == "primary",
                timeline: position.timeline,
                position,
                streams_from: line.get("streams-from").map(|n| line.parse(n)),
                released,
                copy: None,
                network: None,
                replay: None,
                file_fault: None,
                trouble: None,
                pending_restart: Vec::new(),
                lowered: Vec::new(),
                unfit: Vec::new(),
            };
            Arc::make_mut(&mut body.health).services.insert(orders(), health);
        }
        body
    }

    /// What the others, the log and the host answer.
    fn world(&mut self, line: &Line) -> Option<String> {
        Some(match line.verb() {
            "asked" => self.asked(line),
            // Another daemon asks this leader to propose its join.
            "wants-in" => {
                let command = commands::join(line, &self.desk.state, self.desk.term);
                self.replies += 1;
                let (from, request) = (line.parse(line.word(1)), PeerRequest::Propose(Box::new(command)));
                self.give(Event::Asked { reply: self.replies, from, request })
            }
            "commit" => self.commit(line),
            "granted" => self.granted(line),
            "unanswered" => {
                let why = Err("no answer in time".to_owned());
                let id = if line.has("lease") {
                    self.leases.pop().map(|(id, _)| id)
                } else {
                    self.proposals.pop().map(|(id, ..)| id)
                };
                let id = id.unwrap_or_else(|| line.fail("nothing was asked"));
                self.give(Event::Answered { id, response: why })
            }
            "read" => {
                let id = self.reads.pop().unwrap_or_else(|| line.fail("no quorum was asked"));
                self.give(Event::QuorumRead { id, confirmed: line.word(1) == "confirmed" })
            }
            // The leader's answer to the oldest question how current the copy is; `age=` of the order that was asked about.
            "current" => {
                if self.copies.is_empty() {
                    line.fail("nobody asked how current the copy is");
                }
                let (id, _) = self.copies.remove(0);
                let age = line.get("age").map(|text| line.duration(text));
                let (term, applied) = (self.desk.term, self.desk.state.applied);
                self.give(Event::Answered { id, response: Ok(PeerResponse::Read { term, applied, age }) })
            }
            "agent" => {
                let key = self.runs.pop().unwrap_or_else(|| line.fail("no agent runs"));
                self.give(Event::AgentEnded { key, run: commands::run(line, line.word(1)) })
            }
            "watchdog" => self.watchdog(line),
            "kept-lease" => {
                let end = self.kept.take().unwrap_or_else(|| line.fail("no lease was to be kept"));
                let result = if line.word(1) == "failed" { Err(line.say("why", "no space left")) } else { Ok(end) };
                self.give(Event::LeaseKept { service: orders(), result })
            }
            "log-write" => self.give(Event::LogWrite { took: line.duration(line.word(1)) }),
            "leave" => self.give(Event::Leave(commands::leaving(line, line.word(1)))),
            "goodbye" => self.give(Event::Goodbye { back_within: line.duration(line.word(1)) }),
            "tombstoned" => {
                let epoch = self.tombstones.pop().unwrap_or_else(|| line.fail("no tombstone was asked for"));
                let result = if line.has("failed") { Err(line.say("why", "no space left")) } else { Ok(()) };
                self.give(Event::Tombstoned { service: orders(), epoch, result })
            }
            // What agents have in force here: FENCE:NODE:AGENT, with commas between them.
            "in-force" => self.in_force(line),
            "see" => {
                self.desk.local(line);
                let seen = self.desk.keepers[&self.name].seen().clone();
                self.give(Event::Seen { service: orders(), seen: Box::new(seen) })
            }
            "ended-action" => self.action_ended(line),
            _ => return None,
        })
    }

    fn watchdog(&mut self, line: &Line) -> String {
        let why = line.say("why", "it does not work");
        self.give(Event::Watchdog(match line.word(1) {
            "armed" => WatchdogSaid::Armed { can_be_disarmed: !line.has("nowayout") },
            "disarmed" => WatchdogSaid::Disarmed,
            "fed" => WatchdogSaid::Fed,
            "unfed" => WatchdogSaid::NotFed { why },
            "kept-armed" => WatchdogSaid::NotDisarmed { why },
            _ => WatchdogSaid::NotArmed { why },
        }))
    }

    fn in_force(&mut self, line: &Line) -> String {
        let items = line.get("what").unwrap_or("").split(',').filter(|item| !item.is_empty());
        let standing = items.map(|item| {
            let [fence, node, agent] = item.split(':').collect::<Vec<_>>()[..] else {
                line.fail("expected FENCE:NODE:AGENT")
            };
            let what = "rules of it".to_owned();
            let standing = Standing { fence: FenceId(line.parse(fence)), node: Some(line.parse(node)), what };
            (line.parse(agent), standing)
        });
        let (standing, whole) = (standing.collect(), !line.has("in-part"));
        self.give(Event::InForce { standing, whole })
    }

    fn asked(&mut self, line: &Line) -> String {
        let term = self.desk.term;
        let question = match line.word(1) {
            "check" => {
                let fence = &self.desk.state.fences[&self.desk.state.last_fence];
                Question::Check { fence: fence.id, refuted: fence.refuted, term }
            }
            "look" => {
                let target: NodeName = line.parse(line.word(2));
                let (_, incarnation) = present(&self.desk.state, &target);
                Question::Look { target, incarnation, term, round: regent::types::Round(1) }
            }
            "lease" => {
                let node: NodeName = line.parse(line.need("by"));
                let (boot, incarnation) = present(&self.desk.state, &node);
                let epoch = self.desk.state.services[&orders()].epoch;
                let number = line.number("request").unwrap_or(1);
                let from = node.clone();
                let request =
                    lease::LeaseRequest { service: orders(), epoch, number, node, boot, incarnation, resumed: None };
                self.replies += 1;
                return self.give(Event::Asked { reply: self.replies, from, request: PeerRequest::Lease(request) });
            }
            "seal" => Question::Seal { service: orders(), epoch: self.desk.state.services[&orders()].epoch },
            other => line.fail(&format!("nobody asks {other:?}")),
        };
        self.replies += 1;
        let from = line.parse(line.get("by").unwrap_or("db2"));
        let request = PeerRequest::Question(question);
        self.give(Event::Asked { reply: self.replies, from, request })
    }

    /// The oldest proposal commits: `commit`; its answer is lost on the way: `commit unheard`.
    fn commit(&mut self, line: &Line) -> String {
        if self.proposals.is_empty() {
            line.fail("nothing was proposed");
        }
        let (id, command, leads) = self.proposals.remove(0);
        let mut out = self.desk.apply(command);
        let answer = self.desk.applied.last().map(|(_, answer, _)| (**answer).clone());
        out += &self.follow_ledger();
        let Some(answer) = answer.filter(|_| !line.has("unheard")) else { return out };
        out + &match leads {
            true => self.give(Event::Proposed { id, result: Ok(answer) }),
            false => self.give(Event::Answered { id, response: Ok(proposed(answer)) }),
        }
    }

    /// The newest lease request is decided and answered.
    fn granted(&mut self, line: &Line) -> String {
        let Some((id, request)) = self.leases.pop() else { line.fail("no lease was asked for") };
        let PeerRequest::Lease(request) = unwrapped(&request) else { line.fail("no lease was asked for") };
        let decision = lease::decide(&self.desk.state, request);
        self.give(Event::Answered { id, response: Ok(PeerResponse::Lease(decision)) })
    }

    /// The newest action on the database ended: `ended-action done` or `ended-action failed`.
    fn action_ended(&mut self, line: &Line) -> String {
        let action = self.actions.pop().unwrap_or_else(|| line.fail("nothing is under way"));
        let at = line.get("at").map(|at| commands::position(line, at));
        let done = match &action {
            DbAction::Stop { .. } => DbDone::Stopped { clean: at.is_some(), position: at },
            DbAction::Rejoin { .. } => DbDone::Rejoined { how: "rewound".to_owned(), kept: None },
            DbAction::Seal => DbDone::Sealed(commands::seal(line, line.need("at"))),
            DbAction::Promote { .. } | DbAction::StartPrimary { .. } => {
                DbDone::Writable { position: at.unwrap_or_default() }
            }
            _ => DbDone::Plain,
        };
        let outcome = match line.word(1) {
            "done" => DbOutcome::Done(done),
            _ => DbOutcome::Failed { error: line.say("error", "it did not work") },
        };
        self.give(Event::DbEnded { service: orders(), action, outcome })
    }

    fn views(&self) -> String {
        let Some(node) = &self.node else { return String::new() };
        let mut out = String::new();
        for (name, view) in node.detector().views(self.desk.now) {
            let sights: Vec<_> = view.channels.iter().map(|(c, s)| format!("{c} {s:?}").to_lowercase()).collect();
            let suspects = if view.suspects(view.channels.len()) { ", suspects it" } else { "" };
            writeln!(
                out,
                "{} sees {name}, incarnation {}: {}{suspects}",
                self.name,
                view.incarnation,
                sights.join(", ")
            )
            .expect("a string takes everything");
        }
        out
    }
}

fn unwrapped(request: &PeerRequest) -> &PeerRequest {
    if let PeerRequest::Relay(inner) = request { unwrapped(inner) } else { request }
}

fn asked(request: &PeerRequest) -> String {
    match request {
        PeerRequest::Question(q) => q.to_string(),
        PeerRequest::Lease(l) => format!("lease for epoch {}, request {}", l.epoch, l.number),
        PeerRequest::Propose(c) => format!("please propose {}", c),
        PeerRequest::Relay(inner) => format!("pass on to the leader: {}", asked(inner)),
        PeerRequest::Read { order: None } => "how far must my ledger be applied to be current".to_owned(),
        PeerRequest::Read { order: Some((fence, order)) } => {
            format!("does order {order} of fence {fence} still run, and for how long")
        }
    }
}

fn answered(response: &PeerResponse) -> String {
    match response {
        PeerResponse::Sighting(s) => {
            let sights: Vec<_> = s.view.channels.iter().map(|(c, s)| format!("{c} {s:?}").to_lowercase()).collect();
            format!("incarnation {}: {}", s.view.incarnation, sights.join(", "))
        }
        PeerResponse::Check(answer) => format!("{answer:?}"),
        PeerResponse::Seal(Ok(seal)) => format!("its WAL ends at {}", seal.end),
        PeerResponse::Seal(Err(why)) => format!("no candidate: {why}"),
        PeerResponse::Lease(Ok(grant)) => {
            format!("request {} is granted for {} ms", grant.number, grant.use_for.as_millis())
        }
        PeerResponse::Lease(Err(denial)) => format!("denied: {denial}"),
        PeerResponse::Proposed(answer) => match &**answer {
            Answer::Done(_) => "proposed".to_owned(),
            Answer::Refused(refusal) => format!("REFUSED ({}): {refusal}", variant(refusal)),
        },
        PeerResponse::Read { age: None, .. } => "applied up to here it is current".to_owned(),
        PeerResponse::Read { age: Some(age), .. } => {
            format!("applied up to here it is current; the order has been running for {} ms", age.as_millis())
        }
        PeerResponse::NotLeader { .. } => "this node does not lead".to_owned(),
        PeerResponse::Failed { why } => format!("no: {why}"),
    }
}

fn proposed(answer: Answer) -> PeerResponse {
    PeerResponse::Proposed(Box::new(answer))
}

impl Stage for Stand {
    fn run(&mut self, line: &Line) -> String {
        let moment = |text: &str| Instant(0) + line.duration(text);
        match line.verb() {
            "daemon" => self.daemon(line),
            "daemon-ends" => {
                self.node = None;
                self.events.clear();
                String::new()
            }
            "beats" => {
                self.beats(line);
                String::new()
            }
            "until" => self.until(moment(line.word(1))),
            "sleeps" => {
                // Everything on this host stands still; what arrives is taken in afterwards.
                self.desk.advance(moment(line.need("until")));
                self.give(Event::Wake)
            }
            "leader" => {
                let leader: NodeName = line.parse(line.word(1));
                if let Some(term) = line.number("term") {
                    self.desk.run(&Line::new(&format!("term {term}")));
                }
                let i_lead = leader == self.name;
                // What was proposed through the last leader is not waited for any more.
                self.proposals.clear();
                self.give(Event::Leadership { term: self.desk.term, leader: Some(leader), i_lead })
            }
            "channel" => {
                let channel = line.parse(line.word(1));
                let usable = if line.has("usable") { Ok(()) } else { Err(line.say("why", "it does not work")) };
                self.give(Event::Channel { channel, usable })
            }
            "show-feeding" => {
                self.shows_feeding = true;
                String::new()
            }
            "views" => self.views(),
            "report" => {
                let Some(node) = &self.node else { return String::new() };
                let plan = node.notes().iter().map(|l| format!("plan: {l}\n"));
                plan.chain(node.keeping().values().map(|step| format!("keeper: {}\n", step.now()))).collect()
            }
            _ => {
                if let Some(shown) = self.world(line) {
                    return shown;
                }
                let shown = self.desk.run(line);
                shown + &self.follow_ledger()
            }
        }
    }
}
