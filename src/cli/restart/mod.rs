//! `regent restart`: a database is restarted in place, or all of a service one after another. Each restart is an order in
//! the ledger, which outlives this program; this program asks for the next one when the last is done (`rolling.rs`), so it
//! may be run again at any time and does what is left.
//!
//! Not here: whether a restart may begin (the leader refuses), and carrying it out (`plan/keeper/ordered.rs`).

mod rolling;

use super::exit::UsageError;
use super::verb::{self, Waiting, ask_status, finish};
use super::{Common, Exit, confirm, locate};
use crate::api::admin::{Request, Response};
use crate::api::client;
use crate::api::status::{DatabaseStatus, Phase, ServiceStatus, Status};
use crate::types::{DbState, Epoch, NodeName, ServiceName, Span};
use rolling::{Next, Which};
use std::collections::BTreeSet;
use std::time::Duration;

/// The pause between two looks at how far it is.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// A standby that lacks no more has caught up: as much as a candidate may lack by default.
const CAUGHT_UP: u64 = 16 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Restart the database of this node alone
    #[arg(long, value_name = "NODE", required_unless_present = "rolling", conflicts_with = "rolling")]
    node: Option<NodeName>,
    /// Restart those that wait for it: the standbys one after another, then a switchover, which restarts the old primary
    #[arg(long)]
    rolling: bool,
    /// With --rolling: all, and not only those with a pending restart
    #[arg(long, requires = "rolling", conflicts_with = "pending")]
    all: bool,
    /// With --node: only if a restart is pending there
    #[arg(long)]
    pending: bool,
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Show what would be done, in order, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Although nobody could take over meanwhile
    #[arg(long)]
    force: bool,
    /// With --node: take back an order that has not been carried out
    #[arg(long, requires = "node", conflicts_with_all = ["dry_run", "force", "pending"])]
    cancel: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    let status = ask_status(common)?;
    let name = the_service(&status, arguments.service.as_ref())?;
    if let (Some(node), true) = (&arguments.node, arguments.cancel) {
        let request = Request::Restart { service: Some(name), node: node.clone(), force: false, cancel: true };
        return verb::perform(common, &arguments.waiting, &request);
    }
    let which = match &arguments.node {
        Some(node) => Which::One { node: node.clone(), pending: arguments.pending },
        None => Which::Rolling { all: arguments.all },
    };
    if let Which::One { node, .. } = &which
        && !status.services[&name].databases.contains_key(node)
    {
        return Err(UsageError(format!("{node} has no database of {name}")).into());
    }
    let steps = rolling::steps(&status.services[&name], &which);
    if arguments.dry_run {
        return finish(common, &Response::Plan { steps, checks: Vec::new() });
    }
    if !asked(&status.services[&name], &which, arguments.yes)? {
        return Ok(Exit::Failed);
    }
    let session = Session { common, name, force: arguments.force, timeout: arguments.waiting.timeout() };
    let ended = session.all(&which)?;
    finish(common, &ended)
}

fn the_service(status: &Status, named: Option<&ServiceName>) -> anyhow::Result<ServiceName> {
    let all: Vec<&str> = status.services.keys().map(|name| name.as_str()).collect();
    match (named, status.services.keys().next()) {
        (Some(name), _) if status.services.contains_key(name) => Ok(name.clone()),
        (Some(name), _) => Err(UsageError(format!("there is no service {name}")).into()),
        (None, Some(only)) if all.len() == 1 => Ok(only.clone()),
        (None, _) => Err(UsageError(format!("name one with --service: {}", all.join(", "))).into()),
    }
}

/// A primary that is restarted in place serves nobody meanwhile, and a switchover is shorter where it does.
fn asked(service: &ServiceStatus, which: &Which, yes: bool) -> anyhow::Result<bool> {
    let Some(node) = rolling::in_place(service, which) else { return Ok(true) };
    let lowered = &service.databases[node].lowered;
    let more = match service.readiness.failover_ready {
        _ if !lowered.is_empty() => {
            format!(" It is restarted where it is, because no standby may have less of {} than it.", lowered.join(", "))
        }
        true => " A standby is ready: `regent switchover` is shorter, and restarts it too.".to_owned(),
        false => String::new(),
    };
    let warning = format!("{node} is the primary: until it is up again nobody can write.{more}");
    confirm::by_typing(node.as_str(), &warning, yes)
}

/// One call of the command.
struct Session<'a> {
    common: &'a Common,
    name: ServiceName,
    force: bool,
    /// Of each step.
    timeout: Duration,
}

/// Why it does not go on: the answer that the whole command ends with.
type Ended = Result<(), Response>;

