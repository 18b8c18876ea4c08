//! Every step that the model knows, in words, and the limits and mistakes under which it runs.
//!
//! Not here: when a step is possible and what it does; see `world`, `keeper`, `verdict`, `executor` and
//! `appointment`.

use crate::state::NoLease;
use std::fmt;

/// One step. Nodes are 0, 1, 2 for a, b, c; fences 0, 1, 2 for fence 1, 2, 3.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Tick,
    Cut { pair: usize },
    Heal { pair: usize },
    Crash { node: usize },
    Outage { node: usize },
    PowerOn { node: usize },
    Elect { node: usize, voter: usize },
    Start { node: usize, adopts: bool },
    Join { node: usize },
    Ask { node: usize, epoch: u8 },
    Grant { by: usize, to: usize },
    Arrive { node: usize },
    Open { node: usize, epoch: u8 },
    BeginStop { node: usize },
    EndStop { node: usize },
    GiveUp { node: usize },
    Release { node: usize },
    Suspect { leader: usize },
    Answer { voter: usize },
    Declare { node: usize },
    Order { node: usize },
    OrderBy { node: usize, by: usize },
    OrderAgain { fence: usize, by: usize },
    OrderOn { node: usize, by: usize },
    Apply { node: usize },
    AskWarrant { node: usize },
    Warrant { by: usize, to: usize },
    StartAgent { node: usize },
    Fail { node: usize },
    Report { node: usize },
    NotBegun { node: usize },
    Expire,
    On { node: usize },
    Off { fence: usize, node: usize },
    Lie { fence: usize, node: usize },
    Confirm { fence: usize },
    WaitOver { fence: usize },
    Refute { voter: usize },
    Check { voter: usize },
    Appoint { node: usize, epoch: u8 },
    Pause,
    Resume,
    Learn { node: usize },
    LearnDead { node: usize },
    Deny,
    Passes { why: NoLease },
    PassOver,
}

const NAME: [&str; 3] = ["a", "b", "c"];
const PAIR: [&str; 3] = ["a and b", "a and c", "b and c"];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Tick => write!(f, "a tick passes"),
            Step::Cut { pair } => write!(f, "the network between {} is cut", PAIR[pair]),
            Step::Heal { pair } => write!(f, "the network between {} heals", PAIR[pair]),
            Step::Crash { node } => write!(f, "the daemon of {} crashes", NAME[node]),
            Step::Outage { node } => write!(f, "host {} loses its power", NAME[node]),
            Step::PowerOn { node } => write!(f, "host {} boots", NAME[node]),
            Step::Elect { node, voter } => write!(f, "{} is elected with the vote of {}", NAME[node], NAME[voter]),
            Step::Start { node, adopts: true } => write!(f, "the daemon of {} starts and adopts the lease", NAME[node]),
            Step::Start { node, .. } => write!(f, "the daemon of {} starts, its database is closed", NAME[node]),
            Step::Join { node } => write!(f, "{} joins", NAME[node]),
            Step::Ask { node, epoch } => write!(f, "{} asks for a lease under epoch {epoch}", NAME[node]),
            Step::Grant { by, to } => write!(f, "{} grants a lease to {}", NAME[by], NAME[to]),
            Step::Arrive { node } => write!(f, "the grant arrives at {}", NAME[node]),
            Step::Open { node, epoch } => write!(f, "{} opens its database under epoch {epoch}", NAME[node]),
            Step::BeginStop { node } => write!(f, "{} begins to stop its database", NAME[node]),
            Step::EndStop { node } => write!(f, "the database of {} has stopped", NAME[node]),
            Step::GiveUp { node } => write!(f, "{} vows not to write under its epoch again", NAME[node]),
            Step::Release { node } => write!(f, "the release of {} is committed", NAME[node]),
            Step::Suspect { leader } => write!(f, "leader {} suspects the holder and opens a round", NAME[leader]),
            Step::Answer { voter } => write!(f, "{} suspects the holder too", NAME[voter]),
            Step::Declare { node } => write!(f, "the verdict on {} is proposed", NAME[node]),
            Step::Order { node } => write!(f, "a fence of {} is ordered", NAME[node]),
            Step::OrderBy { node, by } => {
                write!(f, "a fence of {} is ordered, {} is its executor", NAME[node], NAME[by])
            }
            Step::OrderAgain { fence, by } => {
                write!(f, "fence {} is ordered anew, {} is its executor", fence + 1, NAME[by])
            }
            Step::OrderOn { node, by } => {
                write!(f, "power for {} is ordered, {} is the executor", NAME[node], NAME[by])
            }
            Step::Apply { node } => write!(f, "{} applies the next step of an order", NAME[node]),
            Step::AskWarrant { node } => write!(f, "executor {} asks whether its order still runs", NAME[node]),
            Step::Warrant { by, to } => {
                write!(f, "leader {} answers {} that it does, and how old it is", NAME[by], NAME[to])
            }
            Step::StartAgent { node } => write!(f, "executor {} starts its agent", NAME[node]),
            Step::Fail { node } => write!(f, "the agent of {} fails", NAME[node]),
            Step::Report { node } => write!(f, "how the agent of {} ended reaches the ledger", NAME[node]),
            Step::NotBegun { node } => write!(f, "executor {} says that it has not begun", NAME[node]),
            Step::Expire => write!(f, "the ledger ends the order by time"),
            Step::On { node } => write!(f, "a device turns {} on", NAME[node]),
            Step::Off { fence, node } => write!(f, "the device of fence {} turns {} off", fence + 1, NAME[node]),
            Step::Lie { fence, node } => {
                write!(f, "the device of fence {} lies: {} is still on", fence + 1, NAME[node])
            }
            Step::Confirm { fence } => write!(f, "the success of fence {} is proposed", fence + 1),
            Step::WaitOver { fence } => write!(f, "fence {} is confirmed: the lease has surely ended", fence + 1),
            Step::Refute { voter } => write!(f, "{} hears the fenced node: the fence is refuted", NAME[voter]),
            Step::Check { voter } => write!(f, "{} answers that the fence holds", NAME[voter]),
            Step::Appoint { node, epoch } => write!(f, "{} is appointed to epoch {epoch}", NAME[node]),
            Step::Pause => write!(f, "the service is paused"),
            Step::Resume => write!(f, "the service is resumed"),
            Step::Learn { node } => write!(f, "{} learns of it", NAME[node]),
            Step::Deny => write!(f, "the holder is granted no lease of its epoch any more"),
            Step::Passes { why: NoLease::Never } => write!(f, "that the holder never had a lease is proposed"),
            Step::Passes { .. } => write!(f, "that the lease of the holder has surely ended is proposed"),
            Step::PassOver => write!(f, "the holder is passed over"),
            Step::LearnDead { node } => write!(f, "{} learns that it was declared dead", NAME[node]),
        }
    }
}

