//! Whose turn it is: what may run beside others first, as many at once as there are workers, and then, one at a time, what
//! has the machine for itself: nothing else runs when it begins, and nothing begins beside it.
//!
//! Not here: what is run (`harness.rs`).

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

/// All that is to run, shared by the workers.
pub struct Turns<T> {
    state: Mutex<State<T>>,
    one_ended: Condvar,
}

struct State<T> {
    beside: VecDeque<T>,
    alone: VecDeque<T>,
    running: u32,
}

/// One that runs, until this is dropped.
pub struct Turn<'t, T> {
    pub what: T,
    turns: &'t Turns<T>,
}

impl<T> Turns<T> {
    pub fn new(all: impl IntoIterator<Item = T>, is_alone: impl Fn(&T) -> bool) -> Turns<T> {
        let (alone, beside) = all.into_iter().partition(is_alone);
        Turns { state: Mutex::new(State { beside, alone, running: 0 }), one_ended: Condvar::new() }
    }

    /// The next one, as soon as it may begin; `None` when nothing is left, or nothing more is wanted.
    pub fn next(&self, is_over: impl Fn() -> bool) -> Option<Turn<'_, T>> {
        let waits = |state: &mut State<T>| state.beside.is_empty() && !state.alone.is_empty() && state.running > 0;
        let mut state = self.one_ended.wait_while(self.lock(), waits).expect("no holder of this lock can panic");
        if is_over() {
            return None;
        }
        let next = state.beside.pop_front();
        let what = next.or_else(|| state.alone.pop_front())?;
        state.running += 1;
        Some(Turn { what, turns: self })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.turns.lock().running -= 1;
        self.turns.one_ended.notify_all();
    }
}
