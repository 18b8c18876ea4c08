//! The kinds of faults with their names, and which of them regent does not stand yet. Not here: what each breaks
//! (`faults.rs`).

use std::sync::atomic::{AtomicBool, Ordering};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    PowerCut,
    Blackout,
    Freeze,
    GuestPause,
    CommonStall,
    DaemonKilled,
    PlannedRestart,
    Upgrade,
    CardCut,
    OneWayCut,
    PairCut,
    Partition,
    Flapping,
    Unconnected,
    Loss,
    Delay,
    Doubling,
    Reordering,
    DiskHangs,
    DiskFails,
    DiskTorn,
    DiskStale,
    DatabaseDies,
    DatabaseHangs,
    SlowPromotion,
    StuckStop,
    RogueStart,
    Device,
    Switchover,
    Pause,
    OperatorFence,
    Confirm,
    WrongConfirm,
    Transfer,
    LeaderLost,
    Uncommitted,
    SlowLog,
    Repeats,
    MissedElections,
    WatchdogUnarmed,
    WatchdogUnfed,
    WatchdogStays,
    NoWayOut,
    FinalWordUnwritten,
    LeaseUnkept,
    AgentsNotRun,
    ReadsFail,
    TransfersFail,
    QuestionsLost,
    AnswersLost,
    ActionFails,
    SlowStart,
    SlowRecovery,
    TooManyClients,
    ProbeFails,
    VolumeFull,
    VolumeStalls,
    Unclear,
    Lingers,
    DirectoryGone,
    FallsBehind,
    OneWayConnections,
    Stalled,
    LateMessages,
    SlowBoot,
    LogFull,
    Slew,
    Clone,
    Reinit,
    AcceptCopy,
    Maintenance,
    Leave,
    Restart,
}

/// Every kind with its name in the report.
pub const KINDS: &[(Kind, &str)] = &[
    (Kind::PowerCut, "power cut"),
    (Kind::Blackout, "blackout"),
    (Kind::Freeze, "freeze"),
    (Kind::GuestPause, "guest paused"),
    (Kind::CommonStall, "common stall"),
    (Kind::DaemonKilled, "daemon killed"),
    (Kind::PlannedRestart, "planned restart"),
    (Kind::Upgrade, "upgrade"),
    (Kind::CardCut, "card cut"),
    (Kind::OneWayCut, "one-way cut"),
    (Kind::PairCut, "pair cut"),
    (Kind::Partition, "partition"),
    (Kind::Flapping, "flapping"),
    (Kind::Unconnected, "connections fail"),
    (Kind::Loss, "loss"),
    (Kind::Delay, "delay"),
    (Kind::Doubling, "duplication"),
    (Kind::Reordering, "reordering"),
    (Kind::DiskHangs, "disk hangs"),
    (Kind::DiskFails, "disk error"),
    (Kind::DiskTorn, "disk torn"),
    (Kind::DiskStale, "disk stale"),
    (Kind::DatabaseDies, "database dies"),
    (Kind::DatabaseHangs, "database hangs"),
    (Kind::SlowPromotion, "slow promotion"),
    (Kind::StuckStop, "stuck stop"),
    (Kind::RogueStart, "foreign start"),
    (Kind::Device, "fence device"),
    (Kind::Switchover, "switchover"),
    (Kind::Pause, "pause"),
    (Kind::OperatorFence, "operator's fence"),
    (Kind::Confirm, "confirm"),
    (Kind::WrongConfirm, "wrong confirm"),
    (Kind::Transfer, "transfer"),
    (Kind::LeaderLost, "leader lost"),
    (Kind::Uncommitted, "uncommitted"),
    (Kind::SlowLog, "slow log"),
    (Kind::Repeats, "repeated proposals"),
    (Kind::MissedElections, "missed elections"),
    (Kind::WatchdogUnarmed, "watchdog not armed"),
    (Kind::WatchdogUnfed, "watchdog not fed"),
    (Kind::WatchdogStays, "watchdog not disarmed"),
    (Kind::NoWayOut, "watchdog without a way out"),
    (Kind::FinalWordUnwritten, "final word not written"),
    (Kind::LeaseUnkept, "lease not kept"),
    (Kind::AgentsNotRun, "agents not run"),
    (Kind::ReadsFail, "quorum reads fail"),
    (Kind::TransfersFail, "transfers fail"),
    (Kind::QuestionsLost, "questions lost"),
    (Kind::AnswersLost, "answers lost"),
    (Kind::ActionFails, "database action fails"),
    (Kind::SlowStart, "slow start"),
    (Kind::SlowRecovery, "slow crash recovery"),
    (Kind::TooManyClients, "too many clients"),
    (Kind::ProbeFails, "probe fails"),
    (Kind::VolumeFull, "volume full"),
    (Kind::VolumeStalls, "volume stalls"),
    (Kind::Unclear, "database unclear"),
    (Kind::Lingers, "kill takes time"),
    (Kind::DirectoryGone, "directory gone"),
    (Kind::FallsBehind, "falls behind"),
    (Kind::OneWayConnections, "one-way connections"),
    (Kind::Stalled, "stalled connections"),
    (Kind::LateMessages, "late messages"),
    (Kind::SlowBoot, "slow boot"),
    (Kind::LogFull, "log disk full"),
    (Kind::Slew, "clock slewed"),
    (Kind::Clone, "clone of a host"),
];

/// Kinds that came later are drawn beside those: earlier seeds stay what they were when they found something.
/// Each with the first seed that draws it, in one of so many.
pub const LATER: &[(Kind, &str, u64, u64)] = &[
    (Kind::Reinit, "copied anew on order", 13_600_000, 3),
    (Kind::AcceptCopy, "accepted copy", 13_600_000, 7),
    (Kind::Maintenance, "maintenance", ROLES_FROM, 5),
    (Kind::Leave, "orderly leave", LEAVES_FROM, 2),
    (Kind::Restart, "restarted on order", 14_200_000, 4),
];

/// From this seed on some nodes have a part of their own in the service.
pub const ROLES_FROM: u64 = 14_100_000;

/// From this seed on hosts leave in order.
pub const LEAVES_FROM: u64 = 14_600_000;

pub fn later(seed: u64) -> impl Iterator<Item = Kind> {
    LATER
        .iter()
        .filter(move |(_, _, from, one_of)| seed >= *from && seed.is_multiple_of(*one_of))
        .map(|(kind, ..)| *kind)
}

/// What regent does not stand yet, and what will end that. The swarm draws these only where all kinds are asked for.
pub const TOO_EARLY: &[(Kind, &str)] = &[];

/// Kinds that regent does not stand yet are drawn, too.
pub static ALL_KINDS: AtomicBool = AtomicBool::new(false);

pub fn is_drawn(kind: Kind) -> bool {
    ALL_KINDS.load(Ordering::Relaxed) || TOO_EARLY.iter().all(|(early, _)| *early != kind)
}
