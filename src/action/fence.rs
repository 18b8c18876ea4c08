//! The runner: starts fence agents, any executable of the FenceAgentAPI, and reports how they ended. It decides
//! nothing: which order is run, and what its outcome proves, is the coordinator's and the ledger's.
//!
//! What it keeps to:
//! - An agent gets no arguments. `action=` is the first line of its input, and the input is complete before the agent
//!   exists (see `process`), because agents that read an empty input *reboot*.
//! - Every run has a deadline of its own, after which everything that it started is killed: a failure. A process of its
//!   own does that when this daemon is dead by then (see `leash`).
//! - A try that failed is followed by another after a pause that grows from a tenth of a second to a second: a device
//!   that is busy for a moment answers long before the deadline.
//! - One action at a time per device, in the order of asking. A device is an agent with the options of its target.
//!   `monitor`, `status` and `in-force` give way to `on` and `off`, and are begun again afterwards, within their
//!   deadline.
//! - Only exit status 0 of `off` confirms; 2 means "off" for `status` and `monitor` alone.
//! - Secrets do not leave in the output.
//!
//! **Offered options.** What regent itself knows and only some agents want (fence id, addresses, ports) is put into
//! [`AgentOrder::options`] under a name with the prefix [`OFFER`]. It is handed over, without the prefix, when the
//! agent's metadata declares it and the operator has not set it. Options without the prefix are always handed over.

#![expect(
    clippy::disallowed_methods,
    reason = "an agent's own deadline is a plain I/O time-out: a host that slept gives it the rest of its time, and nothing is proved by it"
)]

use super::agent_metadata::{Metadata, NotMetadata};
use super::agent_output::{all_lines, last_lines, what_it_means};
use super::confinement::RunName;
use super::leashes::Leashes;
use super::process::{self, End, Finished, StartError};
use super::secrets::Secrets;
use crate::config::{Agent, Config};
use crate::errors::with_causes;
use crate::types::{AgentAction, AgentName, AgentOrder, AgentOutcome, AgentRun, OFFER, Quoted, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The folder of regent's own programs.
const LIBRARY: &str = "/usr/lib/regent";
/// How long an agent may take to describe itself.
const METADATA_LIMIT: Duration = Duration::from_secs(10);

/// As many tries as the deadline has room for.
pub const UNTIL_THE_DEADLINE: u32 = u32::MAX;
/// The pause after the first try that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries: so much later than it could does a run find that its device works again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why an agent cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("fencing.agents has no agent {agent}")]
    UnknownAgent { agent: AgentName },
    #[error("{command}: no such program in {LIBRARY}, beside regent, in /usr/sbin or in PATH", command = command.display())]
    NoProgram { command: PathBuf },
    #[error(
        "option {} of agent {agent} cannot be handed over: a name has no '=', ' ' or '#', a value no line break",
        Quoted(option)
    )]
    BadOption { agent: AgentName, option: String },
    #[error("agent {agent}")]
    Start { agent: AgentName, source: StartError },
    #[error("agent {agent} gave no metadata within {} ({said})", Span(METADATA_LIMIT))]
    NoMetadata { agent: AgentName, said: String },
    #[error("agent {agent} answered action=metadata with something else")]
    BadMetadata { agent: AgentName, source: NotMetadata },
}

/// Something about an agent's configuration that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceWarning {
    #[error("fencing.agents.{agent}: option {} is not declared by {command}, which will ignore it", Quoted(option))]
    UnknownOption { agent: AgentName, command: String, option: String },
    #[error("fencing.agents.{agent}: {command} needs option {} for every target", Quoted(option))]
    MissingOption { agent: AgentName, command: String, option: String },
    #[error("fencing.agents.{agent}: {command} has no action {}", Quoted(action))]
    NoAction { agent: AgentName, command: String, action: &'static str },
    #[error("fencing.agents.{agent}: {problem}")]
    Unusable { agent: AgentName, problem: String },
}

/// One device: its turn, and how many urgent actions wait for it.
struct Device {
    turn: tokio::sync::Mutex<()>,
    urgent: watch::Sender<usize>,
}

/// Counts an urgent action for as long as it waits or runs.
struct Urgent<'a>(&'a watch::Sender<usize>);

