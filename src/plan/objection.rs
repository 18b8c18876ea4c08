//! What speaks against a node as the one that takes over: each reason once, for the appointment, the planned move, the
//! dry run and the standing answer alike.
//!
//! A new reason is a variant of [`Objection`] with its sentence, the function that finds it, and its line in [`REASONS`].
//!
//! Not here: the choice among those against whom nothing speaks (`candidate.rs`, `switchover.rs`); and the ledger refuses
//! by itself what is unsafe.

use super::Outlook;
use super::known_end::{known_end, lacks};
use crate::ledger::{Ineligible, Service};
use crate::types::{DbState, Failing, FileFault, Leaving, Lsn, NodeName, Position, Seal, ServiceName, Trouble, Unfit};
use std::fmt;
use std::time::Duration;

/// For what a node is wanted.
#[derive(Clone, Copy)]
pub enum Purpose<'a> {
    /// To be appointed, on its sealed report (or what it answered instead).
    Appoint {
        service: &'a Service,
        report: &'a Result<Seal, String>,
        /// Where WAL ended in order: less would be a loss.
        at_least: Option<Position>,
        /// The furthest end of WAL that was reported.
        furthest: Lsn,
        name: &'a ServiceName,
    },
    /// To go on where it held the epoch itself: it has everything that this epoch wrote.
    Resume { name: &'a ServiceName },
    /// To take over from a primary that stops in order.
    Switchover { name: &'a ServiceName, from: &'a NodeName },
    /// To take over should the primary's host die now. As in the choice, what it lacks is counted from the furthest that
    /// is known of the primary, or from the furthest candidate.
    Failover { name: &'a ServiceName, from: &'a NodeName, furthest: Lsn },
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It gave no sealed report; its own words.
    NoReport {
        why: String,
    },
    /// The ledger would refuse it.
    Ledger(Ineligible),
    /// The file says so, of it and this service.
    MayNotLead,
    /// It leaves in order, and opens nothing any more.
    Leaves(Leaving),
    /// This leader's own view speaks against it.
    Suspected,
    /// PostgreSQL does not take a line of its files. It could take over all the same, and then not start again.
    FileFault {
        fault: FileFault,
    },
    /// It says that it hears nobody: it would not learn of its appointment.
    Deaf,
    /// It cannot hold a lease: whoever cannot be ended in time asks for none.
    Failing(Failing),
    /// Nothing was heard of its database lately.
    Unknown,
    NoRunningStandby {
        state: DbState,
    },
    NotStartable {
        state: DbState,
    },
    StreamsElsewhere {
        from: NodeName,
    },
    BeforeFinalPosition {
        end: Position,
        wanted: Position,
    },
    BehindCandidate {
        bytes: u64,
        max_lag: u64,
    },
    BehindPrimary {
        bytes: u64,
        max_lag: u64,
    },
    /// It lacks so much of what the last primary is known to have written.
    WouldLose {
        bytes: u64,
        max_lag: u64,
    },
    /// A person accepted the copy on another node.
    AnotherCopyWins {
        node: NodeName,
    },
    /// A person ordered it to be copied anew: its data are not to be used.
    ToBeCopied,
    /// Its volume takes no writes.
    Troubled(Trouble),
    /// It lacks something without which it could not serve (`bars`).
    Unfit(Unfit),
    /// The primary was heard for so long without a word of its WAL: what it wrote then nobody knows.
    EndUnknown {
        silent: Duration,
    },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::NoReport { why } => f.write_str(why),
            Objection::Ledger(why) => why.fmt(f),
            Objection::MayNotLead => f.write_str("it does not lead (may_lead = false, or apply_delay)"),
            Objection::Leaves(leaving) => write!(f, "it leaves: {leaving}"),
            Objection::Suspected => f.write_str("it is suspected: a majority of its channels is lost here"),
            Objection::FileFault { fault } => fault.fmt(f),
            Objection::Deaf => f.write_str("it hears no other node on any network"),
            Objection::Failing(what) => what.fmt(f),
            Objection::Unknown => f.write_str("nothing recent is known of its database"),
            Objection::NoRunningStandby { state } => {
                write!(f, "its database is no running standby ({state})")
            }
            Objection::NotStartable { state } => write!(f, "its database cannot be started ({state})"),
            Objection::StreamsElsewhere { from } => write!(f, "it does not stream from {from}"),
            Objection::BeforeFinalPosition { end, wanted } => {
                write!(f, "its WAL ends at {end}, before the final position {wanted}")
            }
            Objection::BehindCandidate { bytes, max_lag } => {
                write!(f, "it is {bytes} bytes behind the furthest candidate, more than max_lag ({max_lag})")
            }
            Objection::BehindPrimary { bytes, max_lag } => {
                write!(f, "it is {bytes} bytes behind, more than max_lag ({max_lag})")
            }
            Objection::WouldLose { bytes, max_lag } => write!(
                f,
                "it lacks {bytes} bytes of the WAL that the primary wrote, more than max_lag ({max_lag}); without a primary \
                 `regent failover --accept-loss` lets it take over all the same"
            ),
            Objection::AnotherCopyWins { node } => write!(f, "the copy on {node} was accepted (`regent accept`)"),
            Objection::ToBeCopied => f.write_str("it is to be copied anew (`regent reinit`)"),
            Objection::Troubled(trouble) => trouble.fmt(f),
            Objection::Unfit(what) => {
                let bars =
                    "without a primary `regent failover --accept-loss --to` this node lets it take over all the same";
                write!(f, "{what} (bars: {}): {}; {bars}", what.kind(), what.cure())
            }
            Objection::EndUnknown { silent } => write!(
                f,
                "the primary said nothing of its WAL for {} s, so nobody knows what would be lost (max_silence); without a \
                 primary `regent failover --accept-loss` lets it take over all the same",
                silent.as_secs()
            ),
        }
    }
}

