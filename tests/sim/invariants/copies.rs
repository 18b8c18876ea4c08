//! A primary is not worn out by standbys that cannot be made: after the first minute of tries one host begins at most one
//! rewind or copy a minute of a database, unless the node to follow or the epoch changed, its database streamed meanwhile, a
//! person ordered one, or its daemon is another one.
//!
//! Not here: what else is done again and again (`rest.rs`).

use crate::cluster::{S, World};
use crate::database::Act;
use regent::types::{DbAction, Epoch};
use std::collections::BTreeMap;

/// A minute by a clock that runs as wrong as the clocks here may: two of them differ by a tenth at most.
const MINUTE: u64 = 54 * S;
/// How many there may be in the first minute.
const FIRST: usize = 7;

type Of = (u64, Epoch, usize, Option<u64>);

/// What a host asked for since there was a reason to begin anew.
#[derive(Clone, Debug, Default)]
struct Tries {
    /// The daemon, its epoch, the node to follow, and a person's order.
    of: Of,
    begun: Vec<u64>,
}

/// The rewinds and copies, by host and service.
#[derive(Default)]
pub struct Copies {
    tries: BTreeMap<(usize, usize), Tries>,
    /// All that were ever begun, for stories.
    pub all: u64,
    over: Option<String>,
}

impl Copies {
    /// The daemon of the host is told that its database streams.
    pub fn streams(&mut self, host: usize, service: usize) {
        self.tries.remove(&(host, service));
    }

    fn begun(&mut self, now: u64, at: (usize, usize), of: Of) {
        self.all += 1;
        let tries = self.tries.entry(at).or_default();
        if tries.of != of {
            *tries = Tries { of, begun: Vec::new() };
        }
        let first = tries.begun.first().copied().unwrap_or(now);
        let last = tries.begun.last().copied();
        tries.begun.push(now);
        let count = tries.begun.len();
        if now < first + MINUTE && count > FIRST {
            self.over.get_or_insert(format!("{count} rewinds or copies in the first minute"));
        }
        if last.is_some_and(|last| last >= first + MINUTE && now < last + MINUTE) {
            self.over.get_or_insert(format!("try {count} of a rewind or copy within a minute of the one before"));
        }
    }
}

/// The upstream is asked for a rewind or copy.
pub fn begun(w: &mut World, act: &Act, up: usize) {
    let (name, host) = (&w.services[act.service], &w.hosts[act.host]);
    let known = host.daemon.as_ref().and_then(|daemon| daemon.state().services.get(name));
    let epoch = known.map_or(Epoch(0), |s| s.epoch);
    let order = match act.action {
        DbAction::Rejoin { order, .. } => order,
        _ => None,
    };
    w.facts.copies.begun(w.now, (act.host, act.service), (act.life, epoch, up, order));
}

pub fn check(w: &mut World) {
    if let Some(what) = w.facts.copies.over.take() {
        w.violate("copies", what);
    }
}
