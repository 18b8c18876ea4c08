//! What the coordinator says: each step, each wait and each alarm as a value. Its `Display` is the sentence for people,
//! its severity the level of its line in the journal, its subject the fields of that line.
//!
//! Not here: what a keeper waits for (`reason.rs`), and choosing what to say (the plan's other files).

use super::Objection;
use crate::ledger::{NoLease, Phase};
use crate::types::{
    AgentName, Boot, DbState, Epoch, FenceId, IncidentId, NodeName, Position, Round, ServiceName, Severity,
};
use derive_more::Display;
use std::time::Duration;

/// A quantity that changes while nothing happens, as a wait gets shorter. Two values that differ in nothing else say the
/// same, so it is equal to every other.
#[derive(Clone, Copy, Debug)]
pub struct Passing<T>(pub T);

impl<T> PartialEq for Passing<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Passing<T> {}

/// One thing that the coordinator says.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum Note {
    #[display("seeding the ledger with the settings of this node's file")]
    Seeding,
    #[display("{target} is suspected by {}: no majority of all voters", list(by))]
    Suspected { target: NodeName, by: Vec<NodeName> },
    /// This leader was itself stalled (S10).
    #[display("{target} is suspected by a majority, but this leader doubts itself and judges nobody")]
    JudgesNobody { target: NodeName },
    #[display("{target} is suspected by a majority: round {round} looks again")]
    LooksAgain { target: NodeName, round: Round },
    /// Evidence that is too old to fence by (`evidence.rs`).
    #[display("the verdict on {target} is old: round {round} looks once more before it is fenced")]
    OldVerdict { target: NodeName, round: Round },
    #[display("the verdict on {target} is old, and this leader doubts itself")]
    OldVerdictInDoubt { target: NodeName },
    #[display("the word that {target} lapsed is old: it has time to join again before it is fenced")]
    OldLapse { target: NodeName },
    #[display("handing leadership from {from} to {to}: {why}")]
    HandsLeadership { from: NodeName, to: NodeName, why: TransferReason },

    #[display("{target} would be fenced, but {service} is paused")]
    FencePaused { target: NodeName, service: ServiceName },
    #[display("{target} must be fenced, but no level is configured: use `regent fence confirm`")]
    NoLevel { target: NodeName, incident: IncidentId },
    /// In the round before this one, which begins after `wait`.
    #[display(
        "every fencing level of {target} failed; trying again in round {}{}. \
         If you have seen that it is off: regent fence confirm {target} --incident {incident}",
        round + 1, ms(" (", wait, ")")
    )]
    LevelsExhausted { target: NodeName, incident: IncidentId, round: u32, wait: Passing<Option<Duration>> },
    #[display("waiting for an `on` of {target} to end before it is fenced")]
    AwaitsOn { target: NodeName },
    #[display("level {} for {target} gives up: {why}", level + 1)]
    LevelGivenUp { target: NodeName, level: u32, why: String },
    #[display("no living voter can execute the fence of {target}")]
    NoExecutor { target: NodeName },
    #[display("fencing {target} with {} (level {})", and(agents), level + 1)]
    Fencing { target: NodeName, agents: Vec<AgentName>, level: u32 },
    #[display("waiting {} ms more until the lease of {target} has surely ended", left.0.as_millis())]
    AwaitsLeaseEnd { target: NodeName, left: Passing<Duration> },
    #[display("waiting for {agent} on {executor} to fence {target}")]
    AwaitsAgent { target: NodeName, agent: AgentName, executor: NodeName },
    #[display("fence {fence} of {target} is refuted by {by}: {what}")]
    Refuted { fence: FenceId, target: NodeName, by: NodeName, what: String },
    #[display("{target} lives, although its power could not be given back")]
    LivesWithoutPower { target: NodeName },
    #[display("{target} could not be switched on; trying again in {} ms", wait.0.as_millis())]
    PowerTriedAgain { target: NodeName, wait: Passing<Duration> },
    #[display("giving {target} its power back")]
    GivesPowerBack { target: NodeName },
    #[display("waiting for the last order of fence {fence} of {target}")]
    AwaitsLastOrder { fence: FenceId, target: NodeName },
    #[display("waiting for {} to undo fence {fence} of {target}", list(by))]
    AwaitsUndoing { fence: FenceId, target: NodeName, by: Vec<NodeName> },

    #[display("{service} is paused: nothing is fenced, nobody is appointed (`regent resume` ends that)")]
    Paused { service: ServiceName },
    #[display("{service} has been paused for {hours} h: nothing of it is started, moved or fenced (`regent resume`)")]
    StillPaused { service: ServiceName, hours: u64 },
    #[display("{service} is unmanaged: no epoch yet, and the file says no bootstrap (\"initdb\" or \"command\")")]
    Unmanaged { service: ServiceName },
    #[display("{service} will be created when {node} has joined")]
    AwaitsJoin { service: ServiceName, node: NodeName },
    #[display("{service} is not created: {node} has something in its data directory ({state})")]
    NotCreated { service: ServiceName, node: NodeName, state: DbState },
    #[display("creating {service} on {node}")]
    Creating { service: ServiceName, node: NodeName },
    #[display("{service} was resumed; waiting for {holder} to renew")]
    AwaitsRenewal { service: ServiceName, holder: NodeName },
    #[display("waiting for {holder} to install epoch {epoch} of {service} ({phase})")]
    AwaitsInstallation { service: ServiceName, holder: NodeName, epoch: Epoch, phase: Phase },
    /// `silent`: since its last renewal, where this node granted it.
    #[display(
        "LAPSED: {holder} holds epoch {epoch} of {service}, is not dead, and has not renewed{}",
        ms(" for ", silent, "")
    )]
    Lapsed { service: ServiceName, holder: NodeName, epoch: Epoch, silent: Passing<Option<Duration>> },
    #[display("{holder} does not take over {service}, epoch {epoch}, and is passed over: {no_lease}")]
    PassesOver { service: ServiceName, holder: NodeName, epoch: Epoch, no_lease: NoLease },
    #[display(
        "{node} has booted anew and says that its epoch of {service} is over; waiting {} ms more until the lease of its \
         earlier boot has surely ended", left.0.as_millis()
    )]
    AwaitsEarlierBoot { service: ServiceName, node: NodeName, left: Passing<Duration> },
    #[display(
        "{node} has booted anew and says that its epoch of {service} is over; the last lease of its earlier boot has ended, \
         which proves nothing: {why}; that boot is fenced"
    )]
    EarlierBootMayGoOn { service: ServiceName, node: NodeName, why: String },
    #[display(
        "two machines use the name {node}: boot {boot} sends heartbeats, and boot {other} wants to join; stop one of them"
    )]
    TwoMachines { node: NodeName, boot: Boot, other: Boot },
    #[display("waiting for {node} to report the end of its WAL")]
    AwaitsSeal { service: ServiceName, node: NodeName },
    #[display("{service} waits for the fence of {target}")]
    AwaitsFence { service: ServiceName, target: NodeName },
    #[display("fence {fence} is refuted")]
    FenceIsRefuted { fence: FenceId },
    #[display("fence {fence} of {target} is confirmed; checking that it holds ({missing})")]
    Checking { fence: FenceId, target: NodeName, missing: Missing },
    /// Answers to the check came before there was a candidate.
    #[display("the check of fence {fence} of {target} is old: once more ({missing})")]
    ChecksAgain { fence: FenceId, target: NodeName, missing: Missing },
    #[display("waiting for {node}, which held {service} last, to say how it is")]
    AwaitsHolder { service: ServiceName, node: NodeName },
    #[display("{node} is not eligible for {service}: {why}")]
    NotEligible { service: ServiceName, node: NodeName, why: Objection },
    #[display("{service} is released; waiting for a candidate that has reached the final position")]
    AwaitsCandidate { service: ServiceName },
    #[display(
        "{node} could not take {service} over {failed} times, and nobody else can: again in {} ms", wait.0.as_millis()
    )]
    RestsBeforeAnother { service: ServiceName, node: NodeName, failed: u32, wait: Passing<Duration> },
    #[display("{service} waits for the copy on {node}, which was accepted (`regent accept --cancel` takes that back)")]
    AwaitsAcceptedCopy { service: ServiceName, node: NodeName },
    /// Its last primary is not lost: it was stopped in order.
    #[display(
        "{node} left in order and its database is stopped: nobody else has all of {service}{}; start {node} again, or let the \
         rest be lost: `regent failover --service {service} --accept-loss`",
        end.map_or(String::new(), |end| format!(", which ends at {end}"))
    )]
    Left { service: ServiceName, node: NodeName, end: Option<Position> },
    #[display(
        "{service} has no eligible candidate: let the last primary come back, or decide what may be lost \
         (`regent failover --accept-loss`, `regent accept NODE`)"
    )]
    NoCandidate { service: ServiceName },
    #[display("appointing {node} for {service}: {why}")]
    Appointing { service: ServiceName, node: NodeName, why: String },
}

