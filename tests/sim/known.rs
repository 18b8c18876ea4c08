//! What regent is known to do wrong: each kind with a story that shows it, and what will end it. The story is told with
//! every run and must fail, by that kind: one that passes must be taken off this list. A random run that ends in such a
//! failure is counted apart, and never as one that passed.

use crate::cluster::{S, Tell};
use crate::stories::{Story, Told, command, end, primary, three};
use regent::ledger::{Claim, ClaimState, Command, Machine};
use regent::types::Boot;

/// One kind of failure.
pub struct Failure {
    /// The word with which its violations begin.
    pub kind: &'static str,
    pub name: &'static str,
    story: Story,
    pub ends: &'static str,
}

/// Every kind.
pub const FAILURES: &[Failure] = &[Failure {
    kind: "S2/clone",
    name: "an_image_of_the_primary_is_started_beside_it",
    story: clone_joins,
    ends: "ends when a join of another boot is refused or waited for while the holder's own boot is heard",
}];

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

/// Last night's image of the primary boots on another machine, finds its database stopped, and says at its join that the
/// epoch is over. The real one goes on.
fn clone_joins(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let node = w.hosts[old].name.clone();
    let epoch = w.log.state().services[&w.services[0]].epoch;
    // Its copy of the log is as new as that of its twin.
    let known = w.log.state().nodes.get(&node).map(|n| n.incarnation);
    command(&mut w, |service| Command::Join {
        boot: Boot(format!("{node}-twin").into()),
        request: 1,
        succeeds: known,
        machine: Machine { id: node.to_string(), is_virtual: false, watchdog: None },
        claims: [(service, Claim { epoch, state: ClaimState::Over { position: None } })].into(),
        node,
    })?;
    w.run_until(w.now + 20 * S);
    end(w, true, "", "the epoch goes on".to_owned())
}
