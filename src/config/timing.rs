//! Every timing inequality, and every bound that follows from the configured times. `docs/timing.md` is their text.
//!
//! Nothing here waits or decides: detector, lease and coordinator do, with the times that were proved consistent here.

use super::problem::Problems;
use super::{Config, Watchdog};
use crate::types::{AgentName, LAG_SAMPLE};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// One rule between two times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inequality {
    pub name: &'static str,
    pub formula: &'static str,
    #[serde(serialize_with = "as_ms", rename = "left_ms")]
    pub left: Duration,
    /// `>` or `≥`.
    pub relation: &'static str,
    #[serde(serialize_with = "as_ms", rename = "right_ms")]
    pub right: Duration,
    pub holds: bool,
    /// The key that is most likely wrong when it does not hold.
    pub key: String,
    /// What happens where it does not hold.
    pub why: &'static str,
}

/// What follows from the configured times. All are worst cases for one failure, with at most one lost heartbeat and
/// one split vote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// From a node's last heartbeat to `lost`, while heartbeats arrive as regularly as they are sent.
    #[serde(serialize_with = "as_ms", rename = "detection_usual_ms")]
    pub detection_usual: Duration,
    /// From a node's last heartbeat to `lost`, however irregularly heartbeats arrived before.
    #[serde(serialize_with = "as_ms", rename = "detection_worst_ms")]
    pub detection_worst: Duration,
    /// From a leader's death to the next leader.
    #[serde(serialize_with = "as_ms", rename = "election_worst_ms")]
    pub election_worst: Duration,
    /// From the last suspicion that was needed to the verdict in the ledger.
    #[serde(serialize_with = "as_ms", rename = "verdict_ms")]
    pub verdict: Duration,
    /// How long `lease` waits before it confirms.
    #[serde(serialize_with = "as_ms", rename = "lease_wait_ms")]
    pub lease_wait: Duration,
    pub levels: Vec<LevelBound>,
    /// The check of a fence (S9), when a channel was still heard at the confirmation; nothing after a power cut.
    #[serde(serialize_with = "as_ms", rename = "check_ms")]
    pub check: Duration,
    /// Until the candidates' sealed positions are there, or no longer waited for.
    #[serde(serialize_with = "as_ms", rename = "choose_ms")]
    pub choose: Duration,
    /// What an appointee may take while its replay does not advance.
    #[serde(serialize_with = "as_ms", rename = "promote_ms")]
    pub promote: Duration,
    /// What a start may take before the service moves: the slowest service's.
    #[serde(serialize_with = "as_ms", rename = "start_ms")]
    pub start: Duration,
    /// From the failure to the first write on the new primary, when the last level is needed and confirms, and candidates
    /// run. `None` without levels: then a person confirms.
    #[serde(serialize_with = "as_ms_option", rename = "failover_worst_ms")]
    pub failover_worst: Option<Duration>,
    /// The same, where the database must be started first: a candidate that does not run, or a restart in place.
    #[serde(serialize_with = "as_ms_option", rename = "started_worst_ms")]
    pub started_worst: Option<Duration>,
    /// From the moment a primary is cut off from every leader to its last possible commit.
    #[serde(serialize_with = "as_ms", rename = "writes_stop_after_isolation_ms")]
    pub writes_stop_after_isolation: Duration,
    /// A host may be frozen for so long without being suspected.
    #[serde(serialize_with = "as_ms", rename = "freeze_tolerated_ms")]
    pub freeze_tolerated: Duration,
    /// A primary's host that is frozen for longer than this is fenced.
    #[serde(serialize_with = "as_ms", rename = "freeze_fatal_ms")]
    pub freeze_fatal: Duration,
}

/// One fencing level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelBound {
    /// Counted from 1.
    pub level: usize,
    pub agents: Vec<String>,
    /// From its start to its confirmation, where the first executor succeeds; with `lease`, from the verdict.
    #[serde(serialize_with = "as_ms", rename = "confirm_ms")]
    pub confirm: Duration,
    /// From its start to its failure: a voter has its turn as long as less than half of the time is spent.
    #[serde(serialize_with = "as_ms", rename = "give_up_ms")]
    pub give_up: Duration,
    /// From the failure to the first write on the new primary, when this level confirms and those before it failed.
    #[serde(serialize_with = "as_ms", rename = "failover_ms")]
    pub failover: Duration,
    /// The same, where the database must be started first, a restart in place included.
    #[serde(serialize_with = "as_ms", rename = "started_ms")]
    pub started: Duration,
}

