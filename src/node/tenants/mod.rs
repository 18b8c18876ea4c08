//! The local databases: the keeper of each service, what it does at present, and what the guard was told of its lease.
//! `keeping.rs` has the steps and what comes back from the database, `leases.rs` the holder's side of the leases,
//! `claims.rs` what an earlier daemon of this boot left, and what is claimed of it.
//!
//! Not here: any decision (`plan::keeper`), who grants leases (`node/leading.rs`), and the watchdog, which
//! is told here as far as it matters.

mod claims;
mod keeping;
mod leases;

use super::context::Context;
use super::desk::Desk;
use super::{HELD_OPEN, Start};
use crate::config::{Config, Role};
use crate::ledger::{Shared, State};
use crate::plan::Row;
use crate::plan::keeper::{Found, Input, Keeper, Kept, Moment, Step};
use crate::types::{CopyHealth, Epoch, Failing, Instant, NodeName, Released, ServiceHealth, ServiceName, Trouble};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where it does not matter what others say of their databases.
static NOBODY_HEARD: BTreeMap<NodeName, Row> = BTreeMap::new();

/// See the module.
#[derive(Debug)]
pub(super) struct Tenants {
    keepers: BTreeMap<ServiceName, Keeper>,
    /// The names of these, which never change.
    served: Arc<[ServiceName]>,
    /// What each keeper does and waits for.
    keeping: BTreeMap<ServiceName, Step>,
    /// The leases that earlier daemons of this boot kept, as far as the guard was not told otherwise.
    earlier: BTreeMap<ServiceName, (Epoch, Instant)>,
    /// What the guard was told last.
    kept: BTreeMap<ServiceName, (Epoch, Instant)>,
    /// What it could not be told, why, and when that is tried again.
    unkept: BTreeMap<ServiceName, (String, Instant)>,
}

impl Tenants {
    /// A daemon starts.
    pub fn found(config: &Config, start: &Start, now: Instant) -> Self {
        let keeps_databases = config.me().role == Role::Database;
        let served: Arc<[_]> = config.services.keys().filter(|_| keeps_databases).cloned().collect();
        let kept = |(epoch, until): (Epoch, Instant)| {
            let held_open = until.0.checked_sub(HELD_OPEN.0);
            let until = if held_open.is_some() { now } else { until };
            Kept { epoch, until, held_open, renew: config.lease.renew }
        };
        let keeper = |name: &ServiceName| {
            let kept = start.kept.get(name).copied().map(kept);
            Keeper::found(Found { kept, said: start.tombstones.get(name).cloned() })
        };
        Tenants {
            keepers: served.iter().map(|name| (name.clone(), keeper(name))).collect(),
            served,
            keeping: BTreeMap::new(),
            earlier: start.kept.clone(),
            kept: BTreeMap::new(),
            unkept: BTreeMap::new(),
        }
    }

    /// The names of the services whose databases are here.
    pub fn served(&self) -> Arc<[ServiceName]> {
        self.served.clone()
    }

    /// The keeper of each service.
    pub fn keepers(&self) -> &BTreeMap<ServiceName, Keeper> {
        &self.keepers
    }

    /// What each keeper does and waits for.
    pub fn keeping(&self) -> &BTreeMap<ServiceName, Step> {
        &self.keeping
    }

    /// What the keeper of this service looks at, but for the watchdog and the other nodes.
    pub fn input<'a>(&'a self, context: &'a Context, name: &ServiceName) -> Option<Input<'a>> {
        let (name, keeper) = self.keepers.get_key_value(name)?;
        Some(Input {
            now: context.now,
            me: context.identity(),
            state: &context.state,
            name,
            config: &context.config,
            keeper,
            rows: &NOBODY_HEARD,
            unguarded: None,
            moves: 0,
            leaving: context.leaving,
            heir: None,
        })
    }

    /// The same of every service.
    pub fn inputs<'a>(&'a self, context: &'a Context) -> impl Iterator<Item = Input<'a>> {
        self.served.iter().filter_map(|name| self.input(context, name))
    }

