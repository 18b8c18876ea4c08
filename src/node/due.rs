//! What a node can want to be woken for, in one closed list.
//!
//! Not here: when each of these is due (the parts know).

/// One reason to wake up by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The next heartbeat.
    Beat,
    /// A proposal that was held back.
    Proposal,
    /// The coordinator's plan, or a question that it puts again.
    Leading,
    /// A lease, an action, or a limit of a local database.
    Database,
    /// Arming or feeding the watchdog.
    Watchdog,
    /// A question how current this copy of the ledger is.
    Reading,
    /// A look at what is in force on this host.
    Lookout,
    /// An assistant that failed.
    Assistant,
    /// The time in which this node is to have left.
    Leave,
}

impl Timer {
    /// Every one.
    pub const ALL: [Timer; 9] = [
        Timer::Beat,
        Timer::Proposal,
        Timer::Leading,
        Timer::Database,
        Timer::Watchdog,
        Timer::Reading,
        Timer::Lookout,
        Timer::Assistant,
        Timer::Leave,
    ];
}