/// Adds a problem for each inequality that does not hold.
pub(super) fn check(config: &Config, problems: &mut Problems<'_>) {
    for rule in inequalities(config).into_iter().filter(|rule| !rule.holds) {
        problems.add_hint(
            &rule.key,
            format!(
                "breaks the timing rule \"{}\": {} ({} {} {} is false)",
                rule.name,
                rule.formula,
                show(rule.left),
                rule.relation,
                show(rule.right)
            ),
            rule.why,
        );
    }
}

/// Every timing inequality, in the order of the protocol, with the numbers of this configuration.
pub fn inequalities(config: &Config) -> Vec<Inequality> {
    let mut rules = detection_rules(config);
    rules.extend(election_rules(config));
    rules.extend(lease_rules(config));
    if let Some(watchdog) = &config.watchdog {
        rules.extend(watchdog_rules(config, watchdog));
    }
    rules.extend(fencing_rules(config));
    rules
}

fn detection_rules(config: &Config) -> Vec<Inequality> {
    let d = &config.detector;
    vec![
        at_least(
            "lost heartbeat",
            "acceptable_pause ≥ 2 × interval",
            (d.acceptable_pause, 2 * d.interval),
            "detector.acceptable_pause",
            "otherwise one lost datagram is a suspicion",
        ),
        more(
            "startup",
            "startup_grace > worst detection",
            (d.startup_grace, d.patience().worst()),
            "detector.startup_grace",
            "otherwise, after a start of the whole cluster, the host that boots slowest is accused",
        ),
    ]
}

fn election_rules(config: &Config) -> Vec<Inequality> {
    let r = &config.raft;
    vec![
        at_least(
            "lost Raft heartbeat",
            "election_min ≥ 3 × raft heartbeat",
            (r.election_min, 3 * r.heartbeat),
            "raft.election_min",
            "otherwise one lost Raft heartbeat and a little delay start an election",
        ),
        more(
            "random elections",
            "election_max > election_min",
            (r.election_max, r.election_min),
            "raft.election_max",
            "otherwise all voters stand at the same moment and the votes are split",
        ),
        more(
            "slow leader",
            "election_max > slow_write",
            (r.election_max, r.slow_write),
            "raft.slow_write",
            "otherwise a leader with a stalling disk is kept for longer than a dead one",
        ),
    ]
}

fn lease_rules(config: &Config) -> Vec<Inequality> {
    let (l, lease) = (&config.lease, config.lease_time());
    vec![
        more(
            "lease outlives an election",
            "ttl × (1 − drift) > 3 × renew + worst election + stop_immediate + stop_kill",
            (lease.used(), 3 * l.renew + election_worst(config) + lease.stop),
            "lease.ttl",
            "otherwise the loss of the Raft leader alone stops a healthy primary",
        ),
        at_least(
            "word of the lapsed",
            "grace ≥ 2 × interval",
            (l.grace, 2 * config.detector.interval),
            "lease.grace",
            "otherwise a holder that has stopped by itself is fenced before its \"released\" is heard",
        ),
    ]
}

fn watchdog_rules(config: &Config, watchdog: &Watchdog) -> Vec<Inequality> {
    let l = &config.lease;
    vec![
        more(
            "watchdog is fed in time",
            "watchdog timeout > 3 × renew",
            (watchdog.timeout, 3 * l.renew),
            "watchdog.timeout",
            "otherwise a busy moment resets the host",
        ),
        more(
            "ladder before watchdog",
            "watchdog timeout > renew + stop_immediate + stop_kill",
            (watchdog.timeout, l.renew + l.ladder().whole()),
            "watchdog.timeout",
            "otherwise the host is reset while it stops its database in good order",
        ),
    ]
}

