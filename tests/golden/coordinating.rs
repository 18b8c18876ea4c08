//! The leader's part of the desk: what it hears of everybody, the answers to its questions, its plan, its choice.

use crate::commands::{self, orders, present};
use crate::desk::Desk;
use crate::story::Line;
use regent::config::Config;
use regent::ledger::{Cause, CheckAnswer, Fence, Refusal, Sighting, State};
use regent::plan::candidate::{self, Choice};
use regent::plan::readiness::{self, Beside};
use regent::plan::switchover;
use regent::plan::{
    self, Applied, Checked, Input, Lead, LookRound, Monitored, Plan, Question, Row, Step, Timing, fencing,
};
use regent::types::{
    DbState, Epoch, Failing, FileFault, Health, HeardEnd, Instant, Lack, NodeName, Released, ReplayLag, Round, Seal,
    ServiceHealth, Term, Timeline, Unfit,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

pub struct Leader {
    timing: Timing,
    lead: Lead,
    applied: Applied,
    rows: BTreeMap<NodeName, Row>,
    silent: BTreeSet<NodeName>,
    monitored: Monitored,
    doubts_itself: bool,
}

impl Leader {
    pub fn new(config: &Config, term: Term, now: Instant) -> Self {
        Leader {
            timing: Timing::new(config),
            lead: Lead::new(term, now, Round(0)),
            applied: Applied::default(),
            rows: BTreeMap::new(),
            silent: BTreeSet::new(),
            monitored: Monitored::default(),
            doubts_itself: false,
        }
    }

    /// Another term: what was remembered of the last one is forgotten, what this node applied is not.
    pub fn elected(&mut self, term: Term, now: Instant) {
        self.lead = Lead::new(term, now, Round(0));
    }

    /// When this leader learned of what waiting counts from.
    pub fn note_applied(&mut self, before: &State, state: &State, now: Instant) {
        self.applied.note(before, state, now);
        for (_, fence) in state.fences.iter().filter(|(id, _)| !before.fences.contains_key(id)) {
            self.note_found(state, fence, now);
        }
    }

    /// A verdict of this term is this leader's own: it has just looked, or waited.
    fn note_found(&mut self, state: &State, fence: &Fence, now: Instant) {
        let lead = &mut self.lead;
        match fence.cause {
            Cause::Verdict { term, round } if term == lead.term => {
                let (_, incarnation) = present(state, &fence.target);
                lead.last_round = lead.last_round.max(round);
                let new = || LookRound { incarnation, round, opened: now, answers: BTreeMap::new() };
                lead.looks.entry(fence.target.clone()).or_insert_with(new);
            }
            Cause::Lapse { term } if term == lead.term => {
                lead.lapse_said.insert(fence.target.clone(), now);
            }
            _ => {}
        }
    }

    fn input<'a>(&'a self, config: &'a Config, state: &'a State, now: Instant) -> Input<'a> {
        Input {
            now,
            me: &config.node,
            state,
            config,
            timing: &self.timing,
            lead: &self.lead,
            applied: &self.applied,
            rows: &self.rows,
            monitored: &self.monitored,
            doubts_itself: self.doubts_itself,
        }
    }

    /// Before an operator's word is proposed.
    pub fn may_vouch(
        &mut self,
        config: &Config,
        state: &State,
        target: &NodeName,
        force: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.refresh(config, state, now);
        fencing::may_vouch(&self.input(config, state, now).outlook(), target, force)
    }

    /// Everybody who is not silent sends heartbeats all the time.
    fn refresh(&mut self, config: &Config, state: &State, now: Instant) {
        for name in config.nodes.keys() {
            let (_, incarnation) = present(state, name);
            let health = Arc::new(Health { config_hash: config.hash, ..Health::default() });
            let empty = || Row { at: now, incarnation, views: Arc::default(), health };
            let row = self.rows.entry(name.clone()).or_insert_with(empty);
            if !self.silent.contains(name) {
                row.at = now;
                row.incarnation = incarnation;
            }
        }
    }
}

