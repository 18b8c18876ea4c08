//! The stage of the ledger's, coordinator's, candidates' and keeper's stories: a real ledger to which commands are
//! applied one by one, and what a leader and keepers see of it. Every refusal is checked to have changed nothing.

use crate::fates::{Seen, changes};
use crate::keeping::Heard;
use crate::story::{Line, Stage};
use crate::{commands, coordinating::Leader, goals, setup, words};
use regent::config::Config;
use regent::lease::{self, LeaseRequest};
use regent::ledger::{self, Answer, Command, Entry, Life, Settings, State};
use regent::plan::goal::{Me, goal};
use regent::plan::keeper::Keeper;
use regent::types::{Epoch, Incarnation, Instant, Leaving, LogIndex, NodeName, Term, WallTime};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// The leaders' time of day when a story begins, in milliseconds; it is only written into records.
const MIDNIGHT: u64 = 1_790_000_000_000;

pub struct Desk {
    pub config: Config,
    pub state: State,
    pub term: Term,
    pub now: Instant,
    wall: WallTime,
    pub leader: Leader,
    pub keepers: BTreeMap<NodeName, Keeper>,
    /// What keepers hear of the databases of others.
    pub heard: Heard,
    /// Who leaves in order, and why.
    pub leaving: BTreeMap<NodeName, Leaving>,
    pub seen: Seen,
    /// What was applied since it was last asked for: for a whole node that follows this ledger.
    pub applied: Vec<(Arc<Entry>, Arc<Answer>, Arc<State>)>,
}

impl Desk {
    pub fn new() -> Self {
        let config = setup::config(&Line::new("given"), "w1");
        Desk {
            leader: Leader::new(&config, Term(5), Instant(0)),
            state: State::default(),
            term: Term(5),
            now: Instant(0),
            wall: WallTime(MIDNIGHT),
            keepers: BTreeMap::new(),
            heard: Heard::new(),
            leaving: BTreeMap::new(),
            seen: Seen::default(),
            applied: Vec::new(),
            config,
        }
    }

    /// Applies one command; what it answered and changed, as sentences.
    pub fn apply(&mut self, command: Command) -> String {
        let before = self.state.clone();
        let entry = Entry { at: self.wall, command };
        let index = LogIndex(self.state.applied.0 + 1);
        let answer = ledger::apply(&mut self.state, index, self.term, &entry);
        self.leader.note_applied(&before, &self.state, self.now);
        self.note_goals();
        let mut out = match &answer {
            Answer::Done(event) => format!("{}: {}\n", entry.command.name(), event),
            Answer::Refused(refusal) => {
                let variant = words::variant(refusal);
                let line = format!("{}: REFUSED ({variant}): {refusal}\n", entry.command.name());
                self.seen.refusals.insert(variant);
                let State { applied, refusals, incidents, .. } = self.state.clone();
                let unchanged = State { applied, refusals, incidents, ..before.clone() };
                assert!(self.state == unchanged, "{refusal} changed the state");
                line
            }
        };
        for change in changes(&before, &self.state, &mut self.seen) {
            writeln!(out, "    {change}").expect("a string takes everything");
        }
        for (id, incident) in &self.state.incidents {
            let known = before.incidents.get(id).map_or(0, |i| i.recorded());
            for step in incident.steps_after(known) {
                writeln!(out, "    incident {id}: {}", step.what).expect("a string takes everything");
            }
        }
        self.applied.push((Arc::new(entry), Arc::new(answer), Arc::new(self.state.clone())));
        out
    }

    pub fn advance(&mut self, to: Instant) {
        assert!(to >= self.now, "time goes forward only");
        self.wall.0 += to.since(self.now).as_millis() as u64;
        self.now = to;
    }

    fn note_goals(&mut self) {
        let Some(settings) = &self.state.settings else { return };
        for node in settings.database_nodes() {
            let (boot, incarnation) = commands::present(&self.state, node);
            // A node that hears of the verdict against it has to join again.
            let lives = self.state.present(node, incarnation).is_some_and(|n| n.life == Life::Up);
            let me = Me { node, boot: &boot, incarnation: lives.then_some(incarnation) };
            let goal = goal(&self.state, &self.config, &commands::orders(), me, Epoch(0));
            self.seen.goals.insert(goals::name(&goal));
        }
    }

    /// Where a story begins: `given started`, `given running`, `given dead`, `given fenced`.
    fn given(&mut self, line: &Line) {
        *self = Desk { seen: std::mem::take(&mut self.seen), ..Desk::new() };
        let me = line.get("leader").unwrap_or("w1");
        self.config = setup::config(line, me);
        self.leader = Leader::new(&self.config, self.term, self.now);
        let machine = |node: &NodeName| {
            let words = line.get("machines").unwrap_or("").split(',').filter_map(|t| t.split_once(':'));
            words.filter(|(n, _)| *n == node.as_str()).map(|(_, what)| format!(" {what}")).collect::<String>()
        };
        let joins: Vec<_> = self.config.nodes.keys().map(|n| format!("join {n}{}", machine(n))).collect();
        let steps: &[&str] = match line.word(1) {
            "empty" => return,
            "seeded" => &[],
            "started" => &["joins"],
            "running" => &["joins", "create db1", "installed db1 at=1:0/1000"],
            "dead" => &["joins", "create db1", "installed db1 at=1:0/1000", "dead"],
            "fenced" => &["joins", "create db1", "installed db1 at=1:0/1000", "dead", "ipmi"],
            other => line.fail(&format!("{other:?}: expected empty, seeded, started, running, dead or fenced")),
        };
        let keep = std::mem::take(&mut self.seen);
        self.quietly("seed");
        self.set_voters(line, None);
        for step in steps {
            match *step {
                "joins" => joins.iter().for_each(|join| self.quietly(join)),
                "dead" => {
                    let by = self.config.nodes.keys().filter(|n| n.as_str() != "db1").map(|n| format!("{n}:lll"));
                    let by: Vec<_> = by.collect();
                    self.quietly(&format!("declare db1 by={}", by.join(",")));
                }
                "ipmi" => {
                    self.quietly("order ipmi off");
                    self.quietly("ended 0 succeeded");
                }
                other => self.quietly(other),
            }
        }
        self.seen = keep;
    }

