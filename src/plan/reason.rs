//! Why a keeper does what it does, as values: what it waits for, why it stops a database at once, and why its node gives
//! an epoch up. Each has the sentence for people beside it.
//!
//! Not here: deciding (`keeper/`), and what the coordinator says (`note.rs`).

use super::note::Passing;
use crate::ledger::Phase;
use crate::types::{DbState, Leaving, NodeName, Position, Severity, Trouble};
use derive_more::Display;

/// What the keeper waits for, or why there is nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum Waiting {
    #[display("a running database that regent does not manage yet is left alone")]
    Unmanaged,
    #[display("the service does not exist yet")]
    NotCreated,
    #[display("not joined yet")]
    NotJoined,
    /// This copy of it may be of before this daemon.
    #[display("waiting for the ledger")]
    Ledger,
    #[display("its lease is valid: waiting for the ledger to adopt it")]
    Adoption,
    #[display("waiting for the lease")]
    Lease,
    #[display("{_0} is under way")]
    UnderWay(&'static str),
    #[display("stopping")]
    Stopping,
    #[display("the last stop failed; stopping again soon: {_0}")]
    StopAgain(StopReason),
    #[display("trying again soon: {}", error.as_deref().unwrap_or("the last step failed"))]
    Retry { error: Option<String> },
    /// Why the last try failed is told with the database; the pause grows with each.
    #[display("the last try to make it a standby came to nothing; the next one is later")]
    RejoinAgain,
    #[display("paused: its database is left as it is (`regent resume` ends that)")]
    Paused,
    #[display("its node is in maintenance: it is left as it is (`regent maintenance --end` ends that)")]
    Maintenance,
    #[display("it is to be made a standby once the pause ends: nothing is overwritten before")]
    PausedBeforeRejoin,
    #[display("the database does not answer")]
    NotAnswering,
    #[display("writing the tombstone")]
    Tombstone,
    #[display("its final word cannot be written: {why}")]
    FinalWordFails { why: String },
    #[display("trouble: {_0}")]
    Trouble(Told),
    /// The file wants it moved.
    #[display("trouble: {trouble}; it stays, because nobody can take over now: {}", why_not.0)]
    TroubleStays { trouble: Told, why_not: Passing<String> },
    #[display(
        "the data directory holds another database: its system identifier differs. `regent reinit` copies this node anew \
         from the primary; `regent accept` lets this node's copy win"
    )]
    AnotherDatabase,
    /// Not touched before the primary has stopped for it.
    #[display("the copy here was accepted: waiting for its appointment")]
    AcceptedCopy,
    /// Nothing to do.
    #[display("primary")]
    Primary,
    /// Nothing to do.
    #[display("standby of {_0}")]
    StandbyOf(NodeName),
    #[display("it died, and its WAL ends at {end}: who has received all of it?")]
    Equal { end: Position },
    /// Its history fits, as far as is known: it goes on asking.
    #[display("gets no WAL from {_0}, and goes on asking for it")]
    GetsNothing(NodeName),
    /// On the way to hold an epoch.
    #[display("database {state}, epoch {phase}")]
    Holding { state: DbState, phase: Phase },
    /// On the way to follow the primary.
    #[display("database {_0}")]
    Following(DbState),
    #[display("database {_0}, nobody to follow")]
    NobodyToFollow(DbState),
    #[display("stopped; waiting for an appointment or a primary to follow")]
    Appointment,
    /// Closed in order; this daemon opens it no more.
    #[display("closed in order: {_0}")]
    Left(Leaving),
    #[display("{_0}; its database is left as it is (a pause, maintenance, or none of regent's)")]
    GoesOnWithoutItsDaemon(Leaving),
}

impl Waiting {
    /// What it means for a person.
    pub fn severity(&self) -> Severity {
        match self {
            Waiting::Trouble(_) | Waiting::TroubleStays { .. } | Waiting::AnotherDatabase => Severity::Error,
            Waiting::NotAnswering | Waiting::GetsNothing(_) | Waiting::GoesOnWithoutItsDaemon(_) => Severity::Warn,
            // What failed was said when it did.
            Waiting::StopAgain(_) | Waiting::Retry { .. } | Waiting::RejoinAgain | Waiting::FinalWordFails { .. } => {
                Severity::Info
            }
            Waiting::Unmanaged
            | Waiting::NotCreated
            | Waiting::NotJoined
            | Waiting::Ledger
            | Waiting::Adoption
            | Waiting::Lease
            | Waiting::AcceptedCopy
            | Waiting::PausedBeforeRejoin
            | Waiting::Maintenance
            | Waiting::Paused
            | Waiting::UnderWay(_)
            | Waiting::Stopping
            | Waiting::Tombstone
            | Waiting::Equal { .. }
            | Waiting::Primary
            | Waiting::StandbyOf(_)
            | Waiting::Holding { .. }
            | Waiting::Following(_)
            | Waiting::NobodyToFollow(_)
            | Waiting::Appointment
            | Waiting::Left(_) => Severity::Info,
        }
    }
}