/// A mistake that the model can be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    PromoteBeforeFence,
    MajorityOfTheLiving,
    LeaseCountedFromTheAnswer,
    BookKeptAcrossTerms,
    EpochNotChecked,
    VerdictForAnOldIncarnation,
    FenceForAnOldBoot,
    FenceBelievedInSpiteOfLife,
    GrantWithoutQuorum,
    GrantAfterTheVerdict,
    ReleasedBeforeTheEnd,
    PauseNotRespected,
    OrderActsOnApply,
    AgeFromTheAnswer,
    InheritedOrderStarted,
    OrderEndedEarly,
    OnWithoutWarrant,
    LateVerdictObeyed,
    OldCheckBelieved,
    PassedOverAfterGrant,
    GrantAfterDenial,
    PassedOverInAnotherTerm,
}

/// What may happen, and how often: the borders of one search.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Links that may be cut; each may heal again at any time.
    pub cuts: u8,
    /// Daemons that may crash; their databases live on.
    pub crashes: u8,
    /// Hosts that may lose power by themselves.
    pub outages: u8,
    /// The last Raft term; the first is 1.
    pub terms: u8,
    /// The last epoch; the first is 1.
    pub epochs: u8,
    /// Fences that may be ordered.
    pub fences: u8,
    /// Orders have an executor that may lag, and an end; so many of them. Without: an order runs until its device acted.
    pub executors: bool,
    pub orders: u8,
    /// A node that was fenced is switched on again.
    pub on: bool,
    /// Verdicts may commit late or under another leader, and the evidence of each fence must be fresh.
    pub late: bool,
    /// A power agent stands in the levels; the wait for the lease does.
    pub power: bool,
    pub lease: bool,
    /// One power agent may report a success that it did not have.
    pub lie: bool,
    /// Holders may stop and release by themselves, or be told to.
    pub releases: bool,
    /// The service may be paused and resumed once.
    pub pause: bool,
    /// An appointee that has no lease may be passed over.
    pub passes: bool,
    /// Observers may suspect a node that they could hear.
    pub false_suspicion: bool,
    pub bug: Option<Bug>,
}

impl Scope {
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}
