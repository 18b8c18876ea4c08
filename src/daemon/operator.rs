//! What operators ask for: turned into a proposal on the leader, followed until it has ended, told as it goes. Refused
//! with every reason before anything is touched.

use super::Daemon;
use super::report;
use super::wakeup::{Call, CallReply, Submitted};
use crate::api::admin::{Request, Response};
use crate::clock;
use crate::ledger::{self, Answer, Command, FenceReason, FenceState, Incident, Outcome, Shared};
use crate::node::{Event, Node};
use crate::pages;
use crate::plan::accepted_copy;
use crate::plan::fencing;
use crate::plan::maintenance;
use crate::plan::restart;
use crate::plan::switchover::{self, Switchover};
use crate::plan::{known_end, lacks};
use crate::types::{IncidentId, NodeName, ServiceName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// How long the leader may take to answer a request that was passed on.
const RELAY_DEADLINE: Duration = Duration::from_secs(10);

/// Requests that were begun and whose end is waited for.
#[derive(Default)]
pub struct Operators {
    last: u64,
    /// Those whose command is on its way to the ledger, by its number.
    waiting: BTreeMap<u64, Asked>,
    followed: Vec<Followed>,
    passed_on: Vec<PassedOn>,
}

struct Asked {
    reply: mpsc::Sender<Response>,
    /// The node that a planned move was asked to make the primary.
    wanted: Option<NodeName>,
    /// What follows an order that is done with its entry.
    then: Option<String>,
}

struct Followed {
    incident: IncidentId,
    told: u64,
    asked: Asked,
}

/// A request that the leader works on, which answers once: how it gets on stands in everybody's ledger.
struct PassedOn {
    reply: mpsc::Sender<Response>,
    /// The newest incident when it was passed on.
    after: Option<IncidentId>,
    /// Of each that was opened since, how much was told.
    told: BTreeMap<IncidentId, u64>,
}

impl PassedOn {
    /// Tells what has happened since. Whether anybody still listens.
    fn tell(&mut self, incidents: &BTreeMap<IncidentId, Shared<Incident>>) -> bool {
        for (id, incident) in incidents.iter().filter(|(id, _)| Some(**id) > self.after) {
            let told = self.told.insert(*id, incident.recorded());
            if told.is_none() {
                answer(&self.reply, Response::progress(format!("incident {id} is open")));
            }
            for step in incident.steps_after(told.unwrap_or_default()) {
                answer(&self.reply, Response::progress(step.what.to_string()));
            }
        }
        !self.reply.is_closed()
    }
}

/// What a request comes to.
enum Begin {
    Answer(Response),
    Propose(Command),
    /// The databases are asked first.
    DryRun(Switchover),
}

/// Answers go to a peer as one final response.
pub(super) fn relay_reply(reply: CallReply) -> mpsc::Sender<Response> {
    let (sender, mut responses) = mpsc::channel::<Response>(64);
    tokio::spawn(async move {
        while let Some(response) = responses.recv().await {
            if response.is_final() {
                // The asker may be gone: then nobody misses the answer.
                let _ = reply.send(serde_json::to_vec(&response).expect("plain data"));
                return;
            }
        }
    });
    sender
}

/// Answers that were dropped, because whoever asked did not read those before.
static UNDELIVERED: AtomicU64 = AtomicU64::new(0);

pub(super) fn undelivered() -> u64 {
    UNDELIVERED.load(Ordering::Relaxed)
}

/// Never waits: a client that does not read, or is gone, cancels nothing and holds up nothing.
pub(super) fn answer(reply: &mpsc::Sender<Response>, response: Response) {
    if let Err(TrySendError::Full(_)) = reply.try_send(response) {
        UNDELIVERED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Daemon {
    pub(super) fn operate(&mut self, request: Request, who: String, reply: mpsc::Sender<Response>) {
        match &request {
            Request::Status => {
                let status = report::status(self);
                return answer(&reply, Response::Status(Box::new(status)));
            }
            Request::History => {
                let incidents =
                    self.node.state().incidents.values().rev().map(|incident| pages::summary(incident)).collect();
                return answer(&reply, Response::History { incidents });
            }
            Request::Reload => return self.reload(reply),
            Request::Explain { incident } => return answer(&reply, self.explain(*incident)),
            _ => {}
        }
        if self.node.leads().is_none() {
            return self.pass_on(request, who, reply);
        }
        match begin(&self.node, &request, who) {
            Begin::Answer(response) => answer(&reply, response),
            Begin::DryRun(planned) => self.dry_run(planned, reply),
            Begin::Propose(command) => {
                let then = follows(&request);
                let wanted = match request {
                    Request::Switchover { to, .. } | Request::AcceptLoss { to, .. } => to,
                    Request::AcceptCopy { node, .. } => node,
                    _ => None,
                };
                let number = self.operators.waits(Asked { reply, wanted, then });
                self.handle(Event::Submitted { number, command: Box::new(command) });
            }
        }
    }

    fn explain(&self, incident: Option<IncidentId>) -> Response {
        let incidents = &self.node.state().incidents;
        let found = match incident {
            Some(id) => incidents.get(&id),
            None => incidents.values().next_back(),
        };
        match (found, incident) {
            (Some(found), _) => Response::Incident(Box::new(pages::report(self.node.state(), found))),
            (None, Some(id)) => {
                Response::Refused { reasons: vec![format!("there is no incident {id}; `regent history` lists them")] }
            }
            (None, None) => {
                Response::Refused { reasons: vec!["nothing has happened yet: no incident is recorded".to_owned()] }
            }
        }
    }

    /// Only the leader can check and propose: the request goes there, and its answer comes back.
    fn pass_on(&mut self, request: Request, who: String, reply: mpsc::Sender<Response>) {
        let Some(leader) = self.node.leader().1.filter(|l| **l != self.config.node).cloned() else {
            let reasons = vec!["no leader is known: without a majority of voters nothing can be decided".to_owned()];
            return answer(&reply, Response::Refused { reasons });
        };
        answer(&reply, Response::progress(format!("asking {leader}, which leads")));
        if is_followed(&request) {
            let after = self.node.state().incidents.keys().next_back().copied();
            self.operators.passed_on.push(PassedOn { reply: reply.clone(), after, told: BTreeMap::new() });
        }
        let consensus = self.consensus.clone();
        let patience = if request.changes_something() { Duration::from_secs(600) } else { RELAY_DEADLINE };
        tokio::spawn(async move {
            let body = serde_json::to_vec(&Call::Operator { request, who }).expect("plain data");
            let response = match consensus.call(&leader, body, patience).await {
                Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| Response::Failed {
                    error: format!("{leader} answered in words of another version: {e}"),
                }),
                Err(error) => Response::Failed {
                    error: format!("{leader} did not answer: {error}; look at `regent status` for what became of it"),
                },
            };
            answer(&reply, response);
        });
    }
}

/// The command that a request comes to, or why not.
fn begin(node: &Node, request: &Request, who: String) -> Begin {
    let refuse = |why: String| Begin::Answer(Response::Refused { reasons: vec![why] });
    match request {
        Request::Switchover { service, to, dry_run } => {
            let name = match the_service(node, service.as_ref()) {
                Ok(name) => name,
                Err(why) => return refuse(why),
            };
            switchover(node, &name, to.as_ref(), *dry_run, who)
        }
        Request::Failover { service, force } => {
            let name = match the_service(node, service.as_ref()) {
                Ok(name) => name,
                Err(why) => return refuse(why),
            };
            match node.state().services.get(&name).and_then(|s| s.holder.as_ref()) {
                Some(holder) => open_fence(node, &holder.node, *force, who),
                None => refuse(format!("{name} has no primary to fail over from")),
            }
        }
        Request::AcceptLoss { service, to } => match the_service(node, service.as_ref()) {
            Ok(service) => accept_loss(node, service, to.clone(), who),
            Err(why) => refuse(why),
        },
        Request::Reinit { service, node: target, cancel } => match the_service(node, service.as_ref()) {
            Ok(service) => {
                let epoch = node.state().services[&service].epoch;
                Begin::Propose(Command::Reinit { service, epoch, node: target.clone(), who, cancel: *cancel })
            }
            Err(why) => refuse(why),
        },
        Request::Restart { service, node: target, force, cancel } => match the_service(node, service.as_ref()) {
            Ok(service) => restart(node, service, target, (*force, *cancel), who),
            Err(why) => refuse(why),
        },
        Request::AcceptCopy { service, node: of, dry_run } => match the_service(node, service.as_ref()) {
            Ok(service) => accept_copy(node, service, of.clone(), *dry_run, who),
            Err(why) => refuse(why),
        },
        Request::Pause { service, reason, lasts_ms } => match the_service(node, service.as_ref()) {
            Ok(service) => {
                let (why, lasts) = (reason.clone(), lasts_ms.map(Duration::from_millis));
                Begin::Propose(Command::Pause { service, who, why, lasts })
            }
            Err(why) => refuse(why),
        },
        Request::Resume { service } => match the_service(node, service.as_ref()) {
            Ok(service) => Begin::Propose(Command::Resume { service, who, number: None }),
            Err(why) => refuse(why),
        },
        Request::Maintenance { node: target, lasts_ms, force } => {
            maintenance(node, target, lasts_ms.map(Duration::from_millis), *force, who)
        }
        Request::EndMaintenance { node: target } => {
            Begin::Propose(Command::EndMaintenance { node: target.clone(), number: None, who })
        }
        Request::Fence { node: target, force } => open_fence(node, target, *force, who),
        Request::FenceConfirm { node: target, incident, force } => confirm(node, target, *incident, *force, who),
        Request::Unfence { node: target } => unfence(node, target, who),
        Request::Status | Request::Reload | Request::History | Request::Explain { .. } => {
            refuse("not a request for the leader".to_owned())
        }
    }
}

fn the_service(node: &Node, named: Option<&ServiceName>) -> Result<ServiceName, String> {
    let state = node.state();
    let all: Vec<_> = state.services.keys().collect();
    match (named, all.as_slice()) {
        (Some(name), all) if all.contains(&name) => Ok(name.clone()),
        (Some(name), _) => Err(format!("there is no service {name} yet")),
        (None, [only]) => Ok((*only).clone()),
        (None, []) => Err("there is no service yet".to_owned()),
        (None, all) => {
            let names: Vec<_> = all.iter().map(|n| n.as_str()).collect();
            Err(format!("there are several services, name one with --service: {}", names.join(", ")))
        }
    }
}

fn switchover(node: &Node, name: &ServiceName, to: Option<&NodeName>, dry_run: bool, who: String) -> Begin {
    let decided = switchover::decide(&node.outlook(clock::now()), name, to);
    match decided {
        Ok(planned) if dry_run => Begin::DryRun(planned),
        Err(why) if dry_run => Begin::Answer(pages::refused_dry_run(&why)),
        Ok(planned) => {
            let (service, epoch, to) = (planned.service, planned.epoch, Some(planned.to));
            Begin::Propose(Command::Switchover { service, epoch, to, who })
        }
        Err(why) => Begin::Answer(Response::Refused { reasons: why.iter().map(ToString::to_string).collect() }),
    }
}

/// With how much that would lose, by what is heard of whoever lacks least.
fn accept_loss(node: &Node, service: ServiceName, to: Option<NodeName>, who: String) -> Begin {
    let outlook = node.outlook(clock::now());
    let Some(record) = outlook.state.services.get(&service) else {
        return Begin::Answer(Response::Refused { reasons: vec![format!("there is no service {service} yet")] });
    };
    let known = known_end(&outlook, &service);
    let has = |node: &NodeName| outlook.database(node, &service).map(|database| database.position);
    let others = outlook.state.settings.iter().flat_map(|settings| settings.database_nodes());
    let holder = record.holder.as_ref().map(|holder| &holder.node);
    let candidates = others.filter(|node| to.as_ref().map_or(Some(*node) != holder, |to| to == *node));
    let bytes = known.and_then(|known| candidates.filter_map(has).map(|has| lacks(record, known.end, has)).min());
    Begin::Propose(Command::AcceptLoss { epoch: record.epoch, service, to, bytes, who })
}

/// What would happen, or the word itself, with how much that gives up.
fn accept_copy(node: &Node, service: ServiceName, of: Option<NodeName>, dry_run: bool, who: String) -> Begin {
    let outlook = node.outlook(clock::now());
    let epoch = outlook.state.services[&service].epoch;
    let Some(of) = of else {
        return Begin::Propose(Command::AcceptCopy { service, epoch, node: None, bytes: None, who });
    };
    let planned = accepted_copy::decide(&outlook, &service, &of);
    match (planned, dry_run) {
        (planned, true) => Begin::Answer(pages::accepted_copy(&planned)),
        (Ok(planned), false) => {
            Begin::Propose(Command::AcceptCopy { service, epoch, node: Some(of), bytes: planned.given_up, who })
        }
        (Err(why), false) => {
            Begin::Answer(Response::Refused { reasons: why.iter().map(ToString::to_string).collect() })
        }
    }
}

/// Refused where nobody could take over meanwhile, unless forced.
fn restart(node: &Node, service: ServiceName, target: &NodeName, (force, cancel): (bool, bool), who: String) -> Begin {
    let cost = restart::cost(&node.outlook(clock::now()), &service, target);
    if let Some(cost) = cost.filter(|_| !force && !cancel) {
        let forced = "--force restarts it all the same".to_owned();
        return Begin::Answer(Response::Refused { reasons: vec![cost.to_string(), forced] });
    }
    let epoch = node.state().services[&service].epoch;
    Begin::Propose(Command::Restart { service, epoch, node: target.clone(), who, cancel })
}

/// Refused where the last margin would go with the node, unless forced.
fn maintenance(node: &Node, target: &NodeName, lasts: Option<Duration>, force: bool, who: String) -> Begin {
    let costs = maintenance::costs(&node.outlook(clock::now()), target);
    if !force && !costs.is_empty() {
        let forced = "--force takes it into maintenance all the same".to_owned();
        let reasons = costs.iter().map(ToString::to_string).chain([forced]).collect();
        return Begin::Answer(Response::Refused { reasons });
    }
    Begin::Propose(Command::Maintenance { node: target.clone(), who, lasts })
}

/// Refused where the quorum would be shot with it, unless forced: nothing could be confirmed then, nor taken back.
fn open_fence(node: &Node, target: &NodeName, force: bool, who: String) -> Begin {
    if !force && node.outlook(clock::now()).needs_for_majority(target) {
        let why = format!(
            "without {target} no majority of voters would be left: its fence could not be confirmed, and nobody could take \
             over (--force fences it all the same)"
        );
        return Begin::Answer(Response::Refused { reasons: vec![why] });
    }
    match node.state().nodes.get(target) {
        Some(record) => Begin::Propose(Command::OpenFence {
            target: target.clone(),
            boot: record.boot.clone(),
            reason: FenceReason::Operator { who },
        }),
        None => Begin::Answer(Response::Refused { reasons: vec![format!("{target} has not joined this cluster")] }),
    }
}

/// Refused while any sign of life shows, unless forced, which is recorded.
fn confirm(node: &Node, target: &NodeName, incident: IncidentId, force: bool, who: String) -> Begin {
    if let Err(refusal) = fencing::may_vouch(&node.outlook(clock::now()), target, force) {
        return Begin::Answer(Response::Refused { reasons: vec![refusal.to_string()] });
    }
    Begin::Propose(Command::HumanConfirm { incident, target: target.clone(), who, force })
}

fn unfence(node: &Node, target: &NodeName, who: String) -> Begin {
    let state = node.state();
    let of_it = || state.fences.values().rev().filter(|f| &f.target == target);
    let open = of_it().find(|f| matches!(f.state, FenceState::Open | FenceState::Confirmed | FenceState::Void));
    // What was lifted before and left the node off is tried again.
    let outlook = node.outlook(clock::now());
    let lives = outlook.is_living(target) && outlook.fresh(target).is_some();
    let left_off = of_it().next().filter(|f| !lives && state.may_lift_again(f.id));
    match open.or(left_off) {
        Some(fence) => Begin::Propose(Command::Lift { fence: fence.id, who, power_on: true }),
        None => Begin::Answer(Response::Refused { reasons: vec![format!("{target} is not fenced")] }),
    }
}

/// Whether the ledger opens an incident for it, whose end is its end.
fn is_followed(request: &Request) -> bool {
    match request {
        Request::Switchover { dry_run, .. } | Request::AcceptCopy { dry_run, .. } => !dry_run,
        Request::Failover { .. } | Request::AcceptLoss { .. } | Request::Fence { .. } => true,
        _ => false,
    }
}

/// What an order is waited for by, where the command ends with its entry: it is carried out after that.
fn follows(request: &Request) -> Option<String> {
    match request {
        Request::Reinit { node, cancel: false, .. } => Some(format!(
            "{node} is copied anew as soon as there is a primary to copy: `regent status` shows how far the copy is"
        )),
        Request::Unfence { node } => {
            Some(format!("{node} gets back what the fence took, and joins: `regent status` shows when it is up"))
        }
        Request::Resume { .. } => {
            Some("every node takes up what it finds: `regent status` shows what each of them waits for".to_owned())
        }
        _ => None,
    }
}

/// Why a command got no answer, and what to do.
fn unsettled(leader: Option<NodeName>) -> String {
    match leader {
        Some(leader) => format!("not done: {leader} leads now; repeat the command"),
        None => "no quorum answered in time, and nobody knows whether it is done: look at `regent status` before you \
                 repeat it"
            .to_owned(),
    }
}

impl Operators {
    /// The number under which the end of a command is told.
    fn waits(&mut self, asked: Asked) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, asked);
        self.last
    }

    /// A command came to its end: answer, or follow the incident that it opened.
    pub(super) fn told(&mut self, number: u64, result: Submitted) {
        let Some(asked) = self.waiting.remove(&number) else { return };
        let reply = &asked.reply;
        match result {
            Ok(Answer::Refused(refusal)) => answer(reply, Response::Refused { reasons: vec![refusal.to_string()] }),
            Ok(Answer::Done(event)) => match event {
                ledger::Event::SwitchoverStarted { incident }
                | ledger::Event::LossAccepted { incident }
                | ledger::Event::CopyAccepted { incident: Some(incident) }
                | ledger::Event::FenceOpened { incident, .. } => {
                    answer(reply, Response::progress(format!("incident {incident} is open")));
                    self.followed.push(Followed { incident, told: 0, asked });
                }
                ledger::Event::CopyAccepted { incident: None } => {
                    let message = "done, and in the ledger: it is carried out with `regent resume`".to_owned();
                    answer(reply, Response::Done { message, details: Vec::new() });
                }
                ledger::Event::Confirmed { fence } => answer(
                    reply,
                    Response::Done {
                        message: format!("fence {fence} is confirmed; it is checked before it is used"),
                        details: Vec::new(),
                    },
                ),
                _ => {
                    let message = "done, and in the ledger".to_owned();
                    answer(reply, Response::Done { message, details: asked.then.into_iter().collect() })
                }
            },
            Err(leader) => answer(reply, Response::Failed { error: unsettled(leader) }),
        }
    }

    /// Tells those who wait what has happened since.
    pub(super) fn follow(&mut self, node: &Node) {
        let state = node.state();
        self.passed_on.retain_mut(|passed_on| passed_on.tell(&state.incidents));
        self.followed.retain_mut(|f| {
            let Asked { reply, wanted, .. } = &f.asked;
            let Some(incident) = state.incidents.get(&f.incident) else { return !reply.is_closed() };
            for step in incident.steps_after(f.told) {
                answer(reply, Response::progress(step.what.to_string()));
            }
            f.told = incident.recorded();
            let details = Vec::new();
            let fenced = incident.services.is_empty()
                && state.fences.values().any(|x| x.incident == incident.id && x.state == FenceState::Confirmed);
            match &incident.outcome {
                Outcome::Open if fenced => {
                    let message = format!("{} is fenced", incident.subject);
                    answer(reply, Response::Done { message, details });
                }
                outcome => match ended(outcome, wanted.as_ref()) {
                    Some(response) => answer(reply, response),
                    None => return !reply.is_closed(),
                },
            }
            false
        });
    }
}

