//! How a database stops: the looks at its directory, the rungs, and what is known of its end. Not here: whether it is to
//! stop (the keeper), and the guard's kill (`host.rs`).

use crate::cluster::{MS, S, World};
use crate::database::{Act, Process};
use crate::effects::Part;
use rand::RngExt;
use regent::types::{DbDone, StopLadder};

impl World {
    /// A stop begins and ends with a look at the directory. On a volume that does not answer the first takes no longer
    /// than the polite rungs, then everything is killed; the last is waited for.
    pub fn stop_when_clear(&mut self, act: Act, ladder: StopLadder) {
        let polite = (ladder.fast + ladder.immediate).as_nanos() as u64;
        self.stop_unseen(act, ladder, Some(self.now + polite));
    }

    fn stop_unseen(&mut self, act: Act, ladder: StopLadder, kill_at: Option<u64>) {
        let wait = self.db(act.host, act.service).ails.unclear.1.saturating_sub(self.now);
        if wait == 0 {
            return self.stop(act, ladder);
        }
        let kill_at = match kill_at {
            Some(at) if at <= self.now => {
                self.database_killed(act.host, act.service);
                None
            }
            at => at,
        };
        let boots = self.hosts[act.host].boots;
        let step = wait.min(S).min(kill_at.map_or(S, |at| at - self.now));
        self.after(step, move |w| {
            if w.hosts[act.host].boots == boots && w.db(act.host, act.service).action == Some(act.number) {
                w.stop_unseen(act, ladder, kill_at);
            }
        });
    }

    fn stop(&mut self, act: Act, ladder: StopLadder) {
        let fast = !ladder.fast.is_zero();
        let (host, service) = (act.host, act.service);
        let now = self.now;
        // A hung one does not hear the polite rungs.
        let hung = self.db(host, service).hung_since.is_some();
        let takes = match (fast, hung) {
            (true, false) => self.rng.random_range(50..400),
            (false, false) => self.rng.random_range(5..200),
            _ => self.rng.random_range(200..900),
        } * MS;
        // A backend that is in the middle of a commit may acknowledge it until the end of the stop.
        let straggles = self.rng.random_range(0..3) == 0;
        let db = self.db(host, service);
        if db.process == Process::None {
            return self.finish(1, 5, act, |w, a| w.stopped(a));
        }
        let kill = ladder.kill.as_millis() as u64;
        let lingers = db.ails.lingers_until.saturating_sub(now) / MS;
        if lingers > kill {
            return self.finish(kill, kill + 2, act, |_, _| Err("processes survived SIGKILL".to_owned()));
        }
        if !matches!(db.process, Process::Stopping { .. }) {
            let acks = match db.process == Process::Primary && db.closed_since.is_none() {
                false => 0,
                true if fast && !straggles => takes.min(50 * MS),
                true => takes,
            };
            db.process = Process::Stopping { acks_until: now + acks };
        }
        db.postmaster += 1;
        let hangs = std::mem::take(&mut db.stop_hangs) + lingers * MS;
        let act = Act { postmaster: db.postmaster, ..act };
        self.observe(host);
        let ms = (takes + hangs) / MS;
        self.finish(ms, ms + 2, act, move |w, a| {
            if fast && !hung {
                w.send_the_rest(a.host, a.service);
            }
            let db = w.db(a.host, a.service);
            (db.process, db.hung_since, db.streams_from) = (Process::None, None, None);
            // Its last checkpoint has no place.
            let clean = fast && !hung && !db.ails.takes_no_writes(now);
            (db.clean, db.closed_since, db.replaying) = (clean, None, None);
            w.stopped(a)
        });
    }

    /// Nothing is left of it. Where the directory cannot be read then, how it ended is not known.
    fn stopped(&mut self, act: &Act) -> Result<DbDone, String> {
        // Nothing is left for which a guard stands.
        let name = self.services[act.service].clone();
        if self.hosts[act.host].works(Part::LeaseFile) {
            self.hosts[act.host].kept.remove(&name);
        }
        if !self.hosts[act.host].works(Part::Stop) {
            return Err("cannot read the control file: input/output error".to_owned());
        }
        let db = self.db(act.host, act.service);
        Ok(DbDone::Stopped { clean: db.clean, position: db.clean.then_some(db.at) })
    }
}
