//! The keeper's part of the desk: what a node's database is, the keeper's next step, and a model of an engine that always
//! does what it is told, to see where the steps lead.

use crate::commands::{self, SYSTEM, history, orders, present};
use crate::coordinating::database;
use crate::desk::Desk;
use crate::story::Line;
use regent::config::Config;
use regent::lease;
use regent::ledger::{Command, State};
use regent::plan::keeper::{Input, Local, Me, Step, keep};
use regent::types::{
    DbAction, DbState, Epoch, Instant, Lsn, NodeName, Observation, Position, Released, Timeline, Trouble,
};
use std::fmt::Write as _;
use std::time::Duration;

/// The next step of the keeper of `node`; `joined`: whether its daemon has an incarnation.
pub fn step(config: &Config, state: &State, node: &NodeName, local: &Local, now: Instant, joined: bool) -> Step {
    let (boot, incarnation) = present(state, node);
    let me = Me { node, boot: &boot, incarnation: joined.then_some(incarnation) };
    keep(&Input { now, me, state, name: &orders(), config, local, unguarded: None })
}

/// Does what an engine does that always succeeds. `Some`: what is to be brought to the ledger.
pub fn perform(state: &State, node: &NodeName, local: &mut Local, step: &Step) -> Option<Command> {
    let service = state.services.get(&orders());
    let (boot, incarnation) = present(state, node);
    let (service_name, node) = (orders(), node.clone());
    match step {
        Step::Db(action) => act(local, action, service.map_or(Timeline(1), |s| s.timeline)),
        Step::StopNow(..) => stopped(local, false),
        Step::StopToRejoin(..) => {
            local.distrusted = true;
            stopped(local, true);
        }
        Step::Tombstone(epoch) => {
            local.tombstone = *epoch;
            local.released = Some(Released { epoch: *epoch, position: local.stopped_at });
            local.lease = None;
        }
        Step::Release { epoch, position, why } => {
            let (epoch, position, why) = (*epoch, *position, why.to_string());
            return Some(Command::Release { service: service_name, epoch, node, boot, incarnation, position, why });
        }
        Step::Promoting { epoch, timeline } => {
            let (epoch, timeline) = (*epoch, *timeline);
            return Some(Command::Promoting { service: service_name, epoch, node, incarnation, timeline });
        }
        Step::Installed { epoch } => {
            let (epoch, position) = (*epoch, local.seen.position);
            let system = local.seen.system.unwrap_or(SYSTEM);
            return Some(Command::Installed { service: service_name, epoch, node, incarnation, system, position });
        }
        Step::Wait(_) => by_itself(local),
    }
    None
}

fn act(local: &mut Local, action: &DbAction, timeline: Timeline) {
    let seen = &mut local.seen;
    match action {
        DbAction::Initdb => {
            let at = Position { timeline: Timeline(1), lsn: Lsn(0x1000) };
            *seen =
                Observation { state: DbState::Stopped, system: Some(SYSTEM), position: at, ..Observation::unclear() };
        }
        DbAction::StartPrimary { .. } => {
            (seen.state, seen.writable, local.started_as_primary) = (DbState::Primary, true, true);
        }
        DbAction::Promote { timeline, .. } => {
            let timeline = *timeline;
            seen.history.0.push(seen.position);
            seen.position.timeline = timeline;
            (seen.state, seen.writable, local.started_as_primary) = (DbState::Primary, true, true);
            (seen.starts_in_recovery, seen.follows, seen.streams_from) = (false, None, None);
        }
        DbAction::StartStandby { upstream } => {
            let up = upstream.as_ref().map(|u| u.node.clone());
            (seen.state, seen.writable) = (DbState::Standby, false);
            (seen.follows, seen.streams_from) = (up.clone(), up);
            (local.started_as_primary, local.sealed) = (false, None);
        }
        DbAction::Follow { upstream } => {
            (seen.follows, seen.streams_from) = (Some(upstream.node.clone()), Some(upstream.node.clone()));
            (local.sealed, local.idle_since) = (None, None);
        }
        DbAction::Rejoin { .. } => {
            (seen.state, seen.starts_in_recovery, seen.system) = (DbState::Stopped, true, Some(SYSTEM));
            (seen.position.timeline, seen.history) = (timeline, history(timeline));
            (local.distrusted, local.started_as_primary, local.sealed) = (false, false, None);
        }
        DbAction::Checkpoint => {}
        DbAction::Seal => {}
        DbAction::Stop { .. } => stopped(local, true),
    }
}

