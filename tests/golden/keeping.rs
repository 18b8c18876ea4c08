//! The keeper's part of the desk: what a node's database is, the keeper's next step, and a model of an engine that always
//! does what it is told, to see where the steps lead.

use crate::commands::{self, SYSTEM, history, orders, present};
use crate::coordinating::database;
use crate::desk::Desk;
use crate::story::Line;
use regent::config::Config;
use regent::lease;
use regent::ledger::{Command, Phase, Shared, State};
use regent::plan::goal::Me;
use regent::plan::keeper::{Input, Keeper, Moment, Step, keep};
use regent::plan::reason::StopReason;
use regent::plan::switchover::{self, Hindrance};
use regent::plan::{Applied, Outlook, Row, Timing};
use regent::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, Fails, Health, Instant, Leaving, Lsn, NodeName, Observation, Position,
    ServiceHealth, Silence, StopLadder, Timeline, Trouble, Upstream,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The hosts of a story were started so long before it begins.
const BEFORE: Duration = Duration::from_secs(3600);
/// A ladder, where it does not matter which.
const LADDER: StopLadder =
    StopLadder { fast: Duration::from_secs(60), immediate: Duration::from_secs(10), kill: Duration::from_secs(5) };

/// This moment of the story on a node's own clock.
pub fn local_time(now: Instant) -> Instant {
    now + BEFORE
}

/// This moment of the story, as the keeper's events have it.
pub fn moment(state: &State, now: Instant) -> Moment<'_> {
    Moment::of(local_time(now), state.services.get(&orders()).map(Shared::get))
}

/// What is heard of the databases of the others: what the story says, and of the holder that it takes writes.
pub type Heard = BTreeMap<NodeName, ServiceHealth>;

fn rows(state: &State, heard: &Heard, now: Instant) -> BTreeMap<NodeName, Row> {
    let mut all = heard.clone();
    if let Some((holder, epoch)) = state.services.get(&orders()).and_then(|s| Some((s.holder.as_ref()?, s.epoch))) {
        let holds = all.entry(holder.node.clone()).or_insert_with(|| health(DbState::Primary, Position::default()));
        holds.holds = Some(epoch);
    }
    let row = |(node, health): (NodeName, ServiceHealth)| {
        let (_, incarnation) = present(state, &node);
        let health = Health { services: [(orders(), health)].into(), ..Health::default() };
        (node, Row { at: local_time(now), incarnation, views: Arc::default(), health: Arc::new(health) })
    };
    all.into_iter().map(row).collect()
}

fn health(state: DbState, position: Position) -> ServiceHealth {
    let (timeline, writable) = (position.timeline, state == DbState::Primary);
    ServiceHealth {
        state,
        holds: None,
        writable,
        timeline,
        position,
        streams_from: None,
        released: None,
        copy: None,
        network: None,
        replay: None,
        file_fault: None,
        trouble: None,
        pending_restart: Vec::new(),
        lowered: Vec::new(),
        unfit: Vec::new(),
    }
}

/// Asks something of what the keeper of `node` looks at; `joined`: whether its daemon has an incarnation; `moves`: how
/// often the service moved of late.
pub fn ask<T>(
    (config, state, heard, leaving): (&Config, &State, &Heard, Option<Leaving>),
    node: &NodeName,
    keeper: &Keeper,
    now: Instant,
    (joined, moves): (bool, usize),
    question: impl FnOnce(&Input) -> T,
) -> T {
    let (boot, incarnation) = present(state, node);
    let me = Me { node, boot: &boot, incarnation: joined.then_some(incarnation) };
    let rows = rows(state, heard, now);
    let (now, timing, applied) = (local_time(now), Timing::new(config), Applied::default());
    let seen = Outlook { now, me: node, state, config, timing: &timing, applied: &applied, rows: &rows };
    let why_not = |why: Vec<Hindrance>| why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let heir = switchover::decide(&seen, &orders(), None).map(|way| way.to).map_err(why_not);
    question(&Input {
        now,
        me,
        state,
        name: &orders(),
        config,
        keeper,
        rows: &rows,
        unguarded: None,
        moves,
        leaving,
        heir: Some(&heir),
    })
}

