//! The log of the simulated cluster: the real one. Each host runs regent's consensus on openraft; this module lets its
//! virtual time go on together with the world's, takes what happened into the daemons as the daemon's loop does, and
//! compares what the hosts have applied: one entry an index, one leader a term, one ledger.
//!
//! What faults and stories ask of a log is done to openraft from outside, as far as it can be told what to do:
//! - slow writes: the disk of that host holds its writes back until then;
//! - refused members, and those that fall behind: nothing of Raft's is carried to them or from them;
//! - missed elections: only the last of what was told in the meantime reaches the daemon, when it is over. (regent's
//!   `consensus` never does that; the daemon must stand it all the same.)
//! - an election: the present leader's messages get lost until another one leads. Which one, openraft decides;
//! - entries that are written and not committed: what members answer to the leader gets lost, or, where the next leader
//!   is not to have them, what it sends;
//! - proposals made again: as in the model, by whoever leads then.

use crate::cluster::{MS, S, World};
use crate::disk::Platter;
use crate::member::Life;
use crate::wires::Wires;
use openraft::async_runtime::{AsyncRuntime, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use rand::RngExt;
use regent::config::Config;
use regent::consensus::{self, Advanced, Applied, Leadership, ProposeError};
use regent::ledger::{Answer, Command, Entry, State};
use regent::node::Event;
use regent::types::{LogIndex, NodeName, ServiceName, Term, Timeline, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the time of day was when the world began, in ms.
const DAY: u64 = 1_700_000_000_000;

/// For how long at most a leader that is to be replaced reaches nobody.
const DEPOSED: u64 = 3 * S;

/// As in the daemon.
const RAFT_DEADLINE: Duration = Duration::from_secs(3);

/// The end of something that a daemon asked of its Raft.
enum Ended {
    Proposed { id: u64, result: Result<Answer, Option<NodeName>> },
    Read { id: u64, confirmed: bool },
    Failed(String),
}

/// What the log has to say: of which host, and of which life of its daemon.
enum Input {
    Happened(usize, consensus::Event),
    Ended(usize, u64, Ended),
}

/// What one index holds; a leader's first entry and a membership hold no command.
struct Committed {
    term: Term,
    entry: Option<(Arc<Entry>, Arc<Answer>)>,
    state: Arc<State>,
}

/// Every host's Raft.
pub struct Log {
    pub leader: Option<(usize, u64)>,
    pub first: Arc<State>,
    leads_in: Term,
    leaders: BTreeMap<Term, NodeName>,
    committed: BTreeMap<LogIndex, Committed>,
    newest: Arc<State>,
    lives: Vec<Option<Life>>,
    platters: Vec<Platter>,
    /// How far each host ever applied.
    reached: Vec<LogIndex>,
    /// Leadership of which a host has not heard yet.
    unheard: Vec<Option<(u64, Event)>>,
    /// Nobody hears this leader until then.
    deposed: Option<(usize, u64)>,
    /// Entries are written and not committed.
    pub holds: bool,
    /// Whether the next leader has what the last one had under way; `None`: by chance.
    pub inherits: Option<bool>,
    /// How many entries in a thousand are proposed once more, seconds later.
    pub repeats: u32,
    /// Voters that take no part: their log went back, and they are refused.
    pub refused: BTreeSet<usize>,
    wires: Wires,
    ends: mpsc::UnboundedSender<(usize, u64, Ended)>,
    ended: mpsc::UnboundedReceiver<(usize, u64, Ended)>,
    began: SimInstant,
    runtime: SimRuntime,
}

/// What the runs so far came to, beside what the world counts.
#[derive(Default)]
pub struct Total {
    messages: [u64; 3],
    terms: u64,
    snapshots: u64,
}

static MESSAGES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static TERMS: AtomicU64 = AtomicU64::new(0);
static SNAPSHOTS: AtomicU64 = AtomicU64::new(0);

impl Total {
    /// The run that has just ended.
    pub fn add(&mut self) {
        for (sum, ran) in self.messages.iter_mut().zip(&MESSAGES) {
            *sum += ran.swap(0, Ordering::Relaxed);
        }
        self.terms += TERMS.swap(0, Ordering::Relaxed);
        self.snapshots += SNAPSHOTS.swap(0, Ordering::Relaxed);
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, twice, lost] = self.messages;
        write!(
            f,
            "openraft: {sent} messages, {twice} of them sent twice, {lost} lost; {} terms with a leader; {} snapshots \
             installed",
            self.terms, self.snapshots
        )
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let reach = self.wires.lock();
        for (sum, ran) in MESSAGES.iter().zip([reach.sent, reach.twice, reach.lost]) {
            sum.fetch_add(ran, Ordering::Relaxed);
        }
        TERMS.fetch_add(self.leaders.len() as u64, Ordering::Relaxed);
    }
}

/// The runtime's clock, inside it.
pub fn now_of_runtime() -> u64 {
    SimInstant::now().elapsed_since_start().as_nanos() as u64
}

impl Log {
    pub fn new(seed: u64, config: &Config) -> Self {
        let hosts = config.nodes.len();
        let mut runtime = SimRuntime::with_seed(seed);
        let began = runtime.block_on(async { SimInstant::now() });
        let (ends, ended) = mpsc::unbounded_channel();
        let wires = Wires::default();
        wires.lock().members = (0..hosts).map(|_| None).collect();
        Log {
            leader: None,
            first: Arc::default(),
            leads_in: Term(0),
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            newest: Arc::default(),
            lives: (0..hosts).map(|_| None).collect(),
            platters: (0..hosts).map(|_| Platter::default()).collect(),
            reached: vec![LogIndex(0); hosts],
            unheard: (0..hosts).map(|_| None).collect(),
            deposed: None,
            holds: false,
            inherits: None,
            repeats: 0,
            refused: BTreeSet::new(),
            wires,
            ends,
            ended,
            began,
            runtime,
        }
    }

    /// The ledger as far as anybody has applied it.
    pub fn state(&self) -> &Arc<State> {
        &self.newest
    }

    /// What is committed, in order, as far as anybody has applied it.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.committed.values().filter_map(|c| c.entry.as_ref().map(|(entry, _)| entry))
    }

    /// The newest timeline of this service that an entry under way would install; here nobody looks into the logs.
    pub fn installing(&self, _service: &ServiceName) -> Timeline {
        Timeline(0)
    }

    /// The newest term that has a leader.
    pub fn term(&self) -> Term {
        self.leads_in
    }

    /// Lets the runtime go on until something happened, at most until the world's clock shows `until`.
    fn wait(&mut self, until: u64) -> Option<(u64, Input)> {
        let (lives, ended, began) = (&mut self.lives, &mut self.ended, self.began);
        self.runtime.block_on(async {
            let happened = std::future::poll_fn(|cx| {
                // The ledger before everything else, as in the daemon's loop.
                for (host, life) in lives.iter_mut().enumerate() {
                    let Some(life) = life else { continue };
                    if let Poll::Ready(Some(event)) = life.events.poll_recv(cx) {
                        return Poll::Ready(Input::Happened(host, event));
                    }
                }
                match ended.poll_recv(cx) {
                    Poll::Ready(Some((host, life, ended))) => Poll::Ready(Input::Ended(host, life, ended)),
                    _ => Poll::Pending,
                }
            });
            let input = SimRuntime::timeout_at(began + Duration::from_nanos(until), happened).await.ok();
            let now = (SimInstant::now() - began).as_nanos() as u64;
            input.map(|input| (now, input))
        })
    }
}

