//! Stories of what is long over: orders, verdicts and assistants that a node meets when it catches up, and final words that
//! could not be said. Each is the situation in which one mistake kills.

use super::{Listed, Told, ask_switchover, command, end, moved_from, primary, ready, seconds, three};
use crate::ailment::Ailment;
use crate::cluster::{MS, S, Setup, Tell, World};
use crate::effects::Part;
use crate::fence::Device;
use crate::invariants::{l1, rules};
use crate::setup;
use rand::SeedableRng;
use rand::rngs::StdRng;
use regent::ledger::{Command, Entry, Machine, OrderState, Phase};
use regent::types::{Boot, FenceId, Incarnation, NodeName};
use std::sync::Arc;

/// Every story here.
pub const STORIES: &[Listed] = &[
    ("whoever_catches_up_does_not_begin_an_order_that_ended", stale_order, 2),
    ("a_verdict_that_commits_late_fences_nobody_who_is_back", late_verdict, 2),
    ("what_an_assistant_did_on_a_voter_that_was_cut_off_is_undone", assistant_stays, 2),
    ("a_final_word_that_could_not_be_written_is_written_later", forgotten_word, 2),
    ("whoever_catches_up_does_not_propose_its_join_with_every_entry", joins, 3),
    ("a_join_of_a_boot_that_is_over_ends_no_later_one", late_join, 2),
    ("a_database_is_made_once", made_once, 3),
];

/// A standby's host booted twice. What its first boot proposed to join with commits only now.
fn late_join(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let standby = 1 - primary(&w)?;
    let node = w.hosts[standby].name.clone();
    // It does not learn of it, and goes on as it was.
    w.fall_behind(standby, 60 * S);
    command(&mut w, |_| Command::Join {
        boot: Boot(format!("{node}-boot0").into()),
        request: 1,
        succeeds: Some(Incarnation(0)),
        machine: Machine { id: node.to_string(), ..Machine::default() },
        claims: Default::default(),
        node,
    })?;
    w.run_until(w.now + 30 * S);
    let goes_on = w.log.state().nodes.get(&w.hosts[standby].name).is_some_and(|n| n.boot == w.hosts[standby].boot());
    end(w, goes_on, "it is taken for the past", "the boot that runs goes on".to_owned())
}

/// The primary's copy of the ledger falls behind before it shows that the database was installed, and somebody removes its
/// directory.
fn made_once(seed: u64, tell: Tell) -> Told {
    let mut w = World::new(seed, &Setup::new(setup::config(2, 1), tell));
    let shown = |w: &World, host: usize| {
        let state = w.hosts[host].daemon.as_ref().map(|d| d.state())?;
        state.services.values().next().map(|s| (s.phase, s.holder.clone()))
    };
    let makes = |w: &World| {
        (0..2).find(|h| {
            shown(w, *h).is_some_and(|(phase, holder)| {
                phase == Phase::Creating && holder.is_some_and(|holder| holder.node == w.hosts[*h].name)
            })
        })
    };
    w.run_while(w.now + 60 * S, |w| makes(w).is_some());
    let old = makes(&w).ok_or("nobody makes it")?;
    w.transfer(2);
    w.fall_behind(old, 60 * S);
    let follows = w.run_while(w.now + 20 * S, |w| w.hosts[1 - old].databases[0].streams_from == Some(old));
    let shown = shown(&w, old).map(|(phase, _)| phase);
    let mut rng = StdRng::seed_from_u64(seed);
    w.ail(&mut rng, (old, 0), Ailment::DirectoryGone, S);
    let moved = moved_from(&mut w, old, 30 * S)?;
    let late = follows && shown == Some(Phase::Creating);
    end(w, late, &format!("its copy was not late: {shown:?}"), format!("moved after {}", seconds(moved)))
}

/// Five voters. The second round of a fence goes to a voter that is cut from the log, the third succeeds; the service moves,
/// and moves back later. Then that voter's connections heal, and it meets the order to switch off whoever is primary now.
fn stale_order(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.transfer(3);
    w.run_until(w.now + S);
    let executor = (0..3).find(|h| *h != old).ok_or("no standby")?;
    let name: NodeName = w.hosts[executor].name.clone();
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Failing);
    }
    w.net.unconnected[executor] = true;
    w.power_off(old);
    let ordered = w.run_while(w.now + 60 * S, |w| {
        w.log.state().fences.values().flat_map(|f| &f.orders).any(|o| o.executor == name)
    });
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Honest);
    }
    let took = moved_from(&mut w, old, 90 * S)?;
    w.run_while(w.now + 60 * S, |w| w.hosts[old].power && w.hosts[old].databases[0].streams_from.is_some());
    w.run_until(w.now + 5 * S);
    let to = Some(w.hosts[old].name.clone());
    let epoch = w.log.state().services[&w.services[0]].epoch;
    command(&mut w, |service| Command::Switchover { service, epoch, to, who: "story".to_owned() })?;
    let back = w.run_while(w.now + 30 * S, |w| w.primary() == Some(old));
    w.run_until(w.now + 10 * S);
    let boots = w.hosts[old].boots;
    let over = w.log.state().fences.values().flat_map(|f| &f.orders).all(|o| o.state != OrderState::Running);
    w.net.unconnected[executor] = false;
    w.run_until(w.now + 30 * S);
    let still = w.hosts[old].power && w.hosts[old].boots == boots && w.primary() == Some(old);
    let ok = ordered && back && over && still;
    end(w, ok, "the story went otherwise", format!("moved after {}, and nobody is switched off later", seconds(took)))
}

