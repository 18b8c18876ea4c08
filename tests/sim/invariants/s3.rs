//! S3: a verdict carries suspicions of a majority of all voters, each with a majority of the configured channels lost
//! for exactly the incarnation that lives, looked at again in one round of at most the acceptable pause. Counted here
//! again, from the evidence and from what was really asked and answered; whether the evidence was true is S8's.

use crate::cluster::{S, World};
use regent::ledger::{Command, Sighting, State};
use regent::node::{Effect, Event, PeerRequest, PeerResponse};
use regent::plan::Question;
use regent::types::{Instant, NodeName, Round, Sight, Term};
use std::collections::BTreeMap;

/// One round of looking at one node, of the leader of one term.
type Look = (NodeName, Term, Round);

/// What was asked and answered in rounds.
#[derive(Default)]
pub struct Looks {
    /// When a leader's daemon asked first, by its own clock; and by the world's, to forget it.
    opened: BTreeMap<(usize, u64, Look), (Instant, u64)>,
    /// Questions that a voter has not answered: by host, daemon and number.
    asked: BTreeMap<(usize, u64, u64), Look>,
    /// What each voter answered.
    said: BTreeMap<(usize, Look), Vec<Sighting>>,
}

impl Looks {
    fn forget(&mut self, now: u64) {
        if self.opened.len() > 64 {
            self.opened.retain(|_, (_, at)| *at + 60 * S > now);
            let open: Vec<_> = self.opened.keys().map(|(_, _, look)| look.clone()).collect();
            self.said.retain(|(_, look), _| open.contains(look));
            self.asked.retain(|_, look| open.contains(look));
        }
    }
}

/// A daemon is told something: a question of a round.
pub fn given(w: &mut World, host: usize, event: &Event) {
    if let Event::Asked { reply, request: PeerRequest::Question(Question::Look { target, term, round, .. }), .. } =
        event
    {
        let life = w.hosts[host].life;
        w.facts.looks.asked.insert((host, life, *reply), (target.clone(), *term, *round));
    }
}

/// A daemon asks, or answers: then about whom.
pub fn asked_for(w: &mut World, host: usize, effect: &Effect) -> Option<usize> {
    let life = w.hosts[host].life;
    match effect {
        Effect::Ask { request: PeerRequest::Question(Question::Look { target, term, round, .. }), .. } => {
            let (local, now) = (w.hosts[host].local(w.now), w.now);
            w.facts.looks.forget(now);
            let key = (host, life, (target.clone(), *term, *round));
            w.facts.looks.opened.entry(key).or_insert((local, now));
            None
        }
        Effect::Reply { reply, response: PeerResponse::Sighting(said) } => {
            let look = w.facts.looks.asked.remove(&(host, life, *reply))?;
            let of = w.host(&look.0);
            w.facts.looks.said.entry((host, look)).or_default().push(said.clone());
            Some(of)
        }
        _ => None,
    }
}

/// The leader closes a round.
pub fn proposed(w: &mut World, leader: usize, command: &Command) {
    let Command::DeclareDead { target, term, round, answers, .. } = command else { return };
    let look = (target.clone(), *term, *round);
    let (h, pause) = (&w.hosts[leader], w.facts.times.pause);
    let opened = w.facts.looks.opened.get(&(leader, h.life, look.clone())).map(|(at, _)| *at);
    let lasted = opened.map(|opened| h.local(w.now).since(opened).as_nanos() as u64);
    if lasted.is_none_or(|lasted| lasted > pause) {
        let what = format!("{target} is to be declared dead by a round that lasted {lasted:?} ns");
        return w.violate("S3", what);
    }
    // What the leader saw itself is not seen from outside.
    let others = answers.iter().map(|(voter, said)| (w.host(voter), said)).filter(|(voter, _)| *voter != leader);
    let unsaid = others
        .filter(|(voter, said)| !w.facts.looks.said.get(&(*voter, look.clone())).is_some_and(|all| all.contains(said)));
    let unsaid: Vec<_> = unsaid.map(|(voter, _)| voter).collect();
    if let Some(voter) = unsaid.first() {
        let what = format!("{target} is to be declared dead on what {} never said in that round", w.hosts[*voter].name);
        w.violate("S3", what);
    }
}

pub fn verdict(w: &mut World, before: &State, command: &Command) {
    let Command::DeclareDead { target, answers, .. } = command else { return };
    let (Some(record), Some(settings)) = (before.nodes.get(target), &before.settings) else { return };
    let suspects = answers.iter().filter(|(voter, said)| {
        let lost = said.view.channels.values().filter(|sight| **sight == Sight::Lost).count();
        *voter != target && said.view.incarnation == record.incarnation && lost * 2 > settings.channels.len()
    });
    let count = suspects.count();
    if count * 2 <= w.hosts.len() {
        w.violate("S3", format!("{target} is declared dead by {count} of {} voters", w.hosts.len()));
    }
}
