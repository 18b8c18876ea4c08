//! Faults built in on purpose, so that the tests which must find them are tested themselves. They exist where debug assertions
//! do, which no released binary has; there every question here is the constant `false`.
//!
//! Not here: anything about the tests. A bug is asked about at the one line where the right behaviour stands.

/// A mistake that a failover manager can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Orders of a fence are said to have succeeded and are not carried out, and every check of one holds.
    FenceDisabled = 1,
    /// The next primary is appointed while the fence is still being tried.
    PromoteBeforeFence,
    /// A channel that the observer cannot use counts as lost.
    BlindCountsAsLost,
    /// The rows of heartbeats count at any age, and nobody looks again.
    OldViewsCount,
    /// Whoever is declared dead is no longer counted among all.
    MajorityOfLiving,
    /// A lease counts from the answer, not from before the request.
    LeaseFromAnswer,
    /// A leader goes on with the book of an earlier term of its own.
    LeaseBookKept,
    /// A command about an earlier epoch is taken for one about the present one.
    EpochUnchecked,
    /// A verdict on an earlier incarnation hits the present one.
    VerdictForOldIncarnation,
    /// A fence is believed in spite of heartbeats.
    FenceBelieved,
    /// A lease is granted although the quorum read failed.
    LeaseWithoutQuorum,
    /// `released` is said while the database is still stopping.
    ReleasedEarly,
    /// The `lease` agent does not respect a pause, nor a resume that the holder has not answered.
    PauseIgnoredByLease,
    /// The choice does not look at who has the most WAL.
    SyncSetIgnored,
    /// A node that stood still does not doubt itself.
    DoubtIgnored,
    /// The `lease` agent does not wait for the lease.
    LeaseNotWaitedFor,
    /// The numbers of timelines that were begun and never installed are given again.
    NumberGivenTwice,
    /// What an appointment may lose is not said.
    LossUnnamed,
    /// Whatever the own copy of the ledger shows as ordered is run, however old that copy is.
    StaleOrderRuns,
    /// A fence is closed over what an assistant left behind.
    AssistantStays,
    /// A final word that could not be written is not written again.
    TombstoneForgotten,
    /// A verdict that commits late has its node fenced without another look.
    LateVerdictShoots,
    /// An appointee is passed over although it was granted a lease, and is granted leases while it is.
    PassedOverAfterGrant,
    /// What another boot of a node says at its join ends the epoch of one that may go on.
    CloneEndsEpoch,
}

/// Every bug with the name by which it is chosen.
pub const ALL: &[(&str, Bug)] = &[
    ("fence_disabled", Bug::FenceDisabled),
    ("promote_before_fence", Bug::PromoteBeforeFence),
    ("blind_counts_as_lost", Bug::BlindCountsAsLost),
    ("old_views_count", Bug::OldViewsCount),
    ("majority_of_living", Bug::MajorityOfLiving),
    ("lease_from_answer", Bug::LeaseFromAnswer),
    ("lease_book_kept", Bug::LeaseBookKept),
    ("epoch_unchecked", Bug::EpochUnchecked),
    ("verdict_for_old_incarnation", Bug::VerdictForOldIncarnation),
    ("fence_believed", Bug::FenceBelieved),
    ("lease_without_quorum", Bug::LeaseWithoutQuorum),
    ("released_early", Bug::ReleasedEarly),
    ("pause_ignored_by_lease", Bug::PauseIgnoredByLease),
    ("sync_set_ignored", Bug::SyncSetIgnored),
    ("doubt_ignored", Bug::DoubtIgnored),
    ("lease_not_waited_for", Bug::LeaseNotWaitedFor),
    ("number_given_twice", Bug::NumberGivenTwice),
    ("loss_unnamed", Bug::LossUnnamed),
    ("stale_order_runs", Bug::StaleOrderRuns),
    ("assistant_stays", Bug::AssistantStays),
    ("tombstone_forgotten", Bug::TombstoneForgotten),
    ("late_verdict_shoots", Bug::LateVerdictShoots),
    ("passed_over_after_grant", Bug::PassedOverAfterGrant),
    ("clone_ends_epoch", Bug::CloneEndsEpoch),
];

#[cfg(debug_assertions)]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this process has that bug.
#[cfg(debug_assertions)]
pub fn has(bug: Bug) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this process has that bug: no.
#[cfg(not(debug_assertions))]
pub const fn has(_: Bug) -> bool {
    false
}

/// Gives this process that bug, or none.
#[cfg(debug_assertions)]
pub fn choose(bug: Option<Bug>) {
    CHOSEN.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::Relaxed);
}