impl Desk {
    /// The commands of the leader's part.
    pub fn leads(&mut self, line: &Line) -> Option<String> {
        match line.verb() {
            "row" => self.row(line),
            "heard" => {
                self.leader.silent.remove(&line.parse::<NodeName>(line.word(1)));
            }
            "silent" => {
                self.leader.silent.insert(line.parse(line.word(1)));
            }
            "monitor" => {
                let (agent, target) = (line.parse(line.word(1)), line.parse(line.word(2)));
                self.leader.monitored.note(agent, target, line.word(3) == "works", self.now);
            }
            "doubts" => self.leader.doubts_itself = true,
            "sure" => self.leader.doubts_itself = false,
            "renewal" => {
                let epoch = self.state.services[&orders()].epoch;
                self.leader.lead.renewed.insert(orders(), (epoch, self.now));
            }
            "answer" => self.answer(line),
            "plan" => return Some(self.plan(line.has("and-do"))),
            "choose" => return Some(self.choose(line)),
            "may-switch" => return Some(self.may_switch(line)),
            "ready" => return Some(self.ready(line)),
            _ => return None,
        }
        Some(String::new())
    }

    /// What one node's heartbeats say.
    fn row(&mut self, line: &Line) {
        self.leader.refresh(&self.config, &self.state, self.now);
        let name: NodeName = line.parse(line.word(1));
        let state = self.state.clone();
        let row = self.leader.rows.get_mut(&name).unwrap_or_else(|| line.fail("no such node"));
        for (peer, sights) in commands::pairs(line, line.get("sees").unwrap_or("")) {
            let (boot, incarnation) = present(&state, &peer);
            Arc::make_mut(&mut row.views).insert(peer, commands::view(line, sights, &boot, incarnation));
        }
        let health = Arc::make_mut(&mut row.health);
        health.self_doubt = line.has("doubts");
        health.config_hash = if line.has("other-file") { self.config.hash ^ 1 } else { self.config.hash };
        health.leaving = line.get("leaves").map(|why| commands::leaving(line, why));
        health.failing = line.get("fails").map(|what| failing(line, what)).into_iter().collect();
        if let Some(took) = line.get("log-write") {
            health.log_write = line.duration(took);
        }
        if let Some(text) = line.get("heard") {
            let (epoch, end) = text.split_once('@').unwrap_or_else(|| line.fail("expected heard=EPOCH@POSITION"));
            let silent_ms = line.get("silent").map_or(0, |time| line.duration(time).as_millis() as u64);
            let (epoch, end) = (Epoch(line.parse(epoch)), commands::position(line, end));
            health.ends.insert(orders(), HeardEnd { epoch, end, silent_ms });
        }
        let released = line.get("released").map(|text| {
            let (epoch, at) = text.split_once('@').map_or((text, None), |(e, at)| (e, Some(at)));
            let position = at.map(|at| commands::position(line, at));
            Released {
                epoch: Epoch(line.parse(epoch)),
                position,
                lapsed: line.has("lapsed"),
                leaving: false,
                why: String::new(),
            }
        });
        if let Some(text) = line.get("database") {
            let position = line.get("at").map_or_else(Default::default, |at| commands::position(line, at));
            let database = ServiceHealth {
                state: database(line, text),
                holds: line.number("holds").map(Epoch),
                writable: text == "primary",
                timeline: Timeline(position.timeline.0),
                position,
                streams_from: line.get("from").map(|n| line.parse(n)),
                released,
                copy: None,
                network: None,
                replay: line.get("unreplayed").map(|left| replay(line, left)),
                file_fault: line.get("wrong").map(|file| FileFault::new(file, 3, "syntax error", 0)),
                trouble: line.get("trouble").map(|text| crate::keeping::trouble(line, text)),
                pending_restart: Vec::new(),
                lowered: Vec::new(),
                unfit: unfit(line),
            };
            health.services.insert(orders(), database);
        }
    }

