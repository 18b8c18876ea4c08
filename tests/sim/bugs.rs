//! The simulator is tested: with one bug on purpose at a time (`regent::known_bugs`), the stories that drive it, or else
//! random seeds, must find it, by the property that it breaks, within a stated number of seeds.

use crate::cluster::Tell;
use crate::stories::{self, Listed};
use crate::swarm;
use regent::known_bugs::{ALL, Bug, choose};

/// Within how many seeds the stories that drive it must find a bug.
const DIRECTED: u64 = 6;
/// How many random seeds of how many minutes are tried after that.
const RANDOM: u64 = 4;
const MINUTES: u64 = 3;

/// Each bug with the stories that drive it and the properties that may find it.
const DRIVEN: &[(Bug, &[&str], &[&str])] = &[
    (Bug::FenceDisabled, &["nobody_is_promoted_before_the_fence"], &["S1", "S2", "S9"]),
    (Bug::PromoteBeforeFence, &["nobody_is_promoted_before_the_fence"], &["S1", "S2", "S9"]),
    (Bug::BlindCountsAsLost, &["h18_a_blind_channel"], &["S3", "S8"]),
    (Bug::OldViewsCount, &["h16_views_of_a_dead"], &["S3", "S8", "S10"]),
    (Bug::MajorityOfLiving, &["h18_a_majority_is_of_all"], &["S3", "S8"]),
    (Bug::LeaseFromAnswer, &["h25_the_last_request"], &["S5"]),
    (Bug::LeaseBookKept, &["h04_leader_loses"], &["S8"]),
    (Bug::EpochUnchecked, &["h05_a_release_of_an_old"], &["S2", "S4"]),
    (Bug::VerdictForOldIncarnation, &["h08_a_verdict_on"], &["S3", "S4", "S8"]),
    (Bug::FenceBelieved, &["a_lying_device"], &["S1", "S2", "S9"]),
    (Bug::LeaseWithoutQuorum, &["a_leader_without_a_quorum"], &["S1", "S2", "S5"]),
    (Bug::ReleasedEarly, &["a_release_is_said_when"], &["S1", "S2"]),
    (Bug::PauseIgnoredByLease, &["a_resume_that_the_holder", "h02_pause"], &["S1", "S2"]),
    (Bug::SyncSetIgnored, &["h21_any_one_of_two"], &["S6"]),
    (Bug::DoubtIgnored, &["h16_whoever_stood_still"], &["S8", "S10"]),
    (Bug::LeaseNotWaitedFor, &["h12_cut_off", "h13_daemon_killed", "h12_both"], &["S1", "S2"]),
    (Bug::NumberGivenTwice, &["h22_the_appointee_dies"], &["S4"]),
    (Bug::StaleOrderRuns, &["whoever_catches_up_does_not_begin"], &["S4"]),
    (Bug::LateVerdictShoots, &["a_verdict_that_commits_late"], &["S8"]),
    (Bug::PassedOverAfterGrant, &["a_recovery_that_takes_longer"], &["S1", "S2"]),
    (Bug::AssistantStays, &["what_an_assistant_did"], &["rules"]),
    (Bug::TombstoneForgotten, &["a_final_word_that_could"], &["L1"]),
    (Bug::CloneEndsEpoch, &["a_second_start_of_the_primary"], &["S1", "S2"]),
    (Bug::LossUnnamed, &["h22_the_appointee_dies", "h21_the_acknowledging"], &["S7"]),
];

/// Looks for one bug: what found it, or why nothing did.
fn find(bug: Bug, names: &[&str], properties: &[&str]) -> Result<String, String> {
    let by = |why: &str| properties.iter().find(|p| why.starts_with(&format!("{p} "))).copied();
    let mut tried = 0;
    let mut strange = None;
    let driven: Vec<&Listed> = stories::all().filter(|(s, _, _)| names.iter().any(|n| s.starts_with(n))).collect();
    if driven.is_empty() {
        return Err(format!("no story drives {bug:?}"));
    }
    for seed in 1..=DIRECTED {
        for (name, story, _) in &driven {
            tried += 1;
            if let Err(why) = story(seed, Tell::Nobody) {
                match by(&why) {
                    Some(property) => {
                        return Ok(format!("{property}, by seed {seed} of {name} ({tried} tried)"));
                    }
                    None => strange = Some(why),
                }
            }
        }
    }
    for seed in 1..=RANDOM {
        tried += 1;
        if let Some(why) = swarm::run(seed, MINUTES, Tell::Nobody).violation {
            match by(&why) {
                Some(property) => return Ok(format!("{property}, by random seed {seed} ({tried} tried)")),
                None => strange = Some(why),
            }
        }
    }
    Err(format!("not found by {tried} seeds; the last failure was {strange:?}"))
}

/// Every bug, or those whose names contain `only`; each result with its name.
pub fn all(only: Option<&str>, mut take: impl FnMut(&str, Result<String, String>)) {
    for (name, bug) in ALL.iter().filter(|(name, _)| only.is_none_or(|o| name.contains(o))) {
        let driven = DRIVEN.iter().find(|(b, _, _)| b == bug);
        let Some((_, names, properties)) = driven else {
            take(name, Err("no story drives it".to_owned()));
            continue;
        };
        choose(Some(*bug));
        let found = find(*bug, names, properties);
        choose(None);
        take(name, found);
    }
}