fn stopped(local: &mut Local, clean: bool) {
    local.running = None;
    let seen = &mut local.seen;
    (seen.state, seen.clean, seen.writable, seen.streams_from) = (DbState::Stopped, clean, false, None);
    local.stopped_at = clean.then_some(seen.position);
}

/// What goes on while the keeper waits.
fn by_itself(local: &mut Local) {
    let seen = &mut local.seen;
    seen.state = match seen.state {
        DbState::Unclear if seen.system.is_none() => DbState::Absent,
        DbState::Unclear => DbState::Stopped,
        DbState::Starting if local.started_as_primary => DbState::Primary,
        DbState::Starting => DbState::Standby,
        DbState::Stopping => DbState::Stopped,
        state => state,
    };
    seen.writable = seen.state == DbState::Primary;
}

/// The holder asks, and the ledger decides; never while it stops or gives up.
pub fn renew(config: &Config, state: &State, node: &NodeName, local: &mut Local, now: Instant) {
    let (boot, incarnation) = present(state, node);
    let me = Me { node, boot: &boot, incarnation: Some(incarnation) };
    let held = Input { now, me, state, name: &orders(), config, local, unguarded: None }.held();
    let Some(epoch) = held else { return };
    if local.lease.as_ref().is_none_or(|l| l.epoch() != epoch) {
        local.lease = Some(lease::Holder::new(epoch, config.lease.renew));
    }
    let Some(holder) = &mut local.lease else { return };
    let request = holder.request(now, &orders(), (node, &boot, incarnation));
    if let Ok(grant) = lease::decide(state, &request) {
        holder.granted(now, &grant);
    }
}

impl Desk {
    /// The commands of the keeper's part.
    pub fn keeps(&mut self, line: &Line) -> Option<String> {
        match line.verb() {
            "local" => self.local(line),
            "keep" => return Some(self.keep_once(line)),
            "keep-on" => return Some(self.keep_on(line)),
            _ => return None,
        }
        Some(String::new())
    }

    /// What a node's keeper knows; what a line does not name stays as it was.
    pub fn local(&mut self, line: &Line) {
        let node: NodeName = line.parse(line.word(1));
        let renew = self.config.lease.renew;
        let moment = |text: &str| Instant(0) + line.duration(text);
        let local = self.locals.entry(node).or_default();
        let seen = &mut local.seen;
        if let Some(text) = line.get("database") {
            seen.state = database(line, text);
            seen.system = (seen.state != DbState::Absent).then_some(SYSTEM);
            seen.writable = seen.state == DbState::Primary;
            seen.trouble = None;
        }
        if let Some(at) = line.get("at") {
            seen.position = commands::position(line, at);
            seen.history = history(seen.position.timeline);
        }
        if let Some(system) = line.number("system") {
            seen.system = Some(regent::types::SystemId(system));
        }
        if let Some(up) = line.get("follows") {
            seen.follows = Some(line.parse(up));
            seen.streams_from = seen.follows.clone();
        }
        if line.has("gets-nothing") {
            (seen.streams_from, local.idle_since) = (None, Some(self.now));
        }
        seen.starts_in_recovery |= line.has("starts-in-recovery");
        seen.trouble = line.get("trouble").map(|text| trouble(line, text)).or(seen.trouble.take());
        local.started_as_primary |= line.has("was-opened-for-writes");
        local.closed |= line.has("was-closed");
        local.held_open |= line.has("held-open-by-a-pause");
        local.distrusted |= line.has("distrusted");
        if let Some(until) = line.get("lease") {
            let epoch = Epoch(line.number("lease-epoch").unwrap_or(1));
            local.lease = (until != "none").then(|| lease::Holder::adopt(epoch, renew, moment(until)));
        }
        local.tombstone = line.number("tombstone").map_or(local.tombstone, Epoch);
        local.writing_tombstone = line.number("writing-tombstone").map(Epoch).or(local.writing_tombstone);
        if let Some(restarts) = line.number("restarts") {
            (local.restarts, local.restarts_in) = (restarts as u32, Epoch(line.number("in").unwrap_or(1)));
        }
        if let Some(at) = line.get("taking-over-since") {
            let epoch = self.state.services.get(&orders()).map_or(Epoch(0), |s| s.epoch);
            local.install_since = Some((epoch, moment(at)));
        }
        local.last_error = line.get("error").map(|e| e.replace('_', " ")).or(local.last_error.take());
        local.retry_at = line.get("retry").map(moment).or(local.retry_at);
        local.sealed = line.number("sealed").map(Epoch).or(local.sealed);
        local.resumed_at = line.get("resumed-at").map(moment).or(local.resumed_at);
        if let Some(what) = line.get("running") {
            local.running = running(line, what, &self.state).map(|action| (action, self.now));
        }
    }

