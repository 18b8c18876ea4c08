//! The search and the packing are tested themselves: on a system whose states can be counted by hand, and on every
//! state of a scope.

use crate::packing::{pack, unpack};
use crate::protocol::Protocol;
use crate::scopes::EVERYTHING_AND_ORDERS;
use crate::search::{Key, Question, Search, System, run};
use crate::state::State;

type Test = fn() -> Result<String, String>;

pub const TESTS: [(&str, Test); 2] =
    [("search_finds_every_state_by_a_shortest_way", counts), ("states_survive_packing", packs)];

/// Two dials of 70 and 11 positions; each step turns one of them on by one, or both.
struct Dials;

impl System for Dials {
    type State = (u64, u64);
    type Step = &'static str;

    fn starts(&self) -> Vec<(u64, u64)> {
        vec![(0, 0)]
    }

    fn steps(&self, (a, b): &(u64, u64), into: &mut Vec<(&'static str, (u64, u64))>) {
        into.push(("first", ((a + 1) % 70, *b)));
        into.push(("second", (*a, (b + 1) % 11)));
        into.push(("both", ((a + 1) % 70, (b + 1) % 11)));
    }

    fn pack(&self, state: &(u64, u64)) -> Key {
        [state.0, 0, 0, state.1]
    }

    fn unpack(&self, key: &Key) -> (u64, u64) {
        (key[0], key[3])
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

fn counts() -> Result<String, String> {
    const NEVER: Question<(u64, u64)> = ("never there", |s| *s != (9, 10));
    const THERE: Question<(u64, u64)> = ("there", |s| *s == (12, 0));
    let all = Search { rules: &[], goals: &[THERE], depth: usize::MAX, states: usize::MAX };
    let found = run(&Dials, &all);
    equal("states", (found.states, found.transitions, found.complete), (770, 2310, true))?;
    // Both dials at once, then the first alone: the longest way is as long as the larger dial.
    equal("depth", found.depth, 69)?;
    equal("a shortest way", found.reached[0].steps.len(), 12)?;
    let found = run(&Dials, &Search { rules: &[NEVER], goals: &[], ..all });
    let broken = found.broken.ok_or("the broken rule was not found")?;
    equal("steps to the broken rule", broken.steps.len(), 10)?;
    let short = run(&Dials, &Search { rules: &[NEVER], goals: &[], depth: 3, states: usize::MAX });
    equal(
        "within three steps",
        (short.states, short.depth, short.complete, short.broken.is_some()),
        (16, 3, false, false),
    )?;
    Ok("770 states of 770, shortest ways".to_owned())
}

fn packs() -> Result<String, String> {
    const SAME: Question<State> = ("a state differs after packing", |s| unpack(&pack(s)) == *s);
    let found = run(
        &Protocol { scope: EVERYTHING_AND_ORDERS },
        &Search { rules: &[SAME], goals: &[], depth: usize::MAX, states: 100_000 },
    );
    match found.broken {
        Some(broken) => Err(broken.what.to_owned()),
        None => Ok(format!("{} states", found.states)),
    }
}