/// The primary is cut off for a moment. The verdict on it is written and does not commit for twenty seconds; by then it is
/// well again.
fn late_verdict(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.transfer(2);
    w.run_until(w.now + S);
    super::cut_networks(&mut w, old);
    w.run_until(w.now + 900 * MS);
    w.log.holds = true;
    w.run_until(w.now + 2 * S);
    w.net.heal();
    w.run_until(w.now + 20 * S);
    w.log.holds = false;
    w.run_until(w.now + 30 * S);
    let ok = w.facts.counts.verdicts > 0 && w.hosts[old].power && w.hosts[old].boots == 1 && w.is_whole();
    end(w, ok, "no late verdict, or its node was switched off", "it joins again and is not switched off".to_owned())
}

/// A voter is cut off while its assistant runs, before it can say how that ended. Its node joins again meanwhile, and the
/// fence is lifted; it is not closed before that voter has taken back what it did.
fn assistant_stays(seed: u64, tell: Tell) -> Told {
    let mut w = ready(setup::config(3, 2), tell, seed)?;
    let old = primary(&w)?;
    w.transfer(3);
    w.run_until(w.now + S);
    let voter = 4;
    for agent in ["ipmi", "pdu"] {
        w.set_device(old, agent, Device::Failing);
    }
    super::cut_networks(&mut w, old);
    if !w.run_while(w.now + 20 * S, |w| rules::stands(w, voter, FenceId(1))) {
        return Err(w.facts.violation.unwrap_or("no assistant ran".to_owned()));
    }
    w.net.unconnected[voter] = true;
    w.net.set_card(0, old, false);
    w.net.set_card(1, old, false);
    w.run_until(w.now + 60 * S);
    let waits = w.log.state().fences.values().any(|f| f.is_open()) && w.is_served(S);
    w.net.unconnected[voter] = false;
    w.run_until(w.now + 30 * S);
    rules::at_the_end(&mut w, &[]);
    let closed = !w.log.state().fences.values().any(|f| f.is_open());
    let told = "the fence waits for it, and nothing is left in force".to_owned();
    end(w, waits && closed, "the fence did not wait, or is not closed in the end", told)
}

/// A switchover: the database is closed, and the disk does not take the final word for some seconds.
fn forgotten_word(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    let old = primary(&w)?;
    w.break_part(old, Part::FinalWord, Some(4 * S));
    ask_switchover(&mut w)?;
    w.run_until(w.now + 2 * S);
    let early = !w.hosts[old].tombstones.is_empty();
    w.run_until(w.now + 8 * S);
    let took = l1::comes_back(&mut w, &mut StdRng::seed_from_u64(seed), &[]).writes;
    let ok = !early && w.log.state().fences.is_empty() && w.primary().is_some_and(|p| p != old);
    end(w, ok, "it was fenced, or did not move", format!("said when it could be; writes {} after that", seconds(took)))
}

/// The service moves to and fro. Then the daemon of whoever holds it dies with its database, and the next one meets all those
/// epochs of its own again while it catches up: each is another claim.
fn joins(seed: u64, tell: Tell) -> Told {
    let mut w = three(seed, tell)?;
    for _ in 0..10 {
        let old = primary(&w)?;
        ask_switchover(&mut w)?;
        moved_from(&mut w, old, 20 * S)?;
        w.run_while(w.now + 20 * S, World::is_whole);
        w.run_until(w.now + S);
    }
    let mut most = 0;
    for _ in 0..8 {
        let holder = primary(&w)?;
        let name = w.hosts[holder].name.clone();
        let before = w.log.entries().count();
        w.kill_daemon(holder);
        w.database_killed(holder, 0);
        w.run_until(w.now + 100 * MS);
        w.start_daemon(holder);
        w.run_while(w.now + 30 * S, World::is_whole);
        w.run_until(w.now + 2 * S);
        let own = |e: &&Arc<Entry>| matches!(&e.command, Command::Join { node, .. } if *node == name);
        most = w.log.entries().skip(before).filter(own).count().max(most);
    }
    let what = format!("{most} joins of one start");
    end(w, most <= 6, &what, format!("{most} joins of one start at most"))
}
