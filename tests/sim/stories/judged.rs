//! Stories that put one property to work each: the situation in which its mistake would be seen, told as it must end.

use super::{Listed, Told, cut_networks, end, moved_from, primary, ready, ready_as, seconds, three};
use crate::ailment::Ailment;
use crate::cluster::{MS, S, Setup, Tell, World};
use crate::effects::Part;
use crate::fence::Device;
use crate::setup;
use rand::SeedableRng;
use rand::rngs::StdRng;
use regent::node::{Event, PeerRequest};
use regent::plan::Question;
use regent::types::{Round, Term};
use std::time::Duration;

/// Every story here.
pub const STORIES: &[Listed] = &[
    ("nobody_ends_an_order_whose_device_is_slow", slow_device, 2),
    ("a_leader_renews_each_of_its_two_services_by_itself", own_leases, 2),
    ("whoever_cannot_write_its_log_accuses_nobody", slow_log, 2),
    ("whoever_stood_still_vouches_for_no_fence", vouching, 2),
    ("whoever_has_gone_blind_vouches_for_no_fence", blind_voters, 2),
    ("whoever_stood_still_judges_again_by_its_own_clock", judging_again, 4),
    ("what_waits_for_a_paused_guest_is_answered_in_its_turn", paused_guest, 4),
    ("a_watchdog_that_cannot_be_armed_is_tried_with_pauses", arming, 2),
    ("what_nobody_can_answer_is_asked_with_pauses", asking, 2),
    ("a_database_that_can_be_told_again_is_told_while_its_volume_is_full", told_again, 2),
];

/// The device needs more than half of the agent's time, and its host has power until it acts.
fn slow_device(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Slow);
    cut_networks(&mut w, old);
    let took = moved_from(&mut w, old, 30 * S)?;
    let cuts = w.facts.counts.cuts.get("verdict").copied().unwrap_or_default();
    end(w, cuts == 1, "not one power cut", format!("new primary after {}", seconds(took)))
}

/// The device lies about the primary, whose networks are cut; two voters hear it on the disk until their own disks hang.
fn blind_voters(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::Lying);
    cut_networks(&mut w, old);
    let confirmed = |w: &World| w.log.state().fences.values().any(|f| f.confirmed.is_some());
    let is_confirmed = w.run_while(w.now + 20 * S, confirmed);
    for voter in (0..3).filter(|h| *h != old) {
        w.net.set_disk(voter, true);
        w.report_disk(voter, MS, Err("the disk hangs"));
    }
    // While its lease may run, two writers would be possible.
    w.run_until(w.now + 3 * S);
    let waits = w.log.state().services.values().all(|s| s.holder.as_ref().is_some_and(|h| h.node == w.hosts[old].name));
    for voter in (0..3).filter(|h| *h != old) {
        w.net.set_disk(voter, false);
        w.report_disk(voter, MS, Ok(()));
    }
    let took = moved_from(&mut w, old, 60 * S)?;
    let ok = is_confirmed && waits;
    end(w, ok, "it was appointed on their word", format!("new primary {} later", seconds(took)))
}

