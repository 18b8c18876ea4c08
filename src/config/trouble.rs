//! What is done about local trouble of a primary, by its kind: the table, and what the file makes of it.
//!
//! A standby has everything, or nearly, so a primary that cannot write is moved as soon as that is certain; what a move
//! would not cure, or what can wait for a person, is an alarm. A standby that has trouble of its volume takes nothing over.
//!
//! The same table, for operators: docs/operations.md. Not here: how each is probed (`engine/postgresql/`), and what follows
//! (`plan/keeper/trouble.rs`).

use super::problem::Problems;
use super::{Config, Service, raw};
use crate::types::{ServiceName, StopLadder, TroubleKind};
use TroublePolicy::{Alarm, Failover, Restart, Switchover};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroublePolicy {
    /// It is stopped, and started again in place.
    Restart,
    /// It is stopped in order, and moves to a standby that has received everything.
    Switchover,
    /// It is stopped at once, and moves to the standby that has most.
    Failover,
    /// It is said, and nothing else.
    Alarm,
}

impl TroublePolicy {
    /// As the file has it.
    pub fn word(self) -> &'static str {
        match self {
            TroublePolicy::Restart => "restart",
            TroublePolicy::Switchover => "switchover",
            TroublePolicy::Failover => "failover",
            TroublePolicy::Alarm => "alarm",
        }
    }
}

/// One row of the table.
pub struct Rule {
    pub kind: TroubleKind,
    pub probe: &'static str,
    pub limit: &'static str,
    pub default: TroublePolicy,
    pub allowed: &'static [TroublePolicy],
    pub why: &'static str,
}

/// The table.
pub const RULES: [Rule; 7] = [
    Rule {
        kind: TroubleKind::VolumeFull,
        probe: "a page is written and synced beside the data, and beside the WAL",
        limit: "two probes in a row find no room (ENOSPC, EDQUOT)",
        default: Switchover,
        allowed: &[Switchover, Failover, Alarm],
        why: "the next WAL segment or page ends it; a standby goes on at once",
    },
    Rule {
        kind: TroubleKind::VolumeReadOnly,
        probe: "the same",
        limit: "two probes in a row are refused (EROFS, EIO)",
        default: Switchover,
        allowed: &[Switchover, Failover, Alarm],
        why: "no write is left to wait for, and what was written can be read",
    },
    Rule {
        kind: TroubleKind::VolumeStalled,
        probe: "the same",
        limit: "one has not ended for `stalled_after` (30 s)",
        default: Failover,
        allowed: &[Failover, Alarm],
        why: "a path that fails over takes seconds; a stop in order would wait for the same volume",
    },
    Rule {
        kind: TroubleKind::ArchiverStuck,
        probe: "the files that wait to be archived, every 10 s",
        limit: "the oldest waits for `archiver_after` (10 min), and the archiver fails or does nothing",
        default: Alarm,
        allowed: &[Restart, Switchover, Alarm],
        why: "WAL is kept until it is archived, so there is time; most often the archive itself is away",
    },
    Rule {
        kind: TroubleKind::WraparoundNear,
        probe: "the age of the oldest row and multixact of every database, every 10 s",
        limit: "older than `wraparound_age` (1600000000)",
        default: Alarm,
        allowed: &[Alarm],
        why: "a standby has the same rows",
    },
    Rule {
        kind: TroubleKind::LogVolumeFull,
        probe: "a page is written beside the server's log, where that is on a volume of its own",
        limit: "two probes in a row find no room",
        default: Alarm,
        allowed: &[Switchover, Alarm],
        why: "the server goes on without its log",
    },
    Rule {
        kind: TroubleKind::Tablespace,
        probe: "a page is written and synced in each tablespace that is on a volume of its own",
        limit: "two probes in a row find no room or are refused, or one has not ended for `stalled_after`",
        default: Alarm,
        allowed: &[Switchover, Alarm],
        why: "statements that write there fail, and all else goes on; a move would cut that off, and mostly meets the same \
            tablespace as full there",
    },
];

/// What the file says of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Troubles {
    policies: BTreeMap<TroubleKind, TroublePolicy>,
    /// How long a write beside the data may take before its volume is called stalled.
    pub stalled_after: Duration,
    /// How long a file may wait to be archived.
    pub archiver_after: Duration,
    /// How many transactions old the oldest row may be.
    pub wraparound_age: u32,
}

impl Default for Troubles {
    fn default() -> Self {
        Troubles {
            policies: RULES.iter().map(|rule| (rule.kind, rule.default)).collect(),
            stalled_after: Duration::from_secs(30),
            archiver_after: Duration::from_secs(600),
            wraparound_age: 1_600_000_000,
        }
    }
}

impl Troubles {
    pub fn policy(&self, kind: TroubleKind) -> TroublePolicy {
        self.policies.get(&kind).copied().unwrap_or(Alarm)
    }

