//! A model of one database on one host: its directory, its processes, its place in history, and how long everything
//! takes. What a daemon gave up waiting for goes on by itself, as a real postmaster would. Not here: who streams from
//! whom and which commits are acknowledged (`replication.rs`), how it stops (`stopping.rs`), how a stopped directory
//! becomes a standby (`rejoin.rs`), and what ails one (`ailment.rs`).

use crate::ailment::Ailments;
use crate::cluster::{MS, S, World};
use crate::effects::part_of;
use rand::RngExt;
use regent::node::Event;
use regent::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, History, Lsn, NodeName, Observation, Position, Seal, Silence,
    SystemId, Timeline, Trouble,
};
use std::collections::BTreeMap;

/// How long a start as a standby is waited for; after that it is for the observer to see.
const STANDBY_PATIENCE: u64 = 15 * S;

/// What the processes of a database are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    None,
    Starting,
    Standby,
    Primary,
    /// On its way down; until `acks_until` a commit may still be acknowledged.
    Stopping {
        acks_until: u64,
    },
}

/// What was told to the daemon last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    state: DbState,
    streams_from: Option<usize>,
    follows: Option<usize>,
    writable: bool,
    starts_in_recovery: bool,
    at: Position,
    replayed: Lsn,
    hung: bool,
    progress: u64,
    /// One ailment may end while another goes on: which it is counts.
    unclear: bool,
    trouble: Option<Trouble>,
}

/// One database.
#[derive(Clone, Debug)]
pub struct Database {
    pub process: Process,
    /// Counts postmasters.
    pub postmaster: u64,
    pub system: Option<SystemId>,
    pub unfinished: bool,
    pub standby_signal: bool,
    pub clean: bool,
    pub at: Position,
    pub history: History,
    /// The history files in its directory: the numbers that are taken, and whether it is by a timeline (or a placeholder).
    pub files: BTreeMap<Timeline, bool>,
    pub follows: Option<usize>,
    pub streams_from: Option<usize>,
    pub sealed: bool,
    pub hung_since: Option<u64>,
    /// Since when something else than regent has it running: that lets no client in, nor regent.
    pub closed_since: Option<u64>,
    /// The epoch under which it was opened for writes.
    pub epoch: Epoch,
    /// How long the next promotion replays before it ends, and whether that is to be seen.
    pub backlog: u64,
    pub backlog_shows: bool,
    pub replaying: Option<(u64, u64)>,
    /// It cannot come out of recovery.
    pub promotion_fails: bool,
    /// A stop takes so much longer: a process hangs in the kernel.
    pub stop_hangs: u64,
    pub ails: Ailments,
    pub action: Option<u64>,
    /// The last action that asked an upstream for a rewind or copy.
    pub copied_by: Option<u64>,
    seen: Option<Seen>,
    seen_at: u64,
}

impl Database {
    /// Whether something is done with it that was not told to have ended.
    pub fn is_busy(&self) -> bool {
        self.action.is_some()
    }

    pub fn absent() -> Self {
        Database {
            process: Process::None,
            postmaster: 0,
            system: None,
            unfinished: false,
            standby_signal: false,
            clean: false,
            at: Position::default(),
            history: History::default(),
            files: BTreeMap::new(),
            follows: None,
            streams_from: None,
            sealed: false,
            hung_since: None,
            closed_since: None,
            epoch: Epoch(0),
            backlog: 0,
            backlog_shows: true,
            replaying: None,
            stop_hangs: 0,
            ails: Ailments::default(),
            promotion_fails: false,
            action: None,
            copied_by: None,
            seen: None,
            seen_at: 0,
        }
    }

    /// As the engine does it: placeholders up to the number that was given. Then as PostgreSQL does it: the first number
    /// without a file.
    fn take_number(&mut self, given: Timeline) -> Result<Timeline, String> {
        if let Some(taken) = self.files.keys().next_back().filter(|t| **t >= given) {
            return Err(format!("timeline {given} was given to this promotion, but {taken} is there"));
        }
        for number in self.at.timeline.0 + 1..given.0 {
            self.files.entry(Timeline(number)).or_insert(false);
        }
        let free = (self.at.timeline.0 + 1..).map(Timeline).find(|t| !self.files.contains_key(t));
        let next = free.expect("numbers do not end");
        self.files.insert(next, true);
        Ok(next)
    }

    /// A start in recovery would take the newest file for its target.
    fn forget_trailing(&mut self) {
        while self.files.last_key_value().is_some_and(|(_, real)| !real) {
            self.files.pop_last();
        }
    }

