//! What each host physically heard of each other one, channel by channel: when heartbeats arrived, whatever fault kept
//! others away. From this follows who may rightly hold whom for dead. It knows nothing of detectors.

use crate::network::DISK;
use std::collections::VecDeque;

/// So many heartbeats in a row end a silence.
const RISE: u32 = 3;
/// So many silences of a pair are remembered; all of them together span more than a verdict looks back.
const REMEMBERED: usize = 4;

/// One sender as heard by one observer on one channel.
#[derive(Clone, Default)]
struct Ear {
    /// The newest heartbeat that arrived, and when.
    newest: (u64, u64),
    last: u64,
    /// Heartbeats since the last silence.
    run: u32,
    /// Since when it is held for silent.
    silent_from: Option<u64>,
    /// Earlier silences, from and until.
    silences: VecDeque<(u64, u64)>,
}

impl Ear {
    fn heard(&mut self, now: u64, number: (u64, u64), limit: u64) {
        if number <= self.newest {
            return;
        }
        if now >= self.last + limit {
            self.silent_from.get_or_insert(self.last + limit);
            self.run = 0;
        }
        (self.newest, self.last) = (number, now);
        self.run += 1;
        if self.run >= RISE
            && let Some(from) = self.silent_from.take()
        {
            self.silences.push_back((from, now));
            if self.silences.len() > REMEMBERED {
                self.silences.pop_front();
            }
        }
    }

    /// The silence that lasts, if one does, and those before.
    fn silences(&self, now: u64, limit: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let lasting = self.silent_from.or((now >= self.last + limit).then_some(self.last + limit));
        self.silences.iter().copied().chain(lasting.map(|from| (from, now)))
    }
}

/// All of a cluster.
pub struct Hearing {
    /// `[observer][subject][channel]`.
    ears: Vec<Vec<[Ear; 3]>>,
    /// A silence shorter than this is none.
    limit: u64,
    /// So many channels are configured.
    configured: usize,
}

impl Hearing {
    pub fn new(hosts: usize, acceptable_pause: u64, disk: bool) -> Self {
        let configured = if disk { DISK + 1 } else { DISK };
        Hearing { ears: vec![vec![Default::default(); hosts]; hosts], limit: acceptable_pause * 8 / 10, configured }
    }

    /// A heartbeat with this incarnation and sequence arrived.
    pub fn heard(&mut self, now: u64, channel: usize, by: usize, of: usize, number: (u64, u64)) {
        self.ears[by][of][channel].heard(now, number, self.limit);
    }

    /// Who has not heard this subject for how long on which channel, for the log of a failed run.
    pub fn tell(&self, now: u64, of: usize) -> String {
        let ms = |at: u64| (now - at) / 1_000_000;
        let ear =
            |e: &Ear| format!("{} ms ({} silences, run {})", ms(e.last), e.silences(now, self.limit).count(), e.run);
        let one = |(by, ears): (usize, &Vec<[Ear; 3]>)| format!("{by}: {}", ears[of].each_ref().map(ear).join(", "));
        format!("last heard by {}", self.ears.iter().enumerate().map(one).collect::<Vec<_>>().join("; "))
    }

    /// When this observer heard that host last on this channel.
    pub fn last(&self, by: usize, of: usize, channel: usize) -> u64 {
        self.ears[by][of][channel].last
    }

    /// Whether somebody else was heard on this channel after that host fell silent there: one heartbeat does not end a
    /// silence, and one that ended a moment ago may last on for the observer, whose daemon takes no heartbeat that is older
    /// than what others have told it of.
    pub fn heard_others(&self, now: u64, by: usize, of: usize, channel: usize) -> bool {
        let others = (0..self.ears.len()).filter(|other| *other != by && *other != of);
        let ear = &self.ears[by][of][channel];
        let ended = ear.silences.back().filter(|(_, until)| now < until + self.limit).map(|(from, _)| *from);
        let fell = ear.silent_from.or(ended).map_or(ear.last, |from| from - self.limit);
        others.map(|other| self.last(by, other, channel)).any(|at| at > 0 && at >= fell)
    }

    /// Whether a majority of the channels was silent for the observer at some moment from `since` to `now`. A channel that is
    /// not used between the two is never silent.
    pub fn was_silent(&self, now: u64, since: u64, by: usize, of: usize, used: impl Fn(usize) -> bool) -> bool {
        let ears = &self.ears[by][of];
        let silences: Vec<Vec<(u64, u64)>> = (0..self.configured)
            .filter(|c| used(*c))
            .map(|c| ears[c].silences(now, self.limit).filter(|(_, until)| *until >= since).collect())
            .collect();
        let all_at = |at: u64| silences.iter().filter(|s| s.iter().any(|(f, u)| *f <= at && at <= *u)).count();
        // Most of them are silent at once when the last of these began.
        let begins = silences.iter().flatten().map(|(from, _)| (*from).max(since)).filter(|at| *at <= now);
        begins.into_iter().any(|at| all_at(at) * 2 > self.configured)
    }
}
