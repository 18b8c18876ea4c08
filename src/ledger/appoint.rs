//! The appointment: S2 and S9 as one function. Nothing else in the program may grant one.

use super::apply::Moment;
use super::{
    Basis, CheckAnswer, Event, FenceState, Happening, Holder, Ineligible, Life, Machine, Over, Phase, Refusal, Service,
    State,
};
use crate::known_bugs::{self, Bug};
use crate::types::{Epoch, FenceId, Incarnation, Lsn, NodeName, Position, Seal, ServiceName, Term, Timeline};
use std::collections::BTreeMap;

/// The proof that an epoch is over. Only `State::prove_over` makes one, and only an appointment spends one.
struct EpochOver {
    basis: String,
    fence: Option<FenceId>,
    checks: BTreeMap<NodeName, CheckAnswer>,
}

impl State {
    /// Epoch 1 of a service that does not exist yet: nothing is before it. Or once more, under the next epoch, where
    /// whoever was to make the database gave its epoch back before it ever accepted a write.
    pub(super) fn create(&mut self, m: Moment, service: ServiceName, holder: Holder) -> Result<Event, Refusal> {
        match self.set().services.get(&service) {
            None => return Err(Refusal::UnknownService { service }),
            Some(false) => {
                return Err(Refusal::NotAllowed { why: format!("{service} is not to be made by initdb") });
            }
            Some(true) => {}
        }
        let before = self.services.get(&service);
        if let Some(existing) = before {
            let never_made = existing.system.is_none() && existing.history.is_empty() && existing.over.is_some();
            if !never_made {
                return Err(Refusal::Exists { service, epoch: existing.epoch });
            }
            if existing.paused {
                return Err(Refusal::Paused { service });
            }
        }
        let epoch = before.map_or(Epoch(1), |s| s.epoch.next());
        let incident = before.and_then(|s| s.incident);
        // The next try is elsewhere.
        let failed = before.map(|s| s.failed.clone()).unwrap_or_default();
        self.check_appointee(&holder)?;
        let record = Service {
            epoch,
            holder: Some(holder.clone()),
            appointed_in: m.term,
            denied: false,
            phase: Phase::Creating,
            over: None,
            machine: self.machine_of(&holder.node),
            claimed: None,
            system: None,
            timeline: Timeline(0),
            begun: BTreeMap::new(),
            failed,
            final_end: None,
            known_end: None,
            accepted_loss: None,
            accepted_copy: None,
            to_copy: BTreeMap::new(),
            copy_orders: 0,
            to_restart: BTreeMap::new(),
            restart_orders: 0,
            sealed_at: Lsn(0),
            moving: None,
            paused: false,
            pause: None,
            unproven_resume: None,
            history: Vec::new(),
            incident,
        };
        self.services.insert(service, record.into());
        Ok(Event::Appointed { epoch })
    }

    /// S2: the previous epoch is over, in the ledger, before the next one begins.
    #[allow(clippy::too_many_arguments, reason = "the fields of one command, already taken apart")]
    pub(super) fn appoint(
        &mut self,
        m: Moment,
        service: ServiceName,
        prior: Epoch,
        to: Holder,
        basis: Basis,
        seals: BTreeMap<NodeName, Seal>,
        why: String,
    ) -> Result<Event, Refusal> {
        let record = self.services.get(&service).ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        if record.epoch != prior {
            return Err(Refusal::OldEpoch { service, epoch: prior, current: record.epoch });
        }
        if record.paused {
            return Err(Refusal::Paused { service });
        }
        let proof = self.prove_over(m.term, &service, record, &basis)?;
        self.check_appointee(&to)?;
        let seal = seals.get(&to.node);
        check_lineage(record, &to.node, seal)?;
        let losses = losses(record, &to, seal);
        let sealed_at = seal.map_or(Lsn(0), |s| s.end.lsn);
        let positions = seals.iter().map(|(node, s)| (node.clone(), s.end)).collect();
        let incident = record.incident;
        let copy = record.awaited_copy().filter(|copy| copy.node == to.node).cloned();
        let epoch = prior.next();
        let machine = self.machine_of(&to.node);
        let record = self.services.get_mut(&service).expect("just seen");
        record.epoch = epoch;
        record.holder = Some(to.clone());
        record.appointed_in = m.term;
        record.denied = false;
        record.phase = Phase::Appointed;
        record.over = None;
        record.machine = machine;
        record.claimed = None;
        record.sealed_at = sealed_at;
        record.moving = None;
        record.accepted_loss = None;
        record.use_accepted_copy(&to.node);
        record.to_copy.remove(&to.node);
        record.to_restart.clear();
        record.unproven_resume = None;
        // Whoever wrote on this timeline may go on there: where its last epoch ended is not the end any more.
        if record.history.last().is_some_and(|last| last.node == to.node) {
            record.final_end = None;
        }
        if let Some(fence) = proof.fence {
            let fence = self.fences.get_mut(&fence).expect("prove_over has seen it");
            fence.used = true;
            fence.checks = proof.checks.clone();
        }
        if let (Some(incident), Some(copy)) = (incident, copy) {
            self.tell_of_the_copy(m, incident, &service, &copy);
        }
        if let Some(incident) = incident {
            let EpochOver { basis, checks, .. } = proof;
            let (name, node) = (service.clone(), to.node.clone());
            self.record(incident, m, Happening::Appointed { service, epoch, node, basis, positions, checks, why });
            for Loss { epoch, node, timeline, after } in
                losses.into_iter().filter(|_| !known_bugs::has(Bug::LossUnnamed))
            {
                let (service, by) = (name.clone(), to.node.clone());
                self.record(incident, m, Happening::MayBeLost { service, epoch, node, timeline, after, by });
            }
        }
        Ok(Event::Appointed { epoch })
    }

