//! One modelled host: its power, its own clock, its watchdog, what of it is durable, and the daemon on it. Not here:
//! the database (`database.rs`) and what the daemon asks for (`cluster.rs`).

use crate::cluster::{MS, S, World};
use crate::database::{Database, Process};
use crate::effects::Part;
use rand::RngExt;
use regent::config::Config;
use regent::ledger::{Machine, State};
use regent::node::{Event, HELD_OPEN, Node, Start};
use regent::types::{
    Boot, ClusterId, Epoch, Heartbeat, Instant, Leaving, LeftGoodbye, NodeName, Released, ServiceName, fitting,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Who switched a host off. Power comes back by itself only where a fault took it; a watchdog resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffBy {
    Fault,
    Watchdog,
    Device,
}

/// One host: what of it is volatile, what is durable, and the daemon on it.
pub struct Host {
    pub name: NodeName,
    pub config: Arc<Config>,
    pub power: bool,
    /// Who switched it off last, while it is off.
    pub off_by: Option<OffBy>,
    /// Nothing gives it power any more: it is of the rest that stays broken.
    pub unplugged: bool,
    /// Until when nothing on it runs, if so.
    pub frozen_until: Option<u64>,
    /// Counts boots: the boot id.
    pub boots: u64,
    /// Counts starts of the daemon and ends of it: what is addressed to an earlier one is dropped.
    pub life: u64,
    pub daemon: Option<Node>,
    /// What came while nothing on it ran, and when.
    pub inbox: Vec<(u64, Event)>,
    pub wake_at: Option<u64>,
    /// The host's own clock: parts per million fast or slow, where it stood at the last boot, and for how long it
    /// stood still since (a paused guest).
    pub rate_ppm: i64,
    booted_at: u64,
    stood_still: u64,
    still_since: Option<u64>,
    /// A guest of a hypervisor, which may pause it.
    pub is_virtual: bool,
    pub tombstones: BTreeMap<ServiceName, Released>,
    pub kept: BTreeMap<ServiceName, (Epoch, Instant)>,
    /// What the daemon left with the guard of each database.
    pub goodbyes: BTreeMap<ServiceName, Box<LeftGoodbye>>,
    /// It leaves in order, for that reason, and is back so long after that.
    pub leaves: Option<(Leaving, u64)>,
    /// What of it does not work, and how often that was broken.
    pub broken: BTreeMap<Part, u32>,
    pub watchdog_at: Option<u64>,
    /// One a service; none on a witness.
    pub databases: Vec<Database>,
    pub replicated: usize,
    pub applied: usize,
    pub state: Arc<State>,
    /// What its daemon was told of the leader last: the term, to which life, and whether it leads itself.
    pub told: (u64, u64, bool),
    /// While it catches up, each entry takes so long; whether it does.
    pub pace: u64,
    pub applies: bool,
    /// Nothing of the log gets to it or from it until then.
    pub behind_until: u64,
    /// A boot takes so much longer.
    pub slow_boot: u64,
    /// How far its clock is ahead by what it ran at other rates.
    ahead: i64,
    /// Its last heartbeat.
    pub last_beat: Option<Arc<Heartbeat>>,
    /// It does not hear of elections: notifications that were merged into the last one.
    pub misses_elections: bool,
    /// Its log writes hang until then.
    pub log_slow_until: u64,
    /// Its heartbeats are of a version whose body nobody knows.
    pub speaks_unknown: bool,
    /// When it last went on after a freeze.
    pub thawed_at: u64,
    /// When the last freeze began and when it ended, by its own clock at these moments: what that clock showed earlier
    /// cannot be told later, once it has been slewed.
    pub stood_still_from: Instant,
    pub went_on: Instant,
    /// For how long its clock stood still in that freeze.
    pub last_still: u64,
    pub started_at: u64,
}

impl Host {
    pub fn new(name: NodeName, config: Arc<Config>, rate_ppm: i64, databases: usize, first: Arc<State>) -> Self {
        Host {
            name,
            config,
            power: false,
            off_by: None,
            unplugged: false,
            frozen_until: None,
            boots: 0,
            life: 0,
            daemon: None,
            inbox: Vec::new(),
            wake_at: None,
            rate_ppm,
            booted_at: 0,
            stood_still: 0,
            still_since: None,
            is_virtual: false,
            tombstones: BTreeMap::new(),
            kept: BTreeMap::new(),
            goodbyes: BTreeMap::new(),
            leaves: None,
            broken: BTreeMap::new(),
            watchdog_at: None,
            databases: (0..databases).map(|_| Database::absent()).collect(),
            replicated: 0,
            applied: 0,
            state: first,
            told: (0, 0, false),
            pace: 0,
            applies: false,
            behind_until: 0,
            slow_boot: 0,
            ahead: 0,
            last_beat: None,
            misses_elections: false,
            log_slow_until: 0,
            speaks_unknown: false,
            thawed_at: 0,
            stood_still_from: Instant(0),
            went_on: Instant(0),
            last_still: 0,
            started_at: 0,
        }
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen_until.is_some()
    }

    pub fn works(&self, part: Part) -> bool {
        self.broken.is_empty() || !self.broken.contains_key(&part)
    }

    /// This host's own clock.
    pub fn local(&self, now: u64) -> Instant {
        let now = self.still_since.unwrap_or(now);
        let run = (now - self.booted_at - self.stood_still) as i64;
        // A simulation lasts for less than the hours at which this would overflow.
        Instant((S as i64 + run + run * self.rate_ppm / 1_000_000 + self.ahead) as u64)
    }

    /// When this host's own clock shows `at`, unless it stands still meanwhile.
    pub fn world(&self, at: Instant) -> u64 {
        let shown = at.0.saturating_sub(S).saturating_add_signed(-self.ahead);
        let fast = (1_000_000 + self.rate_ppm) as u64;
        // Further away than a simulation lasts: what no multiplication in 64 bits can tell, nobody will see.
        let run = shown.checked_mul(1_000_000).map_or(shown, |ns| ns / fast);
        self.booted_at + self.stood_still + run + 2
    }

    /// From now on its clock runs at another rate, without a step.
    fn run_at(&mut self, now: u64, rate_ppm: i64) {
        let before = self.local(now).0 as i64;
        self.rate_ppm = rate_ppm;
        self.ahead += before - self.local(now).0 as i64;
    }

    /// What its daemon says of it. An image has the same installation, and none of its hardware.
    pub fn machine(&self, watchdog: Option<Duration>) -> Machine {
        let hardware = [format!("hardware of {}", self.name)].into();
        Machine { id: self.name.to_string(), is_virtual: self.is_virtual, watchdog, hardware }
    }

    pub fn boot(&self) -> Boot {
        Boot(format!("{}-boot{}", self.name, self.boots).into())
    }

    /// It sends heartbeats: a daemon runs and has joined.
    pub fn is_sending(&self) -> bool {
        self.power && !self.is_frozen() && self.daemon.as_ref().is_some_and(|d| d.incarnation().is_some())
    }
}

impl World {
    /// From now on the clock of this host runs at another rate, and so do the timers that wait on it.
    pub fn slew(&mut self, host: usize, rate_ppm: i64) {
        let now = self.now;
        self.hosts[host].run_at(now, rate_ppm);
        self.hosts[host].wake_at = None;
        self.schedule_wake(host);
        self.rearm_guards(host);
    }

    pub fn power_on(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if h.power || h.unplugged {
            return;
        }
        (h.power, h.off_by, h.frozen_until, h.booted_at) = (true, None, None, now);
        (h.stood_still, h.still_since, h.ahead) = (0, None, 0);
        h.boots += 1;
        h.kept.clear();
        h.goodbyes.clear();
        h.watchdog_at = None;
        let boots = h.boots;
        self.rules_after_boot(host);
        self.facts.forget_leases(host);
        self.note(|w| format!("{} boots ({boots})", w.hosts[host].name));
        let delay = self.rng.random_range(500 * MS..2 * S) + self.hosts[host].slow_boot;
        self.after(delay, move |w| {
            if w.hosts[host].power && w.hosts[host].boots == boots {
                w.start_daemon(host);
            }
        });
    }

    /// A fault takes its power.
    pub fn power_off(&mut self, host: usize) {
        self.power_off_by(host, OffBy::Fault);
    }

    /// What a fault took away comes back; what a device switched off is switched on by whoever wants it on.
    pub fn power_back(&mut self, host: usize) {
        if self.hosts[host].off_by == Some(OffBy::Fault) {
            self.power_on(host);
        }
    }

    pub fn power_off_by(&mut self, host: usize, by: OffBy) {
        if !self.hosts[host].power {
            return;
        }
        self.note(|w| format!("{} loses power ({by:?})", w.hosts[host].name));
        self.hosts[host].off_by = Some(by);
        self.kill_daemon(host);
        self.databases_killed(host);
        let h = &mut self.hosts[host];
        (h.power, h.frozen_until, h.watchdog_at) = (false, None, None);
    }

    /// Nothing on the host runs for so long. A guest's clock and its emulated watchdog may stand still with it; a real
    /// host's go on.
    pub fn freeze(&mut self, host: usize, lasts: u64, clock_stops: bool) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if !h.power || h.is_frozen() {
            return;
        }
        h.frozen_until = Some(now + lasts);
        h.stood_still_from = h.local(now);
        if clock_stops {
            h.still_since = Some(now);
        }
        let boots = h.boots;
        self.note(|w| {
            let with = if clock_stops { " with its clock" } else { "" };
            format!("{} stands still{with} for {} ms", w.hosts[host].name, lasts / MS)
        });
        self.after(lasts, move |w| {
            if w.hosts[host].boots == boots && w.hosts[host].is_frozen() {
                w.thaw(host);
            }
        });
    }

    fn thaw(&mut self, host: usize) {
        self.note(|w| format!("{} goes on", w.hosts[host].name));
        let now = self.now;
        let h = &mut self.hosts[host];
        h.frozen_until = None;
        h.last_still = h.still_since.take().map_or(0, |since| now - since);
        h.stood_still += h.last_still;
        h.watchdog_at = h.watchdog_at.map(|at| at + h.last_still);
        (h.thawed_at, h.went_on, h.wake_at) = (now, h.local(now), None);
        let inbox = std::mem::take(&mut h.inbox);
        let life = h.life;
        self.give(host, Event::Wake);
        for (came, event) in inbox {
            match self.hosts[host].life == life {
                true => self.handle(host, came, event),
                false => self.note_heard(host, came, &event),
            }
        }
        self.rearm_guards(host);
    }

    pub fn watch_watchdogs(&mut self) {
        for h in 0..self.hosts.len() {
            let host = &self.hosts[h];
            if host.power && host.still_since.is_none() && host.watchdog_at.is_some_and(|at| self.now >= at) {
                self.note(|w| format!("the watchdog resets {}", w.hosts[h].name));
                self.power_off_by(h, OffBy::Watchdog);
                self.after(3 * S, move |w| w.power_on(h));
            }
        }
    }

    /// The guard of this service's database knows this end now. It kills in time for that: see `guard_forbids`.
    pub fn post_guard(&mut self, host: usize, service: ServiceName, until: Instant) {
        // Held open by a pause: there is no such moment.
        if until >= HELD_OPEN {
            return;
        }
        let boots = self.hosts[host].boots;
        let kill = self.hosts[host].config.lease.stop_kill;
        let at = self.hosts[host].world(until - kill).max(self.now);
        let service = self.index(&service);
        self.after(at - self.now, move |w| {
            let h = &w.hosts[host];
            let last = h.kept.get(&w.services[service]).is_some_and(|(_, u)| *u == until);
            if h.boots == boots && h.power && !h.is_frozen() && last && w.guard_forbids(host, service) {
                w.guard_kills(host, service);
            }
        });
    }

    /// Whether the end that the guard knows is so near that it kills what is open for writes, or becomes it.
    pub fn guard_forbids(&self, host: usize, service: usize) -> bool {
        let h = &self.hosts[host];
        let Some((_, until)) = h.kept.get(&self.services[service]) else { return false };
        let opens = match h.databases[service].process {
            Process::None => false,
            // It stands beside each opening for writes, and an orphaned promotion is one.
            Process::Standby => h.daemon.is_none(),
            Process::Starting => h.daemon.is_none() || !h.databases[service].standby_signal,
            Process::Primary | Process::Stopping { .. } => true,
        };
        opens && *until < HELD_OPEN && h.local(self.now) >= *until - h.config.lease.stop_kill
    }

    pub fn guard_kills(&mut self, host: usize, service: usize) {
        self.note(|w| format!("the guard on {} stops the database of {}", w.hosts[host].name, w.services[service]));
        self.database_killed(host, service);
    }

    /// The guards look again: the host stood still, or the daemon is gone.
    fn rearm_guards(&mut self, host: usize) {
        let due: Vec<_> = self.hosts[host].kept.clone().into_iter().collect();
        for (service, (_, until)) in due {
            self.post_guard(host, service, until);
        }
    }

    pub fn kill_daemon(&mut self, host: usize) {
        // Nobody takes in any more what waited here. Its paths have carried it all the same.
        for (came, event) in std::mem::take(&mut self.hosts[host].inbox) {
            self.note_heard(host, came, &event);
        }
        let h = &mut self.hosts[host];
        if h.daemon.take().is_some() {
            h.life += 1;
            (h.wake_at, h.leaves) = (None, None);
            self.log_ends(host);
            // Its action on the database ends with it, but for what the database does by itself.
            self.databases_abort(host);
            self.note(|w| format!("{}: the daemon is gone", w.hosts[host].name));
            // The guard has only the lease file now; a lease that ended already is stopped at once.
            self.rearm_guards(host);
            self.guards_say_goodbye(host);
        }
    }

    /// The guard of a database that goes on sends what the daemon left. A host without power has no guard, and one that
    /// stands still sends it when it goes on.
    fn guards_say_goodbye(&mut self, host: usize) {
        let (boots, life) = (self.hosts[host].boots, self.hosts[host].life);
        for (service, left) in std::mem::take(&mut self.hosts[host].goodbyes) {
            let s = self.index(&service);
            let stands = self.hosts[host].frozen_until.map_or(0, |until| until.saturating_sub(self.now));
            self.after(stands + MS, move |w| {
                let h = &w.hosts[host];
                let guarded = h.kept.contains_key(&service) && h.databases[s].process != Process::None;
                if !h.power || h.boots != boots || !guarded {
                    return;
                }
                if let Some(letter) = fitting(left.letters(), left.end(), h.local(w.now)) {
                    w.note(|w| format!("{}: the guard says goodbye for the daemon of life {life}", w.hosts[host].name));
                    w.carry(host, &Arc::new(letter));
                }
            });
        }
    }

    pub fn start_daemon(&mut self, host: usize) {
        let seed = self.rng.random();
        let now = self.now;
        let h = &mut self.hosts[host];
        if h.daemon.is_some() || !h.power || h.is_frozen() {
            return;
        }
        h.life += 1;
        h.started_at = now;
        h.wake_at = None;
        let state = self.log_starts(host);
        let h = &mut self.hosts[host];
        let time_out = h.config.watchdog.as_ref().map(|w| w.timeout);
        let watchdog = self.try_watchdog(host);
        let h = &mut self.hosts[host];
        let start = Start {
            cluster: ClusterId("sim".to_owned()),
            boot: h.boot(),
            machine: h.machine(time_out),
            tombstones: h.tombstones.clone(),
            kept: h.kept.clone(),
            watchdog,
            seed,
        };
        h.daemon = Some(Node::new(h.config.clone(), start, h.local(now)));
        self.note(|w| format!("{}: the daemon starts", w.hosts[host].name));
        self.databases_unseen(host);
        self.give(host, Event::Ledger { state });
        self.give(host, Event::Wake);
        let delay = self.rng.random_range(5 * MS..50 * MS);
        let life = self.hosts[host].life;
        self.after(delay, move |w| {
            if w.hosts[host].life == life {
                w.observe(host);
            }
        });
    }
}