    fn state(&self) -> DbState {
        match self.process {
            Process::Starting => DbState::Starting,
            Process::Standby => DbState::Standby,
            Process::Primary => DbState::Primary,
            Process::Stopping { .. } => DbState::Stopping,
            Process::None if self.unfinished => DbState::Unstartable,
            Process::None if self.system.is_none() => DbState::Absent,
            Process::None => DbState::Stopped,
        }
    }

    /// Since when it answers nobody, regent neither.
    pub fn silent_since(&self) -> Option<u64> {
        self.hung_since.or(self.closed_since)
    }

    fn replayed(&self, now: u64) -> Lsn {
        match self.replaying.filter(|(_, end)| self.backlog_shows && now < *end) {
            Some((_, end)) => Lsn(self.at.lsn.0.saturating_sub((end - now) / MS)),
            None if self.replaying.is_some_and(|(_, end)| now < end) => Lsn(self.at.lsn.0.saturating_sub(1)),
            None => self.at.lsn,
        }
    }

    fn look(&self, now: u64) -> Seen {
        let hung = self.silent_since().is_some();
        let (unclear, trouble) = (now < self.ails.unclear.1, self.ails.trouble(now));
        let ails = unclear || trouble.is_some();
        Seen {
            unclear,
            trouble,
            state: self.state(),
            streams_from: self.streams_from,
            // A seal takes its upstream out of the settings.
            follows: self.follows.filter(|_| !self.sealed),
            writable: self.process == Process::Primary && !hung && !ails,
            starts_in_recovery: self.standby_signal,
            at: self.at,
            replayed: self.replayed(now),
            hung,
            progress: if self.process == Process::Starting && self.ails.gets_on { now / S } else { 0 },
        }
    }
}

/// Whether what changed is told at once.
fn is_news(a: &Seen, b: &Seen) -> bool {
    let key = |s: &Seen| (s.state, s.streams_from, s.follows, s.writable, s.starts_in_recovery, s.hung, s.at.timeline);
    key(a) != key(b)
}

/// One action under way.
#[derive(Clone)]
pub struct Act {
    pub host: usize,
    pub service: usize,
    pub action: DbAction,
    pub number: u64,
    pub postmaster: u64,
    /// The daemon that asked for it: a later one does not hear how it ended.
    pub life: u64,
}

impl World {
    pub fn db(&mut self, host: usize, service: usize) -> &mut Database {
        &mut self.hosts[host].databases[service]
    }

    /// Tells the daemon what there is to see: at once when the state changed, else every 200 ms.
    pub fn observe(&mut self, host: usize) {
        if !self.is_alive(host) {
            return;
        }
        for service in 0..self.hosts[host].databases.len() {
            let now = self.now;
            let db = &mut self.hosts[host].databases[service];
            let seen = db.look(now);
            let changed = db.seen.as_ref().is_none_or(|before| is_news(before, &seen));
            let stale =
                now >= db.seen_at + 200 * MS && (db.silent_since().is_some() || db.seen.as_ref() != Some(&seen));
            if changed || stale {
                let streams = db.streams_from.is_some();
                (db.seen, db.seen_at) = (Some(seen), now);
                let seen = Box::new(self.observation(host, service));
                if streams {
                    self.facts.copies.streams(host, service);
                }
                let service = self.services[service].clone();
                self.give(host, Event::Seen { service, seen });
            }
        }
    }

    /// What lay beside the data directory when the daemon started.
    fn kept_before(&self, host: usize, service: usize) -> Vec<String> {
        let life = self.hosts[host].life;
        let before = self.facts.kept.iter().filter(|k| (k.host, k.service) == (host, service) && k.life < life);
        before.map(|k| k.name.clone()).collect()
    }

    fn observation(&self, host: usize, service: usize) -> Observation {
        let db = &self.hosts[host].databases[service];
        let seen = db.look(self.now);
        let name = |i: Option<usize>| -> Option<NodeName> { i.map(|i| self.hosts[i].name.clone()) };
        let silence = |since: u64| {
            let ms = (self.now - since) / MS;
            Silence { since_ms: ms, still_ms: ms, serves_nobody: (since / MS).is_multiple_of(2) }
        };
        let trouble = db.silent_since().map(|since| Trouble::NotAnswering(silence(since)));
        let well = Observation {
            state: seen.state,
            system: db.system,
            position: db.at,
            // The server says so in recovery only.
            replayed: (db.process == Process::Standby).then_some(seen.replayed),
            history: db.history.clone(),
            clean: db.clean,
            starts_in_recovery: db.standby_signal,
            streams_from: name(db.streams_from),
            follows: name(seen.follows),
            awaits_wal: db.process == Process::Standby && db.replayed(self.now) == db.at.lsn,
            progress: seen.progress,
            writable: seen.writable,
            trouble,
            copy: None,
            network: None,
            replay: None,
            unfit: Vec::new(),
            kept: self.kept_before(host, service),
            files: regent::types::Files::default(),
        };
        crate::ailment::seen(db, (self.now, self.hosts[host].started_at), well)
    }

