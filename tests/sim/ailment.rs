//! What ails a database while its host is well: starts and recoveries that take minutes, an upstream without a free
//! connection, a full or stalled volume, a probe that is refused, a state that nobody can tell, processes that outlive
//! their kill, a directory that is gone. Not here: what a database does when nothing ails it (`database.rs`).

use crate::cluster::{MS, S, World};
use crate::database::{Database, Process};
use crate::liveness::has_candidate;
use rand::RngExt;
use rand::rngs::StdRng;
use regent::types::{Observation, Position, Trouble};

/// As `stalled_after` has it.
const STALLED: u64 = 30 * S;

/// What ails one database, each until a moment of the world.
#[derive(Clone, Debug, Default)]
pub struct Ailments {
    /// The next start as a standby, or as the primary, takes so much longer.
    pub late_standby: u64,
    pub late_primary: u64,
    /// Whether that start shows progress.
    pub gets_on: bool,
    /// The recovery under way ends then.
    pub recovers_until: u64,
    /// Every connection is taken: nobody new streams from it, copies it or rewinds from it.
    pub crowded_until: u64,
    /// The probe fails, or the volume takes no writes: what it is, since when, and until when.
    trouble: Option<(Trouble, u64, u64)>,
    /// The data volume answers no look, so that nobody can tell how it is who did not know it before.
    pub unclear: (u64, u64),
    /// Killed processes stay for so long.
    pub lingers: u64,
    pub lingers_until: u64,
}

impl Ailments {
    /// How long a write has stalled is told in steps, as a look has it that comes late.
    pub fn trouble(&self, now: u64) -> Option<Trouble> {
        let (trouble, since, _) = self.trouble.as_ref().filter(|(_, _, until)| now < *until)?;
        Some(match trouble {
            Trouble::VolumeStalled { .. } => {
                let stalled = now - since;
                Trouble::VolumeStalled { since_ms: if stalled < STALLED { 0 } else { STALLED / MS } }
            }
            trouble => trouble.clone(),
        })
    }

    /// Its volume is full until then.
    pub fn refuses_writes(&mut self, until: u64) {
        self.trouble = Some((Trouble::VolumeFull, 0, until));
    }

    /// Whether a commit gets no answer: its write has no place, or does not end.
    pub fn takes_no_writes(&self, now: u64) -> bool {
        self.trouble(now).is_some_and(|trouble| trouble.is_of_the_volume())
    }

    /// Whether a daemon that began then cannot tell how it is.
    pub fn is_unclear(&self, now: u64, daemon_since: u64, runs: bool) -> bool {
        let (since, until) = self.unclear;
        now < until && (!runs || daemon_since >= since)
    }

    /// Everything heals; a recovery under way ends within seconds.
    pub fn heal(&mut self, now: u64) {
        let recovers_until = self.recovers_until.min(now + 2 * S);
        *self = Ailments { recovers_until, ..Ailments::default() };
    }
}

/// The kinds of what can ail a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    SlowStart,
    SlowRecovery,
    Crowded,
    ProbeFails,
    VolumeFull,
    VolumeStalls,
    Unclear,
    Lingers,
    DirectoryGone,
}

impl World {
    /// From now on this ails that database, for so long.
    pub fn ail(&mut self, rng: &mut StdRng, (host, service): (usize, usize), ailment: Ailment, lasts: u64) {
        let until = self.now + lasts;
        self.note(|w| format!("{}: {ailment:?} of {}", w.hosts[host].name, w.services[service]));
        let minutes = rng.random_range(10 * S..480 * S);
        let gets_on = rng.random_range(0..3) > 0;
        let ails = &mut self.db(host, service).ails;
        match ailment {
            Ailment::SlowStart => (ails.late_standby, ails.gets_on) = (minutes, gets_on),
            Ailment::SlowRecovery => (ails.late_primary, ails.gets_on) = (minutes, gets_on),
            Ailment::Crowded => ails.crowded_until = until,
            Ailment::ProbeFails => {
                let failed = Trouble::ProbeFailed { error: "canceling statement".to_owned() };
                ails.trouble = Some((failed, until - lasts, until));
            }
            Ailment::VolumeFull => ails.trouble = Some((Trouble::VolumeFull, until - lasts, until)),
            Ailment::VolumeStalls => {
                ails.trouble = Some((Trouble::VolumeStalled { since_ms: 0 }, until - lasts, until));
                self.after(STALLED + MS, move |w| w.observe(host));
            }
            Ailment::Unclear => ails.unclear = (until - lasts, until),
            Ailment::Lingers => ails.lingers = rng.random_range(100 * MS..6 * S),
            Ailment::DirectoryGone => self.lose_directory(host, service),
        }
        self.observe(host);
        self.after(lasts + MS, move |w| w.observe(host));
    }

    /// Somebody removed it. Where a commit rests on two copies, nobody removes one of them.
    pub fn lose_directory(&mut self, host: usize, service: usize) {
        let others = (0..self.hosts.len()).filter(|h| *h != host && self.hosts[*h].power);
        let copies = others.filter_map(|h| self.hosts[h].databases.get(service)).filter(|db| db.streams_from.is_some());
        // Never the last that could take over: no implementation brings back what is nowhere any more. That others
        // stream says nothing of that, as they may stream what is older.
        if self.sync > 0 || copies.count() == 0 || !has_candidate(self, service, &[host]) {
            return;
        }
        let db = self.db(host, service);
        (db.system, db.follows, db.at, db.history) = (None, None, Position::default(), Default::default());
        (db.unfinished, db.standby_signal, db.clean) = (false, false, false);
        db.files.clear();
        self.database_gone(host, service);
    }

    /// Killed, its processes may still stand for a while; none of them answers a client any more.
    pub fn database_killed(&mut self, host: usize, service: usize) {
        let now = self.now;
        let Some(db) = self.hosts[host].databases.get_mut(service) else { return };
        let lingers = std::mem::take(&mut db.ails.lingers);
        if lingers == 0 || db.process == Process::None {
            return self.database_gone(host, service);
        }
        db.process = Process::Stopping { acks_until: now };
        (db.clean, db.hung_since, db.closed_since, db.streams_from) = (false, None, None, None);
        db.ails.lingers_until = now + lingers;
        db.postmaster += 1;
        let postmaster = db.postmaster;
        self.observe(host);
        let boots = self.hosts[host].boots;
        self.after(lingers, move |w| {
            if w.hosts[host].boots == boots && w.db(host, service).postmaster == postmaster {
                w.database_gone(host, service);
            }
        });
    }
}

/// What is seen of a database that ails.
pub fn seen(db: &Database, (now, daemon_since): (u64, u64), well: Observation) -> Observation {
    let ails = &db.ails;
    if ails.is_unclear(now, daemon_since, db.process != Process::None) {
        return Observation { trouble: Some(Trouble::VolumeStalled { since_ms: 3000 }), ..Observation::unclear() };
    }
    match ails.trouble(now) {
        // The prober runs beside a primary only; regent's own write is made beside a standby too.
        Some(trouble) if well.trouble.is_none() && db.process == Process::Primary => {
            Observation { writable: false, trouble: Some(trouble), ..well }
        }
        Some(trouble) if trouble.is_of_the_volume() && db.process == Process::Standby => {
            Observation { trouble: Some(trouble), ..well }
        }
        // One that starts says nothing of itself.
        _ if db.process == Process::Starting => {
            let (state, progress, trouble) = (well.state, well.progress, well.trouble);
            Observation { state, position: Position::default(), progress, trouble, ..Observation::unclear() }
        }
        _ => well,
    }
}
