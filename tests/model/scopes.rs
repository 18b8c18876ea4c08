//! The scopes that are searched, each to its end or to a stated depth, with what must be reachable in it; and the
//! mistakes, each with the scope in which it must be found and the rule that it breaks.
//!
//! A mistake is looked for in a scope that is also searched without it: what is found there is the mistake's doing.

use crate::properties::{
    AFTER_LEASE, AFTER_POWER, AFTER_RELEASE, BEHIND, NOBODY_SHOT, PASSED, REFUTED, SECOND, SECOND_ORDER, SWITCHED_ON,
    UNHEARD,
};
use crate::search::Question;
use crate::state::State;
use crate::step::{Bug, Scope};

/// One search without a mistake.
pub struct Searched {
    pub name: &'static str,
    pub scope: Scope,
    /// Steps from the start; `None` = every state there is.
    pub depth: Option<usize>,
    pub goals: &'static [Question<State>],
    /// Only with `--deep`.
    pub deep: bool,
}

/// One kind of fault at a time, so that each can be searched to its end.
const NONE: Scope = Scope {
    cuts: 0,
    crashes: 0,
    outages: 0,
    terms: 2,
    epochs: 3,
    fences: 2,
    power: false,
    lease: false,
    lie: false,
    releases: false,
    pause: false,
    executors: false,
    orders: 0,
    on: false,
    late: false,
    passes: false,
    false_suspicion: false,
    bug: None,
};
const OUTAGES: Scope = Scope { outages: 2, power: true, ..NONE };
const CRASHES: Scope = Scope { crashes: 2, power: true, lease: true, epochs: 2, fences: 1, ..NONE };
const CRASHES_TWO_FAILOVERS: Scope = Scope { epochs: 3, fences: 2, ..CRASHES };
const CUTS: Scope = Scope { cuts: 3, lease: true, ..NONE };
const LEADERS: Scope = Scope { cuts: 3, lease: true, terms: 3, epochs: 2, fences: 1, ..NONE };
const CRASH_AND_CUTS: Scope = Scope { crashes: 1, cuts: 2, lease: true, epochs: 2, fences: 1, ..NONE };
const RELEASES: Scope = Scope { cuts: 2, lease: true, releases: true, epochs: 2, fences: 1, ..NONE };
const PAUSE: Scope = Scope { cuts: 2, epochs: 2, fences: 1, lease: true, pause: true, ..NONE };
const LIE: Scope = Scope { cuts: 2, power: true, lease: true, lie: true, epochs: 2, fences: 1, ..NONE };
const DETECTOR: Scope =
    Scope { crashes: 1, power: true, lease: true, false_suspicion: true, epochs: 2, fences: 1, ..NONE };
const RELEASES_TWICE: Scope = Scope { crashes: 1, epochs: 3, fences: 2, ..RELEASES };
const PAUSE_TWO_FAILOVERS: Scope = Scope { cuts: 3, epochs: 3, fences: 2, ..PAUSE };
const CUTS_AND_OUTAGE: Scope = Scope { cuts: 2, outages: 1, power: true, lease: true, ..NONE };
const ONE_LEADER: Scope = Scope { terms: 1, ..CUTS_AND_OUTAGE };
const LIE_AND_CRASH: Scope = Scope { crashes: 1, terms: 1, lease: false, ..LIE };
const LIE_AND_CUTS: Scope = Scope { cuts: 3, terms: 1, ..LIE };
const LATE: Scope = Scope { late: true, cuts: 2, power: true, epochs: 2, fences: 1, ..NONE };
const LATE_AND_CRASH: Scope = Scope { crashes: 1, ..LATE };
const LATE_CUTS: Scope = Scope { cuts: 3, ..LATE };
const PASSED_OVER: Scope = Scope { cuts: 2, lease: true, passes: true, epochs: 3, fences: 0, ..NONE };
const PASSED_OVER_AND_CRASH: Scope = Scope { crashes: 1, cuts: 1, fences: 1, ..PASSED_OVER };
const PASSED_OVER_IN_A_PAUSE: Scope = Scope { pause: true, cuts: 1, epochs: 2, fences: 1, ..PASSED_OVER };
const PASSED_OVER_AND_THREE_LEADERS: Scope = Scope { terms: 3, fences: 2, ..PASSED_OVER };
/// With executors: one daemon crashes, which gives the reason for a verdict.
const EXECUTORS: Scope = Scope { executors: true, crashes: 1, power: true, epochs: 2, fences: 1, ..NONE };
const EXPIRE: Scope = Scope { terms: 1, orders: 2, ..EXECUTORS };
const ONE_ORDER: Scope = Scope { orders: 1, ..EXPIRE };
const INHERITED: Scope = Scope { terms: 2, orders: 1, ..EXECUTORS };
const ORDERED_ANEW: Scope = Scope { terms: 2, orders: 2, ..EXECUTORS };
const EXECUTOR_CRASHES: Scope = Scope { crashes: 2, ..INHERITED };
const POWER_BACK: Scope = Scope { crashes: 0, outages: 1, on: true, ..EXPIRE };
const LATE_ORDERS: Scope = Scope { crashes: 0, cuts: 2, late: true, ..INHERITED };
const LYING_AGENT: Scope = Scope { crashes: 0, cuts: 2, lie: true, ..EXPIRE };
const EVERYTHING: Scope = Scope {
    cuts: 2,
    crashes: 1,
    outages: 1,
    terms: 3,
    epochs: 3,
    fences: 3,
    power: true,
    lease: true,
    lie: true,
    releases: true,
    pause: true,
    executors: false,
    orders: 0,
    on: false,
    late: false,
    passes: true,
    false_suspicion: true,
    bug: None,
};
/// With executors, and with verdicts of any age, beside all the rest.
pub const EVERYTHING_AND_ORDERS: Scope = Scope { executors: true, orders: 3, on: true, late: true, ..EVERYTHING };

