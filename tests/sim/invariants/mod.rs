//! The properties, one file each. They compare the modelled world with plain values of the ledger; none calls a rule
//! of the code under test.

mod aside;
pub mod client;
pub mod copies;
mod install;
pub mod l1;
mod leave;
pub mod power;
pub mod rest;
pub mod rules;
mod s1;
pub mod s10;
mod s2;
pub mod s3;
mod s4;
pub mod s5;
mod s6;
mod s7;
mod s8;
mod s9;
pub mod timelines;
pub mod words;

use crate::cluster::{Handling, World};
use regent::ledger::{Answer, Basis, Command, Entry, Event, State};
use regent::node::{Effect, Event as Given};
use regent::types::{Epoch, NodeName, Seal, ServiceName, Term};
use std::collections::BTreeMap;

/// After every event.
pub fn check(w: &mut World) {
    s1::check(w);
    s5::check(w);
    rest::check(w);
    copies::check(w);
    words::check(w);
}

/// A daemon is told something.
pub fn given(w: &mut World, host: usize, event: &Given) {
    s3::given(w, host, event);
    s5::given(w, host, event);
    s10::given(w, host, event);
    words::given(w, host, event);
}

/// A daemon that was asked to stop, or whose host goes down, ends.
pub fn left(w: &mut World, host: usize) {
    leave::left(w, host);
}

/// A daemon asks for something to be done.
pub fn asked_for(w: &mut World, host: usize, handling: Handling, effect: &Effect) {
    s4::asked_for(w, host, effect);
    s5::asked_for(w, host, handling, effect);
    let of = s3::asked_for(w, host, effect);
    s10::asked_for(w, host, effect, of);
    power::asked_for(w, host, effect);
    install::asked_for(w, host, effect);
    rest::asked_for(w, host, handling, effect);
    words::asked_for(w, host, effect);
}

/// A postmaster was opened for writes under `epoch`.
pub fn opened(w: &mut World, host: usize, service: usize, epoch: Epoch) {
    s4::opened(w, host, service, epoch);
    timelines::opened(w, host, service);
    client::opened(w, host, service);
}

/// The leader proposes this.
pub fn proposed(w: &mut World, leader: usize, command: &Command) {
    s3::proposed(w, leader, command);
    s8::proposed(w, command);
    s10::proposed(w, leader, command);
}

/// An entry was committed that was proposed at `proposed` in `term`: what it did, compared with what is so.
pub fn committed(
    w: &mut World,
    before: &State,
    after: &State,
    entry: &Entry,
    answer: &Answer,
    (proposed, term): (u64, Term),
) {
    let command = &entry.command;
    s4::committed(w, before, command, answer, term);
    s7::committed(w, before, after, command, answer);
    let Answer::Done(event) = answer else {
        w.facts.counts.refusals += 1;
        return;
    };
    match (event, command) {
        (_, Command::Join { .. } | Command::WaitedOut { .. }) => s2::believed(w, before, after),
        (Event::Declared { target, fence }, _) => {
            w.facts.counts.verdicts += 1;
            let host = w.host(target);
            s3::verdict(w, before, command);
            if fence.is_some() {
                leave::fenced(w, before, target);
                w.facts.counts.fences += 1;
                // The time of the proposal: what was heard until then was heard at the verdict.
                w.facts.fence_opened[host] = proposed;
            }
            opened_fence(w, *fence);
            s8::committed(w, host, proposed);
        }
        (Event::FenceOpened { fence, .. }, Command::OpenFence { target, .. }) => {
            w.facts.counts.fences += 1;
            let host = w.host(target);
            w.facts.fence_opened[host] = proposed;
            opened_fence(w, Some(*fence));
        }
        (Event::Refuted { .. }, _) => w.facts.counts.refuted += 1,
        (Event::Appointed { epoch }, Command::Appoint { service, node, basis, seals, .. }) => {
            w.facts.counts.appointments += 1;
            w.facts.counts.failovers += u64::from(matches!(basis, Basis::Fenced { .. }));
            chosen(w, (before, service), node, basis, seals);
            aside::appointed(w, before, service, node);
            leave::appointed(w, before, service, node, seals);
            s2::epoch_over(w, before, service, "an appointment");
            s6::planned(w, before, service, node);
            s6::bounded(w, before, service, node);
            s4::appointment(w, before, after, service, *epoch);
            s7::appointment(w, before, after, command, *epoch);
            s9::appointment(w, before, basis);
        }
        (Event::Noted, Command::PassOver { service, .. }) => {
            w.facts.counts.passed_over += 1;
            s2::passed_over(w, before, service);
        }
        (_, Command::Installed { service, .. }) => {
            let s = w.index(service);
            w.facts.services[s].tried.clear();
        }
        (_, Command::Promoting { service, node, timeline, .. }) => timelines::said(w, service, node, *timeline),
        (Event::Appointed { epoch }, Command::Create { service, node, .. }) => {
            w.facts.counts.appointments += 1;
            aside::appointed(w, before, service, node);
            s4::appointment(w, before, after, service, *epoch);
        }
        _ => {}
    }
}

/// What the choice rested on.
fn chosen(
    w: &mut World,
    (before, service): (&State, &ServiceName),
    node: &NodeName,
    basis: &Basis,
    seals: &BTreeMap<NodeName, Seal>,
) {
    let s = w.index(service);
    w.facts.services[s].reports = s6::reports(w, (before, service), seals, &w.facts.services[s].tried);
    w.facts.services[s].tried.insert(node.clone());
    if let Basis::Fenced { fence, .. } = basis
        && let Some(fence) = before.fences.get(fence)
    {
        w.rests_on(w.host(&fence.target));
    }
}

fn opened_fence(w: &mut World, fence: Option<regent::types::FenceId>) {
    if let Some(fence) = fence {
        w.facts.power.opened(w.now, fence);
    }
}
