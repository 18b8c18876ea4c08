//! The looks at the database: the latest one for whoever wants to know, and the wait for one that began after a moment.
//!
//! Not here: looking (`observer.rs`).

use crate::types::{DbState, Observation};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What the observer publishes.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Grows with each look.
    pub looks: u64,
    /// Grows with each look that brought something else than the one before.
    pub version: u64,
    pub observation: Observation,
}

impl Seen {
    /// Before the first look.
    pub fn nothing() -> Self {
        Seen { looks: 0, version: 0, observation: Observation::unclear() }
    }
}

/// Publishes a look.
pub fn publish(to: &watch::Sender<Seen>, observation: Observation) {
    to.send_modify(|seen| {
        seen.looks += 1;
        if seen.observation != observation {
            seen.version += 1;
            seen.observation = observation;
        }
    });
}

/// Waits, for so long at most, until the observer has looked once more from beginning to end, or sees what the last action
/// led to: what is asked for next is then decided on what that left behind.
pub async fn once_more(of: &watch::Sender<Seen>, ask: &Notify, led_to: Option<DbState>, patience: Duration) {
    let mut seen = of.subscribe();
    // One look may be under way already, so the second one is the first that began after this.
    let enough = seen.borrow().looks + 2;
    let looks = async {
        loop {
            ask.notify_one();
            if seen.changed().await.is_err() {
                return;
            }
            let seen = seen.borrow();
            if seen.looks >= enough || led_to == Some(seen.observation.state) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(patience, looks).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn look(state: DbState) -> Observation {
        Observation { state, ..Observation::unclear() }
    }

    /// After how many of these looks the wait is over.
    async fn over_after(led_to: Option<DbState>, states: &[DbState]) -> Option<usize> {
        let (seen, asked) = (watch::channel(Seen::nothing()).0, Notify::new());
        let mut wait = std::pin::pin!(once_more(&seen, &asked, led_to, Duration::from_secs(3600)));
        for (number, state) in states.iter().enumerate() {
            if futures::poll!(&mut wait) == Poll::Ready(()) {
                return Some(number);
            }
            publish(&seen, look(*state));
        }
        (futures::poll!(&mut wait) == Poll::Ready(())).then_some(states.len())
    }

    #[tokio::test]
    async fn a_look_that_began_before_does_not_count_however_late_it_comes() {
        use DbState::{Primary, Standby, Starting};
        assert_eq!(over_after(Some(Primary), &[Standby]).await, None, "it may have begun before recovery ended");
        assert_eq!(over_after(Some(Primary), &[Standby, Standby]).await, Some(2));
        assert_eq!(over_after(Some(Primary), &[Primary, Primary]).await, Some(1), "what it led to is there");
        assert_eq!(over_after(None, &[Starting, Starting, Starting]).await, Some(2));
    }
}
