//! The proof that a keeper reaches every goal from every state that a database can be in: with an engine that does what it
//! is told it comes to rest in the state that is wanted, or it has given the epoch back, so that the coordinator can choose
//! somebody else. What comes out is written twice: as a golden text, and as the table of `docs/keeper.md`.
//!
//! Not here: which goal the ledger gives (`plan/goal.rs`).

use crate::commands::{SYSTEM, history, orders, present};
use crate::desk::Desk;
use crate::keeping::{ask, moment, opened, perform, renew};
use crate::story::{Line, Stage};
use regent::ledger::{Phase, State};
use regent::plan::goal::{Goal, Me, goal};
use regent::plan::keeper::{Keeper, Moment, Step, keep};
use regent::plan::reason::GiveUp;
use regent::types::{DbState, Epoch, Leaving, Lsn, NodeName, Observation, Position, Timeline, Upstream};
use std::fmt::Write as _;
use std::time::Duration;

/// Every goal that the ledger can give, in order.
pub fn ledger_goals() -> Vec<Goal> {
    let up = Upstream { node: "db1".parse().expect("valid"), addresses: Vec::new(), port: 0 };
    vec![
        Goal::Unmanaged,
        Goal::MakeIt,
        Goal::TakeOver { timeline: None },
        Goal::GoOn,
        Goal::HandOver,
        Goal::GoOnPaused,
        Goal::Follow(up),
        Goal::StandBy,
    ]
}

/// Those that a holder comes to by itself.
fn own_goals() -> Vec<Goal> {
    vec![Goal::Leave, Goal::GiveUp(unsaid()), Goal::SayReleased]
}

/// Why it gives up here: it did before, and its final word could not be written.
fn unsaid() -> GiveUp {
    GiveUp::Unsaid { why: "no space left".to_owned() }
}

/// What makes a node leave: only with that goal.
fn leaving(wanted: &Goal) -> Option<Leaving> {
    (*wanted == Goal::Leave).then_some(Leaving::DaemonStops)
}

