//! What really happened, for the properties to be checked against: who acknowledged writes, who could be heard by
//! whom, whose device lied. It shares no rule with the code under test; it reads plain values of the ledger only.

use crate::cluster::{MS, S, World};
use crate::hearing::Hearing;
use crate::network::{CHANNELS, DISK};
use regent::config::Config;
use regent::ledger::Phase;
use regent::node::Event;
use regent::types::{DbState, Epoch, Heartbeat, Incarnation, Lsn, NodeName, Position, Timeline};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one service.
#[derive(Default)]
pub struct ServiceFacts {
    /// When a write was acknowledged last, and by whom.
    pub last_write: Option<(u64, usize)>,
    pub writes: u64,
    /// The longest time without any acknowledged write, since the first.
    pub longest_gap: u64,
    /// How long nobody took writes, for each time that another node took over.
    pub moves: Vec<u64>,
    pub epoch: Epoch,
    /// The furthest acknowledged commit on each timeline, and who acknowledged it.
    pub acknowledged: BTreeMap<Timeline, (Lsn, usize)>,
    /// To whom the ledger gave each timeline; who began it, and where.
    pub said: BTreeMap<Timeline, usize>,
    pub began: BTreeMap<Timeline, (usize, Lsn)>,
    /// How many sealed reports the last appointment had.
    pub reports: usize,
    /// Who was appointed since a primary was installed last, and has not taken over.
    pub tried: BTreeSet<NodeName>,
}

/// What was said of a boot, and was not so.
struct Lie {
    /// An appointment rests on it, and at that moment nobody who has a say could tell.
    unseen: bool,
    /// The epoch of each service at that moment.
    epochs: Vec<Epoch>,
}

/// The facts of one run.
pub struct Facts {
    pub violation: Option<String>,
    pub services: Vec<ServiceFacts>,
    pub leases: crate::invariants::s5::Leases,
    /// Acceptable pause and the like, as the configuration has them.
    pub times: Times,
    pub hearing: Hearing,
    /// When each host was last seen to run with its daemon, at a change of the world.
    awake: Vec<u64>,
    /// Since when an observer has heard a subject on some channel without a break: `[observer][subject]`.
    heard_since: Vec<Vec<u64>>,
    /// The same on every channel, and for what is asked.
    connected_since: Vec<Vec<u64>>,
    /// By who heard it and service: in which life of its daemon, of which epoch, and how far.
    ends: BTreeMap<(usize, usize), (u64, Epoch, Position)>,
    /// Boots about which a device lied, and each of its lies.
    lied: BTreeMap<(usize, u64), Vec<Lie>>,
    /// When a person last took back an order on whose data win: whoever was chosen a moment before was the only one.
    pub taken_back: u64,
    /// When the last fence of a host was opened.
    pub fence_opened: Vec<u64>,
    /// The incarnation of each host that left in order last, holding nothing.
    pub left: Vec<Option<Incarnation>>,
    pub faults: BTreeMap<&'static str, u64>,
    pub counts: Counts,
    /// A host whose requests still arrive while nothing reaches it.
    pub deaf: Option<usize>,
    /// Folders with the diverged log of a database, which the ledger should name.
    pub kept: Vec<Kept>,
    /// What daemons do of their own accord, and how often.
    pub rest: crate::invariants::rest::Rest,
    /// The rewinds and copies that each host asked for.
    pub copies: crate::invariants::copies::Copies,
    /// What fence devices do, and for which orders.
    pub power: crate::invariants::power::Power,
    /// What was asked and answered in the rounds before a verdict.
    pub looks: crate::invariants::s3::Looks,
    pub slow_logs: crate::invariants::s10::SlowLogs,
    pub unsaid: crate::invariants::words::Unsaid,
}

/// One folder of diverged log.
pub struct Kept {
    pub name: String,
    pub host: usize,
    pub service: usize,
    /// The daemon that made it.
    pub life: u64,
}