fn fencing_rules(config: &Config) -> Vec<Inequality> {
    let f = &config.fencing;
    let mut rules = vec![at_least(
        "fencing back-off",
        "retry_max ≥ retry",
        (f.retry_max, f.retry),
        "fencing.retry_max",
        "otherwise the pause between rounds of levels cannot grow",
    )];
    for (name, agent) in f.agents.iter().filter(|(_, agent)| !agent.monitor.is_zero()) {
        rules.push(more(
            "monitor ends before the next",
            "agent monitor > agent timeout",
            (agent.monitor, agent.timeout),
            &format!("fencing.agents.{name}.monitor"),
            "otherwise a slow device is asked without a pause, and is busy when it is needed",
        ));
    }
    for (name, service) in &config.services {
        let pg = &service.postgresql;
        rules.push(at_least(
            "lag is more than old news",
            "max_lag_time ≥ 2 × (interval + probe_interval + 1 s)",
            (config.failover.max_lag_time, 2 * (config.detector.interval + pg.probe_interval + LAG_SAMPLE)),
            "failover.max_lag_time",
            "otherwise a standby that keeps up is taken for one that lags, because its word takes a while",
        ));
        rules.push(at_least(
            "probe has time",
            "probe_timeout ≥ probe_interval",
            (pg.probe_timeout, pg.probe_interval),
            &format!("service.{name}.postgresql.probe_timeout"),
            "otherwise a database is called hung that answered before its next probe was due",
        ));
        rules.push(at_least(
            "slow is not dead",
            "hung_after ≥ probe_timeout",
            (service.hung_after, pg.probe_timeout),
            &format!("service.{name}.hung_after"),
            "otherwise a database is killed before its silence is shown",
        ));
        rules.push(at_least(
            "stalled is not slow",
            "stalled_after ≥ probe_timeout",
            (service.troubles.stalled_after, pg.probe_timeout),
            &format!("service.{name}.trouble.stalled_after"),
            "otherwise a volume is left for one slow write, before that is shown",
        ));
        rules.push(at_least(
            "start that hangs ends first",
            "start_timeout ≥ start_stalled",
            (service.start_timeout, service.start_stalled),
            &format!("service.{name}.start_timeout"),
            "otherwise a start that hangs is waited for until the service moves, and for ever where it cannot",
        ));
    }
    rules
}

fn more(
    name: &'static str,
    formula: &'static str,
    (left, right): (Duration, Duration),
    key: &str,
    why: &'static str,
) -> Inequality {
    Inequality { name, formula, left, relation: ">", right, holds: left > right, key: key.to_owned(), why }
}

fn at_least(
    name: &'static str,
    formula: &'static str,
    (left, right): (Duration, Duration),
    key: &str,
    why: &'static str,
) -> Inequality {
    Inequality { name, formula, left, relation: "≥", right, holds: left >= right, key: key.to_owned(), why }
}

/// For how long a daemon that is to stop may take to leave in order: a checkpoint as long as `stop_fast`, the whole stop of
/// the slowest database, and a lease's time until the others have heard of it.
pub fn leave_within(config: &Config) -> Duration {
    let stop = |s: &super::Service| s.stop_fast * 2 + s.stop_immediate + s.stop_kill;
    let slowest = config.services.values().map(stop).max().unwrap_or_default();
    slowest + config.lease.ttl
}

/// The bounds that the configuration implies.
pub fn bounds(config: &Config) -> Bounds {
    let (patience, lease) = (config.detector.patience(), config.lease_time());
    let detection_worst = patience.worst();
    let verdict = verdict(config);
    let mut bounds = Bounds {
        detection_usual: patience.usual(),
        detection_worst,
        election_worst: election_worst(config),
        verdict,
        lease_wait: lease.waited_for(),
        levels: Vec::new(),
        check: detection_worst + config.detector.interval,
        choose: config.failover.choose,
        promote: config.failover.install,
        start: config.services.values().map(|service| service.start_timeout).max().unwrap_or_default(),
        failover_worst: None,
        started_worst: None,
        writes_stop_after_isolation: lease.used(),
        freeze_tolerated: config.detector.acceptable_pause,
        freeze_fatal: detection_worst + verdict,
    };
    bounds.levels = levels(config, &bounds);
    bounds.failover_worst = bounds.levels.last().map(|level| level.failover);
    bounds.started_worst = bounds.levels.last().map(|level| level.started);
    bounds
}

