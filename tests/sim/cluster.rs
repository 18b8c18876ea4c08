//! The cluster under virtual time: the queue of what happens next, and the wiring between the real
//! `regent::node::Node` of each host and the modelled world. One seed decides everything.

use crate::effects::Part;
use crate::fence::{Device, Wanted};
use crate::host::Host;
use crate::invariants::s5;
use crate::log::Log;
use crate::network::{CHANNELS, DISK, Network};
use crate::oracle::Facts;
use crate::rules::Rule;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regent::config::Config;
use regent::node::{Effect, Event, Node, PeerRequest, PeerResponse, RunKey};
use regent::types::{ChannelName, Heartbeat, NodeName, ServiceName};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000 * MS;

type Act = Box<dyn FnOnce(&mut World)>;

/// Something that will happen: when, its number (what was planned first happens first), and what.
struct Planned {
    at: u64,
    number: u64,
    act: Act,
}

impl Planned {
    fn turn(&self) -> Reverse<(u64, u64)> {
        Reverse((self.at, self.number))
    }
}

/// The greatest is the next.
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        self.turn().cmp(&other.turn())
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.turn() == other.turn()
    }
}

impl Eq for Planned {}

/// Where the words about what happens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    Nobody,
    Print,
    Keep,
}

/// What is fixed before anything happens.
#[derive(Clone)]
pub struct Setup {
    pub config: Config,
    /// Files that differ from the rest, by number of the host.
    pub differing: BTreeMap<usize, Config>,
    /// Every host is a virtual machine.
    pub is_virtual: bool,
    /// How many standbys must have flushed a commit before it is acknowledged, in every service; 0: asynchronous.
    pub sync: usize,
    /// Rates of the hosts' clocks lie within so many parts per million.
    pub rate_ppm: i64,
    pub tell: Tell,
}

impl Setup {
    pub fn new(config: Config, tell: Tell) -> Self {
        // Two clocks may differ by what the configuration allows: each by less than half of it.
        let rate_ppm = i64::from(config.lease.drift_permille) * 1000 * 4 / 10;
        Setup { config, differing: BTreeMap::new(), is_virtual: false, sync: 0, rate_ppm, tell }
    }
}

/// What a daemon is handling now, as far as the properties ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Another node's request for a lease: the first quorum read is made for it.
    LeaseAsked,
    /// What another node asks to be passed on, until it is.
    PassingOn,
    /// The end of a quorum read.
    Read {
        confirmed: bool,
    },
    Other,
}

/// Everything.
pub struct World {
    pub now: u64,
    queue: BinaryHeap<Planned>,
    pub next: u64,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub services: Vec<ServiceName>,
    pub sync: usize,
    pub net: Network,
    pub log: Log,
    pub devices: BTreeMap<(usize, String), Device>,
    /// Runs of agents that a daemon (by host and life) ended before their time.
    pub ended_runs: BTreeSet<(usize, u64, RunKey)>,
    /// What assistants have left in force.
    pub rules: BTreeSet<Rule>,
    pub facts: Facts,
    /// How often everything healed: what a fault was to do later is not done after that.
    pub healings: u64,
    channels: [ChannelName; 3],
    asks: BTreeMap<(usize, u64, u64), ()>,
    replies: BTreeMap<u64, (usize, u64, u64)>,
    pub tell: Tell,
    pub told: Vec<String>,
    pub hash: u64,
    pub events: u64,
    pub next_action: u64,
}

