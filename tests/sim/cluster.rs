//! The cluster under virtual time: hosts, the queue of what happens next, and the wiring between the real
//! `regent::node::Node` of each host and the modelled world. One seed decides everything.

use crate::database::Database;
use crate::fence::Device;
use crate::log::Log;
use crate::network::{CHANNELS, DISK, Network};
use crate::oracle::Facts;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regent::config::Config;
use regent::ledger::{Machine, State};
use regent::node::{Effect, Event, Node, PeerRequest, PeerResponse, Start};
use regent::types::{Boot, ClusterId, Epoch, Heartbeat, Instant, NodeName, Released, ServiceName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000 * MS;

type Act = Box<dyn FnOnce(&mut World)>;

/// What a seed fixes before anything happens.
#[derive(Clone)]
pub struct Setup {
    pub config: Config,
    /// Every step is printed.
    pub trace: bool,
}

/// One host: what of it is volatile, what is durable, and the daemon on it.
pub struct Host {
    pub name: NodeName,
    pub config: Arc<Config>,
    pub power: bool,
    pub frozen: bool,
    /// Counts boots: the boot id.
    pub boots: u64,
    /// Counts starts of the daemon and ends of it: what is addressed to an earlier one is dropped.
    pub life: u64,
    pub daemon: Option<Node>,
    inbox: Vec<Event>,
    wake_at: Option<u64>,
    /// The host's own clock: parts per million fast or slow, and where it stood at the last boot.
    rate_ppm: i64,
    booted_at: u64,
    pub tombstones: BTreeMap<ServiceName, Released>,
    pub kept: BTreeMap<ServiceName, (Epoch, Instant)>,
    pub watchdog_at: Option<u64>,
    pub database: Option<Database>,
    pub replicated: usize,
    pub applied: usize,
    pub state: Arc<State>,
    pub told: (u64, u64),
    pub thawed_at: u64,
    pub started_at: u64,
    pub resumed_at: Option<u64>,
}

impl Host {
    /// This host's own clock.
    pub fn local(&self, now: u64) -> Instant {
        let run = (now - self.booted_at) as i128;
        Instant((S as i128 + run + run * i128::from(self.rate_ppm) / 1_000_000) as u64)
    }

    /// When this host's own clock shows `at`.
    pub fn world(&self, at: Instant) -> u64 {
        let run = i128::from(at.0.saturating_sub(S)) * 1_000_000 / (1_000_000 + i128::from(self.rate_ppm));
        self.booted_at + run as u64 + 2
    }

    pub fn boot(&self) -> Boot {
        Boot(format!("{}-boot{}", self.name, self.boots))
    }
}

/// Everything.
pub struct World {
    pub now: u64,
    queue: BTreeMap<(u64, u64), Act>,
    next: u64,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub net: Network,
    pub log: Log,
    pub devices: BTreeMap<(usize, String), Device>,
    pub facts: Facts,
    asks: BTreeMap<(usize, u64, u64), ()>,
    replies: BTreeMap<u64, (usize, u64, u64)>,
    trace: bool,
    pub hash: u64,
    pub events: u64,
    pub next_action: u64,
}

impl World {
    pub fn new(seed: u64, setup: &Setup) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let names: Vec<_> = setup.config.nodes.keys().cloned().collect();
        let log = Log::new(seed, &setup.config);
        let drift = i64::from(setup.config.lease.drift_permille) * 1000 * 4 / 10;
        let mut hosts = Vec::new();
        for name in &names {
            let config = Arc::new(Config { node: name.clone(), ..setup.config.clone() });
            let database = (config.me().role == regent::config::Role::Database).then(Database::absent);
            hosts.push(Host {
                name: name.clone(),
                config,
                power: false,
                frozen: false,
                boots: 0,
                life: 0,
                daemon: None,
                inbox: Vec::new(),
                wake_at: None,
                rate_ppm: rng.random_range(-drift..=drift),
                booted_at: 0,
                tombstones: BTreeMap::new(),
                kept: BTreeMap::new(),
                watchdog_at: None,
                database,
                replicated: 0,
                applied: 0,
                state: log.first.clone(),
                told: (0, 0),
                thawed_at: 0,
                started_at: 0,
                resumed_at: None,
            });
        }
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            next: 0,
            net: Network::new(names.len()),
            log,
            devices: BTreeMap::new(),
            facts: Facts::new(names.len()),
            asks: BTreeMap::new(),
            replies: BTreeMap::new(),
            trace: setup.trace,
            hash: seed,
            events: 0,
            next_action: 0,
            rng,
            hosts,
        };
        for h in 0..names.len() {
            let delay = world.rng.random_range(0..300 * MS);
            world.after(delay, move |w| w.power_on(h));
        }
        world.after(MS, World::tick);
        world
    }

    /// Something happens after `delay`.
    pub fn after(&mut self, delay: u64, act: impl FnOnce(&mut World) + 'static) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), Box::new(act));
    }

    /// Runs until `end`, checking every property after every event; stops at the first violation.
    pub fn run_until(&mut self, end: u64) {
        while self.facts.violation.is_none() {
            let Some((next, _)) = self.queue.first_key_value().map(|(key, _)| *key) else { return };
            // A log that lives by itself may have something to say before that.
            if self.log_acts(next.min(end)) {
                self.events += 1;
                crate::invariants::check(self);
                continue;
            }
            if next > end {
                self.now = end;
                return;
            }
            let ((at, number), act) = self.queue.pop_first().expect("just looked at");
            self.now = at;
            self.events += 1;
            self.hash = (self.hash ^ at ^ number.rotate_left(32)).wrapping_mul(0x100_0000_01b3);
            act(self);
            crate::invariants::check(self);
        }
    }

    /// Runs until something is so, at most until `end`. Whether it became so.
    pub fn run_while(&mut self, end: u64, is_so: impl Fn(&World) -> bool) -> bool {
        while self.now < end && self.facts.violation.is_none() {
            if is_so(self) {
                return true;
            }
            self.run_until(self.now + 5 * MS);
        }
        is_so(self)
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace {
            println!("{:>10.3} {line}", self.now as f64 / S as f64);
        }
    }

    pub fn violate(&mut self, rule: &str, what: String) {
        let at = self.now as f64 / S as f64;
        self.note(|| format!("VIOLATION of {rule}: {what}"));
        self.facts.violation.get_or_insert(format!("{rule} at {at:.3} s: {what}"));
    }

    pub fn host(&self, name: &NodeName) -> usize {
        self.hosts.iter().position(|h| &h.name == name).expect("names come from the configuration of these hosts")
    }

    /// Powered, running, with a daemon.
    pub fn is_alive(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        h.power && !h.frozen && h.daemon.is_some()
    }

    fn tick(&mut self) {
        self.replicate();
        self.serve_clients();
        self.watch_watchdogs();
        self.note_impairment();
        if (self.now / (10 * MS)).is_multiple_of(2) {
            self.log_tick();
        }
        self.after(10 * MS, World::tick);
    }

    fn watch_watchdogs(&mut self) {
        for h in 0..self.hosts.len() {
            if self.hosts[h].power && self.hosts[h].watchdog_at.is_some_and(|at| self.now >= at) {
                self.note(|| format!("the watchdog resets host {h}"));
                self.power_off(h);
                self.after(3 * S, move |w| w.power_on(h));
            }
        }
    }

    /// A heartbeat's way, on every channel to everybody.
    fn beat(&mut self, from: usize, heartbeat: &Heartbeat) {
        let has_disk = self.hosts[from].config.disk.is_some();
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            for (channel, name) in CHANNELS.iter().enumerate().filter(|(c, _)| *c != DISK || has_disk) {
                let Some(delay) = self.net.beat(&mut self.rng, channel, from, to) else { continue };
                let (heartbeat, life) = (heartbeat.clone(), self.hosts[to].life);
                self.after(delay, move |w| {
                    if w.net.carries(channel, from, to) && w.hosts[to].life == life {
                        let at = w.hosts[to].local(w.now);
                        let channel = name.parse().expect("a constant, valid name");
                        w.give(to, Event::Heard { channel, at, heartbeat });
                    }
                });
            }
        }
    }

    fn ask(&mut self, from: usize, id: u64, to: &NodeName, request: PeerRequest, deadline: Duration) {
        let (life, target) = (self.hosts[from].life, self.host(to));
        self.asks.insert((from, life, id), ());
        self.after(deadline.as_nanos() as u64, move |w| {
            w.answer((from, life, id), Err("no answer in time".to_owned()))
        });
        let heard = self.net.connects(from, target) || self.facts.deaf == Some(from);
        if !heard || !self.hosts[target].power {
            return;
        }
        let name = self.hosts[from].name.clone();
        let delay = self.net.message(&mut self.rng);
        self.after(delay, move |w| {
            if w.hosts[target].daemon.is_none() {
                if w.hosts[target].power {
                    w.answer((from, life, id), Err("connection refused".to_owned()));
                }
                return;
            }
            w.next += 1;
            let reply = w.next;
            w.replies.insert(reply, (from, life, id));
            w.give(target, Event::Asked { reply, from: name, request });
        });
    }

    fn reply(&mut self, from: usize, reply: u64, response: PeerResponse) {
        let Some(key) = self.replies.remove(&reply) else { return };
        if self.net.connects(from, key.0) {
            let delay = self.net.message(&mut self.rng);
            self.after(delay, move |w| w.answer(key, Ok(response)));
        }
    }

    fn answer(&mut self, key: (usize, u64, u64), response: Result<PeerResponse, String>) {
        if self.asks.remove(&key).is_some() && self.hosts[key.0].life == key.1 {
            self.give(key.0, Event::Answered { id: key.2, response });
        }
    }

    /// Gives the daemon of this host an event later, if it is still the same daemon.
    pub fn give_later(&mut self, delay: u64, host: usize, event: Event) {
        let life = self.hosts[host].life;
        self.after(delay, move |w| {
            if w.hosts[host].life == life {
                w.give(host, event);
            }
        });
    }

    /// Gives the daemon an event now, and does what it asks for.
    pub fn give(&mut self, host: usize, event: Event) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if h.frozen {
            h.inbox.push(event);
            return;
        }
        let local = h.local(now);
        let Some(node) = h.daemon.as_mut() else { return };
        let effects = node.handle(local, event);
        self.schedule_wake(host);
        for effect in effects {
            self.perform(host, effect);
        }
    }

    fn schedule_wake(&mut self, host: usize) {
        let h = &self.hosts[host];
        let Some(wanted) = h.daemon.as_ref().and_then(Node::next_wakeup) else { return };
        let at = h.world(wanted).max(self.now + 1) + self.rng.random_range(0..MS);
        if h.wake_at.is_some_and(|before| before <= at) {
            return;
        }
        let life = h.life;
        self.hosts[host].wake_at = Some(at);
        self.after(at - self.now, move |w| {
            if w.hosts[host].life == life && w.hosts[host].wake_at == Some(at) {
                w.hosts[host].wake_at = None;
                if !w.hosts[host].frozen {
                    w.give(host, Event::Wake);
                }
            }
        });
    }

    fn perform(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Beat(heartbeat) => self.beat(host, &heartbeat),
            Effect::Ask { id, to, request, deadline } => self.ask(host, id, &to, request, deadline),
            Effect::Reply { reply, response } => self.reply(host, reply, response),
            Effect::Propose { id, command } => self.propose(host, id, *command),
            Effect::QuorumRead { id } => self.quorum_read(host, id),
            Effect::Transfer { to } => self.transfer(self.host(&to)),
            Effect::RunAgent { key, agent, action, target, .. } => self.run_agent(host, key, &agent, action, &target),
            Effect::Db { service, action } => self.database_action(host, service, action),
            Effect::AbortDb { .. } => self.database_abort(host),
            Effect::Tombstone { service, released } => self.tombstone(host, service, released),
            Effect::KeepLease { service, epoch, until } => self.keep_lease(host, service, epoch, until),
            Effect::ArmWatchdog => {
                self.feed(host);
                self.give_later(MS, host, Event::Watchdog { armed: true });
            }
            Effect::FeedWatchdog => self.feed(host),
            Effect::DisarmWatchdog => self.hosts[host].watchdog_at = None,
            Effect::Say { line } => {
                let name = self.hosts[host].name.clone();
                self.note(|| format!("{name}: {line}"));
            }
        }
    }

    fn feed(&mut self, host: usize) {
        let timeout = self.hosts[host].config.watchdog.as_ref().map(|w| w.timeout.as_nanos() as u64);
        self.hosts[host].watchdog_at = timeout.map(|t| self.now + t);
    }

    fn tombstone(&mut self, host: usize, service: ServiceName, released: Released) {
        let life = self.hosts[host].life;
        let delay = self.rng.random_range(MS..5 * MS);
        self.after(delay, move |w| {
            if w.hosts[host].life == life {
                w.hosts[host].tombstones.insert(service.clone(), released);
                w.give(host, Event::Tombstoned { service, epoch: released.epoch });
            }
        });
    }

    /// The lease file, and the guard that stops a database whose lease ends while no daemon cares for it.
    fn keep_lease(&mut self, host: usize, service: ServiceName, epoch: Epoch, until: Option<Instant>) {
        let Some(until) = until else {
            self.hosts[host].kept.remove(&service);
            return;
        };
        self.hosts[host].kept.insert(service.clone(), (epoch, until));
        let boots = self.hosts[host].boots;
        let kill = self.hosts[host].config.lease.stop_kill;
        let at = self.hosts[host].world(until - kill).max(self.now);
        self.after(at - self.now, move |w| {
            let h = &w.hosts[host];
            let last = h.kept.get(&service).is_some_and(|(_, u)| *u == until);
            if h.boots == boots && h.power && last && h.daemon.is_none() {
                w.note(|| format!("the guard on host {host} stops the database"));
                w.database_killed(host);
            }
        });
    }

    pub fn power_on(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if h.power {
            return;
        }
        (h.power, h.frozen, h.booted_at) = (true, false, now);
        h.boots += 1;
        h.kept.clear();
        h.watchdog_at = None;
        let (name, boots) = (h.name.clone(), h.boots);
        self.note(|| format!("{name} boots ({boots})"));
        let delay = self.rng.random_range(500 * MS..2 * S);
        self.after(delay, move |w| {
            if w.hosts[host].power && w.hosts[host].boots == boots {
                w.start_daemon(host);
            }
        });
    }

    pub fn power_off(&mut self, host: usize) {
        if !self.hosts[host].power {
            return;
        }
        let name = self.hosts[host].name.clone();
        self.note(|| format!("{name} loses power"));
        self.kill_daemon(host);
        self.database_killed(host);
        let h = &mut self.hosts[host];
        (h.power, h.frozen, h.watchdog_at) = (false, false, None);
    }

    pub fn freeze(&mut self, host: usize, lasts: u64) {
        let h = &mut self.hosts[host];
        if !h.power || h.frozen {
            return;
        }
        h.frozen = true;
        let (name, boots) = (h.name.clone(), h.boots);
        self.note(|| format!("{name} is frozen for {} ms", lasts / MS));
        self.after(lasts, move |w| {
            if w.hosts[host].boots == boots && w.hosts[host].frozen {
                w.thaw(host);
            }
        });
    }

    fn thaw(&mut self, host: usize) {
        let name = self.hosts[host].name.clone();
        self.note(|| format!("{name} goes on"));
        self.hosts[host].frozen = false;
        self.hosts[host].thawed_at = self.now;
        self.hosts[host].wake_at = None;
        let inbox = std::mem::take(&mut self.hosts[host].inbox);
        self.give(host, Event::Wake);
        for event in inbox {
            self.give(host, event);
        }
    }

    pub fn kill_daemon(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        if h.daemon.take().is_some() {
            h.life += 1;
            h.inbox.clear();
            h.wake_at = None;
            let name = h.name.clone();
            self.log_ends(host);
            // Its action on the database ends with it, but for what the database does by itself.
            self.database_abort(host);
            self.note(|| format!("{name}: the daemon is gone"));
            // The guard has only the lease file now; a lease that ended already is stopped at once.
            let due: Vec<_> = self.hosts[host].kept.clone().into_iter().collect();
            for (service, (epoch, until)) in due {
                self.keep_lease(host, service, epoch, Some(until));
            }
        }
    }

    pub fn start_daemon(&mut self, host: usize) {
        let seed = self.rng.random();
        let now = self.now;
        let h = &mut self.hosts[host];
        if h.daemon.is_some() || !h.power {
            return;
        }
        h.life += 1;
        h.started_at = now;
        h.resumed_at = None;
        h.wake_at = None;
        self.log_starts(host);
        let h = &mut self.hosts[host];
        let watchdog = h.config.watchdog.as_ref().map(|w| w.timeout);
        let start = Start {
            cluster: ClusterId("sim".to_owned()),
            boot: h.boot(),
            machine: Machine { id: h.name.to_string(), is_virtual: false, watchdog },
            tombstones: h.tombstones.clone(),
            kept: h.kept.clone(),
            seed,
        };
        h.daemon = Some(Node::new(h.config.clone(), start, h.local(now)));
        let (name, state) = (h.name.clone(), h.state.clone());
        self.note(|| format!("{name}: the daemon starts"));
        self.forget_seen(host);
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
