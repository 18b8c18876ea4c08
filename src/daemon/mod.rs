//! The daemon: sockets, files, processes and timers around one pure node. One loop, woken by a closed list of reasons.
//!
//! Not here: any decision. A panic anywhere aborts the process: the guard and the watchdog are part of the design.

mod aside;
mod host;
mod inbox;
pub mod journal;
pub mod log;
mod machine;
mod operator;
mod reload;
mod report;
mod rivals;
mod room;
mod shell;
mod shutdown;
mod supervisor;
mod survey;
mod wakeup;

use crate::action::fence::Runner;
use crate::action::leftovers;
use crate::api::admin::SOCKET_NAME;
use crate::api::socket::{AdminSocket, SocketError};
use crate::channel::key::KeyError;
use crate::channel::{Arrival, Disk, Gate, Intake, Keys, Udp};
use crate::clock::{self, BootTimer};
use crate::config::{Config, timing};
use crate::consensus::{self, Consensus, IncomingCall, StartError, Streams};
use crate::engine::Engine;
use crate::engine::postgresql::{EngineError, PostgreSql};
use crate::errors::with_causes;
use crate::node::{self, Effect, Event, Node};
use crate::types::{
    AgentAction, AgentName, AgentOutcome, AgentRun, ChannelName, Leaving, NodeName, ServiceName, WallTime,
};
use inbox::{Inbox, Incoming};
use operator::Operators;
use rivals::Rivals;
use sd_notify::NotifyState;
use shell::Shell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervisor::Supervisor;
use tokio::sync::mpsc;
use wakeup::{CallReply, Wakeup};

