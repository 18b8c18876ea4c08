//! What regent is known to do wrong: each kind with a story that shows it, and what will end it. The story is told with
//! every run and must fail, by that kind: one that passes must be taken off this list. A random run that ends in such a
//! failure is counted apart, and never as one that passed.

use crate::cluster::Tell;
use crate::stories::{Story, Told};

/// One kind of failure.
pub struct Failure {
    /// The word with which its violations begin.
    pub kind: &'static str,
    pub name: &'static str,
    story: Story,
    pub ends: &'static str,
}

/// Every kind.
pub const FAILURES: &[Failure] = &[];

/// The kind of this violation, if it is known.
pub fn kind(violation: Option<&str>) -> Option<&'static str> {
    let word = violation?.split(' ').next()?;
    FAILURES.iter().map(|f| f.kind).find(|kind| *kind == word)
}

impl Failure {
    /// Tells the story. How it failed, if it failed as it must.
    pub fn tell(&self, tell: Tell) -> Told {
        match (self.story)(1, tell) {
            Ok(told) => Err(format!("it passes now ({told}): take {} off tests/sim/known.rs", self.kind)),
            Err(why) if kind(Some(&why)) == Some(self.kind) => Ok(why),
            Err(why) => Err(format!("it fails otherwise than by {}: {why}", self.kind)),
        }
    }
}
