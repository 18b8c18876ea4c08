//! The watchdog as the node knows it: armed before the first lease is asked for, fed only by the loop that has just
//! checked, disarmed when nothing runs that it is for. What fails is tried again after a pause, and said.
//!
//! Not here: the device (`action::watchdog`).

use super::mail::Mail;
use super::{Effect, Said, Start, WatchdogSaid};
use crate::types::{Failing, Instant};
use std::time::Duration;

/// The pause after arming failed for the first time; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two tries of arming.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause after a feeding that failed: it is tried on until the device resets the host.
const FEED_PAUSE: Duration = Duration::from_millis(100);

/// How the databases are for which the device stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded {
    /// Each that could commit may do so.
    pub fine: bool,
    /// One could commit, or may come to it.
    pub needed: bool,
}

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

impl Watchdog {
    /// Whether the host would be reset without this daemon, and need not be.
    pub fn is_to_be_disarmed(&self) -> bool {
        matches!(self, Watchdog::Armed { can_be_disarmed: true, .. } | Watchdog::Arming { .. } | Watchdog::Disarming)
    }

    /// Whether a lease may be asked for: nothing is to be armed, or it is. Otherwise arms it, when it is time to.
    pub fn guards(&mut self, now: Instant, mail: &mut Mail) -> bool {
        let failures = match self {
            Watchdog::None | Watchdog::Armed { .. } => return true,
            Watchdog::Arming { .. } | Watchdog::Disarming => return false,
            Watchdog::Failed { again_at, .. } if now < *again_at => return false,
            Watchdog::Failed { failures, .. } => *failures,
            Watchdog::Disarmed => 0,
        };
        *self = Watchdog::Arming { failures };
        mail.push(Effect::ArmWatchdog);
        false
    }

    pub fn said(&mut self, now: Instant, mail: &mut Mail, said: WatchdogSaid) {
        let before = std::mem::replace(self, Watchdog::Disarmed);
        *self = match (said, before) {
            (_, Watchdog::None) => Watchdog::None,
            (WatchdogSaid::Armed { can_be_disarmed }, _) => Watchdog::Armed { can_be_disarmed, unfed: None },
            (WatchdogSaid::NotArmed { why }, before) => {
                let failures = if let Watchdog::Arming { failures } = before { failures } else { 0 };
                mail.say(Said::WatchdogNotArmed { why: why.clone() });
                Watchdog::failed(why, failures, now)
            }
            (WatchdogSaid::NotFed { why }, Watchdog::Armed { can_be_disarmed, unfed }) => {
                if unfed.is_none() {
                    mail.say(Said::WatchdogNotFed { why: why.clone() });
                }
                Watchdog::Armed { can_be_disarmed, unfed: Some((why, now + FEED_PAUSE)) }
            }
            (WatchdogSaid::Fed, Watchdog::Armed { can_be_disarmed, unfed }) => {
                if unfed.is_some() {
                    mail.say(Said::WatchdogFedAgain);
                }
                Watchdog::Armed { can_be_disarmed, unfed: None }
            }
            // An answer to what is not asked any more.
            (WatchdogSaid::Fed | WatchdogSaid::NotFed { .. }, before) => before,
            (WatchdogSaid::Disarmed, _) => Watchdog::Disarmed,
            (WatchdogSaid::NotDisarmed { why }, _) => {
                mail.say(Said::WatchdogNotDisarmed { why });
                Watchdog::Armed { can_be_disarmed: false, unfed: None }
            }
        };
    }