    /// S2 and S9: released, passed over, or fenced by something that ends an epoch and looked at again in the present term.
    fn prove_over(
        &self,
        term: Term,
        service: &ServiceName,
        record: &Service,
        basis: &Basis,
    ) -> Result<EpochOver, Refusal> {
        match (basis, &record.over) {
            (Basis::Released, Some(Over::Released { at_join, .. })) => {
                let basis = if *at_join { "its release at the join of a later start" } else { "its release" };
                Ok(EpochOver { basis: basis.to_owned(), fence: None, checks: BTreeMap::new() })
            }
            (Basis::PassedOver, Some(Over::PassedOver)) => {
                Ok(EpochOver { basis: "being passed over".to_owned(), fence: None, checks: BTreeMap::new() })
            }
            (Basis::Released | Basis::PassedOver, _) => {
                Err(Refusal::EpochNotOver { service: service.clone(), epoch: record.epoch })
            }
            (Basis::Fenced { fence, term: asked_in, checks }, _) => {
                if *asked_in != term {
                    return Err(Refusal::OldTerm { based_on: *asked_in, term });
                }
                self.check_fence(*fence, record, checks)?;
                Ok(EpochOver { basis: format!("fence {fence}"), fence: Some(*fence), checks: checks.clone() })
            }
        }
    }

    /// The fence is confirmed, for the very boot that holds the epoch, and its check was answered by a majority that
    /// includes every voter that still heard the node.
    fn check_fence(
        &self,
        fence: FenceId,
        record: &Service,
        checks: &BTreeMap<NodeName, CheckAnswer>,
    ) -> Result<(), Refusal> {
        let f = self.fences.get(&fence).ok_or(Refusal::UnknownFence { fence })?;
        let holds = record.holder.as_ref().is_some_and(|h| h.node == f.target && h.boot == f.boot);
        if known_bugs::has(Bug::PromoteBeforeFence) {
            return Ok(());
        }
        if f.state != FenceState::Confirmed || f.confirmed.is_none() || !holds {
            return Err(Refusal::NotFenced { fence, epoch: record.epoch });
        }
        for (node, answer) in checks {
            if let CheckAnswer::Refuted { what, .. } = answer {
                return Err(Refusal::CheckRefuted { fence, node: node.clone(), what: what.clone() });
            }
        }
        if !self.is_majority(checks.keys().filter(|n| **n != f.target)) {
            return Err(Refusal::NotChecked { fence, missing: "a majority of all voters".to_owned() });
        }
        let still_there = |node: &NodeName, inc: &Incarnation| {
            self.nodes.get(node).is_some_and(|n| n.incarnation == *inc && n.life == Life::Up)
        };
        match f.heard_by.iter().find(|(node, inc)| still_there(node, inc) && !checks.contains_key(*node)) {
            Some((node, _)) => {
                Err(Refusal::NotChecked { fence, missing: format!("{node}, which still heard the node") })
            }
            None => Ok(()),
        }
    }

    fn machine_of(&self, node: &NodeName) -> Machine {
        self.nodes.get(node).map(|record| record.machine.clone()).unwrap_or_default()
    }

