//! A model of what Raft permits: one leader a term, elected by a connected majority among those that have every
//! committed entry; what an old leader had under way commits later, or never. Every node applies the same entries with
//! the real `ledger::apply`, and the copies are compared.

use crate::cluster::{MS, World};
use rand::RngExt;
use regent::config::Config;
use regent::ledger::{self, Answer, Command, Entry, State};
use regent::node::Event;
use regent::types::{LogIndex, NodeId, Term, WallTime};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One committed entry, with what it did.
pub struct Committed {
    pub term: Term,
    pub entry: Arc<Entry>,
    pub answer: Arc<Answer>,
    pub state: Arc<State>,
}

struct Pending {
    number: u64,
    host: usize,
    life: u64,
    id: u64,
    term: u64,
    entry: Arc<Entry>,
    sent: Vec<bool>,
}

/// The log of the whole cluster.
pub struct Log {
    pub term: u64,
    pub leader: Option<(usize, u64)>,
    pub committed: Vec<Committed>,
    pub first: Arc<State>,
    pending: Vec<Pending>,
    next: u64,
    open: BTreeSet<(usize, u64, u64)>,
    leaderless: Option<(u64, u64)>,
    wanted: Option<usize>,
}

impl Log {
    pub fn new(_seed: u64, config: &Config) -> Self {
        let mut state = State::default();
        let ids = (1..=config.nodes.len() as u64).map(NodeId).collect();
        ledger::set_voters(&mut state, LogIndex(1), vec![ids]);
        Log {
            term: 0,
            leader: None,
            committed: Vec::new(),
            first: Arc::new(state),
            pending: Vec::new(),
            next: 0,
            open: BTreeSet::new(),
            leaderless: None,
            wanted: None,
        }
    }

    /// The ledger as it is committed.
    pub fn state(&self) -> &Arc<State> {
        self.committed.last().map_or(&self.first, |c| &c.state)
    }
}

impl World {
    /// Everything in this model is an event of the world. `tests/raft_sim` has another log in its place, which is not.
    pub fn log_acts(&mut self, _until: u64) -> bool {
        false
    }

    /// A daemon starts: this model has kept for it what it had applied.
    pub fn log_starts(&mut self, _host: usize) {}

    /// A daemon ends.
    pub fn log_ends(&mut self, _host: usize) {}

    fn has_quorum(&self, host: usize) -> bool {
        let reached = (0..self.hosts.len()).filter(|v| self.is_alive(*v) && self.net.connects(host, *v)).count();
        self.is_alive(host) && reached * 2 > self.hosts.len()
    }

    fn really_leads(&self, host: usize) -> bool {
        self.log.leader == Some((host, self.hosts[host].life)) && self.has_quorum(host)
    }

    /// Every 20 ms: followers catch up and hear who leads; without a leader, an election.
    pub fn log_tick(&mut self) {
        let leads = self.log.leader.filter(|(l, life)| self.hosts[*l].life == *life && self.has_quorum(*l));
        let Some((leader, _)) = leads else { return self.elect_in_time() };
        self.log.leaderless = None;
        let len = self.log.committed.len();
        for v in 0..self.hosts.len() {
            if self.is_alive(v) && self.net.connects(leader, v) {
                self.hosts[v].replicated = len;
                self.tell_leader(v, leader);
                if self.hosts[v].applied < len {
                    let delay = self.rng.random_range(MS / 2..5 * MS);
                    self.after(delay, move |w| w.apply_on(v));
                }
            }
        }
        if let Some(to) = self.log.wanted.take().filter(|to| *to != leader && self.has_quorum(*to)) {
            self.elect(to);
        }
    }

    fn tell_leader(&mut self, host: usize, leader: usize) {
        let term = self.log.term;
        if self.hosts[host].told == (term, self.hosts[host].life) {
            return;
        }
        self.hosts[host].told = (term, self.hosts[host].life);
        let name = self.hosts[leader].name.clone();
        let i_lead = host == leader;
        let delay = self.rng.random_range(MS..6 * MS);
        self.give_later(delay, host, Event::Leadership { term: Term(term), leader: Some(name), i_lead });
    }

    fn elect_in_time(&mut self) {
        let now = self.now;
        let (since, wait) = match self.log.leaderless {
            Some(l) => l,
            None => {
                let wait = self.rng.random_range(500 * MS..1000 * MS);
                *self.log.leaderless.insert((now, wait))
            }
        };
        if now < since + wait {
            return;
        }
        let len = self.log.committed.len();
        let able: Vec<_> = (0..self.hosts.len()).filter(|h| self.has_quorum(*h) && self.complete(*h, len)).collect();
        if able.is_empty() {
            return;
        }
        let chosen = able[self.rng.random_range(0..able.len())];
        self.elect(chosen);
    }

    fn complete(&self, host: usize, len: usize) -> bool {
        self.hosts[host].replicated == len
    }

