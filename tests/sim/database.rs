//! A model of one database on one host: its directory, its processes, its place in history, and how long everything
//! takes. What a daemon gave up waiting for goes on by itself, as a real postmaster would.

use crate::cluster::{MS, World};
use rand::RngExt;
use regent::node::Event;
use regent::types::{
    DbAction, DbDone, DbOutcome, DbState, Epoch, History, Lsn, Observation, Position, Seal, ServiceName, SystemId,
    Timeline, Trouble,
};

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
    pub follows: Option<usize>,
    pub streams_from: Option<usize>,
    pub sealed: bool,
    pub hung_since: Option<u64>,
    /// The epoch under which it was opened for writes.
    pub epoch: Epoch,
    action: Option<u64>,
    seen: Option<Observation>,
    seen_at: u64,
}

impl Database {
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
            follows: None,
            streams_from: None,
            sealed: false,
            hung_since: None,
            epoch: Epoch(0),
            action: None,
            seen: None,
            seen_at: 0,
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
}

impl World {
    /// The one service that is simulated.
    pub fn service(&self) -> ServiceName {
        self.hosts[0].config.services.keys().next().expect("every configuration here has one service").clone()
    }

    pub fn db(&mut self, host: usize) -> &mut Database {
        self.hosts[host].database.as_mut().expect("asked of database hosts only")
    }

    /// Whether this postmaster would acknowledge a commit to a client right now.
    pub fn acknowledges(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        let Some(db) = h.database.as_ref().filter(|db| db.hung_since.is_none()) else { return false };
        let open = match db.process {
            Process::Primary => true,
            Process::Stopping { acks_until } => self.now < acks_until,
            _ => false,
        };
        h.power && !h.frozen && open
    }

    /// Whether it could acknowledge one later without being opened again: it is only frozen or hung.
    pub fn could_acknowledge_later(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        let open = |process| match process {
            Process::Primary => true,
            Process::Stopping { acks_until } => self.now < acks_until,
            _ => false,
        };
        h.power && h.database.as_ref().is_some_and(|db| open(db.process))
    }

    /// Standbys receive what their upstream has.
    pub fn replicate(&mut self) {
        for h in 0..self.hosts.len() {
            let Some(db) = &self.hosts[h].database else { continue };
            let wants = db.follows.filter(|_| db.process == Process::Standby && !db.sealed);
            let wants = wants.filter(|_| self.hosts[h].power && !self.hosts[h].frozen);
            let got = wants.and_then(|up| Some((up, self.upstream_of(h, up)?)));
            let db = self.db(h);
            match got {
                Some((up, (at, history))) => {
                    (db.at, db.history, db.streams_from) = (at, history, Some(up));
                }
                None => db.streams_from = None,
            }
        }
        for h in 0..self.hosts.len() {
            self.observe(h);
        }
    }

    /// What `up` has for `host`, if `host` may stream from it.
    fn upstream_of(&self, host: usize, up: usize) -> Option<(Position, History)> {
        let (from, to) = (self.hosts[up].database.as_ref()?, self.hosts[host].database.as_ref()?);
        let runs = matches!(from.process, Process::Primary | Process::Standby) && from.hung_since.is_none();
        let there = self.hosts[up].power && !self.hosts[up].frozen && self.net.connects(host, up);
        let fits = from.system == to.system && from.history.can_follow(from.at, to.at);
        let behind = to.at.timeline != from.at.timeline || to.at.lsn <= from.at.lsn;
        (runs && there && fits && behind).then(|| (from.at, from.history.clone()))
    }

    /// Every client writes to every database that lets it.
    pub fn serve_clients(&mut self) {
        for h in 0..self.hosts.len() {
            if self.acknowledges(h) {
                self.db(h).at.lsn.0 += 64;
                self.facts.acknowledged(self.now, h);
            }
        }
    }

