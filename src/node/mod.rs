//! One node, as a whole and pure: detector, ledger copy, lease, coordinator and keepers behind one function,
//! `handle(now, event) -> effects`. The daemon and the simulator both drive exactly this.
//!
//! Not here: any socket, file, process, clock or thread; any safety rule (the ledger's) and any choice (the plan's).

mod beats;
mod context;
mod desk;
mod due;
mod event;
mod goodbye;
mod intent;
mod leading;
mod leave;
mod mail;
mod membership;
mod orders;
mod outbox;
mod owed;
mod peers;
mod questions;
mod reading;
mod routing;
mod runs;
mod said;
mod standing;
mod tenants;
mod twins;
mod watchdog;
mod witness;
mod written;

#[cfg(test)]
mod context_test;
#[cfg(test)]
mod database_test;
#[cfg(test)]
mod leading_test;
#[cfg(test)]
mod lookout_test;
#[cfg(test)]
mod mail_test;
#[cfg(test)]
mod membership_test;
#[cfg(test)]
mod peers_test;
#[cfg(test)]
mod reading_test;
#[cfg(test)]
mod routing_test;
#[cfg(test)]
mod runs_test;
#[cfg(test)]
mod standing_test;
#[cfg(test)]
mod tenants_test;
#[cfg(test)]
mod witness_test;

pub use due::Timer;
pub use event::{Effect, Event, PeerRequest, PeerResponse, RunKey, WatchdogSaid};
pub use orders::{agent_order, in_force_orders};
pub use said::Said;
pub use standing::{Undo, Unwanted, undone};

use crate::config::Config;
use crate::detector::Detector;
use crate::ledger::{Machine, Refusal, State};
use crate::plan::keeper::{self, Keeper};
use crate::plan::{Applied, Lead, Note, Row, Timing};
use crate::types::{
    Boot, ClusterId, Epoch, Failing, Incarnation, Instant, Leaving, NodeName, Released, Room, ServiceName, Term,
};
use beats::Beats;
use context::Context;
use desk::Desk;
use leading::Leading;
use leave::Leave;
use mail::Mail;
use membership::Membership;
use owed::Owed;
use peers::Peers;
use reading::Reading;
use runs::Runs;
use standing::Lookout;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tenants::Tenants;
use watchdog::Watchdog;
use witness::Witness;
use written::Written;

/// The end of a lease that a pause holds open: further away than any lease. What it lies beyond this numbers the last
/// resume before that pause: only a later one ends it.
pub const HELD_OPEN: Instant = Instant(u64::MAX / 4);

/// What a starting daemon found on its host.
#[derive(Clone, Debug)]
pub struct Start {
    pub cluster: ClusterId,
    pub boot: Boot,
    pub machine: Machine,
    /// The final words of earlier epochs, durable.
    pub tombstones: BTreeMap<ServiceName, Released>,
    /// Leases that an earlier daemon of this boot kept; an end at or after [`HELD_OPEN`] says that a pause held it open.
    pub kept: BTreeMap<ServiceName, (Epoch, Instant)>,
    /// What came of trying the watchdog, where one is configured. It stays armed where a database may be running, and
    /// where it cannot be disarmed.
    pub watchdog: Option<WatchdogSaid>,
    pub seed: u64,
}

/// One node: its parts, each of which owns what it knows.
pub struct Node {
    desk: Desk,
    peers: Peers,
    beats: Beats,
    membership: Membership,
    leading: Leading,
    tenants: Tenants,
    reading: Reading,
    runs: Runs,
    witness: Witness,
    lookout: Lookout,
    owed: Owed,
    watchdog: Watchdog,
    written: Written,
    /// What the volume of the ledger has, once it was looked at.
    room: Option<Room>,
    /// It leaves in order.
    leave: Option<Leave>,
    /// When everything is compared again at the latest, and when for another reason than what is heard of peers.
    due: Option<Instant>,
    due_besides: Option<Instant>,
}

