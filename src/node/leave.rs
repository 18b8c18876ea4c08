//! A node that leaves in order: from the word that its daemon, or its host, stops until nothing here needs the daemon any
//! more. Then, or when the time for it is over, the daemon may end.
//!
//! Not here: what is done to the databases meanwhile (`plan/keeper/leave.rs`), who else takes over (`plan/service.rs`), and
//! the end itself with its goodbye (the daemon's).

use crate::types::Instant;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    /// Not before: who else leaves is known by then.
    hears_at: Instant,
    /// Whatever is left to do then, it ends.
    until: Instant,
    /// For how long the others are waited for, once everything here is closed.
    patience: Duration,
    closed_at: Option<Instant>,
    is_over: bool,
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToDo {
    /// No database of this node needs its daemon.
    pub closed: bool,
    /// The ledger has not heard everything, and this node's vote is needed for that; or this node leads, or its watchdog is
    /// armed still.
    pub owes: bool,
}

impl Leave {
    pub fn begins(now: Instant, hears_at: Instant, within: Duration, patience: Duration) -> Self {
        Leave { hears_at, until: now + within, patience, closed_at: None, is_over: false }
    }

    /// Compares. What is over stays over.
    pub fn settle(&mut self, now: Instant, left: ToDo) {
        self.closed_at = left.closed.then(|| self.closed_at.unwrap_or(now));
        let heard_or_late = |at: Instant| (!left.owes && now >= self.hears_at) || now >= at + self.patience;
        self.is_over |= now >= self.until || self.closed_at.is_some_and(heard_or_late);
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// When it is over by its time.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        [Some(self.hears_at), Some(self.until), self.closed_at.map(|at| at + self.patience)].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000_000_000);
    const S: Duration = Duration::from_secs(1);

    fn after(seconds: u32, closed: bool, owes: bool, leave: &mut Leave) -> bool {
        leave.settle(NOW + S * seconds, ToDo { closed, owes });
        leave.is_over()
    }

    #[test]
    fn it_ends_when_everything_is_closed_and_said() {
        let mut leave = Leave::begins(NOW, NOW, 100 * S, 8 * S);
        assert!(!after(1, false, true, &mut leave));
        assert!(!after(2, true, true, &mut leave), "the ledger has still to hear it");
        assert!(after(3, true, false, &mut leave));
    }

    #[test]
    fn nobody_who_hears_nothing_holds_it_up_for_long_and_nothing_for_ever() {
        let mut leave = Leave::begins(NOW, NOW, 100 * S, 8 * S);
        assert!(!after(10, true, true, &mut leave));
        assert_eq!(leave.due().filter(|at| *at > NOW).min(), Some(NOW + 18 * S));
        assert!(!after(17, true, true, &mut leave));
        assert!(after(18, true, true, &mut leave), "it is in its heartbeats, and on its disk");
        let mut leave = Leave::begins(NOW, NOW, 100 * S, 8 * S);
        assert!(!after(99, false, true, &mut leave));
        assert!(after(100, false, true, &mut leave));
    }
}