/// Who is looked at, by whom, and for what.
struct Case<'a> {
    seen: &'a Outlook<'a>,
    node: &'a NodeName,
    purpose: Purpose<'a>,
}

/// How each reason is found, in the order in which they are told.
const REASONS: &[fn(&Case) -> Option<Objection>] = &[
    no_report,
    ledger,
    leaves,
    may_not_lead,
    suspected,
    deaf,
    failing,
    another_copy,
    to_be_copied,
    unknown,
    no_running_standby,
    not_startable,
    lineage,
    streams,
    file_fault,
    troubled,
    unfit,
    end,
    lag,
    silence,
];

/// The first reason against `node`, if any.
pub fn objection(seen: &Outlook, node: &NodeName, purpose: Purpose) -> Option<Objection> {
    let case = Case { seen, node, purpose };
    REASONS.iter().find_map(|reason| reason(&case))
}

/// Every reason against `node`.
pub fn objections(seen: &Outlook, node: &NodeName, purpose: Purpose) -> Vec<Objection> {
    let case = Case { seen, node, purpose };
    REASONS.iter().filter_map(|reason| reason(&case)).collect()
}

impl Case<'_> {
    /// The service whose database is looked at in heartbeats: where no sealed report says more.
    fn heard_of(&self) -> Option<&ServiceName> {
        match self.purpose {
            Purpose::Appoint { .. } => None,
            Purpose::Resume { name } | Purpose::Switchover { name, .. } | Purpose::Failover { name, .. } => Some(name),
        }
    }

    fn service(&self) -> Option<&Service> {
        let (Purpose::Appoint { name, .. }
        | Purpose::Resume { name }
        | Purpose::Switchover { name, .. }
        | Purpose::Failover { name, .. }) = self.purpose;
        self.seen.state.services.get(name).map(|service| service.get())
    }

    /// A person's word is that its copy wins, whatever it lacks.
    fn is_accepted_copy(&self) -> bool {
        self.service().is_some_and(|service| service.accepts_copy_of(self.node))
    }

    fn state(&self) -> Option<DbState> {
        self.seen.database(self.node, self.heard_of()?).map(|database| database.state)
    }

    /// Of a node that is to take over from one that runs.
    fn standby(&self) -> Option<(&ServiceName, &NodeName)> {
        match self.purpose {
            Purpose::Switchover { name, from } | Purpose::Failover { name, from, .. } => Some((name, from)),
            Purpose::Appoint { .. } | Purpose::Resume { .. } => None,
        }
    }
}

