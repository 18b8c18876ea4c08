//! A model of what Raft permits: one leader a term, elected by a connected majority among those that have every
//! committed entry; what an old leader had under way commits later, or never; a proposal whose answer was lost is made
//! again by whoever waits. Every node applies the same entries with the real `ledger::apply`; in some seeds each on a
//! copy of its own, and the copies are compared.

use crate::cluster::{MS, World};
use rand::RngExt;
use regent::config::Config;
use regent::ledger::{self, Answer, Command, Entry, State};
use regent::node::Event;
use regent::types::{LogIndex, NodeId, ServiceName, Term, Timeline, WallTime};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One committed entry, with what it did.
struct Committed {
    term: Term,
    entry: Arc<Entry>,
    answer: Arc<Answer>,
    state: Arc<State>,
}

struct Pending {
    number: u64,
    host: usize,
    life: u64,
    id: u64,
    term: u64,
    entry: Arc<Entry>,
    sent: Vec<bool>,
    at: u64,
}

/// The log of the whole cluster.
pub struct Log {
    term: u64,
    pub leader: Option<(usize, u64)>,
    committed: Vec<Committed>,
    pub first: Arc<State>,
    pending: Vec<Pending>,
    next: u64,
    open: BTreeSet<(usize, u64, u64)>,
    leaderless: Option<(u64, u64)>,
    /// When a quorum answered the leader last.
    acked_at: u64,
    wanted: Option<usize>,
    /// Entries are written and not committed while this leader leads.
    pub holds: bool,
    /// Whether the next leader has what the last one had under way; `None`: by chance.
    pub inherits: Option<bool>,
    /// How many entries in a thousand are proposed once more, seconds later.
    pub repeats: u32,
    /// Every node applies for itself, and the copies are compared.
    compares: bool,
    /// Voters that take no part: their log went back, and they are refused.
    pub refused: BTreeSet<usize>,
}

impl Log {
    pub fn new(seed: u64, config: &Config) -> Self {
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
            acked_at: 0,
            wanted: None,
            holds: false,
            inherits: None,
            repeats: 0,
            compares: seed.is_multiple_of(4),
            refused: BTreeSet::new(),
        }
    }

    /// The ledger as it is committed.
    pub fn state(&self) -> &Arc<State> {
        self.committed.last().map_or(&self.first, |c| &c.state)
    }

    /// What is committed, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.committed.iter().map(|c| &c.entry)
    }

    /// The newest timeline of this service that an entry under way would install.
    pub fn installing(&self, service: &ServiceName) -> Timeline {
        let timeline = |p: &Pending| match &p.entry.command {
            Command::Installed { service: s, position, .. } if s == service => Some(position.timeline),
            _ => None,
        };
        self.pending.iter().filter_map(timeline).max().unwrap_or_default()
    }

    /// The newest term.
    pub fn term(&self) -> Term {
        Term(self.term)
    }
}

impl World {
    /// Everything in this model is an event of the world. `tests/raft_sim` has another log in its place, which is not.
    pub fn log_acts(&mut self, _until: u64) -> bool {
        false
    }

    /// A daemon starts. What it knows of the ledger at once is older than what its host had applied: the last snapshot,
    /// or nothing. The rest comes entry by entry, once it hears from a leader how far the log is committed.
    pub fn log_starts(&mut self, host: usize) -> Arc<State> {
        let applied = self.hosts[host].applied;
        let from = match self.rng.random_range(0..4) {
            0 => applied,
            1 => 0,
            _ => applied.saturating_sub(self.rng.random_range(0..20)),
        };
        let state = from.checked_sub(1).map_or(&self.log.first, |last| &self.log.committed[last].state).clone();
        let h = &mut self.hosts[host];
        (h.applied, h.state, h.applies) = (from, state.clone(), false);
        self.hosts[host].pace = self.draw_pace(host);
        state
    }

    /// How long each entry takes to be applied while a host catches up: half a second for all, or a minute where it is
    /// the log that a fault made slow.
    fn draw_pace(&mut self, host: usize) -> u64 {
        let backlog = (self.log.committed.len() - self.hosts[host].applied) as u64;
        let slow = self.hosts[host].behind_until > 0;
        let (paces, all) = match slow {
            true => ([MS, 30 * MS, 300 * MS], 60_000 * MS),
            false => ([0, MS, 5 * MS], 500 * MS),
        };
        let pace = paces[self.rng.random_range(0..paces.len())];
        pace.min(all / backlog.max(1))
    }

    /// Nothing of the log gets to this host or from it until then; everything else does.
    pub fn fall_behind(&mut self, host: usize, lasts: u64) {
        self.hosts[host].behind_until = self.now + lasts;
        self.hosts[host].pace = self.draw_pace(host);
    }

    /// A daemon ends.
    pub fn log_ends(&mut self, _host: usize) {}

    /// Whether entries get from this leader to that voter and are written there.
    fn writes_to(&self, leader: usize, voter: usize) -> bool {
        let cut = |h: usize| self.hosts[h].behind_until > self.now;
        let member = !self.log.refused.contains(&voter) && !cut(voter) && !cut(leader);
        member && self.is_alive(voter) && self.net.connects(leader, voter)
    }

