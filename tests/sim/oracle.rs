//! What really happened, for the properties to be checked against: who acknowledged writes, who was impaired, whose
//! device lied. It shares no rule with the code under test; it reads plain values of the ledger only.

use crate::cluster::{MS, S, World};
use crate::network::DISK;
use regent::ledger::{Answer, Command, Entry, Event, State};
use regent::types::Epoch;
use std::collections::{BTreeMap, VecDeque};

/// The facts of one run.
pub struct Facts {
    pub violation: Option<String>,
    /// When a write was acknowledged last, and by whom.
    pub last_write: Option<(u64, usize)>,
    pub writes: u64,
    /// The longest time without any acknowledged write, since the first.
    pub longest_gap: u64,
    /// When each host was last in a state that may rightly look like death.
    pub impaired_at: Vec<u64>,
    /// Boots about which a device lied, and whether the host could be heard by a majority ever since.
    pub lied: BTreeMap<(usize, u64), bool>,
    pub verdicts: u64,
    pub fences: u64,
    pub appointments: u64,
    pub refuted: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub epoch: Epoch,
    /// A host whose requests still arrive while nothing reaches it.
    pub deaf: Option<usize>,
    /// When databases were last told to do something, and entries were committed.
    pub acts: VecDeque<u64>,
    pub commits: VecDeque<u64>,
}

/// Forgets what is older than ten seconds.
fn remember(list: &mut VecDeque<u64>, now: u64) {
    list.push_back(now);
    while list.front().is_some_and(|at| at + 10 * S < now) {
        list.pop_front();
    }
}

impl Facts {
    pub fn new(hosts: usize) -> Self {
        Facts {
            violation: None,
            last_write: None,
            writes: 0,
            longest_gap: 0,
            impaired_at: vec![0; hosts],
            lied: BTreeMap::new(),
            verdicts: 0,
            fences: 0,
            appointments: 0,
            refuted: 0,
            faults: BTreeMap::new(),
            epoch: Epoch(0),
            deaf: None,
            acts: VecDeque::new(),
            commits: VecDeque::new(),
        }
    }

    pub fn acted(&mut self, now: u64) {
        remember(&mut self.acts, now);
    }

    pub fn acknowledged(&mut self, now: u64, by: usize) {
        if let Some((before, _)) = self.last_write {
            self.longest_gap = self.longest_gap.max(now - before);
        }
        self.last_write = Some((now, by));
        self.writes += 1;
    }
}

impl World {
    pub fn fault(&mut self, kind: &'static str, what: String) {
        *self.facts.faults.entry(kind).or_default() += 1;
        self.note(|| format!("FAULT {kind}: {what}"));
    }

    pub fn lied(&mut self, host: usize, boots: u64) {
        if self.hosts[host].boots == boots && self.hosts[host].power {
            self.note(|| format!("the device of host {host} lied"));
            // A host that was not heard well before nobody can hear go on.
            let heard = self.is_alive(host) && self.now > self.hosts[host].started_at + 5 * S;
            self.facts.lied.insert((host, boots), heard);
        }
    }

    /// Whether this postmaster is one about which a device lied while nobody could hear its host: no rule can catch it.
    pub fn is_excused(&self, host: usize) -> bool {
        self.facts.lied.get(&(host, self.hosts[host].boots)) == Some(&false)
    }

    /// How many of the three channels carry nothing from `of` to `by`.
    fn bad_channels(&self, of: usize, by: usize) -> usize {
        let has_disk = self.hosts[of].config.nodes.values().all(|n| n.disk);
        (0..3).filter(|c| !self.net.carries(*c, of, by) || (*c == DISK && !has_disk)).count()
    }

    fn is_silent(&self, host: usize) -> bool {
        !self.is_alive(host) || self.now < self.hosts[host].thawed_at + 500 * MS
    }

    /// Notes who may rightly be held for dead now, and which lies nobody could have caught.
    pub fn note_impairment(&mut self) {
        let n = self.hosts.len();
        for host in 0..n {
            let others = || (0..n).filter(|o| *o != host);
            let lossy = self.net.loss.iter().filter(|l| **l > 100).count();
            let suspicious = others().filter(|o| self.bad_channels(host, *o) + lossy >= 2).count();
            if self.is_silent(host) || suspicious * 2 > n {
                self.facts.impaired_at[host] = self.now;
            }
            let hearing = others().filter(|o| self.is_alive(*o) && self.bad_channels(host, *o) < 3).count();
            let all = others().filter(|o| self.is_alive(*o)).count();
            let key = (host, self.hosts[host].boots);
            if let Some(audible) = self.facts.lied.get_mut(&key) {
                *audible &= hearing == all && all * 2 > n && self.hosts[host].power && !self.hosts[host].frozen;
            }
            if !self.is_alive(host)
                && let Some(audible) = self.facts.lied.get_mut(&key)
            {
                *audible = false;
            }
        }
    }

    /// An entry was committed: what it did, compared with what is so.
    pub fn entry_committed(&mut self, before: &State, after: &State, entry: &Entry, answer: &Answer) {
        remember(&mut self.facts.commits, self.now);
        let Answer::Done(event) = answer else { return };
        match event {
            Event::Declared { target, .. } => {
                self.facts.verdicts += 1;
                let host = self.host(target);
                crate::invariants::verdict(self, host);
            }
            Event::FenceOpened { .. } => self.facts.fences += 1,
            Event::Refuted { .. } => self.facts.refuted += 1,
            Event::Appointed { epoch } => {
                self.facts.appointments += 1;
                if let Command::Appoint { service, .. } = &entry.command {
                    crate::invariants::appointment(self, before, after, service, *epoch);
                }
            }
            _ => {}
        }
    }

    /// No write for longer than this.
    pub fn is_served(&self, within: u64) -> bool {
        self.facts.last_write.is_some_and(|(at, _)| self.now <= at + within)
    }

    /// The host that acknowledges writes, if one does.
    pub fn primary(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|h| self.acknowledges(*h))
    }

    /// Every database host that has power is the primary or streams.
    pub fn is_whole(&self) -> bool {
        use crate::database::Process;
        self.is_served(S)
            && self.hosts.iter().filter(|h| h.power).all(|h| {
                h.database.as_ref().is_none_or(|db| match db.process {
                    Process::Primary => true,
                    Process::Standby => db.streams_from.is_some(),
                    _ => false,
                })
            })
    }
}