    fn quietly(&mut self, text: &str) {
        let line = Line::new(text);
        let shown = self.commanded(&line).unwrap_or_default();
        assert!(!shown.contains("REFUSED") && !shown.is_empty(), "{text}: {shown}");
    }

    fn commanded(&mut self, line: &Line) -> Option<String> {
        let settings = Settings::seed(&self.config);
        let command = commands::command(line, &self.state, self.term, &settings)?;
        if let Command::HumanConfirm { target, force, .. } = &command
            && let Err(refusal) = self.leader.may_vouch(&self.config, &self.state, target, *force, self.now)
        {
            let variant = words::variant(&refusal);
            self.seen.refusals.insert(variant.clone());
            return Some(format!("HumanConfirm: REFUSED ({variant}): {refusal}\n"));
        }
        Some(self.apply(command))
    }

    /// `voters db1,db2,w1` or, for a joint membership, `voters db1,db2,w1 w1,w2,w3`.
    fn set_voters(&mut self, line: &Line, halves: Option<usize>) {
        let settings = Settings::seed(&self.config);
        let id = |name: &NodeName| settings.nodes[name].id;
        let voters = match halves {
            None => vec![settings.nodes.values().map(|n| n.id).collect()],
            Some(n) => (1..=n).map(|w| commands::names(line, line.word(w)).iter().map(id).collect()).collect(),
        };
        let index = LogIndex(self.state.applied.0 + 1);
        ledger::set_voters(&mut self.state, index, voters);
    }

    /// The grantor's decision about one request.
    fn lease(&self, line: &Line) -> String {
        let node: NodeName = line.parse(line.word(1));
        let (boot, incarnation) = commands::present(&self.state, &node);
        let present = self.state.services.get(&commands::orders()).map_or(0, |s| s.epoch.0);
        let request = LeaseRequest {
            service: commands::orders(),
            epoch: Epoch(line.number("epoch").unwrap_or(present)),
            number: line.number("request").unwrap_or(1),
            boot: line.number("boot").map_or(boot, |n| commands::boot(&node, n)),
            incarnation: line.number("inc").map_or(incarnation, Incarnation),
            node: node.clone(),
            resumed: line.number("knows-resume"),
        };
        match lease::decide(&self.state, &request) {
            Ok(grant) => {
                let resumed = grant.resumed.map_or(String::new(), |n| format!(", and it has heard of resume {n}"));
                let ms = grant.use_for.as_millis();
                format!(
                    "lease: {node} may write under epoch {} for {ms} ms from before it asked{resumed}\n",
                    grant.epoch
                )
            }
            Err(denial) => format!("lease: denied to {node}: {denial}\n"),
        }
    }

    fn explain(&self, line: &Line) -> String {
        let id = regent::types::IncidentId(line.parse(line.word(1)));
        let Some(incident) = self.state.incidents.get(&id) else { line.fail("no such incident") };
        let mut out = format!("incident {id}: {:?} of {}, {:?}\n", incident.kind, incident.subject, incident.outcome);
        for step in &incident.steps {
            writeln!(out, "    {:>6} ms  {}", step.at.0 as i64 - MIDNIGHT as i64, step.what)
                .expect("a string takes everything");
        }
        out
    }

    fn refusals(&self) -> String {
        let line = |r: &ledger::Refused| format!("kept: {} refused: {}\n", r.command, r.refusal);
        self.state.refusals.iter().map(|r| line(r)).collect()
    }
}

impl Stage for Desk {
    fn run(&mut self, line: &Line) -> String {
        match line.verb() {
            "given" => self.given(line),
            "at" => self.advance(Instant(0) + line.duration(line.word(1))),
            "clock" => {
                // Of the leader's time of day: `clock back 1h` is what a wrong NTP server does.
                let by = line.duration(line.word(2)).as_millis() as u64;
                self.wall.0 = if line.word(1) == "back" { self.wall.0 - by } else { self.wall.0 + by };
            }
            "voters" => self.set_voters(line, Some(if line.has("joint") { 2 } else { 1 })),
            "term" => {
                self.term = Term(line.parse(line.word(1)));
                if let Some(me) = line.get("leader") {
                    self.config.node = line.parse(me);
                }
                self.leader.elected(self.term, self.now);
            }
            "lease" => return self.lease(line),
            "explain" => return self.explain(line),
            "refusals" => return self.refusals(),
            _ => {
                if let Some(shown) = self.commanded(line) {
                    return shown;
                }
                return self.leads(line).or_else(|| self.keeps(line)).unwrap_or_else(|| line.fail("unknown command"));
            }
        }
        String::new()
    }
}
