//! Who streams from whom, and which commits are acknowledged: PostgreSQL's own rules for asynchronous and synchronous
//! replication, as far as a position in the log expresses them.

use crate::cluster::World;
use crate::database::Process;
use regent::types::{History, Position};

impl World {
    fn is_open(&self, process: Process) -> bool {
        match process {
            Process::Primary => true,
            Process::Stopping { acks_until } => self.now < acks_until,
            _ => false,
        }
    }

    /// Whether this postmaster would acknowledge a commit to a client right now (in a synchronous mode: as soon as its
    /// standbys have it).
    pub fn acknowledges(&self, host: usize, service: usize) -> bool {
        let h = &self.hosts[host];
        let Some(db) = h.databases.get(service).filter(|db| db.hung_since.is_none() && db.closed_since.is_none())
        else {
            return false;
        };
        h.power && !h.is_frozen() && self.is_open(db.process) && !db.ails.takes_no_writes(self.now)
    }

    /// Whether it could acknowledge one later without being opened again: it is only frozen or hung.
    pub fn could_acknowledge_later(&self, host: usize, service: usize) -> bool {
        let h = &self.hosts[host];
        let db = h.databases.get(service).filter(|db| db.closed_since.is_none());
        h.power && db.is_some_and(|db| self.is_open(db.process))
    }

    /// Standbys receive what their upstream has.
    pub fn replicate(&mut self) {
        for s in 0..self.services.len() {
            for h in 0..self.hosts.len() {
                let Some(db) = self.hosts[h].databases.get(s) else { continue };
                let wants = db.follows.filter(|_| db.process == Process::Standby && !db.sealed);
                let wants = wants.filter(|_| self.hosts[h].power && !self.hosts[h].is_frozen());
                let got = wants.and_then(|up| Some((up, self.upstream_of(h, s, up)?)));
                let db = self.db(h, s);
                match got {
                    Some((up, (at, history))) => {
                        (db.at, db.streams_from) = (at, Some(up));
                        if let Some(history) = history {
                            db.history = history;
                            self.fetch_files(h, s, up);
                        }
                    }
                    None => db.streams_from = None,
                }
            }
        }
        for h in 0..self.hosts.len() {
            self.observe(h);
        }
    }

    /// What `up` has for `host`, if `host` may stream from it; the history only where it differs.
    fn upstream_of(&self, host: usize, s: usize, up: usize) -> Option<(Position, Option<History>)> {
        let (from, to) = (self.hosts[up].databases.get(s)?, self.hosts[host].databases.get(s)?);
        let runs = matches!(from.process, Process::Primary | Process::Standby);
        let runs = runs && from.hung_since.is_none() && from.closed_since.is_none();
        let there = self.hosts[up].power && !self.hosts[up].is_frozen() && self.net.reaches(host, up);
        let there = there && !self.is_barred(host, up);
        // Whoever streams already keeps its connection.
        let there = there && (to.streams_from == Some(up) || self.now >= from.ails.crowded_until);
        let fits = from.system == to.system && from.history.can_follow(from.at, to.at);
        let behind = to.at.timeline != from.at.timeline || to.at.lsn <= from.at.lsn;
        let history = || (from.history != to.history).then(|| from.history.clone());
        (runs && there && fits && behind).then(|| (from.at, history()))
    }

    /// A standby asks for every history file that it does not have.
    fn fetch_files(&mut self, host: usize, s: usize, up: usize) {
        let there = self.db(up, s).files.clone();
        let here = &mut self.db(host, s).files;
        there.into_iter().for_each(|(timeline, real)| _ = here.entry(timeline).or_insert(real));
    }

    /// Every client writes to every database that lets it, and hears of what is acknowledged.
    pub fn serve_clients(&mut self) {
        for s in 0..self.services.len() {
            for h in 0..self.hosts.len() {
                if !self.acknowledges(h, s) {
                    continue;
                }
                self.db(h, s).at.lsn.0 += 64;
                // What a broken assumption lets write beside the primary counts for nobody.
                let counts = !self.is_excused(h, s);
                if let Some(at) = self.acknowledged_up_to(h, s).filter(|_| counts) {
                    self.facts.acknowledged(self.now, h, s, at);
                }
            }
        }
    }

    /// Up to where commits are acknowledged by this primary: its own flushed end; in a synchronous mode what so many
    /// standbys have flushed that stream from it at this moment.
    fn acknowledged_up_to(&self, host: usize, s: usize) -> Option<Position> {
        let at = self.hosts[host].databases[s].at;
        if self.sync == 0 {
            return Some(at);
        }
        let flushed = |db: &crate::database::Database| {
            let streams = db.streams_from == Some(host) && db.at.timeline == at.timeline;
            streams.then_some(db.at.lsn)
        };
        let mut ends: Vec<_> = self.hosts.iter().filter_map(|h| h.databases.get(s)).filter_map(flushed).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let lsn = *ends.get(self.sync - 1)?;
        Some(Position { timeline: at.timeline, lsn: lsn.min(at.lsn) })
    }

    /// A clean stop ends only when every connected standby has everything, the shutdown checkpoint included.
    pub fn send_the_rest(&mut self, from: usize, s: usize) {
        let (at, history) = (self.db(from, s).at, self.db(from, s).history.clone());
        for h in 0..self.hosts.len() {
            let reaches = self.is_alive(h) && self.net.reaches(h, from) && !self.is_barred(h, from);
            let streams = self.hosts[h].databases.get(s).is_some_and(|db| {
                db.follows == Some(from)
                    && db.process == Process::Standby
                    && !db.sealed
                    && history.can_follow(at, db.at)
            });
            if h != from && reaches && streams {
                let db = self.db(h, s);
                (db.at, db.history) = (at, history.clone());
                self.fetch_files(h, s, from);
            }
        }
    }
}
