//! This voter as a witness of fences: whether a confirmed fence holds, as far as it can hear (S9).
//!
//! Not here: the order to fence and its agents (`runs.rs`), and what the ledger concludes.

use super::PeerResponse;
use super::context::Context;
use super::peers::Peers;
use crate::known_bugs::{self, Bug};
use crate::ledger::{CheckAnswer, Fence, FenceState};
use crate::types::{ChannelName, FenceId, Heartbeat, HeartbeatBody, Instant, NodeName, PeerView, Sight, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What this voter hears of a fenced boot after it applied the confirmation.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    since: Instant,
    /// Channels on which the node was heard when the confirmation was applied, and those on which it was heard since:
    /// advances since, and when the last one came.
    beats: BTreeMap<ChannelName, (u32, Instant)>,
    refuted: Option<(ChannelName, String)>,
}

/// Two advances of a counter: one late disk write or a drained buffer is not a heartbeat.
const ADVANCES: u32 = 2;

/// A question whether a fence holds: which confirmation of it, of which leader, and when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub fence: FenceId,
    pub refuted: u32,
    pub term: Term,
    pub since: Instant,
}

/// The confirmations that this voter watches: by fence and refutations before.
#[derive(Debug, Default)]
pub(super) struct Witness {
    watches: BTreeMap<(FenceId, u32), Watch>,
    /// When this voter applied that each fence was opened.
    opened: BTreeMap<FenceId, Instant>,
}