    /// Tells the daemon what there is to see: at once when the state changed, else every 200 ms.
    pub fn observe(&mut self, host: usize) {
        let now = self.now;
        let names: Vec<_> = self.hosts.iter().map(|h| h.name.clone()).collect();
        let alive = self.is_alive(host);
        let Some(db) = self.hosts[host].database.as_mut().filter(|_| alive) else { return };
        let name = |i: Option<usize>| i.map(|i| names[i].clone());
        let hung = db.hung_since.map(|since| Trouble::NotAnswering { since_ms: (now - since) / MS });
        let seen = Observation {
            state: db.state(),
            system: db.system,
            position: db.at,
            replayed: Some(db.at.lsn),
            history: db.history.clone(),
            clean: db.clean,
            starts_in_recovery: db.standby_signal,
            streams_from: name(db.streams_from),
            follows: name(db.follows),
            writable: db.process == Process::Primary && hung.is_none(),
            trouble: hung,
        };
        let key = |o: &Observation| {
            (o.state, o.streams_from.clone(), o.follows.clone(), o.writable, o.position.timeline, o.starts_in_recovery)
        };
        let changed = db.seen.as_ref().is_none_or(|before| key(before) != key(&seen));
        let stale = now >= db.seen_at + 200 * MS && db.seen.as_ref() != Some(&seen);
        if changed || stale {
            (db.seen, db.seen_at) = (Some(seen.clone()), now);
            let service = self.service();
            self.give(host, Event::Seen { service, seen: Box::new(seen) });
        }
    }

    /// A daemon that starts has seen nothing yet.
    pub fn forget_seen(&mut self, host: usize) {
        if let Some(db) = self.hosts[host].database.as_mut() {
            db.seen = None;
        }
    }

    /// Every process of it is gone at once: power, SIGKILL of the cgroup.
    pub fn database_killed(&mut self, host: usize) {
        let Some(db) = self.hosts[host].database.as_mut() else { return };
        if db.process != Process::None {
            db.clean = false;
        }
        (db.process, db.hung_since, db.streams_from) = (Process::None, None, None);
        db.postmaster += 1;
        self.observe(host);
    }

    /// The daemon waits no more for what runs; what the database does by itself goes on.
    pub fn database_abort(&mut self, host: usize) {
        if let Some(db) = self.hosts[host].database.as_mut() {
            db.action = None;
            db.seen = None;
        }
    }

    pub fn database_action(&mut self, host: usize, service: ServiceName, action: DbAction) {
        self.next_action += 1;
        let number = self.next_action;
        self.facts.acted(self.now);
        self.db(host).action = Some(number);
        let act = Act { host, service, action: action.clone(), number, postmaster: self.db(host).postmaster };
        match action {
            DbAction::Initdb => self.finish(200, 600, act, World::initdb),
            DbAction::StartPrimary { epoch } => self.start(act, false, epoch, None),
            DbAction::StartStandby { upstream } => {
                let upstream = upstream.map(|u| self.host(&u.node));
                self.start(act, true, Epoch(0), upstream);
            }
            DbAction::Follow { upstream } => {
                let up = self.host(&upstream.node);
                self.finish(5, 50, act, move |w, a| w.follow(a, up));
            }
            DbAction::Seal => {
                self.db(host).sealed = true;
                self.finish(5, 60, act, World::seal);
            }
            DbAction::Promote { epoch } => self.finish(50, 400, act, move |w, a| w.promote(a, epoch)),
            DbAction::Checkpoint => self.finish(10, 100, act, |_, _| Ok(DbDone::Plain)),
            DbAction::Stop { ladder } => self.stop(act, ladder.fast.as_nanos() > 0),
            DbAction::Rejoin { upstream } => {
                let up = self.host(&upstream.node);
                self.rejoin(act, up);
            }
        }
    }

    /// Ends the action after a while: `effect` happens with the postmaster that it began with, whoever still waits.
    fn finish(
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
        if h.frozen {
            return self.after(20 * MS, move |w| w.do_or_wait(act, boots, effect));
        }
        let same = self.db(act.host).postmaster == act.postmaster;
        let result = if same { effect(self, &act) } else { Err("the database died meanwhile".to_owned()) };
        self.end(&act, result);
    }

