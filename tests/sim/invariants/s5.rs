//! S5: when a lease ends, nothing that could commit is left. The lease is counted here again: from the moment at which
//! the request left, by the host's own clock, and only where a quorum read stood behind the answer.
//!
//! Four times a database may go on without one, each for a reason:
//! - in a recorded pause, and for one lease time after this host has learned of its end: nobody waits for that lease
//!   before a renewal that this host asked for in the knowledge of the end (H1.6), and then longer than that;
//! - after the host stood still, for as long as the stop ladder may take: backends run before the keeper does, and the
//!   wait of everybody else includes the ladder; a host that stands still for longer is the watchdog's;
//! - where the lease file takes no write from before the end of a pause on, and the daemon dies: the guard believes in the
//!   pause, and the next daemon has one lease time to renew (an assumption of the safety page).

use crate::cluster::{Handling, World};
use crate::effects::Part;
use crate::oracle::Facts;
use regent::ledger::State;
use regent::node::{Effect, Event, HELD_OPEN, PeerRequest, PeerResponse};
use regent::types::{Epoch, Instant, LogIndex};
use std::collections::BTreeMap;
use std::time::Duration;

/// What this property knows of leases.
#[derive(Default)]
pub struct Leases {
    /// By host and service.
    held: BTreeMap<(usize, usize), Held>,
    /// Requests under way: by host, daemon and number of the question.
    asked: BTreeMap<(usize, u64, u64), (usize, Epoch, Asked)>,
    /// Quorum reads that a leader began for itself: for a lease, or for another thing.
    own: BTreeMap<(usize, u64, u64), Asked>,
    /// Those behind which a quorum stood, by host, until it is seen what for: the service whose lease then counts from one
    /// of these moments asked for it, and no other has it from there.
    confirmed: BTreeMap<usize, Vec<Asked>>,
    /// Pauses as each host knows them, by host, service and epoch.
    pauses: BTreeMap<(usize, usize, Epoch), Pause>,
    /// Until when a daemon goes on that found its lease held open by a pause whose end an earlier one could not write down.
    taken_up: BTreeMap<(usize, usize), Instant>,
}

/// One pause, as one host knows it.
#[derive(Clone, Copy)]
struct Pause {
    /// The newest ledger of this host in which it lasted. An older one, which a daemon that starts anew passes through once
    /// more, says nothing of its end.
    lasts_at: LogIndex,
    /// When the host learned that it is over, by its own clock, and which daemon did.
    ended: Option<(Instant, u64)>,
}

/// One lease.
#[derive(Clone, Copy)]
struct Held {
    epoch: Epoch,
    until: Instant,
    /// In the time of the world: if the host's clock stood still since, the others need not wait for it.
    elsewhere: u64,
}

/// When something was asked: by the host's own clock, and in the time of the world.
#[derive(Clone, Copy)]
struct Asked {
    local: Instant,
    world: u64,
}

impl Leases {
    pub fn forget(&mut self, host: usize) {
        self.held.retain(|(h, _), _| *h != host);
        self.asked.retain(|(h, _, _), _| *h != host);
        self.own.retain(|(h, _, _), _| *h != host);
        self.confirmed.remove(&host);
        self.pauses.retain(|(h, _, _), _| *h != host);
        self.taken_up.retain(|(h, _), _| *h != host);
    }

    fn extend(&mut self, key: (usize, usize), epoch: Epoch, asked: Asked, lease: Duration) {
        let new = Held { epoch, until: asked.local + lease, elsewhere: asked.world + lease.as_nanos() as u64 };
        let held = self.held.entry(key).or_insert(new);
        // An answer for an epoch that is over may come late, and brings nothing.
        if (held.epoch, held.until) < (new.epoch, new.until) {
            *held = new;
        }
    }

    /// Until when this host's lease for that epoch reaches.
    pub fn until(&self, host: usize, service: usize, epoch: Epoch) -> Option<Instant> {
        self.held.get(&(host, service)).filter(|held| held.epoch == epoch).map(|held| held.until)
    }