fn no_report(case: &Case) -> Option<Objection> {
    match case.purpose {
        Purpose::Appoint { report: Err(why), .. } => Some(Objection::NoReport { why: why.clone() }),
        _ => None,
    }
}

fn ledger(case: &Case) -> Option<Objection> {
    case.seen.state.may_hold(case.node).err().map(Objection::Ledger)
}

/// One that held the epoch itself goes on: it has everything, and can be moved away in order.
fn may_not_lead(case: &Case) -> Option<Objection> {
    let name = match case.purpose {
        Purpose::Resume { .. } => return None,
        Purpose::Appoint { name, .. } | Purpose::Switchover { name, .. } | Purpose::Failover { name, .. } => name,
    };
    let service = case.seen.config.services.get(name)?;
    (!service.may_lead(case.node)).then_some(Objection::MayNotLead)
}

fn leaves(case: &Case) -> Option<Objection> {
    case.seen.leaving(case.node).map(Objection::Leaves)
}

fn suspected(case: &Case) -> Option<Objection> {
    case.seen.is_suspected(case.node).then_some(Objection::Suspected)
}

fn deaf(case: &Case) -> Option<Objection> {
    match case.purpose {
        // It was asked for its report, and has answered.
        Purpose::Appoint { .. } => None,
        Purpose::Resume { .. } | Purpose::Switchover { .. } | Purpose::Failover { .. } => {
            case.seen.is_deaf(case.node).then_some(Objection::Deaf)
        }
    }
}

fn failing(case: &Case) -> Option<Objection> {
    let bars = |f: &&Failing| match f {
        Failing::WatchdogArm | Failing::WatchdogFeed | Failing::LeaseFile => true,
        // A full volume may be that of every node, and the log goes on in room of its own.
        Failing::FinalWord | Failing::LedgerLow | Failing::LedgerFull => false,
    };
    let row = case.seen.fresh(case.node)?;
    row.health.failing.iter().find(bars).copied().map(Objection::Failing)
}

fn another_copy(case: &Case) -> Option<Objection> {
    let copy = case.service()?.awaited_copy().filter(|copy| &copy.node != case.node)?;
    Some(Objection::AnotherCopyWins { node: copy.node.clone() })
}

fn to_be_copied(case: &Case) -> Option<Objection> {
    case.service()?.to_copy.contains_key(case.node).then_some(Objection::ToBeCopied)
}

fn unknown(case: &Case) -> Option<Objection> {
    (case.heard_of().is_some() && case.state().is_none()).then_some(Objection::Unknown)
}

fn no_running_standby(case: &Case) -> Option<Objection> {
    case.standby()?;
    case.state().filter(|state| *state != DbState::Standby).map(|state| Objection::NoRunningStandby { state })
}

fn not_startable(case: &Case) -> Option<Objection> {
    let Purpose::Resume { .. } = case.purpose else { return None };
    let startable = |state: &DbState| matches!(state, DbState::Stopped | DbState::Standby | DbState::Starting);
    case.state().filter(|state| !startable(state)).map(|state| Objection::NotStartable { state })
}

fn lineage(case: &Case) -> Option<Objection> {
    match case.purpose {
        Purpose::Appoint { .. } if case.is_accepted_copy() => None,
        Purpose::Appoint { service, report: Ok(seal), .. } => service.may_follow(seal).err().map(Objection::Ledger),
        _ => None,
    }
}

fn streams(case: &Case) -> Option<Objection> {
    let (name, from) = case.standby()?;
    case.seen.database(case.node, name).filter(|d| d.state == DbState::Standby)?;
    // By way of another standby, it may be.
    let streams_from = |node: &NodeName| case.seen.database(node, name).and_then(|d| d.streams_from.clone());
    let chain = std::iter::successors(streams_from(case.node), |node| streams_from(node));
    let leads_there = chain.take(case.seen.config.nodes.len()).any(|node| node == *from);
    (!leads_there).then(|| Objection::StreamsElsewhere { from: from.clone() })
}

/// Where one is chosen because there is no primary, it is no reason: it can be sealed and promoted.
fn file_fault(case: &Case) -> Option<Objection> {
    let (name, _) = case.standby()?;
    let fault = case.seen.database(case.node, name)?.file_fault.clone()?;
    Some(Objection::FileFault { fault })
}