    /// Fed only by the loop that has just checked: every database that could commit may still do so, or is gone.
    pub fn tend(&mut self, now: Instant, mail: &mut Mail, databases: Guarded) {
        // Whether it works again is found out before it is needed.
        if matches!(self, Watchdog::Failed { .. }) {
            self.guards(now, mail);
        }
        let Watchdog::Armed { can_be_disarmed, unfed } = self else { return };
        let disarmable = *can_be_disarmed;
        let failed = unfed.is_some();
        let rests = unfed.as_ref().is_some_and(|(_, again_at)| now < *again_at);
        let Guarded { fine, needed } = databases;
        if !needed && disarmable {
            *self = Watchdog::Disarming;
            mail.push(Effect::DisarmWatchdog);
        } else if fine && !rests {
            // Whoever could not be fed is no candidate, so that it can be again has to be found out.
            if let Watchdog::Armed { unfed: Some((_, again_at)), .. } = self {
                *again_at = now + FEED_PAUSE;
            }
            mail.push(Effect::FeedWatchdog { told: failed });
        }
    }

    /// When something about the device is due.
    pub fn due(&self) -> Option<Instant> {
        match self {
            Watchdog::Failed { again_at, .. } => Some(*again_at),
            Watchdog::Armed { unfed: Some((_, again_at)), .. } => Some(*again_at),
            _ => None,
        }
    }

    /// What of it fails, for the heartbeat; and why, for `status`.
    pub fn failing(&self) -> Option<(Failing, String)> {
        match self {
            Watchdog::Failed { why, .. } => Some((Failing::WatchdogArm, why.clone())),
            Watchdog::Arming { failures: 1.. } => Some((Failing::WatchdogArm, "it is being tried again".to_owned())),
            Watchdog::Armed { unfed: Some((why, _)), .. } => Some((Failing::WatchdogFeed, why.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::context_test::{NOW, start};

    const FINE: Guarded = Guarded { fine: true, needed: true };

    fn found(said: Option<WatchdogSaid>) -> Watchdog {
        Watchdog::found(&Start { watchdog: said, ..start("db1") }, NOW)
    }

    #[test]
    fn a_device_that_cannot_be_armed_is_tried_again_with_pauses_that_grow_and_bars_every_lease() {
        let not = || WatchdogSaid::NotArmed { why: "busy".to_owned() };
        let (mut device, mut mail, mut now) = (found(Some(not())), Mail::default(), NOW);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(!device.guards(now, &mut mail), "not yet");
            assert_eq!(mail.take(), []);
            let at = device.due().expect("it is tried again");
            pauses.push(at.since(now).as_secs());
            now = at;
            assert!(!device.guards(now, &mut mail));
            assert_eq!(mail.take(), [Effect::ArmWatchdog]);
            device.said(now, &mut mail, not());
            mail.take();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        now = device.due().expect("it is tried again");
        device.tend(now, &mut mail, FINE);
        device.said(now, &mut mail, WatchdogSaid::Armed { can_be_disarmed: true });
        assert!(device.guards(now, &mut mail) && device.failing().is_none());
    }

    #[test]
    fn it_is_fed_only_where_every_database_may_do_what_it_can() {
        let mut device = found(Some(WatchdogSaid::Armed { can_be_disarmed: true }));
        let mut mail = Mail::default();
        device.tend(NOW, &mut mail, FINE);
        assert_eq!(mail.take(), [Effect::FeedWatchdog { told: false }]);
        device.tend(NOW, &mut mail, Guarded { fine: false, needed: true });
        assert_eq!(mail.take(), [], "it resets the host in its time");
        device.tend(NOW, &mut mail, Guarded { fine: true, needed: false });
        assert_eq!(mail.take(), [Effect::DisarmWatchdog]);
        let mut stays = found(Some(WatchdogSaid::Armed { can_be_disarmed: false }));
        stays.tend(NOW, &mut mail, Guarded { fine: true, needed: false });
        assert_eq!(mail.take(), [Effect::FeedWatchdog { told: false }], "the kernel would not let it go");
    }

    #[test]
    fn where_none_is_configured_nothing_bars_a_lease() {
        let (mut none, mut mail) = (found(None), Mail::default());
        assert!(none.guards(NOW, &mut mail) && none.due().is_none());
        none.tend(NOW, &mut mail, FINE);
        assert_eq!(mail.take(), []);
    }
}
