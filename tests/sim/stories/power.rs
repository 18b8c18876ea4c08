//! Directed stories of power that regent takes and gives back.

use super::{Listed, Told, cut_networks, end, moved_from, primary, ready, seconds, three};
use crate::cluster::{MS, S, Tell, World};
use crate::fence::Device;
use crate::invariants::l1;
use crate::setup;
use rand::SeedableRng;
use rand::rngs::StdRng;
use regent::ledger::{Command, Order, OrderState, Phase};
use regent::types::{AgentAction, AgentOutcome};

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_device_that_switches_another_host_is_not_believed", wired_wrong, 4),
    ("two_hosts_that_lose_power_together_are_not_taken_for_a_device_that_strikes", lost_together, 4),
    ("without_a_candidate_the_fenced_host_gets_its_power_back", no_candidate, 3),
    ("an_on_that_fails_is_tried_again", on_fails, 3),
    ("an_off_ends_when_its_node_is_back", off_ends, 3),
    ("a_device_that_refuses_for_40_seconds_is_used_as_soon_as_it_works", busy_device, 4),
    ("an_order_that_came_too_late_is_given_again", too_late, 3),
    ("a_node_that_is_back_is_not_switched_off_for_a_refuted_fence", back_in_vain, 3),
    ("the_only_copy_left_is_not_kept_away_by_a_spent_fence", only_copy, 3),
];

fn orders(w: &World) -> impl Iterator<Item = &Order> {
    w.log.state().fences.values().flat_map(|f| &f.orders)
}

/// The only standby has lost its database when the primary's host stands still for a moment.
fn no_candidate(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.freeze(old, 6 * S, false);
    w.db(1 - old, 0).unfinished = true;
    w.database_killed(1 - old, 0);
    w.run_until(w.now + 20 * S);
    let recovery = l1::comes_back(&mut w, &mut StdRng::seed_from_u64(seed), &[]);
    let same = w.hosts[old].boots == 2;
    end(w, same, "it was not switched off and on once", format!("it writes again after {}", seconds(recovery.writes)))
}

/// The device switches off and refuses to switch on for half a minute.
fn on_fails(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::NeverOn);
    w.net.set_card(0, old, true);
    w.net.set_card(1, old, true);
    w.net.set_disk(old, true);
    moved_from(&mut w, old, 30 * S)?;
    w.net.heal();
    w.run_until(w.now + 30 * S);
    if w.hosts[old].power {
        return Err("the device does not refuse".to_owned());
    }
    w.set_device(old, "ipmi", Device::Honest);
    let back = w.run_while(w.now + 60 * S, |w| w.hosts[old].power && w.is_whole());
    let tries = orders(&w).filter(|o| o.action == AgentAction::On).count();
    end(w, back && tries < 12, "it was left off, or tried without pauses", format!("back at try {tries}"))
}

/// The host reboots by itself, and is back before the slow device has switched anything off.
fn off_ends(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Slow);
    w.power_off(old);
    let begun = w.run_while(w.now + 20 * S, |w| orders(w).any(|o| o.agent.as_str() == "ipmi"));
    w.run_until(w.now + 100 * MS);
    w.power_on(old);
    // Its boot and its daemon's start are quick, or the device would be first.
    w.run_while(w.now + S, |w| w.hosts[old].boots == 2);
    w.start_daemon(old);
    w.run_until(w.now + 30 * S);
    let cut_short = orders(&w).any(|o| match &o.state {
        OrderState::Done { run } => o.action == AgentAction::Off && run.outcome == AgentOutcome::TimedOut,
        OrderState::Running => false,
    });
    let closed = !w.log.state().fences.values().any(|f| f.is_open());
    let same = w.hosts[old].power && w.hosts[old].boots == 2 && w.is_whole();
    let what = format!("begun {begun}, ended {cut_short}, closed {closed}, up and in its second boot {same}");
    end(w, begun && cut_short && closed && same, &what.clone(), what)
}

/// Nobody hears the primary, its devices fail, and a person vouches wrongly. It comes back, is heard, and closes what it
/// had; minutes later the devices work.
fn back_in_vain(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Failing);
    }
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    let opened = |w: &World| w.log.state().fences.values().next().map(|f| (f.incident, f.target.clone()));
    w.run_while(w.now + 20 * S, |w| opened(w).is_some());
    w.run_until(w.now + 15 * S);
    let (incident, target) = opened(&w).ok_or("no fence")?;
    w.order(Command::HumanConfirm { incident, target, who: "story".to_owned(), force: false });
    moved_from(&mut w, old, 30 * S)?;
    w.net.heal();
    let refuted = w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| f.refuted > 0));
    w.run_until(w.now + 20 * S);
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Honest);
    }
    w.run_until(w.now + 180 * S);
    let same = refuted && w.hosts[old].boots == 1 && w.hosts[old].power && w.is_whole();
    let closed = !w.log.state().fences.values().any(|f| f.is_open());
    let what = format!("refuted {refuted}, closed {closed}, up in its first boot and whole {same}");
    end(w, same && closed, &what.clone(), what)
}

