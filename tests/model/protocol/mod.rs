//! The protocol as a system of states and steps: lease, verdict, fence and appointment, as the design says them.
//!
//! It is written from the design alone and shares no line with the program: a checker that calls the code under test
//! proves nothing. What is left out is said in docs/safety.md.

use crate::packing;
use crate::search::{Key, System};
use crate::state::{State, pair};
use crate::step::{Scope, Step};

mod appointment;
mod executor;
mod keeper;
mod verdict;
mod world;

/// The protocol within one scope.
pub struct Protocol {
    pub scope: Scope,
}

impl Protocol {
    /// Whether it is counted how long each pair has heard each other.
    fn counts_hearing(&self) -> bool {
        self.scope.lie || self.scope.late
    }

    fn push(&self, into: &mut Vec<(Step, State)>, step: Step, state: State) {
        into.push((step, state.tidied()));
    }
}

impl System for Protocol {
    type State = State;
    type Step = Step;

    fn starts(&self) -> Vec<State> {
        let start = State::start(self.scope.cuts, self.scope.crashes, self.scope.outages);
        vec![State { steady: [self.counts_hearing(); 3], ..start }]
    }

    fn steps(&self, state: &State, into: &mut Vec<(Step, State)>) {
        let first = into.len();
        world::steps(self, state, into);
        keeper::steps(self, state, into);
        verdict::steps(self, state, into);
        executor::steps(self, state, into);
        appointment::steps(self, state, into);
        for (_, next) in &mut into[first..] {
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                next.steady[pair(a, b)] &= next.linked(a, b) == state.linked(a, b);
            }
        }
    }

    fn pack(&self, state: &State) -> Key {
        packing::pack(state)
    }

    fn unpack(&self, key: &Key) -> State {
        packing::unpack(key)
    }
}