impl Witness {
    pub fn is_watching(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Begins to watch each confirmation that this node has just applied.
    pub fn ledger_moved(&mut self, context: &Context, peers: &Peers) {
        let open = context.state.fences.values().filter(|f| f.is_open()).map(|f| f.id);
        let opened = open.map(|id| (id, self.opened.get(&id).copied().unwrap_or(context.now)));
        self.opened = opened.collect();
        let live: BTreeSet<_> = context
            .state
            .fences
            .values()
            .filter(|f| f.state == FenceState::Confirmed && f.target != context.config.node)
            .map(|f| (f.id, f.refuted))
            .collect();
        self.watches.retain(|key, _| live.contains(key));
        for key in live {
            if self.watches.contains_key(&key) {
                continue;
            }
            let beats = self.heard_on(context, peers, &context.state.fences[&key.0]);
            self.watches.insert(key, Watch { since: context.now, beats, refuted: None });
        }
    }

    /// The channels on which silence has still to be heard: where the node is heard, and where it was heard while it was
    /// fenced, until this voter's own end failed.
    fn heard_on(&self, context: &Context, peers: &Peers, fence: &Fence) -> BTreeMap<ChannelName, (u32, Instant)> {
        let view = peers.detector().views(context.now).remove(&fence.target).filter(|v| v.boot == fence.boot);
        let opened = self.opened.get(&fence.id).copied().unwrap_or(context.now);
        let silence = peers.silence(context.now, &fence.target);
        let silence = |channel: &ChannelName| silence.get(channel).map(|ms| Duration::from_millis(*ms));
        let channels = view.map(|v| v.channels).unwrap_or_default();
        let lost = channels.iter().filter(|(_, sight)| **sight == Sight::Lost);
        // A node sends on all channels at once: it fell silent where this voter can hear, and not later where it cannot.
        let fell_silent = lost.filter_map(|(channel, _)| silence(channel)).min();
        let lately = context.now.since(opened) + context.timing.recent;
        let is_later = |s: Duration| fell_silent.is_none_or(|fell_silent| s + context.timing.recent < fell_silent);
        let was_heard = |channel: &ChannelName| silence(channel).is_some_and(|s| s <= lately && is_later(s));
        let heard = channels.iter().filter(|(channel, sight)| match sight {
            Sight::Up => true,
            Sight::Blind => was_heard(channel),
            Sight::Lost => false,
        });
        heard.map(|(channel, _)| (channel.clone(), (0, context.now))).collect()
    }

    /// A heartbeat of any node: does it contradict a confirmed fence?
    pub fn heard(&mut self, context: &Context, channel: &ChannelName, at: Instant, heartbeat: &Heartbeat) {
        let Heartbeat { node, boot, body, .. } = heartbeat;
        for ((id, _), watch) in &mut self.watches {
            let Some(fence) = context.state.fences.get(id) else { continue };
            if &fence.target != node || &fence.boot != boot || at <= watch.since {
                continue;
            }
            let Some(confirmed) = &fence.confirmed else { continue };
            let (beats, last) = watch.beats.entry(channel.clone()).or_insert((0, at));
            (*beats, *last) = (*beats + 1, at);
            if *beats < ADVANCES || confirmed.is_forced() {
                continue;
            }
            let what = if confirmed.demands_silence() {
                Some(format!("{beats} heartbeats of boot {boot} after the confirmation"))
            } else {
                claims_to_write(fence, body.as_ref())
            };
            if let Some(what) = what {
                watch.refuted.get_or_insert((channel.clone(), what));
            }
        }
    }

    /// The answer to a check, once this voter has watched for as long as its detector needs.
    pub fn answer(
        &self,
        context: &Context,
        peers: &Peers,
        check: Check,
        view: impl FnOnce(&NodeName) -> Option<PeerView>,
    ) -> Option<PeerResponse> {
        let Check { fence, refuted, term, since } = check;
        if known_bugs::has(Bug::FenceDisabled) {
            return Some(PeerResponse::Check(CheckAnswer::Holds));
        }
        let known = context.state.fences.get(&fence);
        if term < context.term
            || known
                .is_some_and(|f| f.refuted > refuted || f.state != FenceState::Confirmed && f.state != FenceState::Open)
        {
            return Some(PeerResponse::Failed { why: "the fence has moved on".to_owned() });
        }
        let Some(watch) = self.watches.get(&(fence, refuted)) else {
            // Not applied here yet; the question runs out by itself.
            let late = context.now.since(since) > context.timing.detection * 4;
            return late
                .then(|| PeerResponse::Failed { why: "this voter has not applied the confirmation".to_owned() });
        };
        let record = known?;
        let believed = known_bugs::has(Bug::FenceBelieved);
        if let Some((channel, what)) = watch.refuted.as_ref().filter(|_| !believed) {
            let (channel, what) = (channel.clone(), what.clone());
            return Some(PeerResponse::Check(CheckAnswer::Refuted { channel, what }));
        }
        let forced = record.confirmed.as_ref().is_some_and(|c| c.is_forced());
        let view = view(&record.target).filter(|v| v.boot == record.boot);
        let silent = record.confirmed.as_ref().is_some_and(|c| c.demands_silence());
        if !forced && !silent && view.as_ref().is_some_and(|v| v.database_alive) {
            let what = "its database still feeds a standby here".to_owned();
            let channel = ChannelName::primary();
            return Some(PeerResponse::Check(CheckAnswer::Refuted { channel, what }));
        }
        // Where its own end has failed, this voter hears no silence. Once the lease is surely over it need not.
        let leased = context.state.lease_objection(record).is_some()
            || context.state.settings.as_ref().is_some_and(|s| context.now < watch.since + s.lease_wait());
        let blind =
            |channel: &ChannelName| view.as_ref().is_some_and(|v| v.channels.get(channel) == Some(&Sight::Blind));
        if !forced && !believed && leased && watch.beats.keys().any(blind) {
            let late = context.now.since(since) > context.timing.detection * 4;
            let why = "a channel on which it was heard cannot be used here".to_owned();
            return late.then_some(PeerResponse::Failed { why });
        }
        let still = |channel: &ChannelName| {
            let up = view.as_ref().and_then(|v| v.channels.get(channel)) == Some(&Sight::Up);
            let (beats, last) = watch.beats.get(channel).copied().unwrap_or_default();
            // One sign of life was heard: whether another follows is seen within the time in which the detector judges,
            // also where it began anew, because a later incarnation of that boot sent it.
            let fresh = (1..ADVANCES).contains(&beats) && context.now.since(last) <= context.timing.detection;
            fresh || up && (silent || beats < ADVANCES)
        };
        let waiting = !forced && !believed && watch.beats.keys().any(still);
        // Who doubts itself has not watched.
        let doubting = peers.doubts_itself(context.now);
        (!waiting && !doubting).then_some(PeerResponse::Check(CheckAnswer::Holds))
    }
}

/// Whether a heartbeat contradicts a fence by lease or storage: it does not say `released`, or it holds an epoch.
fn claims_to_write(fence: &Fence, body: Option<&HeartbeatBody>) -> Option<String> {
    let body = body?;
    fence.epochs.iter().find_map(|(service, epoch)| {
        let health = body.health.services.get(service)?;
        let released = health.released.as_ref().is_some_and(|r| r.epoch >= *epoch);
        (!released).then(|| format!("it still sends heartbeats without having released epoch {epoch} of {service}"))
    })
}
