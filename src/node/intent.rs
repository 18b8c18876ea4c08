//! What a command wants, without the evidence that it carries: two proposals of one intent are one.
//!
//! Not here: when an intent may be proposed again (`outbox.rs`).

use crate::ledger::{Basis, Command, FenceReason, NoLease};
use crate::types::{
    AgentAction, AgentName, Boot, Epoch, FenceId, Incarnation, IncidentId, NodeName, Round, ServiceName, Term,
};
use std::time::Duration;

/// One for each command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Seed,
    /// Without its claims: those of a daemon that catches up with the log change with every entry that it applies.
    Join(NodeName, Boot, u64),
    DeclareDead(NodeName, Incarnation, Term, Round),
    /// With the term where the leader says that its holder lapsed.
    OpenFence(NodeName, Boot, Option<Term>),
    Order(FenceId, Option<u32>, u32, Term, Vec<(AgentName, AgentAction)>),
    OrderDone(FenceId, u32),
    NextLevel(FenceId, u32, u32, Term),
    HumanConfirm(IncidentId, NodeName, bool),
    Refute(FenceId, Option<u32>, u32, u32),
    Assisting(FenceId, AgentName, NodeName, Incarnation),
    Assisted(FenceId, AgentName, NodeName, AgentAction),
    Lift(FenceId),
    CloseFence(FenceId),
    Create(ServiceName, Incarnation),
    /// With the fence, and the term of its check, that it rests on.
    Appoint(ServiceName, Epoch, NodeName, Incarnation, Option<(FenceId, Term)>),
    DenyLease(ServiceName, Epoch),
    PassOver(ServiceName, Epoch, Term, NoLease),
    Promoting(ServiceName, Epoch),
    Installed(ServiceName, Epoch),
    Release(ServiceName, Epoch),
    WaitedOut(ServiceName, Epoch),
    Progress(ServiceName, Epoch),
    AcceptLoss(ServiceName, Epoch, Option<NodeName>),
    Reinit(ServiceName, Epoch, NodeName, bool),
    Restart(ServiceName, Epoch, NodeName, bool),
    Restarted(ServiceName, NodeName, u64),
    AcceptCopy(ServiceName, Epoch, Option<NodeName>),
    Switchover(ServiceName, Epoch, Option<NodeName>),
    CancelSwitchover(ServiceName, Epoch),
    Pause(ServiceName),
    Resume(ServiceName),
    Renewed(ServiceName, Incarnation, u64),
    Rejoined(ServiceName, Epoch, NodeName),
    Maintenance(NodeName, Option<Duration>),
    EndMaintenance(NodeName, Option<u64>),
    Forgive(NodeName, u32),
}

impl Intent {
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Seed { .. } => Intent::Seed,
            Command::Join { node, boot, request, .. } => Intent::Join(node.clone(), boot.clone(), *request),
            Command::DeclareDead { target, incarnation, term, round, .. } => {
                Intent::DeclareDead(target.clone(), *incarnation, *term, *round)
            }
            Command::OpenFence { target, boot, reason } => {
                let term = if let FenceReason::Lapsed { term, .. } = reason { Some(*term) } else { None };
                Intent::OpenFence(target.clone(), boot.clone(), term)
            }
            Command::Order { fence, level, round, term, orders } => {
                let orders = orders.iter().map(|o| (o.agent.clone(), o.action)).collect();
                Intent::Order(*fence, *level, *round, *term, orders)
            }
            Command::OrderDone { fence, order, .. } => Intent::OrderDone(*fence, *order),
            Command::NextLevel { fence, level, round, term, .. } => Intent::NextLevel(*fence, *level, *round, *term),
            Command::HumanConfirm { incident, target, force, .. } => {
                Intent::HumanConfirm(*incident, target.clone(), *force)
            }
            Command::Refute { fence, level, round, refuted, .. } => Intent::Refute(*fence, *level, *round, *refuted),
            Command::Assisting { fence, agent, node, incarnation } => {
                Intent::Assisting(*fence, agent.clone(), node.clone(), *incarnation)
            }
            Command::Assisted { fence, agent, node, action, .. } => {
                Intent::Assisted(*fence, agent.clone(), node.clone(), *action)
            }
            Command::Lift { fence, .. } => Intent::Lift(*fence),
            Command::CloseFence { fence } => Intent::CloseFence(*fence),
            Command::Create { service, incarnation, .. } => Intent::Create(service.clone(), *incarnation),
            Command::Appoint { service, prior, node, incarnation, basis, .. } => {
                let basis = match basis {
                    Basis::Fenced { fence, term, .. } => Some((*fence, *term)),
                    Basis::Released | Basis::PassedOver => None,
                };
                Intent::Appoint(service.clone(), *prior, node.clone(), *incarnation, basis)
            }
            Command::Promoting { service, epoch, .. } => Intent::Promoting(service.clone(), *epoch),
            Command::Installed { service, epoch, .. } => Intent::Installed(service.clone(), *epoch),
            Command::Release { service, epoch, .. } => Intent::Release(service.clone(), *epoch),
            Command::DenyLease { service, epoch } => Intent::DenyLease(service.clone(), *epoch),
            Command::PassOver { service, epoch, term, no_lease } => {
                Intent::PassOver(service.clone(), *epoch, *term, *no_lease)
            }
            Command::WaitedOut { service, epoch, .. } => Intent::WaitedOut(service.clone(), *epoch),
            Command::Progress { service, epoch, .. } => Intent::Progress(service.clone(), *epoch),
            Command::AcceptLoss { service, epoch, to, .. } => Intent::AcceptLoss(service.clone(), *epoch, to.clone()),
            Command::Reinit { service, epoch, node, cancel, .. } => {
                Intent::Reinit(service.clone(), *epoch, node.clone(), *cancel)
            }
            Command::Restart { service, epoch, node, cancel, .. } => {
                Intent::Restart(service.clone(), *epoch, node.clone(), *cancel)
            }
            Command::Restarted { service, node, order } => Intent::Restarted(service.clone(), node.clone(), *order),
            Command::AcceptCopy { service, epoch, node, .. } => {
                Intent::AcceptCopy(service.clone(), *epoch, node.clone())
            }
            Command::Switchover { service, epoch, to, .. } => Intent::Switchover(service.clone(), *epoch, to.clone()),
            Command::CancelSwitchover { service, epoch, .. } => Intent::CancelSwitchover(service.clone(), *epoch),
            Command::Pause { service, .. } => Intent::Pause(service.clone()),
            Command::Resume { service, .. } => Intent::Resume(service.clone()),
            Command::Renewed { service, incarnation, resumed, .. } => {
                Intent::Renewed(service.clone(), *incarnation, *resumed)
            }
            Command::Maintenance { node, lasts, .. } => Intent::Maintenance(node.clone(), *lasts),
            Command::EndMaintenance { node, number, .. } => Intent::EndMaintenance(node.clone(), *number),
            Command::Forgive { node, failures } => Intent::Forgive(node.clone(), *failures),
            Command::Rejoined { service, epoch, node, .. } => Intent::Rejoined(service.clone(), *epoch, node.clone()),
        }
    }
}
