//! How often a directory is made a standby by a rewind or a copy that comes to nothing. Each try that gets so far costs the
//! primary a checkpoint, the reading of its whole database and a WAL switch, so the pauses between tries grow. The first
//! are short: most failures are those of a primary that has just moved.
//!
//! What was refused before the primary was asked for any of that has pauses of its own, which stay short: a person makes
//! room, or mounts a volume, and waits for it. A new epoch, another node to follow, a person's order and a daemon that starts
//! begin anew, and so does a database that streams.
//!
//! Not here: that it is to be a standby (`table.rs`), and whether it was refused (`engine`). Starts, stops, promotions,
//! seals and final words never wait for this.

use crate::types::{DbOutcome, Epoch, Instant, NodeName};
use std::time::Duration;

/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a try that may have cost the primary something.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The shortest pause after a costly try once the first of them is as long ago as `SETTLED`, however few there were: others
/// that were refused may lie between them.
const PAUSE_LATE: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(45);
/// The longest pause after one that was refused beforehand.
const REFUSED_MAX: Duration = Duration::from_secs(10);

/// The epoch, the node to follow, and the order that is carried out.
type Of = (Epoch, NodeName, Option<u64>);

/// The tries of one service's database since it streamed last, for one epoch and one node to follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejoins {
    of: Option<Of>,
    /// Those that may have cost the primary something, and when the first of them began.
    tries: u32,
    first: Option<Instant>,
    /// Those that were refused beforehand, since the last of the others.
    refused: u32,
    /// The next one begins no sooner.
    again_at: Option<Instant>,
    /// Why the last one came to nothing.
    error: Option<String>,
}

/// What people are told of tries that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCopy {
    /// Tries in a row, those that were refused beforehand included.
    pub tries: u32,
    /// Why the last one failed.
    pub error: String,
    /// When the next one may begin; `None` while it runs.
    pub again_at: Option<Instant>,
}

impl Rejoins {
    /// One begins. Until it ends nobody knows what it costs.
    pub(super) fn begins(&mut self, of: Of, now: Instant) {
        if self.of.as_ref() != Some(&of) {
            *self = Rejoins { of: Some(of), ..Rejoins::default() };
        }
        self.tries += 1;
        self.first.get_or_insert(now);
        self.again_at = Some(now + pause(self.tries, PAUSE_MAX));
    }

    /// It ended. Whether it is a standby where it ended as it should shows when it streams.
    pub(super) fn ended(&mut self, outcome: &DbOutcome, now: Instant) {
        let (error, pause) = match outcome {
            DbOutcome::Refused { error } => {
                (self.tries, self.refused) = (self.tries.saturating_sub(1), self.refused + 1);
                self.first = self.first.filter(|_| self.tries > 0);
                (Some(error.clone()), pause(self.refused, REFUSED_MAX))
            }
            DbOutcome::Failed { error } => (Some(error.clone()), self.costly(now)),
            DbOutcome::Done(_) => (None, self.costly(now)),
        };
        (self.error, self.again_at) = (error, Some(now + pause));
    }

    fn costly(&mut self, now: Instant) -> Duration {
        self.refused = 0;
        let settled = self.first.is_some_and(|first| now.since(first) >= SETTLED);
        pause(self.tries, PAUSE_MAX).max(if settled { PAUSE_LATE } else { Duration::ZERO })
    }

    /// The database streams, or is a primary: what came before is no measure for what comes next.
    pub(super) fn succeeded(&mut self) {
        *self = Rejoins::default();
    }

    /// Whether the next one, in this epoch, from this node and on this order, has to wait.
    pub(super) fn rests(&self, (epoch, node, order): (Epoch, &NodeName, Option<u64>), now: Instant) -> bool {
        let same = self.of.as_ref().is_some_and(|(of, from, on)| (of, from, on) == (&epoch, node, &order));
        same && self.again_at.is_some_and(|at| now < at)
    }

    /// When the next one may begin.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// For people. `runs`: one is under way.
    pub(super) fn failed(&self, runs: bool) -> Option<FailedCopy> {
        let (tries, again_at) =
            ((self.tries + self.refused).saturating_sub(u32::from(runs)), self.again_at.filter(|_| !runs));
        Some(FailedCopy { tries, error: self.error.clone()?, again_at })
    }
}