impl Node {
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        let mut node = Node {
            peers: Peers::new(&config, now),
            beats: Beats::new(now, start.seed),
            membership: Membership::new(now),
            leading: Leading::default(),
            tenants: Tenants::found(&config, &start, now),
            reading: Reading::default(),
            runs: Runs::default(),
            witness: Witness::default(),
            lookout: Lookout::default(),
            owed: Owed::default(),
            watchdog: Watchdog::found(&start, now),
            written: Written::default(),
            room: None,
            leave: None,
            due: None,
            due_besides: None,
            desk: Desk { context: Context::new(config, start, now), mail: Mail::default() },
        };
        node.due_besides = node.next_due_besides();
        node
    }

    /// The only way in. `now` never goes back.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        self.desk.context.goes_on(now);
        // S10 comes before everything else: who ran late judges nobody by what it finds now.
        self.notice_lateness();
        let says_something = self.take_in(event);
        // Most heartbeats say what the one before said, and come before anything is due.
        let is_due = self.due.is_none_or(|due| self.desk.context.now >= due);
        if says_something || is_due || !self.peers.are_as_compared(self.desk.context.now) {
            self.settle();
            self.due_besides = self.next_due_besides();
            self.due = self.next_wakeup();
        }
        self.desk.mail.take()
    }

    /// When this node wants to be woken, whatever happens. An event after which nothing is compared changes at most when
    /// a view will change by itself: what else is due was found at the last comparison, and lies ahead still.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.peers.next_change_before(self.desk.context.now, self.due_besides).or(self.due_besides)
    }

    /// When something is due that is none of the detector's.
    fn next_due_besides(&self) -> Option<Instant> {
        Timer::ALL.into_iter().filter_map(|timer| self.due(timer)).min()
    }

    /// When this is due next.
    pub fn due(&self, timer: Timer) -> Option<Instant> {
        let next = |all: &mut dyn Iterator<Item = Instant>| all.filter(|at| *at > self.desk.context.now).min();
        match timer {
            Timer::Beat => next(&mut [self.beats.due()].into_iter()),
            Timer::Proposal => next(&mut self.desk.mail.due().into_iter()),
            Timer::Leading => next(&mut self.leading.due()),
            Timer::Database => next(&mut self.tenants.due(&self.desk.context)),
            Timer::Watchdog => next(&mut self.watchdog.due().into_iter()),
            Timer::Reading => next(&mut self.reading.due()),
            Timer::Lookout => next(&mut self.lookout.due().into_iter()),
            Timer::Assistant => next(&mut self.runs.due()),
            Timer::Leave => next(&mut self.leave.iter().flat_map(Leave::due)),
        }
    }

    /// After every event: compare what is wanted with what is, everywhere. Each step sees what those before it found.
    fn settle(&mut self) {
        // What this copy of the ledger is worth, and which incarnation this node is, everything else rests on.
        self.reading.finish(&self.desk.context);
        self.reading.tidy(&self.desk.context);
        self.join();
        self.take_up_what_was_held_open();
        // The coordinator counts this node as it counts the others: by its row.
        self.refresh_own_row();
        self.coordinate();
        self.runs.settle(&mut self.desk, &mut self.reading);
        self.runs.bring_results(&mut self.desk);
        self.lookout.settle(&mut self.desk, &mut self.reading);
        // The guard is told how far a lease reaches before a database is opened under it.
        self.tenants.keep_leases(&mut self.desk);
        self.look_for_quorum_elsewhere();
        self.keep_databases();
        // What the keepers have just begun to give up is not renewed.
        self.renew_leases();
        self.answer_owed();
        // Fed, and said, is what all of the above has left.
        self.tend_watchdog();
        self.look_whether_it_left();
        self.beats.beat(&mut self.desk, &self.peers);
    }
}

/// Read-only questions, for `status`.
impl Node {
    /// The file was read again: of what decides nothing has changed but the mark by which nodes compare their files.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.desk.context.take_config(config);
    }

    /// What this daemon must do for safety and cannot do at present, and why.
    pub fn failing(&self) -> BTreeMap<Failing, String> {
        let room = self.room.as_ref().and_then(Room::failing);
        self.tenants.failing().chain(self.watchdog.failing()).chain(room).collect()
    }
    /// What the volume of the ledger has.
    pub fn room(&self) -> Option<Room> {
        self.room
    }
    /// Why this node's join was refused last, while it has not joined.
    pub fn refused_join(&self) -> Option<&Refusal> {
        self.membership.refused().filter(|_| self.incarnation().is_none())
    }
    /// Whether it leaves in order, and why.
    pub fn leaving(&self) -> Option<Leaving> {
        self.desk.context.leaving
    }
    /// Whether it has left in order, or the time for it is over: the daemon may end.
    pub fn has_left(&self) -> bool {
        self.leave.as_ref().is_some_and(Leave::is_over)
    }
    pub fn state(&self) -> &Arc<State> {
        &self.desk.context.state
    }
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.desk.context.incarnation
    }
    /// The present term and who leads in it, as far as this node may say: an elected node that no quorum answers any
    /// more, as it is when it was cut off, leads nobody.
    pub fn leader(&self) -> (Term, Option<&NodeName>) {
        (
            self.desk.context.term,
            self.desk
                .context
                .leader
                .as_ref()
                .filter(|leader| **leader != self.desk.context.config.node || self.desk.context.leads.is_some()),
        )
    }
    pub fn leads(&self) -> Option<&Lead> {
        self.leading.lead()
    }
    pub fn rows(&self) -> &BTreeMap<NodeName, Row> {
        self.peers.rows()
    }
    pub fn detector(&self) -> &Detector {
        self.peers.detector()
    }
    /// What this node knows of each local database.
    pub fn keepers(&self) -> &BTreeMap<ServiceName, Keeper> {
        self.tenants.keepers()
    }
    /// What the coordinator does and waits for (on the leader).
    pub fn notes(&self) -> &[Note] {
        &self.leading.plan().notes
    }
    /// What the keeper of each service does and waits for.
    pub fn keeping(&self) -> &BTreeMap<ServiceName, keeper::Step> {
        self.tenants.keeping()
    }
    pub fn applied(&self) -> &Applied {
        self.leading.applied()
    }
    pub fn timing(&self) -> &Timing {
        &self.desk.context.timing
    }
    /// For how long each standby has lacked something of what the primary of a service is known to have written.
    pub fn behind(&self, now: Instant) -> BTreeMap<ServiceName, BTreeMap<NodeName, Duration>> {
        self.written.behind(&self.outlook(now))
    }
    /// What this node sees at `now`, for answers to people.
    pub fn outlook(&self, now: Instant) -> crate::plan::Outlook<'_> {
        let Context { config, state, timing, .. } = &self.desk.context;
        let (applied, rows) = (self.leading.applied(), self.peers.rows());
        crate::plan::Outlook { now, me: &config.node, state, config, timing, applied, rows }
    }
}
