//! Would a failover succeed now, and if not, why: the standing answer of `status`, by the same objections as the real
//! choice (`objection.rs`).
//!
//! Not here: any decision. Nobody acts on it, and every node answers from what it sees itself.

use super::known_end::{known_end, lacks};
use super::objection::{Objection, Purpose, objections};
use super::{Outlook, stands_aside};
use crate::ledger::{FenceState, Phase, Service};
use crate::types::{AgentName, DbState, Failing, FileFault, NodeName, ReplayLag, ServiceName, Size, Span, Unfit};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What this node knows besides the ledger and the heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Somebody is known to lead.
    pub has_leader: bool,
    /// What fails on this very node, with its reason.
    pub own_failing: BTreeMap<Failing, String>,
    /// Fence devices, with their target, whose last monitor failed.
    pub broken_devices: Vec<(AgentName, NodeName)>,
    /// For how long each standby of the service has lacked something of what the primary is known to have written.
    pub behind: BTreeMap<NodeName, Duration>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// A failover would succeed now.
    pub failover_ready: bool,
    /// And after it another one.
    pub survives_one_more: bool,
    /// How many bytes of WAL the standby lacks that lacks least, of what the primary is known to have written: what a
    /// failover would lose, and what was committed since the last heartbeat.
    pub would_lose: Option<u64>,
    /// For how long that standby has lacked something: so old is the first commit that would be lost.
    pub would_lose_for: Option<Duration>,
    /// Why not; where it is ready all the same, what is broken or lacking.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No epoch was ever begun.
    NeverCreated {
        service: ServiceName,
    },
    NoLeader,
    /// The primary's host would take the majority with it.
    NoMajorityLeft,
    /// A daemon cannot do what it must: the primary's, or that of a node that could not take over therefore.
    Fails {
        node: NodeName,
        what: Failing,
        why: Option<String>,
    },
    /// A line of the primary's files that PostgreSQL does not take: it could not come back.
    FileFault {
        node: NodeName,
        fault: FileFault,
    },
    /// No other node keeps a database.
    NoOtherDatabase,
    /// This node could not take over.
    Candidate {
        node: NodeName,
        why: Objection,
    },
    /// This node could take over, and has lacked something for longer than may be (`failover.max_lag_time`).
    BehindFor {
        node: NodeName,
        behind: Duration,
        limit: Duration,
    },
    /// This node could take over, and lacks something all the same.
    Lacks {
        node: NodeName,
        what: Unfit,
    },
    Paused,
    BeingFenced {
        node: NodeName,
        state: FenceState,
    },
    NoPrimary,
    BrokenDevice {
        agent: AgentName,
        target: NodeName,
    },
    OtherFile {
        node: NodeName,
        than: NodeName,
    },
    /// So often within the hour that a database which dies is not left for a standby any more.
    MovesSpent {
        moves: usize,
    },
    /// What it received counts, and it has that; but a promotion waits for what is not replayed.
    ReplayStands {
        node: NodeName,
        lag: ReplayLag,
    },
    /// It would succeed once.
    OnlyOnce,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NeverCreated { service } => write!(f, "{service} has no primary yet"),
            Reason::NoLeader => f.write_str("no leader is known"),
            Reason::NoMajorityLeft => f.write_str("no majority of voters would be left without the primary's host"),
            Reason::Fails { node, what, why: Some(why) } => write!(f, "{node}: {what}: {why}"),
            Reason::Fails { node, what, why: None } => write!(f, "{node}: {what}"),
            Reason::FileFault { node, fault } => write!(f, "{node}: {fault}"),
            Reason::NoOtherDatabase => f.write_str("no other node keeps a database"),
            Reason::Candidate { node, why } => write!(f, "{node}: {why}"),
            Reason::BehindFor { node, behind, limit } => write!(
                f,
                "{node}: it has lacked something of the WAL that the primary wrote for {} s, longer than max_lag_time ({})",
                behind.as_secs(),
                Span(*limit)
            ),
            Reason::Lacks { node, what } => write!(f, "{node} could take over, but {what}: {}", what.cure()),
            Reason::Paused => f.write_str("the service is paused"),
            Reason::BeingFenced { node, state } => write!(f, "{node} is being fenced ({state})"),
            Reason::NoPrimary => f.write_str("no primary takes writes at present"),
            Reason::BrokenDevice { agent, target } => write!(f, "{agent} for {target} failed its monitor"),
            Reason::OtherFile { node, than } => write!(f, "{node} runs with another configuration file than {than}"),
            Reason::MovesSpent { moves } => write!(
                f,
                "it moved {moves} times within the hour (max_per_hour): a database that dies is restarted in place"
            ),
            Reason::ReplayStands { node, lag } => write!(
                f,
                "{node}: its replay has stood still for {} s with {} left, for which a promotion waits (`regent switchover \
                 --dry-run` names what holds it up)",
                lag.still,
                Size(lag.bytes)
            ),
            Reason::OnlyOnce => f.write_str("one more failure would leave no majority or no candidate"),
        }
    }
}