/// The pause after so many tries.
fn pause(tries: u32, most: Duration) -> Duration {
    PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);
    const EPOCH: Epoch = Epoch(3);

    fn node(name: &str) -> NodeName {
        name.parse().expect("a name")
    }

    fn failed() -> DbOutcome {
        DbOutcome::Failed { error: "it ended".to_owned() }
    }

    fn refused() -> DbOutcome {
        DbOutcome::Refused { error: "it lacks 1 GiB".to_owned() }
    }

    /// When each try begins within an hour, where each takes so long and ends like this.
    fn begun(lasts: Duration, ends: impl Fn(&mut Rejoins, u32, Instant)) -> Vec<Duration> {
        let (mut rejoins, mut now, mut begun) = (Rejoins::default(), START, Vec::new());
        while now.since(START) < MINUTE * 60 {
            assert!(!rejoins.rests((EPOCH, &node("db1"), None), now));
            rejoins.begins((EPOCH, node("db1"), None), now);
            begun.push(now.since(START));
            now += lasts;
            let number = begun.len() as u32;
            ends(&mut rejoins, number, now);
            let again = rejoins.again_at().expect("it was tried");
            assert!(again > now && rejoins.rests((EPOCH, &node("db1"), None), again - Duration::from_millis(1)));
            now = again;
        }
        begun
    }

    /// The primary is too busy to be asked, mostly.
    #[test]
    fn a_costly_try_after_many_that_were_refused_rests_for_a_minute_like_any_other() {
        let ends = |rejoins: &mut Rejoins, number: u32, now| match number % 8 {
            1 => rejoins.ended(&failed(), now),
            _ => rejoins.ended(&refused(), now),
        };
        let begun = begun(Duration::ZERO, ends);
        let costly: Vec<_> = begun.iter().copied().step_by(8).collect();
        let late = costly.windows(2).filter(|pair| pair[0] >= MINUTE);
        assert!(costly.len() > 5 && late.into_iter().all(|pair| pair[1] - pair[0] >= MINUTE), "{costly:?}");
    }

    #[test]
    fn tries_that_fail_are_soon_repeated_at_first_and_then_less_and_less_often() {
        let begun = begun(Duration::ZERO, |rejoins, _, now| rejoins.ended(&failed(), now));
        let seconds: Vec<u64> = begun.iter().map(Duration::as_secs).take(10).collect();
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]);
        assert_eq!(begun.windows(2).map(|pair| pair[1] - pair[0]).max(), Some(MINUTE * 5));
        let after_the_first = begun.windows(2).filter(|pair| pair[0] >= MINUTE);
        assert!(after_the_first.into_iter().all(|pair| pair[1] - pair[0] >= MINUTE), "{begun:?}");
    }

    /// A person makes room, and need not wait for five minutes.
    #[test]
    fn what_is_refused_beforehand_is_looked_at_again_soon_however_often() {
        let begun = begun(Duration::ZERO, |rejoins, _, now| rejoins.ended(&refused(), now));
        assert_eq!(begun.windows(2).map(|pair| pair[1] - pair[0]).max(), Some(MINUTE / 6));
    }

    /// The copies among them are as rare as without: a refusal gives no right to another one.
    #[test]
    fn refusals_between_them_make_copies_no_more_frequent() {
        let is_refused = |number: u32| !number.is_multiple_of(3);
        let begun = begun(Duration::ZERO, |rejoins, number, now| match is_refused(number) {
            true => rejoins.ended(&refused(), now),
            false => rejoins.ended(&failed(), now),
        });
        let copies: Vec<Duration> =
            (1..).zip(&begun).filter(|(number, _)| !is_refused(*number)).map(|(_, at)| *at).collect();
        assert!(copies.windows(2).all(|pair| pair[0] < MINUTE || pair[1] - pair[0] >= MINUTE), "{copies:?}");
    }

    #[test]
    fn a_new_epoch_another_node_and_a_database_that_streams_begin_anew() {
        let mut rejoins = Rejoins::default();
        for _ in 0..9 {
            rejoins.begins((EPOCH, node("db1"), None), START);
            rejoins.ended(&failed(), START);
        }
        assert!(rejoins.rests((EPOCH, &node("db1"), None), START + MINUTE));
        assert!(!rejoins.rests((Epoch(4), &node("db1"), None), START));
        assert!(!rejoins.rests((EPOCH, &node("db2"), None), START));
        let mut anew = rejoins.clone();
        anew.begins((Epoch(4), node("db1"), None), START);
        anew.ended(&failed(), START);
        assert!(!anew.rests((Epoch(4), &node("db1"), None), START + PAUSE), "it is counted from one again");
        rejoins.succeeded();
        assert_eq!((rejoins.rests((EPOCH, &node("db1"), None), START), rejoins.failed(false)), (false, None));
    }

    #[test]
    fn people_are_told_how_often_why_and_when_next() {
        let mut rejoins = Rejoins::default();
        assert_eq!(rejoins.failed(false), None);
        rejoins.begins((EPOCH, node("db1"), None), START);
        rejoins.ended(&failed(), START);
        rejoins.begins((EPOCH, node("db1"), None), START + PAUSE);
        let (tries, error) = (1, "it ended".to_owned());
        assert_eq!(rejoins.failed(true), Some(FailedCopy { tries, error, again_at: None }), "the second one runs");
        rejoins.ended(&refused(), START + PAUSE);
        let (tries, error, again_at) = (2, "it lacks 1 GiB".to_owned(), Some(START + PAUSE * 2));
        assert_eq!(rejoins.failed(false), Some(FailedCopy { tries, error, again_at }));
    }
}
