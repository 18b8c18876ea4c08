//! One node, as a whole and pure: detector, ledger copy, lease, coordinator and keepers behind one function,
//! `handle(now, event) -> effects`. The daemon and the simulator both drive exactly this.
//!
//! Not here: any socket, file, process, clock or thread; any safety rule (the ledger's) and any choice (the plan's).

mod beats;
mod context;
mod event;
mod fences;
mod intent;
mod joining;
mod leading;
mod leases;
mod mail;
mod orders;
mod outbox;
mod peers;
mod reading;
mod said;
mod standing;
mod tenants;
mod watchdog;

#[cfg(test)]
mod database_test;
#[cfg(test)]
mod fences_test;
#[cfg(test)]
mod reading_test;
#[cfg(test)]
mod standing_test;

pub use event::{Effect, Event, PeerRequest, PeerResponse, RunKey, WatchdogSaid};
pub use orders::{agent_order, in_force_orders};
pub use said::Said;
pub use standing::{Undo, Unwanted, undone};

use crate::channel::replay::Replay;
use crate::config::Config;
use crate::detector::Detector;
use crate::ledger::{Command, Machine, State};
use crate::plan::keeper::{self, Keeper};
use crate::plan::{Applied, Lead, Note, Plan, Row, Timing};
use crate::types::{
    AgentOutcome, AgentRun, Boot, ChannelName, ClusterId, Epoch, Failing, FenceId, Incarnation, Instant, NodeName,
    Released, Round, ServiceName, Sight, Term,
};
use context::Context;
use mail::Mail;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tenants::Tenants;
use watchdog::Watchdog;

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

/// One node.
pub struct Node {
    context: Context,
    mail: Mail,
    /// The number of the present need to join.
    join_request: u64,
    rng: StdRng,
    lead: Option<Lead>,
    applied: Applied,

    detector: Detector,
    /// When everything was last compared: what the detector said, when it was to be compared again at the latest, and
    /// when for another reason than the detector.
    sights: Vec<Sight>,
    due: Option<Instant>,
    due_besides: Option<Instant>,
    rows: BTreeMap<NodeName, Row>,
    replay: Replay,
    beats: beats::Beats,

    pending: Vec<peers::Pending>,

    tenants: Tenants,
    watches: BTreeMap<(FenceId, u32), fences::Watch>,
    runs: BTreeMap<RunKey, fences::RunState>,
    /// Ended orders that the ledger has not heard of.
    ended_orders: BTreeMap<(FenceId, u32), AgentRun>,
    assists_to_say: Vec<(RunKey, AgentRun)>,
    assist_said: BTreeMap<RunKey, AgentOutcome>,
    /// When each peer was heard last, per channel: evidence for people.
    beats_heard: BTreeMap<NodeName, BTreeMap<ChannelName, Instant>>,

    watchdog: watchdog::Watchdog,
    /// No round has the number of an earlier one, whoever led meanwhile.
    last_round: Round,
    questions: peers::Questions,
    lookout: standing::Lookout,
    reading: reading::Reading,
    log_write: Duration,
    plan: Plan,
}

