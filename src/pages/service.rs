//! One service on the page: where it stands, whose lease it is, how its databases are, and what is being done. And the
//! plan's answers about it, as the admin socket carries them.
//!
//! Not here: whether a failover or a move would succeed (`plan/readiness.rs`, `plan/switchover.rs`).

use super::survey::Behind;
use super::{Known, OwnDatabase, copy, is_ok, survey};
use crate::api::admin::{Check, Response};
use crate::api::status::{
    DatabaseStatus, KeptStatus, LeaseStatus, PauseStatus, Phase, Readiness, ReplayStatus, ServiceStatus, UnfitStatus,
};
use crate::config::Role;
use crate::ledger::{self, Life, Service, State};
use crate::plan::accepted_copy::{Acceptance, Unacceptable};
use crate::plan::note::Note;
use crate::plan::readiness::{self, Beside};
use crate::plan::switchover::{Hindrance, Switchover};
use crate::types::{
    DbState, Epoch, KeptFolder, NodeName, ReplayLag, ServiceHealth, ServiceName, Survey, Trouble, TroubleKind, Unfit,
};
use std::collections::BTreeMap;

/// A configured service.
pub(super) fn status(known: &Known, alarms: &[Note], name: &ServiceName) -> ServiceStatus {
    let state = known.seen.state;
    let record = state.services.get(name);
    let primary = record.and_then(|s| s.holder.as_ref()).map(|h| &h.node);
    ServiceStatus {
        phase: phase(state, alarms, name),
        primary: primary.cloned(),
        epoch: record.map_or(Epoch(0), |s| s.epoch),
        lease: record.and_then(|service| lease(known, name, service)),
        databases: databases(known, name, primary),
        takes_writes: takes_writes(known, name),
        readiness: readiness(known, name),
        pause: pause(known, name),
        what_now: what_now(known, name),
    }
}

/// Whether its primary said lately that it took a write; not known where none is installed, or nothing is heard of it.
fn takes_writes(known: &Known, name: &ServiceName) -> Option<bool> {
    let service = known.seen.state.services.get(name)?;
    let installed = service.phase == ledger::Phase::Installed && service.over.is_none();
    let primary = service.holder.as_ref().filter(|_| installed)?;
    let database = known.seen.database(&primary.node, name)?;
    Some(database.state == DbState::Primary && database.writable)
}

/// The word for its pause. Where this node has not seen it begin, its whole time is shown as left.
fn pause(known: &Known, name: &ServiceName) -> Option<PauseStatus> {
    let seen = &known.seen;
    let word = seen.state.services.get(name)?.pause.as_ref()?;
    let began = seen.applied.paused.get(name).copied();
    let left = word.lasts.map(|lasts| (began.unwrap_or(seen.now) + lasts).since(seen.now));
    Some(PauseStatus {
        who: word.who.clone(),
        reason: word.why.clone(),
        lasted_ms: began.map(|began| seen.now.since(began).as_millis() as u64),
        left_ms: left.map(|left| left.as_millis() as u64),
    })
}

/// Where it stands. What holds it up goes before what its epoch has come to.
fn phase(state: &State, alarms: &[Note], name: &ServiceName) -> Phase {
    let Some(service) = state.services.get(name) else { return Phase::Unmanaged };
    let is_lapsed = |alarm: &Note| matches!(alarm, Note::Lapsed { service, .. } if service == name);
    if service.paused {
        return Phase::Paused;
    }
    if service.over.is_some() {
        return Phase::Vacant;
    }
    if state.fence_of(service).is_some() {
        return Phase::Fencing;
    }
    if alarms.iter().any(is_lapsed) {
        return Phase::Lapsed;
    }
    match service.phase {
        ledger::Phase::Creating | ledger::Phase::Appointed => Phase::Appointed,
        ledger::Phase::Promoting { .. } => Phase::Promoting,
        ledger::Phase::Installed => Phase::Installed,
    }
}

