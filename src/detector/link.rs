//! One peer on one channel: its window of arrivals, when its silence becomes suspicious, and the hysteresis of coming
//! back. Whether the channel itself can be trusted is `fusion.rs`.

use super::window::Window;
use crate::config;
use crate::detection::Patience;
use crate::types::Instant;
use std::time::Duration;

/// The detector's settings, with what follows from them.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub interval: Duration,
    pub rise: u32,
    pub grace: Duration,
    /// How long a channel must have been watched again before it is evidence (S10).
    pub settle: Duration,
    window: usize,
    patience: Patience,
}

impl Tuning {
    pub fn new(cfg: &config::Detector) -> Self {
        Tuning {
            interval: cfg.interval,
            rise: cfg.rise.max(1),
            grace: cfg.startup_grace,
            settle: cfg.patience().recent(),
            window: cfg.window.max(1),
            patience: cfg.patience(),
        }
    }

    /// From the last heartbeat to suspicion, as a window is now.
    fn patience(&self, window: &Window) -> Duration {
        self.patience.after(window.mean(), window.deviation())
    }
}

/// Where a link stands, its clock left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Of this incarnation, fewer than `rise` heartbeats were heard here yet.
    New,
    Up,
    /// It was lost, and has not been heard `rise` times in a row since.
    Fallen,
}

/// What a link says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Not watched for long enough to say anything.
    New,
    Up,
    /// Lost: the silence has lasted too long.
    Silent,
    /// Lost before; heartbeats may arrive again, too few so far.
    Fallen,
}

/// One peer's incarnation on one channel.
#[derive(Clone, Debug)]
pub struct Link {
    window: Window,
    standing: Standing,
    /// What [`Self::proof_after`] was of the silence in which it fell.
    fell_after: Option<Instant>,
    /// Heartbeats in a row.
    streak: u32,
    last: Option<Instant>,
    /// Silence counts from here at the earliest: before, nobody was listening.
    watched_since: Instant,
    /// From the last heartbeat to suspicion, as the window is now.
    patience: Duration,
    /// The moment from which the silence is too long, if it lasts.
    overdue_at: Instant,
}

impl Link {
    pub fn new(tuning: &Tuning, since: Instant) -> Self {
        let window = Window::new(tuning.interval, tuning.window);
        let patience = tuning.patience(&window);
        let overdue_at = since + tuning.grace;
        Link {
            window,
            standing: Standing::New,
            fell_after: None,
            streak: 0,
            last: None,
            watched_since: since,
            patience,
            overdue_at,
        }
    }

    /// A heartbeat arrived at `at`. One that is out of order says nothing new and is ignored.
    pub fn heard(&mut self, tuning: &Tuning, at: Instant) {
        if self.last.is_some_and(|last| at <= last) {
            return;
        }
        self.latch(at);
        if let Some(last) = self.last {
            self.window.sample(at.since(last));
            self.patience = tuning.patience(&self.window);
        }
        self.last = Some(at);
        self.overdue_at = at.max(self.watched_since) + self.patience;
        self.streak = self.streak.saturating_add(1);
        if self.streak >= tuning.rise {
            self.standing = Standing::Up;
        }
    }

    /// Listening begins anew at `now`; until `until` it was listened well. What was lost by then stays lost until it
    /// has risen again.
    pub fn watch_again(&mut self, until: Instant, now: Instant) {
        self.latch(until);
        self.watched_since = self.watched_since.max(now);
        if let Some(last) = self.last {
            self.overdue_at = last.max(self.watched_since) + self.patience;
        }
    }

    /// Keeps a suspicion that stands at `at` beyond the next heartbeat.
    fn latch(&mut self, at: Instant) {
        if at >= self.overdue_at {
            if self.standing != Standing::Fallen {
                self.fell_after = self.proof_after();
            }
            self.standing = Standing::Fallen;
            self.streak = 0;
        }
    }

    /// The moment from which the silence is too long, if it lasts.
    pub fn overdue_at(&self) -> Instant {
        self.overdue_at
    }

    pub fn word(&self, now: Instant) -> Word {
        if now >= self.overdue_at {
            return Word::Silent;
        }
        match self.standing {
            Standing::New => Word::New,
            Standing::Up => Word::Up,
            Standing::Fallen => Word::Fallen,
        }
    }

    /// Heartbeats of it arrive here, and did not stop before: proof that the path to this host works.
    pub fn is_heard(&self, now: Instant) -> bool {
        self.last.is_some() && matches!(self.word(now), Word::New | Word::Up)
    }

    /// It was heard here once, and is lost.
    pub fn was_heard(&self, now: Instant) -> bool {
        self.last.is_some() && matches!(self.word(now), Word::Silent | Word::Fallen)
    }

    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whoever is to prove that this silence is the peer's must have been heard after this moment: half of the way
    /// from the last heartbeat to suspicion. Where the receiver's own path was cut, nobody was.
    pub fn proof_after(&self) -> Option<Instant> {
        self.last.map(|last| last.max(self.watched_since) + self.patience / 2)
    }

    /// The same of the silence in which it fell: the heartbeat that ends a silence of everybody proves nothing about it.
    pub fn fell_after(&self) -> Option<Instant> {
        self.fell_after
    }

    /// φ now; `None` when it was never heard.
    pub fn phi(&self, tuning: &Tuning, now: Instant) -> Option<f64> {
        let silence = now.since(self.last?.max(self.watched_since));
        Some(tuning.patience.phi(silence, self.window.mean(), self.window.deviation()))
    }
}