pub use reload::Origin;
pub use wakeup::Call;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot make the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Host(#[from] host::HostError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Consensus(#[from] StartError),
    #[error("the database of {service} cannot be managed")]
    Engine { service: ServiceName, source: EngineError },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the operating system gave no {what}")]
    System { what: &'static str, source: io::Error },
}

/// How often the loop is asked for a sign of life. The unit's `WatchdogSec` is four of these.
const PULSE: Duration = Duration::from_millis(250);

/// How often a watchdog is fed while the daemon starts.
const FEED_EVERY: Duration = Duration::from_millis(500);

/// What ends after that is cut short.
const GOODBYE: Duration = Duration::from_secs(5);

/// The last `monitor` of each device.
type Monitors = BTreeMap<(AgentName, NodeName), (WallTime, AgentRun)>;

/// The running daemon.
struct Daemon {
    config: Arc<Config>,
    origin: Origin,
    /// A reload is under way.
    reloads: bool,
    node: Node,
    shell: Shell,
    operators: Operators,
    intake: Intake,
    consensus: Arc<Consensus>,
    monitors: Monitors,
    rivals: Rivals,
    supervisor: Supervisor,
    dropped: log::Dropped,
    next_reply: u64,
    terminating: bool,
}

/// Runs until the process is told to end. For a restart the database goes on: the next daemon adopts it, or the guard stops
/// it. For anything else this node leaves in order first.
pub async fn run(config: Arc<Config>, origin: Origin, dropped: log::Dropped) -> Result<(), DaemonError> {
    for path in [&config.data_dir, &config.run_dir] {
        std::fs::create_dir_all(path).map_err(|source| DaemonError::Directory { path: path.clone(), source })?;
    }
    let system = |what| move |source| DaemonError::System { what, source };
    let (wakeups, woken) = mpsc::unbounded_channel();
    // First of all: one that an earlier daemon armed runs out while this one starts.
    let boot = host::boot(&config)?;
    let kept = host::kept_leases(&config, &boot);
    let (tried, mut watchdog) = host::try_watchdog(&config, &kept, clock::now());
    // Before the first agent of its own, and before anybody can order one of this daemon.
    for leftover in leftovers::end_leftovers(&config) {
        tracing::warn!("{leftover}");
    }
    let mut timer = BootTimer::new().map_err(system("timer"))?;
    let starting = Consensus::start(consensus::Options::from_config(&config));
    // A long log takes its time, and a kept lease that has not ended is reason enough to feed.
    let may_feed = || kept.values().all(|(_, end)| *end > clock::now());
    let (consensus, Streams { events, calls }) = feed_meanwhile(starting, &mut timer, &mut watchdog, may_feed).await?;
    let consensus = Arc::new(consensus);
    let start = host::look(&config, consensus.cluster().clone(), boot, kept, tried)?;
    let keys = Keys::load(&config.security.heartbeat_keys)?;
    let (arrivals, arrived) = mpsc::channel(1024);
    let peers = config.nodes.keys().filter(|n| **n != config.node).cloned().collect();
    let gate = Gate { cluster: start.cluster.clone(), me: config.node.clone(), peers, keys: keys.clone() };
    let intake = Intake::new(gate, arrivals);
    let networks = bind_networks(&config, &intake)?;
    let disk = start_disk(&config, &intake)?;
    watch_channels(&networks, disk.as_ref(), &wakeups);
    let engines = start_engines(&config, &wakeups)?;
    let runner = Arc::new(Runner::new(config.clone()));
    monitor_devices(&config, &runner, &wakeups);
    watch_log(&config, &consensus, &wakeups);
    serve_operators(&config, &wakeups).await?;
    watch_signals(&wakeups)?;
    let node = Node::new(config.clone(), start.clone(), clock::now());
    let shell = Shell {
        config: config.clone(),
        boot: start.boot,
        keys,
        networks,
        disk,
        consensus: consensus.clone(),
        engines,
        runner,
        watchdog,
        replies: BTreeMap::new(),
        runs: BTreeMap::new(),
        wakeups,
    };
    let daemon = Daemon {
        rivals: Rivals::look_for(config.clone()),
        config,
        origin,
        reloads: false,
        node,
        shell,
        operators: Operators::default(),
        intake,
        consensus,
        monitors: Monitors::new(),
        supervisor: Supervisor::start().map_err(system("thread for the service manager"))?,
        dropped,
        next_reply: 0,
        terminating: false,
    };
    give_memory_back();
    daemon.turn(Inbox::new(events, woken, calls, arrived), timer).await;
    Ok(())
}

/// Waits for the end of something at the start, and feeds a watchdog that is armed already while that may be.
async fn feed_meanwhile<T>(
    waited_for: impl Future<Output = T>,
    timer: &mut BootTimer,
    watchdog: &mut host::Opened,
    may_feed: impl Fn() -> bool,
) -> T {
    let mut waited_for = std::pin::pin!(waited_for);
    loop {
        timer.set(clock::now() + FEED_EVERY);
        tokio::select! {
            ended = &mut waited_for => return ended,
            () = timer.fired() => {}
        }
        for device in [&mut watchdog.armed, &mut watchdog.unusable].into_iter().flatten().filter(|_| may_feed()) {
            if let Err(error) = device.feed() {
                tracing::error!(error = with_causes(&error), "the watchdog cannot be fed");
            }
        }
    }
}

/// What only the start needed would stay locked in memory for as long as the manager runs.
fn give_memory_back() {
    // SAFETY: glibc's own function, which touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Daemon {
    /// The loop.
    async fn turn(mut self, mut inbox: Inbox, mut timer: BootTimer) {
        self.supervisor.tell(NotifyState::Ready);
        while !self.terminating {
            match self.node.next_wakeup() {
                Some(at) => timer.set(at),
                None => timer.unset(),
            }
            match inbox.next(timer.fired()).await {
                Incoming::Ledger(event) => self.ledger(event),
                Incoming::Due => self.handle(Event::Wake),
                Incoming::Wakeup(wakeup) => self.wake(wakeup),
                Incoming::Call(call) => self.call(call),
                Incoming::Arrival(arrival) => self.arrive(arrival),
            }
        }
        self.supervisor.end();
    }

    fn handle(&mut self, event: Event) {
        let is_of_ledger = matches!(event, Event::Ledger { .. } | Event::Applied { .. });
        let effects = self.node.handle(clock::now(), event);
        if is_of_ledger || effects.iter().any(|effect| matches!(effect, Effect::Db { .. })) {
            self.names_what_was_kept();
        }
        for effect in effects {
            self.shell.perform(effect);
        }
        self.operators.follow(&self.node);
        if self.node.has_left() && !self.terminating {
            self.terminate();
        }
    }

    fn ledger(&mut self, event: consensus::Event) {
        match event {
            // Read back from this node's own log while it starts: what it did then concerned an earlier daemon.
            consensus::Event::Applied(a) if a.replay => self.handle(Event::Ledger { state: a.state }),
            consensus::Event::Applied(a) => {
                tracing::debug!(index = %a.index, command = a.entry.command.name(), "applied");
                self.handle(Event::Applied { entry: a.entry, answer: a.answer, state: a.state });
            }
            consensus::Event::Advanced(a) => self.handle(Event::Ledger { state: a.state }),
            consensus::Event::Leadership(l) => {
                let leader = l.leader.as_ref().map(NodeName::as_str);
                tracing::info!(term = %l.term, leader, i_lead = l.i_lead, acked = l.quorum_acked, "leadership");
                self.handle(Event::Leadership { term: l.term, leader: l.leader, i_lead: l.i_lead && l.quorum_acked });
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { channel, at, heartbeat, .. } = arrival;
        self.handle(Event::Heard { channel, at, heartbeat: Arc::new(heartbeat) });
    }

    fn call(&mut self, call: IncomingCall) {
        let IncomingCall { from, body, reply } = call;
        match serde_json::from_slice(&body) {
            Ok(Call::Node(request)) => {
                let id = self.reply_id(reply);
                self.handle(Event::Asked { reply: id, from, request });
            }
            Ok(Call::Operator { request, who }) => {
                let relay = operator::relay_reply(reply);
                self.operate(request, format!("{who} (through {from})"), relay);
            }
            Ok(Call::Survey { service }) => self.answer_survey(&service, reply),
            // Of a version that this program does not know: not answering says so.
            Err(error) => tracing::warn!(%from, %error, "a call that this version does not understand"),
        }
    }

    fn reply_id(&mut self, reply: CallReply) -> u64 {
        self.next_reply += 1;
        self.shell.replies.insert(self.next_reply, reply);
        self.shell.replies.retain(|_, reply| !reply.is_closed());
        self.next_reply
    }

    fn wake(&mut self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Node(event) => self.handle(event),
            Wakeup::Operator(request, reply) => self.operate(request, "the operator".to_owned(), reply),
            Wakeup::Told { number, result } => {
                self.operators.told(number, result);
                self.operators.follow(&self.node);
            }
            Wakeup::Monitored { agent, target, run } => {
                let works = matches!(run.outcome, AgentOutcome::Succeeded | AgentOutcome::IsOff);
                self.monitors.insert((agent.clone(), target.clone()), (clock::wall(), run));
                self.handle(Event::Monitored { agent, target, works });
            }
            Wakeup::Pulse => {
                self.shell.feed_what_is_not_counted_on();
                self.supervisor.tell(NotifyState::Watchdog);
            }
            Wakeup::Reloaded { taken } => self.reloaded(taken),
            Wakeup::Terminate => self.terminate(),
            Wakeup::Leave(leaving) => self.leave(leaving),
        }
    }

    /// The end of this process: the others are told to expect it. What still runs goes on.
    fn terminate(&mut self) {
        self.terminating = true;
        let back_within = self.config.lease.ttl / 2;
        self.handle(Event::Goodbye { back_within });
        self.handle(Event::Wake);
        tracing::info!("ending");
    }

    /// This node leaves in order; the process ends when it has. The unit's time may be shorter than what the file lets the
    /// stop of a database take.
    fn leave(&mut self, leaving: Leaving) {
        let within = timing::leave_within(&self.config) + GOODBYE;
        self.supervisor.tell(NotifyState::ExtendTimeoutUsec(within.as_micros().try_into().unwrap_or(u32::MAX)));
        self.handle(Event::Leave(leaving));
    }
}

fn bind_networks(config: &Config, intake: &Intake) -> Result<Vec<Udp>, DaemonError> {
    let me = config.me();
    let networks = [(ChannelName::primary(), true), (ChannelName::secondary(), false)];
    let bind = |(name, primary): (ChannelName, bool)| {
        let on =
            |n: &crate::config::Node| SocketAddr::new(if primary { n.primary } else { n.secondary }, n.heartbeat_port);
        let others = config.nodes.iter().filter(|(n, _)| **n != config.node);
        let peers = others.map(|(n, node)| (n.clone(), on(node))).collect();
        Udp::bind(name, on(me), peers, intake.clone())
            .map_err(|source| DaemonError::System { what: "socket for heartbeats", source })
    };
    networks.into_iter().map(bind).collect()
}

fn start_disk(config: &Config, intake: &Intake) -> Result<Option<Disk>, DaemonError> {
    let Some(disk) = config.disk.as_ref().filter(|_| config.me().disk) else { return Ok(None) };
    Disk::start(ChannelName::disk(), disk.path.clone(), &config.detector, None, intake.clone())
        .map(Some)
        .map_err(|source| DaemonError::System { what: "thread for the shared disk", source })
}

/// Tells the node whenever a channel becomes usable or unusable.
fn watch_channels(networks: &[Udp], disk: Option<&Disk>, wakeups: &mpsc::UnboundedSender<Wakeup>) {
    let all = networks.iter().map(|n| (n.name().clone(), n.state())).chain(disk.map(|d| (d.name().clone(), d.state())));
    for (channel, mut state) in all {
        let wakeups = wakeups.clone();
        tokio::spawn(async move {
            loop {
                let usable = state.borrow_and_update().clone();
                let told = wakeups.send(Wakeup::Node(Event::Channel { channel: channel.clone(), usable }));
                if told.is_err() || state.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}

fn start_engines(
    config: &Arc<Config>,
    wakeups: &mpsc::UnboundedSender<Wakeup>,
) -> Result<BTreeMap<ServiceName, Arc<PostgreSql>>, DaemonError> {
    let mut engines = BTreeMap::new();
    if config.me().role != crate::config::Role::Database {
        return Ok(engines);
    }
    for service in config.services.keys() {
        let engine = PostgreSql::new(config.clone(), service.clone())
            .map_err(|source| DaemonError::Engine { service: service.clone(), source })?;
        let engine = Arc::new(engine);
        engines.insert(service.clone(), engine.clone());
        let (service, wakeups) = (service.clone(), wakeups.clone());
        tokio::spawn(async move {
            loop {
                let seen = Box::new(engine.latest());
                if wakeups.send(Wakeup::Node(Event::Seen { service: service.clone(), seen })).is_err() {
                    return;
                }
                engine.changed().await;
            }
        });
    }
    Ok(engines)
}

/// `monitor` of every device, now and then, so that a broken one shows before it is needed.
#[expect(clippy::disallowed_methods, reason = "how often devices are tried: a sleep of the host only puts it off")]
fn monitor_devices(config: &Arc<Config>, runner: &Arc<Runner>, wakeups: &mpsc::UnboundedSender<Wakeup>) {
    for (agent, settings) in config.fencing.agents.iter().filter(|(_, a)| !a.monitor.is_zero()) {
        let targets: Vec<_> = match settings.node.is_empty() {
            true => config.nodes.keys().take(1).cloned().collect(),
            false => settings.node.keys().cloned().collect(),
        };
        for target in targets {
            let Some(order) = node::agent_order(config, agent, AgentAction::Monitor, &target, None) else { continue };
            let (runner, wakeups, every) = (runner.clone(), wakeups.clone(), settings.monitor);
            tokio::spawn(async move {
                let mut turn = tokio::time::interval(every);
                turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    turn.tick().await;
                    let run = runner.run(&order, 1).await;
                    let (agent, target) = (order.agent.clone(), order.target.clone());
                    if wakeups.send(Wakeup::Monitored { agent, target, run }).is_err() {
                        return;
                    }
                }
            });
        }
    }
}

/// The node hears of slow log writes, and of the room for more.
#[expect(clippy::disallowed_methods, reason = "how often a number is looked at")]
fn watch_log(config: &Config, consensus: &Arc<Consensus>, wakeups: &mpsc::UnboundedSender<Wakeup>) {
    room::watch(config.data_dir.clone(), consensus, wakeups);
    let (consensus, wakeups) = (consensus.clone(), wakeups.clone());
    tokio::spawn(async move {
        let mut turn = tokio::time::interval(PULSE);
        let mut last = Duration::ZERO;
        loop {
            turn.tick().await;
            let took = consensus.log_write_latency();
            // Only what differs is news.
            if took.as_millis() != last.as_millis() && wakeups.send(Wakeup::Node(Event::LogWrite { took })).is_err() {
                return;
            }
            last = took;
            if wakeups.send(Wakeup::Pulse).is_err() {
                return;
            }
        }
    });
}

async fn serve_operators(config: &Config, wakeups: &mpsc::UnboundedSender<Wakeup>) -> Result<(), DaemonError> {
    let socket = AdminSocket::bind(&config.run_dir.join(SOCKET_NAME)).await?;
    let (asked, mut requests) = mpsc::channel(16);
    tokio::spawn(async move { socket.serve(asked).await });
    let wakeups = wakeups.clone();
    tokio::spawn(async move {
        while let Some((request, reply)) = requests.recv().await {
            if wakeups.send(Wakeup::Operator(request, reply)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn watch_signals(wakeups: &mpsc::UnboundedSender<Wakeup>) -> Result<(), DaemonError> {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).map_err(|source| DaemonError::System { what: "signal handler", source });
    // A restart, which the unit's `RestartKillSignal=` tells from a stop.
    let mut restart = on(SignalKind::interrupt())?;
    let restarted = wakeups.clone();
    tokio::spawn(async move {
        restart.recv().await;
        let _ = restarted.send(Wakeup::Terminate);
    });
    // A stop. The second one does not want to wait.
    let mut stop = on(SignalKind::terminate())?;
    let stopped = wakeups.clone();
    tokio::spawn(async move {
        stop.recv().await;
        let asking = tokio::spawn({
            let stopped = stopped.clone();
            async move { stopped.send(Wakeup::Leave(shutdown::reason().await)) }
        });
        stop.recv().await;
        asking.abort();
        let _ = stopped.send(Wakeup::Terminate);
    });
    tokio::spawn(reload::on_signal(on(SignalKind::hangup())?, wakeups.clone()));
    Ok(())
}