/// The primary is vouched for wrongly while its devices fail. Its successor burns down before it is installed, and by then
/// the primary is back, with its database closed: nobody else has the data.
fn only_copy(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let standby = 1 - old;
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Failing);
    }
    w.db(standby, 0).backlog = 600 * S;
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    let opened = |w: &World| w.log.state().fences.values().next().map(|f| (f.incident, f.target.clone()));
    w.run_while(w.now + 20 * S, |w| opened(w).is_some());
    w.run_until(w.now + 15 * S);
    let (incident, target) = opened(&w).ok_or("no fence")?;
    w.order(Command::HumanConfirm { incident, target, who: "story".to_owned(), force: false });
    let promotes = |w: &World| w.log.state().services.values().all(|s| matches!(s.phase, Phase::Promoting { .. }));
    let appointed = w.run_while(w.now + 20 * S, promotes);
    w.net.heal();
    w.power_off(standby);
    w.hosts[standby].unplugged = true;
    let back = w.run_while(w.now + 90 * S, |w| w.primary() == Some(old));
    let same = w.hosts[old].boots == 1 && w.hosts[old].power;
    let what = format!("successor appointed {appointed}, primary again {back}, in its first boot {same}");
    end(w, appointed && back && same, &what.clone(), what)
}

/// Only one voter reaches the device, and that is behind the log for most of the order's time.
/// Both devices of the primary's host refuse at once: the first for 40 seconds, the second for good.
fn busy_device(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let works_at = w.now + 40 * S;
    w.set_device(old, "ipmi", Device::Busy(works_at));
    w.set_device(old, "pdu", Device::Failing);
    w.power_off(old);
    moved_from(&mut w, old, 90 * S)?;
    let orders = orders(&w).count();
    let late = w.now.saturating_sub(works_at);
    let what = format!("{} after the device worked, {orders} orders", seconds(late));
    end(w, late < 5 * S && orders < 60, &what.clone(), what)
}

fn too_late(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    let (leader, _) = w.log.leader.ok_or("nobody leads")?;
    let other = (0..3).find(|h| *h != old && *h != leader).ok_or("there are three")?;
    w.set_device(old, "ipmi", Device::OnlyFrom(other));
    w.set_device(old, "pdu", Device::Failing);
    w.power_off(old);
    let name = w.hosts[other].name.clone();
    let is_its = |w: &World| orders(w).any(|o| o.executor == name && o.agent.as_str() == "ipmi" && o.is_running());
    if !w.run_while(w.now + 60 * S, is_its) {
        return Err("it was never its turn".to_owned());
    }
    w.fall_behind(other, 2500 * MS);
    let since = w.now;
    moved_from(&mut w, old, 60 * S)?;
    let never = |o: &&Order| matches!(&o.state, OrderState::Done { run } if run.outcome == AgentOutcome::NotBegun);
    let never = orders(&w).filter(never).filter(|o| o.agent.as_str() == "ipmi").count();
    let took = w.now - since;
    let what = format!("not begun {never} times, moved after {}", seconds(took));
    end(w, never == 1 && took < 10 * S, &what.clone(), what)
}

/// The primary is cut off from everybody and lives. Its device switches a standby off, and says that it has succeeded.
fn wired_wrong(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    let struck = (0..3).rfind(|h| *h != old).ok_or("nobody")?;
    w.set_device(old, "ipmi", Device::Wired(struck));
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    let took = moved_from(&mut w, old, 60 * S)?;
    let (off, refuted) = (!w.hosts[old].power, w.facts.counts.refuted);
    w.net.heal();
    w.net.set_disk(old, false);
    w.power_on(struck);
    w.run_until(w.now + 90 * S);
    let told = format!("moved after {}, {refuted} refuted; the old one was off: {off}", seconds(took));
    let ok = off && w.is_whole();
    end(w, ok, &told, told.clone())
}

/// A rack loses power: the primary and a witness.
fn lost_together(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    w.power_off(4);
    let took = moved_from(&mut w, old, 30 * S)?;
    let refuted = w.facts.counts.refuted;
    w.power_on(4);
    w.power_on(old);
    w.run_until(w.now + 60 * S);
    let ok = refuted == 0 && took < 6 * S && w.is_whole();
    end(w, ok, "it was not believed, or late", format!("moved after {}", seconds(took)))
}