/// Why leadership is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
pub enum TransferReason {
    #[display("its log writes are slow")]
    SlowLog,
    #[display("it holds a primary")]
    HoldsPrimary,
    #[display("it leaves")]
    Leaves,
}

/// Which answers a check still needs.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum Missing {
    /// This voter heard the node when it was declared dead.
    #[display("{_0} still heard it")]
    Heard(NodeName),
    #[display("a majority must answer")]
    Majority,
    /// This voter was heard when the device began to act.
    #[display("{_0} was heard when it began, and must be heard again")]
    Unheard(NodeName),
}

/// What a report is about: the fields of its line in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub service: Option<ServiceName>,
    pub node: Option<NodeName>,
    pub fence: Option<FenceId>,
    pub epoch: Option<Epoch>,
    pub incident: Option<IncidentId>,
}

impl Note {
    /// What it means for a person.
    pub fn severity(&self) -> Severity {
        match self {
            Note::Lapsed { .. }
            | Note::LevelsExhausted { .. }
            | Note::NoLevel { .. }
            | Note::TwoMachines { .. }
            | Note::Left { .. }
            | Note::NoCandidate { .. } => Severity::Error,
            Note::JudgesNobody { .. }
            | Note::LooksAgain { .. }
            | Note::OldVerdict { .. }
            | Note::OldVerdictInDoubt { .. }
            | Note::OldLapse { .. }
            | Note::FencePaused { .. }
            | Note::StillPaused { .. }
            | Note::LevelGivenUp { .. }
            | Note::NoExecutor { .. }
            | Note::Fencing { .. }
            | Note::Refuted { .. }
            | Note::FenceIsRefuted { .. }
            | Note::EarlierBootMayGoOn { .. }
            | Note::LivesWithoutPower { .. }
            | Note::PowerTriedAgain { .. }
            | Note::NotCreated { .. }
            | Note::RestsBeforeAnother { .. }
            | Note::AwaitsAcceptedCopy { .. }
            | Note::PassesOver { .. }
            | Note::NotEligible { .. } => Severity::Warn,
            Note::Seeding
            | Note::Suspected { .. }
            | Note::HandsLeadership { .. }
            | Note::AwaitsOn { .. }
            | Note::AwaitsLeaseEnd { .. }
            | Note::AwaitsAgent { .. }
            | Note::GivesPowerBack { .. }
            | Note::AwaitsLastOrder { .. }
            | Note::AwaitsUndoing { .. }
            | Note::Paused { .. }
            | Note::Unmanaged { .. }
            | Note::AwaitsJoin { .. }
            | Note::Creating { .. }
            | Note::AwaitsRenewal { .. }
            | Note::AwaitsInstallation { .. }
            | Note::AwaitsEarlierBoot { .. }
            | Note::AwaitsSeal { .. }
            | Note::AwaitsFence { .. }
            | Note::Checking { .. }
            | Note::ChecksAgain { .. }
            | Note::AwaitsHolder { .. }
            | Note::AwaitsCandidate { .. }
            | Note::Appointing { .. } => Severity::Info,
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        let about = Subject::default();
        match self {
            Note::Seeding => about,
            Note::Suspected { target, .. }
            | Note::JudgesNobody { target }
            | Note::LooksAgain { target, .. }
            | Note::OldVerdict { target, .. }
            | Note::OldVerdictInDoubt { target }
            | Note::OldLapse { target }
            | Note::AwaitsOn { target }
            | Note::LevelGivenUp { target, .. }
            | Note::NoExecutor { target }
            | Note::Fencing { target, .. }
            | Note::AwaitsLeaseEnd { target, .. }
            | Note::AwaitsAgent { target, .. }
            | Note::LivesWithoutPower { target }
            | Note::TwoMachines { node: target, .. }
            | Note::PowerTriedAgain { target, .. }
            | Note::GivesPowerBack { target }
            | Note::HandsLeadership { to: target, .. } => about.node(target),
            Note::NoLevel { target, incident } | Note::LevelsExhausted { target, incident, .. } => {
                Subject { incident: Some(*incident), ..about.node(target) }
            }
            Note::Refuted { fence, target, .. }
            | Note::AwaitsLastOrder { fence, target }
            | Note::AwaitsUndoing { fence, target, .. }
            | Note::Checking { fence, target, .. }
            | Note::ChecksAgain { fence, target, .. } => Subject { fence: Some(*fence), ..about.node(target) },
            Note::FenceIsRefuted { fence } => Subject { fence: Some(*fence), ..about },
            Note::Paused { service }
            | Note::StillPaused { service, .. }
            | Note::Unmanaged { service }
            | Note::AwaitsCandidate { service }
            | Note::NoCandidate { service } => about.service(service),
            Note::AwaitsJoin { service, node }
            | Note::NotCreated { service, node, .. }
            | Note::Creating { service, node }
            | Note::AwaitsAcceptedCopy { service, node }
            | Note::AwaitsRenewal { service, holder: node }
            | Note::AwaitsEarlierBoot { service, node, .. }
            | Note::EarlierBootMayGoOn { service, node, .. }
            | Note::AwaitsSeal { service, node }
            | Note::AwaitsHolder { service, node }
            | Note::Left { service, node, .. }
            | Note::NotEligible { service, node, .. }
            | Note::RestsBeforeAnother { service, node, .. }
            | Note::Appointing { service, node, .. }
            | Note::FencePaused { service, target: node }
            | Note::AwaitsFence { service, target: node } => about.service(service).node(node),
            Note::AwaitsInstallation { service, holder, epoch, .. }
            | Note::PassesOver { service, holder, epoch, .. }
            | Note::Lapsed { service, holder, epoch, .. } => {
                Subject { epoch: Some(*epoch), ..about.service(service).node(holder) }
            }
        }
    }
}

impl Subject {
    /// About this service, too.
    pub fn service(self, service: &ServiceName) -> Self {
        Subject { service: Some(service.clone()), ..self }
    }

