//! Directed stories of an appointee that lives, and does not take over.

use super::{Listed, Told, end, moved_from, primary, ready, seconds};
use crate::cluster::{S, Tell, World};
use crate::setup;

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("an_appointee_that_hears_nothing_is_passed_over", hears_nothing, 4),
    ("an_appointee_that_hears_nothing_is_passed_over_by_the_next_leader", next_leader, 4),
    ("an_appointee_that_hears_of_it_while_it_is_passed_over_never_writes", hears_late, 6),
    ("an_appointee_that_hears_nothing_is_waited_for_where_nobody_else_could", nobody_else, 2),
];

/// The primary's host loses power, and the log gets no more to the best candidate before it is appointed: the old one and
/// the new one.
fn appointed_in_vain(w: &mut World, lasts: u64) -> Result<(usize, usize), String> {
    let old = primary(w)?;
    let name = w.services[0].clone();
    let before = w.log.state().services[&name].epoch;
    w.power_off(old);
    w.run_while(w.now + 30 * S, |w| w.log.state().fences.values().any(|f| f.confirmed.is_some()));
    let appointee = (0..3).find(|h| *h != old).ok_or("nobody")?;
    w.fall_behind(appointee, lasts);
    w.run_while(w.now + 30 * S, |w| w.log.state().services[&name].epoch > before);
    let holder = w.log.state().services[&name].holder.clone().ok_or("no holder")?;
    match w.host(&holder.node) == appointee {
        true => Ok((old, appointee)),
        false => Err(format!("{} was appointed", holder.node)),
    }
}

fn hears_nothing(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let (old, appointee) = appointed_in_vain(&mut w, 100 * S)?;
    let took = moved_from(&mut w, old, 20 * S)?;
    let other = w.primary() != Some(appointee) && w.facts.counts.passed_over == 1;
    w.power_on(old);
    w.run_until(w.now + 140 * S);
    let (boots, whole) = (w.hosts[appointee].boots, w.is_whole());
    let told = format!("another ({other}) takes over after {}, boots {boots}, whole {whole}", seconds(took));
    end(w, other && boots == 1 && whole && took < 8 * S, &told, told.clone())
}

/// The leader that appointed it is gone: the next one knows of no lease, and waits for its end.
fn next_leader(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let (old, appointee) = appointed_in_vain(&mut w, 100 * S)?;
    w.elect_now();
    let took = moved_from(&mut w, old, 60 * S)?;
    w.power_on(old);
    w.run_until(w.now + 140 * S);
    let ok = w.primary() != Some(appointee) && w.is_whole();
    end(w, ok, "it was not passed over", format!("another takes over after {}", seconds(took)))
}

/// The log gets to it again just when its time is over.
fn hears_late(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let (old, _) = appointed_in_vain(&mut w, 3700 * (S / 1000) + seed * 200 * (S / 1000))?;
    let took = moved_from(&mut w, old, 60 * S)?;
    w.power_on(old);
    w.run_until(w.now + 60 * S);
    let ok = w.is_whole();
    end(w, ok, "not whole again", format!("writes again after {}", seconds(took)))
}

/// Two databases: an epoch more would bring nothing.
fn nobody_else(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(2, 1), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    let name = w.services[0].clone();
    w.run_while(w.now + 30 * S, |w| w.log.state().services[&name].epoch.0 > 1);
    let standby = 1 - old;
    w.fall_behind(standby, 40 * S);
    w.run_until(w.now + 60 * S);
    let ok = w.facts.counts.passed_over == 0 && w.primary() == Some(standby);
    end(w, ok, "it was passed over, or did not take over", "it takes over when it hears of it".to_owned())
}
