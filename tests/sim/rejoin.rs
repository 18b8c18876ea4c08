//! How a stopped directory becomes a standby of somebody: nothing to do, or a rewind or clone, for which the upstream must
//! be there, the primary, and have a connection free.

use crate::cluster::World;
use crate::database::{Act, Process};
use crate::effects::{Part, WHY};
use regent::types::DbDone;

impl World {
    /// It asks its upstream first, also where nothing is to be done.
    pub fn rejoin(&mut self, act: Act, up: usize, on_order: bool) {
        let db = self.db(act.host, act.service);
        if db.process != Process::None {
            return self.finish(1, 5, act, |_, _| Err("it still runs".to_owned()));
        }
        let Some(from) = self.hosts[up].databases.get(act.service).cloned() else { return };
        let to = self.hosts[act.host].databases[act.service].clone();
        let fits = !on_order && !to.unfinished && to.system == from.system && from.history.can_follow(from.at, to.at);
        if let Some(why) = self.does_not_answer(act.host, up, act.service) {
            return self.finish(50, 500, act, move |_, _| Err(why.to_owned()));
        }
        if fits && (to.at.timeline != from.at.timeline || to.at.lsn <= from.at.lsn) {
            let works = self.hosts[act.host].works(Part::Rejoin);
            return self.finish(5, 50, act, move |w, a| {
                if !works {
                    return Err(WHY.to_owned());
                }
                w.db(a.host, a.service).standby_signal = true;
                Ok(DbDone::Rejoined { how: "nothing to do".to_owned(), kept: None })
            });
        }
        if from.process != Process::Primary {
            return self.finish(50, 500, act, |_, _| Err("the upstream is in recovery".to_owned()));
        }
        // The marker that forbids a start stands from here on.
        self.db(act.host, act.service).unfinished = true;
        self.db(act.host, act.service).copied_by = Some(act.number);
        crate::invariants::copies::begun(self, &act, up);
        self.finish(300, 1500, act, move |w, a| w.overwrite(a, up));
    }

    /// Asks the upstream whether a running standby can follow it as it is. What is asked for next does not wait.
    pub fn ask_upstream(&mut self, act: Act, up: usize) {
        let Some(from) = self.hosts[up].databases.get(act.service).cloned() else { return };
        if let Some(why) = self.does_not_answer(act.host, up, act.service) {
            return self.finish(50, 5000, act, move |_, _| Err(why.to_owned()));
        }
        self.finish(5, 50, act, move |w, a| {
            let to = w.db(a.host, a.service);
            let fits = to.system == from.system && from.history.can_follow(from.at, to.at);
            let fits = fits && (to.at.timeline != from.at.timeline || to.at.lsn <= from.at.lsn);
            Ok(DbDone::Compared { unfit: (!fits).then(|| "its history is another".to_owned()) })
        });
    }

    /// Why `up` takes no connection of regent on `host`, if so.
    fn does_not_answer(&self, host: usize, up: usize, service: usize) -> Option<&'static str> {
        let from = self.hosts[up].databases.get(service)?;
        let reaches = self.net.reaches(host, up) && !self.is_barred(host, up) && self.hosts[up].power;
        let runs = matches!(from.process, Process::Primary | Process::Standby) && from.silent_since().is_none();
        if self.now < from.ails.crowded_until {
            return Some("sorry, too many clients already");
        }
        (!reaches || !runs || self.hosts[up].is_frozen()).then_some("the upstream does not answer")
    }

    /// A rewind or clone: the directory becomes the upstream's; what was its own is kept in a folder.
    fn overwrite(&mut self, act: &Act, up: usize) -> Result<DbDone, String> {
        let there = self.net.reaches(act.host, up) && self.hosts[up].power && !self.hosts[up].is_frozen();
        let there = there && !self.is_barred(act.host, up);
        let from = self.hosts[up].databases.get(act.service).cloned();
        let from = from.filter(|f| there && f.process == Process::Primary);
        let Some(from) = from else { return Err("the upstream went away".to_owned()) };
        if !self.hosts[act.host].works(Part::Rejoin) {
            return Err(WHY.to_owned());
        }
        let (host, number) = (act.host, act.number);
        let db = self.db(act.host, act.service);
        let own = db.system == from.system && !from.history.can_follow(from.at, db.at);
        let name = format!("{host}.diverged-{}-{number}", db.at.timeline);
        let kept = own.then_some(name);
        (db.system, db.at, db.history, db.files) = (from.system, from.at, from.history, from.files);
        (db.unfinished, db.standby_signal, db.clean) = (false, true, true);
        if let Some(name) = &kept {
            crate::invariants::client::kept(self, (act.host, act.service, act.life), name.clone());
        }
        Ok(DbDone::Rejoined { how: "rewound".to_owned(), kept })
    }
}