    /// Until when others may take that lease for one that runs.
    pub fn until_elsewhere(&self, host: usize, service: usize, epoch: Epoch) -> Option<u64> {
        self.held.get(&(host, service)).filter(|held| held.epoch == epoch).map(|held| held.elsewhere)
    }
}

/// The lease that is asked for, directly or through another voter.
pub fn lease_request(request: &PeerRequest) -> Option<&regent::lease::LeaseRequest> {
    match request {
        PeerRequest::Lease(request) => Some(request),
        PeerRequest::Relay(inner) => lease_request(inner),
        _ => None,
    }
}

/// How long a grant may be used: what the ledger says, whatever the files say.
fn lease_use(w: &World) -> Duration {
    let Some(settings) = &w.log.state().settings else { return Duration::ZERO };
    settings.ttl / 1000 * (1000 - settings.drift_permille)
}

/// A daemon asks: requests are noted; a grant without a quorum read is a violation by itself.
pub fn asked_for(w: &mut World, host: usize, handling: Handling, effect: &Effect) {
    let life = w.hosts[host].life;
    let asked = Asked { local: w.hosts[host].local(w.now), world: w.now };
    match effect {
        Effect::Ask { id, request, .. } => {
            // What it passes on for another is the other's.
            if let Some(request) = lease_request(request).filter(|r| r.node == w.hosts[host].name) {
                let service = w.index(&request.service);
                w.facts.leases.asked.insert((host, life, *id), (service, request.epoch, asked));
            }
        }
        // Whatever woke it: a question of another node may be the moment in which its own renewal is due.
        Effect::QuorumRead { id } if handling != Handling::LeaseAsked => {
            w.facts.leases.own.insert((host, life, *id), asked);
        }
        Effect::KeepLease { service, epoch, until: Some(until), .. } if until.0 < u64::MAX / 8 => {
            // What the guard and the next daemon are told is no longer than the lease is. (A pause has no such end.)
            let s = w.index(service);
            leads_itself(w, host, s, *epoch, *until);
            let known = w.hosts[host].kept.get(service).map(|(_, until)| *until);
            let pause = w.facts.leases.pauses.get(&(host, s, *epoch));
            if known.is_some_and(|known| known >= *until) {
                // The guard believed in more until now.
                let by_another = pause.and_then(|pause| pause.ended).is_some_and(|(_, by)| by != life);
                if by_another && known.is_some_and(|known| known.0 >= HELD_OPEN.0) {
                    w.facts.leases.taken_up.insert((host, s), *until);
                }
                return;
            }
            if pause.is_some_and(|pause| pause.ended.is_none()) {
                // It might have been said to be held open; a copy of the ledger that catches up has seen another pause end.
                return;
            }
            let ended = pause.and_then(|pause| pause.ended).map(|(ended, _)| ended);
            let counted = w.facts.leases.until(host, s, *epoch).max(ended.map(|ended| ended + lease_use(w)));
            if counted.is_none_or(|counted| *until > counted) {
                let what = format!("{} keeps its lease until {until:?}, it ends at {counted:?}", w.hosts[host].name);
                w.violate("S5", what);
            }
        }
        Effect::Reply { response: PeerResponse::Lease(Ok(_)), .. }
            if handling == (Handling::Read { confirmed: false }) =>
        {
            let name = w.hosts[host].name.clone();
            w.violate("S5", format!("{name} granted a lease without a quorum behind it"));
        }
        _ => {}
    }
}

/// A leader keeps a lease of its own: which of its quorum reads was asked for that, its end says. A read is of use once.
fn leads_itself(w: &mut World, host: usize, service: usize, epoch: Epoch, until: Instant) {
    let lease = lease_use(w);
    // Kept again after a write that failed: its read is known, and another's from the same moment is not its own.
    if w.facts.leases.until(host, service, epoch).is_some_and(|known| known >= until) {
        return;
    }
    let Some(reads) = w.facts.leases.confirmed.get_mut(&host) else { return };
    if let Some(read) = reads.iter().position(|asked| asked.local + lease == until) {
        let asked = reads.remove(read);
        w.facts.leases.extend((host, service), epoch, asked, lease);
    }
}

