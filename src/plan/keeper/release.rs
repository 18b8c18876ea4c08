//! The reasons for which a holder cannot or must not go on under its epoch, and gives it back. The first that fits is said.
//!
//! Not here: how it gives it back (`table.rs`), and the sentences (`reason.rs`).

use super::{Input, Keeper, crash, ordered, starting, trouble};
use crate::config::{Config, OnCrash, timing};
use crate::ledger::{Phase, Service};
use crate::plan::Row;
use crate::plan::reason::GiveUp;
use crate::types::{DbState, Epoch, NodeName, Trouble};
use std::time::Duration;

/// Why this node cannot or must not go on under the epoch that it holds.
pub(super) fn reason(input: &Input, s: &Service) -> Option<GiveUp> {
    let (keeper, known) = (input.keeper, &input.keeper.in_epoch);
    let leaves = input.leaving.filter(|_| !s.paused).map(GiveUp::Leaves);
    if s.moving.is_some() {
        return Some(leaves.unwrap_or(GiveUp::Switchover));
    }
    if let Some(why) = given_up_already(input) {
        return Some(why);
    }
    if s.paused || leaves.is_some() {
        return leaves;
    }
    let down = keeper.seen.state == DbState::Stopped;
    let died = down && !ordered::is_down(input, s);
    if died && leaves_after_a_crash(input, s) {
        return Some(GiveUp::Died);
    }
    if let Some(why) = crash::give_up(input, s).or_else(|| trouble::give_up(input, s)) {
        return Some(why);
    }
    let used_up = keeper.restarts.epoch == s.epoch && restarts(input) >= input.settings().max_restarts as usize;
    if let Some(why) = crash::keeps_dying(input, s).filter(|_| died && used_up) {
        return Some(why);
    }
    if down && has_lapsed(input, s.epoch) {
        return Some(GiveUp::Lapsed);
    }
    if s.phase == Phase::Installed && is_heard_though_deaf(input) {
        return Some(GiveUp::Deaf);
    }
    // Without it there is no lease, so it can neither take over nor, once its lease has ended, go on.
    let closed = !matches!(keeper.seen.state, DbState::Primary | DbState::Unclear);
    if let Some((why, 2..)) = input.unguarded.filter(|_| closed && !input.may_write(Duration::ZERO)) {
        return Some(GiveUp::Unguarded { why: why.to_owned() });
    }
    if keeper.guard_waits && closed && known.resumed_at.is_some() && !input.just_resumed() {
        return Some(GiveUp::GuardWaits);
    }
    if is_gone(keeper, s) {
        return Some(GiveUp::DirectoryGone);
    }
    let recovers = keeper.seen.state == DbState::Standby || (down && keeper.seen.starts_in_recovery);
    if recovers && matches!(s.phase, Phase::Creating | Phase::Installed) {
        return Some(GiveUp::InRecovery);
    }
    // It tried twice, and recovery goes on: it can say so before the deadline, and its word is final.
    let failed = known.promotions_failed >= 2 && matches!(keeper.seen.state, DbState::Standby | DbState::Stopped);
    if failed && s.phase != Phase::Installed {
        return Some(GiveUp::NotPromoted { error: known.last_error.clone() });
    }
    // Another node may have room for it.
    let empty = matches!(keeper.seen.state, DbState::Absent | DbState::Unstartable);
    if s.phase == Phase::Creating && known.creations_failed >= 2 && empty {
        return Some(GiveUp::NotMade { error: known.last_error.clone() });
    }
    // A start has limits of its own; what is left of the deadline counts again once it has come to an answer.
    if let Some(why) = starting::give_up(input) {
        return Some(why);
    }
    let deadline = match s.phase {
        // As a start does, initdb takes its time.
        Phase::Creating => input.settings().start_timeout,
        _ => input.config.failover.install,
    };
    let late = !starting::is_under_way(input) && known.install_since.is_some_and(|at| input.now.since(at) > deadline);
    (s.phase != Phase::Installed && late && !takes_writes(keeper)).then(|| match s.phase {
        Phase::Creating => GiveUp::NotMade { error: Some("it took longer than start_timeout".to_owned()) },
        _ => GiveUp::Late,
    })
}

