//! For how long a failure counts against a node: a node that could not keep the service comes after its equals for a time
//! that doubles with each failure, and after a day without one it is like any other.
//!
//! Not here: what a failure is (the ledger counts them), and the pause before an appointee that gave back is appointed
//! again (`service.rs`).

use super::{Input, Outlook, Plan};
use crate::ledger::Command;
use crate::types::NodeName;
use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(600);
/// The longest time that one counts, and after which all are forgotten.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn lasting(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}

/// How many failures of the node count now, at a choice among equals.
pub fn counted(seen: &Outlook, node: &NodeName) -> u32 {
    let failures = seen.state.nodes.get(node).map_or(0, |record| record.failures);
    // A daemon that has not seen when counts them.
    let is_recent = seen.applied.failed.get(node).is_none_or(|at| seen.now.since(*at) < lasting(failures));
    if is_recent { failures } else { 0 }
}

/// What is long ago is forgotten, whenever the leader looks next.
pub(super) fn forgive(input: &Input, plan: &mut Plan) {
    for (node, record) in input.state.nodes.iter().filter(|(_, record)| record.failures > 0) {
        let at = input.applied.failed.get(node).copied().unwrap_or(input.lead.since) + LONGEST;
        if input.now >= at {
            plan.propose(Command::Forgive { node: node.clone(), failures: record.failures });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_counts_twice_as_long_as_the_one_before_and_none_for_more_than_a_day() {
        let minutes: Vec<u64> = [1, 2, 3, 8, 9, 40].map(|failures| lasting(failures).as_secs() / 60).into();
        assert_eq!(minutes, [10, 20, 40, 1280, 1440, 1440]);
    }
}