/// Does what an engine does that always succeeds. `Some`: what is to be brought to the ledger.
pub fn perform(state: &State, node: &NodeName, keeper: &mut Keeper, step: &Step, now: Instant) -> Option<Command> {
    let at = moment(state, now);
    let (boot, incarnation) = present(state, node);
    let (service, node) = (orders(), node.clone());
    match step {
        Step::Db(action) => {
            let order = state.services.get(&orders()).and_then(|s| s.restart_of(&node));
            if let (DbAction::StartPrimary { .. } | DbAction::StartStandby { .. }, Some(order)) = (action, order) {
                keeper.starts_on_order(order.number);
            }
            act(
                keeper,
                action,
                state.services.get(&orders()).map(Shared::get).map_or(Timeline(1), |s| s.timeline),
                true,
                at,
            );
        }
        Step::StopNow(ladder, why) => {
            if let StopReason::GivenUp(why) = why {
                keeper.gives_up(why.clone(), at.now);
            }
            act(keeper, &DbAction::Stop { ladder: *ladder }, Timeline(0), false, at);
        }
        Step::StopToRejoin(ladder, _) => {
            keeper.distrusts();
            act(keeper, &DbAction::Stop { ladder: *ladder }, Timeline(0), true, at);
        }
        Step::StopToRestart { ladder, order } => {
            keeper.stops_on_order(*order);
            act(keeper, &DbAction::Stop { ladder: *ladder }, Timeline(0), true, at);
        }
        Step::StopToLeave(ladder, why) => {
            keeper.gives_up(why.clone(), at.now);
            act(keeper, &DbAction::Stop { ladder: *ladder }, Timeline(0), true, at);
        }
        Step::Restarted { order } => {
            let order = *order;
            return Some(Command::Restarted { service, node, order });
        }
        Step::Tombstone(epoch, why) => {
            why.iter().for_each(|why| keeper.gives_up(why.clone(), at.now));
            assert!(keeper.tombstone_begins(*epoch).is_some(), "it is written already");
            keeper.tombstoned(*epoch, at.now);
        }
        Step::Release { epoch, position, why } => {
            let (epoch, position, lapsed, leaving) = (*epoch, *position, why.is_lapse(), why.is_leave());
            let why = why.to_string();
            return Some(Command::Release { service, epoch, node, boot, incarnation, position, lapsed, leaving, why });
        }
        Step::Promoting { epoch, timeline } => {
            let (epoch, timeline) = (*epoch, *timeline);
            return Some(Command::Promoting { service, epoch, node, incarnation, timeline });
        }
        Step::Installed { epoch } => {
            let (epoch, position) = (*epoch, keeper.opened_at());
            let system = keeper.seen().system.unwrap_or(SYSTEM);
            return Some(Command::Installed { service, epoch, node, incarnation, system, position });
        }
        Step::Wait(_) => by_itself(keeper, at),
    }
    None
}

/// Begins and ends, and what it made of the database is seen.
fn act(keeper: &mut Keeper, action: &DbAction, timeline: Timeline, clean: bool, at: Moment) {
    keeper.begins(action.clone(), at);
    let (seen, done) = acted(keeper.seen().clone(), action, timeline, clean);
    assert_eq!(keeper.ended(action, DbOutcome::Done(done), true, at), None);
    keeper.sees(seen, at);
}

