//! An exhaustive search: every state that a system can reach, level by level, each kept whole and looked at once.
//!
//! Not here: what the states mean. The order is strictly breadth first, so a trace that is found is a shortest one, and
//! two runs are the same. States are compared by all of their bits, not by a fingerprint: none is taken for another.

/// A state, packed.
pub type Key = [u64; 4];

/// Something that can be in many states and goes from one to the next by steps.
pub trait System {
    type State: Copy;
    type Step: Copy + std::fmt::Display;
    fn starts(&self) -> Vec<Self::State>;
    /// Appends every step that is possible in `state`, each with the state that it leads to.
    fn steps(&self, state: &Self::State, into: &mut Vec<(Self::Step, Self::State)>);
    /// Two states are the same exactly when their keys are.
    fn pack(&self, state: &Self::State) -> Key;
    fn unpack(&self, key: &Key) -> Self::State;
}

/// A named question about one state.
pub type Question<S> = (&'static str, fn(&S) -> bool);

/// What is asked of a search.
pub struct Search<'a, S> {
    /// Must hold in every state; the search ends at the first state in which one does not.
    pub rules: &'a [Question<S>],
    /// Must hold in some state.
    pub goals: &'a [Question<S>],
    /// Levels beyond the start; `usize::MAX` = to the end.
    pub depth: usize,
    /// No more states than these are kept.
    pub states: usize,
}

/// A way from a start.
#[derive(Clone, Debug)]
pub struct Trace {
    pub what: &'static str,
    pub steps: Vec<String>,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    pub transitions: u64,
    /// The last level that has states.
    pub depth: usize,
    /// Every reachable state was looked at.
    pub complete: bool,
    pub broken: Option<Trace>,
    /// Each goal that was reached, with a shortest way.
    pub reached: Vec<Trace>,
}

/// Looks for everything that `search` asks.
pub fn run<S: System>(system: &S, search: &Search<S::State>) -> Found {
    let mut seen = Seen::new();
    let mut found = Found::default();
    let mut goals_at: Vec<Option<usize>> = vec![None; search.goals.len()];
    let mut broken = None;
    let mut look = |seen: &mut Seen, state: &S::State, parent: usize| -> bool {
        let Some(at) = seen.insert(system.pack(state), parent) else { return false };
        for (goal, reached) in search.goals.iter().zip(goals_at.iter_mut()) {
            if reached.is_none() && (goal.1)(state) {
                *reached = Some(at);
            }
        }
        broken = search.rules.iter().find(|rule| !(rule.1)(state)).map(|rule| (rule.0, at));
        broken.is_some()
    };
    let mut ended = system.starts().iter().any(|start| look(&mut seen, start, Seen::NO_PARENT));
    let (mut at, mut next) = (0, Vec::new());
    found.complete = true;
    'levels: while !ended && at < seen.keys.len() {
        if found.depth == search.depth {
            found.complete = false;
            break;
        }
        let level_end = seen.keys.len();
        while at < level_end {
            next.clear();
            system.steps(&system.unpack(&seen.keys[at]), &mut next);
            found.transitions += next.len() as u64;
            for (_, state) in &next {
                ended = ended || look(&mut seen, state, at);
            }
            at += 1;
            if ended || seen.keys.len() >= search.states {
                found.complete = false;
                found.depth += 1;
                break 'levels;
            }
        }
        found.depth += usize::from(seen.keys.len() > level_end);
    }
    found.states = seen.keys.len();
    let trace = |what, at| Trace { what, steps: way(system, &seen, at) };
    found.broken = broken.map(|(what, at)| trace(what, at));
    let reached = search.goals.iter().zip(&goals_at).filter_map(|(goal, at)| at.map(|at| trace(goal.0, at)));
    found.reached = reached.collect();
    found
}

/// The steps from a start to a state. They are not kept: each is looked up again among its parent's.
fn way<S: System>(system: &S, seen: &Seen, end: usize) -> Vec<String> {
    let (mut at, mut steps, mut next) = (end, Vec::new(), Vec::new());
    while seen.parents[at] as usize != Seen::NO_PARENT {
        let parent = seen.parents[at] as usize;
        next.clear();
        system.steps(&system.unpack(&seen.keys[parent]), &mut next);
        let step = next.iter().find(|(_, state)| system.pack(state) == seen.keys[at]);
        steps.push(step.expect("the parent led here").0.to_string());
        at = parent;
    }
    steps.reverse();
    steps
}

/// All states so far, in the order in which they were found, each with the one from which it was reached first.
struct Seen {
    keys: Vec<Key>,
    parents: Vec<u32>,
    /// Open addressing: places in `keys`, `FREE` where there is none. Its length is a power of two.
    table: Vec<u32>,
}

impl Seen {
    const NO_PARENT: usize = u32::MAX as usize;
    const FREE: u32 = u32::MAX;

    fn new() -> Self {
        Seen { keys: Vec::new(), parents: Vec::new(), table: vec![Self::FREE; 1 << 12] }
    }

    /// The place of a new state, `None` for one that is known.
    fn insert(&mut self, key: Key, parent: usize) -> Option<usize> {
        if self.keys.len() * 2 >= self.table.len() {
            self.grow();
        }
        let place = self.place(&key);
        if self.table[place] != Self::FREE {
            return None;
        }
        let at = self.keys.len();
        assert!(at < Self::NO_PARENT, "more states than a u32 can number");
        self.table[place] = at as u32;
        self.keys.push(key);
        self.parents.push(parent as u32);
        Some(at)
    }

    /// Where the key stands, or would.
    fn place(&self, key: &Key) -> usize {
        let mask = self.table.len() - 1;
        let mut place = mix(key) as usize & mask;
        loop {
            let at = self.table[place];
            if at == Self::FREE || self.keys[at as usize] == *key {
                return place;
            }
            place = (place + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let bigger = self.table.len() * 2;
        self.table.clear();
        self.table.resize(bigger, Self::FREE);
        for at in 0..self.keys.len() {
            let place = self.place(&self.keys[at]);
            self.table[place] = at as u32;
        }
    }
}

fn mix(key: &Key) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15_u64;
    let mut at = 0;
    while at < 4 {
        hash = (hash ^ key[at]).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash ^= hash >> 32;
        at += 1;
    }
    hash
}
