//! Joining and dying: who a node is (boot, incarnation), and the verdict on an incarnation (S3).
//! What follows a verdict for its epochs is in `fence.rs`.

use super::apply::Moment;
use super::claimed::{Claimed, Word};
use super::{
    Cause, Claim, ClaimState, Event, Fence, FenceState, Happening, IncidentKind, Life, Machine, NodeRecord, Outcome,
    Refusal, Shared, Sighting, State,
};
use crate::known_bugs::{self, Bug};
use crate::types::{Boot, Epoch, FenceId, Incarnation, NodeId, NodeName, Round, ServiceName, Term};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many boots of a node are known as over.
const BOOTS_KEPT: usize = 64;

impl State {
    /// A starting daemon: identity first, then what became of the epochs that earlier incarnations held.
    pub(super) fn join(
        &mut self,
        m: Moment,
        node: NodeName,
        (boot, request, succeeds): (Boot, u64, Option<Incarnation>),
        machine: Machine,
        claims: &BTreeMap<ServiceName, Claim>,
    ) -> Result<Event, Refusal> {
        if !self.set().nodes.contains_key(&node) {
            return Err(Refusal::UnknownNode { node });
        }
        if let Some(record) = self.nodes.get(&node) {
            // Whoever joined with it goes on under the incarnation that it was given. Whoever asked before that does not
            // run any more, or has asked anew.
            match request.cmp(&record.request) {
                Ordering::Equal if record.boot == boot => {
                    return Ok(Event::Joined { incarnation: record.incarnation });
                }
                Ordering::Less if record.boot == boot => return Err(Refusal::SpentJoin { node }),
                _ => {}
            }
            // It was on its way while another boot joined, which may be the one that runs. (Within one boot requests count.)
            let is_late = |before: &Incarnation| record.boot != boot && *before != record.incarnation;
            if let Some(incarnation) = succeeds.filter(is_late) {
                return Err(Refusal::OldIncarnation { node, incarnation });
            }
            if record.past_boots.contains(&boot) {
                return Err(Refusal::OldBoot { node, boot });
            }
            if record.life == Life::Up && record.machine.id != machine.id {
                return Err(Refusal::OtherMachine { node, machine: record.machine.id.clone() });
            }
        }
        let held = self.held_by(&node);
        for (service, epoch) in &held {
            self.check_claim(&node, &boot, service, *epoch, claims.get(service))?;
        }
        self.check_machine((&node, &boot), &machine, &held)?;
        let adopts = held.keys().any(|service| claims.get(service).is_some_and(|c| c.state == ClaimState::Adopted));
        let spared: Vec<_> = match adopts {
            true => self.standing_against(&node, &boot).map(|f| f.id).collect(),
            false => Vec::new(),
        };
        let weigh = |service: &ServiceName| (service.clone(), self.weigh(&boot, &machine, service));
        let words: BTreeMap<_, _> = held.keys().map(weigh).collect();
        self.last_incarnation = self.last_incarnation.next();
        let incarnation = self.last_incarnation;
        let watchdog = machine.watchdog;
        self.succeed(&node, boot.clone(), request, incarnation, machine);
        let incidents: BTreeSet<_> =
            self.fences.values().filter(|f| f.target == node && f.is_open()).map(|f| f.incident).collect();
        for incident in incidents {
            self.record(incident, m, Happening::Joined { node: node.clone(), boot: boot.clone(), incarnation });
        }
        for (service, epoch) in held {
            let Some(claim) = claims.get(&service) else { continue };
            self.settle_claim(m, &node, (&service, epoch, claim.state), (incarnation, watchdog), words[&service]);
        }
        self.void_fences_of_past_boots(m, &node, &boot);
        spared.into_iter().for_each(|fence| self.spare(m, fence));
        self.believe_again(&node);
        Ok(Event::Joined { incarnation })
    }

    /// Who fell silent while a device acted is back: that level may be tried again, and be believed if nobody falls silent.
    fn believe_again(&mut self, node: &NodeName) {
        let struck: Vec<_> =
            self.fences.values().filter(|f| f.struck.values().any(|n| n == node)).map(|f| f.id).collect();
        for fence in struck {
            if let Some(fence) = self.fences.get_mut(&fence) {
                fence.struck.retain(|_, silent| silent != node);
            }
        }
    }