    fn end(&mut self, act: &Act, result: Result<DbDone, String>) {
        self.observe(act.host);
        if self.db(act.host).action != Some(act.number) {
            return;
        }
        self.db(act.host).action = None;
        let outcome = match result {
            Ok(done) => DbOutcome::Done(done),
            Err(error) => DbOutcome::Failed { error },
        };
        let name = self.hosts[act.host].name.clone();
        self.note(|| format!("{name}: {:?} -> {outcome:?}", act.action));
        self.give(act.host, Event::DbEnded { service: act.service.clone(), action: act.action.clone(), outcome });
    }

    fn initdb(&mut self, act: &Act) -> Result<DbDone, String> {
        let system = SystemId(self.rng.random());
        let db = self.db(act.host);
        if db.system.is_some() {
            return Err("the data directory is not empty".to_owned());
        }
        db.system = Some(system);
        db.at = Position { timeline: Timeline(1), lsn: Lsn(4096) };
        (db.clean, db.standby_signal) = (true, false);
        Ok(DbDone::Created { system })
    }

    fn start(&mut self, act: Act, standby: bool, epoch: Epoch, upstream: Option<usize>) {
        let db = self.db(act.host);
        if db.process != Process::None || db.system.is_none() || db.unfinished || (!standby && db.standby_signal) {
            let why = format!("cannot start: {:?}", db.process);
            return self.finish(1, 5, act, move |_, _| Err(why));
        }
        db.postmaster += 1;
        db.hung_since = None;
        let postmaster = db.postmaster;
        (db.process, db.follows, db.sealed, db.standby_signal) = (Process::Starting, upstream, false, standby);
        self.observe(act.host);
        self.finish(80, 500, Act { postmaster, ..act }, move |w, a| {
            if standby {
                w.db(a.host).process = Process::Standby;
                return Ok(DbDone::Plain);
            }
            w.open(a.host, epoch);
            Ok(DbDone::Writable { position: w.db(a.host).at })
        });
    }

    /// From now on it takes writes.
    fn open(&mut self, host: usize, epoch: Epoch) {
        let db = self.db(host);
        (db.process, db.epoch, db.clean, db.follows) = (Process::Primary, epoch, false, None);
        let name = self.hosts[host].name.clone();
        self.note(|| format!("{name}: WRITABLE in epoch {epoch}"));
        self.opened(host, epoch);
    }

    fn follow(&mut self, act: &Act, up: usize) -> Result<DbDone, String> {
        let db = self.db(act.host);
        if db.process != Process::Standby {
            return Err("it is no running standby".to_owned());
        }
        (db.follows, db.sealed) = (Some(up), false);
        Ok(DbDone::Plain)
    }

    fn seal(&mut self, act: &Act) -> Result<DbDone, String> {
        let db = self.db(act.host);
        let (Some(system), Process::Standby) = (db.system, db.process) else {
            return Err("it is no running standby".to_owned());
        };
        db.streams_from = None;
        Ok(DbDone::Sealed(Seal { system, history: db.history.clone(), end: db.at, replayed: db.at.lsn }))
    }

    fn promote(&mut self, act: &Act, epoch: Epoch) -> Result<DbDone, String> {
        let db = self.db(act.host);
        if db.process != Process::Standby {
            return Err("it is no running standby".to_owned());
        }
        let left = db.at;
        db.history.0.push(left);
        db.at.timeline = Timeline(left.timeline.0 + 1);
        (db.standby_signal, db.streams_from) = (false, None);
        self.open(act.host, epoch);
        Ok(DbDone::Writable { position: self.db(act.host).at })
    }