const fn whole(name: &'static str, scope: Scope, goals: &'static [Question<State>]) -> Searched {
    Searched { name, scope, depth: None, goals, deep: false }
}

const fn deep(name: &'static str, scope: Scope, goals: &'static [Question<State>]) -> Searched {
    Searched { deep: true, ..whole(name, scope, goals) }
}

pub const SEARCHED: [Searched; 33] = [
    whole("two_hosts_lose_power", OUTAGES, &[AFTER_POWER, SECOND]),
    whole("two_daemons_crash", CRASHES, &[AFTER_POWER, AFTER_LEASE]),
    whole("three_links_are_cut", CUTS, &[AFTER_LEASE, SECOND]),
    whole("one_leader_two_links_and_a_host", ONE_LEADER, &[AFTER_POWER, AFTER_LEASE, SECOND]),
    whole("a_daemon_crashes_and_two_links_are_cut", CRASH_AND_CUTS, &[AFTER_LEASE]),
    whole("three_leaders", LEADERS, &[AFTER_LEASE]),
    whole("holders_stop_and_release", RELEASES, &[AFTER_LEASE, AFTER_RELEASE]),
    whole("pause_and_resume", PAUSE, &[AFTER_LEASE]),
    whole("a_device_lies", LIE, &[AFTER_POWER, REFUTED, UNHEARD]),
    whole("the_detector_errs", DETECTOR, &[AFTER_POWER, AFTER_LEASE]),
    whole("an_order_expires", ONE_ORDER, &[AFTER_POWER, BEHIND]),
    whole("orders_expire", EXPIRE, &[AFTER_POWER, SECOND_ORDER, BEHIND]),
    whole("orders_are_inherited", INHERITED, &[AFTER_POWER, BEHIND]),
    whole("power_comes_back", POWER_BACK, &[AFTER_POWER, SWITCHED_ON, BEHIND]),
    whole("verdicts_are_late", LATE, &[NOBODY_SHOT]),
    whole("appointees_are_passed_over", PASSED_OVER, &[PASSED]),
    whole("an_appointee_is_passed_over_in_a_pause", PASSED_OVER_IN_A_PAUSE, &[]),
    Searched { name: "everything_at_once", scope: EVERYTHING, depth: Some(8), goals: &[], deep: false },
    Searched { name: "everything_and_orders", scope: EVERYTHING_AND_ORDERS, depth: Some(6), goals: &[], deep: false },
    deep("releases_and_two_failovers", RELEASES_TWICE, &[AFTER_LEASE, AFTER_RELEASE]),
    deep("pause_and_two_failovers", PAUSE_TWO_FAILOVERS, &[AFTER_LEASE, SECOND]),
    deep("two_daemons_and_two_failovers", CRASHES_TWO_FAILOVERS, &[AFTER_POWER, AFTER_LEASE, SECOND]),
    deep("two_links_and_a_host", CUTS_AND_OUTAGE, &[AFTER_POWER, AFTER_LEASE, SECOND]),
    deep("a_device_lies_and_a_daemon_crashes", LIE_AND_CRASH, &[AFTER_POWER, REFUTED, UNHEARD]),
    deep("a_device_lies_and_three_links_are_cut", LIE_AND_CUTS, &[AFTER_POWER, REFUTED, UNHEARD]),
    deep("a_device_lies_to_its_executor", LYING_AGENT, &[AFTER_POWER, REFUTED, UNHEARD, SECOND_ORDER]),
    deep("verdicts_are_late_and_a_daemon_crashes", LATE_AND_CRASH, &[AFTER_POWER, NOBODY_SHOT]),
    deep("verdicts_are_late_and_three_links_are_cut", LATE_CUTS, &[AFTER_POWER, NOBODY_SHOT]),
    deep("late_verdicts_and_executors", LATE_ORDERS, &[BEHIND, NOBODY_SHOT]),
    deep("orders_are_given_anew", ORDERED_ANEW, &[AFTER_POWER, SECOND_ORDER, BEHIND]),
    deep("an_appointee_is_passed_over_and_a_daemon_crashes", PASSED_OVER_AND_CRASH, &[AFTER_LEASE, PASSED]),
    deep("an_appointee_is_passed_over_and_three_leaders", PASSED_OVER_AND_THREE_LEADERS, &[AFTER_LEASE, PASSED]),
    deep("an_executor_crashes", EXECUTOR_CRASHES, &[AFTER_POWER, BEHIND]),
];