    fn keep_once(&mut self, line: &Line) -> String {
        let node: NodeName = line.parse(line.word(1));
        let local = self.locals.entry(node.clone()).or_default();
        let step = step(&self.config, &self.state, &node, local, self.now, !line.has("not-joined"));
        format!("keeper of {node} at {} s: {step}\n", self.now.0 as f64 / 1e9)
    }

    /// Step by step, with an engine that does what it is told, until nothing is left to do.
    fn keep_on(&mut self, line: &Line) -> String {
        let node: NodeName = line.parse(line.word(1));
        let mut out = String::new();
        for _ in 0..20 {
            let mut local = self.locals.remove(&node).unwrap_or_default();
            if !line.has("without-lease") {
                renew(&self.config, &self.state, &node, &mut local, self.now);
            }
            let step = step(&self.config, &self.state, &node, &local, self.now, true);
            writeln!(out, "keeper of {node} at {} s: {step}", self.now.0 as f64 / 1e9)
                .expect("a string takes everything");
            let before = local.seen.state;
            let command = perform(&self.state, &node, &mut local, &step);
            if let Step::Db(DbAction::Checkpoint) = step {
                local.checkpointed = self.state.services.get(&orders()).map(|s| s.epoch);
            }
            let rests = matches!(step, Step::Wait(_)) && local.seen.state == before;
            self.locals.insert(node.clone(), local);
            if rests {
                return out;
            }
            if let Some(command) = command {
                out += &self.apply(command);
            }
            self.now += Duration::from_millis(100);
        }
        panic!("the keeper comes to no end:\n{out}");
    }
}

fn trouble(line: &Line, text: &str) -> Trouble {
    match text.split_once(':').unwrap_or((text, "")) {
        ("silent", since) => Trouble::NotAnswering { since_ms: line.duration(since).as_millis() as u64 },
        ("volume-full", _) => Trouble::VolumeFull,
        ("volume-stalled", _) => Trouble::VolumeStalled,
        ("probe", error) => Trouble::ProbeFailed { error: error.replace('_', " ") },
        ("travels", cause) => Trouble::Travels { cause: cause.replace('_', " ") },
        _ => line.fail("expected silent:5s, volume-full, volume-stalled, probe:WHY or travels:WHY"),
    }
}

fn running(line: &Line, what: &str, state: &State) -> Option<DbAction> {
    let epoch = state.services.get(&orders()).map_or(Epoch(0), |s| s.epoch);
    let ladder = regent::types::StopLadder {
        fast: Duration::from_secs(60),
        immediate: Duration::from_secs(10),
        kill: Duration::from_secs(5),
    };
    Some(match what {
        "nothing" => return None,
        "promote" => DbAction::Promote { epoch, timeline: Timeline(2) },
        "start-primary" => DbAction::StartPrimary { epoch },
        "start-standby" => DbAction::StartStandby { upstream: None },
        "stop" => DbAction::Stop { ladder },
        other => line.fail(&format!("{other:?} is no action")),
    })
}
