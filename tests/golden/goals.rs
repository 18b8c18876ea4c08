//! What the ledger can want of a database node, and the proof that its keeper gets there from every state that a
//! database can be in: with an engine that does what it is told it comes to rest in the state that is wanted, or it has
//! given the epoch back, so that the coordinator can choose somebody else.

use crate::commands::{SYSTEM, history, orders, present};
use crate::desk::Desk;
use crate::keeping::{perform, renew, step};
use crate::story::{Line, Stage};
use regent::ledger::{Life, Phase, State};
use regent::plan::keeper::{Local, Step};
use regent::types::{DbAction, DbState, Lsn, NodeName, Observation, Position, ServiceName, Timeline};
use std::fmt::Write as _;
use std::time::Duration;

/// What is wanted of one database node for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// No epoch yet: whatever runs is left alone.
    Unmanaged,
    /// Make the database, under epoch 1 or the one after a failed try.
    MakeIt,
    /// Appointed: become the primary.
    TakeOver,
    /// The primary, and to go on.
    GoOn,
    /// The primary, and to stop in order for a switchover.
    HandOver,
    /// The primary in a pause: to be left as it is.
    GoOnPaused,
    /// A standby of the present primary.
    Follow,
    /// Nobody to follow: the epoch is over, or its holder is dead or not installed.
    StandBy,
}

/// Every goal, in order.
pub const GOALS: &[Goal] = &[
    Goal::Unmanaged,
    Goal::MakeIt,
    Goal::TakeOver,
    Goal::GoOn,
    Goal::HandOver,
    Goal::GoOnPaused,
    Goal::Follow,
    Goal::StandBy,
];

/// What the ledger wants of the node. Total: whatever a coordinator can bring about has a goal for everybody.
pub fn goal(state: &State, service: &ServiceName, node: &NodeName) -> Goal {
    let Some(s) = state.services.get(service) else { return Goal::Unmanaged };
    let holder = s.holder.as_ref().expect("a service has a holder");
    let there = state.present(&holder.node, holder.incarnation).is_some_and(|n| n.life == Life::Up);
    if s.over.is_some() || !there {
        return Goal::StandBy;
    }
    match (&holder.node == node, s.phase) {
        (false, Phase::Installed) => Goal::Follow,
        (false, _) => Goal::StandBy,
        (true, _) if s.moving.is_some() => Goal::HandOver,
        (true, Phase::Creating) => Goal::MakeIt,
        (true, Phase::Installed) if s.paused => Goal::GoOnPaused,
        (true, Phase::Installed) => Goal::GoOn,
        (true, Phase::Appointed | Phase::Promoting { .. }) => Goal::TakeOver,
    }
}

/// A ledger that wants this of db2.
fn wanting(goal: Goal) -> Desk {
    let start = match goal {
        Goal::Unmanaged | Goal::MakeIt => "given started",
        _ => "given running",
    };
    let lines: &[&str] = match goal {
        Goal::Unmanaged | Goal::Follow => &[],
        Goal::MakeIt => &["create db2"],
        Goal::TakeOver => &["release db1 at=1:0/1000", "appoint db2 sealed=db2@1:0/1000"],
        Goal::StandBy => &["release db1 at=1:0/1000"],
        Goal::GoOn | Goal::HandOver | Goal::GoOnPaused => &[
            "release db1 at=1:0/1000",
            "appoint db2 sealed=db2@1:0/1000",
            "promoting db2",
            "installed db2 at=2:0/1000",
        ],
    };
    let last = match goal {
        Goal::HandOver => Some("switchover to=db1"),
        Goal::GoOnPaused => Some("pause"),
        _ => None,
    };
    let mut desk = Desk::new();
    for text in [start].iter().chain(lines).copied().chain(last) {
        let shown = desk.run(&Line::new(text));
        assert!(!shown.contains("REFUSED"), "{text}: {shown}");
    }
    assert_eq!(self::goal(&desk.state, &orders(), &"db2".parse().expect("valid")), goal);
    desk
}

/// Where a database can be when a goal is set: in words, and as a keeper sees it.
fn starts(goal: Goal) -> Vec<(&'static str, Local)> {
    let on = if matches!(goal, Goal::GoOn | Goal::HandOver | Goal::GoOnPaused) { 2 } else { 1 };
    let at = Position { timeline: Timeline(on), lsn: Lsn(0x1000) };
    let seen = |state| {
        let history = history(at.timeline);
        Observation { state, system: Some(SYSTEM), position: at, history, ..Observation::unclear() }
    };
    let db1: NodeName = "db1".parse().expect("valid");
    let standby = Observation { follows: Some(db1.clone()), streams_from: Some(db1), ..seen(DbState::Standby) };
    let in_recovery = |state| Observation { starts_in_recovery: true, ..seen(state) };
    let writes = Observation { writable: true, ..seen(DbState::Primary) };
    let of = |seen| Local { seen, ..Local::default() };
    let opened = |seen| Local { seen, started_as_primary: true, ..Local::default() };
    vec![
        ("nothing in its directory", of(Observation { system: None, ..seen(DbState::Absent) })),
        ("a directory left by an unfinished rewind", of(seen(DbState::Unstartable))),
        ("stopped as a primary", of(seen(DbState::Stopped))),
        ("stopped as a standby", of(in_recovery(DbState::Stopped))),
        ("starting as a standby", of(in_recovery(DbState::Starting))),
        ("starting for writes", opened(seen(DbState::Starting))),
        ("a standby of db1", of(standby)),
        ("a standby of nobody", of(in_recovery(DbState::Standby))),
        ("open for writes", opened(writes)),
        ("on its way down", of(seen(DbState::Stopping))),
        ("not looked at yet", of(seen(DbState::Unclear))),
    ]
}

