//! Joining through the ledger: before its first heartbeat a node has made sure that no local database is writable, or
//! has adopted a still valid lease of the same boot. A node that learns that its incarnation is dead joins again.

use super::{Effect, HELD_OPEN, Node, Said, Start};
use crate::config::Config;
use crate::lease;
use crate::ledger::{Claim, ClaimState, Command, Life, Service};
use crate::plan::keeper::Local;
use crate::types::{DbState, Epoch, Instant, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The local database as a starting daemon knows it.
pub(super) fn local(config: &Config, start: &Start, name: &ServiceName, now: Instant) -> Local {
    let tombstone = start.tombstones.get(name);
    let kept = start.kept.get(name);
    // After a final word nothing is held: where the lease file could not be cleared, it is older than that.
    let leased = kept.filter(|(epoch, _)| tombstone.is_none_or(|said| said.epoch < *epoch));
    // One that a pause held open says that the database may run while the pause lasts, not until when, so as a lease it
    // counts as ended.
    let held_open = leased.is_some_and(|(_, until)| *until >= HELD_OPEN);
    let until = |until: Instant| if held_open { now } else { until };
    Local {
        lease: leased.map(|(epoch, end)| lease::Holder::adopt(*epoch, config.lease.renew, until(*end))),
        held_open,
        guard_waits: kept.is_some_and(|(_, until)| *until >= HELD_OPEN),
        held_after: leased.map_or(0, |(_, until)| until.0.saturating_sub(HELD_OPEN.0)),
        // A lease was kept before its database was opened, and before a promotion was begun, which may go on still.
        started_as_primary: kept.is_some(),
        restarts_in: leased.map_or(Epoch(0), |(epoch, _)| *epoch),
        tombstone: tombstone.map_or(Epoch(0), |r| r.epoch),
        released: tombstone.copied(),
        ..Local::default()
    }
}

impl Node {
    /// Whether an earlier daemon's lease of this epoch can be adopted: its database runs on under it, or is being
    /// promoted. What the ledger has against it (a verdict, a fence, another epoch) the ledger itself checks.
    fn adoptable(&self, name: &ServiceName, epoch: Epoch) -> bool {
        let Some(input) = self.keeper_input(name) else { return false };
        let lease = input.local.lease.as_ref();
        let running = matches!(input.local.seen.state, DbState::Primary | DbState::Standby) && input.could_commit();
        running && lease.is_some_and(|l| l.epoch() == epoch) && input.awaits_adoption()
    }

    /// The epoch of a lease that an earlier daemon kept and under which the database runs on, while this copy of the ledger
    /// may be of before that epoch.
    fn adoptable_as_kept(&self, name: &ServiceName) -> Option<Epoch> {
        let input = self.keeper_input(name).filter(|_| !self.reading.was_current())?;
        let running = matches!(input.local.seen.state, DbState::Primary | DbState::Standby) && input.could_commit();
        let lease = input.local.lease.as_ref().filter(|_| running && input.runs_on_kept(input.stop_time()))?;
        Some(lease.epoch())
    }

    /// What is claimed before this node knows the ledger: only where every database runs on under a kept lease. The
    /// ledger refuses it if there is more to be said.
    fn early_claims(&self) -> Option<BTreeMap<ServiceName, Claim>> {
        let mut claims = BTreeMap::new();
        for (name, local) in &self.databases {
            let epoch = local.lease.as_ref()?.epoch();
            if !self.adoptable(name, epoch) {
                return None;
            }
            claims.insert(name.clone(), Claim { epoch, state: ClaimState::Adopted });
        }
        (!claims.is_empty()).then_some(claims)
    }

    /// Notices that this incarnation is over, and joins when it may.
    pub(super) fn join(&mut self) {
        let record = self.context.state.nodes.get(&self.context.config.node);
        if let (Some(mine), Some(record)) = (self.context.incarnation, record)
            && (record.incarnation > mine || (record.incarnation == mine && record.life == Life::Dead))
        {
            self.mail.say(Said::IncarnationOver(mine));
            self.context.incarnation = None;
            self.join_request = self.context.now.0.max(self.join_request + 1);
            let now = self.context.now;
            for local in self.databases.values_mut() {
                local.lease.iter_mut().for_each(|l| l.drop_lease(now));
            }
        }
        if self.context.incarnation.is_some() {
            return;
        }
        // The clock of this boot is behind what the ledger has of it (a guest that was set back): later all the same.
        if let Some(record) =
            self.context.state.nodes.get(&self.context.config.node).filter(|r| r.boot == self.context.start.boot)
            && record.request > self.join_request
        {
            self.join_request = record.request + 1;
        }
        // The others wait for the first heartbeat: a lease that goes on is claimed before the log has been read.
        let claims = if self.context.state.settings.is_none() { self.early_claims() } else { self.claims() };
        let Some(claims) = claims else { return };
        self.propose(Command::Join {
            node: self.context.me(),
            boot: self.context.start.boot.clone(),
            request: self.join_request,
            machine: self.context.start.machine.clone(),
            claims,
        });
    }

    /// What became of each epoch that an earlier incarnation held; `None` while that is not settled.
    fn claims(&mut self) -> Option<BTreeMap<ServiceName, Claim>> {
        let (mut claims, mut settled) = (BTreeMap::new(), true);
        let names = self.served.clone();
        for name in names.iter() {
            let local = &self.databases[name];
            if local.seen.state == DbState::Unclear {
                return None;
            }
            let held = self
                .context
                .state
                .services
                .get(name)
                .filter(|s| s.over.is_none() && s.holder.as_ref().is_some_and(|h| h.node == self.context.config.node))
                .map(|s| s.epoch);
            // A copy that still catches up may not show yet what an earlier daemon of this boot holds: the ledger decides.
            let kept = self.adoptable_as_kept(name).filter(|epoch| held.is_none_or(|held| held < *epoch));
            if let Some(epoch) = kept {
                claims.insert(name.clone(), Claim { epoch, state: ClaimState::Adopted });
                continue;
            }
            let Some(epoch) = held else { continue };
            if self.adoptable(name, epoch) {
                claims.insert(name.clone(), Claim { epoch, state: ClaimState::Adopted });
                continue;
            }
            let ended = matches!(local.seen.state, DbState::Stopped | DbState::Absent | DbState::Unstartable);
            let opens = self.keeper_input(name).is_none_or(|input| input.could_commit());
            let closed = ended || (local.seen.state == DbState::Standby && !opens);
            if !closed || local.running.is_some() {
                return None;
            }
            if local.tombstone < epoch {
                let rests = local.tombstone_failed.as_ref().is_some_and(|(_, again_at)| self.context.now < *again_at);
                if !rests {
                    self.write_tombstone(name, epoch);
                }
                // One that cannot be written does not keep the others from being.
                settled = false;
                continue;
            }
            let position = local.released.filter(|r| r.epoch == epoch).and_then(|r| r.position);
            claims.insert(name.clone(), Claim { epoch, state: ClaimState::Over { position } });
        }
        settled.then_some(claims)
    }

    /// Once its own join is applied, the ledger says whether a pause stands.
    pub(super) fn take_up_what_was_held_open(&mut self) {
        if self.context.has_applied_its_join() {
            self.reading.note_own_join();
            self.databases.values_mut().for_each(|local| local.held_open = false);
        }
    }

    /// This copy of the ledger, however old, shows that the pause ended which held a lease open. That leaves one lease time
    /// to join and to renew: nothing can be concluded from that lease before. It is written down, so that a daemon that
    /// starts again and again does not begin to count anew.
    pub(super) fn end_of_what_was_held_open(&mut self, name: &ServiceName, service: &Service, lease_use: Duration) {
        let (now, renew) = (self.context.now, self.context.config.lease.renew);
        let Some(local) = self.databases.get_mut(name).filter(|l| l.held_open) else { return };
        let epoch = local.lease.as_ref().map(lease::Holder::epoch);
        let ended = service.unproven_resume.is_some_and(|n| n > local.held_after);
        let Some(epoch) = epoch.filter(|epoch| ended && *epoch == service.epoch && !service.paused) else { return };
        local.held_open = false;
        local.lease = Some(lease::Holder::adopt(epoch, renew, now + lease_use));
        local.resumed_at = Some(now);
        self.kept.insert(name.clone(), (epoch, now + lease_use));
        self.mail.push(Effect::KeepLease { service: name.clone(), epoch, until: Some(now + lease_use) });
    }

    /// What is stopped is held open by no pause any more, so that the guard kills what the stop does not end.
    pub(super) fn end_what_a_pause_held_open(&mut self, name: &ServiceName) {
        let Some(local) = self.databases.get(name).filter(|local| local.guard_waits) else { return };
        if self.kept.get(name).is_some_and(|(_, until)| *until < HELD_OPEN) {
            // On its way already; nor may each try of a stop that fails move the end.
            return;
        }
        let kept = self.kept.get(name).or(self.context.start.kept.get(name)).map(|(epoch, _)| *epoch);
        let Some(epoch) = kept.or(local.lease.as_ref().map(lease::Holder::epoch)) else { return };
        let grace = self.keeper_input(name).and_then(|input| input.resumed_until());
        let ladder = self.context.now + self.context.stop_time();
        let until = grace.map_or(ladder, |grace| ladder.min(grace.max(self.context.now)));
        self.kept.insert(name.clone(), (epoch, until));
        self.mail.push(Effect::KeepLease { service: name.clone(), epoch, until: Some(until) });
    }

    /// The ledger issued an incarnation.
    pub(super) fn joined(&mut self, incarnation: crate::types::Incarnation) {
        self.context.incarnation = Some(incarnation);
        let (boot, node) = (self.context.start.boot.clone(), self.context.me());
        self.mail.say(Said::Joined { node, incarnation, boot });
        self.beats.restart(self.context.now);
    }

    /// The right to write under an epoch is gone for good on this node; before the first join as well.
    pub(super) fn drop_kept(&mut self, name: &ServiceName, epoch: Epoch) {
        self.kept.remove(name);
        self.unkept.remove(name);
        if let Some(local) = self.databases.get_mut(name) {
            local.guard_waits = false;
        }
        self.mail.push(Effect::KeepLease { service: name.clone(), epoch, until: None });
    }
}
