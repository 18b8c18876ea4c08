//! Effects that fail: which parts of a host do not work at present, and what its daemon is told of it. A part is broken
//! by a fault, for a moment or for good, and works again when everything heals. Not here: PostgreSQL itself
//! (`database.rs`), fence devices (`fence.rs`) and the paths between hosts (`network.rs`).

use crate::cluster::{MS, World};
use rand::RngExt;
use rand::rngs::StdRng;
use regent::node::{Event, WatchdogSaid};
use regent::types::{DbAction, Epoch, Instant, LeftGoodbye, Released, ServiceName};

/// A part of a host of which an effect has need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    WatchdogArm,
    WatchdogFeed,
    WatchdogDisarm,
    /// The kernel was built so that an armed watchdog stays armed.
    WayOut,
    FinalWord,
    LeaseFile,
    Agents,
    QuorumReads,
    Transfers,
    Questions,
    Answers,
    Initdb,
    Start,
    Follow,
    Seal,
    Promote,
    Checkpoint,
    /// What a stop reads once nothing is left: it kills all the same, and cannot say how it ended.
    Stop,
    Rejoin,
}

/// The actions on a database that a fault can let fail.
const ACTIONS: [Part; 8] =
    [Part::Initdb, Part::Start, Part::Follow, Part::Seal, Part::Promote, Part::Checkpoint, Part::Stop, Part::Rejoin];

/// What the action needs.
pub fn part_of(action: &DbAction) -> Part {
    match action {
        DbAction::Initdb => Part::Initdb,
        DbAction::StartPrimary { .. } | DbAction::StartStandby { .. } | DbAction::AcceptCopy { .. } => Part::Start,
        DbAction::Follow { .. } => Part::Follow,
        DbAction::Seal => Part::Seal,
        DbAction::Promote { .. } => Part::Promote,
        DbAction::Checkpoint | DbAction::Compare { .. } | DbAction::FindEnd { .. } => Part::Checkpoint,
        DbAction::Stop { .. } => Part::Stop,
        DbAction::Rejoin { .. } => Part::Rejoin,
    }
}

/// One of the actions on a database.
pub fn any_action(rng: &mut StdRng) -> Part {
    ACTIONS[rng.random_range(0..ACTIONS.len())]
}

pub const WHY: &str = "input/output error";

impl World {
    /// The part does not work until then; `None`: until everything heals.
    pub fn break_part(&mut self, host: usize, part: Part, lasts: Option<u64>) {
        *self.hosts[host].broken.entry(part).or_default() += 1;
        self.note(|w| {
            let long = lasts.map_or("for good".to_owned(), |ns| format!("for {} ms", ns / MS));
            format!("{}: {part:?} does not work, {long}", w.hosts[host].name)
        });
        let healings = self.healings;
        if let Some(lasts) = lasts {
            self.after(lasts, move |w| {
                if w.healings == healings {
                    w.mend_part(host, part);
                }
            });
        }
    }

    fn mend_part(&mut self, host: usize, part: Part) {
        let broken = &mut self.hosts[host].broken;
        match broken.get_mut(&part) {
            Some(1) | None => drop(broken.remove(&part)),
            Some(times) => *times -= 1,
        }
    }

    fn watchdog_said(&mut self, host: usize, said: WatchdogSaid) {
        self.give_later(MS, host, Event::Watchdog(said));
    }

    fn armed(&self, host: usize) -> WatchdogSaid {
        WatchdogSaid::Armed { can_be_disarmed: self.hosts[host].works(Part::WayOut) }
    }

    /// What a starting daemon's try of the device comes to. It stays armed where a database may be running, and where
    /// it cannot be disarmed.
    pub fn try_watchdog(&mut self, host: usize) -> Option<WatchdogSaid> {
        self.hosts[host].config.watchdog.as_ref()?;
        let h = &self.hosts[host];
        if !h.works(Part::WatchdogArm) {
            return Some(WatchdogSaid::NotArmed { why: WHY.to_owned() });
        }
        if h.kept.is_empty() && h.works(Part::WayOut) && h.works(Part::WatchdogDisarm) {
            self.hosts[host].watchdog_at = None;
            return Some(WatchdogSaid::Disarmed);
        }
        self.feed(host);
        Some(self.armed(host))
    }

    pub fn arm_watchdog(&mut self, host: usize) {
        if !self.hosts[host].works(Part::WatchdogArm) {
            return self.watchdog_said(host, WatchdogSaid::NotArmed { why: WHY.to_owned() });
        }
        self.feed(host);
        let said = self.armed(host);
        self.watchdog_said(host, said);
    }

    /// One that is not fed resets the host at its time.
    pub fn feed_watchdog(&mut self, host: usize, told: bool) {
        if !self.hosts[host].works(Part::WatchdogFeed) {
            return self.watchdog_said(host, WatchdogSaid::NotFed { why: WHY.to_owned() });
        }
        self.feed(host);
        if told {
            self.watchdog_said(host, WatchdogSaid::Fed);
        }
    }

    pub fn disarm_watchdog(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let said = match h.works(Part::WayOut) && h.works(Part::WatchdogDisarm) {
            true => {
                h.watchdog_at = None;
                WatchdogSaid::Disarmed
            }
            false => WatchdogSaid::NotDisarmed { why: WHY.to_owned() },
        };
        self.watchdog_said(host, said);
    }

    fn feed(&mut self, host: usize) {
        let timeout = self.hosts[host].config.watchdog.as_ref().map(|w| w.timeout.as_nanos() as u64);
        self.hosts[host].watchdog_at = timeout.map(|t| self.now + t);
    }

    pub fn tombstone(&mut self, host: usize, service: ServiceName, released: Released) {
        let life = self.hosts[host].life;
        let delay = self.rng.random_range(MS..5 * MS);
        self.after(delay, move |w| {
            if w.hosts[host].life != life {
                return;
            }
            let epoch = released.epoch;
            let result = match w.hosts[host].works(Part::FinalWord) {
                true => {
                    w.hosts[host].tombstones.insert(service.clone(), released);
                    Ok(())
                }
                false => Err(WHY.to_owned()),
            };
            w.give(host, Event::Tombstoned { service, epoch, result });
        });
    }

    pub fn try_lease(&mut self, host: usize, service: ServiceName) {
        let result = if self.hosts[host].works(Part::LeaseFile) { Ok(()) } else { Err(WHY.to_owned()) };
        self.give_later(MS, host, Event::LeaseTried { service, result });
    }

    /// The lease file, for the guard and the next daemon. What cannot be written leaves them with what they knew.
    pub fn keep_lease(
        &mut self,
        host: usize,
        service: ServiceName,
        epoch: Epoch,
        (until, goodbye): (Option<Instant>, Option<Box<LeftGoodbye>>),
    ) {
        if let Some(goodbye) = goodbye {
            self.hosts[host].goodbyes.insert(service.clone(), goodbye);
        }
        let works = self.hosts[host].works(Part::LeaseFile);
        match until {
            None if works => {
                self.hosts[host].kept.remove(&service);
                self.hosts[host].goodbyes.remove(&service);
            }
            None => {}
            Some(until) => {
                if works {
                    self.hosts[host].kept.insert(service.clone(), (epoch, until));
                    self.post_guard(host, service.clone(), until);
                }
                let result = if works { Ok(until) } else { Err(WHY.to_owned()) };
                self.give_later(MS, host, Event::LeaseKept { service, result });
            }
        }
    }
}