impl World {
    pub fn new(seed: u64, setup: &Setup) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let names: Vec<_> = setup.config.nodes.keys().cloned().collect();
        let log = Log::new(seed, &setup.config);
        let services: Vec<_> = setup.config.services.keys().cloned().collect();
        let mut hosts = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let config = setup.differing.get(&i).unwrap_or(&setup.config);
            let config = Arc::new(Config { node: name.clone(), ..config.clone() });
            let keeps = config.me().role == regent::config::Role::Database;
            let rate = rng.random_range(-setup.rate_ppm..=setup.rate_ppm);
            let databases = if keeps { services.len() } else { 0 };
            let mut host = Host::new(name.clone(), config, rate, databases, log.first.clone());
            host.is_virtual = setup.is_virtual;
            hosts.push(host);
        }
        let disk = setup.config.disk.is_some();
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            next: 0,
            net: Network::new(setup.config.nodes.values().map(|n| !(disk && n.disk)).collect()),
            log,
            devices: BTreeMap::new(),
            ended_runs: BTreeSet::new(),
            rules: BTreeSet::new(),
            facts: Facts::new(names.len(), services.len(), &setup.config),
            healings: 0,
            channels: CHANNELS.map(|name| name.parse().expect("constants and valid names")),
            asks: BTreeMap::new(),
            replies: BTreeMap::new(),
            tell: setup.tell,
            told: Vec::new(),
            hash: seed,
            events: 0,
            next_action: 0,
            rng,
            hosts,
            services,
            sync: setup.sync,
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
        self.queue.push(Planned { at: self.now + delay, number: self.next, act: Box::new(act) });
    }

    /// Runs until `end`, checking every property after every event; stops at the first violation.
    pub fn run_until(&mut self, end: u64) {
        while self.facts.violation.is_none() {
            let Some(next) = self.queue.peek().map(|planned| planned.at) else { return };
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
            let Planned { at, number, act } = self.queue.pop().expect("just looked at");
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

    /// Says what happens, where anybody listens.
    pub fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.tell == Tell::Nobody {
            return;
        }
        let line = format!("{:>10.3} {}", self.now as f64 / S as f64, line(self));
        match self.tell {
            Tell::Keep => self.told.push(line),
            _ => println!("{line}"),
        }
    }

    pub fn violate(&mut self, rule: &str, what: String) {
        let at = self.now as f64 / S as f64;
        self.note(|_| format!("VIOLATION of {rule}: {what}"));
        self.facts.violation.get_or_insert(format!("{rule} at {at:.3} s: {what}"));
    }

    pub fn host(&self, name: &NodeName) -> usize {
        self.hosts.iter().position(|h| &h.name == name).expect("names come from the configuration of these hosts")
    }

    /// The number of a service.
    pub fn index(&self, service: &ServiceName) -> usize {
        self.services.iter().position(|s| s == service).expect("names come from the configuration of these hosts")
    }

    /// Powered, running, with a daemon.
    pub fn is_alive(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        h.power && !h.is_frozen() && h.daemon.is_some()
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

    /// A heartbeat's way, on every channel to everybody.
    fn beat(&mut self, from: usize, mut heartbeat: Arc<Heartbeat>) {
        if self.hosts[from].speaks_unknown {
            Arc::make_mut(&mut heartbeat).body = None;
        }
        self.hosts[from].last_beat = Some(heartbeat.clone());
        self.carry(from, &heartbeat);
    }

    /// Sends this in the name and from the place of that host.
    pub fn carry(&mut self, from: usize, heartbeat: &Arc<Heartbeat>) {
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            for channel in 0..CHANNELS.len() {
                for delay in self.net.beat(&mut self.rng, channel, from, to).into_iter().flatten() {
                    self.deliver(delay, channel, from, to, heartbeat.clone());
                }
            }
        }
    }

    fn deliver(&mut self, delay: u64, channel: usize, from: usize, to: usize, heartbeat: Arc<Heartbeat>) {
        let life = self.hosts[to].life;
        self.after(delay, move |w| {
            // What is in a slot is read later, even if the disk fails now; a datagram on its way passes a new cut not.
            if w.hosts[to].life == life && w.net.carries(channel, from, to) {
                let at = w.hosts[to].local(w.now);
                w.give(to, Event::Heard { channel: w.channels[channel].clone(), at, heartbeat });
            }
        });
    }

    /// The shell of this daemon says whether it can use the disk. One that uses none says nothing of it.
    pub fn report_disk(&mut self, host: usize, delay: u64, usable: Result<(), &'static str>) {
        if self.net.diskless[host] {
            return;
        }
        let channel = self.channels[DISK].clone();
        self.give_later(delay, host, Event::Channel { channel, usable: usable.map_err(str::to_owned) });
    }

    fn ask(&mut self, from: usize, id: u64, to: &NodeName, request: PeerRequest, deadline: Duration) {
        let (life, target) = (self.hosts[from].life, self.host(to));
        self.asks.insert((from, life, id), ());
        self.after(deadline.as_nanos() as u64, move |w| {
            w.answer((from, life, id), Err("no answer in time".to_owned()))
        });
        let heard = self.net.hears(from, target) || self.facts.deaf == Some(from);
        if !heard || !self.hosts[target].power || self.loses(from, Part::Questions) {
            return;
        }
        let name = self.hosts[from].name.clone();
        let delay = self.net.message(&mut self.rng, from, target);
        self.after(delay, move |w| {
            if w.hosts[target].daemon.is_none() {
                if w.hosts[target].power && !w.hosts[target].is_frozen() {
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
        if self.net.connects(from, key.0) && !self.loses(from, Part::Answers) {
            let delay = self.net.message(&mut self.rng, from, key.0);
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

    /// Gives the daemon an event now, and does what it asks for. Where nothing runs it waits.
    pub fn give(&mut self, host: usize, event: Event) {
        let now = self.now;
        match self.hosts[host].is_frozen() {
            true => self.hosts[host].inbox.push((now, event)),
            false => self.handle(host, now, event),
        }
    }

    /// The daemon takes in what came then.
    pub fn handle(&mut self, host: usize, came: u64, event: Event) {
        self.note_heard(host, came, &event);
        crate::invariants::given(self, host, &event);
        let h = &mut self.hosts[host];
        let local = h.local(self.now);
        let Some(node) = h.daemon.as_mut() else { return };
        let mut handling = match &event {
            Event::Asked { request, .. } if s5::lease_request(request).is_some() => Handling::LeaseAsked,
            Event::Asked { request: PeerRequest::Relay(_), .. } => Handling::PassingOn,
            Event::QuorumRead { confirmed, .. } => Handling::Read { confirmed: *confirmed },
            _ => Handling::Other,
        };
        let effects = node.handle(local, event);
        self.schedule_wake(host);
        for effect in effects {
            crate::invariants::asked_for(self, host, handling, &effect);
            let done = match handling {
                Handling::LeaseAsked => matches!(effect, Effect::QuorumRead { .. }),
                Handling::PassingOn => matches!(effect, Effect::Ask { .. }),
                _ => false,
            };
            if done {
                handling = Handling::Other;
            }
            self.perform(host, effect);
        }
        self.ends_where_it_has_left(host);
    }

    pub fn schedule_wake(&mut self, host: usize) {
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
                if !w.hosts[host].is_frozen() {
                    w.give(host, Event::Wake);
                }
            }
        });
    }

    fn perform(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Beat(heartbeat) => self.beat(host, heartbeat),
            Effect::Ask { id, to, request, deadline } => self.ask(host, id, &to, request, deadline),
            Effect::Reply { reply, response } => self.reply(host, reply, response),
            Effect::Propose { id, command } => self.propose(host, id, *command),
            // Operators of this world speak to the ledger themselves.
            Effect::Told { .. } => {}
            Effect::QuorumRead { id } if self.hosts[host].works(Part::QuorumReads) => self.quorum_read(host, id),
            Effect::QuorumRead { id } => self.give_later(300 * MS, host, Event::QuorumRead { id, confirmed: false }),
            Effect::Transfer { to } if self.hands_over(host) => self.transfer(self.host(&to)),
            Effect::Transfer { .. } => {}
            Effect::RunAgent { key, agent, action, target, fence, limit, persists } => {
                let (agent, target) = (&agent, &target);
                self.run_agent(host, Wanted { key, agent, action, target, fence, limit, persists });
            }
            Effect::EndAgent { key } => self.end_agent(host, key),
            Effect::Db { service, action } => self.database_action(host, self.index(&service), action),
            Effect::LookInForce => self.look_in_force(host),
            Effect::UndoInForce { undo } => self.undo_in_force(host, &undo),
            Effect::AbortDb { service } => self.database_abort(host, self.index(&service)),
            Effect::Tombstone { service, released } => self.tombstone(host, service, released),
            Effect::KeepLease { service, epoch, until, goodbye } => {
                self.keep_lease(host, service, epoch, (until, goodbye));
            }
            Effect::TryLease { service } => self.try_lease(host, service),
            Effect::ArmWatchdog => self.arm_watchdog(host),
            Effect::FeedWatchdog { told } => self.feed_watchdog(host, told),
            Effect::DisarmWatchdog => self.disarm_watchdog(host),
            Effect::Say(said) => self.note(|w| format!("{}: {said}", w.hosts[host].name)),
        }
    }

    fn hands_over(&self, host: usize) -> bool {
        self.hosts[host].works(Part::Transfers) && self.log.leader.is_some_and(|(leader, _)| leader == host)
    }

    /// Whether what this host sends gets lost at once: every other message, while the part is broken.
    fn loses(&mut self, host: usize, part: Part) -> bool {
        !self.hosts[host].works(part) && self.rng.random_range(0..2) == 0
    }
}