    /// A daemon that starts has seen nothing yet.
    pub fn databases_unseen(&mut self, host: usize) {
        self.hosts[host].databases.iter_mut().for_each(|db| db.seen = None);
    }

    /// Every process of it is gone at once.
    pub fn database_gone(&mut self, host: usize, service: usize) {
        let Some(db) = self.hosts[host].databases.get_mut(service) else { return };
        if db.process != Process::None {
            db.clean = false;
        }
        (db.process, db.hung_since, db.streams_from, db.replaying) = (Process::None, None, None, None);
        db.closed_since = None;
        db.postmaster += 1;
        self.observe(host);
    }

    pub fn databases_killed(&mut self, host: usize) {
        (0..self.hosts[host].databases.len()).for_each(|s| self.database_gone(host, s));
    }

    /// The daemon waits no more for what runs; what the database does by itself goes on.
    pub fn database_abort(&mut self, host: usize, service: usize) {
        if let Some(db) = self.hosts[host].databases.get_mut(service) {
            db.action = None;
            db.seen = None;
        }
    }

    pub fn databases_abort(&mut self, host: usize) {
        (0..self.hosts[host].databases.len()).for_each(|s| self.database_abort(host, s));
    }

    /// A unit of the distribution, or a person, starts what is there. regent's access file is not there for it.
    pub fn rogue_start(&mut self, host: usize, service: usize) {
        let standby = self.hosts[host].databases[service].standby_signal;
        let (now, power) = (self.now, self.hosts[host].power);
        let db = self.db(host, service);
        // Nothing starts on a host that is off, or it would come out of the next boot with processes that never end.
        if !power || db.process != Process::None || db.system.is_none() || db.unfinished {
            return;
        }
        db.postmaster += 1;
        db.closed_since = Some(now);
        db.process = if standby { Process::Standby } else { Process::Primary };
        self.note(|w| format!("{}: something else than regent starts the database", w.hosts[host].name));
        self.observe(host);
    }

    pub fn database_action(&mut self, host: usize, service: usize, action: DbAction) {
        self.next_action += 1;
        let number = self.next_action;
        self.db(host, service).action = Some(number);
        let postmaster = self.db(host, service).postmaster;
        let life = self.hosts[host].life;
        let act = Act { host, service, action: action.clone(), number, postmaster, life };
        let refused = self.refusal(&act);
        if let Some(why) = refused {
            return self.finish(1, 50, act, move |_, _| Err(why.to_owned()));
        }
        match action {
            DbAction::Initdb => self.finish(200, 600, act, World::initdb),
            DbAction::StartPrimary { epoch, .. } => self.start(act, false, epoch, None),
            DbAction::StartStandby { upstream } => {
                let upstream = upstream.map(|u| self.host(&u.node));
                self.start(act, true, Epoch(0), upstream);
            }
            DbAction::Follow { upstream } => {
                let up = self.host(&upstream.node);
                self.finish(5, 50, act, move |w, a| w.follow(a, up));
            }
            DbAction::Compare { upstream } => {
                let up = self.host(&upstream.node);
                self.ask_upstream(act, up);
            }
            DbAction::FindEnd { .. } => self.finish(5, 80, act, |w, a| {
                let db = w.db(a.host, a.service);
                match db.process {
                    Process::None => Ok(DbDone::Ends { at: db.at }),
                    _ => Err("it runs".to_owned()),
                }
            }),
            DbAction::Seal => {
                self.db(host, service).sealed = true;
                self.finish(5, 60, act, World::seal);
            }
            DbAction::Promote { epoch, timeline } => {
                let now = self.now;
                let db = self.db(host, service);
                let backlog = std::mem::take(&mut db.backlog);
                db.replaying = (backlog > 0).then_some((now, now + backlog));
                let ms = backlog / MS;
                self.finish(50 + ms, 400 + ms, act, move |w, a| w.promote(a, epoch, timeline));
            }
            DbAction::Checkpoint => self.finish(10, 100, act, |_, _| Ok(DbDone::Plain)),
            DbAction::Stop { ladder } => self.stop_when_clear(act, ladder),
            DbAction::Rejoin { upstream, order } => {
                let up = self.host(&upstream.node);
                self.rejoin(act, up, order.is_some());
            }
            DbAction::AcceptCopy { .. } => self.finish(1, 20, act, |_, _| Ok(DbDone::Plain)),
        }
    }