/// What is counted for the report.
#[derive(Clone, Default)]
pub struct Counts {
    pub verdicts: u64,
    pub fences: u64,
    pub appointments: u64,
    /// Appointments that rest on a fence.
    pub failovers: u64,
    /// Epochs whose appointee was passed over.
    pub passed_over: u64,
    pub refuted: u64,
    pub refusals: u64,
    /// Fences of a node that had done nothing wrong for longer than the threshold.
    pub false_failovers: u64,
    /// Acknowledged commits that an asynchronous failover lost, in 64-byte writes.
    pub lost: u64,
    /// Choices in a synchronous service on fewer reports than its claim needs.
    pub unprotected: u64,
    /// Hosts that a device switched off, by the reason of the fence.
    pub cuts: BTreeMap<&'static str, u64>,
    /// Verdicts that were committed when their node was heard well again.
    pub late_verdicts: u64,
}

/// Times of the configuration, in ns, and how long after its cause a verdict may be proposed.
pub struct Times {
    pub pause: u64,
    pub interval: u64,
    pub ladder: u64,
    pub verdict_memory: u64,
}

impl Times {
    fn of(config: &Config) -> Self {
        let ns = |d: std::time::Duration| d.as_nanos() as u64;
        let (pause, interval) = (ns(config.detector.acceptable_pause), ns(config.detector.interval));
        Times {
            pause,
            interval,
            ladder: ns(config.lease.stop_immediate + config.lease.stop_kill),
            // A view counts for a pause and three intervals, a round may take a pause.
            verdict_memory: 2 * pause + 3 * interval + ns(config.raft.slow_write) + 500 * MS,
        }
    }
}

impl Facts {
    pub fn new(hosts: usize, services: usize, config: &Config) -> Self {
        Facts {
            violation: None,
            services: (0..services).map(|_| ServiceFacts::default()).collect(),
            leases: Default::default(),
            times: Times::of(config),
            hearing: Hearing::new(hosts, config.detector.acceptable_pause.as_nanos() as u64, config.disk.is_some()),
            awake: vec![0; hosts],
            heard_since: vec![vec![0; hosts]; hosts],
            connected_since: vec![vec![0; hosts]; hosts],
            ends: BTreeMap::new(),
            lied: BTreeMap::new(),
            taken_back: 0,
            fence_opened: vec![0; hosts],
            left: vec![None; hosts],
            faults: BTreeMap::new(),
            counts: Counts::default(),
            deaf: None,
            kept: Vec::new(),
            rest: Default::default(),
            copies: Default::default(),
            power: Default::default(),
            looks: Default::default(),
            slow_logs: BTreeMap::new(),
            unsaid: BTreeMap::new(),
        }
    }

    pub fn acknowledged(&mut self, now: u64, by: usize, service: usize, at: Position) {
        let facts = &mut self.services[service];
        if let Some((before, last)) = facts.last_write {
            facts.longest_gap = facts.longest_gap.max(now - before);
            if last != by {
                facts.moves.push(now - before);
            }
        }
        facts.last_write = Some((now, by));
        facts.writes += 1;
        let furthest = facts.acknowledged.entry(at.timeline).or_insert((at.lsn, by));
        if at.lsn >= furthest.0 {
            *furthest = (at.lsn, by);
        }
    }

    pub fn forget_leases(&mut self, host: usize) {
        self.leases.forget(host);
    }
}

impl World {
    pub fn fault(&mut self, kind: &'static str, what: String) {
        *self.facts.faults.entry(kind).or_default() += 1;
        self.note(|_| format!("FAULT {kind}: {what}"));
    }

    /// A device (or a person) said that this boot is off, and it is not.
    pub fn lied(&mut self, host: usize, boots: u64) {
        if self.hosts[host].boots == boots && self.hosts[host].power {
            self.note(|w| format!("that was a lie: {} still has power", w.hosts[host].name));
            let state = self.log.state();
            let epochs = self.services.iter().map(|s| state.services.get(s).map_or(Epoch(0), |s| s.epoch)).collect();
            // An appointment may rest on an earlier one: another lie about the same boot takes nothing of that back.
            self.facts.lied.entry((host, boots)).or_default().push(Lie { unseen: false, epochs });
        }
    }