    /// The epochs that any boot of this node holds and that are not over.
    fn held_by(&self, node: &NodeName) -> BTreeMap<ServiceName, Epoch> {
        self.services
            .iter()
            .filter(|(_, s)| s.over.is_none() && s.holder.as_ref().is_some_and(|h| &h.node == node))
            .map(|(name, s)| (name.clone(), s.epoch))
            .collect()
    }

    fn check_claim(
        &self,
        node: &NodeName,
        boot: &Boot,
        service: &ServiceName,
        epoch: Epoch,
        claim: Option<&Claim>,
    ) -> Result<(), Refusal> {
        let Some(claim) = claim.filter(|c| c.epoch == epoch) else {
            return Err(Refusal::ClaimMissing { node: node.clone(), service: service.clone(), epoch });
        };
        if claim.state != ClaimState::Adopted {
            return Ok(());
        }
        let why = match self.nodes.get(node) {
            Some(record) if &record.boot != boot => "it was held by another boot",
            Some(_) if self.is_spared(node, boot) => return Ok(()),
            Some(record) if record.life == Life::Dead => "its holder was declared dead",
            Some(_) if self.is_fenced(node, boot) => "its boot is being fenced",
            Some(_) => return Ok(()),
            None => "its holder never joined",
        };
        Err(Refusal::CannotAdopt { service: service.clone(), epoch, why: why.to_owned() })
    }

    /// Whether a pause has kept every hand off this boot since the verdict on it: its daemon was away for longer than others
    /// wait, and is back.
    fn is_spared(&self, node: &NodeName, boot: &Boot) -> bool {
        let mut fences = self.standing_against(node, boot).peekable();
        let spares = |f: &Fence| f.state == FenceState::Open && f.is_untouched() && self.is_held_up(f);
        fences.peek().is_some() && fences.all(spares)
    }

    /// What the pause held up is not needed any more, and its services stay where they are.
    fn spare(&mut self, m: Moment, fence: FenceId) {
        self.void_fence(m, fence, "its daemon is back, and its service is paused");
        let Some(f) = self.fences.get(&fence) else { return };
        let (incident, on, epochs) = (f.incident, f.target.clone(), f.epochs.clone());
        let Some(incident) = self.incidents.get_mut(&incident) else { return };
        for (service, epoch) in epochs {
            incident.settle(&service, Outcome::Stayed { on: on.clone(), epoch });
        }
    }