impl Node {
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        let peers = config.nodes.keys().cloned().collect();
        let channels = config.channels();
        let mut detector = Detector::new(config.node.clone(), &peers, &channels, &config.detector, now);
        for (name, _) in config.nodes.iter().filter(|(_, n)| !n.disk) {
            if let Some(disk) = channels.iter().find(|c| c.is_disk()) {
                detector.without(name, disk);
            }
        }
        if let Some(disk) = channels.iter().find(|c| c.is_disk() && !config.me().disk) {
            detector.channel_state(now, disk, Err("this node does not use the shared disk".to_owned()));
        }
        let mut node = Node {
            mail: Mail::default(),
            join_request: now.0,
            rng: StdRng::seed_from_u64(start.seed),
            lead: None,
            applied: Applied::default(),
            detector,
            sights: Vec::new(),
            due: None,
            due_besides: None,
            rows: BTreeMap::new(),
            replay: Replay::new(),
            beats: beats::Beats::new(now),
            pending: Vec::new(),
            tenants: Tenants::found(&config, &start, now),
            last_round: Round(0),
            questions: peers::Questions::default(),
            lookout: standing::Lookout::default(),
            watches: BTreeMap::new(),
            runs: BTreeMap::new(),
            ended_orders: BTreeMap::new(),
            assists_to_say: Vec::new(),
            assist_said: BTreeMap::new(),
            beats_heard: BTreeMap::new(),
            watchdog: Watchdog::found(&start, now),
            reading: reading::Reading::default(),
            log_write: Duration::ZERO,
            plan: Plan::default(),
            context: Context::new(config, start, now),
        };
        node.due_besides = node.next_due_besides();
        node
    }

    /// The only way in. `now` never goes back.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        self.context.now = self.context.now.max(now);
        // S10 comes before everything else: who ran late judges nobody by what it finds now.
        self.notice_lateness();
        let says_something = self.take_in(event);
        // Most heartbeats say what the one before said, and come before anything is due.
        let is_due = self.due.is_none_or(|due| self.context.now >= due);
        if says_something || is_due || !self.detector.still_sees(self.context.now, &self.sights) {
            self.settle();
            self.due_besides = self.next_due_besides();
            self.due = self.next_wakeup();
        }
        self.mail.take()
    }

    /// When this node wants to be woken, whatever happens. An event after which nothing is compared changes at most when
    /// a view will change by itself: what else is due was found at the last comparison, and lies ahead still.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let besides = self.due_besides;
        let change = self.detector.next_change_before(self.context.now, besides.unwrap_or(Instant(u64::MAX)));
        change.or(besides)
    }

    /// When something is due that is none of the detector's.
    fn next_due_besides(&self) -> Option<Instant> {
        let all = [Some(self.beats.due()), self.plan.wakeup, self.mail.due(), self.questions.next_wakeup()];
        let tenants = self.tenants.due(&self.context);
        let failed = self.watchdog_due().into_iter().chain(self.reads_due()).chain(self.look_due());
        let all = all.into_iter().flatten().chain(tenants).chain(self.retry_runs()).chain(failed);
        all.filter(|at| *at > self.context.now).min()
    }

    /// Whether everything must be compared anew.
    fn take_in(&mut self, event: Event) -> bool {
        match event {
            Event::Wake => {}
            Event::Heard { channel, at, heartbeat } => return self.hear(&channel, at, &heartbeat),
            Event::Channel { channel, usable } => self.detector.channel_state(self.context.now, &channel, usable),
            Event::Applied { entry, answer, state } => {
                self.take_state(state);
                self.note_answer(&entry, &answer);
            }
            Event::Ledger { state } => self.take_state(state),
            Event::Leadership { term, leader, i_lead } => self.take_leadership(term, leader, i_lead),
            Event::Proposed { id, result } => self.proposal_ended(id, result),
            Event::QuorumRead { id, confirmed } => self.quorum_read(id, confirmed),
            Event::Asked { reply, from, request } => self.asked(mail::ReplyTo::Peer(reply), from, request),
            Event::Answered { id, response } => self.answered(id, response),
            Event::AgentEnded { key, run } => self.agent_ended(key, run),
            Event::Seen { service, seen } => self.tenants.database_seen(&self.context, &service, *seen),
            Event::InForce { standing, whole } => self.found_in_force(standing, whole),
            Event::DbEnded { service, action, outcome } => {
                self.tenants.database_ended(&self.context, &mut self.mail, &service, &action, outcome);
            }
            Event::Tombstoned { service, epoch, result } => {
                self.tenants.tombstone_ended(&self.context, &mut self.mail, &service, epoch, result);
            }
            Event::LeaseKept { service, result } => {
                return self.tenants.lease_kept(&self.context, &mut self.mail, &service, result);
            }
            Event::LogWrite { took } => {
                self.log_write = took;
                if took > self.context.timing.acceptable_pause {
                    self.detector.doubt(self.context.now, took);
                }
            }
            Event::Watchdog(said) => self.watchdog_said(said),
            Event::Goodbye { back_within } => self.say_goodbye(back_within),
        }
        true
    }

    /// After every event: compare what is wanted with what is, everywhere.
    fn settle(&mut self) {
        self.finish_reads();
        self.tidy_reads();
        self.join();
        self.take_up_what_was_held_open();
        self.refresh_own_row();
        self.coordinate();
        self.run_fences();
        self.bring_results();
        self.tidy_host();
        self.tenants.keep_leases(&self.context, &mut self.mail);
        self.tenants.look_for_quorum_elsewhere(&self.context, &self.rows);
        self.keep_databases();
        self.renew_leases();
        self.answer_pending();
        self.tend_watchdog();
        self.beat();
    }

    /// One step for each local database.
    fn keep_databases(&mut self) {
        for name in self.tenants.served().iter() {
            self.tenants.report_rejoined(&self.context, &mut self.mail, name);
            let informed = self.is_informed();
            self.tenants.keep(&self.context, &mut self.mail, name, informed, self.watchdog.failure());
        }
    }

    /// Whether this copy of the ledger says how things are, and not how they were before this daemon: its own join is
    /// applied, or (before it joins) it was current once since the daemon started.
    fn is_informed(&mut self) -> bool {
        match self.context.incarnation {
            Some(_) => self.context.has_applied_its_join(),
            None => self.has_been_current() && self.context.state.settings.is_some(),
        }
    }

    /// Proposes a command; the age of what this node proposes as the leader counts from now.
    fn propose(&mut self, command: Command) {
        let noted = reading::has_an_age(&command).then(|| command.clone());
        if self.mail.propose(&self.context, command)
            && let Some(command) = noted
        {
            self.note_proposed(&command);
        }
    }
}