    fn has_quorum(&self, host: usize) -> bool {
        let reached = (0..self.hosts.len()).filter(|v| self.writes_to(host, *v)).count();
        self.writes_to(host, host) && reached * 2 > self.hosts.len()
    }

    fn has_fast_quorum(&self, host: usize) -> bool {
        let fast = |v: &usize| self.writes_to(host, *v) && self.hosts[*v].log_slow_until <= self.now;
        (0..self.hosts.len()).filter(fast).count() * 2 > self.hosts.len()
    }

    fn really_leads(&self, host: usize) -> bool {
        self.log.leader == Some((host, self.hosts[host].life)) && self.has_quorum(host)
    }

    /// Every 20 ms: followers catch up and hear who leads; without a leader, an election.
    pub fn log_tick(&mut self) {
        let lives = self.log.leader.filter(|(l, life)| self.hosts[*l].life == *life);
        let Some((leader, _)) = lives.filter(|(l, _)| self.has_quorum(*l)) else {
            // A leader whom no quorum answers is still one to Raft, and to its own daemon none after a while.
            let patience = |l: usize| self.hosts[l].config.raft.election_max.as_nanos() as u64;
            if let Some((l, _)) = lives.filter(|(l, _)| self.now >= self.log.acked_at + patience(*l)) {
                self.tell_leader(l, l, false);
            }
            return self.elect_in_time();
        };
        (self.log.leaderless, self.log.acked_at) = (None, self.now);
        self.catch_up(leader);
        for v in 0..self.hosts.len() {
            if self.writes_to(leader, v) {
                self.tell_leader(v, leader, true);
            }
        }
        if let Some(to) = self.log.wanted.take().filter(|to| *to != leader && self.has_quorum(*to)) {
            self.elect(to);
        }
    }

    /// Whoever is reached gets and applies what is committed.
    fn catch_up(&mut self, leader: usize) {
        let len = self.log.committed.len();
        for v in 0..self.hosts.len() {
            let slow = self.hosts[v].log_slow_until > self.now;
            if !self.writes_to(leader, v) || slow || (self.hosts[v].replicated == len && self.hosts[v].applied == len) {
                continue;
            }
            self.hosts[v].replicated = len;
            // Whoever takes an entry of a leader has taken its vote before: a leader of an earlier term that catches up
            // leads no more.
            let knows = self.hosts[v].misses_elections || self.hosts[v].told.0 == self.log.term;
            let (least, most) = if knows { (MS / 2, 5 * MS) } else { (6 * MS, 10 * MS) };
            let delay = self.rng.random_range(least..most);
            self.after(delay, move |w| w.apply_on(v));
        }
    }