/// One search for a mistake.
pub struct Mistake {
    pub name: &'static str,
    pub bug: Bug,
    /// The name of a search above.
    pub scope: &'static str,
    /// The rule that is broken first.
    pub rule: &'static str,
    /// Whether it leads to two writers.
    pub two_writers: bool,
}

const fn mistake(name: &'static str, bug: Bug, scope: &'static str, rule: &'static str, two_writers: bool) -> Mistake {
    Mistake { name, bug, scope, rule, two_writers }
}

pub const MISTAKES: [Mistake; 22] = [
    mistake("promote_before_the_fence", Bug::PromoteBeforeFence, "three_links_are_cut", "S2", true),
    mistake("majority_of_the_living", Bug::MajorityOfTheLiving, "the_detector_errs", "S3", false),
    mistake("lease_counted_from_the_answer", Bug::LeaseCountedFromTheAnswer, "three_links_are_cut", "S5", true),
    mistake("book_kept_across_terms", Bug::BookKeptAcrossTerms, "three_leaders", "S5", true),
    mistake("epoch_not_checked", Bug::EpochNotChecked, "a_daemon_crashes_and_two_links_are_cut", "S4", true),
    mistake("verdict_for_an_old_incarnation", Bug::VerdictForAnOldIncarnation, "two_daemons_crash", "S4", false),
    mistake("fence_for_an_old_boot", Bug::FenceForAnOldBoot, "two_hosts_lose_power", "S4", true),
    mistake("fence_believed_in_spite_of_life", Bug::FenceBelievedInSpiteOfLife, "a_device_lies", "S2", true),
    mistake("grant_without_quorum", Bug::GrantWithoutQuorum, "three_leaders", "S5", true),
    mistake("grant_after_the_verdict", Bug::GrantAfterTheVerdict, "three_links_are_cut", "S5", true),
    mistake("released_before_the_end", Bug::ReleasedBeforeTheEnd, "holders_stop_and_release", "S2", true),
    mistake("pause_not_respected", Bug::PauseNotRespected, "pause_and_resume", "S5", true),
    mistake("order_acts_on_apply", Bug::OrderActsOnApply, "an_order_expires", "a device acts", false),
    mistake("age_from_the_answer", Bug::AgeFromTheAnswer, "an_order_expires", "a device acts", false),
    mistake("inherited_order_started", Bug::InheritedOrderStarted, "orders_are_inherited", "a device acts", false),
    mistake("order_ended_early", Bug::OrderEndedEarly, "an_order_expires", "a device acts", false),
    mistake("on_without_warrant", Bug::OnWithoutWarrant, "power_comes_back", "a device acts", false),
    mistake("late_verdict_obeyed", Bug::LateVerdictObeyed, "verdicts_are_late", "S8", false),
    mistake("passed_over_after_a_grant", Bug::PassedOverAfterGrant, "appointees_are_passed_over", "S2", true),
    mistake("grant_after_the_denial", Bug::GrantAfterDenial, "appointees_are_passed_over", "S2", true),
    mistake("passed_over_in_another_term", Bug::PassedOverInAnotherTerm, "appointees_are_passed_over", "S2", true),
    mistake("old_check_believed", Bug::OldCheckBelieved, "a_device_lies_and_a_daemon_crashes", "S2", true),
];