/// The holder of both services leads for some seconds, and asks itself for each lease.
fn own_leases(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::two_services(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    let both = (0..2).all(|s| w.primary_of(s) == Some(old));
    let mut led = 0;
    for _ in 0..4 {
        w.transfer(old);
        led += u64::from(w.run_while(w.now + 4 * S, |w| w.log.leader.is_some_and(|(l, _)| l == old)));
        w.run_until(w.now + 8 * S);
    }
    w.run_until(w.now + 10 * S);
    let ok = w.is_served(S) && w.log.state().fences.is_empty() && led > 0;
    end(w, ok, "it did not lead, or something happened", format!("it led {led} times, of both services: {both}"))
}

/// The primary dies, and just after it the log of a voter takes longer than the acceptable pause.
fn slow_log(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.transfer(2);
    w.run_until(w.now + S);
    w.power_off(old);
    w.run_until(w.now + 700 * MS);
    w.give(1 - old, Event::LogWrite { took: Duration::from_secs(2) });
    w.give_later(100 * MS, 1 - old, Event::LogWrite { took: Duration::from_millis(2) });
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// A voter stands still while the fence is confirmed, and is asked when it goes on.
fn vouching(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.transfer(2);
    w.run_until(w.now + S);
    w.power_off(old);
    if !w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| !f.orders.is_empty())) {
        return Err(w.facts.violation.unwrap_or("no fence was ordered".to_owned()));
    }
    w.freeze(1 - old, 1300 * MS, false);
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// The primary dies while everybody else stands still; the leader's clock is slewed before it has watched again.
fn judging_again(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.transfer(2);
    w.run_until(w.now + S);
    w.power_off(old);
    w.freeze(1 - old, 1500 * MS, false);
    w.freeze(2, 1500 * MS, false);
    w.run_until(w.now + 2200 * MS);
    // As fast as chrony slews by default: the rest of the wait takes a twelfth longer.
    w.slew(2, -83_333);
    let took = moved_from(&mut w, old, 30 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// A guest that holds a node for lost is paused with its clock. It is asked about that node; then the node is heard again,
/// and from then on nobody else on the first network. It goes on with the question before it.
fn paused_guest(seed: u64, tell: Tell) -> Told {
    let mut setup = Setup::new(setup::config(2, 3), tell);
    setup.is_virtual = true;
    let mut w = ready_as(&setup, seed)?;
    let (silent, guest, leader) = (2, 3, 4);
    w.transfer(leader);
    w.run_until(w.now + S);
    let from = w.hosts[leader].name.clone();
    let record = &w.log.state().nodes[&w.hosts[silent].name];
    let (target, incarnation) = (w.hosts[silent].name.clone(), record.incarnation);
    w.freeze(silent, 3500 * MS, false);
    w.run_until(w.now + 2500 * MS);
    w.freeze(guest, 3000 * MS, true);
    let (term, round) = (Term(1), Round(1));
    let request = PeerRequest::Question(Question::Look { target, incarnation, term, round });
    w.give(guest, Event::Asked { reply: u64::MAX, from, request });
    w.run_until(w.now + 2500 * MS);
    (0..w.hosts.len()).filter(|other| *other != silent).for_each(|other| w.net.cut(0, other, guest));
    w.run_until(w.now + 2 * S);
    w.net.heal();
    w.run_until(w.now + 20 * S);
    let ok = w.is_served(S) && w.log.state().fences.is_empty();
    end(w, ok, "the service did not stay where it was", "nobody was fenced".to_owned())
}

/// One of two standbys cannot arm its watchdog; the other takes over.
fn arming(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.break_part(1 - old, Part::WatchdogArm, None);
    w.power_off(old);
    w.run_until(w.now + 60 * S);
    w.power_on(old);
    let back = w.run_while(w.now + 60 * S, |w| w.primary() == Some(old));
    let tries = w.facts.rest.most.get("tries to arm the watchdog").copied().unwrap_or_default();
    end(w, back && tries > 0, "it did not come back, or nobody tried", format!("{tries} tries in ten seconds at most"))
}

/// No device confirms, and the only standby has no database of which it could report.
fn asking(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Failing);
    }
    w.power_off(old);
    w.db(1 - old, 0).unfinished = true;
    w.database_killed(1 - old, 0);
    w.run_until(w.now + 60 * S);
    let asked = w.facts.rest.most.get("questions to one peer").copied().unwrap_or_default();
    end(w, asked > 0, "nothing was asked", format!("{asked} questions to one peer in ten seconds at most"))
}

/// A daemon starts while nobody can tell how its database is. That ends before what else ails the same database.
fn told_again(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let standby = 1 - primary(&w)?;
    let mut rng = StdRng::seed_from_u64(seed);
    w.kill_daemon(standby);
    w.run_until(w.now + 100 * MS);
    w.ail(&mut rng, (standby, 0), Ailment::Unclear, 5 * S);
    w.ail(&mut rng, (standby, 0), Ailment::VolumeFull, 60 * S);
    w.start_daemon(standby);
    w.run_until(w.now + 4 * S);
    let early = w.hosts[standby].is_sending();
    w.run_until(w.now + 3 * S);
    let joined = w.hosts[standby].is_sending();
    end(w, !early && joined, "it joined too early, or not in time", "it joins once it can tell".to_owned())
}
