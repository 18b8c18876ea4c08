//! Why the ledger refused a command: a value with fields; its `Display` is the sentence for the operator.

use crate::types::{
    AgentName, Boot, Epoch, FenceId, Incarnation, IncidentId, NodeName, Round, ServiceName, Term, Timeline,
};
use serde::{Deserialize, Serialize};

/// One reason. The rule that it guards is named where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("the ledger has no settings yet")]
    NotSeeded,
    #[error("the ledger has its settings already")]
    AlreadySeeded,
    #[error("no node named {node} in this cluster")]
    UnknownNode { node: NodeName },
    #[error("no service named {service} in this cluster")]
    UnknownService { service: ServiceName },
    #[error("{node} is up on another machine ({machine}); two hosts must not share a name")]
    OtherMachine { node: NodeName, machine: String },
    #[error(
        "{node} is another machine than the one that holds epoch {epoch} of {service}, and nothing has fenced that one: \
         this one joins when that is over (S2)"
    )]
    EpochElsewhere { node: NodeName, service: ServiceName, epoch: Epoch },
    #[error(
        "boot {boot} of {node} is still heard, and boot {other} wants to join under the same name: two machines use it"
    )]
    TwoMachines { node: NodeName, boot: Boot, other: Boot },
    #[error("boot {boot} of {node} was succeeded by a later one (S4)")]
    OldBoot { node: NodeName, boot: Boot },
    #[error("{node} has joined since, with a later request (S4)")]
    SpentJoin { node: NodeName },
    #[error("{node} must say what became of epoch {epoch} of {service} before it joins")]
    ClaimMissing { node: NodeName, service: ServiceName, epoch: Epoch },
    #[error("epoch {epoch} of {service} cannot be adopted: {why} (S2)")]
    CannotAdopt { service: ServiceName, epoch: Epoch, why: String },
    #[error("incarnation {incarnation} of {node} is not the present one (S4)")]
    OldIncarnation { node: NodeName, incarnation: Incarnation },
    #[error("{node} is already declared dead in this incarnation")]
    AlreadyDead { node: NodeName },
    #[error("based on term {based_on}, but the present one is {term} (S4)")]
    OldTerm { based_on: Term, term: Term },
    #[error("round {round} of term {term} is over: no round is used twice (S4)")]
    SpentRound { term: Term, round: Round },
    #[error("only {suspecting} voters suspect {node}: no majority of all voters (S3)")]
    NoDoubleMajority { node: NodeName, suspecting: usize },
    #[error("fence {fence} does not exist or is closed")]
    UnknownFence { fence: FenceId },
    #[error("fence {fence} is {state}, which does not allow this")]
    FenceState { fence: FenceId, state: String },
    #[error("fence {fence} is at another level or round")]
    OldLevel { fence: FenceId },
    #[error("agent {agent} is not configured for this")]
    UnknownAgent { agent: AgentName },
    #[error("an opposite order for {node} may still be under way")]
    OppositeOrder { node: NodeName },
    #[error("agent lease proves nothing about {node}: {why}")]
    LeaseProvesNothing { node: NodeName, why: String },
    #[error("incident {incident} is not an open fence of {node}")]
    NotThatIncident { incident: IncidentId, node: NodeName },
    #[error("{node} shows life: {what}; force it only if you have seen with your own eyes that it is off")]
    ShowsLife { node: NodeName, what: String },
    #[error("epoch {epoch} of {service} is over, or not the present one ({current}) (S4)")]
    OldEpoch { service: ServiceName, epoch: Epoch, current: Epoch },
    #[error("epoch {epoch} of {service} is not over: neither released nor its holder fenced (S2)")]
    EpochNotOver { service: ServiceName, epoch: Epoch },
    #[error("fence {fence} is not confirmed for the boot that holds epoch {epoch} (S2)")]
    NotFenced { fence: FenceId, epoch: Epoch },
    #[error("the check of fence {fence} lacks {missing} (S9)")]
    NotChecked { fence: FenceId, missing: String },
    #[error("{node} found fence {fence} refuted: {what} (S9)")]
    CheckRefuted { fence: FenceId, node: NodeName, what: String },
    #[error("{node} cannot be appointed: {why}")]
    NotEligible { node: NodeName, why: String },
    #[error("{node} does not hold epoch {epoch} of {service} (S4)")]
    NotHolder { service: ServiceName, epoch: Epoch, node: NodeName },
    #[error("timeline {timeline} of {service} is taken: no number is given to two timelines (S4)")]
    TimelineTaken { service: ServiceName, timeline: Timeline },
    #[error("{service} is paused")]
    Paused { service: ServiceName },
    #[error("{service} is not paused")]
    NotPaused { service: ServiceName },
    #[error("{service} is already moving")]
    AlreadyMoving { service: ServiceName },
    #[error("{service} has no primary that could be moved in order")]
    NoPrimary { service: ServiceName },
    #[error("{service} exists already: it is at epoch {epoch}")]
    Exists { service: ServiceName, epoch: Epoch },
    #[error("not allowed: {why}")]
    NotAllowed { why: String },
}

impl Refusal {
    /// Two machines claim one name: a person has to look.
    pub fn is_of_a_name(&self) -> bool {
        use Refusal::{EpochElsewhere, OtherMachine, TwoMachines};
        matches!(self, TwoMachines { .. } | OtherMachine { .. } | EpochElsewhere { .. })
    }
}