impl<'a> Urgent<'a> {
    fn announce(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Urgent(count)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Runs fence agents. One for a daemon: it knows which devices are busy.
pub struct Runner {
    agents: BTreeMap<AgentName, Agent>,
    leashes: Leashes,
    devices: Mutex<BTreeMap<String, Arc<Device>>>,
    metadata: Mutex<BTreeMap<AgentName, Arc<Metadata>>>,
}

impl Runner {
    /// For the agents of a configuration.
    pub fn new(config: Arc<Config>) -> Runner {
        Runner::with_agents(config.fencing.agents.clone(), Leashes::of(&config))
    }

    /// For these agents, leashed so.
    pub fn with_agents(agents: BTreeMap<AgentName, Agent>, leashes: Leashes) -> Runner {
        Runner { agents, leashes, devices: Mutex::default(), metadata: Mutex::default() }
    }

    /// Runs one order to its end, at most `tries` times (at least once) within its deadline; waiting for the device
    /// counts, and so do the pauses. Dropping the future kills the agent. Every ending is an outcome.
    pub async fn run(&self, order: &AgentOrder, tries: u32) -> AgentRun {
        let begun = Instant::now();
        let mut run = AgentRun { outcome: AgentOutcome::NotRun, tries: 0, took: Duration::ZERO, output: String::new() };
        match self.prepare(order, begun + order.deadline).await {
            Ok(job) => {
                let device = self.device(order);
                attempt(&job, &self.leashes, &device, tries.max(1), &mut run).await;
            }
            Err(error) => run.output = with_causes(&error),
        }
        let metadata = self.metadata.lock().expect("no holder of this lock can panic").get(&order.agent).cloned();
        let declares = |option: &str| metadata.as_ref().is_some_and(|metadata| metadata.is_secret(option));
        run.output = Secrets::of(&order.options, declares).remove_from(&run.output);
        run.took = begun.elapsed();
        run
    }

    /// What the agent says about itself; asked once. Ask at start (or call [`Runner::check`]), so that the first
    /// `off` need not.
    pub async fn metadata(&self, agent: &AgentName) -> Result<Arc<Metadata>, FenceError> {
        self.metadata_within(agent, METADATA_LIMIT).await
    }

    /// Asks every agent to describe itself and compares that with the configuration.
    pub async fn check(&self) -> Vec<FenceWarning> {
        let mut warnings = Vec::new();
        for (name, agent) in &self.agents {
            let metadata = match self.metadata(name).await {
                Ok(metadata) => metadata,
                Err(error) => {
                    warnings.push(FenceWarning::Unusable { agent: name.clone(), problem: with_causes(&error) });
                    continue;
                }
            };
            let command = agent.command.display().to_string();
            let per_node = || agent.node.values().flat_map(|options| options.keys());
            let options: BTreeSet<&String> = agent.options.keys().chain(per_node()).collect();
            for option in options.into_iter().filter(|option| !metadata.knows(option)) {
                let (agent, command, option) = (name.clone(), command.clone(), option.clone());
                warnings.push(FenceWarning::UnknownOption { agent, command, option });
            }
            let given = |option: &String| {
                let everywhere = !agent.node.is_empty() && agent.node.values().all(|o| o.contains_key(option));
                agent.options.contains_key(option) || everywhere || OF_THE_RUNNER.contains(&option.as_str())
            };
            for parameter in metadata.parameters.iter().filter(|p| p.required && !p.deprecated && !given(&p.name)) {
                let (agent, command, option) = (name.clone(), command.clone(), parameter.name.clone());
                warnings.push(FenceWarning::MissingOption { agent, command, option });
            }
            for action in ["on", "off", "status", "monitor"].into_iter().filter(|action| !metadata.offers(action)) {
                warnings.push(FenceWarning::NoAction { agent: name.clone(), command: command.clone(), action });
            }
        }
        warnings
    }

    async fn metadata_within(&self, agent: &AgentName, limit: Duration) -> Result<Arc<Metadata>, FenceError> {
        if let Some(known) = self.metadata.lock().expect("no holder of this lock can panic").get(agent) {
            return Ok(known.clone());
        }
        let program = self.program(agent)?;
        let start = |source| FenceError::Start { agent: agent.clone(), source };
        let name = RunName { fence: None, action: AgentAction::Metadata, agent: agent.clone(), target: None };
        let finished = process::run(&program, "action=metadata\n", limit, &self.leashes, &name).await.map_err(start)?;
        if !matches!(finished.end, End::Exited(0)) {
            let said = last_lines(&finished.stdout, &finished.stderr)
                .lines()
                .next_back()
                .unwrap_or("it said nothing")
                .to_owned();
            return Err(FenceError::NoMetadata { agent: agent.clone(), said });
        }
        let bad = |source| FenceError::BadMetadata { agent: agent.clone(), source };
        let metadata = Arc::new(Metadata::parse(&finished.stdout).map_err(bad)?);
        let mut known = self.metadata.lock().expect("no holder of this lock can panic");
        known.insert(agent.clone(), metadata.clone());
        Ok(metadata)
    }

    fn program(&self, agent: &AgentName) -> Result<PathBuf, FenceError> {
        let unknown = || FenceError::UnknownAgent { agent: agent.clone() };
        let command = &self.agents.get(agent).ok_or_else(unknown)?.command;
        find_program(command).ok_or_else(|| FenceError::NoProgram { command: command.clone() })
    }

    /// Finds the program and writes its whole input.
    async fn prepare(&self, order: &AgentOrder, deadline: Instant) -> Result<Job, FenceError> {
        let program = self.program(&order.agent)?;
        let limit = METADATA_LIMIT.min(order.deadline / 2);
        let metadata = match needs_metadata(order) {
            true => self.metadata_within(&order.agent, limit).await.inspect_err(|error| {
                tracing::warn!(agent = %order.agent, "no metadata, so nothing is offered: {}", with_causes(error));
            }),
            false => Ok(Arc::default()),
        };
        let input = input(order, &metadata.unwrap_or_default())?;
        let gives_way = matches!(order.action, AgentAction::Monitor | AgentAction::Status | AgentAction::InForce);
        let (agent, target) = (order.agent.clone(), Some(order.target.clone()));
        let name = RunName { fence: order.fence, action: order.action, agent, target };
        Ok(Job { program, input, name, gives_way, deadline })
    }

    fn device(&self, order: &AgentOrder) -> Arc<Device> {
        let own = order.options.iter().filter(|(name, _)| !name.starts_with(OFFER));
        let options: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
        let key = format!("{}\n{}", order.agent, options.join("\n"));
        let mut devices = self.devices.lock().expect("no holder of this lock can panic");
        let new = || Arc::new(Device { turn: tokio::sync::Mutex::new(()), urgent: watch::Sender::new(0) });
        devices.entry(key).or_insert_with(new).clone()
    }
}

/// One prepared run.
struct Job {
    program: PathBuf,
    input: String,
    name: RunName,
    /// Whether it gives way to `on` and `off`.
    gives_way: bool,
    deadline: Instant,
}

/// Runs the agent, again and again while it fails and tries and time are left.
async fn attempt(job: &Job, leashes: &Leashes, device: &Device, tries: u32, run: &mut AgentRun) {
    let _announced = (!job.gives_way).then(|| Urgent::announce(&device.urgent));
    let mut urgent = device.urgent.subscribe();
    loop {
        let turn = async {
            if job.gives_way {
                // The sender lives in `device`, so this can only end because nobody urgent is left.
                let _ = urgent.wait_for(|count| *count == 0).await;
            }
            device.turn.lock().await
        };
        let Ok(_turn) = tokio::time::timeout_at(job.deadline, turn).await else {
            if run.tries == 0 {
                run.output = "another action held the device until the deadline; nothing was started".to_owned();
            }
            return;
        };
        while run.tries < tries {
            let pause = pause_after(run.tries);
            let left = job.deadline.saturating_duration_since(Instant::now());
            if left <= pause {
                return;
            }
            let finished = tokio::select! {
                biased;
                _ = urgent.wait_for(|count| *count > 0), if job.gives_way => None,
                finished = try_once(job, leashes, pause) => Some(finished),
            };
            let Some(finished) = finished else { break };
            run.tries += 1;
            if !record(job.name.action, finished, run) {
                return;
            }
        }
        if run.tries >= tries {
            return;
        }
    }
}

/// How long to wait when so many tries have failed: a device that refuses at once is not asked in a tight loop.
fn pause_after(failed: u32) -> Duration {
    match failed {
        0 => Duration::ZERO,
        _ => (FIRST_PAUSE * 2u32.pow((failed - 1).min(16))).min(LONGEST_PAUSE),
    }
}

async fn try_once(job: &Job, leashes: &Leashes, pause: Duration) -> Result<Finished, StartError> {
    tokio::time::sleep(pause).await;
    let left = job.deadline.saturating_duration_since(Instant::now());
    process::run(&job.program, &job.input, left, leashes, &job.name).await
}

/// Writes one try into the run. Returns whether another try could help.
fn record(action: AgentAction, finished: Result<Finished, StartError>, run: &mut AgentRun) -> bool {
    let finished = match finished {
        Ok(finished) => finished,
        Err(error) => {
            run.outcome = AgentOutcome::NotRun;
            run.output = with_causes(&error);
            return true;
        }
    };
    run.outcome = match (finished.end, action) {
        (End::TimedOut, _) => AgentOutcome::TimedOut,
        (End::Exited(0), _) => AgentOutcome::Succeeded,
        (End::Exited(2), AgentAction::Status | AgentAction::Monitor) => AgentOutcome::IsOff,
        (End::Exited(status), _) => AgentOutcome::Failed { status },
    };
    let mut said = match action {
        AgentAction::InForce => all_lines(&finished.stdout, &finished.stderr),
        _ => last_lines(&finished.stdout, &finished.stderr),
    };
    let has_failed = matches!(run.outcome, AgentOutcome::Failed { .. });
    if let Some(meaning) = what_it_means(&said).filter(|_| has_failed) {
        said.push_str(&format!("\n{meaning}"));
    }
    // A try that the deadline cut off says nothing, mostly: why those before it failed stays.
    if run.outcome != AgentOutcome::TimedOut || !said.is_empty() {
        run.output = said;
    }
    has_failed
}

/// Options that the runner itself fills in, so that a configuration need not.
const OF_THE_RUNNER: [&str; 4] = ["action", "nodename", "port", "plug"];

/// Whether what is handed over depends on what the agent declares.
fn needs_metadata(order: &AgentOrder) -> bool {
    order.options.keys().any(|name| name.starts_with(OFFER)) || wants_host_argument(order)
}

/// Pacemaker's rule: an action on a target names it in `port` or `plug`, unless the configuration does.
fn wants_host_argument(order: &AgentOrder) -> bool {
    let on_target = matches!(order.action, AgentAction::On | AgentAction::Off | AgentAction::Status);
    on_target && !order.options.contains_key("port") && !order.options.contains_key("plug")
}

/// The lines of the agent's standard input, `action` first.
fn input(order: &AgentOrder, metadata: &Metadata) -> Result<String, FenceError> {
    let mut text = format!("action={}\n", order.action.word());
    let mut add = |name: &str, value: &str| {
        if name.is_empty() || name.contains(['=', '\n', ' ', '#']) || value.contains('\n') {
            return Err(FenceError::BadOption { agent: order.agent.clone(), option: name.to_owned() });
        }
        text.push_str(&format!("{name}={value}\n"));
        Ok(())
    };
    add("nodename", order.target.as_str())?;
    if wants_host_argument(order)
        && let Some(argument) = ["port", "plug"].into_iter().find(|name| metadata.knows(name))
    {
        add(argument, order.target.as_str())?;
    }
    for (name, value) in &order.options {
        match name.strip_prefix(OFFER) {
            None if OF_THE_RUNNER[..2].contains(&name.as_str()) => {}
            None => add(name, value)?,
            Some(offered) if order.options.contains_key(offered) || !metadata.knows(offered) => {}
            Some(offered) => add(offered, value)?,
        }
    }
    Ok(text)
}

/// A path as it is; a name in regent's own folder, beside the running program, in /usr/sbin, in PATH.
fn find_program(command: &Path) -> Option<PathBuf> {
    if command.is_absolute() {
        return is_executable(command).then(|| command.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    [PathBuf::from(LIBRARY)]
        .into_iter()
        .chain(beside)
        .chain([PathBuf::from("/usr/sbin")])
        .chain(std::env::split_paths(&path).filter(|folder| folder.is_absolute()))
        .map(|folder| folder.join(command))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    let executable = |about: std::fs::Metadata| about.is_file() && about.permissions().mode() & 0o111 != 0;
    std::fs::metadata(path).is_ok_and(executable)
}