/// The lease of the present epoch, and for how long its holder may still write at most. The holder counts what it may use
/// itself; the leader what everybody else waits, from when it granted the last renewal: drift, the watchdog of a host that
/// hangs and the stop ladder included, so that nobody believes it over too early (S5). A pause holds it open: it has no end
/// then, nor before the first renewal after it.
fn lease(known: &Known, name: &ServiceName, service: &Service) -> Option<LeaseStatus> {
    let holder = service.holder.as_ref().filter(|_| service.over.is_none())?;
    let wait = known.seen.state.settings.as_ref()?.lease_wait();
    let until = if &holder.node == known.seen.me {
        let own = known.own.get(name).and_then(|own| own.lease.as_ref());
        own.filter(|(epoch, _)| *epoch == service.epoch).and_then(|(_, until)| *until)
    } else {
        known.renewed.get(name).filter(|(epoch, _)| *epoch == service.epoch).map(|(_, at)| *at + wait)
    };
    let held_open = service.paused || service.unproven_resume.is_some();
    let remaining = until.filter(|_| !held_open).map(|until| until.since(known.seen.now));
    Some(LeaseStatus { holder: holder.node.clone(), remaining_ms: remaining.map(|left| left.as_millis() as u64) })
}

/// Said of a copy on a node that is declared dead: it may be anything by now.
const OF_THE_DEAD: &str = "its node is declared dead; its position is what it said last";

/// Every copy, as its node said last, whenever that was. What a dead node's copy is nobody knows.
fn databases(known: &Known, name: &ServiceName, primary: Option<&NodeName>) -> BTreeMap<NodeName, DatabaseStatus> {
    let seen = &known.seen;
    let health = |node: &NodeName| seen.rows.get(node).and_then(|row| row.health.services.get(name));
    let end = primary.and_then(health).map(|health| health.position.lsn);
    let record = seen.state.services.get(name);
    let ordered = |node: &NodeName| record.and_then(|s| s.restart_of(node)).map(|order| order.who.clone());
    let one = |node: &NodeName| {
        let found = health(node);
        let behind = found.filter(|_| primary != Some(node)).zip(end);
        let own = known.own.get(name).filter(|_| node == seen.me);
        // What left in order is as it said last.
        let is_dead = seen.state.nodes.get(node).is_some_and(|record| record.life == Life::Dead)
            && !super::node::has_left(seen, node);
        let lives = found.filter(|_| !is_dead);
        DatabaseStatus {
            state: found.filter(|_| !is_dead).map_or(DbState::Unclear, |health| health.state),
            timeline: found.map(|health| health.timeline).unwrap_or_default(),
            position: found.map(|health| health.position.lsn),
            lag_bytes: behind.map(|(health, end)| end.0.saturating_sub(health.position.lsn.0)),
            streams_from: found.filter(|_| !is_dead).and_then(|health| health.streams_from.clone()),
            network: found.filter(|_| !is_dead).and_then(|health| health.network),
            replay: found.filter(|_| !is_dead).and_then(|health| health.replay).map(replay),
            trouble: own
                .and_then(|own| trouble(known, name, own))
                .or(lives.and_then(|health| health.trouble.as_ref()).map(|trouble| by_policy(known, name, trouble)))
                .or(found.filter(|_| is_dead).map(|_| OF_THE_DEAD.to_owned())),
            copy: match own {
                Some(own) => copy::own(own, seen.now),
                None => found.filter(|_| !is_dead).and_then(|health| copy::of_another(health.copy?)),
            },
            kept: own.iter().flat_map(|own| &own.kept).map(|kept| kept_status(known, kept)).collect(),
            file_fault: lives.and_then(|health| health.file_fault.as_ref()).map(ToString::to_string),
            pending_restart: lives.map(|health| health.pending_restart.clone()).unwrap_or_default(),
            lowered: lives.map(|health| health.lowered.clone()).unwrap_or_default(),
            restart_ordered: ordered(node),
            copy_ordered: record.and_then(|s| s.to_copy.get(node)).map(|order| order.who.clone()),
            overridden: own.map(|own| own.overridden.clone()).unwrap_or_default(),
            unfit: found.filter(|_| !is_dead).map_or(Vec::new(), |health| unfit(known, name, health)),
        }
    };
    let nodes = seen.config.nodes.iter().filter(|(_, node)| node.role == Role::Database);
    nodes.map(|(node, _)| (node.clone(), one(node))).collect()
}

fn kept_status(known: &Known, kept: &KeptFolder) -> KeptStatus {
    let KeptFolder { folder, bytes, made, named } = kept;
    let age_seconds = made.map(|made| known.answered_at.0.saturating_sub(made.0) / 1000);
    KeptStatus { folder: folder.clone(), bytes: *bytes, age_seconds, named: *named }
}

fn replay(lag: ReplayLag) -> ReplayStatus {
    let ReplayLag { bytes, seconds, still, delay } = lag;
    ReplayStatus { bytes, seconds, still_seconds: still, delay_seconds: delay }
}