    /// Answers to the leader's questions.
    fn answer(&mut self, line: &Line) {
        match line.word(1) {
            "look" => {
                let target: NodeName = line.parse(line.word(2));
                let (boot, incarnation) = present(&self.state, &target);
                let look = self.leader.lead.looks.get_mut(&target);
                let look = look.unwrap_or_else(|| line.fail("nobody was asked to look"));
                for (by, text) in commands::pairs(line, line.need("by")) {
                    let view = commands::view(line, text, &boot, incarnation);
                    look.answers.insert(by, Sighting { view, silent_ms: BTreeMap::new() });
                }
            }
            "check" => {
                let fence = &self.state.fences[&self.state.last_fence];
                let at = self.now;
                let answers = self.leader.lead.checks.entry((fence.id, fence.refuted)).or_default();
                for by in commands::names(line, line.get("holds").unwrap_or("")) {
                    answers.insert(by, Checked { answer: CheckAnswer::Holds, at });
                }
                for by in commands::names(line, line.get("refuted").unwrap_or("")) {
                    let what = line.say("what", "2 heartbeats of that boot after the confirmation");
                    let answer = CheckAnswer::Refuted { channel: line.parse("disk"), what };
                    answers.insert(by, Checked { answer, at });
                }
            }
            "seal" => {
                let epoch = self.state.services[&orders()].epoch;
                let seals = sealed(line);
                self.leader.lead.seals.entry((orders(), epoch)).or_default().extend(seals);
            }
            other => line.fail(&format!("nobody asks {other:?}")),
        }
    }

    /// One look of the coordinator; `and-do` also applies what it proposes, until it proposes nothing new.
    fn plan(&mut self, and_do: bool) -> String {
        let mut out = String::new();
        for _ in 0..10 {
            self.leader.refresh(&self.config, &self.state, self.now);
            let plan = plan::coordinate(&self.leader.input(&self.config, &self.state, self.now));
            out += &self.shown(&plan);
            self.remember(&plan);
            let proposed: Vec<_> =
                plan.steps.into_iter().filter_map(|s| if let Step::Propose(c) = s { Some(c) } else { None }).collect();
            if !and_do || proposed.is_empty() {
                return out;
            }
            for command in proposed {
                out += &self.apply(command);
            }
        }
        panic!("the plan comes to no end:\n{out}");
    }

    fn shown(&self, plan: &Plan) -> String {
        let mut out = format!("plan at {} s, by {}\n", self.now.0 as f64 / 1e9, self.config.node);
        for line in &plan.notes {
            writeln!(out, "    says: {line}").expect("a string takes everything");
        }
        for step in &plan.steps {
            writeln!(out, "    {}", step).expect("a string takes everything");
        }
        if let Some(at) = plan.wakeup {
            writeln!(out, "    looks again at {} s", at.0 as f64 / 1e9).expect("a string takes everything");
        }
        out
    }

    /// As a node does when it hands the steps out.
    fn remember(&mut self, plan: &Plan) {
        for step in &plan.steps {
            match step {
                Step::Ask { question: Question::Look { target, incarnation, round, .. }, .. } => {
                    let lead = &mut self.leader.lead;
                    if lead.looks.get(target).is_none_or(|l| l.round < *round) {
                        let (incarnation, round, opened) = (*incarnation, *round, self.now);
                        lead.last_round = round;
                        let look = LookRound { incarnation, round, opened, answers: BTreeMap::new() };
                        lead.looks.insert(target.clone(), look);
                    }
                }
                Step::Transfer { .. } => self.leader.lead.last_transfer = Some(self.now),
                Step::Propose(command) => self.leader.lead.note_proposed(self.now, command),
                Step::Ask { .. } => {}
            }
        }
    }

    fn choose(&mut self, line: &Line) -> String {
        self.leader.refresh(&self.config, &self.state, self.now);
        let at_least = line.get("at-least").map(|at| commands::position(line, at));
        let service = &self.state.services[&orders()];
        let input = self.leader.input(&self.config, &self.state, self.now);
        let Choice { best, refused } = candidate::choose(&input, (&orders(), service), &sealed(line), at_least);
        let mut out = match best {
            Some((node, why)) => format!("chosen: {node}: {why}\n"),
            None => "chosen: nobody\n".to_owned(),
        };
        for (node, why) in refused {
            writeln!(out, "    not {node}: {why}").expect("a string takes everything");
        }
        out
    }

    fn may_switch(&mut self, line: &Line) -> String {
        self.leader.refresh(&self.config, &self.state, self.now);
        let input = self.leader.input(&self.config, &self.state, self.now);
        let to = line.get("to").map(|to| line.parse::<NodeName>(to));
        match switchover::decide(&input.outlook(), &orders(), to.as_ref()) {
            Ok(planned) => {
                let steps = planned.steps().into_iter().map(|step| format!("    {step}\n"));
                format!("may-switch to {}: {planned}\n{}", planned.to, steps.collect::<String>())
            }
            Err(why) => why.iter().map(|why| format!("may-switch: no: {why}\n")).collect(),
        }
    }