/// Read-only questions, for `status`.
impl Node {
    /// What this daemon must do for safety and cannot do at present, and why.
    pub fn failing(&self) -> BTreeMap<Failing, String> {
        self.tenants.failing().chain(self.watchdog_failing()).collect()
    }
    pub fn state(&self) -> &Arc<State> {
        &self.context.state
    }
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.context.incarnation
    }
    /// The present term and who leads in it, as far as this node may say: an elected node that no quorum answers any
    /// more, as it is when it was cut off, leads nobody.
    pub fn leader(&self) -> (Term, Option<&NodeName>) {
        (
            self.context.term,
            self.context.leader.as_ref().filter(|leader| **leader != self.context.config.node || self.lead.is_some()),
        )
    }
    pub fn leads(&self) -> Option<&Lead> {
        self.lead.as_ref()
    }
    pub fn rows(&self) -> &BTreeMap<NodeName, Row> {
        &self.rows
    }
    pub fn detector(&self) -> &Detector {
        &self.detector
    }
    /// What this node knows of each local database.
    pub fn keepers(&self) -> &BTreeMap<ServiceName, Keeper> {
        self.tenants.keepers()
    }
    /// What the coordinator does and waits for (on the leader).
    pub fn notes(&self) -> &[Note] {
        &self.plan.notes
    }
    /// What the keeper of each service does and waits for.
    pub fn keeping(&self) -> &BTreeMap<ServiceName, keeper::Step> {
        self.tenants.keeping()
    }
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
    pub fn timing(&self) -> &Timing {
        &self.context.timing
    }
    /// What this node sees at `now`, for answers to people.
    pub fn outlook(&self, now: Instant) -> crate::plan::Outlook<'_> {
        let Context { config, state, timing, .. } = &self.context;
        crate::plan::Outlook { now, me: &config.node, state, config, timing, rows: &self.rows }
    }
}
