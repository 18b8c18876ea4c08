//! What a node says: everything that goes to the journal, as values. The `Display` is the line, the severity its level,
//! the subject its fields.
//!
//! Not here: the coordinator's and the keepers' own words (`plan::note`, `plan::reason`), and writing (`daemon`).

use super::standing::Undo;
use crate::lease::Denial;
use crate::ledger::Refusal;
use crate::plan::note::{Note, Subject, TransferReason};
use crate::plan::reason::{StopReason, Waiting};
use crate::types::{Boot, Epoch, Incarnation, Leaving, NodeName, Position, ServiceName, Severity};
use derive_more::Display;
use std::time::Duration;

/// One line.
#[derive(Clone, Debug, PartialEq, Display)]
pub enum Said {
    /// New in what the coordinator says.
    #[display("{_0}")]
    Coordinator(Note),
    /// New in what the keeper waits for, where a person should know.
    #[display("{service}: {waiting}")]
    Keeper { service: ServiceName, waiting: Waiting },
    #[display("{service}: {action}")]
    Begins { service: ServiceName, action: &'static str },
    #[display("{service}: it died, and no standby has received all of its WAL, to {end}: it recovers in place")]
    RecoversInPlace { service: ServiceName, end: Position },
    #[display("{service}: stopping now: {why}")]
    StopsNow { service: ServiceName, why: StopReason },
    #[display("{service}: {action} failed: {error}")]
    Failed { service: ServiceName, action: &'static str, error: String },
    #[display("{service}: the final word on epoch {epoch} cannot be written, so it is not said: {why}")]
    FinalWordUnwritten { service: ServiceName, epoch: Epoch, why: String },
    #[display("no lease for {service}: {denial}")]
    NoLease { service: ServiceName, denial: Denial },
    #[display("{service}: the lease cannot be kept for the guard: {why}")]
    LeaseNotKept { service: ServiceName, why: String },
    #[display("joined as {node}, incarnation {incarnation}, boot {boot}")]
    Joined { node: NodeName, incarnation: Incarnation, boot: Boot },
    #[display("incarnation {_0} of this node is over: its databases are closed and it joins again")]
    IncarnationOver(Incarnation),
    #[display("this node itself was stopped for {} ms: it doubts itself", late.as_millis())]
    RanLate { late: Duration },
    #[display("this node leaves: {_0}")]
    Leaves(Leaving),
    /// The last words of a daemon about a database that runs.
    #[display("{service}: this daemon ends, and its database goes on{how}")]
    GoesOn { service: ServiceName, how: GoesOn },
    #[display("leadership goes to {to}: {why}")]
    LeadershipGoes { to: NodeName, why: TransferReason },
    #[display("{command} refused: {refusal}")]
    Refused { command: &'static str, refusal: Refusal },
    #[display("undoing {_0}")]
    Undoing(Undo),
    #[display("the watchdog cannot be armed, so no lease is asked for: {why}")]
    WatchdogNotArmed { why: String },
    #[display("the watchdog cannot be fed; it resets this host when its time is over: {why}")]
    WatchdogNotFed { why: String },
    #[display("the watchdog is fed again")]
    WatchdogFedAgain,
    #[display("the watchdog cannot be disarmed: it is fed for as long as regent runs: {why}")]
    WatchdogNotDisarmed { why: String },
}

/// How a database goes on without its daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
pub enum GoesOn {
    #[display(" under its lease: the guard stops it when that ends, unless a daemon is back")]
    Leased,
    #[display("")]
    Standby,
    #[display(": it is paused, in maintenance, or none of regent's, and nobody stops it")]
    LeftAlone,
}

impl Said {
    /// The level of its line.
    pub fn severity(&self) -> Severity {
        match self {
            Said::Coordinator(note) => note.severity(),
            Said::Keeper { waiting, .. } => waiting.severity(),
            Said::FinalWordUnwritten { .. }
            | Said::LeaseNotKept { .. }
            | Said::WatchdogNotArmed { .. }
            | Said::WatchdogNotFed { .. } => Severity::Error,
            Said::Refused { refusal, .. } if refusal.is_of_a_name() => Severity::Warn,
            Said::RecoversInPlace { .. }
            | Said::StopsNow { .. }
            | Said::Failed { .. }
            | Said::NoLease { .. }
            | Said::IncarnationOver(_)
            | Said::RanLate { .. }
            | Said::Undoing(_)
            | Said::GoesOn { how: GoesOn::LeftAlone, .. }
            | Said::WatchdogNotDisarmed { .. } => Severity::Warn,
            Said::Begins { .. }
            | Said::Joined { .. }
            | Said::Leaves(_)
            | Said::GoesOn { .. }
            | Said::LeadershipGoes { .. }
            | Said::Refused { .. }
            | Said::WatchdogFedAgain => Severity::Info,
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        let about = Subject::default();
        match self {
            Said::Coordinator(note) => note.subject(),
            Said::FinalWordUnwritten { service, epoch, .. } => {
                Subject { epoch: Some(*epoch), ..about.service(service) }
            }
            Said::Keeper { service, .. }
            | Said::GoesOn { service, .. }
            | Said::RecoversInPlace { service, .. }
            | Said::Begins { service, .. }
            | Said::StopsNow { service, .. }
            | Said::Failed { service, .. }
            | Said::NoLease { service, .. }
            | Said::LeaseNotKept { service, .. } => about.service(service),
            Said::Joined { node, .. } | Said::LeadershipGoes { to: node, .. } => about.node(node),
            Said::Undoing(undo) => Subject { fence: Some(undo.fence), node: undo.node.clone(), ..about },
            Said::IncarnationOver(_)
            | Said::Leaves(_)
            | Said::RanLate { .. }
            | Said::Refused { .. }
            | Said::WatchdogNotArmed { .. }
            | Said::WatchdogNotFed { .. }
            | Said::WatchdogFedAgain
            | Said::WatchdogNotDisarmed { .. } => about,
        }
    }
}
