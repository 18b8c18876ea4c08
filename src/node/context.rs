//! What every part of a node may look at: who it is, what its files say, its copy of the ledger, and who leads; all as
//! of one moment. Parts read it; only the node itself brings it up to date.
//!
//! Not here: what one part knows and the others do not.

use super::Start;
use crate::config::Config;
use crate::ledger::{Holder, Phase, Service, State};
use crate::plan::Timing;
use crate::plan::goal::Me;
use crate::types::{Incarnation, Instant, Leaving, NodeName, Term};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(super) struct Context {
    pub config: Arc<Config>,
    pub timing: Timing,
    pub start: Start,
    /// Of the event that is being handled. It never goes back.
    pub now: Instant,
    /// `None` before the join.
    pub incarnation: Option<Incarnation>,
    pub state: Arc<State>,
    pub term: Term,
    pub leader: Option<NodeName>,
    /// The term in which this node leads, with a quorum behind it.
    pub leads: Option<Term>,
    /// This node leaves in order, and why.
    pub leaving: Option<Leaving>,
}

/// The way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Local,
    Leader(NodeName),
    Through(NodeName),
}

impl Context {
    pub fn new(config: Arc<Config>, start: Start, now: Instant) -> Self {
        Context {
            timing: Timing::new(&config),
            start,
            now,
            incarnation: None,
            state: Arc::default(),
            term: Term(0),
            leader: None,
            leads: None,
            leaving: None,
            config,
        }
    }

    /// Time passes; it never goes back.
    pub fn goes_on(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The file was read again: of what decides nothing has changed but the mark by which nodes compare their files.
    pub fn take_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// A newer copy of the ledger. Returns the one before.
    pub fn take_state(&mut self, state: Arc<State>) -> Arc<State> {
        std::mem::replace(&mut self.state, state)
    }

    /// Who leads in which term; `leads`: it is this node, with a quorum behind it.
    pub fn take_leadership(&mut self, term: Term, leader: Option<NodeName>, leads: bool) {
        (self.term, self.leader, self.leads) = (term, leader, leads.then_some(term));
    }

    /// This node leaves; once and for all in the life of this daemon. That its host goes down is the stronger word.
    pub fn take_leaving(&mut self, leaving: Leaving) {
        if self.leaving != Some(Leaving::HostGoesDown) {
            self.leaving = Some(leaving);
        }
    }

    /// The ledger issued an incarnation to this daemon, or the last one is over.
    pub fn take_incarnation(&mut self, incarnation: Option<Incarnation>) {
        self.incarnation = incarnation;
    }

    /// This node's name.
    pub fn me(&self) -> NodeName {
        self.config.node.clone()
    }

    /// Who this node is, to the ledger.
    pub fn identity(&self) -> Me<'_> {
        Me { node: &self.config.node, boot: &self.start.boot, incarnation: self.incarnation }
    }

    /// Whether this very incarnation holds it.
    pub fn is_mine(&self, holder: &Holder) -> bool {
        holder.node == self.config.node && Some(holder.incarnation) == self.incarnation
    }

    /// Whether this node is the installed primary of the service.
    pub fn is_primary_of(&self, service: &Service) -> bool {
        service.phase == Phase::Installed && service.holder.as_ref().is_some_and(|h| h.node == self.config.node)
    }

    /// The time that a stop at the end of a lease may need.
    pub fn stop_time(&self) -> Duration {
        self.state.lease_ladder(&self.config.lease).whole()
    }

    /// Whether this copy of the ledger has this daemon's own join: what it shows before is older than the daemon.
    pub fn has_applied_its_join(&self) -> bool {
        let own = self.state.nodes.get(&self.config.node).map(|n| n.incarnation);
        self.incarnation.is_some_and(|mine| own.is_some_and(|own| own >= mine))
    }

    /// To the leader; every second try after a failure through another voter, which may still reach it. `failures`: of
    /// this very thing in a row. `None` where nobody is known to ask.
    pub fn route(&self, failures: u32) -> Option<Route> {
        if self.leads.is_some() {
            return Some(Route::Local);
        }
        let others = || self.config.nodes.keys().filter(|n| **n != self.config.node);
        let turn = failures as usize;
        match &self.leader {
            Some(leader) if *leader == self.config.node => None,
            Some(leader) if turn.is_multiple_of(2) => Some(Route::Leader(leader.clone())),
            Some(leader) => {
                let through: Vec<_> = others().filter(|n| *n != leader).collect();
                through.get(turn / 2 % through.len().max(1)).map(|n| Route::Through((*n).clone()))
            }
            None => {
                let all: Vec<_> = others().collect();
                all.get(turn % all.len().max(1)).map(|n| Route::Leader((*n).clone()))
            }
        }
    }
}