    /// The same with another policy for one kind.
    pub fn with(mut self, kind: TroubleKind, policy: TroublePolicy) -> Self {
        self.policies.insert(kind, policy);
        self
    }
}

/// What is written, over the defaults.
pub(super) fn of(written: Option<&raw::Trouble>) -> Troubles {
    let (mut troubles, none) = (Troubles::default(), raw::Trouble::default());
    let written = written.unwrap_or(&none);
    for (kind, policy) in policies(written) {
        troubles.policies.insert(kind, policy);
    }
    troubles.stalled_after = written.stalled_after.unwrap_or(troubles.stalled_after);
    troubles.archiver_after = written.archiver_after.unwrap_or(troubles.archiver_after);
    troubles.wraparound_age = written.wraparound_age.unwrap_or(troubles.wraparound_age);
    troubles
}

fn policies(written: &raw::Trouble) -> impl Iterator<Item = (TroubleKind, TroublePolicy)> {
    let all = [
        (TroubleKind::VolumeFull, written.volume_full),
        (TroubleKind::VolumeReadOnly, written.volume_read_only),
        (TroubleKind::VolumeStalled, written.volume_stalled),
        (TroubleKind::ArchiverStuck, written.archiver_stuck),
        (TroubleKind::WraparoundNear, written.wraparound_near),
        (TroubleKind::LogVolumeFull, written.log_volume_full),
        (TroubleKind::Tablespace, written.tablespace),
    ];
    all.into_iter().filter_map(|(kind, policy)| Some((kind, policy?)))
}

/// A policy that would cure nothing is refused, and so is a limit that nothing reaches, or everything.
pub(super) fn rules(config: &Config, problems: &mut Problems<'_>) {
    for (name, service) in &config.services {
        let (key, troubles) = (format!("service.{name}.trouble"), &service.troubles);
        for rule in RULES {
            let policy = troubles.policy(rule.kind);
            if !rule.allowed.contains(&policy) {
                let words: Vec<_> = rule.allowed.iter().map(|policy| format!("\"{}\"", policy.word())).collect();
                problems.add_hint(
                    &format!("{key}.{}", rule.kind.key()),
                    format!("\"{}\" is no answer to this trouble: {}", policy.word(), rule.why),
                    format!("use {}", words.join(" or ")),
                );
            }
        }
        if troubles.archiver_after < Duration::from_secs(60) {
            problems.add(&format!("{key}.archiver_after"), "expected 60s or more: one slow file is no trouble");
        }
        // PostgreSQL's own autovacuum begins at 200 million, and it stops 3 million before the end.
        if !(400_000_000..=2_100_000_000).contains(&troubles.wraparound_age) {
            problems.add(&format!("{key}.wraparound_age"), "expected 400000000 to 2100000000");
        }
    }
}

/// How long an orderly stop may take where its volume takes no more writes: what a checkpoint does not write by then the
/// standby has all the same, because all of the WAL was sent.
const IN_ORDER: Duration = Duration::from_millis(1500);

/// How a primary with trouble is stopped for a standby that goes on.
pub fn stop_ladder(service: &Service, lease_ladder: StopLadder) -> StopLadder {
    StopLadder { fast: service.stop_fast.min(IN_ORDER), ..lease_ladder }
}

/// For how long clients are without writes at most where a standby that can take over has received everything, from the
/// probe that makes it certain on. `None`: until a person has put it right.
pub fn bound(config: &Config, service: &Service, kind: TroubleKind) -> Option<Duration> {
    let lease =
        StopLadder { fast: Duration::ZERO, immediate: config.lease.stop_immediate, kill: config.lease.stop_kill };
    let stop = match service.troubles.policy(kind) {
        Switchover => stop_ladder(service, lease).whole(),
        Failover => lease.whole(),
        Restart | Alarm => return None,
    };
    let limit = if kind == TroubleKind::VolumeStalled { service.troubles.stalled_after } else { Duration::ZERO };
    // The final word, the appointment and the new timeline are an entry each.
    Some(limit + stop + 3 * config.raft.slow_write + config.detector.interval)
}

/// What the file makes of one kind of trouble, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TroubleBound {
    pub service: String,
    pub trouble: TroubleKind,
    pub policy: &'static str,
    /// `None`: until a person has put it right.
    pub without_writes_ms: Option<u64>,
}

/// The same of every kind and service.
pub fn bounds(config: &Config) -> Vec<TroubleBound> {
    let of = |(name, service): (&ServiceName, &Service), rule: &Rule| TroubleBound {
        service: name.to_string(),
        trouble: rule.kind,
        policy: service.troubles.policy(rule.kind).word(),
        without_writes_ms: bound(config, service, rule.kind).map(|time| time.as_millis() as u64),
    };
    config.services.iter().flat_map(|service| RULES.iter().map(move |rule| of(service, rule))).collect()
}