    /// Somebody is appointed on the fence of this host. Judged at this moment: who could tell before, and cannot now, has
    /// been heard by then or not.
    pub fn rests_on(&mut self, host: usize) {
        let nobody = self.who_can_tell(host).next().is_none();
        let boots = self.hosts[host].boots;
        if let Some(lie) = self.facts.lied.get_mut(&(host, boots)).and_then(|lies| lies.last_mut()) {
            lie.unseen |= nobody;
        }
    }

    /// Whether a device lied about the present boot of this host, and somebody was appointed on that while nobody who has
    /// a say could hear it: the documents say that no rule can find that out.
    pub fn is_lied_about(&self, host: usize) -> bool {
        self.unseen_lies(host).next().is_some()
    }

    /// Whether this postmaster is one about which a device lied like that. What the same boot opened under an epoch to
    /// which it was appointed afterwards is nothing of the kind.
    pub fn is_excused(&self, host: usize, service: usize) -> bool {
        let opened = self.hosts[host].databases.get(service).map_or(Epoch(0), |db| db.epoch);
        self.unseen_lies(host).any(|lie| opened <= lie.epochs[service])
    }

    fn unseen_lies(&self, host: usize) -> impl Iterator<Item = &Lie> {
        let all = self.facts.lied.get(&(host, self.hosts[host].boots));
        all.into_iter().flatten().filter(|lie| lie.unseen)
    }