impl Session<'_> {
    fn all(&self, which: &Which) -> anyhow::Result<Response> {
        let mut done = BTreeSet::new();
        loop {
            let Some(service) = self.look()? else {
                return Ok(Response::Failed { error: format!("{} is gone", self.name) });
            };
            let ended = match rolling::next(&service, which, &done) {
                Next::Finished => return Ok(told(&done)),
                Next::Stops(why) if done.is_empty() => return Ok(Response::Refused { reasons: vec![why] }),
                Next::Stops(error) => return Ok(Response::Failed { error }),
                Next::Restart(node) => {
                    done.insert(node.clone());
                    self.restart(&service, &node)?
                }
                Next::Move { from } => {
                    done.insert(from.clone());
                    self.moves(&from)?
                }
            };
            if let Err(response) = ended {
                return Ok(response);
            }
        }
    }

    fn restart(&self, before: &ServiceStatus, node: &NodeName) -> anyhow::Result<Ended> {
        let role = if before.primary.as_ref() == Some(node) { "the primary" } else { "a standby" };
        self.tell(&format!("restarting {node}, {role}"));
        let service = Some(self.name.clone());
        let order = Request::Restart { service, node: node.clone(), force: self.force, cancel: false };
        match self.ask(&order)? {
            Response::Done { .. } => {}
            other => return Ok(Err(other)),
        }
        // After a primary those that streamed from it come back to it, and none is restarted before.
        let is_primary = before.primary.as_ref() == Some(node);
        let streamed = |database: &DatabaseStatus| is_primary && database.streams_from.as_ref() == Some(node);
        let with: Vec<&NodeName> = before.databases.iter().filter(|(_, d)| streamed(d)).map(|(name, _)| name).collect();
        self.wait(node, |service| match service.epoch == before.epoch {
            true => Ok(is_back(service, node) && with.iter().all(|other| is_back(service, other))),
            false => Err(moved(before.epoch, service, node)),
        })
    }

    fn moves(&self, from: &NodeName) -> anyhow::Result<Ended> {
        self.tell(&format!("moving the primary away from {from}, which restarts it"));
        match self.ask(&Request::Switchover { service: Some(self.name.clone()), to: None, dry_run: false })? {
            Response::Done { message, .. } => self.tell(&message),
            Response::Refused { mut reasons } => {
                let place =
                    format!("`regent restart --node {from}` restarts it where it is; nobody can write meanwhile");
                reasons.push(place);
                return Ok(Err(Response::Refused { reasons }));
            }
            other => return Ok(Err(other)),
        }
        self.wait(from, |service| Ok(is_back(service, from)))
    }

    /// Until `node` is back, telling what is seen of it. What is seen late, or not at all for a moment, holds nothing up.
    fn wait(&self, node: &NodeName, back: impl Fn(&ServiceStatus) -> Result<bool, String>) -> anyhow::Result<Ended> {
        let begun = crate::clock::now();
        let mut last = String::new();
        loop {
            if let Ok(Some(service)) = self.look() {
                match back(&service) {
                    Ok(true) => {
                        self.tell(&format!("{node} is back after {} s", crate::clock::now().since(begun).as_secs()));
                        return Ok(Ok(()));
                    }
                    Ok(false) => {}
                    Err(error) => return Ok(Err(Response::Failed { error })),
                }
                let seen = service.databases.get(node).map(|database| in_words(&service, node, database));
                if let Some(words) = seen.filter(|words| *words != last) {
                    self.tell(&words);
                    last = words;
                }
            }
            if crate::clock::now().since(begun) > self.timeout {
                return Ok(Err(Response::Failed {
                    error: format!(
                        "{node} is not back after {}; {last}. Nothing further is restarted. The order stands: the same \
                         command goes on, `regent restart --node {node} --cancel` takes it back",
                        Span(self.timeout)
                    ),
                }));
            }
            std::thread::sleep(LOOKS_EVERY);
        }
    }

    fn look(&self) -> anyhow::Result<Option<ServiceStatus>> {
        Ok(ask_status(self.common)?.services.remove(&self.name))
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        let socket = locate::socket(self.common)?;
        let tell = |message: &str| self.tell(message);
        verb::block_on(async { Ok(client::ask(&socket, request, self.timeout, tell).await?) })
    }

    fn tell(&self, message: &str) {
        verb::tell(self.common, message);
    }
}

fn told(done: &BTreeSet<NodeName>) -> Response {
    let message = match done.len() {
        0 => "nothing is to be restarted".to_owned(),
        _ => format!("restarted: {}", done.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(", ")),
    };
    Response::Done { message, details: Vec::new() }
}

/// Whether its order is carried out, and it is what it was: a primary that takes writes, or a standby that streams and has
/// caught up.
fn is_back(service: &ServiceStatus, node: &NodeName) -> bool {
    let Some(database) = service.databases.get(node) else { return false };
    let runs = match service.primary.as_ref() == Some(node) {
        true => database.state == DbState::Primary && service.takes_writes == Some(true),
        false => {
            let streams = database.state == DbState::Standby && database.streams_from.is_some();
            streams && database.lag_bytes.is_some_and(|lag| lag <= CAUGHT_UP)
        }
    };
    runs && database.restart_ordered.is_none() && service.phase == Phase::Installed
}

/// A failure came between: the order ended with its epoch.
fn moved(before: Epoch, now: &ServiceStatus, node: &NodeName) -> String {
    let primary = now.primary.as_ref().map_or("nobody", |primary| primary.as_str());
    format!(
        "while {node} was restarted epoch {before} ended; {primary} holds epoch {} (`regent explain` tells why). Nothing \
         further is restarted",
        now.epoch
    )
}

fn in_words(service: &ServiceStatus, node: &NodeName, database: &DatabaseStatus) -> String {
    let ordered =
        if database.restart_ordered.is_some() { "its restart is ordered" } else { "waiting until it is back" };
    let trouble = database.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let streams = match (&database.streams_from, service.primary.as_ref() == Some(node)) {
        (None, false) if database.state == DbState::Standby => ", does not stream yet",
        _ => "",
    };
    format!("{node}: {ordered}, database {}{streams}{trouble}", database.state)
}
