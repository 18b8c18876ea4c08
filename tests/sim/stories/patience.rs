//! Directed stories of a database that takes its time: crash recoveries of minutes, standbys with a backlog, an upstream
//! that is busy.

use super::{Listed, Told, end, primary, three};
use crate::cluster::{S, Tell};

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] =
    &[("a_recovery_that_takes_longer_than_the_install_deadline_is_waited_for", late_recovery, 4)];

/// The site loses power. The former primary is appointed again, and its crash recovery takes longer than the deadline.
fn late_recovery(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    (0..3).for_each(|h| w.power_off(h));
    w.db(old, 0).ails.late_primary = 45 * S;
    w.run_until(w.now + 2 * S);
    (0..3).for_each(|h| w.power_on(h));
    w.run_until(w.now + 120 * S);
    let ok = w.primary() == Some(old);
    end(w, ok, "it was not waited for", "it goes on as primary".to_owned())
}
