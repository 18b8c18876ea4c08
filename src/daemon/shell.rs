//! The thin shell around the node: carries out each effect, and brings its end back as an event. One match; nothing
//! here decides.

use super::host::{self, Opened};
use super::journal;
use super::wakeup::{Call, CallReply, Wakeup};
use crate::action::fence::{Runner, UNTIL_THE_DEADLINE};
use crate::action::guard::{self, LeaseFile};
use crate::action::in_force;
use crate::action::watchdog::Watchdog;
use crate::channel::goodbye::Prepared;
use crate::channel::{Disk, Keys, Udp, wire};
use crate::clock;
use crate::config::Config;
use crate::consensus::{Consensus, ProposeError};
use crate::engine::Engine;
use crate::engine::postgresql::PostgreSql;
use crate::errors::with_causes;
use crate::ledger::{Command, Entry};
use crate::node::{self, Effect, Event, PeerRequest, PeerResponse, RunKey, WatchdogSaid};
use crate::types::{
    AgentOrder, AgentOutcome, AgentRun, Boot, DbAction, Epoch, Heartbeat, Instant, LeftGoodbye, NodeName, Released,
    ServiceName,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a proposal or a quorum read may take before its outcome counts as unknown.
pub const RAFT_DEADLINE: Duration = Duration::from_secs(3);

/// Everything that the effects need.
pub struct Shell {
    pub config: Arc<Config>,
    pub boot: Boot,
    pub keys: Keys,
    pub networks: Vec<Udp>,
    pub disk: Option<Disk>,
    pub consensus: Arc<Consensus>,
    pub engines: BTreeMap<ServiceName, Arc<PostgreSql>>,
    pub runner: Arc<Runner>,
    pub watchdog: Opened,
    pub replies: BTreeMap<u64, CallReply>,
    /// Agents that run: each ends when its sender is dropped.
    pub runs: BTreeMap<RunKey, oneshot::Sender<()>>,
    pub wakeups: mpsc::UnboundedSender<Wakeup>,
}

impl Shell {
    /// Carries out one effect, or begins to.
    pub fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Beat(heartbeat) => self.beat(&heartbeat),
            Effect::Ask { id, to, request, deadline } => self.ask(id, to, request, deadline),
            Effect::Reply { reply, response } => {
                if let Some(sender) = self.replies.remove(&reply) {
                    // The asker may be gone: then nobody misses the answer.
                    let _ = sender.send(serde_json::to_vec(&response).expect("plain data"));
                }
            }
            Effect::Propose { id, command } => self.propose(id, *command),
            // The loop is gone only when the process ends.
            Effect::Told { number, result } => drop(self.wakeups.send(Wakeup::Told { number, result })),
            Effect::QuorumRead { id } => self.quorum_read(id),
            Effect::Transfer { to } => self.transfer(to),
            Effect::RunAgent { key, agent, action, target, fence, limit, persists } => {
                let order = node::agent_order(&self.config, &agent, action, &target, Some(fence));
                let tries = self.config.fencing.agents.get(&agent).map_or(1, |a| a.tries.max(1));
                let tries = if persists { UNTIL_THE_DEADLINE } else { tries };
                self.run_agent(key, tries, order.map(|order| AgentOrder { deadline: limit, ..order }));
            }
            Effect::EndAgent { key } => drop(self.runs.remove(&key)),
            Effect::LookInForce => self.look_in_force(),
            Effect::UndoInForce { undo } => self.undo_in_force(*undo),
            Effect::Db { service, action } => self.database(service, action),
            // The engine lets a `Stop`, which follows, interrupt what runs.
            Effect::AbortDb { service } => tracing::debug!(%service, "the action under way is given up"),
            Effect::Tombstone { service, released } => self.tombstone(service, released),
            Effect::KeepLease { service, epoch, until, goodbye } => {
                if let Some(goodbye) = goodbye {
                    self.leave_goodbye(&service, &goodbye);
                }
                self.keep_lease(&service, epoch, until);
            }
            Effect::TryLease { service } => self.try_lease(service),
            Effect::ArmWatchdog => self.arm_watchdog(),
            Effect::FeedWatchdog { told } => self.feed_watchdog(told),
            Effect::DisarmWatchdog => self.disarm_watchdog(),
            Effect::Say(said) => journal::write(&said),
        }
    }

    fn tell(&self, event: Event) {
        // The loop is gone only when the process ends.
        let _ = self.wakeups.send(Wakeup::Node(event));
    }

    fn beat(&self, heartbeat: &Heartbeat) {
        let bytes = wire::encode(heartbeat, self.keys.signing());
        for network in &self.networks {
            network.send(&bytes);
        }
        if let Some(disk) = &self.disk {
            disk.send(&bytes);
        }
    }

    fn ask(&self, id: u64, to: NodeName, request: PeerRequest, deadline: Duration) {
        let (consensus, wakeups) = (self.consensus.clone(), self.wakeups.clone());
        tokio::spawn(async move {
            let body = serde_json::to_vec(&Call::Node(request)).expect("plain data");
            let response = match consensus.call(&to, body, deadline).await {
                Ok(bytes) => serde_json::from_slice::<PeerResponse>(&bytes).map_err(|e| format!("{to}: {e}")),
                Err(error) => Err(format!("{to}: {error}")),
            };
            let _ = wakeups.send(Wakeup::Node(Event::Answered { id, response }));
        });
    }

    fn propose(&self, id: u64, command: Command) {
        let (consensus, wakeups) = (self.consensus.clone(), self.wakeups.clone());
        tokio::spawn(async move {
            // Stamped with the leader's time of day.
            let entry = Entry { at: clock::wall(), command };
            let result = match consensus.propose(entry, RAFT_DEADLINE).await {
                Ok(proposed) => Ok((*proposed.answer).clone()),
                Err(ProposeError::NotLeader { leader }) => Err(leader),
                Err(ProposeError::Unknown(_)) => Err(None),
            };
            let _ = wakeups.send(Wakeup::Node(Event::Proposed { id, result }));
        });
    }

    /// Answered without a state: everything that was committed when the read began is in the stream of events before
    /// the answer, and the loop takes that stream first.
    fn quorum_read(&self, id: u64) {
        let (consensus, wakeups) = (self.consensus.clone(), self.wakeups.clone());
        tokio::spawn(async move {
            let read = consensus.quorum_read(RAFT_DEADLINE).await;
            let _ = wakeups.send(Wakeup::Node(Event::QuorumRead { id, confirmed: read.is_ok() }));
        });
    }

    fn transfer(&self, to: NodeName) {
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            if let Err(error) = consensus.transfer_leadership(&to, RAFT_DEADLINE).await {
                tracing::warn!(%to, %error, "leadership was not handed over");
            }
        });
    }

    fn run_agent(&mut self, key: RunKey, tries: u32, order: Option<AgentOrder>) {
        let (runner, wakeups) = (self.runner.clone(), self.wakeups.clone());
        let (goes_on, ended) = oneshot::channel::<()>();
        self.runs.retain(|_, run| !run.is_closed());
        self.runs.insert(key.clone(), goes_on);
        let without = |outcome, output: &str, took| AgentRun { outcome, tries: 0, took, output: output.to_owned() };
        tokio::spawn(async move {
            let begun = clock::now();
            let run = match order {
                Some(order) => tokio::select! {
                    run = runner.run(&order, tries) => run,
                    _ = ended => without(AgentOutcome::TimedOut, "ended: the fence is not needed any more", clock::now().since(begun)),
                },
                None => without(AgentOutcome::NotRun, "this node's file does not configure that agent", Duration::ZERO),
            };
            let _ = wakeups.send(Wakeup::Node(Event::AgentEnded { key, run }));
        });
    }

    fn look_in_force(&self) {
        let (config, runner, wakeups) = (self.config.clone(), self.runner.clone(), self.wakeups.clone());
        tokio::spawn(async move {
            let (standing, whole) = in_force::look(&runner, &node::in_force_orders(&config)).await;
            let _ = wakeups.send(Wakeup::Node(Event::InForce { standing, whole }));
        });
    }

    fn undo_in_force(&self, undo: node::Undo) {
        let (config, runner) = (self.config.clone(), self.runner.clone());
        tokio::spawn(async move {
            let Some(order) = undo.order(&config) else { return };
            let run = runner.run(&order, 1).await;
            tracing::info!(outcome = %run.outcome, output = run.output, "undone: {undo}");
        });
    }

    fn database(&self, service: ServiceName, action: DbAction) {
        let Some(engine) = self.engines.get(&service).cloned() else { return };
        let wakeups = self.wakeups.clone();
        tokio::spawn(async move {
            let outcome = engine.perform(action.clone()).await;
            // What it did is seen before it is said to be done.
            let seen = Box::new(engine.latest());
            let _ = wakeups.send(Wakeup::Node(Event::Seen { service: service.clone(), seen }));
            let _ = wakeups.send(Wakeup::Node(Event::DbEnded { service, action, outcome }));
        });
    }

    fn tombstone(&self, service: ServiceName, released: Released) {
        let (config, wakeups) = (self.config.clone(), self.wakeups.clone());
        tokio::task::spawn_blocking(move || {
            // Without a durable final word nothing may be released; a disk that takes none is for the fence.
            let result = host::write_tombstone(&config, &service, &released).map_err(|error| with_causes(&error));
            let _ = wakeups.send(Wakeup::Node(Event::Tombstoned { service, epoch: released.epoch, result }));
        });
    }

    fn lease(&self, epoch: Epoch, end: Instant) -> LeaseFile {
        LeaseFile { boot: self.boot.clone(), epoch, end, released: false, daemon: Some(std::process::id()) }
    }

    /// Without it this node is suspected as soon as its daemon ends: not worth more than a word.
    fn leave_goodbye(&self, service: &ServiceName, goodbye: &LeftGoodbye) {
        let prepared = Prepared::new(&self.config, self.consensus.cluster(), goodbye, self.keys.signing());
        if let Err(error) = prepared.leave(&self.config.goodbye_file(service)) {
            tracing::debug!(%service, %error, "no goodbye is left with the guard");
        }
    }

    fn keep_lease(&self, service: &ServiceName, epoch: Epoch, until: Option<Instant>) {
        let path = self.config.lease_file(service);
        if let Some(dir) = path.parent().filter(|dir| !dir.exists())
            && let Err(error) = std::fs::create_dir_all(dir)
        {
            tracing::error!(%service, %error, "the run directory of the service cannot be made");
        }
        let written = match until {
            None => {
                guard::stand_down(&path);
                return;
            }
            Some(end) => guard::write_lease(&path, &self.lease(epoch, end)).map(|()| end),
        };
        let result = written.map_err(|error| with_causes(&error));
        self.tell(Event::LeaseKept { service: service.clone(), result });
    }

    fn try_lease(&self, service: ServiceName) {
        let result = guard::try_lease(&self.config.lease_file(&service)).map_err(|error| with_causes(&error));
        self.tell(Event::LeaseTried { service, result });
    }

    fn arm_watchdog(&mut self) {
        let Some(settings) = &self.config.watchdog else { return };
        // It can be opened once only.
        let open = self.watchdog.armed.take().or_else(|| self.watchdog.unusable.take());
        let armed = match open {
            Some(watchdog) => watchdog.again(settings.timeout),
            None => Watchdog::arm(&settings.device, settings.timeout),
        };
        let said = match armed {
            Ok(watchdog) => {
                let can_be_disarmed = watchdog.can_be_disarmed();
                self.watchdog.armed = Some(watchdog);
                WatchdogSaid::Armed { can_be_disarmed }
            }
            Err(failed) => {
                self.watchdog.unusable = failed.open.map(|open| *open);
                WatchdogSaid::NotArmed { why: with_causes(&failed.error) }
            }
        };
        self.tell(Event::Watchdog(said));
    }

    /// A device that runs and is not counted on must not reset the host for it. Once a second: none is quicker.
    pub fn feed_what_is_not_counted_on(&mut self) {
        if let Some(watchdog) = &mut self.watchdog.unusable
            && let Err(error) = watchdog.feed()
        {
            tracing::error!(error = with_causes(&error), "a watchdog that is armed and of no use cannot be fed");
        }
    }

    fn feed_watchdog(&mut self, told: bool) {
        let Some(watchdog) = &mut self.watchdog.armed else { return };
        match watchdog.feed() {
            Ok(()) if told => self.tell(Event::Watchdog(WatchdogSaid::Fed)),
            Ok(()) => {}
            Err(error) => {
                let why = with_causes(&error);
                self.tell(Event::Watchdog(WatchdogSaid::NotFed { why }));
            }
        }
    }

    fn disarm_watchdog(&mut self) {
        let said = match self.watchdog.armed.take().map(Watchdog::disarm) {
            Some(Err(still)) => {
                // Closed, it would reset the host: it stays open, and is fed on.
                self.watchdog.armed = Some(still.watchdog);
                WatchdogSaid::NotDisarmed { why: with_causes(&still.error) }
            }
            _ => WatchdogSaid::Disarmed,
        };
        self.tell(Event::Watchdog(said));
    }
}