/// What an action makes of a database, and what it finds.
fn acted(mut seen: Observation, action: &DbAction, timeline: Timeline, clean: bool) -> (Observation, DbDone) {
    let done = match action {
        DbAction::Initdb => {
            let at = Position { timeline: Timeline(1), lsn: Lsn(0x1000) };
            seen =
                Observation { state: DbState::Stopped, system: Some(SYSTEM), position: at, ..Observation::unclear() };
            DbDone::Created { system: SYSTEM }
        }
        DbAction::StartPrimary { .. } => {
            (seen.state, seen.writable) = (DbState::Primary, true);
            DbDone::Writable { position: seen.position }
        }
        DbAction::Promote { timeline, .. } => {
            seen.history.0.push(seen.position);
            seen.position.timeline = *timeline;
            (seen.state, seen.writable) = (DbState::Primary, true);
            (seen.starts_in_recovery, seen.follows, seen.streams_from) = (false, None, None);
            DbDone::Writable { position: seen.position }
        }
        DbAction::StartStandby { upstream } => {
            let up = upstream.as_ref().map(|u| u.node.clone());
            (seen.state, seen.writable) = (DbState::Standby, false);
            (seen.follows, seen.streams_from) = (up.clone(), up);
            DbDone::Plain
        }
        DbAction::Follow { upstream } => {
            (seen.follows, seen.streams_from) = (Some(upstream.node.clone()), Some(upstream.node.clone()));
            DbDone::Plain
        }
        DbAction::Rejoin { .. } => {
            (seen.state, seen.starts_in_recovery, seen.system) = (DbState::Stopped, true, Some(SYSTEM));
            (seen.position.timeline, seen.history) = (timeline, history(timeline));
            DbDone::Rejoined { how: "as the engine does it".to_owned(), kept: None }
        }
        DbAction::Checkpoint | DbAction::Seal | DbAction::AcceptCopy { .. } => DbDone::Plain,
        DbAction::FindEnd { from } => DbDone::Ends { at: *from },
        DbAction::Compare { .. } => DbDone::Compared { unfit: Some("its history is another".to_owned()) },
        DbAction::Stop { .. } => {
            (seen.state, seen.clean, seen.writable, seen.streams_from) = (DbState::Stopped, clean, false, None);
            DbDone::Stopped { clean, position: Some(seen.position) }
        }
    };
    (seen, done)
}

/// What goes on while the keeper waits.
fn by_itself(keeper: &mut Keeper, at: Moment) {
    let mut seen = keeper.seen().clone();
    seen.state = match seen.state {
        DbState::Unclear if seen.system.is_none() => DbState::Absent,
        DbState::Unclear => DbState::Stopped,
        DbState::Starting if seen.starts_in_recovery => DbState::Standby,
        DbState::Starting => DbState::Primary,
        DbState::Stopping => DbState::Stopped,
        state => state,
    };
    seen.writable = seen.state == DbState::Primary;
    keeper.sees(seen, at);
}

/// The database was opened for writes, at some time before the present epoch.
pub fn opened(keeper: &mut Keeper) {
    let promote = DbAction::Promote { epoch: Epoch(0), timeline: Timeline(1) };
    keeper.begins(promote.clone(), Moment::default());
    keeper.ended(&promote, DbOutcome::Done(DbDone::Plain), true, Moment::default());
}

/// The holder asks, and the ledger decides; never while it stops or gives up.
pub fn renew(
    (config, state, leaving): (&Config, &State, Option<Leaving>),
    node: &NodeName,
    keeper: &mut Keeper,
    now: Instant,
) {
    let around = (config, state, &Heard::new(), leaving);
    let Some(epoch) = ask(around, node, keeper, now, (true, 0), |input| input.wants_lease()) else { return };
    keeper.wants_lease(epoch, config.lease.renew);
    let (boot, incarnation) = present(state, node);
    let me = Me { node, boot: &boot, incarnation: Some(incarnation) };
    let request = keeper.request(&orders(), me, local_time(now)).expect("it wants one");
    if let Ok(grant) = lease::decide(state, &request) {
        keeper.granted(&grant, local_time(now));
    }
}

/// It has a lease of this epoch until then.
fn leased(keeper: &mut Keeper, epoch: Epoch, until: Instant, now: Instant) {
    keeper.wants_lease(epoch, Duration::from_secs(1));
    let (node, boot) = ("db1".parse().expect("valid"), commands::boot(&"db1".parse().expect("valid"), 1));
    let me = Me { node: &node, boot: &boot, incarnation: Some(regent::types::Incarnation(1)) };
    let request = keeper.request(&orders(), me, now).expect("it wants one");
    let grant = lease::Grant { epoch, number: request.number, use_for: until.since(now), resumed: None };
    keeper.granted(&grant, now);
}

