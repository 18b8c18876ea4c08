//! What this daemon leaves behind with its lease, for the case that it ends without a word: a goodbye for what is left of
//! that lease. Who signs, keeps and sends it is the shell's.
//!
//! Not here: the goodbye before a planned restart (`beats.rs`), and what goodbyes of others are worth (the detector).

use super::context::Context;
use crate::config::Drift;
use crate::types::{Heartbeat, Instant, LeftGoodbye};

/// For a lease that reaches to `until`; never for more than one lease, however far a pause holds it open. A daemon that has
/// not joined is of no incarnation, and has nothing to say.
pub(super) fn left_behind(context: &Context, until: Instant) -> Option<LeftGoodbye> {
    let from = Heartbeat {
        cluster: context.start.cluster.clone(),
        node: context.me(),
        boot: context.start.boot.clone(),
        incarnation: context.incarnation?,
        sequence: 0,
        body: None,
    };
    let left = until.since(context.now).min(context.config.lease_time().used());
    let drift = context.state.settings.as_ref().map_or(Drift(context.config.lease.drift_permille), |s| s.drift());
    // A reader's clock may be slower than this one.
    Some(LeftGoodbye::new(from, context.now + left, (left, drift.shortened(left))))
}

#[cfg(test)]
mod tests {
    use super::super::HELD_OPEN;
    use super::super::context_test::{NOW, desk};
    use super::*;
    use crate::ledger::world_test::{DB1, World};
    use std::time::Duration;

    #[test]
    fn it_is_for_the_rest_of_the_lease_and_of_this_very_incarnation() {
        let mut db1 = desk("db1", DB1, &World::new().state).context;
        let until = NOW + Duration::from_secs(3);
        let left = left_behind(&db1, until).expect("it has joined");
        assert_eq!(left.end(), until);
        let (needs, whole) = left.letters().last().expect("the longest");
        assert_eq!((needs, whole.incarnation, whole.boot), (Duration::from_secs(3), DB1, db1.start.boot.clone()));
        let promised = whole.body.and_then(|body| body.goodbye).expect("a goodbye").back_within;
        assert!(promised <= Duration::from_secs(3) && promised > Duration::from_millis(2500), "{promised:?}");
        let held_open = left_behind(&db1, HELD_OPEN).expect("it has joined");
        assert!(held_open.end() <= NOW + db1.config.lease.ttl, "a pause makes no goodbye without an end");
        db1.incarnation = None;
        assert_eq!(left_behind(&db1, until), None);
    }
}