    /// A newer ledger, while `context` still has the one before: what it says of the services.
    pub fn ledger_moved(&mut self, desk: &mut Desk, state: &State) {
        for (name, service) in &state.services {
            let before = desk.context.state.services.get(name);
            let (is_new, was_paused) =
                (before.is_none_or(|b| b.epoch != service.epoch), before.is_some_and(|b| b.paused));
            if is_new && let Some(keeper) = self.keepers.get_mut(name) {
                keeper.epoch_began(service.holder.as_ref().map(|h| &h.node), desk.context.now);
            }
            if let Some(settings) = &state.settings {
                self.resumed_unseen(desk, name, (service, state.resumes), settings.lease_use());
            }
            if !service.paused
                && was_paused
                && let Some(keeper) = self.keepers.get_mut(name)
            {
                keeper.pause_ended(desk.context.now);
            }
            // Only a pause that this daemon itself saw end as the holder: an earlier one may have asked for a lease since.
            if !service.paused
                && was_paused
                && service.holder.as_ref().is_some_and(|h| desk.context.is_mine(h))
                && let Some(keeper) = self.keepers.get_mut(name)
            {
                keeper.resumed(desk.context.now);
            }
        }
    }

    /// The nodes from which the local databases stream.
    pub fn upstreams(&self) -> impl Iterator<Item = &NodeName> + Clone {
        self.keepers.values().filter_map(|keeper| keeper.seen().streams_from.as_ref())
    }

    /// What the heartbeat says of each database.
    pub fn health(&self, context: &Context) -> BTreeMap<ServiceName, ServiceHealth> {
        let now = context.now;
        let health = |name: &ServiceName, keeper: &Keeper| {
            let seen = keeper.seen();
            ServiceHealth {
                state: seen.state,
                writable: seen.writable,
                holds: keeper.lease().filter(|l| l.is_valid(now)).map(|l| l.epoch()),
                timeline: seen.position.timeline,
                position: seen.position,
                streams_from: seen.streams_from.clone(),
                network: seen.network,
                released: released(context, name, keeper),
                copy: copy(keeper),
                replay: seen.replay,
                trouble: seen.trouble.as_ref().map(Trouble::brief),
                file_fault: seen.files.fault.clone(),
                pending_restart: seen.files.pending_restart.clone(),
                lowered: seen.files.lowered.clone(),
                unfit: seen.unfit.clone(),
            }
        };
        self.keepers.iter().map(|(name, keeper)| (name.clone(), health(name, keeper))).collect()
    }

    /// What must be done here for safety and cannot be done at present, and why.
    pub fn failing(&self) -> impl Iterator<Item = (Failing, String)> {
        let unsaid = self.keepers.values().find_map(|keeper| Some(keeper.unsaid()?.0.to_owned()));
        let unkept = self.unkept.values().next().map(|(why, _)| why.clone());
        let all = [unsaid.map(|why| (Failing::FinalWord, why)), unkept.map(|why| (Failing::LeaseFile, why))];
        all.into_iter().flatten()
    }

    /// When something of them is due.
    pub fn due(&self, context: &Context) -> impl Iterator<Item = Instant> {
        let keepers = self.keepers.iter();
        let keepers = keepers.filter_map(|(name, k)| k.due(context.now, &context.config, name, &context.state));
        keepers.chain(self.unkept.values().map(|(_, at)| *at))
    }
}

/// Its final word; why is told until the ledger has it, because a heartbeat has little room.
fn released(context: &Context, name: &ServiceName, keeper: &Keeper) -> Option<Released> {
    let mut word = keeper.released()?.clone();
    let service = context.state.services.get(name);
    if service.is_none_or(|s| s.epoch != word.epoch || s.over.is_some()) {
        word.why.clear();
    }
    Some(word)
}

/// What others are told of its copy.
fn copy(keeper: &Keeper) -> Option<CopyHealth> {
    let failed = keeper.failed_copy().map(|failed| CopyHealth::Failed(failed.tries));
    keeper.seen().copy.map(CopyHealth::UnderWay).or(failed)
}

/// The moment of an event of this service.
fn moment<'a>(context: &'a Context, name: &ServiceName) -> Moment<'a> {
    Moment::of(context.now, context.state.services.get(name).map(Shared::get))
}
