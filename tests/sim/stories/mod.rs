//! Directed stories: one situation each, told as it must end. Every story is told for a few seeds, which decide delays
//! and clock rates; the situation is the same.

mod appointee;
mod basics;
mod deaf;
mod effects;
mod hazards_a;
mod hazards_b;
mod hazards_c;
mod judged;
mod leaves;
mod patience;
mod power;
mod stale;
mod twins;

use crate::cluster::{MS, S, Setup, Tell, World};
use regent::config::{Config, OnCrash};
use regent::ledger::Command;
use regent::types::ServiceName;

/// A story fails with a sentence.
pub type Told = Result<String, String>;

/// Plays one story from a seed.
pub type Story = fn(u64, Tell) -> Told;

/// A story with its name and the number of seeds for which it is told.
pub type Listed = (&'static str, Story, u64);

/// Every story.
pub fn all() -> impl Iterator<Item = &'static Listed> {
    let hazards = [hazards_a::STORIES, hazards_b::STORIES, hazards_c::STORIES];
    let others = [
        basics::STORIES,
        effects::STORIES,
        stale::STORIES,
        judged::STORIES,
        patience::STORIES,
        power::STORIES,
        twins::STORIES,
        appointee::STORIES,
        deaf::STORIES,
        leaves::STORIES,
    ];
    others.into_iter().chain(hazards).flatten()
}

/// A cluster of which every database replicates.
pub fn ready(config: Config, tell: Tell, seed: u64) -> Result<World, String> {
    ready_as(&Setup::new(config, tell), seed)
}

/// The same, set up otherwise.
pub fn ready_as(setup: &Setup, seed: u64) -> Result<World, String> {
    let mut w = World::new(seed, setup);
    if !w.run_while(60 * S, |w| w.hosts.iter().all(|h| h.power) && w.is_whole()) {
        return Err(w.facts.violation.unwrap_or("the cluster did not get ready within 60 s".to_owned()));
    }
    w.run_until(w.now + 15 * S);
    Ok(w)
}

/// Three nodes: two databases and a witness.
pub fn three(seed: u64, tell: Tell) -> Result<World, String> {
    ready(crate::setup::config(2, 1), tell, seed)
}

/// The same; a database that dies is always restarted in place.
pub fn restarting(seed: u64, tell: Tell) -> Result<World, String> {
    let mut config = crate::setup::config(2, 1);
    config.services.values_mut().for_each(|s| s.on_crash = OnCrash::Restart);
    ready(config, tell, seed)
}

/// What must hold at the end of each story.
pub fn end(w: World, ok: bool, what: &str, told: String) -> Told {
    match w.facts.violation {
        Some(violation) => Err(violation),
        None if !ok => Err(what.to_owned()),
        None => Ok(told),
    }
}

pub fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / S as f64)
}

/// Runs until another node takes writes of the first service. How long that took.
pub fn moved_from(w: &mut World, old: usize, within: u64) -> Result<u64, String> {
    let since = w.now;
    let moved = w.run_while(w.now + within, |w| w.primary().is_some_and(|p| p != old));
    if !moved {
        let why = format!("no new primary within {}", seconds(within));
        return Err(w.facts.violation.clone().unwrap_or(why));
    }
    Ok(w.now - since)
}

pub fn primary(w: &World) -> Result<usize, String> {
    w.primary().ok_or_else(|| w.facts.violation.clone().unwrap_or("there is no primary".to_owned()))
}

/// Proposes a command about the first service at the leader, and lets it commit.
pub fn command(w: &mut World, command: impl FnOnce(ServiceName) -> Command) -> Result<(), String> {
    w.log.leader.ok_or("no leader")?;
    let command = command(w.services[0].clone());
    w.order(command);
    w.run_until(w.now + 30 * MS);
    Ok(())
}

/// Both networks of this host are cut.
pub fn cut_networks(w: &mut World, host: usize) {
    w.net.set_card(0, host, true);
    w.net.set_card(1, host, true);
}

pub fn ask_switchover(w: &mut World) -> Result<(), String> {
    let epoch = w.log.state().services[&w.services[0]].epoch;
    command(w, |service| Command::Switchover { service, epoch, to: None, who: "story".to_owned() })
}

/// No fence, no move, and the service is served.
pub fn nothing_happens(w: World, since: u64) -> Told {
    let state = w.log.state();
    let ok = state.fences.is_empty() && w.is_served(S) && state.services.values().all(|s| s.epoch.0 == 1);
    end(w, ok, "something happened", format!("quiet for {}", seconds(since)))
}