/// Trouble as it is said: once, however long it lasts.
#[derive(Clone, Debug, Display)]
#[display("{_0}")]
pub struct Told(pub Trouble);

impl PartialEq for Told {
    fn eq(&self, other: &Told) -> bool {
        self.0.lasting() == other.0.lasting()
    }
}

impl Eq for Told {}

/// Why a database is stopped at once.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum StopReason {
    #[display("no lease for the present epoch")]
    NoLease,
    #[display("its guard could not be told that the pause is over")]
    GuardWaits,
    #[display("its lease has ended, and the ledger is not known yet")]
    LeaseEndedInTheDark,
    #[display("another node holds the epoch")]
    AnotherHolds,
    #[display("the database did not answer for {} ms", since_ms.0)]
    Hung { since_ms: Passing<u64> },
    #[display("its data directory was moved away or removed while it runs")]
    DirectoryGone,
    #[display("{trouble} (trouble.{key} = \"restart\")")]
    Trouble { trouble: Trouble, key: &'static str },
    #[display("its start shows no progress")]
    StartStalls,
    #[display("its WAL lies past the fork: it must be rewound")]
    PastTheFork,
    #[display("it is to be copied anew, as a person ordered")]
    CopyOrdered,
    #[display("it is to be restarted, as a person ordered")]
    RestartOrdered,
    #[display("it cannot follow as it is: {why}")]
    CannotFollow { why: String },
    #[display("its node leaves: {_0}")]
    Leaves(Leaving),
    #[display("{_0}")]
    GivenUp(GiveUp),
}

/// Why a node gives an epoch up that it holds. The ledger keeps the sentence.
#[derive(Clone, Debug, PartialEq, Eq, Display)]
pub enum GiveUp {
    #[display("stopped in order for the switchover")]
    Switchover,
    #[display("it leaves: {_0}")]
    Leaves(Leaving),
    /// It was given up already, whatever the reason has become since.
    #[display("it was given up, and its final word could not be written at first: {why}")]
    Unsaid { why: String },
    #[display("the database died and on_crash = \"failover\"")]
    Died,
    #[display("the database died, and {node} has received all of its WAL, which ends at {end}")]
    DiedBesideItsEqual { node: NodeName, end: Position },
    #[display("the database could not be kept running ({})", error.as_deref().unwrap_or("it keeps dying"))]
    KeepsDying { error: Option<String> },
    #[display("its lease ended and could not be renewed")]
    Lapsed,
    #[display("it hears no other node on any network, and others hear it: it could not renew its lease")]
    Deaf,
    #[display("its watchdog cannot be armed: {why}")]
    Unguarded { why: String },
    #[display("its guard could not be told that the pause is over")]
    GuardWaits,
    /// By the policy of the file. `in_order`: nothing may be lost, so the last of its WAL is waited for.
    #[display("{trouble} (trouble.{key} = \"{}\"), and {to} can take over", if *in_order { "switchover" } else { "failover" })]
    Trouble { trouble: Trouble, key: &'static str, to: NodeName, in_order: bool },
    #[display("its data directory is gone or unfinished")]
    DirectoryGone,
    #[display("its database is in recovery: to leave it takes a timeline, and that an appointment")]
    InRecovery,
    #[display("it could not be promoted: {}", error.as_deref().unwrap_or("the promotion failed"))]
    NotPromoted { error: Option<String> },
    #[display("its database could not be made: {}", error.as_deref().unwrap_or("initdb failed"))]
    NotMade { error: Option<String> },
    #[display("it could not take over within the install deadline")]
    Late,
    #[display(
        "its start takes longer than start_timeout; its WAL is known to {end}, and {node} has received it to {at}"
    )]
    StartsTooLong { node: NodeName, at: Position, end: Position },
    /// Whatever it was at first: the last step's error, where there was one.
    #[display("{}", error.as_deref().unwrap_or("its database could not go on"))]
    Other { error: Option<String> },
}

impl GiveUp {
    /// It could not renew its lease, and nothing else: its database can go on.
    pub fn is_lapse(&self) -> bool {
        matches!(self, GiveUp::Lapsed | GiveUp::Deaf)
    }

    /// Its node leaves in order.
    pub fn is_leave(&self) -> bool {
        matches!(self, GiveUp::Leaves(_))
    }
}