    /// The voters that have heard this host without a break since before its fence was opened, live in the ledger, and
    /// can answer whoever asks: each of them must contradict a fence of it.
    pub fn who_can_tell(&self, host: usize) -> impl Iterator<Item = usize> + '_ {
        let since = self.facts.fence_opened[host].saturating_sub(3 * S);
        let leader = self.log.leader.map(|(l, _)| l);
        (0..self.hosts.len()).filter(move |by| {
            let h = &self.hosts[*by];
            let up = self.log.state().nodes.get(&h.name).is_some_and(|n| n.life == regent::ledger::Life::Up);
            *by != host
                && up
                && h.started_at < since
                && self.facts.heard_since[*by][host] < since
                // And still does: since the last look a channel may have failed.
                && (0..CHANNELS.len()).any(|c| self.net.carries(c, host, *by))
                && leader.is_some_and(|l| self.net.connects(l, *by))
        })
    }

    /// Notes a heartbeat that came then, when its turn has come: a host that stood still takes in what waited one by one,
    /// and what it answers to a question among that cannot rest on the heartbeats behind it.
    pub fn note_heard(&mut self, host: usize, came: u64, event: &Event) {
        let Event::Heard { channel, heartbeat, .. } = event else { return };
        let Some(channel) = CHANNELS.iter().position(|name| channel.as_str() == *name) else { return };
        let number = (heartbeat.incarnation.0, heartbeat.sequence);
        self.facts.hearing.heard(came, channel, host, self.host(&heartbeat.node), number);
        self.note_end(host, heartbeat);
    }

    /// Notes how far a primary said it has written, to one that knows it for the primary.
    fn note_end(&mut self, by: usize, heartbeat: &Heartbeat) {
        let host = &self.hosts[by];
        let (Some(daemon), Some(body)) = (&host.daemon, &heartbeat.body) else { return };
        for (name, said) in body.health.services.iter().filter(|(_, said)| said.state == DbState::Primary) {
            let Some(record) = daemon.state().services.get(name) else { continue };
            let held = record
                .holder
                .as_ref()
                .is_some_and(|h| h.node == heartbeat.node && h.incarnation == heartbeat.incarnation);
            if !held || record.phase != Phase::Installed || record.over.is_some() {
                continue;
            }
            let end = (host.life, record.epoch, said.position);
            let known = self
                .facts
                .ends
                .entry((by, self.services.iter().position(|s| s == name).expect("known")))
                .or_insert(end);
            *known = (*known).max(end);
        }
    }

    /// How far this daemon has heard that the primary of an epoch wrote.
    pub fn heard_end(&self, by: usize, service: usize, epoch: Epoch) -> Option<Position> {
        let known = self.facts.ends.get(&(by, service));
        known.filter(|(life, of, _)| *life == self.hosts[by].life && *of == epoch).map(|(_, _, end)| *end)
    }

    /// Notes who is heard by whom.
    pub fn note_impairment(&mut self) {
        let (now, n) = (self.now, self.hosts.len());
        let sending: Vec<bool> = self.hosts.iter().map(|h| h.is_sending()).collect();
        for host in 0..n {
            if self.is_alive(host) {
                self.facts.awake[host] = now;
            }
        }
        for of in 0..n {
            for by in (0..n).filter(|by| *by != of) {
                self.listen(now, of, by, &sending);
            }
        }
    }

    /// One observer, one subject.
    fn listen(&mut self, now: u64, of: usize, by: usize, sending: &[bool]) {
        let lossy = |c: usize| c != DISK && self.net.loss[c] > 50;
        let audible = sending[of] && (0..CHANNELS.len()).any(|c| self.net.carries(c, of, by) && !lossy(c));
        if !(audible && sending[by]) {
            self.facts.heard_since[by][of] = now;
        }
        let connected = (0..CHANNELS.len()).all(|c| self.net.carries(c, of, by)) && self.net.connects(by, of);
        if !(connected && sending[of]) {
            self.facts.connected_since[by][of] = now;
        }
    }

    /// Whether nothing was between the two since then.
    pub fn are_connected_since(&self, a: usize, b: usize, since: u64) -> bool {
        self.facts.connected_since[a][b].max(self.facts.connected_since[b][a]) <= since
    }

    /// Whether a majority of all voters had, a moment ago, a reason to hold this host for dead.
    pub fn is_rightly_suspected(&self, host: usize) -> bool {
        // The ledger takes a copy for the node: what its twin sends is of an earlier incarnation, and the copy sends for a
        // while only.
        if self.is_a_copy_present(host) {
            return true;
        }
        let since = self.now.saturating_sub(self.facts.times.verdict_memory);
        let rightly = (0..self.hosts.len()).filter(|by| *by != host).filter(|by| {
            let used = |c: usize| c != DISK || !self.net.diskless[host] && !self.net.diskless[*by];
            // Whoever is off or stands still hears nothing, and has no say either.
            let until = if self.is_alive(*by) { self.now } else { self.facts.awake[*by] };
            self.facts.hearing.was_silent(until, since, *by, host, used)
        });
        rightly.count() * 2 > self.hosts.len()
    }

    /// Whether a majority of all voters has heard this host on most channels for so long, without a break.
    pub fn is_heard_well(&self, host: usize, lasts: u64) -> bool {
        if self.is_a_copy_present(host) {
            return false;
        }
        let since = self.now.saturating_sub(lasts);
        let well = (0..self.hosts.len()).filter(|by| *by != host).filter(|by| {
            let h = &self.hosts[*by];
            let watched = self.is_alive(*by) && h.started_at < since && h.thawed_at < since;
            let used = |c: usize| c != DISK || !self.net.diskless[host] && !self.net.diskless[*by];
            watched && !self.facts.hearing.was_silent(self.now, since, *by, host, used)
        });
        well.count() * 2 > self.hosts.len()
    }

    /// No write of any service for longer than this.
    pub fn is_served(&self, within: u64) -> bool {
        self.facts.services.iter().all(|s| s.last_write.is_some_and(|(at, _)| self.now <= at + within))
    }

    /// The host that acknowledges writes of the first service, if one does.
    pub fn primary(&self) -> Option<usize> {
        self.primary_of(0)
    }

    pub fn primary_of(&self, service: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|h| self.acknowledges(*h, service))
    }

    /// Every database of a host that has power is the primary or streams.
    pub fn is_whole(&self) -> bool {
        self.is_whole_but(&[])
    }

    /// The same, but for some hosts.
    pub fn is_whole_but(&self, without: &[usize]) -> bool {
        use crate::database::Process;
        let fine = |db: &crate::database::Database| match db.process {
            Process::Primary => true,
            Process::Standby => db.streams_from.is_some(),
            _ => false,
        };
        let asked = |(i, h): &(usize, &crate::host::Host)| h.power && !without.contains(i);
        self.is_served(S) && self.hosts.iter().enumerate().filter(asked).all(|(_, h)| h.databases.iter().all(fine))
    }
}