impl Bounds {
    /// Name, formula and value of every bound but the levels, for people.
    pub fn lines(&self) -> Vec<(&'static str, &'static str, Duration)> {
        vec![
            (
                "detection, usual",
                "interval + acceptable_pause + k(phi_threshold) × min_deviation",
                self.detection_usual,
            ),
            (
                "detection, worst",
                "acceptable_pause + the larger of interval × (1 + √(1 + k²)) and 2 × interval + k × min_deviation",
                self.detection_worst,
            ),
            ("election, worst", "3 × election_max + raft heartbeat", self.election_worst),
            ("verdict", "1.1 × interval + acceptable_pause + slow_write", self.verdict),
            ("lease wait", "(ttl + watchdog timeout + stop_immediate + stop_kill) × (1 + drift)", self.lease_wait),
            ("check of the fence", "worst detection + interval; none after a clean power cut", self.check),
            ("choose", "failover.choose", self.choose),
            ("promote", "failover.install, extended while replay advances", self.promote),
            ("start", "service.*.start_timeout, where the database must be started first", self.start),
            ("writes stop after isolation", "ttl × (1 − drift)", self.writes_stop_after_isolation),
            ("freeze that is tolerated", "acceptable_pause", self.freeze_tolerated),
            ("freeze that is fatal", "worst detection + verdict", self.freeze_fatal),
        ]
    }
}

/// Formula of the total of one level: `max(detection, election) + verdict + fence + check + choose + promote`, and
/// `slow_write` for each of the three entries in the ledger on the way (order, confirmation, appointment).
fn levels(config: &Config, bounds: &Bounds) -> Vec<LevelBound> {
    // Any voter but the target may execute an order. Where one fails, the next is asked while less than half of the time
    // is spent (`plan/fencing.rs`), so the last may begin then.
    let has_others = config.nodes.len() > 2;
    let before = bounds.detection_worst.max(bounds.election_worst) + bounds.verdict + config.raft.slow_write;
    let after = 2 * config.raft.slow_write + bounds.check + bounds.choose + bounds.promote;
    let mut given_up = Duration::ZERO;
    let mut levels = Vec::new();
    for (i, names) in config.fencing.levels.iter().enumerate() {
        let agents = || names.iter().filter_map(|name| config.fencing.agents.get(name));
        let run = agents().map(|agent| agent.timeout).max().unwrap_or_default();
        let failing = agents().map(|a| if has_others && !a.everywhere { a.timeout * 3 / 2 } else { a.timeout });
        let waits = if names.iter().any(AgentName::is_lease) { bounds.lease_wait } else { Duration::ZERO };
        let confirm = run.max(waits);
        let give_up = failing.max().unwrap_or_default().max(waits);
        // `lease` counts from the verdict, so earlier levels run while it waits.
        let fence = (given_up + run).max(waits);
        levels.push(LevelBound {
            level: i + 1,
            agents: names.iter().map(ToString::to_string).collect(),
            confirm,
            give_up,
            failover: before + fence + after,
            started: before + fence + after + bounds.start,
        });
        given_up += give_up;
    }
    levels
}

/// Openraft's followers wait for the leader's lease (`election_max`) and then for a random timeout (at most
/// `election_max`); one more such timeout is for one split vote, a heartbeat for the votes to travel.
fn election_worst(config: &Config) -> Duration {
    3 * config.raft.election_max + config.raft.heartbeat
}

/// The changed view leaves at once, or, where that datagram is lost, with the next heartbeat; a round that takes
/// longer than `acceptable_pause` is dropped; the verdict is one entry in the ledger.
fn verdict(config: &Config) -> Duration {
    config.detector.interval * 11 / 10 + config.detector.acceptable_pause + config.raft.slow_write
}

/// A time as people read it: `200 ms`, `1.44 s`, `2 min 5 s`. Rounded up, so that a bound stays one.
pub fn show(time: Duration) -> String {
    let ms = time.as_nanos().div_ceil(1_000_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => {
            let hundredths = ms.div_ceil(10);
            let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => {
            let s = ms.div_ceil(1_000);
            match s % 60 {
                0 => format!("{} min", s / 60),
                rest => format!("{} min {rest} s", s / 60),
            }
        }
    }
}

fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

fn as_ms_option<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_ms(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_rounded_up() {
        for (ms, text) in [(7, "7 ms"), (1_000, "1 s"), (1_441, "1.45 s"), (1_500, "1.5 s"), (125_000, "2 min 5 s")] {
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        assert_eq!(show(Duration::from_micros(1)), "1 ms");
    }
}