/// A primary that died under its epoch is not started again where the file says so and the service may move.
fn leaves_after_a_crash(input: &Input, s: &Service) -> bool {
    let crashed = input.keeper.started_as_primary && s.phase == Phase::Installed;
    crashed && input.settings().on_crash == OnCrash::Failover && crash::may_move(input)
}

/// It was given up already, whatever the reason has become since.
fn given_up_already(input: &Input) -> Option<GiveUp> {
    let known = &input.keeper.in_epoch;
    let unsaid = known.tombstone_failed.as_ref().map(|(why, _)| GiveUp::Unsaid { why: why.clone() });
    unsaid.or_else(|| known.given_up.clone())
}

/// One that is out of recovery has taken over, whenever that is told: clients may write while regent's own probe cannot.
/// Only where its volume takes no write at all there is nothing that they could have written.
fn takes_writes(keeper: &Keeper) -> bool {
    let dead_volume = keeper.seen.trouble.as_ref().is_some_and(Trouble::is_of_the_volume);
    keeper.seen.state == DbState::Primary && !dead_volume
}

/// How often it was started again in the time that counts.
pub(super) fn restarts(input: &Input) -> usize {
    let window = input.settings().restart_window;
    input.keeper.restarts.began.iter().filter(|at| input.now.since(**at) < window).count()
}

/// While it is being made there is nothing yet, unless it was opened under this very epoch: this copy of the ledger may
/// be late, and others have what was written.
fn is_gone(keeper: &Keeper, s: &Service) -> bool {
    let made = s.phase != Phase::Creating || keeper.restarts.epoch == s.epoch;
    matches!(keeper.seen.state, DbState::Absent | DbState::Unstartable) && made
}

/// So long after this node has noticed that it is deaf, others have noticed as much of a network that failed for all.
pub(super) fn noticing(config: &Config) -> Duration {
    config.detector.interval * 2
}

/// This node hears no other on any network, and reads on the disk that enough others for a majority hear it there: its
/// renewals get to them, and no answer gets here. They need its word, and do not have to wait for the end of its lease.
/// What they say counts once they have had the time to notice what this node has noticed: where the network failed for
/// all, nobody could take over.
fn is_heard_though_deaf(input: &Input) -> bool {
    let Some(since) = input.keeper.deaf_since else { return false };
    let noticed = since + noticing(input.config);
    let present = |node: &NodeName, row: &Row| input.state.present(node, row.incarnation).is_some();
    let hears = |(node, row): &(&NodeName, &Row)| row.at >= noticed && present(node, row) && row.hears(input.me.node);
    let hearing = input.rows.iter().filter(|(node, _)| *node != input.me.node).filter(hears);
    input.state.is_majority(hearing.map(|(node, _)| node))
}

/// The lease of this epoch is over, and those who could renew it have been there for long enough to elect a leader and
/// to be asked: this node does not reach them. Its silence could only be fenced; the final word lets the service move,
/// out of the disk slot too. While there is no quorum anywhere it keeps the epoch: nobody could move the service, and
/// what it wrote last is here alone. One that hears nobody on any network cannot know of a quorum: the leader's counts,
/// which turns the word into the release. Where the network failed for all, this node is preferred when it is back.
fn has_lapsed(input: &Input, epoch: Epoch) -> bool {
    let ended = input.keeper.lease_of(epoch).and_then(|l| l.until());
    let chance = timing::bounds(input.config).election_worst + input.config.lease.renew;
    if input.keeper.deaf_since.is_some() {
        return ended.is_some_and(|until| input.now + input.stop_time() >= until);
    }
    ended.is_some_and(|until| input.now >= until)
        && input.keeper.quorum_elsewhere_since.is_some_and(|at| input.now >= at + chance)
}