/// The name of a goal, whatever belongs to it.
pub fn name(goal: &Goal) -> String {
    format!("{goal:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// A goal in a sentence.
fn sentence(goal: &Goal) -> &'static str {
    match goal {
        Goal::Unmanaged => "No epoch was ever begun: whatever runs is left alone.",
        Goal::MakeIt => "It holds the first epoch, or one after a failed try, and is to make the database.",
        Goal::TakeOver { .. } => "It was appointed and is to become the primary.",
        Goal::GoOn => "It is the installed primary and goes on.",
        Goal::HandOver => "It is the primary and stops in order, for a switchover.",
        Goal::Leave => "It is the primary, and its node leaves: it stops in order and gives the epoch back.",
        Goal::GoOnPaused => {
            "It is the installed primary, and the service is paused: its lease does not stop it, and nothing else is done."
        }
        Goal::GiveUp(_) => {
            "It holds the epoch and cannot or must not go on. Here it gave the epoch up before, and its final word could \
             not be written."
        }
        Goal::SayReleased => "Its tombstone for the epoch is durable, and the ledger has not heard its final word yet.",
        Goal::Follow(_) => "Another node is the installed primary (here db1): to be its standby.",
        Goal::StandBy => "Nobody to follow: the epoch is over, or its holder is dead or not installed.",
    }
}

/// A ledger that wants this of db2.
fn wanting(wanted: &Goal) -> Desk {
    let start = match wanted {
        Goal::Unmanaged | Goal::MakeIt => "given started",
        _ => "given running",
    };
    let lines: &[&str] = match wanted {
        Goal::Unmanaged | Goal::Follow(_) => &[],
        Goal::MakeIt => &["create db2"],
        Goal::TakeOver { .. } => &["release db1 at=1:0/1000", "appoint db2 sealed=db2@1:0/1000"],
        Goal::StandBy => &["release db1 at=1:0/1000"],
        Goal::GoOn | Goal::HandOver | Goal::Leave | Goal::GoOnPaused | Goal::GiveUp(_) | Goal::SayReleased => &[
            "release db1 at=1:0/1000",
            "appoint db2 sealed=db2@1:0/1000",
            "promoting db2",
            "installed db2 at=2:0/1000",
        ],
    };
    let last = match wanted {
        Goal::HandOver => Some("switchover to=db1"),
        Goal::GoOnPaused => Some("pause"),
        _ => None,
    };
    let mut desk = Desk::new();
    for text in [start].iter().chain(lines).copied().chain(last) {
        let shown = desk.run(&Line::new(text));
        assert!(!shown.contains("REFUSED"), "{text}: {shown}");
    }
    desk
}

/// The keeper of db2 hears of the epoch, and of what makes the goal its own.
fn hears(desk: &Desk, keeper: &mut Keeper, wanted: &Goal) {
    let node: NodeName = "db2".parse().expect("valid");
    let (boot, incarnation) = present(&desk.state, &node);
    let me = Me { node: &node, boot: &boot, incarnation: Some(incarnation) };
    let at = moment(&desk.state, desk.now);
    let epoch = at.epoch.map(|(epoch, _)| epoch);
    if epoch.is_some() {
        keeper.epoch_began(at.holder, at.now);
    }
    match (wanted, epoch) {
        (Goal::GiveUp(_), Some(epoch)) => {
            renew((&desk.config, &desk.state, leaving(wanted)), &node, keeper, desk.now);
            keeper.tombstone_begins(epoch);
            assert!(keeper.tombstone_failed("no space left", at.now - Duration::from_secs(60)));
        }
        (Goal::SayReleased, Some(epoch)) => {
            keeper.tombstone_begins(epoch);
            keeper.tombstoned(epoch, at.now);
        }
        (Goal::Leave, _) => {}
        _ => {
            let given = goal(&desk.state, &desk.config, &orders(), me, Epoch(0));
            return assert_eq!(name(&given), name(wanted), "the ledger gives another goal");
        }
    }
    let around = (&desk.config, &desk.state, &desk.heard, leaving(wanted));
    let own = ask(around, &node, keeper, desk.now, (true, 0), |input| input.goal());
    assert_eq!(&own, wanted, "the keeper has another goal");
}

/// Where a database can be when a goal is set: in words, and as a keeper sees it.
fn starts(wanted: &Goal) -> Vec<(&'static str, Keeper)> {
    let installed =
        [Goal::GoOn, Goal::HandOver, Goal::Leave, Goal::GoOnPaused, Goal::GiveUp(unsaid()), Goal::SayReleased];
    let on = if installed.contains(wanted) { 2 } else { 1 };
    let at = Position { timeline: Timeline(on), lsn: Lsn(0x1000) };
    let seen = |state| {
        let history = history(at.timeline);
        Observation { state, system: Some(SYSTEM), position: at, history, ..Observation::unclear() }
    };
    let db1: NodeName = "db1".parse().expect("valid");
    let standby = Observation { follows: Some(db1.clone()), streams_from: Some(db1), ..seen(DbState::Standby) };
    let in_recovery = |state| Observation { starts_in_recovery: true, ..seen(state) };
    let writes = Observation { writable: true, ..seen(DbState::Primary) };
    let of = |seen| {
        let mut keeper = Keeper::default();
        keeper.sees(seen, Moment::default());
        keeper
    };
    let opened = |seen| {
        let mut keeper = Keeper::default();
        opened(&mut keeper);
        keeper.sees(seen, Moment::default());
        keeper
    };
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
    /// The first, a wait included.
    first: String,
    steps: Vec<String>,
    state: State,
    keeper: Keeper,
}

/// The keeper of db2, step by step, until it rests: nothing changes any more, also not with time.
fn walk(wanted: &Goal, mut keeper: Keeper) -> Way {
    let mut desk = wanting(wanted);
    let node: NodeName = "db2".parse().expect("valid");
    let mut steps = Vec::new();
    let patience = desk.config.failover.install + Duration::from_secs(5);
    let (mut rest, mut first) = (0, None);
    hears(&desk, &mut keeper, wanted);
    for _ in 0..200 {
        renew((&desk.config, &desk.state, leaving(wanted)), &node, &mut keeper, desk.now);
        let around = (&desk.config, &desk.state, &desk.heard, leaving(wanted));
        let next = ask(around, &node, &keeper, desk.now, (true, 0), keep);
        first.get_or_insert_with(|| next.to_string());
        let before = keeper.seen().state;
        let command = perform(&desk.state, &node, &mut keeper, &next, desk.now);
        if let Some(command) = command {
            let shown = desk.apply(command);
            assert!(!shown.contains("REFUSED"), "the keeper's word was refused: {shown}");
        }
        let idle = matches!(next, Step::Wait(_)) && keeper.seen().state == before;
        if !matches!(next, Step::Wait(_)) {
            steps.push(next.to_string());
        }
        rest = if idle { rest + 1 } else { 0 };
        desk.now += Duration::from_secs(1);
        if Duration::from_secs(rest) > patience {
            return Way { first: first.unwrap_or_default(), steps, state: desk.state, keeper };
        }
    }
    panic!("the keeper of db2 never rests: {steps:?}");
}

/// How it ended, in words; `None`: it rests where nobody wanted it.
fn reached(wanted: &Goal, way: &Way) -> Option<&'static str> {
    let service = way.state.services.get(&orders());
    let released = service.is_some_and(|s| s.over.is_some());
    let seen = way.keeper.seen();
    let down = !matches!(seen.state, DbState::Primary | DbState::Starting | DbState::Stopping);
    let mine = service.is_some_and(|s| {
        let (_, incarnation) = present(&way.state, &"db2".parse().expect("valid"));
        s.holder.as_ref().is_some_and(|h| h.incarnation == incarnation)
    });
    match wanted {
        Goal::Unmanaged => way.steps.is_empty().then_some("left alone"),
        Goal::HandOver | Goal::Leave => (released && down).then_some("handed over"),
        Goal::GiveUp(_) | Goal::SayReleased => (released && mine && down).then_some("gave the epoch back"),
        Goal::GoOnPaused => way.steps.is_empty().then_some("left as it is"),
        Goal::MakeIt | Goal::TakeOver { .. } | Goal::GoOn => {
            let installed = service.is_some_and(|s| s.phase == Phase::Installed && s.over.is_none());
            match (installed && seen.state == DbState::Primary, released && mine && down) {
                (true, _) => Some("primary"),
                (_, true) => Some("gave the epoch back"),
                _ => None,
            }
        }
        Goal::Follow(_) => {
            let follows = seen.follows.as_ref().is_some_and(|up| up.as_str() == "db1");
            (seen.state == DbState::Standby && follows).then_some("standby of db1")
        }
        Goal::StandBy => down.then_some("closed for writes"),
    }
}