/// Where one is chosen because there is no primary, it comes last, and is better than nobody: it goes on once there is room.
fn troubled(case: &Case) -> Option<Objection> {
    let (name, _) = case.standby()?;
    let trouble = case.seen.database(case.node, name)?.trouble.clone()?;
    trouble.is_of_the_volume().then_some(Objection::Troubled(trouble))
}

/// What a database lacks that goes on where it held the epoch, it lacked before as well.
fn unfit(case: &Case) -> Option<Objection> {
    let (Purpose::Appoint { name, .. } | Purpose::Switchover { name, .. } | Purpose::Failover { name, .. }) =
        case.purpose
    else {
        return None;
    };
    // A word for whoever has most is about its WAL alone.
    let word = case.service().and_then(|service| service.accepted_loss.as_ref());
    if case.is_accepted_copy() || word.is_some_and(|word| word.to.as_ref() == Some(case.node)) {
        return None;
    }
    let bars = &case.seen.config.services.get(name)?.bars;
    let found = case.seen.database(case.node, name)?.unfit.iter().find(|unfit| bars.contains(&unfit.kind()));
    found.cloned().map(Objection::Unfit)
}

fn end(case: &Case) -> Option<Objection> {
    match case.purpose {
        Purpose::Appoint { .. } if case.is_accepted_copy() => None,
        Purpose::Appoint { report: Ok(Seal { end, .. }), at_least: Some(wanted), .. } if end.lsn < wanted.lsn => {
            Some(Objection::BeforeFinalPosition { end: *end, wanted })
        }
        _ => None,
    }
}

/// How much of what is known of the last primary's WAL would be lost by a node that has everything up to `has`, where that
/// is too much and no person has accepted it. A clean end binds more tightly (`end`).
pub fn would_lose(seen: &Outlook, name: &ServiceName, node: &NodeName, has: Position) -> Option<Objection> {
    let max_lag = seen.config.failover.max_lag;
    let service = seen.state.services.get(name)?;
    let bytes = lacks(service, known_end(seen, name)?.end, has);
    (bytes > max_lag && !is_accepted(service, node)).then_some(Objection::WouldLose { bytes, max_lag })
}

fn is_accepted(service: &Service, node: &NodeName) -> bool {
    service.accepted_loss.as_ref().is_some_and(|word| word.is_for(node))
}

/// Nobody is promoted by itself on the word of long ago.
fn silence(case: &Case) -> Option<Objection> {
    let name = match case.purpose {
        Purpose::Appoint { name, at_least: None, .. } | Purpose::Failover { name, .. } => name,
        _ => return None,
    };
    let service = case.service()?;
    // Its own WAL it has.
    let wrote = service.history.last().is_some_and(|last| &last.node == case.node);
    let silent = known_end(case.seen, name)?.silent;
    let is_long = silent > case.seen.config.failover.max_silence;
    (is_long && !wrote && !is_accepted(service, case.node) && !case.is_accepted_copy())
        .then_some(Objection::EndUnknown { silent })
}