/// The judgement.
pub fn judge(seen: &Outlook, beside: &Beside, name: &ServiceName) -> Readiness {
    let Some(service) = seen.state.services.get(name) else {
        let reasons = vec![Reason::NeverCreated { service: name.clone() }];
        return Readiness {
            failover_ready: false,
            survives_one_more: false,
            would_lose: None,
            would_lose_for: None,
            reasons,
        };
    };
    let holder = service.holder.as_ref().map(|h| &h.node);
    let (able, against) = holder.map_or((Vec::new(), Vec::new()), |from| candidates(seen, beside, name, from));
    let margin = seen.margin();
    let mut reasons = Vec::new();
    if !beside.has_leader {
        reasons.push(Reason::NoLeader);
    }
    if holder.map_or(margin < 0, |node| seen.needs_for_majority(node)) {
        reasons.push(Reason::NoMajorityLeft);
    }
    let fails = holder.into_iter().flat_map(|node| failing(seen, beside, node));
    let (soon, now): (Vec<_>, Vec<_>) = fails.partition(is_yet_to_come);
    reasons.extend(now);
    let fault = holder.and_then(|node| Some((node.clone(), seen.database(node, name)?.file_fault.clone()?)));
    reasons.extend(fault.map(|(node, fault)| Reason::FileFault { node, fault }));
    if able.is_empty() && against.is_empty() {
        reasons.push(Reason::NoOtherDatabase);
    } else if able.is_empty() {
        reasons.extend(against.iter().cloned());
    }
    reasons.extend(besides(seen, beside, service));
    let failover_ready = reasons.is_empty();
    let survives_one_more = failover_ready && margin >= 2 && able.len() >= 2;
    if failover_ready && !survives_one_more {
        reasons.push(Reason::OnlyOnce);
    }
    if failover_ready {
        let counts = |reason: &Reason| !matches!(reason, Reason::Candidate { node, .. } if aside(seen, name, node));
        reasons.extend(against.into_iter().filter(counts));
        reasons.extend(moves_spent(seen, name));
        reasons.extend(lacks_of(seen, name, &able));
        reasons.extend(other_files(seen));
    }
    reasons.extend(soon);
    reasons.extend(replay_stands(seen, name, holder));
    let best = holder.and_then(|from| lacks_least(seen, name, service, from));
    let would_lose_for = best.and_then(|(_, node)| beside.behind.get(node).copied());
    Readiness { failover_ready, survives_one_more, would_lose: best.map(|(bytes, _)| bytes), would_lose_for, reasons }
}

/// How many bytes the standby lacks that lacks least, and which one that is.
fn lacks_least<'a>(
    seen: &Outlook<'a>,
    name: &ServiceName,
    service: &Service,
    from: &NodeName,
) -> Option<(u64, &'a NodeName)> {
    let known = known_end(seen, name)?;
    let others = seen.state.settings.iter().flat_map(|settings| settings.database_nodes()).filter(|node| *node != from);
    let counted = others.filter(|node| !aside(seen, name, node));
    let databases = counted.filter_map(|node| Some((seen.database(node, name)?, node)));
    let standbys = databases.filter(|(database, _)| database.state == DbState::Standby);
    standbys.map(|(standby, node)| (lacks(service, known.end, standby.position), node)).min()
}

/// Whose replay does not get on, though nobody told it to wait.
fn replay_stands(seen: &Outlook, name: &ServiceName, holder: Option<&NodeName>) -> Vec<Reason> {
    let others = seen.state.settings.iter().flat_map(|settings| settings.database_nodes());
    let others = others.filter(|node| Some(*node) != holder && !aside(seen, name, node));
    let lags = others.filter_map(|node| Some((node, seen.database(node, name)?.replay?)));
    let standing = lags.filter(|(_, lag)| lag.stands());
    standing.map(|(node, lag)| Reason::ReplayStands { node: node.clone(), lag }).collect()
}

fn aside(seen: &Outlook, name: &ServiceName, node: &NodeName) -> bool {
    stands_aside(seen.state, seen.config, name, node)
}