/// What is wrong with an own database: what is seen of it, before what went wrong last.
fn trouble(known: &Known, name: &ServiceName, own: &OwnDatabase) -> Option<String> {
    // Why it was not copied is told with the copy.
    let is_told = |error: &String| own.failed_copy.as_ref().is_some_and(|failed| failed.error == *error);
    let seen = own.trouble.as_ref().map(|trouble| by_policy(known, name, trouble));
    seen.or(own.last_error.clone().filter(|error| !is_told(error)))
}

/// The trouble, and what the file says is done about it on the primary.
fn by_policy(known: &Known, name: &ServiceName, trouble: &Trouble) -> String {
    let policy = |kind: TroubleKind| {
        let policy = known.seen.config.services[name].troubles.policy(kind).word();
        format!("{trouble} (trouble.{} = \"{policy}\")", kind.key())
    };
    trouble.kind().map_or_else(|| trouble.to_string(), policy)
}

/// What a database lacks. What the primary lacks bars nobody now.
fn unfit(known: &Known, name: &ServiceName, health: &ServiceHealth) -> Vec<UnfitStatus> {
    let bars = &known.seen.config.services[name].bars;
    let one = |unfit: &Unfit| UnfitStatus {
        kind: unfit.kind(),
        bars: health.state != DbState::Primary && bars.contains(&unfit.kind()),
        what: unfit.to_string(),
        cure: unfit.cure(),
    };
    health.unfit.iter().map(one).collect()
}

/// Would a failover succeed now, and if not, why.
fn readiness(known: &Known, name: &ServiceName) -> Readiness {
    let failed = known.monitors.iter().filter(|(_, (_, run))| !is_ok(run.outcome));
    let beside = Beside {
        has_leader: known.leader.is_some(),
        own_failing: known.failing.clone(),
        broken_devices: failed.map(|(device, _)| device.clone()).collect(),
        behind: known.behind.get(name).cloned().unwrap_or_default(),
    };
    let judged = readiness::judge(&known.seen, &beside, name);
    let readiness::Readiness { failover_ready, survives_one_more, would_lose, would_lose_for, reasons } = judged;
    let reasons = reasons.iter().map(ToString::to_string).collect();
    Readiness {
        failover_ready,
        survives_one_more,
        would_lose_bytes: would_lose,
        would_lose_seconds: would_lose_for.map(|time| time.as_secs()),
        reasons,
    }
}

/// What the coordinator, Raft and this node's keeper do and wait for: for this service, or for all.
fn what_now(known: &Known, name: &ServiceName) -> Vec<String> {
    let is_anothers = |note: &Note| note.subject().service.is_some_and(|service| service != *name);
    let notes = known.notes.iter().filter(|note| !is_anothers(note)).map(ToString::to_string);
    let step = known.own.get(name).and_then(|own| own.step.as_ref());
    let step = step.map(|step| format!("{}: {}", known.seen.me, step.now()));
    notes.chain(known.waiting.iter().cloned()).chain(step).collect()
}

/// A copy that is to win: what would happen, or what keeps the word from being taken.
pub fn accepted_copy(decided: &Result<Acceptance, Vec<Unacceptable>>) -> Response {
    match decided {
        Ok(planned) => Response::Plan { steps: planned.steps(), checks: Vec::new() },
        Err(why) => {
            let checks = why.iter().map(Check::failed).collect();
            Response::Plan { steps: Vec::new(), checks }
        }
    }
}

/// A dry run of a move that would be begun: what would happen, and what it would meet on the two databases, as far as they
/// said. `behind`: for how long the target has lacked something.
pub fn dry_run(planned: &Switchover, behind: Option<Behind>, said: &[(NodeName, Result<Survey, String>)]) -> Response {
    let met = said.iter().flat_map(|(node, said)| survey::checks(planned, node, said));
    let late = behind.and_then(|behind| survey::behind(planned, behind));
    let checks = std::iter::once(Check::passed(planned)).chain(late).chain(met).collect();
    Response::Plan { steps: planned.steps().iter().map(ToString::to_string).collect(), checks }
}

/// A dry run of a move that would not be begun: what keeps it from that.
pub fn refused_dry_run(why: &[Hindrance]) -> Response {
    Response::Plan { steps: Vec::new(), checks: why.iter().map(Check::failed).collect() }
}