    fn tell_leader(&mut self, host: usize, leader: usize, acked: bool) {
        let term = self.log.term;
        let i_lead = host == leader && acked;
        let news = (term, self.hosts[host].life, i_lead);
        if self.hosts[host].told == news || self.hosts[host].misses_elections {
            return;
        }
        self.hosts[host].told = news;
        let name = self.hosts[leader].name.clone();
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

    /// Whether this host could be elected now.
    pub fn may_lead(&self, host: usize) -> bool {
        self.has_quorum(host) && self.complete(host, self.log.committed.len())
    }

    fn complete(&self, host: usize, len: usize) -> bool {
        self.hosts[host].replicated == len
    }

    /// This host is elected now, if it may be.
    pub fn elect(&mut self, host: usize) {
        // Nobody is elected, and nothing that it inherits commits, without a majority that writes it.
        if !self.complete(host, self.log.committed.len()) || !self.has_fast_quorum(host) {
            return;
        }
        self.log.term += 1;
        self.log.leader = Some((host, self.hosts[host].life));
        (self.log.leaderless, self.log.acked_at) = (None, self.now);
        let term = self.log.term;
        self.note(|w| format!("{} leads in term {term}", w.hosts[host].name));
        // What the last leader had sent to this one commits, in order; the rest never does.
        let pending = std::mem::take(&mut self.log.pending);
        let mut inherited = self.log.inherits.unwrap_or_else(|| self.rng.random_range(0..2) == 0);
        for p in pending {
            inherited &= p.sent[host];
            if inherited {
                self.commit(p.entry, Term(p.term), host, p.at);
            }
        }
        self.apply_all(host);
        self.tell_leader(host, host, true);
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
        crate::invariants::proposed(self, host, &command);
        let entry = Arc::new(Entry { at: WallTime(1_700_000_000_000 + self.now / MS), command });
        self.append(host, id, entry, self.now);
        // Somebody who heard no answer proposes the same again, when nobody expects it any more.
        if self.rng.random_range(0..1000) < self.log.repeats {
            let delay = self.rng.random_range(100 * MS..20_000 * MS);
            self.repeat_last(delay);
        }
    }

    /// What was proposed last is proposed once more after a while, wherever the leader is by then.
    pub fn repeat_last(&mut self, delay: u64) {
        let Some((entry, at)) = self.log.pending.last().map(|p| (p.entry.clone(), p.at)) else { return };
        self.after(delay, move |w| w.repeat(entry, at));
    }

    /// The same entry again.
    pub fn repeat(&mut self, entry: Arc<Entry>, at: u64) {
        if let Some((leader, _)) = self.log.leader {
            self.note(|_| format!("{} is proposed once more", entry.command.name()));
            self.append(leader, u64::MAX, entry, at);
        }
    }

    fn append(&mut self, host: usize, id: u64, entry: Arc<Entry>, at: u64) {
        self.log.next += 1;
        let number = self.log.next;
        let life = self.hosts[host].life;
        let sent = (0..self.hosts.len()).map(|v| self.writes_to(host, v)).collect();
        self.log.pending.push(Pending { number, host, life, id, term: self.log.term, entry, sent, at });
        let delay = self.rng.random_range(MS..5 * MS);
        self.after(delay, move |w| w.try_commit(number));
    }

    fn try_commit(&mut self, number: u64) {
        let Some(found) = self.log.pending.iter().position(|p| p.number == number) else { return };
        let host = self.log.pending[found].host;
        if self.log.holds || !self.really_leads(host) || !self.has_fast_quorum(host) {
            self.after(50 * MS, move |w| w.try_commit(number));
            return;
        }
        let rest = self.log.pending.split_off(found + 1);
        let ready = std::mem::replace(&mut self.log.pending, rest);
        for p in ready {
            let answer = self.commit(p.entry, Term(p.term), host, p.at);
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

    fn commit(&mut self, entry: Arc<Entry>, term: Term, leader: usize, proposed: u64) -> Answer {
        let mut state = (**self.log.state()).clone();
        let before = self.log.state().clone();
        let index = LogIndex(self.log.committed.len() as u64 + 2);
        let answer = ledger::apply(&mut state, index, term, &entry);
        let (now_state, now_answer) = (Arc::new(state), Arc::new(answer.clone()));
        self.note(|_| crate::replay::entry_in_words(index, &before, &now_state, &entry, &answer));
        crate::invariants::committed(self, &before, &now_state, &entry, &answer, (proposed, term));
        self.log.committed.push(Committed { term, entry, answer: now_answer, state: now_state });
        let len = self.log.committed.len();
        for v in 0..self.hosts.len() {
            if self.writes_to(leader, v) && self.hosts[v].log_slow_until <= self.now {
                self.hosts[v].replicated = len;
                if v != leader {
                    let delay = self.rng.random_range(MS / 2..5 * MS);
                    self.after(delay, move |w| w.apply_on(v));
                }
            }
        }
        self.hosts[leader].replicated = len;
        self.apply_all(leader);
        answer
    }

    /// Applies what this host has of the committed log: at once, or one entry after the other.
    pub fn apply_on(&mut self, host: usize) {
        if self.hosts[host].pace == 0 {
            return self.apply_all(host);
        }
        if !self.hosts[host].applies {
            self.hosts[host].applies = true;
            self.apply_in_turn(host, self.hosts[host].life);
        }
    }

    fn apply_in_turn(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        if self.hosts[host].pace == 0 || !self.has_backlog(host) {
            (self.hosts[host].pace, self.hosts[host].applies) = (0, false);
            return self.apply_all(host);
        }
        self.apply_next(host);
        self.after(self.hosts[host].pace, move |w| w.apply_in_turn(host, life));
    }

    fn has_backlog(&self, host: usize) -> bool {
        self.is_alive(host) && self.hosts[host].applied < self.hosts[host].replicated
    }

    /// Who leads has applied everything.
    fn apply_all(&mut self, host: usize) {
        while self.has_backlog(host) {
            self.apply_next(host);
        }
    }

    fn apply_next(&mut self, host: usize) {
        let at = self.hosts[host].applied;
        let committed = &self.log.committed[at];
        let (mut state, mut answer) = (committed.state.clone(), committed.answer.clone());
        let entry = committed.entry.clone();
        if self.log.compares {
            let (index, term) = (LogIndex(at as u64 + 2), committed.term);
            let mut own = (*self.hosts[host].state).clone();
            let said = ledger::apply(&mut own, index, term, &entry);
            if own != *state || said != *answer {
                self.violate("ledger", format!("copy of {} differs at {index}", self.hosts[host].name));
            }
            (state, answer) = (Arc::new(own), Arc::new(said));
        }
        self.hosts[host].applied += 1;
        crate::invariants::s5::learned(self, host, &state);
        self.hosts[host].state = state.clone();
        self.give(host, Event::Applied { entry, answer, state });
    }

    pub fn quorum_read(&mut self, host: usize, id: u64) {
        let (life, term) = (self.hosts[host].life, self.log.term);
        let leads = self.really_leads(host);
        let delay = if leads { self.rng.random_range(MS..6 * MS) } else { 300 * MS };
        self.after(delay, move |w| {
            let confirmed = leads && w.log.term == term && w.really_leads(host);
            if confirmed {
                w.apply_all(host);
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
