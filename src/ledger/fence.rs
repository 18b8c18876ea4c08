//! Fences: opened by a verdict or on order, tried level by level, confirmed, refuted, voided, lifted, closed.
//! The appointment that uses one is in `appoint.rs`; running an agent is `crate::action`.

use super::apply::Moment;
use super::bounds;
use super::{
    Cause, Confirmation, Event, Fence, FenceReason, FenceState, Happening, Incident, IncidentKind, Life, NewOrder,
    Order, OrderState, Outcome, Refusal, State,
};
use crate::types::{
    AgentAction, AgentName, AgentOutcome, AgentRun, Boot, ChannelName, FenceId, Incarnation, IncidentId, NodeName,
    ServiceName, Term,
};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// Opens an incident and a fence where epochs hang on the boot. Without one, and without an operator's order, a
    /// dead node is left alone: nothing hangs on it.
    pub(super) fn open_fence(
        &mut self,
        m: Moment,
        target: &NodeName,
        boot: &Boot,
        (kind, cause): (IncidentKind, Cause),
        evidence: Happening,
        heard_by: BTreeMap<NodeName, Incarnation>,
    ) -> Option<FenceId> {
        let epochs = self.epochs_of(target, boot);
        if self.is_fenced(target, boot) || (epochs.is_empty() && kind != IncidentKind::Fencing) {
            return None;
        }
        let why = match kind {
            IncidentKind::Fencing => "on an operator's order".to_owned(),
            _ => {
                "it held ".to_owned()
                    + &epochs.iter().map(|(s, e)| format!("epoch {e} of {s}")).collect::<Vec<_>>().join(", ")
            }
        };
        let incident = self.open_incident(m, kind, target, epochs.keys().cloned().collect());
        self.record(incident, m, evidence);
        self.last_fence = self.last_fence.next();
        let id = self.last_fence;
        let opened = Happening::FenceOpened { fence: id, target: target.clone(), boot: boot.clone(), why };
        self.record(incident, m, opened);
        for service in epochs.keys() {
            self.services.get_mut(service).expect("epochs_of lists services of this state").incident = Some(incident);
        }
        if let Some(record) = self.nodes.get_mut(target) {
            record.failures += 1;
        }
        let fence = Fence {
            id,
            target: target.clone(),
            boot: boot.clone(),
            incident,
            cause,
            epochs,
            state: FenceState::Open,
            level: 0,
            round: 0,
            orders: Vec::new(),
            on_failed: 0,
            confirmed: None,
            heard_by,
            assisted: BTreeMap::new(),
            used: false,
            stays_off: false,
            without_power_at: 0,
            refuted: 0,
            all_levels_from: None,
            lease_refuted: false,
            struck: BTreeMap::new(),
            checks: BTreeMap::new(),
            last_life: None,
        };
        self.fences.insert(id, fence.into());
        Some(id)
    }

    pub(super) fn open_incident(
        &mut self,
        m: Moment,
        kind: IncidentKind,
        subject: &NodeName,
        services: BTreeSet<ServiceName>,
    ) -> IncidentId {
        self.last_incident = self.last_incident.next();
        let id = self.last_incident;
        for service in &services {
            let before = self.services.get(service).and_then(|s| s.incident).and_then(|i| self.incidents.get_mut(&i));
            if let Some(before) = before.filter(|i| i.outcome == Outcome::Open) {
                before.settle(service, Outcome::Ended { why: format!("goes on in incident {id}") });
            }
        }
        let incident = Incident {
            id,
            kind,
            subject: subject.clone(),
            services,
            settled: BTreeSet::new(),
            opened: m.at,
            outcome: Outcome::Open,
            steps: Vec::new(),
            forgotten: 0,
        };
        self.incidents.insert(id, incident.into());
        id
    }

    /// Fencing without a verdict: an operator's order, or a lapsed holder.
    pub(super) fn open_fence_on_order(
        &mut self,
        m: Moment,
        target: NodeName,
        boot: Boot,
        reason: &FenceReason,
    ) -> Result<Event, Refusal> {
        let Some(record) = self.nodes.get(&target) else { return Err(Refusal::UnknownNode { node: target }) };
        // An earlier boot is fenced where it may go on, and waiting for its lease would prove nothing.
        let unproven = |service| self.is_claimed(service) && self.earlier_boot_objection(service).is_some();
        let is_present = record.boot == boot;
        let is_due = matches!(reason, FenceReason::Lapsed { service, .. } if unproven(service));
        if !is_present && !is_due {
            return Err(Refusal::OldBoot { node: target, boot });
        }
        if let FenceReason::Lapsed { service, epoch, term } = reason {
            if *term != m.term {
                return Err(Refusal::OldTerm { based_on: *term, term: m.term });
            }
            if self.epochs_of(&target, &boot).get(service) != Some(epoch) {
                return Err(Refusal::NotHolder { service: service.clone(), epoch: *epoch, node: target });
            }
        }
        let evidence = match reason {
            FenceReason::Operator { who } => Happening::FenceOpened {
                fence: self.last_fence.next(),
                target: target.clone(),
                boot: boot.clone(),
                why: format!("asked for by {who}"),
            },
            FenceReason::Lapsed { service, epoch, .. } => Happening::FenceOpened {
                fence: self.last_fence.next(),
                target: target.clone(),
                boot: boot.clone(),
                why: format!("its lease on epoch {epoch} of {service} lapsed and it says nothing"),
            },
        };
        // Everybody may hear it: the check needs every voter that is up.
        let heard_by = self
            .nodes
            .iter()
            .filter(|(name, r)| **name != target && r.life == Life::Up && self.is_voter(name))
            .map(|(name, r)| (name.clone(), r.incarnation))
            .collect();
        // Only a person's own order goes on in a pause; a lapsed holder is a failover like any other.
        let why = match reason {
            FenceReason::Operator { .. } => (IncidentKind::Fencing, Cause::Order),
            FenceReason::Lapsed { term, .. } => (IncidentKind::Failover, Cause::Lapse { term: *term }),
        };
        let fence = self.open_fence(m, &target, &boot, why, evidence, heard_by);
        let Some(fence) = fence else {
            return Err(Refusal::NotAllowed { why: format!("{target} is being fenced already") });
        };
        if is_present {
            self.nodes.get_mut(&target).expect("just seen").life = Life::Dead;
        }
        Ok(Event::FenceOpened { fence, incident: self.last_incident })
    }

    pub(super) fn fence_mut(&mut self, fence: FenceId) -> Result<&mut Fence, Refusal> {
        let open = self.fences.get_mut(&fence).filter(|f| f.is_open());
        open.map(|f| &mut **f).ok_or(Refusal::UnknownFence { fence })
    }

    pub(super) fn fence_in(&self, fence: FenceId, states: &[FenceState]) -> Result<&Fence, Refusal> {
        let found = self.fences.get(&fence).ok_or(Refusal::UnknownFence { fence })?;
        if states.contains(&found.state) {
            Ok(found)
        } else {
            Err(Refusal::FenceState { fence, state: found.state.to_string() })
        }
    }

    /// Nothing runs before its order is committed in the present term.
    pub(super) fn order(
        &mut self,
        m: Moment,
        fence: FenceId,
        term: Term,
        level: Option<u32>,
        round: u32,
        orders: Vec<NewOrder>,
    ) -> Result<Event, Refusal> {
        if term != m.term {
            return Err(Refusal::OldTerm { based_on: term, term: m.term });
        }
        for (number, order) in orders.iter().enumerate() {
            self.check_order(fence, level, round, order)?;
            if orders[..number].iter().any(|before| before.agent == order.agent) {
                return Err(Refusal::OldLevel { fence });
            }
        }
        let mut numbers = Vec::new();
        for new in orders {
            let executor_incarnation = self.nodes.get(&new.executor).map_or(Incarnation(0), |n| n.incarnation);
            let f = self.fence_mut(fence)?;
            let number = f.next_order();
            f.orders.push(Order {
                number,
                agent: new.agent.clone(),
                action: new.action,
                executor: new.executor.clone(),
                executor_incarnation,
                term,
                level,
                round,
                state: OrderState::Running,
            });
            let incident = f.incident;
            numbers.push(number);
            let NewOrder { agent, action, executor } = new;
            self.record(incident, m, Happening::Ordered { fence, order: number, agent, action, executor, level });
        }
        self.fence_mut(fence)?.forget_orders();
        Ok(Event::Ordered { fence, orders: numbers })
    }

    fn check_order(&self, fence: FenceId, level: Option<u32>, round: u32, new: &NewOrder) -> Result<(), Refusal> {
        let unknown = || Refusal::UnknownAgent { agent: new.agent.clone() };
        let agent = self.set().agents.get(&new.agent).ok_or_else(unknown)?;
        if !self.nodes.contains_key(&new.executor) {
            return Err(Refusal::UnknownNode { node: new.executor.clone() });
        }
        let opposite = match new.action {
            AgentAction::Off => AgentAction::On,
            AgentAction::On => AgentAction::Off,
            _ => return Err(unknown()),
        };
        let states: &[FenceState] = match new.action {
            AgentAction::Off => &[FenceState::Open],
            _ => &[FenceState::Confirmed, FenceState::Void, FenceState::Lifting],
        };
        let f = self.fence_in(fence, states)?;
        if self.fences.values().any(|other| other.target == f.target && other.has_running(opposite)) {
            return Err(Refusal::OppositeOrder { node: f.target.clone() });
        }
        if new.action == AgentAction::On {
            let others_open = self.fences.values().any(|o| o.target == f.target && o.state == FenceState::Open);
            if others_open || agent.everywhere {
                return Err(Refusal::OppositeOrder { node: f.target.clone() });
            }
            // Once for each `off`, also when a new leader has not yet heard that the last one had it done.
            return match f.to_give_back().contains(&new.agent) {
                true => Ok(()),
                false => Err(Refusal::OldLevel { fence }),
            };
        }
        self.check_not_paused(f)?;
        if ordered_already(f, level, round, new) {
            return Err(Refusal::OldLevel { fence });
        }
        match level {
            Some(l) if !f.is_level_due(l) || round != f.round => Err(Refusal::OldLevel { fence }),
            Some(l) if !self.set().levels.get(l as usize).is_some_and(|a| a.contains(&new.agent)) => Err(unknown()),
            Some(_) if new.agent.is_lease() => self.check_lease_proves(f),
            None if !self.set().assist.contains(&new.agent) || agent.everywhere => Err(unknown()),
            _ => Ok(()),
        }
    }

    /// Whether a pause keeps every agent from acting for it.
    pub(super) fn is_held_up(&self, f: &Fence) -> bool {
        self.check_not_paused(f).is_err()
    }

    /// During a pause no fence order is issued, but for an operator's own.
    fn check_not_paused(&self, f: &Fence) -> Result<(), Refusal> {
        if self.incidents.get(&f.incident).is_some_and(|i| i.kind == IncidentKind::Fencing) {
            return Ok(());
        }
        let paused = |name: &&ServiceName| self.services.get(*name).is_some_and(|s| s.paused);
        match f.epochs.keys().find(paused) {
            Some(service) => Err(Refusal::Paused { service: service.clone() }),
            None => Ok(()),
        }
    }

    fn check_lease_proves(&self, f: &Fence) -> Result<(), Refusal> {
        match self.lease_objection(f) {
            Some(why) => Err(Refusal::LeaseProvesNothing { node: f.target.clone(), why }),
            None => Ok(()),
        }
    }

    /// How one order ended. When all agents of the level succeeded and no `on` may be under way: confirmed.
    pub(super) fn order_done(
        &mut self,
        m: Moment,
        fence: FenceId,
        order: u32,
        run: AgentRun,
    ) -> Result<Event, Refusal> {
        let found = self.fences.get(&fence).ok_or(Refusal::UnknownFence { fence })?;
        let (incident, target) = (found.incident, found.target.clone());
        let Some(o) = found.order(order).filter(|o| o.is_running()).cloned() else {
            return Err(Refusal::FenceState { fence, state: "without that order running".to_owned() });
        };
        let succeeded = run.outcome == AgentOutcome::Succeeded;
        if o.agent.is_lease() && succeeded {
            self.check_lease_proves(found)?;
        }
        let f = self.fences.get_mut(&fence).expect("just seen");
        let run = AgentRun { output: bounds::cut(run.output), ..run };
        let failed = !succeeded && run.outcome != AgentOutcome::NotBegun;
        f.on_failed += u32::from(failed && o.action == AgentAction::On);
        if let Some(order) = f.order_mut(order) {
            order.state = OrderState::Done { run: run.clone() };
        }
        let ended = Happening::AgentEnded {
            fence,
            agent: o.agent,
            action: o.action,
            executor: o.executor,
            outcome: run.outcome,
            took_ms: run.took.as_millis() as u64,
            tries: run.tries,
            output: run.output,
        };
        self.record(incident, m, ended);
        let on_running = self.fences.values().any(|other| other.target == target && other.has_running(AgentAction::On));
        let confirmed = if on_running { None } else { self.level_confirmed(fence) };
        if let Some(level) = confirmed {
            self.confirm_level(m, fence, level);
        }
        Ok(Event::OrderEnded { fence, confirmed: confirmed.is_some() })
    }

    /// The level of which every agent has confirmed in the present round.
    fn level_confirmed(&self, fence: FenceId) -> Option<u32> {
        let f = &self.fences[&fence];
        let succeeded = |number: u32, agent: &AgentName| {
            f.orders.iter().any(|o| {
                &o.agent == agent
                    && o.action == AgentAction::Off
                    && o.level == Some(number)
                    && o.round == f.round
                    && o.has_succeeded()
            })
        };
        let mut levels = (0u32..).zip(&self.set().levels).filter(|_| f.state == FenceState::Open);
        let confirmed = levels.find(|(number, level)| {
            f.is_level_due(*number)
                && !f.struck.contains_key(number)
                && self.set().level_ends_epoch(level)
                && level.iter().all(|agent| succeeded(*number, agent))
        });
        confirmed.map(|(number, _)| number)
    }

    fn confirm_level(&mut self, m: Moment, fence: FenceId, level: u32) {
        let f = &self.fences[&fence];
        let (round, incident) = (f.round, f.incident);
        let agents = self.set().levels[level as usize].clone();
        let kinds = agents.iter().filter_map(|a| self.set().agents.get(a)).map(|a| a.kind).collect();
        let f = self.fences.get_mut(&fence).expect("just seen");
        f.state = FenceState::Confirmed;
        f.confirmed = Some(Confirmation::Level { level, round, kinds });
        end_wait(f);
        let names: Vec<_> = agents.iter().map(AgentName::as_str).collect();
        let how = format!("level {} ({})", level + 1, names.join(" and "));
        self.record(incident, m, Happening::FenceConfirmed { fence, how });
    }

    pub(super) fn next_level(
        &mut self,
        m: Moment,
        fence: FenceId,
        term: Term,
        level: u32,
        round: u32,
        why: String,
    ) -> Result<Event, Refusal> {
        if term != m.term {
            return Err(Refusal::OldTerm { based_on: term, term: m.term });
        }
        let levels = self.set().levels.len() as u32;
        let f = self.fence_in(fence, &[FenceState::Open])?;
        if f.level != level || f.round != round {
            return Err(Refusal::OldLevel { fence });
        }
        let tried = |o: &&Order| o.round == round && o.level.is_some_and(|l| f.is_level_due(l));
        if f.orders.iter().filter(tried).any(Order::is_running) {
            return Err(Refusal::FenceState { fence, state: "still running an order of that level".to_owned() });
        }
        let incident = f.incident;
        self.advance_level(fence, levels);
        self.record(incident, m, Happening::LevelFailed { fence, level, round, why });
        Ok(Event::Noted)
    }

    fn advance_level(&mut self, fence: FenceId, levels: u32) {
        let f = self.fences.get_mut(&fence).expect("callers have seen it");
        f.level += 1;
        if f.level >= levels || f.tries_every_level() {
            f.level = 0;
            f.round += 1;
        }
    }

    pub(super) fn human_confirm(
        &mut self,
        m: Moment,
        incident: IncidentId,
        target: &NodeName,
        who: String,
        force: bool,
    ) -> Result<Event, Refusal> {
        let found = self
            .fences
            .values_mut()
            .find(|f| f.incident == incident && &f.target == target && f.state == FenceState::Open);
        let Some(f) = found else { return Err(Refusal::NotThatIncident { incident, node: target.clone() }) };
        f.state = FenceState::Confirmed;
        let fence = f.id;
        let how = format!("{who}, who vouches that {target} is off{}", if force { " (forced)" } else { "" });
        f.confirmed = Some(Confirmation::Human { who, force });
        end_wait(f);
        self.record(incident, m, Happening::FenceConfirmed { fence, how });
        Ok(Event::Confirmed { fence })
    }

    /// S9: signs of life contradict a confirmed fence. The next level is tried. An appointment that already rests on
    /// it stands, and is never taken back by this; then every level is tried at once, in a round of its own.
    pub(super) fn refute(
        &mut self,
        m: Moment,
        fence: FenceId,
        (level, round, refuted): (Option<u32>, u32, u32),
        by: NodeName,
        (channel, what, struck): (ChannelName, String, Option<NodeName>),
    ) -> Result<Event, Refusal> {
        let levels = self.set().levels.len() as u32;
        let f = self.fence_in(fence, &[FenceState::Confirmed])?;
        let confirmed_at = match &f.confirmed {
            Some(Confirmation::Level { level, .. }) => Some(*level),
            _ => None,
        };
        if (confirmed_at, f.round, f.refuted) != (level, round, refuted) {
            return Err(Refusal::OldLevel { fence });
        }
        let incident = f.incident;
        let by_lease = f.confirmed.as_ref().is_some_and(Confirmation::is_by_lease);
        let f = self.fence_mut(fence)?;
        f.state = FenceState::Open;
        f.confirmed = None;
        f.refuted += 1;
        f.struck.extend(level.zip(struck));
        f.last_life = Some(channel.clone());
        if f.used {
            f.lease_refuted |= by_lease;
            f.all_levels_from.get_or_insert(f.round + 1);
            self.advance_level(fence, levels);
        } else if level.is_some() {
            self.advance_level(fence, levels);
        }
        self.record(incident, m, Happening::FenceRefuted { fence, by, channel, what });
        Ok(Event::Refuted { fence })
    }

    pub(super) fn lift(&mut self, m: Moment, fence: FenceId, who: String, power_on: bool) -> Result<Event, Refusal> {
        if power_on && self.may_lift_again(fence) {
            return self.lift_again(m, fence, who);
        }
        let f = self.fence_in(fence, &[FenceState::Open, FenceState::Confirmed, FenceState::Void])?;
        // Of one that is void, and for which nothing was done, there is nothing to undo.
        let hangs = match f.state {
            FenceState::Void if f.is_untouched() => BTreeMap::new(),
            _ => self.epochs_of(&f.target, &f.boot),
        };
        if let Some((service, epoch)) = hangs.into_iter().next() {
            return Err(Refusal::EpochNotOver { service, epoch });
        }
        let f = self.fence_mut(fence)?;
        f.state = FenceState::Lifting;
        f.confirmed = None;
        end_wait(f);
        // Power is given back where the policy or the operator wants it.
        f.stays_off = !power_on;
        let incident = f.incident;
        self.record(incident, m, Happening::FenceLifting { fence, who });
        Ok(Event::Noted)
    }

    /// The fence is lifted or closed, may have switched its node off, and no later boot of the node has joined. No other
    /// fence of the node is open. Whether it has power the ledger cannot know: a person sees it.
    pub fn may_lift_again(&self, fence: FenceId) -> bool {
        let Some(f) = self.fences.get(&fence) else { return false };
        let lifted = matches!(f.state, FenceState::Lifting | FenceState::Closed);
        let off = |o: &Order| o.action == AgentAction::Off && o.was_begun() && !o.agent.is_lease();
        let same_boot = self.nodes.get(&f.target).is_some_and(|n| n.boot == f.boot);
        let others = self.fences.values().any(|other| other.target == f.target && other.id != f.id && other.is_open());
        lifted && same_boot && !others && f.orders.iter().any(off)
    }

    /// A person wants the power on, and sees that it is not: whatever an agent said before, `on` is ordered again.
    fn lift_again(&mut self, m: Moment, fence: FenceId, who: String) -> Result<Event, Refusal> {
        let Some(f) = self.fences.get_mut(&fence) else { return Err(Refusal::UnknownFence { fence }) };
        f.state = FenceState::Lifting;
        f.stays_off = false;
        if !f.has_running(AgentAction::On) {
            f.without_power_at = f.next_order();
            f.on_failed = 0;
        }
        let incident = f.incident;
        self.record(incident, m, Happening::FenceLifting { fence, who });
        Ok(Event::Noted)
    }

    pub(super) fn close_fence(&mut self, m: Moment, fence: FenceId) -> Result<Event, Refusal> {
        let f = self.fence_in(fence, &[FenceState::Lifting, FenceState::Void])?;
        if !f.assisted.is_empty() || f.orders.iter().any(Order::is_running) {
            return Err(Refusal::FenceState { fence, state: "not yet undone everywhere".to_owned() });
        }
        let incident = f.incident;
        self.fence_mut(fence)?.state = FenceState::Closed;
        self.record(incident, m, Happening::FenceClosed { fence });
        let i = self.incidents.get_mut(&incident);
        if let Some(i) = i.filter(|i| i.outcome == Outcome::Open && i.services.is_empty()) {
            i.outcome = Outcome::Ended { why: "the fence was lifted".to_owned() };
        }
        Ok(Event::Noted)
    }

    pub(super) fn void_fence(&mut self, m: Moment, fence: FenceId, why: &str) {
        let Some(f) = self.fences.get_mut(&fence) else { return };
        f.state = FenceState::Void;
        f.confirmed = None;
        end_wait(f);
        let incident = f.incident;
        self.record(incident, m, Happening::FenceVoid { fence, why: why.to_owned() });
    }

    /// A fence whose epochs have all ended otherwise is not needed any more.
    pub(super) fn void_fences_without_epochs(&mut self, m: Moment, node: &NodeName, why: &str) {
        let idle: Vec<_> = self
            .fences
            .values()
            .filter(|f| &f.target == node && matches!(f.state, FenceState::Open | FenceState::Confirmed))
            .filter(|f| !f.epochs.is_empty() && self.epochs_of(&f.target, &f.boot).is_empty())
            .map(|f| f.id)
            .collect();
        for id in idle {
            self.void_fence(m, id, why);
        }
    }
}

/// The same run of the same agent was ordered before. What failed on one voter may be ordered of another.
fn ordered_already(f: &Fence, level: Option<u32>, round: u32, new: &NewOrder) -> bool {
    let mut same = f.orders.iter().filter(|o| o.was_begun() && o.level == level && o.round == round);
    let is_over = |o: &Order| level.is_some() && !o.is_running() && !o.has_succeeded() && o.executor != new.executor;
    same.any(|o| o.agent == new.agent && o.action == new.action && !is_over(o))
}

/// Nobody waits for the lease any more. The wait does nothing by itself, so that it cannot act late: an order of it left
/// running would bar the node for ever.
fn end_wait(f: &mut Fence) {
    let output = "the fence is not needed any more".to_owned();
    let run = AgentRun { outcome: AgentOutcome::NotRun, tries: 0, took: std::time::Duration::ZERO, output };
    for order in f.orders.iter_mut().filter(|o| o.agent.is_lease() && o.is_running()) {
        order.state = OrderState::Done { run: run.clone() };
    }
}
