//! Majorities of voters. Knows sets and names only, nothing of verdicts or fences.

use super::{Life, State};
use crate::known_bugs::{self, Bug};
use crate::types::{NodeId, NodeName};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Whether `these` are a majority in every one of the `voters` sets (both halves of a joint membership).
/// No voters at all: never.
pub fn is_majority(voters: &[BTreeSet<NodeId>], these: &BTreeSet<NodeId>) -> bool {
    !voters.is_empty() && voters.iter().all(|half| half.intersection(these).count() * 2 > half.len())
}

impl State {
    /// Who counts as all: every voter, living or not.
    pub(super) fn electorate(&self) -> Cow<'_, [BTreeSet<NodeId>]> {
        let mut all = Cow::Borrowed(self.voters.as_slice());
        if known_bugs::has(Bug::MajorityOfLiving) {
            let id = |name: &NodeName| self.settings.as_ref().and_then(|s| s.nodes.get(name)).map(|n| n.id);
            let dead: BTreeSet<_> =
                self.nodes.iter().filter(|(_, n)| n.life == Life::Dead).filter_map(|(name, _)| id(name)).collect();
            all.to_mut().iter_mut().for_each(|half| half.retain(|voter| !dead.contains(voter)));
        }
        all
    }

    /// Whether these nodes are a majority of all voters.
    pub fn is_majority<'a>(&self, names: impl IntoIterator<Item = &'a NodeName>) -> bool {
        let Some(settings) = &self.settings else { return false };
        let ids = names.into_iter().filter_map(|n| settings.nodes.get(n)).map(|n| n.id).collect();
        is_majority(&self.electorate(), &ids)
    }

    /// Whether the node votes in either half.
    pub fn is_voter(&self, name: &NodeName) -> bool {
        let id = self.settings.as_ref().and_then(|s| s.nodes.get(name)).map(|n| n.id);
        id.is_some_and(|id| self.voters.iter().any(|half| half.contains(&id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_majority_is_of_all_voters_not_of_the_living() {
        let voters = [set(&[1, 2, 3, 4, 5])];
        assert!(!is_majority(&voters, &set(&[1, 2])));
        assert!(is_majority(&voters, &set(&[1, 2, 3])));
        assert!(!is_majority(&voters, &set(&[1, 2, 8, 9])), "strangers do not vote");
        assert!(!is_majority(&[], &set(&[1])), "no membership yet");
    }

    #[test]
    fn both_halves_of_a_joint_membership_need_their_majority() {
        let voters = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        assert!(!is_majority(&voters, &set(&[1, 2, 3])));
        assert!(is_majority(&voters, &set(&[1, 3, 4])));
    }

    #[test]
    fn one_half_of_an_even_number_is_not_a_majority() {
        assert!(!is_majority(&[set(&[1, 2])], &set(&[1])));
        assert!(!is_majority(&[set(&[1, 2, 3, 4])], &set(&[1, 2])));
    }
}