impl World {
    /// What Raft does by itself before `until`. True when something came of it.
    pub fn log_acts(&mut self, until: u64) -> bool {
        self.lay_wires();
        let Some((at, input)) = self.log.wait(until) else { return false };
        self.now = self.now.max(at);
        let wired = self.log.wires.lock().hash;
        self.hash = (self.hash ^ at ^ wired.rotate_left(17)).wrapping_mul(0x100_0000_01b3);
        match input {
            Input::Happened(host, consensus::Event::Applied(applied)) => self.applied(host, applied),
            Input::Happened(host, consensus::Event::Advanced(advanced)) => self.advanced(host, advanced),
            Input::Happened(host, consensus::Event::Leadership(now)) => self.leadership(host, now),
            Input::Ended(host, life, ended) if self.hosts[host].life == life => match ended {
                Ended::Proposed { id, result } => self.give(host, Event::Proposed { id, result }),
                Ended::Read { id, confirmed } => self.give(host, Event::QuorumRead { id, confirmed }),
                Ended::Failed(why) => {
                    self.violate("Raft", format!("{} does not start: {why}", self.hosts[host].name));
                }
            },
            Input::Ended(..) => {}
        }
        true
    }

    /// What the world's network carries now.
    fn lay_wires(&mut self) {
        let n = self.hosts.len();
        if self.log.deposed.is_some_and(|(_, until)| self.now >= until) {
            self.log.deposed = None;
        }
        let mute = |h: usize| {
            let deposed = self.log.deposed.is_some_and(|(l, _)| l == h);
            deposed || self.log.refused.contains(&h) || self.hosts[h].behind_until > self.now
        };
        let mut reach = self.log.wires.lock();
        reach.connects.resize(n, vec![true; n]);
        for from in 0..n {
            for to in 0..n {
                reach.connects[from][to] = self.net.connects(from, to) && !mute(from) && !mute(to);
            }
        }
        reach.frozen = self.hosts.iter().map(|h| h.is_frozen()).collect();
        reach.slow = self.hosts.iter().map(|h| h.log_slow_until > self.now).collect();
        (reach.holds, reach.inherits) = (self.log.holds, self.log.inherits);
        reach.loss = *self.net.loss.iter().min().expect("two networks");
    }

