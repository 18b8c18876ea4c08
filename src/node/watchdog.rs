//! The watchdog as the node knows it: armed before the first lease is asked for, fed only by the loop that has just
//! checked, disarmed when nothing runs that it is for. What fails is tried again after a pause, and said.
//!
//! Not here: the device (`action::watchdog`).

use super::{Effect, Node, Said, Start, WatchdogSaid};
use crate::types::{Failing, Instant};
use std::time::Duration;

/// The pause after arming failed for the first time; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two tries of arming.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause after a feeding that failed: it is tried on until the device resets the host.
const FEED_PAUSE: Duration = Duration::from_millis(100);

/// How the device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watchdog {
    /// None is configured.
    None,
    Disarmed,
    /// `failures`: how often it could not be armed since it was armed last.
    Arming {
        failures: u32,
    },
    /// It could not be armed.
    Failed {
        why: String,
        failures: u32,
        again_at: Instant,
    },
    Armed {
        can_be_disarmed: bool,
        /// The last feeding failed: why, and when to try again.
        unfed: Option<(String, Instant)>,
    },
    /// Told to disarm, without an answer yet.
    Disarming,
}

impl Watchdog {
    /// As the start of the daemon left it.
    pub fn found(start: &Start, now: Instant) -> Self {
        match &start.watchdog {
            None => Watchdog::None,
            Some(WatchdogSaid::Armed { can_be_disarmed }) => {
                Watchdog::Armed { can_be_disarmed: *can_be_disarmed, unfed: None }
            }
            Some(WatchdogSaid::NotArmed { why }) => Watchdog::failed(why.clone(), 0, now),
            Some(_) => Watchdog::Disarmed,
        }
    }

    fn failed(why: String, before: u32, now: Instant) -> Self {
        let pause = PAUSE.saturating_mul(1 << before.min(5)).min(PAUSE_MAX);
        Watchdog::Failed { why, failures: before + 1, again_at: now + pause }
    }

    /// Why it cannot be armed, and how often in a row that was found out.
    pub fn failure(&self) -> Option<(&str, u32)> {
        match self {
            Watchdog::Failed { why, failures, .. } => Some((why, *failures)),
            _ => None,
        }
    }

    pub fn is_armed(&self) -> bool {
        matches!(self, Watchdog::Armed { .. })
    }
}

impl Node {
    /// Whether a lease may be asked for: nothing is to be armed, or it is. Otherwise arms it, when it is time to.
    pub(super) fn is_guarded(&mut self) -> bool {
        let failures = match &self.watchdog {
            Watchdog::None | Watchdog::Armed { .. } => return true,
            Watchdog::Arming { .. } | Watchdog::Disarming => return false,
            Watchdog::Failed { again_at, .. } if self.context.now < *again_at => return false,
            Watchdog::Failed { failures, .. } => *failures,
            Watchdog::Disarmed => 0,
        };
        self.watchdog = Watchdog::Arming { failures };
        self.mail.push(Effect::ArmWatchdog);
        false
    }

    pub(super) fn watchdog_said(&mut self, said: WatchdogSaid) {
        let now = self.context.now;
        let before = std::mem::replace(&mut self.watchdog, Watchdog::Disarmed);
        self.watchdog = match (said, before) {
            (_, Watchdog::None) => Watchdog::None,
            (WatchdogSaid::Armed { can_be_disarmed }, _) => Watchdog::Armed { can_be_disarmed, unfed: None },
            (WatchdogSaid::NotArmed { why }, before) => {
                let failures = if let Watchdog::Arming { failures } = before { failures } else { 0 };
                self.mail.say(Said::WatchdogNotArmed { why: why.clone() });
                Watchdog::failed(why, failures, now)
            }
            (WatchdogSaid::NotFed { why }, Watchdog::Armed { can_be_disarmed, unfed }) => {
                if unfed.is_none() {
                    self.mail.say(Said::WatchdogNotFed { why: why.clone() });
                }
                Watchdog::Armed { can_be_disarmed, unfed: Some((why, now + FEED_PAUSE)) }
            }
            (WatchdogSaid::Fed, Watchdog::Armed { can_be_disarmed, unfed }) => {
                if unfed.is_some() {
                    self.mail.say(Said::WatchdogFedAgain);
                }
                Watchdog::Armed { can_be_disarmed, unfed: None }
            }
            // An answer to what is not asked any more.
            (WatchdogSaid::Fed | WatchdogSaid::NotFed { .. }, before) => before,
            (WatchdogSaid::Disarmed, _) => Watchdog::Disarmed,
            (WatchdogSaid::NotDisarmed { why }, _) => {
                self.mail.say(Said::WatchdogNotDisarmed { why });
                Watchdog::Armed { can_be_disarmed: false, unfed: None }
            }
        };
    }

    /// Fed only by the loop that has just checked: every database that could commit may still do so, or is gone.
    pub(super) fn tend_watchdog(&mut self) {
        // Whether it works again is found out before it is needed.
        if matches!(self.watchdog, Watchdog::Failed { .. }) {
            self.is_guarded();
        }
        let Watchdog::Armed { can_be_disarmed, unfed } = &self.watchdog else { return };
        let disarmable = *can_be_disarmed;
        let failed = unfed.is_some();
        let rests = unfed.as_ref().is_some_and(|(_, again_at)| self.context.now < *again_at);
        let inputs = || self.tenants.inputs(&self.context);
        let fine = inputs().all(|i| !i.could_commit() || i.may_write(Duration::ZERO) || i.runs_on_kept(Duration::ZERO));
        let needed = inputs().any(|i| i.could_commit() || i.held().is_some() || i.runs_on_kept(Duration::ZERO));
        if !needed && disarmable {
            self.watchdog = Watchdog::Disarming;
            self.mail.push(Effect::DisarmWatchdog);
        } else if fine && !rests {
            // Whoever could not be fed is no candidate, so that it can be again has to be found out.
            if let Watchdog::Armed { unfed: Some((_, again_at)), .. } = &mut self.watchdog {
                *again_at = self.context.now + FEED_PAUSE;
            }
            self.mail.push(Effect::FeedWatchdog { told: failed });
        }
    }

    /// When something about the device is due.
    pub(super) fn watchdog_due(&self) -> Option<Instant> {
        match &self.watchdog {
            Watchdog::Failed { again_at, .. } => Some(*again_at),
            Watchdog::Armed { unfed: Some((_, again_at)), .. } => Some(*again_at),
            _ => None,
        }
    }

    /// What of it fails, for the heartbeat; and why, for `status`.
    pub(super) fn watchdog_failing(&self) -> Option<(Failing, String)> {
        match &self.watchdog {
            Watchdog::Failed { why, .. } => Some((Failing::WatchdogArm, why.clone())),
            Watchdog::Arming { failures: 1.. } => Some((Failing::WatchdogArm, "it is being tried again".to_owned())),
            Watchdog::Armed { unfed: Some((why, _)), .. } => Some((Failing::WatchdogFeed, why.clone())),
            _ => None,
        }
    }
}