    fn standing_against<'a>(&'a self, node: &'a NodeName, boot: &'a Boot) -> impl Iterator<Item = &'a Fence> {
        let stands = |f: &&Fence| matches!(f.state, FenceState::Open | FenceState::Confirmed);
        self.fences.values().map(Shared::get).filter(move |f| f.target == *node && f.boot == *boot).filter(stands)
    }

    fn succeed(&mut self, node: &NodeName, boot: Boot, request: u64, incarnation: Incarnation, machine: Machine) {
        let old = self.nodes.remove(node);
        let (mut past_boots, failures) = old.map_or_else(Default::default, |old| {
            let mut past = old.past_boots.clone();
            if old.boot != boot {
                past.push_back(old.boot.clone());
                // What assistants had set on that boot went with it.
                for fence in self.fences.values_mut().filter(|fence| fence.assisted.contains_key(node)) {
                    fence.assisted.remove(node);
                }
            }
            (past, old.failures)
        });
        while past_boots.len() > BOOTS_KEPT {
            past_boots.pop_front();
        }
        let record = NodeRecord { boot, incarnation, machine, life: Life::Up, past_boots, request, failures };
        self.nodes.insert(node.clone(), record.into());
    }

    /// `watchdog`: what the new daemon has armed. `word`: what its `Over` is worth.
    fn settle_claim(
        &mut self,
        m: Moment,
        node: &NodeName,
        (service, epoch, claim): (&ServiceName, Epoch, ClaimState),
        (incarnation, watchdog): (Incarnation, Option<Duration>),
        word: Word,
    ) {
        let record = self.services.get_mut(service).expect("held_by lists services of this state");
        match claim {
            ClaimState::Adopted => {
                record.holder.as_mut().expect("held_by lists held epochs").incarnation = incarnation;
                record.machine.watchdog = watchdog;
            }
            ClaimState::Over { position } => match word {
                Word::Proven => {
                    let why = "said at its join: its database is closed";
                    self.end_at_join(m, node, service, epoch, position, why);
                }
                Word::Unproven => record.claimed = Some(Claimed { by: incarnation, position }),
                Word::Nothing => {}
            },
        }
    }

    /// A new boot of the node voids what was confirmed about the boots before it (H1.2). What an epoch still hangs on is
    /// needed: another machine joined, and the boot that holds the epoch may live behind the fence. So is one that is not
    /// confirmed yet, where nothing else will end the epoch.
    fn void_fences_of_past_boots(&mut self, m: Moment, node: &NodeName, boot: &Boot) {
        let old: Vec<_> = self
            .fences
            .values()
            .filter(|f| &f.target == node && &f.boot != boot)
            .filter(|f| matches!(f.state, FenceState::Open | FenceState::Confirmed))
            .filter(|f| {
                let hangs: Vec<_> = self.epochs_of(node, &f.boot).into_keys().collect();
                let waits = |service| self.earlier_boot_objection(service).is_none();
                hangs.is_empty() || f.state == FenceState::Open && hangs.iter().all(waits)
            })
            .map(|f| f.id)
            .collect();
        for id in old {
            self.void_fence(m, id, "a new boot of the node joined");
        }
    }

    /// The close of a round: S3.
    pub(super) fn declare_dead(
        &mut self,
        m: Moment,
        target: NodeName,
        incarnation: Incarnation,
        (term, round): (Term, Round),
        answers: BTreeMap<NodeName, Sighting>,
        hearing: &BTreeSet<NodeName>,
    ) -> Result<Event, Refusal> {
        if term != m.term {
            return Err(Refusal::OldTerm { based_on: term, term: m.term });
        }
        let any = known_bugs::has(Bug::VerdictForOldIncarnation);
        let Some(record) = self.nodes.get(&target).filter(|n| n.incarnation == incarnation || any) else {
            return Err(Refusal::OldIncarnation { node: target, incarnation });
        };
        if record.life == Life::Dead {
            return Err(Refusal::AlreadyDead { node: target });
        }
        if self.rounds.get(&target).is_some_and(|last| (term, round) <= *last) {
            return Err(Refusal::SpentRound { term, round });
        }
        let suspecting = self.suspecting(&target, incarnation, &answers);
        if !super::is_majority(&self.electorate(), &suspecting) {
            return Err(Refusal::NoDoubleMajority { node: target, suspecting: suspecting.len() });
        }
        let boot = record.boot.clone();
        self.rounds.insert(target.clone(), (term, round));
        self.nodes.get_mut(&target).expect("just seen").life = Life::Dead;
        let heard_by = self.heard_by(&target, &answers, hearing);
        let evidence = Happening::DeclaredDead { target: target.clone(), incarnation, round, answers };
        let why = (IncidentKind::Failover, Cause::Verdict { term, round });
        let fence = self.open_fence(m, &target, &boot, why, evidence, heard_by);
        Ok(Event::Declared { target, fence })
    }

    /// S3: the voters, other than the accused, whose answer suspects exactly this incarnation.
    fn suspecting(
        &self,
        target: &NodeName,
        incarnation: Incarnation,
        answers: &BTreeMap<NodeName, Sighting>,
    ) -> BTreeSet<NodeId> {
        let settings = self.set();
        answers
            .iter()
            .filter(|(voter, _)| *voter != target)
            .filter(|(_, s)| s.view.incarnation == incarnation)
            .filter(|(_, s)| s.view.channels.keys().all(|c| settings.channels.contains(c)))
            .filter(|(_, s)| s.view.suspects(settings.channels.len()))
            .filter_map(|(voter, _)| settings.nodes.get(voter))
            .map(|n| n.id)
            .collect()
    }

    /// Who still heard the node: as each answered, or, where an answer was not waited for, as it said before.
    fn heard_by(
        &self,
        target: &NodeName,
        answers: &BTreeMap<NodeName, Sighting>,
        hearing: &BTreeSet<NodeName>,
    ) -> BTreeMap<NodeName, Incarnation> {
        let answered = answers.iter().filter(|(_, s)| s.view.is_heard()).map(|(voter, _)| voter);
        let unanswered = hearing.iter().filter(|voter| !answers.contains_key(*voter) && self.is_voter(voter));
        let all = answered.chain(unanswered).filter(|voter| *voter != target);
        all.filter_map(|voter| Some((voter.clone(), self.nodes.get(voter)?.incarnation))).collect()
    }
}