    /// A daemon starts: its Raft with it, over what is stored. It knows nothing of the ledger before that is read.
    pub fn log_starts(&mut self, host: usize) -> Arc<State> {
        let life = self.hosts[host].life;
        let config = self.hosts[host].config.clone();
        self.lay_wires();
        let log = &mut self.log;
        let ends = log.ends.clone();
        let failed = move |why| drop(ends.send((host, life, Ended::Failed(why))));
        let (platter, wires) = (&log.platters[host], &log.wires);
        let began = log.runtime.block_on(async { Life::start(&config, life, platter, wires, failed) });
        log.lives[host] = Some(began);
        Arc::default()
    }

    /// A daemon is killed: its Raft with it.
    pub fn log_ends(&mut self, host: usize) {
        let Some(life) = self.log.lives[host].take() else { return };
        life.kill(host, &self.log.wires);
        if self.log.leader.is_some_and(|(leader, _)| leader == host) {
            self.log.leader = None;
        }
    }

    /// Every 20 ms. Raft needs no beat of the world's; whoever missed elections may hear of the last one now.
    pub fn log_tick(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].misses_elections {
                continue;
            }
            if let Some((life, event)) = self.log.unheard[host].take()
                && self.hosts[host].life == life
            {
                self.give(host, event);
            }
        }
    }

    /// The ledger as this host has it now: `state` holds the furthest that it ever was.
    fn learn(&mut self, host: usize, index: LogIndex, state: &Arc<State>) {
        if index > self.log.reached[host] {
            self.log.reached[host] = index;
            crate::invariants::s5::learned(self, host, state);
            self.hosts[host].state = state.clone();
        }
    }

    fn applied(&mut self, host: usize, applied: Applied) {
        let Applied { index, term, entry, answer, state, replay } = applied;
        self.compare(host, index, term, Some((&entry, &answer)), &state);
        self.learn(host, index, &state);
        match replay {
            true => self.give(host, Event::Ledger { state }),
            false => self.give(host, Event::Applied { entry, answer, state }),
        }
    }

    fn advanced(&mut self, host: usize, advanced: Advanced) {
        let Advanced { index, term, state, snapshot, .. } = advanced;
        if snapshot {
            SNAPSHOTS.fetch_add(1, Ordering::Relaxed);
            self.note(|w| format!("{}: a snapshot up to {index}", w.hosts[host].name));
            let same = self.log.committed.get(&index).is_some_and(|c| c.term == term && *c.state == *state);
            if !same {
                self.violate("Raft", format!("the snapshot of host {host} up to {index} is nothing that was applied"));
            }
        } else {
            self.compare(host, index, term, None, &state);
        }
        self.learn(host, index, &state);
        self.give(host, Event::Ledger { state });
    }

    /// Every host must apply the same at the same index, and get the same ledger.
    fn compare(
        &mut self,
        host: usize,
        index: LogIndex,
        term: Term,
        entry: Option<(&Arc<Entry>, &Arc<Answer>)>,
        state: &Arc<State>,
    ) {
        if let Some(known) = self.log.committed.get(&index) {
            let same_entry = match (&known.entry, entry) {
                (Some((e, a)), Some((entry, answer))) => e == entry && a == answer,
                (None, None) => true,
                _ => false,
            };
            if !same_entry || known.term != term || *known.state != **state {
                self.violate("Raft", format!("host {host} applied something else at {index}"));
            }
            return;
        }
        let next = self.log.committed.last_key_value().map_or(index, |(last, _)| LogIndex(last.0 + 1));
        if index != next {
            return self.violate("Raft", format!("host {host} applied {index} before anybody applied {next}"));
        }
        if let Some((entry, answer)) = entry {
            let before = self.log.newest.clone();
            self.note(|_| crate::replay::entry_in_words(index, &before, state, entry, answer));
            // The time of day of an entry is that of its proposal.
            let proposed = (entry.at.0 - DAY) * MS;
            crate::invariants::committed(self, &before, state, entry, answer, (proposed, term));
        }
        self.log.newest = state.clone();
        let kept = entry.map(|(entry, answer)| (entry.clone(), answer.clone()));
        self.log.committed.insert(index, Committed { term, entry: kept, state: state.clone() });
    }

    fn leadership(&mut self, host: usize, now: Leadership) {
        let life = self.hosts[host].life;
        let name = self.hosts[host].name.clone();
        self.note(|_| {
            let leader = now.leader.as_ref().map_or("nobody", NodeName::as_str);
            let acked = if now.quorum_acked { ", which a quorum answers" } else { "" };
            format!("{name}: {leader} leads in term {}{acked}", now.term)
        });
        if let Some(leader) = &now.leader {
            let known = self.log.leaders.entry(now.term).or_insert_with(|| leader.clone()).clone();
            if known != *leader {
                self.violate("Raft", format!("term {} has two leaders, {known} and {leader}", now.term));
            }
        }
        let leads = now.i_lead && now.quorum_acked;
        if leads && now.term >= self.log.leads_in {
            (self.log.leader, self.log.leads_in) = (Some((host, life)), now.term);
            self.log.deposed = self.log.deposed.filter(|(leader, _)| *leader == host);
        } else if !leads && self.log.leader == Some((host, life)) {
            self.log.leader = None;
        }
        let event = Event::Leadership { term: now.term, leader: now.leader, i_lead: leads };
        match self.hosts[host].misses_elections {
            true => self.log.unheard[host] = Some((life, event)),
            false => {
                self.log.unheard[host] = None;
                self.give(host, event);
            }
        }
    }

    /// Nothing of the log gets to this host or from it until then; everything else does.
    pub fn fall_behind(&mut self, host: usize, lasts: u64) {
        self.hosts[host].behind_until = self.now + lasts;
    }

    /// Whether this host may be asked to lead.
    pub fn may_lead(&self, host: usize) -> bool {
        self.is_alive(host) && !self.log.refused.contains(&host)
    }

    /// Another leader is elected, most likely not this one: whom, openraft decides.
    pub fn elect(&mut self, host: usize) {
        if let Some((leader, _)) = self.log.leader.filter(|(leader, _)| *leader != host) {
            self.note(|w| format!("nobody hears {} any more", w.hosts[leader].name));
            self.log.deposed = Some((leader, self.now + DEPOSED));
        }
    }

    pub fn propose(&mut self, host: usize, id: u64, command: Command) {
        if self.log.leader == Some((host, self.hosts[host].life)) {
            crate::invariants::proposed(self, host, &command);
        }
        let entry = Entry { at: WallTime(DAY + self.now / MS), command };
        // Somebody who heard no answer proposes the same again, when nobody expects it any more.
        if self.log.repeats > 0 && self.rng.random_range(0..1000) < self.log.repeats {
            let (delay, again) = (self.rng.random_range(100 * MS..20_000 * MS), Arc::new(entry.clone()));
            self.after(delay, move |w| w.repeat(again, w.now));
        }
        let Some(life) = &self.log.lives[host] else { return };
        let (member, number, ends) = (life.member.clone(), life.life, self.log.ends.clone());
        let proposal = async move {
            let result = match member.propose(entry, RAFT_DEADLINE).await {
                Ok(proposed) => Ok((*proposed.answer).clone()),
                Err(ProposeError::NotLeader { leader }) => Err(leader),
                Err(ProposeError::Unknown(_)) => Err(None),
            };
            // The world is gone when nobody listens.
            let _ = ends.send((host, number, Ended::Proposed { id, result }));
        };
        self.spawn(proposal);
    }

    /// The same entry again, by whoever leads.
    pub fn repeat(&mut self, entry: Arc<Entry>, _at: u64) {
        let Some(life) = self.log.leader.and_then(|(host, _)| self.log.lives[host].as_ref()) else { return };
        let member = life.member.clone();
        self.note(|_| format!("{} is proposed once more", entry.command.name()));
        self.spawn(async move {
            // Nobody waits for the answer.
            let _ = member.propose((*entry).clone(), RAFT_DEADLINE).await;
        });
    }

    pub fn quorum_read(&mut self, host: usize, id: u64) {
        let Some(life) = &self.log.lives[host] else { return };
        let (member, number, ends) = (life.member.clone(), life.life, self.log.ends.clone());
        self.spawn(async move {
            let confirmed = member.quorum_read(RAFT_DEADLINE).await.is_ok();
            let _ = ends.send((host, number, Ended::Read { id, confirmed }));
        });
    }

    /// Whoever leads is asked to hand over.
    pub fn transfer(&mut self, to: usize) {
        let Some(life) = self.log.leader.and_then(|(host, _)| self.log.lives[host].as_ref()) else { return };
        let (member, to) = (life.member.clone(), self.hosts[to].name.clone());
        self.spawn(async move {
            // Whether it worked, the leadership tells.
            let _ = member.transfer_leadership(&to, RAFT_DEADLINE).await;
        });
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.log.runtime.block_on(async { drop(SimRuntime::spawn(task)) });
    }
}
