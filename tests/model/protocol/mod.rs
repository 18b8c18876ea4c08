//! The protocol as a system of states and steps: lease, verdict, fence and appointment, as the design says them.
//!
//! It is written from the design alone and shares no line with the program: a checker that calls the code under test
//! proves nothing. What is left out is said in docs/safety.md.

use crate::search::{Key, System};
use crate::state::{self, State};
use crate::step::{Scope, Step};

mod appointment;
mod keeper;
mod verdict;
mod world;

/// The protocol within one scope.
pub struct Protocol {
    pub scope: Scope,
}

impl Protocol {
    fn push(&self, into: &mut Vec<(Step, State)>, step: Step, state: State) {
        into.push((step, state.tidied()));
    }
}

impl System for Protocol {
    type State = State;
    type Step = Step;

    fn starts(&self) -> Vec<State> {
        vec![State::start(self.scope.cuts, self.scope.crashes, self.scope.outages)]
    }

    fn steps(&self, state: &State, into: &mut Vec<(Step, State)>) {
        world::steps(self, state, into);
        keeper::steps(self, state, into);
        verdict::steps(self, state, into);
        appointment::steps(self, state, into);
    }

    fn pack(&self, state: &State) -> Key {
        state::pack(state)
    }

    fn unpack(&self, key: &Key) -> State {
        state::unpack(key)
    }
}
