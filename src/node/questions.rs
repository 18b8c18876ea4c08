//! The pauses between the coordinator's questions. A question that got no answer of use is put again, but a peer that
//! cannot be connected answers at once, and so does one that has nothing to say: each has a pause of its own.

use crate::plan::Question;
use crate::types::{Instant, NodeName};
use std::time::Duration;

/// The pause before a question that got no answer of use is put again; it doubles.
const PAUSE: Duration = Duration::from_millis(30);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Questions that got no answer of use: how often in a row, and when each may be put again.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<(NodeName, Question, u32, Instant)>);

impl Questions {
    /// Whether it is not to be put again yet.
    pub fn rests(&self, now: Instant, to: &NodeName, question: &Question) -> bool {
        self.0.iter().any(|(n, q, _, at)| (n, q) == (to, question) && now < *at)
    }

    /// The question ended.
    pub fn answered(&mut self, now: Instant, by: &NodeName, question: &Question, of_use: bool) {
        let before = self.0.iter().find(|(n, q, ..)| (n, q) == (by, question)).map_or(0, |(_, _, times, _)| *times);
        self.0.retain(|(n, q, _, at)| (n, q) != (by, question) && now < *at + PAUSE_MAX * 4);
        if !of_use {
            let pause = PAUSE.saturating_mul(1 << before.min(6)).min(PAUSE_MAX);
            self.0.push((by.clone(), question.clone(), before + 1, now + pause));
        }
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// When one may be put again.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.0.iter().map(|(.., at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Term};

    #[test]
    fn a_question_without_an_answer_of_use_is_put_again_after_a_pause_that_grows() {
        let node = |name: &str| name.parse::<NodeName>().expect("a valid name");
        let seal = |epoch| Question::Seal { service: "orders".parse().expect("a valid name"), epoch: Epoch(epoch) };
        let check = Question::Check { fence: crate::types::FenceId(1), refuted: 0, term: Term(1) };
        let (mut questions, mut now) = (Questions::default(), Instant(0));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(!questions.rests(now, &node("db2"), &seal(1)));
            questions.answered(now, &node("db2"), &seal(1), false);
            assert!(questions.rests(now, &node("db2"), &seal(1)), "not at once");
            let at = questions.next_wakeup().expect("it is put again");
            pauses.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 500, 500, 500]);
        questions.answered(now, &node("db2"), &seal(1), false);
        let other = [(node("db3"), seal(1)), (node("db2"), seal(2)), (node("db2"), check)];
        assert!(other.iter().all(|(to, question)| !questions.rests(now, to, question)), "each has a pause of its own");
        questions.answered(now, &node("db2"), &seal(1), true);
        assert!(!questions.rests(now, &node("db2"), &seal(1)));
    }
}