/// Whom the coordinator can give the goal to in this state must reach it, and not merely give it back: an appointee
/// gave a sealed report (a running standby) or held the last epoch (stopped); a maker has an empty directory. An installed
/// primary is out of recovery: to leave it takes a timeline, which only an appointment gives.
fn must_succeed(wanted: &Goal, start: &str) -> bool {
    match wanted {
        Goal::MakeIt => start == "nothing in its directory",
        Goal::TakeOver { .. } => start.contains("standby") || start == "stopped as a primary",
        Goal::GoOn => !start.contains("directory") && !start.contains("standby"),
        _ => false,
    }
}

/// The way from one state, and how it ends; panics where it leads nowhere.
fn checked_way(wanted: &Goal, start: &str, keeper: Keeper) -> (Way, &'static str) {
    let way = walk(wanted, keeper);
    let end = reached(wanted, &way);
    let end = end.unwrap_or_else(|| panic!("{wanted:?} from {start:?} ends nowhere: {:?}", way.steps));
    let fine = end != "gave the epoch back" || !must_succeed(wanted, start);
    assert!(fine, "{wanted:?} from {start:?} is given back: {:?}", way.steps);
    (way, end)
}

/// All ways to what the ledger can want, as text.
pub fn table() -> String {
    let mut out = "# Every goal that the ledger can give to a database node (here db2), from every state that its database\n\
                   # can be in: the keeper's steps, and where they end. Written by the test; it fails where a way ends nowhere.\n\
                   # Shows: point 10, S5\n"
        .to_owned();
    for wanted in ledger_goals() {
        writeln!(out, "\n{}", name(&wanted)).expect("a string takes everything");
        for (start, keeper) in starts(&wanted) {
            let (way, end) = checked_way(&wanted, start, keeper);
            writeln!(out, "  from: {start}").expect("a string takes everything");
            for step in &way.steps {
                writeln!(out, "      {step}").expect("a string takes everything");
            }
            writeln!(out, "    to: {end}").expect("a string takes everything");
        }
    }
    out
}

/// The first step for every goal and state, for `docs/keeper.md`.
pub fn document() -> String {
    let mut out = String::new();
    for wanted in ledger_goals().into_iter().chain(own_goals()) {
        let head = "| the database is | the first step | and where it ends |\n|---|---|---|";
        writeln!(out, "\n### {}\n\n{}\n\n{head}", name(&wanted), sentence(&wanted)).expect("a string takes everything");
        for (start, keeper) in starts(&wanted) {
            let (way, end) = checked_way(&wanted, start, keeper);
            writeln!(out, "| {start} | {} | {end} |", way.first).expect("a string takes everything");
        }
    }
    out
}
