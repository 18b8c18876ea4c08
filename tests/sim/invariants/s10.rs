//! S10: whoever stood still itself, or cannot write its own log, accuses nobody, judges nobody and vouches for no fence
//! until it has watched again; and whoever hears nobody on a network accuses nobody there.
//!
//! It has watched again after the acceptable pause and three intervals. What a leader saw itself is not seen from outside;
//! that it judges nobody is.

use crate::cluster::{MS, World};
use crate::network::{CHANNELS, DISK};
use regent::ledger::{CheckAnswer, Command};
use regent::node::{Effect, Event, PeerResponse};
use regent::types::{Instant, Sight};
use std::collections::BTreeMap;
use std::time::Duration;

/// When each daemon was told last, by its own clock, that a write of its log took longer than the acceptable pause.
pub type SlowLogs = BTreeMap<(usize, u64), Instant>;

/// A daemon is told something: how long its log took.
pub fn given(w: &mut World, host: usize, event: &Event) {
    if let Event::LogWrite { took } = event {
        let h = &w.hosts[host];
        if took.as_nanos() as u64 > w.facts.times.pause {
            w.facts.slow_logs.insert((host, h.life), h.local(w.now));
        }
    }
}

/// Whether this host went on a moment ago after more than it may overlook.
fn just_stood_still(w: &World, host: usize) -> bool {
    let (h, times) = (&w.hosts[host], &w.facts.times);
    // Half a pause is what a loop may be late; the freeze may have begun just after a heartbeat. Both times are those of
    // the host's own clock, the only one that its daemon has: where it stood still as well, no daemon can know of it.
    let lasted = h.went_on.since(h.stood_still_from).as_nanos() as u64;
    let long = lasted > times.pause / 2 + times.interval * 11 / 10 + 10 * MS;
    // The same daemon: a new one has watched nobody yet, and sees nobody.
    let same = h.thawed_at > 0 && h.started_at < h.thawed_at;
    long && same && h.local(w.now) < h.went_on + watched_again(w)
}

fn watched_again(w: &World) -> Duration {
    Duration::from_nanos(w.facts.times.pause + 3 * w.facts.times.interval)
}

/// Why this host must doubt itself now.
fn must_doubt(w: &World, host: usize) -> Option<&'static str> {
    let h = &w.hosts[host];
    let slow = w.facts.slow_logs.get(&(host, h.life)).is_some_and(|at| h.local(w.now) < *at + watched_again(w));
    match just_stood_still(w, host) {
        true => Some("just after it stood still"),
        false => slow.then_some("just after its own log could not be written"),
    }
}

/// It answers; about whom, where it says what it sees.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect, of: Option<usize>) {
    let Effect::Reply { response, .. } = effect else { return };
    let name = w.hosts[host].name.clone();
    match response {
        PeerResponse::Sighting(said) => {
            let lost = |c: &usize| {
                said.view.channels.iter().any(|(name, sight)| name.as_str() == CHANNELS[*c] && *sight == Sight::Lost)
            };
            if let Some(why) = must_doubt(w, host).filter(|_| said.view.channels.values().any(|s| *s == Sight::Lost)) {
                return w.violate("S10", format!("{name} accuses somebody {why}"));
            }
            // What it heard before its clock stood still was a moment ago for it.
            let h = &w.hosts[host];
            let now = w.now - if w.now < h.thawed_at + w.facts.times.pause { h.last_still } else { 0 };
            // What the twin of a copy sends ends no silence of the node.
            let of = of.filter(|of| !w.is_a_copy_present(*of));
            let deaf = |c: &usize| of.is_some_and(|of| !w.facts.hearing.heard_others(now, host, of, *c));
            if let Some(c) = (0..DISK).filter(lost).find(deaf) {
                let what = format!("{name} accuses somebody on the {} network, on which it hears nobody", CHANNELS[c]);
                w.violate("S10", what);
            }
        }
        PeerResponse::Check(CheckAnswer::Holds) => {
            if let Some(why) = must_doubt(w, host) {
                w.violate("S10", format!("{name} vouches for a fence {why}"));
            }
        }
        _ => {}
    }
}

pub fn proposed(w: &mut World, leader: usize, command: &Command) {
    if let (Command::DeclareDead { .. }, Some(why)) = (command, must_doubt(w, leader)) {
        w.violate("S10", format!("{} judges {why}", w.hosts[leader].name));
    }
}