impl Desk {
    /// The commands of the keeper's part.
    pub fn keeps(&mut self, line: &Line) -> Option<String> {
        match line.verb() {
            "local" => self.local(line),
            "peer" => self.hears_of(line),
            "keep" => return Some(self.keep_once(line)),
            "keep-on" => return Some(self.keep_on(line)),
            _ => return None,
        }
        Some(String::new())
    }

    /// What has happened to a node's database and its keeper; what a line does not name stays as it was.
    pub fn local(&mut self, line: &Line) {
        let node: NodeName = line.parse(line.word(1));
        let then = |text: &str| local_time(Instant(0) + line.duration(text));
        let at = moment(&self.state, self.now);
        self.leaving.extend(line.get("leaves").map(|why| (node.clone(), commands::leaving(line, why))));
        let keeper = self.keepers.entry(node).or_default();
        if let Some(since) = line.get("taking-over-since") {
            keeper.epoch_began(at.holder, then(since));
        }
        if line.has("was-opened-for-writes") {
            opened(keeper);
        }
        if line.has("was-closed") {
            let stop = DbAction::Stop { ladder: LADDER };
            keeper.begins(stop.clone(), at);
            let stopped = DbDone::Stopped { clean: false, position: None };
            keeper.ended(&stop, DbOutcome::Done(stopped), false, at);
        }
        if let Some(restarts) = line.number("restarts") {
            let start = DbAction::StartPrimary { epoch: Epoch(line.number("in").unwrap_or(1)), known: None };
            keeper.begins(start.clone(), Moment { epoch: None, ..at });
            let installed = Moment { epoch: at.epoch.map(|(epoch, _)| (epoch, Phase::Installed)), ..at };
            (0..restarts).for_each(|_| keeper.begins(start.clone(), installed));
            keeper.ended(&start, DbOutcome::Done(DbDone::Plain), true, at);
        }
        if let Some(epoch) = line.number("sealed") {
            keeper.begins(DbAction::Seal, Moment { epoch: Some((Epoch(epoch), Phase::Installed)), ..at });
            keeper.ended(&DbAction::Seal, DbOutcome::Done(DbDone::Plain), false, at);
        }
        if let Some(until) = line.get("lease") {
            leased(keeper, Epoch(line.number("lease-epoch").unwrap_or(1)), then(until), at.now);
        }
        if let Some(epoch) = line.number("tombstone") {
            keeper.tombstone_begins(Epoch(epoch));
            keeper.tombstoned(Epoch(epoch), at.now);
        }
        if let Some(resumed) = line.get("resumed-at") {
            keeper.resumed(then(resumed));
        }
        keeper.sees(observed(line, keeper.seen().clone()), at);
        if let Some(end) = line.get("ends") {
            let outcome = match end {
                "unknown" => DbOutcome::Failed { error: "it cannot be told".to_owned() },
                end => DbOutcome::Done(DbDone::Ends { at: commands::position(line, end) }),
            };
            let find = DbAction::FindEnd { from: Position::default() };
            keeper.begins(find.clone(), at);
            keeper.ended(&find, outcome, true, at);
        }
        if let Some(answer) = line.get("compared") {
            compared(keeper, answer, at);
        }
        (0..line.number("makings-failed").unwrap_or(0)).for_each(|_| making_failed(keeper, at));
        if let Some(times) = line.number("copies-failed") {
            copies_failed(keeper, line, times, at);
        } else {
            failed(keeper, line, at, line.get("retry").map(then));
        }
        keeper.sees(observed(line, keeper.seen().clone()), at);
        match line.get("running") {
            None => {}
            Some("nothing") => {
                if let Some(action) = keeper.running().cloned() {
                    keeper.ended(&action, DbOutcome::Done(DbDone::Plain), false, at);
                }
            }
            Some(what) => keeper.begins(running(line, what, at.epoch.map_or(Epoch(0), |(epoch, _)| epoch)), at),
        }
    }

    /// What a node's heartbeats say of its database, for the keepers of the others.
    fn hears_of(&mut self, line: &Line) {
        let at = line.get("at").map_or(Position::default(), |at| commands::position(line, at));
        let state = database(line, line.get("database").unwrap_or("standby"));
        let mut health = health(state, at);
        health.writable &= !line.has("too-busy");
        health.streams_from = line.get("streams-from").map(|node| line.parse(node));
        health.trouble = line.get("trouble").map(|text| trouble(line, text));
        self.heard.insert(line.parse(line.word(1)), health);
    }