/// How an incident that somebody waits for has ended, once it has. Only the node that was asked for is what was asked for.
fn ended(outcome: &Outcome, wanted: Option<&NodeName>) -> Option<Response> {
    let error = match outcome {
        Outcome::Open => return None,
        Outcome::Moved { to, epoch } => match wanted.filter(|wanted| *wanted != to) {
            None => {
                let message = format!("{to} is primary in epoch {epoch}");
                return Some(Response::Done { message, details: Vec::new() });
            }
            Some(wanted) => format!(
                "{to} is primary in epoch {epoch}, not {wanted}: the move did not go as planned (`regent explain` tells why)"
            ),
        },
        Outcome::Stayed { on, .. } => format!(
            "{on} remains the primary: its database did not stop in order, or nobody reached its final position in time \
             (`regent explain` tells which)"
        ),
        Outcome::Ended { why } => why.clone(),
    };
    Some(Response::Failed { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_move_is_done_only_where_the_node_that_was_asked_for_is_the_primary() {
        let node = |name: &str| -> NodeName { name.parse().expect("valid") };
        let moved = Outcome::Moved { to: node("db3"), epoch: crate::types::Epoch(2) };
        assert!(matches!(ended(&moved, Some(&node("db3"))), Some(Response::Done { .. })));
        assert!(matches!(ended(&moved, None), Some(Response::Done { .. })), "whoever is best was asked for");
        let Some(Response::Failed { error }) = ended(&moved, Some(&node("db1"))) else { panic!("it is not db1") };
        assert!(error.contains("not db1"), "{error}");
        let stayed = Outcome::Stayed { on: node("db2"), epoch: crate::types::Epoch(2) };
        assert!(matches!(ended(&stayed, None), Some(Response::Failed { .. })));
        assert_eq!(ended(&Outcome::Open, None), None);
    }

    #[test]
    fn an_answer_that_nobody_reads_is_dropped_and_counted() {
        let (reply, mut reader) = mpsc::channel(2);
        let before = undelivered();
        for n in 0..5 {
            answer(&reply, Response::progress(n.to_string()));
        }
        assert_eq!(undelivered() - before, 3);
        let first = reader.try_recv().expect("what came first was delivered");
        assert_eq!(first, Response::progress("0".to_owned()));
        drop(reader);
        answer(&reply, Response::progress("to nobody".to_owned()));
        assert_eq!(undelivered() - before, 3, "a client that has gone misses nothing");
    }
}
