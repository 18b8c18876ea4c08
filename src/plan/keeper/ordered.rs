//! A restart that a person ordered: the database stops in order and is started again, a standby as a standby, and the
//! primary under its epoch and lease, which is renewed all the while. It is no crash and no failure, and counts as none.
//! What cannot be started after it is treated like whatever died (`crash.rs`, `release.rs`).
//!
//! A daemon that ends meanwhile leaves the order in the ledger. The next one starts what is down, which carries the order
//! out; where the database runs, nobody knows since when, and it is restarted once more.
//! Not here: who is restarted when (the ledger's orders stand one after another).

use super::{Input, Keeper, Step};
use crate::ledger::Service;
use crate::types::{DbAction, DbState};

/// How far the order of that number is, as far as this daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    pub number: u64,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Stops,
    Starts,
    /// A start after it failed: others follow.
    Failed,
    /// The ledger has to hear it.
    Done,
}

/// What this daemon does about it.
impl Keeper {
    /// It is stopped because a person ordered its restart.
    pub fn stops_on_order(&mut self, number: u64) {
        self.ordered = Some(Ordered { number, stage: Stage::Stops });
    }

    /// A start that begins while such an order stands carries it out.
    pub fn starts_on_order(&mut self, number: u64) {
        let known = self.ordered.filter(|ordered| ordered.number == number && ordered.stage != Stage::Stops);
        self.ordered = known.or(Some(Ordered { number, stage: Stage::Starts }));
    }

    /// The start that begins, or runs, carries it out.
    pub(super) fn starts_as_ordered(&self) -> bool {
        self.ordered.is_some_and(|ordered| ordered.stage == Stage::Starts)
    }

    /// A start came to an end: done, or failed.
    pub(super) fn start_ended(&mut self, stage: Stage) {
        let started = self.ordered.iter_mut().filter(|o| matches!(o.stage, Stage::Starts | Stage::Failed));
        started.for_each(|ordered| ordered.stage = stage);
    }
}

impl Input<'_> {
    /// The number of the order that stands for this node, and how far it is.
    fn ordered(&self, s: &Service) -> Option<(u64, Option<Stage>)> {
        let number = s.restart_of(self.me.node)?.number;
        let known = self.keeper.ordered.filter(|ordered| ordered.number == number);
        Some((number, known.map(|ordered| ordered.stage)))
    }

    /// Whether it is being stopped for that: its lease is renewed, as it comes back under it.
    pub(super) fn stops_on_order(&self) -> bool {
        let stage = self.service().and_then(|s| self.ordered(s)).and_then(|(_, stage)| stage);
        stage == Some(Stage::Stops)
    }
}

/// The next step for a database that runs, where a person ordered its restart.
pub(super) fn due(input: &Input, s: &Service) -> Option<Step> {
    let (number, stage) = input.ordered(s)?;
    let open = input.keeper.seen.state == DbState::Primary;
    Some(match stage {
        Some(Stage::Done) => Step::Restarted { order: number },
        // While it still takes writes: the stop is short then.
        _ if open && !input.keeper.in_epoch.checkpointed => Step::Db(DbAction::Checkpoint),
        _ => Step::StopToRestart { ladder: input.planned_ladder(), order: number },
    })
}

/// Whether it is down because of the order, and for nothing else: neither a crash nor a failure.
pub(super) fn is_down(input: &Input, s: &Service) -> bool {
    let down = input.keeper.seen.state == DbState::Stopped && input.keeper.seen.clean;
    down && input.ordered(s).is_some_and(|(_, stage)| stage != Some(Stage::Failed))
}

/// Whether this very daemon has taken it down: it comes back in a pause that began meanwhile, too.
pub(super) fn comes_back(input: &Input, step: &Step) -> bool {
    let starts = matches!(step, Step::Db(DbAction::StartPrimary { .. } | DbAction::StartStandby { .. }));
    let stage = input.service().and_then(|s| input.ordered(s)).and_then(|(_, stage)| stage);
    starts && matches!(stage, Some(Stage::Stops | Stage::Starts))
}