    /// Why it is refused before it does anything, if so.
    fn refusal(&mut self, act: &Act) -> Option<&'static str> {
        let (host, service, action) = (act.host, act.service, &act.action);
        match action {
            // It kills before it reads what it cannot read.
            DbAction::Stop { .. } => None,
            // Its disk fails in the middle of it.
            DbAction::Rejoin { .. } => None,
            DbAction::Initdb if self.db(host, service).system.is_none() => {
                // What it has begun stays behind, whatever becomes of it.
                self.db(host, service).unfinished = true;
                (!self.hosts[host].works(part_of(action))).then_some("cannot: no space left on device")
            }
            _ if !self.hosts[host].works(part_of(action)) => Some("cannot: input/output error"),
            DbAction::StartPrimary { epoch, .. } | DbAction::Promote { epoch, .. }
                if !self.lease_is_kept(act, *epoch) =>
            {
                Some("the lease file says nothing of a lease for this epoch that runs")
            }
            DbAction::StartPrimary { known: Some(known), .. } if self.db(host, service).at < *known => {
                Some("an older copy: more is known of it than it has")
            }
            _ => None,
        }
    }

    /// As the engine asks before it opens a database for writes.
    fn lease_is_kept(&self, act: &Act, epoch: Epoch) -> bool {
        let h = &self.hosts[act.host];
        let kept = h.kept.get(&self.services[act.service]);
        kept.is_some_and(|(of, until)| *of == epoch && h.local(self.now) < *until)
    }

    /// Ends the action after a while: `effect` happens with the postmaster that it began with, whoever still waits.
    pub fn finish(
        &mut self,
        least: u64,
        most: u64,
        act: Act,
        effect: impl FnOnce(&mut World, &Act) -> Result<DbDone, String> + 'static,
    ) {
        let delay = self.rng.random_range(least * MS..most * MS);
        let boots = self.hosts[act.host].boots;
        self.after(delay, move |w| w.do_or_wait(act, boots, effect));
    }

    fn do_or_wait(
        &mut self,
        act: Act,
        boots: u64,
        effect: impl FnOnce(&mut World, &Act) -> Result<DbDone, String> + 'static,
    ) {
        let h = &self.hosts[act.host];
        if !h.power || h.boots != boots {
            return;
        }
        if let Some(until) = h.frozen_until {
            // Half a millisecond after it goes on: the daemon may be first, and it may be too late.
            let delay = until.saturating_sub(self.now) + MS / 2;
            return self.after(delay, move |w| w.do_or_wait(act, boots, effect));
        }
        let same = self.db(act.host, act.service).postmaster == act.postmaster;
        let result = if same { effect(self, &act) } else { Err("the database died meanwhile".to_owned()) };
        self.end(&act, result);
    }

    fn end(&mut self, act: &Act, result: Result<DbDone, String>) {
        self.observe(act.host);
        if self.db(act.host, act.service).action != Some(act.number) {
            return;
        }
        self.db(act.host, act.service).action = None;
        let outcome = match result {
            Ok(done) => DbOutcome::Done(done),
            Err(error) if self.is_refused(act) => DbOutcome::Refused { error },
            Err(error) => DbOutcome::Failed { error },
        };
        self.note(|w| format!("{}: {:?} -> {outcome:?}", w.hosts[act.host].name, act.action));
        let service = self.services[act.service].clone();
        self.give(act.host, Event::DbEnded { service, action: act.action.clone(), outcome });
    }

    /// A rewind or copy that came to nothing before its upstream was asked for anything that costs.
    fn is_refused(&mut self, act: &Act) -> bool {
        matches!(act.action, DbAction::Rejoin { .. }) && self.db(act.host, act.service).copied_by != Some(act.number)
    }

    fn initdb(&mut self, act: &Act) -> Result<DbDone, String> {
        let system = SystemId(self.rng.random());
        let db = self.db(act.host, act.service);
        if db.system.is_some() {
            return Err("the data directory is not empty".to_owned());
        }
        db.system = Some(system);
        db.at = Position { timeline: Timeline(1), lsn: Lsn(4096) };
        (db.clean, db.standby_signal, db.unfinished) = (true, false, false);
        Ok(DbDone::Created { system })
    }

    fn start(&mut self, act: Act, standby: bool, epoch: Epoch, upstream: Option<usize>) {
        let now = self.now;
        let db = self.db(act.host, act.service);
        if db.process != Process::None || db.system.is_none() || db.unfinished || (!standby && db.standby_signal) {
            let why = format!("cannot start: {:?}", db.process);
            return self.finish(1, 5, act, move |_, _| Err(why));
        }
        db.postmaster += 1;
        db.hung_since = None;
        let postmaster = db.postmaster;
        (db.process, db.follows, db.sealed, db.standby_signal) = (Process::Starting, upstream, false, standby);
        if standby {
            db.forget_trailing();
        }
        let late = std::mem::take(if standby { &mut db.ails.late_standby } else { &mut db.ails.late_primary });
        db.ails.recovers_until = now + late;
        self.observe(act.host);
        let act = Act { postmaster, ..act };
        if standby && late > STANDBY_PATIENCE {
            // Whoever started it does not wait for all of that.
            let given_up = act.clone();
            self.after(STANDBY_PATIENCE, move |w| w.end(&given_up, Ok(DbDone::Plain)));
        }
        self.recover(act, standby, epoch);
    }

    /// A start ends when recovery is through: at once, or minutes later.
    fn recover(&mut self, act: Act, standby: bool, epoch: Epoch) {
        let left = self.db(act.host, act.service).ails.recovers_until.saturating_sub(self.now);
        if left > 0 {
            let boots = self.hosts[act.host].boots;
            return self.after(left.min(S), move |w| {
                let lives = w.db(act.host, act.service).postmaster == act.postmaster;
                match w.hosts[act.host].boots == boots {
                    true if lives => w.recover(act, standby, epoch),
                    true => w.end(&act, Err("the database died meanwhile".to_owned())),
                    false => {}
                }
            });
        }
        self.finish(80, 500, act, move |w, a| {
            if standby {
                w.db(a.host, a.service).process = Process::Standby;
                return Ok(DbDone::Plain);
            }
            w.open(a.host, a.service, epoch);
            Ok(DbDone::Writable { position: w.db(a.host, a.service).at })
        });
    }

    /// From now on it takes writes.
    fn open(&mut self, host: usize, service: usize, epoch: Epoch) {
        let db = self.db(host, service);
        (db.process, db.epoch, db.clean, db.follows) = (Process::Primary, epoch, false, None);
        db.replaying = None;
        self.note(|w| format!("{}: {} is WRITABLE in epoch {epoch}", w.hosts[host].name, w.services[service]));
        crate::invariants::opened(self, host, service, epoch);
        if self.guard_forbids(host, service) {
            self.guard_kills(host, service);
        }
    }

    fn follow(&mut self, act: &Act, up: usize) -> Result<DbDone, String> {
        let db = self.db(act.host, act.service);
        if db.process != Process::Standby || db.silent_since().is_some() {
            return Err("it is no running standby that answers".to_owned());
        }
        (db.follows, db.sealed) = (Some(up), false);
        Ok(DbDone::Plain)
    }

    fn seal(&mut self, act: &Act) -> Result<DbDone, String> {
        let db = self.db(act.host, act.service);
        let (Some(system), Process::Standby, None) = (db.system, db.process, db.silent_since()) else {
            return Err("it is no running standby that answers".to_owned());
        };
        db.streams_from = None;
        Ok(DbDone::Sealed(Seal { system, history: db.history.clone(), end: db.at, replayed: db.at.lsn }))
    }

    fn promote(&mut self, act: &Act, epoch: Epoch, timeline: Timeline) -> Result<DbDone, String> {
        let db = self.db(act.host, act.service);
        if db.process != Process::Standby || db.closed_since.is_some() {
            return Err("it is no running standby that lets regent in".to_owned());
        }
        if db.promotion_fails {
            return Err("its settings are below the primary's".to_owned());
        }
        let left = db.at;
        let next = db.take_number(timeline)?;
        db.history.0.push(left);
        (db.at.timeline, db.epoch) = (next, epoch);
        crate::invariants::timelines::promoted(self, act.host, act.service);
        let db = self.db(act.host, act.service);
        (db.standby_signal, db.streams_from) = (false, None);
        self.open(act.host, act.service, epoch);
        Ok(DbDone::Writable { position: self.db(act.host, act.service).at })
    }
}
