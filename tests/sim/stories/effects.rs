//! Directed stories of effects that fail, of copies of the ledger that are old, and of what assistants leave behind.

use super::{Listed, Told, ask_switchover, cut_networks, end, moved_from, primary, ready, seconds, three};
use crate::cluster::{MS, S, Tell, World};
use crate::effects::Part;
use crate::fence::Device;
use crate::invariants::client;
use crate::setup;
use regent::node::Event;

/// Every story here, with the number of seeds for which it is told.
pub const STORIES: &[Listed] = &[
    ("a_folder_is_named_though_the_daemon_that_made_it_died", unnamed_folder, 2),
    ("whoever_cannot_arm_its_watchdog_is_passed_over", unarmed_appointee, 3),
    ("an_executor_that_was_behind_switches_nobody_off_two_minutes_later", executor_behind, 3),
    ("a_final_word_that_cannot_be_written_is_said_later", final_word, 2),
    ("a_lease_file_that_cannot_be_written_for_a_moment_costs_nothing", lease_file, 2),
    ("what_assistants_left_is_taken_back_whoever_restarts", rules_end, 4),
    ("a_device_that_answers_one_voter_only_is_found", one_voter, 2),
    ("a_watchdog_that_is_fed_again_bars_nobody", fed_again, 2),
    ("a_copy_that_cannot_succeed_is_asked_for_less_and_less", hopeless_copy, 2),
    ("a_lease_file_that_failed_in_an_epoch_that_is_over_bars_nobody", lease_file_at_the_end, 2),
];

/// A standby's directory is gone, and each copy fails in the middle, for ten minutes. Another primary is a reason to try at
/// once, and so is a disk that works, a few minutes later at the latest.
fn hopeless_copy(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 1), tell, seed)?;
    let old = primary(&w)?;
    let standby = (0..3).find(|h| *h != old).ok_or("no standby")?;
    let made = w.facts.copies.all;
    w.break_part(standby, Part::Rejoin, Some(20 * 60 * S));
    w.lose_directory(standby, 0);
    w.run_until(w.now + 10 * 60 * S);
    let (copies, fences) = (w.facts.copies.all - made, w.facts.counts.fences);
    ask_switchover(&mut w)?;
    moved_from(&mut w, old, 20 * S)?;
    w.run_until(w.now + 20 * S);
    let anew = w.facts.copies.all - made - copies;
    w.run_until(w.now + 16 * 60 * S);
    let whole = w.is_whole();
    let fits = (9..=11).contains(&copies) && (3..=7).contains(&anew) && fences == 0 && whole;
    let told = format!("{copies} copies in ten minutes, {anew} of the next primary in 20 s, whole in the end: {whole}");
    end(w, fits, &told, told.clone())
}

/// Two standbys, of which one has a watchdog that cannot be armed: the other takes over, and soon.
fn unarmed_appointee(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(3, 2)), tell, seed)?;
    let old = primary(&w)?;
    let broken = (0..3).filter(|h| *h != old).nth(seed as usize % 2).ok_or("no standby")?;
    w.break_part(broken, Part::WatchdogArm, None);
    w.power_off(old);
    let took = moved_from(&mut w, old, 30 * S)?;
    let other = w.primary() != Some(broken);
    end(w, other && took < 12 * S, "the wrong one, or too late", format!("another takes over after {}", seconds(took)))
}

/// Five voters. Whoever would run the order has fallen behind the log; it is back two minutes after the failover.
fn executor_behind(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    let ordered = w.run_while(w.now + 20 * S, |w| w.log.state().fences.values().any(|f| !f.orders.is_empty()));
    if !ordered {
        return Err("nothing was ordered".to_owned());
    }
    let executor = w.log.state().fences.values().flat_map(|f| &f.orders).next().map(|o| o.executor.clone());
    let executor = w.host(&executor.ok_or("no order")?);
    w.fall_behind(executor, 140 * S);
    // A voter that lives may be waited for until it is back: whether that is so is not what is asked here.
    let took = moved_from(&mut w, old, 200 * S)?;
    w.power_on(old);
    w.run_until(w.now + 60 * S);
    let boots: Vec<_> = w.hosts.iter().map(|h| h.boots).collect();
    w.run_until(w.now + 120 * S);
    let same = w.hosts.iter().all(|h| h.power) && w.hosts.iter().map(|h| h.boots).eq(boots);
    let whole = w.is_whole();
    end(w, same && whole, "a host was switched off, or is not whole", format!("moved after {}", seconds(took)))
}