    /// S4 and H1.11: the present incarnation of a node that may hold an epoch.
    fn check_appointee(&self, to: &Holder) -> Result<(), Refusal> {
        let present = self.present(&to.node, to.incarnation).is_some_and(|n| n.boot == to.boot);
        match self.may_hold(&to.node) {
            Err(why @ (Ineligible::Unknown | Ineligible::Witness)) => Err(why.refusal(&to.node)),
            _ if !present => Err(Refusal::OldIncarnation { node: to.node.clone(), incarnation: to.incarnation }),
            may => may.map_err(|why| why.refusal(&to.node)),
        }
    }
}

/// The node that held the epoch itself has everything and needs no report.
fn check_lineage(record: &Service, node: &NodeName, seal: Option<&Seal>) -> Result<(), Refusal> {
    let held = record.holder.as_ref().is_some_and(|h| &h.node == node);
    let may = match seal {
        // It wins, whatever it descends from; where it ends is to be known.
        Some(_) if record.accepts_copy_of(node) => Ok(()),
        None if record.accepts_copy_of(node) => Err(Ineligible::NoReport),
        Some(seal) => record.may_follow(seal),
        None if held => Ok(()),
        None => Err(Ineligible::NoReport),
    };
    may.map_err(|why| why.refusal(node))
}

/// What the end of an epoch may lose: the writes of `node` on `timeline` after `after`.
struct Loss {
    epoch: Epoch,
    node: NodeName,
    timeline: Timeline,
    after: Lsn,
}

/// What may have been acknowledged in an earlier epoch and is not known to be on the appointee. Never silent: the
/// service is asynchronous, so a loss is allowed, and a loss that nobody names is not.
fn losses(record: &Service, to: &Holder, seal: Option<&Seal>) -> Vec<Loss> {
    // The numbers of another database's timelines say nothing of these.
    let seal = seal.filter(|seal| record.system.is_none_or(|system| system == seal.system));
    let reached = |on: Timeline| match seal {
        Some(seal) if seal.end.timeline == on => Some(seal.end.lsn),
        Some(seal) => seal.history.left_at(on),
        None => None,
    };
    let said = record.over.as_ref().and_then(Over::position);
    let covers = |end: Option<Position>, on, at| end.is_some_and(|end| end.timeline == on && end.lsn <= at);
    // Not where a fence ended the epoch: then its node is another machine by now.
    let own = |node: &NodeName| node == &to.node && record.over.is_some() && !record.accepts_copy_of(node);
    // A node's own directory has whatever it wrote there itself. Another may have followed it before its epoch was
    // installed, which it then never was, and have what was written up to some moment.
    let begun = record.begun.iter().filter(|(_, b)| !own(&b.node));
    let begun = begun.filter(|(timeline, _)| !reached(**timeline).is_some_and(|at| covers(said, **timeline, at)));
    let mut losses: Vec<_> = begun
        .map(|(timeline, b)| {
            let after = reached(*timeline).unwrap_or(b.after);
            Loss { epoch: b.epoch, node: b.node.clone(), timeline: *timeline, after }
        })
        .collect();
    if record.accepts_copy_of(&to.node) {
        losses.splice(0..0, earlier_losses(record, reached));
    }
    let Some(last) = record.history.last().filter(|last| !own(&last.node)) else { return losses };
    // Without a report only a former holder is appointed: what it has of an installed epoch of another node, its own
    // appointment has named.
    let (timeline, after) = (record.timeline, reached(record.timeline).unwrap_or_default());
    // Only the word of an epoch that was installed tells where its timeline ends: an appointee's tells where it stopped.
    let unknown = seal.is_some() || last.node == to.node || record.accepts_copy_of(&to.node);
    if unknown && !covers(record.final_end, timeline, after) {
        losses.insert(0, Loss { epoch: last.epoch, node: last.node.clone(), timeline, after });
    }
    losses
}

/// What a copy that a person accepted lacks of the epochs before the last: each ended where the next one began.
fn earlier_losses(record: &Service, reached: impl Fn(Timeline) -> Option<Lsn>) -> Vec<Loss> {
    let pairs = record.history.iter().zip(record.history.iter().skip(1));
    let lost = pairs.filter_map(|(epoch, next)| {
        let timeline = epoch.start.timeline;
        let after = reached(timeline).unwrap_or_default();
        (after < next.start.lsn).then(|| Loss { epoch: epoch.epoch, node: epoch.node.clone(), timeline, after })
    });
    lost.collect()
}