    fn elect(&mut self, host: usize) {
        if !self.complete(host, self.log.committed.len()) {
            return;
        }
        self.log.term += 1;
        self.log.leader = Some((host, self.hosts[host].life));
        self.log.leaderless = None;
        let (term, name) = (self.log.term, self.hosts[host].name.clone());
        self.note(|| format!("{name} leads in term {term}"));
        // What the last leader had sent to this one commits, in order; the rest never does.
        let pending = std::mem::take(&mut self.log.pending);
        let mut inherited = self.rng.random_range(0..2) == 0;
        for p in pending {
            inherited &= p.sent[host];
            if inherited {
                self.commit(p.entry, Term(p.term), host);
            }
        }
        self.tell_leader(host, host);
    }

    pub fn propose(&mut self, host: usize, id: u64, command: Command) {
        let life = self.hosts[host].life;
        self.log.open.insert((host, life, id));
        let leads = self.log.leader == Some((host, life));
        let patience = if leads { 3000 * MS } else { 300 * MS };
        self.after(patience, move |w| w.proposal_ends(host, life, id, Err(())));
        if !leads {
            return;
        }
        self.log.next += 1;
        let number = self.log.next;
        let entry = Arc::new(Entry { at: WallTime(1_700_000_000_000 + self.now / MS), command });
        let sent = (0..self.hosts.len()).map(|v| self.is_alive(v) && self.net.connects(host, v)).collect();
        self.log.pending.push(Pending { number, host, life, id, term: self.log.term, entry, sent });
        let delay = self.rng.random_range(MS..5 * MS);
        self.after(delay, move |w| w.try_commit(number));
    }

    fn try_commit(&mut self, number: u64) {
        let Some(found) = self.log.pending.iter().position(|p| p.number == number) else { return };
        let host = self.log.pending[found].host;
        if !self.really_leads(host) {
            self.after(50 * MS, move |w| w.try_commit(number));
            return;
        }
        let rest = self.log.pending.split_off(found + 1);
        let ready = std::mem::replace(&mut self.log.pending, rest);
        for p in ready {
            let answer = self.commit(p.entry, Term(p.term), host);
            let lost = self.rng.random_range(0..100) == 0;
            let (host, life, id) = (p.host, p.life, p.id);
            if !lost {
                let delay = self.rng.random_range(MS / 10..MS);
                self.after(delay, move |w| w.proposal_ends(host, life, id, Ok(answer)));
            }
        }
    }

    fn proposal_ends(&mut self, host: usize, life: u64, id: u64, result: Result<Answer, ()>) {
        if self.log.open.remove(&(host, life, id)) && self.hosts[host].life == life {
            self.give(host, Event::Proposed { id, result: result.map_err(|()| None) });
        }
    }

    fn commit(&mut self, entry: Arc<Entry>, term: Term, leader: usize) -> Answer {
        let mut state = (**self.log.state()).clone();
        let before = self.log.state().clone();
        let index = LogIndex(self.log.committed.len() as u64 + 2);
        let answer = ledger::apply(&mut state, index, term, &entry);
        let (now_state, now_answer) = (Arc::new(state), Arc::new(answer.clone()));
        self.note(|| format!("{index} {:?} -> {answer:?}", entry.command));
        self.entry_committed(&before, &now_state, &entry, &answer);
        self.log.committed.push(Committed { term, entry, answer: now_answer, state: now_state });
        let len = self.log.committed.len();
        for v in 0..self.hosts.len() {
            if self.is_alive(v) && self.net.connects(leader, v) {
                self.hosts[v].replicated = len;
                if v != leader {
                    let delay = self.rng.random_range(MS / 2..5 * MS);
                    self.after(delay, move |w| w.apply_on(v));
                }
            }
        }
        self.apply_on(leader);
        answer
    }

    /// Applies what this host has of the committed log.
    pub fn apply_on(&mut self, host: usize) {
        while self.is_alive(host) && self.hosts[host].applied < self.hosts[host].replicated {
            let at = self.hosts[host].applied;
            let (index, term) = (LogIndex(at as u64 + 2), self.log.committed[at].term);
            let entry = self.log.committed[at].entry.clone();
            let mut state = (*self.hosts[host].state).clone();
            let answer = ledger::apply(&mut state, index, term, &entry);
            let state = Arc::new(state);
            if *state != *self.log.committed[at].state || answer != *self.log.committed[at].answer {
                self.violate("ledger", format!("copy of {} differs at {index}", self.hosts[host].name));
            }
            self.hosts[host].applied += 1;
            if matches!(entry.command, Command::Resume { .. }) && matches!(answer, Answer::Done(_)) {
                self.hosts[host].resumed_at = Some(self.now);
            }
            self.hosts[host].state = state.clone();
            self.give(host, Event::Applied { entry, answer: Arc::new(answer), state });
        }
    }

    pub fn quorum_read(&mut self, host: usize, id: u64) {
        let (life, term) = (self.hosts[host].life, self.log.term);
        let leads = self.really_leads(host);
        let delay = if leads { self.rng.random_range(MS..6 * MS) } else { 300 * MS };
        self.after(delay, move |w| {
            let confirmed = leads && w.log.term == term && w.really_leads(host);
            if confirmed {
                w.apply_on(host);
            }
            if w.hosts[host].life == life {
                w.give(host, Event::QuorumRead { id, confirmed });
            }
        });
    }

    /// Leadership is to be handed over at the next beat of the log.
    pub fn transfer(&mut self, to: usize) {
        self.log.wanted = Some(to);
    }
}
