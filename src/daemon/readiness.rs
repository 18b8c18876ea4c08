//! Would a failover succeed now, and if not, why: judged from what this node knows, said in `status` at any moment.
//!
//! Not here: collecting what it is judged by (`report.rs`), and any decision: nobody acts on it.

use crate::api::status::Readiness;
use crate::types::NodeName;

/// A standby that could take over, as far as its database goes.
pub struct Candidate {
    pub node: NodeName,
    /// What its daemon must do for safety and cannot do, in words.
    pub failing: Vec<String>,
}

/// Everything that it is judged by.
#[derive(Default)]
pub struct Standing {
    /// Nobody is known to lead.
    pub no_leader: bool,
    /// How many voters may be lost, and whether the holder's is one of those that are connected.
    pub margin: i32,
    pub holder_is_connected: bool,
    pub holder: Option<NodeName>,
    /// As for a candidate.
    pub holder_failing: Vec<String>,
    /// Those that stream from the holder and are connected.
    pub candidates: Vec<Candidate>,
    /// Whatever else stands in the way.
    pub besides: Vec<String>,
}

/// The judgement.
pub fn judge(standing: Standing) -> Readiness {
    let mut reasons = Vec::new();
    if standing.no_leader {
        reasons.push("no leader is known".to_owned());
    }
    if standing.margin - i32::from(standing.holder_is_connected) < 0 {
        reasons.push("no majority of voters would be left without the primary's host".to_owned());
    }
    if let Some(holder) = &standing.holder {
        reasons.extend(standing.holder_failing.iter().map(|what| format!("{holder}: {what}")));
    }
    let able = standing.candidates.iter().filter(|c| c.failing.is_empty()).count();
    let hampered = standing.candidates.iter().flat_map(|c| c.failing.iter().map(|what| format!("{}: {what}", c.node)));
    let hampered: Vec<_> = hampered.collect();
    if standing.candidates.is_empty() {
        reasons.push("no standby streams from the primary".to_owned());
    } else if able == 0 {
        reasons.extend(hampered.iter().cloned());
    }
    reasons.extend(standing.besides);
    let failover_ready = reasons.is_empty();
    let survives_one_more = failover_ready && standing.margin >= 2 && able >= 2 && hampered.is_empty();
    if failover_ready && !survives_one_more {
        reasons.push("one more failure would leave no majority or no candidate".to_owned());
        reasons.extend(hampered);
    }
    Readiness { failover_ready, survives_one_more, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().expect("valid")
    }

    fn candidate(name: &str, failing: &[&str]) -> Candidate {
        Candidate { node: node(name), failing: failing.iter().map(|what| (*what).to_owned()).collect() }
    }

    /// Five voters, db1 holds, two standbys.
    fn fine() -> Standing {
        Standing {
            margin: 2,
            holder_is_connected: true,
            holder: Some(node("db1")),
            candidates: vec![candidate("db2", &[]), candidate("db3", &[])],
            ..Standing::default()
        }
    }

    #[test]
    fn ready_is_not_said_where_the_holder_fails_at_what_it_must_do() {
        assert!(judge(fine()).survives_one_more);
        let standing = Standing { holder_failing: vec!["its watchdog cannot be fed".to_owned()], ..fine() };
        let judged = judge(standing);
        assert!(!judged.failover_ready && !judged.survives_one_more);
        assert_eq!(judged.reasons, ["db1: its watchdog cannot be fed"]);
    }

    #[test]
    fn a_candidate_that_cannot_arm_its_watchdog_is_no_candidate() {
        let broken = || candidate("db2", &["its watchdog cannot be armed"]);
        let judged = judge(Standing { candidates: vec![broken()], ..fine() });
        assert!(!judged.failover_ready);
        assert_eq!(judged.reasons, ["db2: its watchdog cannot be armed"]);
        // Two others can: a failover would succeed, and what is broken is named all the same.
        let candidates = vec![broken(), candidate("db3", &[]), candidate("db4", &[])];
        let judged = judge(Standing { candidates, ..fine() });
        assert!(judged.failover_ready && !judged.survives_one_more);
        assert!(judged.reasons.contains(&"db2: its watchdog cannot be armed".to_owned()), "{:?}", judged.reasons);
    }

    #[test]
    fn without_a_standby_or_a_majority_nothing_is_ready() {
        let alone = judge(Standing { candidates: Vec::new(), ..fine() });
        assert_eq!(alone.reasons, ["no standby streams from the primary"]);
        let few = judge(Standing { margin: 0, ..fine() });
        assert_eq!(few.reasons, ["no majority of voters would be left without the primary's host"]);
        let once = judge(Standing { margin: 1, ..fine() });
        assert!(once.failover_ready && !once.survives_one_more);
    }
}