/// The disk under the final words takes none for eight seconds of a switchover.
fn final_word(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.break_part(old, Part::FinalWord, Some(8 * S));
    let since = w.now;
    ask_switchover(&mut w)?;
    w.run_until(since + 7 * S);
    if w.log.state().services[&w.services[0]].over.is_some() || w.primary().is_some() {
        return Err("it was released without a durable final word".to_owned());
    }
    moved_from(&mut w, old, 20 * S)?;
    let took = w.now - since;
    end(w, took < 12 * S, "it took too long", format!("moved {} after it was asked for", seconds(took)))
}

/// The primary's watchdog refuses to be fed for a second, and works again before its time is over.
fn fed_again(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_watchdog(setup::config(2, 1)), tell, seed)?;
    let old = primary(&w)?;
    w.break_part(old, Part::WatchdogFeed, Some(S));
    w.run_until(w.now + 3 * S);
    let fails = w.hosts[old].daemon.as_ref().is_none_or(|d| !d.failing().is_empty());
    let same = w.hosts[old].boots == 1 && w.primary() == Some(old);
    end(w, same && !fails, "it still says that it cannot be fed", "fed again, and said so".to_owned())
}

/// That its last lease could not be kept is told after its final word: whether the file takes a lease is tried although
/// none is held.
fn lease_file_at_the_end(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    ask_switchover(&mut w)?;
    moved_from(&mut w, old, 20 * S)?;
    let (service, result) = (w.services[0].clone(), Err("input/output error".to_owned()));
    w.give(old, Event::LeaseKept { service, result });
    w.run_until(w.now + 5 * S);
    let fails = w.hosts[old].daemon.as_ref().is_none_or(|d| !d.failing().is_empty());
    if fails {
        return Err("it still says that its lease cannot be kept".to_owned());
    }
    let new = primary(&w)?;
    ask_switchover(&mut w)?;
    let took = moved_from(&mut w, new, 20 * S)?;
    end(w, true, "", format!("appointed again within {}", seconds(took)))
}

/// The guard knows an older end meanwhile, which lies ahead still.
fn lease_file(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.facts.services[0].longest_gap = 0;
    w.break_part(old, Part::LeaseFile, Some(3 * S));
    w.run_until(w.now + 30 * S);
    let (gap, same) = (w.facts.services[0].longest_gap, w.primary() == Some(old));
    end(w, same && gap < S, "the database was killed", format!("no writes for {} at most", seconds(gap)))
}

/// After a failover each daemon restarts, at a different moment of the fence's life.
fn rules_end(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::with_access(setup::config(3, 2)), tell, seed)?;
    let old = primary(&w)?;
    w.power_off(old);
    let has_rules = |w: &World| !w.rules.is_empty();
    if !w.run_while(w.now + 20 * S, has_rules) {
        return Err("no assistant ran".to_owned());
    }
    for host in (0..5).filter(|h| *h != old) {
        w.kill_daemon(host);
        w.run_until(w.now + seed * 100 * MS);
        w.start_daemon(host);
        w.run_until(w.now + 3 * S);
    }
    w.power_on(old);
    w.run_while(w.now + 90 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole());
    w.run_until(w.now + 20 * S);
    let (whole, left) = (w.is_whole(), w.rules.len());
    end(w, whole && left == 0, "not whole, or a rule stays", "no rule stays".to_owned())
}

/// The device of the primary has a session for one voter only.
fn one_voter(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(2, 1), tell, seed)?;
    let old = primary(&w)?;
    w.set_device(old, "ipmi", Device::OnlyFrom(1 - old));
    w.power_off(old);
    let took = moved_from(&mut w, old, 60 * S)?;
    end(w, true, "", format!("new primary after {}", seconds(took)))
}

/// The daemon dies between the end of the rejoin and the report of it.
fn unnamed_folder(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    cut_networks(&mut w, old);
    w.net.set_disk(old, true);
    w.run_while(w.now + 20 * S, |w| w.primary().is_some_and(|p| p != old));
    w.net.heal();
    w.power_on(old);
    w.run_while(w.now + 30 * S, |w: &World| w.hosts[old].databases[0].unfinished);
    w.net.unconnected[old] = true;
    w.run_while(w.now + 10 * S, |w| !w.facts.kept.is_empty());
    w.kill_daemon(old);
    w.net.unconnected[old] = false;
    w.run_until(w.now + S);
    w.start_daemon(old);
    w.run_until(w.now + 30 * S);
    let made = !w.facts.kept.is_empty();
    client::at_the_end(&mut w, &[]);
    end(w, made, "no folder was made", "the folder is named".to_owned())
}