fn lag(case: &Case) -> Option<Objection> {
    let max_lag = case.seen.config.failover.max_lag;
    let behind = |ahead: Lsn, own: Lsn| Some(ahead.0.saturating_sub(own.0)).filter(|bytes| *bytes > max_lag);
    let standby = |name| case.seen.database(case.node, name).filter(|d| d.state == DbState::Standby);
    match case.purpose {
        _ if case.is_accepted_copy() => None,
        Purpose::Appoint { name, .. } | Purpose::Failover { name, .. }
            if case.seen.state.services.get(name).is_some_and(|service| is_accepted(service, case.node)) =>
        {
            None
        }
        Purpose::Appoint { report: Ok(seal), furthest, name, .. } => would_lose(case.seen, name, case.node, seal.end)
            .or_else(|| behind(furthest, seal.end.lsn).map(|bytes| Objection::BehindCandidate { bytes, max_lag })),
        Purpose::Failover { name, furthest, .. } => {
            let own = standby(name)?.position;
            let behind = || behind(furthest, own.lsn).map(|bytes| Objection::BehindCandidate { bytes, max_lag });
            would_lose(case.seen, name, case.node, own).or_else(behind)
        }
        Purpose::Switchover { name, from } => {
            let primary = case.seen.database(from, name)?;
            behind(primary.position.lsn, standby(name)?.position.lsn)
                .map(|bytes| Objection::BehindPrimary { bytes, max_lag })
        }
        // It held the last epoch, and where that was never installed another one wrote last.
        Purpose::Resume { name } if case.service()?.history.last().is_some_and(|last| &last.node != case.node) => {
            would_lose(case.seen, name, case.node, case.seen.database(case.node, name)?.position)
        }
        Purpose::Appoint { report: Err(_), .. } | Purpose::Resume { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::ledger::world_test::*;
    use crate::plan::{Applied, Row, Timing};
    use crate::types::{Health, Instant, ServiceHealth, Timeline};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const NOW: Instant = Instant(1_000_000_000_000);

    /// What w1 says of db1, which held the epoch, with this state of its database in heartbeats of this age.
    fn resumes(world: &World, state: Option<DbState>, age: Duration, fails: &[Failing]) -> Vec<Objection> {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "w1").expect("an example");
        let timing = Timing::new(&config);
        let database = |state| ServiceHealth {
            state,
            holds: None,
            writable: false,
            timeline: Timeline(1),
            position: at(1, 1000),
            streams_from: None,
            released: None,
            copy: None,
            network: None,
            replay: None,
            file_fault: None,
            trouble: None,
            pending_restart: Vec::new(),
            lowered: Vec::new(),
            unfit: Vec::new(),
        };
        let services = state.map(|state| (orders(), database(state))).into_iter().collect();
        let health = Health { services, failing: fails.iter().copied().collect(), ..Health::default() };
        let at = Instant(NOW.0 - age.as_nanos() as u64);
        let row = Row { at, incarnation: DB1, views: Arc::default(), health: Arc::new(health) };
        let rows = BTreeMap::from([(node("db1"), row)]);
        let (me, state) = (&config.node, &world.state);
        let seen = Outlook {
            now: NOW,
            me,
            state,
            config: &config,
            timing: &timing,
            applied: &Applied::default(),
            rows: &rows,
        };
        let all = objections(&seen, &node("db1"), Purpose::Resume { name: &orders() });
        assert_eq!(objection(&seen, &node("db1"), Purpose::Resume { name: &orders() }), all.first().cloned());
        all
    }

    #[test]
    fn a_former_holder_resumes_what_it_can_start() {
        let world = World::new();
        for state in [DbState::Stopped, DbState::Standby, DbState::Starting] {
            assert_eq!(resumes(&world, Some(state), Duration::ZERO, &[]), []);
        }
        for state in [DbState::Unclear, DbState::Absent, DbState::Unstartable, DbState::Primary, DbState::Stopping] {
            let against = resumes(&world, Some(state), Duration::ZERO, &[]);
            assert_eq!(against, [Objection::NotStartable { state }], "{state:?}");
        }
    }

    #[test]
    fn a_former_holder_of_which_nothing_is_heard_or_that_cannot_be_ended_does_not_resume() {
        let world = World::new();
        assert_eq!(resumes(&world, None, Duration::ZERO, &[]), [Objection::Unknown]);
        let minute = Duration::from_secs(60);
        assert_eq!(resumes(&world, Some(DbState::Stopped), minute, &[]), [Objection::Unknown]);
        let fails = [Failing::FinalWord, Failing::WatchdogArm];
        let against = resumes(&world, Some(DbState::Absent), Duration::ZERO, &fails);
        let absent = Objection::NotStartable { state: DbState::Absent };
        assert_eq!(against, [Objection::Failing(Failing::WatchdogArm), absent], "every reason is told");
        let dead = World::dead();
        let against = resumes(&dead, Some(DbState::Stopped), Duration::ZERO, &[]);
        assert_eq!(against, [Objection::Ledger(Ineligible::Dead)]);
    }

    #[test]
    fn a_node_that_hears_nobody_on_a_network_is_no_candidate() {
        use crate::types::{ChannelName, PeerView, Sight};
        let world = World::new();
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "w1").expect("an example");
        let timing = Timing::new(&config);
        let deaf = |primary, disk| {
            let channels = [(ChannelName::primary(), primary), (ChannelName::disk(), disk)].into();
            let view = PeerView { channels, ..sees(DB1, "uuu").view };
            let views = Arc::new(BTreeMap::from([(node("db1"), view)]));
            let row = Row { at: NOW, incarnation: DB2, views, health: Arc::default() };
            let rows = BTreeMap::from([(node("db2"), row)]);
            let (me, state) = (&config.node, &world.state);
            let seen = Outlook {
                now: NOW,
                me,
                state,
                config: &config,
                timing: &timing,
                applied: &Applied::default(),
                rows: &rows,
            };
            objections(&seen, &node("db2"), Purpose::Resume { name: &orders() }).contains(&Objection::Deaf)
        };
        assert!(!deaf(Sight::Up, Sight::Lost));
        assert!(deaf(Sight::Lost, Sight::Up), "the disk alone brings it no appointment");
        assert!(deaf(Sight::Blind, Sight::Blind), "its own cards");
        let row = |self_doubt| {
            let health = Arc::new(Health { self_doubt, ..Health::default() });
            let view = PeerView { channels: [(ChannelName::primary(), Sight::Blind)].into(), ..sees(DB1, "uuu").view };
            let views = Arc::new(BTreeMap::from([(node("db1"), view)]));
            BTreeMap::from([(node("db2"), Row { at: NOW, incarnation: DB2, views, health })])
        };
        let is_deaf = |rows: &BTreeMap<NodeName, Row>, me: &NodeName| {
            let state = &world.state;
            Outlook { now: NOW, me, state, config: &config, timing: &timing, applied: &Applied::default(), rows }
                .is_deaf(&node("db2"))
        };
        assert!(is_deaf(&row(false), &node("w1")));
        assert!(!is_deaf(&row(true), &node("w1")), "it only stood still");
        assert!(!is_deaf(&row(false), &node("db2")), "a leader is answered by a quorum");
    }

    /// w1 hears db1 alone: to fence either of them would leave nobody to confirm it.
    #[test]
    fn whoever_a_majority_needs_is_told_from_whom_it_does_not() {
        let world = World::new();
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "w1").expect("an example");
        let timing = Timing::new(&config);
        let needed = |db2: &str| {
            let views = BTreeMap::from([(node("db1"), sees(DB1, "uuu").view), (node("db2"), sees(DB2, db2).view)]);
            let row = Row { at: NOW, incarnation: W1, views: Arc::new(views), health: Arc::default() };
            let rows = BTreeMap::from([(node("w1"), row)]);
            let (me, state) = (&config.node, &world.state);
            let seen = Outlook {
                now: NOW,
                me,
                state,
                config: &config,
                timing: &timing,
                applied: &Applied::default(),
                rows: &rows,
            };
            ["db1", "db2", "w1"].map(|name| seen.needs_for_majority(&node(name)))
        };
        assert_eq!(needed("uuu"), [false; 3], "one of three may be lost");
        assert_eq!(needed("lll"), [true, false, true]);
    }

    /// Heartbeats come from a node whose certificate has expired, or whose log disk hangs. It acknowledges nothing.
    #[test]
    fn a_vote_counts_only_where_raft_can_count_on_it() {
        let world = World::new();
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "w1").expect("an example");
        let timing = Timing::new(&config);
        let margin = |of_db2: Health| {
            let views = BTreeMap::from([(node("db1"), sees(DB1, "uuu").view), (node("db2"), sees(DB2, "uuu").view)]);
            let row = |incarnation, views, health| Row { at: NOW, incarnation, views, health: Arc::new(health) };
            let follows = Health { follows: Some(node("w1")), ..Health::default() };
            let rows = BTreeMap::from([
                (node("w1"), row(W1, Arc::new(views), follows)),
                (node("db2"), row(DB2, Arc::default(), of_db2)),
            ]);
            let (me, state) = (&config.node, &world.state);
            Outlook { now: NOW, me, state, config: &config, timing: &timing, applied: &Applied::default(), rows: &rows }
                .margin()
        };
        let follows = |leader: Option<&str>| Health { follows: leader.map(node), ..Health::default() };
        assert_eq!(margin(follows(Some("w1"))), 1);
        assert_eq!(margin(follows(None)), 0, "it stands for election, again and again");
        assert_eq!(margin(follows(Some("db1"))), 0);
        assert_eq!(margin(Health { log_write: Duration::from_secs(5), ..follows(Some("w1")) }), 0);
    }
}