/// How a run of the keeper ended.
struct Way {
    steps: Vec<String>,
    state: State,
    local: Local,
}

/// The keeper of db2, step by step, until it rests: nothing changes any more, also not with time.
fn walk(mut desk: Desk, mut local: Local) -> Way {
    let node: NodeName = "db2".parse().expect("valid");
    let mut steps = Vec::new();
    let patience = desk.config.failover.install + Duration::from_secs(5);
    let mut rest = 0;
    local.install_since = desk.state.services.get(&orders()).map(|s| (s.epoch, desk.now));
    for _ in 0..200 {
        renew(&desk.config, &desk.state, &node, &mut local, desk.now);
        let next = step(&desk.config, &desk.state, &node, &local, desk.now, true);
        let before = local.seen.state;
        let command = perform(&desk.state, &node, &mut local, &next);
        if let Step::Db(DbAction::Checkpoint) = next {
            local.checkpointed = desk.state.services.get(&orders()).map(|s| s.epoch);
        }
        if let Some(command) = command {
            let shown = desk.apply(command);
            assert!(!shown.contains("REFUSED"), "the keeper's word was refused: {shown}");
        }
        let idle = matches!(next, Step::Wait(_)) && local.seen.state == before;
        if !matches!(next, Step::Wait(_)) {
            steps.push(next.to_string());
        }
        rest = if idle { rest + 1 } else { 0 };
        desk.now += Duration::from_secs(1);
        if Duration::from_secs(rest) > patience {
            return Way { steps, state: desk.state, local };
        }
    }
    panic!("the keeper of db2 never rests: {steps:?}");
}

/// How it ended, in words; `None`: it rests where nobody wanted it.
fn reached(goal: Goal, way: &Way) -> Option<&'static str> {
    let service = way.state.services.get(&orders());
    let released = service.is_some_and(|s| s.over.is_some());
    let seen = &way.local.seen;
    let down = !matches!(seen.state, DbState::Primary | DbState::Starting | DbState::Stopping);
    let mine = service.is_some_and(|s| {
        let (_, incarnation) = present(&way.state, &"db2".parse().expect("valid"));
        s.holder.as_ref().is_some_and(|h| h.incarnation == incarnation)
    });
    match goal {
        Goal::Unmanaged => way.steps.is_empty().then_some("left alone"),
        Goal::HandOver => (released && down).then_some("handed over"),
        Goal::MakeIt | Goal::TakeOver | Goal::GoOn | Goal::GoOnPaused => {
            let installed = service.is_some_and(|s| s.phase == Phase::Installed && s.over.is_none());
            match (installed && seen.state == DbState::Primary, released && mine && down) {
                (true, _) => Some("primary"),
                (_, true) => Some("gave the epoch back"),
                _ => None,
            }
        }
        Goal::Follow => {
            let follows = seen.follows.as_ref().is_some_and(|up| up.as_str() == "db1");
            (seen.state == DbState::Standby && follows).then_some("standby of db1")
        }
        Goal::StandBy => down.then_some("closed for writes"),
    }
}

/// Whom the coordinator can give the goal to in this state must reach it, and not merely give it back: an appointee
/// gave a sealed report (a running standby) or held the last epoch (stopped); a maker has an empty directory. An installed
/// primary is out of recovery: to leave it takes a timeline, which only an appointment gives.
fn must_succeed(goal: Goal, start: &str) -> bool {
    match goal {
        Goal::MakeIt => start == "nothing in its directory",
        Goal::TakeOver => start.contains("standby") || start == "stopped as a primary",
        Goal::GoOn | Goal::GoOnPaused => !start.contains("directory") && !start.contains("standby"),
        _ => false,
    }
}

/// The table of all ways, as text; panics where one leads nowhere.
pub fn table() -> String {
    let mut out = "# Every goal that the ledger can give to a database node (here db2), from every state that its database\n\
                   # can be in: the keeper's steps, and where they end. Written by the test; it fails where a way ends nowhere.\n\
                   # Shows: point 10, S5\n"
        .to_owned();
    for goal in GOALS {
        writeln!(out, "\n{goal:?}").expect("a string takes everything");
        for (start, local) in starts(*goal) {
            let way = walk(wanting(*goal), local);
            let end = reached(*goal, &way);
            let end = end.unwrap_or_else(|| panic!("{goal:?} from {start:?} ends nowhere: {:?}", way.steps));
            let fine = end != "gave the epoch back" || !must_succeed(*goal, start);
            assert!(fine, "{goal:?} from {start:?} is given back: {:?}", way.steps);
            writeln!(out, "  from: {start}").expect("a string takes everything");
            for step in &way.steps {
                writeln!(out, "      {step}").expect("a string takes everything");
            }
            writeln!(out, "    to: {end}").expect("a string takes everything");
        }
    }
    out
}