/// A database that dies is restarted in place, and not left for a standby that has all of it, until an hour has passed.
fn moves_spent(seen: &Outlook, name: &ServiceName) -> Option<Reason> {
    let (moves, most) = (seen.applied.moves_of(name, seen.now), seen.config.failover.max_per_hour);
    (moves > 0 && moves >= most as usize).then_some(Reason::MovesSpent { moves })
}

/// The nodes that could take over from `from` now.
pub(super) fn able<'a>(seen: &Outlook<'a>, name: &ServiceName, from: &NodeName) -> Vec<&'a NodeName> {
    candidates(seen, &Beside::default(), name, from).0
}

/// Who could take over, and what speaks against the others.
fn candidates<'a>(
    seen: &Outlook<'a>,
    beside: &Beside,
    name: &ServiceName,
    from: &NodeName,
) -> (Vec<&'a NodeName>, Vec<Reason>) {
    let others = seen.state.settings.iter().flat_map(|settings| settings.database_nodes()).filter(|node| *node != from);
    let others: Vec<&NodeName> = others.collect();
    let ends = others
        .iter()
        .filter(|node| !aside(seen, name, node))
        .filter_map(|node| seen.database(node, name))
        .filter(|d| d.state == DbState::Standby);
    let furthest = ends.map(|d| d.position.lsn).max().unwrap_or_default();
    let limit = seen.config.failover.max_lag_time;
    let (mut able, mut against) = (Vec::new(), Vec::new());
    for node in others {
        let all = objections(seen, node, Purpose::Failover { name, from, furthest });
        let behind = beside.behind.get(node).copied().filter(|behind| *behind > limit && all.is_empty());
        if all.is_empty() && behind.is_none() {
            able.push(node);
        }
        against.extend(behind.map(|behind| Reason::BehindFor { node: node.clone(), behind, limit }));
        against.extend(all.into_iter().map(|why| match why {
            Objection::Failing(what) => fails(seen, beside, node, what),
            why => Reason::Candidate { node: node.clone(), why },
        }));
    }
    (able, against)
}

/// What those lack that could take over all the same.
fn lacks_of(seen: &Outlook, name: &ServiceName, able: &[&NodeName]) -> Vec<Reason> {
    let unfit = able.iter().filter_map(|node| Some((*node, &seen.database(node, name)?.unfit)));
    let each = unfit.flat_map(|(node, unfit)| unfit.iter().map(move |what| (node, what)));
    each.map(|(node, what)| Reason::Lacks { node: node.clone(), what: what.clone() }).collect()
}

/// What the primary's daemon must do for safety and cannot do at present, as it says itself.
fn failing(seen: &Outlook, beside: &Beside, node: &NodeName) -> Vec<Reason> {
    if node == seen.me {
        return beside.own_failing.keys().map(|what| fails(seen, beside, node, *what)).collect();
    }
    let row = seen.present(node).into_iter();
    row.flat_map(|row| &row.health.failing).map(|what| fails(seen, beside, node, *what)).collect()
}

/// What would hinder nobody now.
fn is_yet_to_come(reason: &Reason) -> bool {
    matches!(reason, Reason::Fails { what: Failing::LedgerLow, .. })
}

/// The cause is known of this very node alone.
fn fails(seen: &Outlook, beside: &Beside, node: &NodeName, what: Failing) -> Reason {
    let why = beside.own_failing.get(&what).filter(|_| node == seen.me).cloned();
    Reason::Fails { node: node.clone(), what, why }
}

/// What stands in the way besides voters and candidates.
fn besides(seen: &Outlook, beside: &Beside, service: &Service) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if service.paused {
        reasons.push(Reason::Paused);
    }
    if let Some(fence) = seen.state.fence_of(service) {
        reasons.push(Reason::BeingFenced { node: fence.target.clone(), state: fence.state });
    } else if service.over.is_some() || service.phase != Phase::Installed {
        reasons.push(Reason::NoPrimary);
    }
    let holder = service.holder.as_ref().map(|h| &h.node);
    let broken = beside.broken_devices.iter().filter(|(_, target)| Some(target) == holder);
    reasons.extend(broken.map(|(agent, target)| Reason::BrokenDevice { agent: agent.clone(), target: target.clone() }));
    reasons
}

/// Whose file differs from this node's: it would take over with its own all the same, as what safety rests on stands in
/// the ledger.
fn other_files(seen: &Outlook) -> impl Iterator<Item = Reason> {
    let differs = |node: &&NodeName| seen.present(node).is_some_and(|row| row.health.config_hash != seen.config.hash);
    let others = seen.config.nodes.keys().filter(differs);
    others.map(|node| Reason::OtherFile { node: node.clone(), than: seen.me.clone() })
}