    /// Would a failover succeed now? `no-leader`, `broken=db1:ipmi`, `fails=watchdog_arm` (on this very node),
    /// `behind=db2:45s`.
    fn ready(&mut self, line: &Line) -> String {
        self.leader.refresh(&self.config, &self.state, self.now);
        let input = self.leader.input(&self.config, &self.state, self.now);
        let broken = commands::pairs(line, line.get("broken").unwrap_or(""));
        let own = line.get("fails").map(|what| (failing(line, what), "the reason".to_owned()));
        let beside = Beside {
            has_leader: !line.has("no-leader"),
            own_failing: own.into_iter().collect(),
            broken_devices: broken.into_iter().map(|(target, agent)| (line.parse(agent), target)).collect(),
            behind: commands::pairs(line, line.get("behind").unwrap_or(""))
                .into_iter()
                .map(|(node, time)| (node, line.duration(time)))
                .collect(),
        };
        let judged = readiness::judge(&input.outlook(), &beside, &orders());
        let mut out = match (judged.failover_ready, judged.survives_one_more) {
            (true, true) => "ready: yes, and once more\n".to_owned(),
            (true, false) => "ready: once\n".to_owned(),
            (false, _) => "ready: NO\n".to_owned(),
        };
        for reason in judged.reasons {
            writeln!(out, "    {reason}").expect("a string takes everything");
        }
        out
    }
}

/// `unreplayed=BYTES:SECONDS[:DELAY]`: left for so long, which is `still` where nothing is waited for on purpose.
fn replay(line: &Line, text: &str) -> ReplayLag {
    let numbers: Vec<u64> = text.split(':').map(|number| line.parse(number)).collect();
    let [bytes, seconds, ref delay @ ..] = numbers[..] else { line.fail("expected unreplayed=BYTES:SECONDS[:DELAY]") };
    let delay = delay.first().copied().unwrap_or_default();
    ReplayLag { bytes, seconds, still: if delay > 0 { 0 } else { seconds }, delay }
}

/// `unfit=collations,rejoin`: the kinds alone.
fn unfit(line: &Line) -> Vec<Unfit> {
    let words = line.get("unfit").unwrap_or("").split(',').filter(|word| !word.is_empty());
    let kind = |word: &str| Lack::ALL.into_iter().find(|kind| kind.word() == word);
    words.map(|word| Unfit::Brief(kind(word).unwrap_or_else(|| line.fail("no such kind")))).collect()
}

fn failing(line: &Line, text: &str) -> Failing {
    match text {
        "final-word" => Failing::FinalWord,
        "lease-file" => Failing::LeaseFile,
        "watchdog-arm" => Failing::WatchdogArm,
        "watchdog-feed" => Failing::WatchdogFeed,
        "ledger-low" => Failing::LedgerLow,
        "ledger-full" => Failing::LedgerFull,
        other => line.fail(&format!("{other:?} is nothing that fails")),
    }
}

pub fn database(line: &Line, text: &str) -> DbState {
    match text {
        "unclear" => DbState::Unclear,
        "absent" => DbState::Absent,
        "unstartable" => DbState::Unstartable,
        "stopped" => DbState::Stopped,
        "starting" => DbState::Starting,
        "standby" => DbState::Standby,
        "primary" => DbState::Primary,
        "stopping" => DbState::Stopping,
        other => line.fail(&format!("{other:?} is no state of a database")),
    }
}

/// `db2@1:0/1000`, or `db3` with its reason: `db3:no_running_standby`.
fn sealed(line: &Line) -> BTreeMap<NodeName, Result<Seal, String>> {
    let items = line.get("from").unwrap_or("").split(',').filter(|t| !t.is_empty());
    let report = |item: &str| match item.split_once('@') {
        Some((node, at)) => (line.parse(node), Ok(commands::seal(line, at))),
        None => {
            let (node, why) = item.split_once(':').unwrap_or_else(|| line.fail("expected NODE@POSITION or NODE:why"));
            (line.parse(node), Err(why.replace('_', " ")))
        }
    };
    items.map(report).collect()
}