    fn stop(&mut self, act: Act, fast: bool) {
        let host = act.host;
        let now = self.now;
        // A hung one does not hear the polite rungs.
        let hung = self.db(host).hung_since.is_some();
        let takes = match (fast, hung) {
            (true, false) => self.rng.random_range(50..400),
            (false, false) => self.rng.random_range(5..200),
            _ => self.rng.random_range(200..900),
        } * MS;
        let db = self.db(host);
        if db.process == Process::None {
            return self.finish(1, 5, act, |w, a| Ok(w.stopped(a)));
        }
        if !matches!(db.process, Process::Stopping { .. }) {
            // The last backend may acknowledge until a fast stop has reached it, and until the end of a rough one.
            let was_primary = db.process == Process::Primary;
            let acks_until = now
                + if !was_primary {
                    0
                } else if fast {
                    takes.min(50 * MS)
                } else {
                    takes
                };
            db.process = Process::Stopping { acks_until };
        }
        db.postmaster += 1;
        let act = Act { postmaster: db.postmaster, ..act };
        self.observe(host);
        self.finish(takes / MS, takes / MS + 2, act, move |w, a| {
            if fast && !hung {
                w.send_the_rest(a.host);
            }
            let db = w.db(a.host);
            (db.process, db.hung_since, db.streams_from) = (Process::None, None, None);
            db.clean = fast && !hung;
            Ok(w.stopped(a))
        });
    }

    /// A clean stop ends only when every connected standby has everything, the shutdown checkpoint included.
    fn send_the_rest(&mut self, from: usize) {
        let (at, history) = (self.db(from).at, self.db(from).history.clone());
        for h in 0..self.hosts.len() {
            let reaches = self.is_alive(h) && self.net.connects(h, from);
            let streams = self.hosts[h].database.as_ref().is_some_and(|db| {
                db.follows == Some(from)
                    && db.process == Process::Standby
                    && !db.sealed
                    && history.can_follow(at, db.at)
            });
            if h != from && reaches && streams {
                let db = self.db(h);
                (db.at, db.history) = (at, history.clone());
            }
        }
    }

    fn stopped(&mut self, act: &Act) -> DbDone {
        let db = self.db(act.host);
        DbDone::Stopped { clean: db.clean, position: db.clean.then_some(db.at) }
    }

    fn rejoin(&mut self, act: Act, up: usize) {
        let db = self.db(act.host);
        if db.process != Process::None {
            return self.finish(1, 5, act, |_, _| Err("it still runs".to_owned()));
        }
        let Some(from) = self.hosts[up].database.clone() else { return };
        let to = self.db(act.host);
        let fits = !to.unfinished && to.system == from.system && from.history.can_follow(from.at, to.at);
        if fits && (to.at.timeline != from.at.timeline || to.at.lsn <= from.at.lsn) {
            return self.finish(5, 50, act, |w, a| {
                w.db(a.host).standby_signal = true;
                Ok(DbDone::Rejoined { how: "nothing to do".to_owned(), kept: None })
            });
        }
        let reaches = self.net.connects(act.host, up) && self.hosts[up].power && from.process == Process::Primary;
        if !reaches {
            return self.finish(50, 500, act, |_, _| Err("the upstream does not answer".to_owned()));
        }
        self.db(act.host).unfinished = true;
        self.finish(300, 1500, act, move |w, a| {
            let there = w.net.connects(a.host, up) && w.hosts[up].power && !w.hosts[up].frozen;
            let from = w.hosts[up].database.clone().filter(|f| there && f.process == Process::Primary);
            let Some(from) = from else { return Err("the upstream went away".to_owned()) };
            let db = w.db(a.host);
            (db.system, db.at, db.history) = (from.system, from.at, from.history);
            (db.unfinished, db.standby_signal, db.clean) = (false, true, true);
            Ok(DbDone::Rejoined { how: "cloned".to_owned(), kept: None })
        });
    }
}

/// One action under way.
#[derive(Clone)]
struct Act {
    host: usize,
    service: ServiceName,
    action: DbAction,
    number: u64,
    postmaster: u64,
}