    fn keep_once(&mut self, line: &Line) -> String {
        let node: NodeName = line.parse(line.word(1));
        let keeper = self.keepers.entry(node.clone()).or_default();
        let around = (&self.config, &self.state, &self.heard, self.leaving.get(&node).copied());
        let how = (!line.has("not-joined"), line.number("moves").unwrap_or(0) as usize);
        let step = ask(around, &node, keeper, self.now, how, keep);
        format!("keeper of {node} at {} s: {step}\n", self.now.0 as f64 / 1e9)
    }

    /// Step by step, with an engine that does what it is told, until nothing is left to do, or `steps` are taken.
    fn keep_on(&mut self, line: &Line) -> String {
        let node: NodeName = line.parse(line.word(1));
        let leaving = self.leaving.get(&node).copied();
        let mut out = String::new();
        let steps = line.number("steps");
        for _ in 0..steps.unwrap_or(20) {
            let mut keeper = self.keepers.remove(&node).unwrap_or_default();
            if !line.has("without-lease") {
                renew((&self.config, &self.state, leaving), &node, &mut keeper, self.now);
            }
            let around = (&self.config, &self.state, &self.heard, leaving);
            let step = ask(around, &node, &keeper, self.now, (true, 0), keep);
            writeln!(out, "keeper of {node} at {} s: {step}", self.now.0 as f64 / 1e9)
                .expect("a string takes everything");
            let before = keeper.seen().state;
            let command = perform(&self.state, &node, &mut keeper, &step, self.now);
            let rests = matches!(step, Step::Wait(_)) && keeper.seen().state == before;
            self.keepers.insert(node.clone(), keeper);
            if rests {
                return out;
            }
            if let Some(command) = command {
                out += &self.apply(command);
            }
            self.now += Duration::from_millis(100);
        }
        assert!(steps.is_some(), "the keeper comes to no end:\n{out}");
        out
    }
}

/// The database as it was seen before, with what the line says of it.
fn observed(line: &Line, mut seen: Observation) -> Observation {
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
    if let Some(progress) = line.number("progress") {
        seen.progress = progress;
    }
    if let Some(system) = line.number("system") {
        seen.system = Some(regent::types::SystemId(system));
    }
    if let Some(up) = line.get("follows") {
        seen.follows = Some(line.parse(up));
        seen.streams_from = seen.follows.clone();
    }
    if line.has("gets-nothing") {
        (seen.streams_from, seen.awaits_wal) = (None, true);
    }
    seen.awaits_wal &= !line.has("replays");
    seen.starts_in_recovery |= line.has("starts-in-recovery");
    seen.trouble = line.get("trouble").map(|text| trouble(line, text)).or(seen.trouble.take());
    seen.writable &= seen.trouble.is_none();
    seen
}

/// The upstream was asked: it `fits`, it did not answer (`busy`), or why it cannot follow.
fn compared(keeper: &mut Keeper, answer: &str, at: Moment) {
    let upstream = Upstream { node: "db1".parse().expect("valid"), addresses: Vec::new(), port: 0 };
    let compare = DbAction::Compare { upstream };
    keeper.begins(compare.clone(), at);
    let outcome = match answer {
        "busy" => DbOutcome::Failed { error: "sorry, too many clients already".to_owned() },
        "fits" => DbOutcome::Done(DbDone::Compared { unfit: None }),
        why => DbOutcome::Done(DbDone::Compared { unfit: Some(why.replace('_', " ")) }),
    };
    keeper.ended(&compare, outcome, false, at);
}