/// A daemon is told something: a grant reaches from its own request on.
pub fn given(w: &mut World, host: usize, event: &Event) {
    let life = w.hosts[host].life;
    match event {
        Event::Answered { id, response } => {
            let Some((service, epoch, asked)) = w.facts.leases.asked.remove(&(host, life, *id)) else { return };
            if let Ok(PeerResponse::Lease(Ok(grant))) = response
                && grant.epoch == epoch
            {
                let lease = lease_use(w);
                w.facts.leases.extend((host, service), epoch, asked, lease);
            }
        }
        Event::QuorumRead { id, confirmed } => {
            let Some(asked) = w.facts.leases.own.remove(&(host, life, *id)).filter(|_| *confirmed) else { return };
            let (local, lease) = (w.hosts[host].local(w.now), lease_use(w));
            let confirmed = w.facts.leases.confirmed.entry(host).or_default();
            confirmed.retain(|a| local < a.local + lease);
            confirmed.push(asked);
        }
        _ => {}
    }
}

/// A host has this ledger now, by an entry or a snapshot, or once more after a restart.
pub fn learned(w: &mut World, host: usize, after: &State) {
    let (local, life) = (w.hosts[host].local(w.now), w.hosts[host].life);
    for (name, record) in &after.services {
        let (service, paused) = (w.index(name), record.paused.then_some(record.epoch));
        let pauses = &mut w.facts.leases.pauses;
        let known =
            pauses.iter_mut().filter(|((h, s, epoch), _)| (*h, *s) == (host, service) && Some(*epoch) != paused);
        let over = known.filter(|(_, pause)| pause.lasts_at < after.applied);
        over.for_each(|(_, pause)| pause.ended = pause.ended.or(Some((local, life))));
        if let Some(epoch) = paused {
            let now = Pause { lasts_at: after.applied, ended: None };
            let pause = pauses.entry((host, service, epoch)).or_insert(now);
            if pause.lasts_at <= after.applied {
                *pause = now;
            }
        }
    }
}

fn may_go_on(facts: &Facts, w: &World, host: usize, service: usize) -> bool {
    let h = &w.hosts[host];
    let paused = facts.leases.pauses.get(&(host, service, h.databases[service].epoch));
    let paused =
        paused.is_some_and(|pause| pause.ended.is_none_or(|(ended, _)| h.local(w.now) <= ended + lease_use(w)));
    let taken_up = facts.leases.taken_up.get(&(host, service)).is_some_and(|until| h.local(w.now) <= *until);
    let just_thawed = h.thawed_at > 0 && w.now < h.thawed_at + facts.times.ladder;
    // The number of the last resume before the pause that what is kept tells of.
    let believes = h.kept.get(&w.services[service]).and_then(|(_, until)| until.0.checked_sub(HELD_OPEN.0));
    let young = h.daemon.is_none() || w.now < h.started_at + lease_use(w).as_nanos() as u64;
    // Its own copy, which nobody brings up to date, shows no later one.
    let in_the_dark = believes.is_some_and(|before| h.state.resumes <= before);
    paused || just_thawed || taken_up || (believes.is_some() && (young || in_the_dark) && !h.works(Part::LeaseFile))
}

/// After every event.
pub fn check(w: &mut World) {
    for service in 0..w.services.len() {
        for host in 0..w.hosts.len() {
            if !w.acknowledges(host, service) || may_go_on(&w.facts, w, host, service) {
                continue;
            }
            let h = &w.hosts[host];
            let until = w.facts.leases.until(host, service, h.databases[service].epoch).unwrap_or(Instant(0));
            let now = h.local(w.now);
            if now > until {
                let what = format!("{} acknowledges at {now:?}, its lease ended at {until:?}", h.name);
                return w.violate("S5", what);
            }
        }
    }
}