    /// About this node, too.
    pub fn node(self, node: &NodeName) -> Self {
        Subject { node: Some(node.clone()), ..self }
    }
}

fn list(names: &[NodeName]) -> String {
    let names: Vec<_> = names.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

fn and(agents: &[AgentName]) -> String {
    let agents: Vec<_> = agents.iter().map(AgentName::as_str).collect();
    agents.join(" and ")
}

fn ms(before: &str, time: &Passing<Option<Duration>>, after: &str) -> String {
    time.0.map_or_else(String::new, |time| format!("{before}{} ms{after}", time.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lapsed(silent: Option<u64>) -> Note {
        Note::Lapsed {
            service: "orders".parse().expect("valid"),
            holder: "db1".parse().expect("valid"),
            epoch: Epoch(3),
            silent: Passing(silent.map(Duration::from_millis)),
        }
    }

    #[test]
    fn notes_that_differ_in_what_passes_alone_say_the_same() {
        assert_eq!(lapsed(Some(9000)), lapsed(Some(9050)));
        assert_eq!(lapsed(Some(9000)), lapsed(None));
        let other = Note::Paused { service: "orders".parse().expect("valid") };
        assert_ne!(lapsed(None), other);
    }

    /// Whoever finds no primary looks the words of `status` up.
    #[test]
    fn the_page_for_a_service_without_a_primary_has_the_words_that_status_says() {
        let page = include_str!("../../docs/no-primary.md");
        let (service, node): (ServiceName, NodeName) =
            ("orders".parse().expect("valid"), "db1".parse().expect("valid"));
        let (incident, wait) = (IncidentId(7), Passing(None));
        let install = Note::AwaitsInstallation {
            service: service.clone(),
            holder: "db2".parse().expect("valid"),
            epoch: Epoch(4),
            phase: Phase::Appointed,
        };
        for note in [
            Note::LevelsExhausted { target: node, incident, round: 1, wait },
            Note::NoCandidate { service: service.clone() },
            install,
            lapsed(None),
            Note::Paused { service },
        ] {
            let (said, mut rows) = (note.to_string(), page.lines().filter(|line| line.starts_with("| `")));
            let quoted = |row: &str| row.split('`').nth(1).is_some_and(|words| said.starts_with(words));
            assert!(rows.any(quoted), "the page has no row for {said:?}");
        }
    }

    #[test]
    fn what_needs_a_person_is_an_error_and_names_what_it_is_about() {
        let note = lapsed(Some(9000));
        assert_eq!(note.severity(), Severity::Error);
        let Subject { service, node, epoch, .. } = note.subject();
        assert_eq!(service.as_ref().map(ServiceName::as_str), Some("orders"));
        assert_eq!(node.as_ref().map(NodeName::as_str), Some("db1"));
        assert_eq!(epoch, Some(Epoch(3)));
        let text = "LAPSED: db1 holds epoch 3 of orders, is not dead, and has not renewed for 9000 ms";
        assert_eq!(note.to_string(), text);
    }
}