/// It was tried so often to make it a standby, and came to nothing (`for-free`: refused beforehand).
fn copies_failed(keeper: &mut Keeper, line: &Line, times: u64, at: Moment) {
    let upstream = Upstream { node: line.parse(line.get("from").unwrap_or("db1")), addresses: Vec::new(), port: 0 };
    let rejoin = DbAction::Rejoin { upstream, order: None };
    let error = line.say("error", "it ended");
    for _ in 0..times {
        let outcome = match line.has("for-free") {
            true => DbOutcome::Refused { error: error.clone() },
            false => DbOutcome::Failed { error: error.clone() },
        };
        keeper.begins(rejoin.clone(), at);
        keeper.ended(&rejoin, outcome, false, at);
    }
}

/// The disk was full in the middle of `initdb`, a minute ago.
fn making_failed(keeper: &mut Keeper, at: Moment) {
    let error = "could not write: No space left on device".to_owned();
    keeper.begins(DbAction::Initdb, at);
    let then = Moment { now: at.now - Duration::from_secs(60), ..at };
    keeper.ended(&DbAction::Initdb, DbOutcome::Failed { error }, false, then);
}

/// Something failed: long ago, or so that it is tried again at that moment.
fn failed(keeper: &mut Keeper, line: &Line, at: Moment, again_at: Option<Instant>) {
    if again_at.is_none() && line.get("error").is_none() {
        return;
    }
    let error = line.say("error", "it failed");
    let now = again_at.map_or(at.now - Duration::from_secs(60), |again_at| again_at - Duration::from_millis(500));
    keeper.begins(DbAction::Checkpoint, at);
    keeper.ended(&DbAction::Checkpoint, DbOutcome::Failed { error }, false, Moment { now, ..at });
}

/// `volume-full`, `still:30s` and so on.
pub fn trouble(line: &Line, text: &str) -> Trouble {
    match text.split_once(':').unwrap_or((text, "")) {
        ("silent", since) => silent(line.duration(since), Duration::ZERO, false),
        ("still", since) => silent(line.duration(since), line.duration(since), false),
        ("frozen", since) => silent(line.duration(since), Duration::ZERO, true),
        ("volume-full", _) => Trouble::VolumeFull,
        ("volume-stalled", since) => Trouble::VolumeStalled { since_ms: line.duration(since).as_millis() as u64 },
        ("read-only", error) => Trouble::VolumeReadOnly { error: error.replace('_', " ") },
        ("gone", since) => Trouble::DirectoryGone { since_ms: line.duration(since).as_millis() as u64 },
        ("archiver", _) => Trouble::ArchiverStuck { waiting: 40, seconds: 700 },
        ("wraparound", _) => Trouble::WraparoundNear { age: 1_700_000_000 },
        ("log-full", _) => Trouble::LogVolumeFull,
        ("tablespace", "full") => Trouble::Tablespace { place: "/srv/bulk".into(), fails: Fails::Full },
        ("tablespace", since) => {
            let since_ms = line.duration(since).as_millis() as u64;
            Trouble::Tablespace { place: "/srv/bulk".into(), fails: Fails::Stalled { since_ms } }
        }
        ("probe", error) => Trouble::ProbeFailed { error: error.replace('_', " ") },
        ("travels", cause) => Trouble::Travels { cause: cause.replace('_', " ") },
        _ => line.fail(
            "expected silent:5s, still:30s, frozen:5s, gone:5s, volume-full, volume-stalled:5s, read-only:WHY, \
                       archiver, wraparound, log-full, tablespace:full, tablespace:5s, probe:WHY or travels:WHY",
        ),
    }
}

fn silent(since: Duration, still: Duration, serves_nobody: bool) -> Trouble {
    let ms = |time: Duration| time.as_millis() as u64;
    Trouble::NotAnswering(Silence { since_ms: ms(since), still_ms: ms(still), serves_nobody })
}

fn running(line: &Line, what: &str, epoch: Epoch) -> DbAction {
    match what {
        "promote" => DbAction::Promote { epoch, timeline: Timeline(2) },
        "start-primary" => DbAction::StartPrimary { epoch, known: None },
        "start-standby" => DbAction::StartStandby { upstream: None },
        "stop" => DbAction::Stop { ladder: LADDER },
        "initdb" => DbAction::Initdb,
        "find-end" => DbAction::FindEnd { from: Position { timeline: Timeline(1), lsn: Lsn(0x5000) } },
        other => line.fail(&format!("{other:?} is no action")),
    }
}
