//! What a planned move would meet on a database, as the checks of its dry run: nothing of it keeps the move from being
//! begun, and an operator wants to know it before.
//!
//! Not here: the answers themselves (`engine`), and what does keep a move from being begun (`plan/switchover.rs`).

use crate::api::admin::Check;
use crate::plan::switchover::Switchover;
use crate::types::{
    Archiver, LastCheckpoint, NodeName, OpenSession, Prepared, Quoted, Replay, Sessions, Size, Span, Survey, WalReader,
};
use std::time::Duration;

/// So much WAL since the last checkpoint lets the one before the stop take long.
const MUCH_WAL: u64 = 1 << 30;
/// So many files may wait for the archiver at any time.
const FEW_FILES: u64 = 2;

/// For how long the target of a move has lacked something of what its primary wrote, and how long that may be.
#[derive(Clone, Copy, Debug)]
pub struct Behind {
    pub time: Duration,
    pub limit: Duration,
}

/// The move itself waits until nothing is lacking, with writes stopped.
pub(super) fn behind(planned: &Switchover, Behind { time, limit }: Behind) -> Option<Check> {
    let Switchover { from, to, .. } = planned;
    (time > limit).then(|| {
        Check::warning(format!(
            "{to} has lacked something of the WAL of {from} for {}, longer than max_lag_time ({}): writes are stopped until it \
             has it",
            Age(time.as_secs()),
            Span(limit)
        ))
    })
}

/// What one of the two nodes said.
pub(super) fn checks(planned: &Switchover, node: &NodeName, said: &Result<Survey, String>) -> Vec<Check> {
    let survey = match said {
        Ok(survey) => survey,
        Err(why) => {
            let what = format!("what the move would meet on {node} is not known: {why}");
            return vec![Check::warning(what)];
        }
    };
    let Switchover { from, to, .. } = planned;
    let one = [
        survey.checkpoint.map(|last| checkpoint(from, last)),
        survey.archiver.as_ref().map(|found| archiver(from, to, found)),
        survey.prepared.as_ref().map(|found| prepared(from, to, found)),
        open(from, &survey.open),
        stranded(from, to, &survey.stranded_slots),
        survey.replay.as_ref().map(|found| replay(to, found)),
    ];
    one.into_iter().flatten().chain(survey.readers.iter().map(|found| reader(from, found))).collect()
}

fn checkpoint(from: &NodeName, last: LastCheckpoint) -> Check {
    let what =
        format!("the last checkpoint of {from} began {} ago, {} of WAL before the end", Age(last.age), Size(last.wal));
    match last.wal > MUCH_WAL {
        true => Check::warning(format!("{what}: the one before the stop may take long, while writes go on")),
        false => Check::passed(what),
    }
}

fn archiver(from: &NodeName, to: &NodeName, found: &Archiver) -> Check {
    let Archiver { waiting, failing } = found;
    match failing {
        Some((file, age)) => Check::warning(format!(
            "the archiver of {from} fails ({file}, {} ago) and {waiting} files wait for it: the stop waits until it has tried \
             again, and {to} does not archive what it leaves",
            Age(*age)
        )),
        None if *waiting > FEW_FILES => Check::warning(format!(
            "{waiting} files wait for the archiver of {from}: the stop waits until they are archived"
        )),
        None => Check::passed(format!("the archiver of {from} works, and {waiting} files wait for it")),
    }
}

fn prepared(from: &NodeName, to: &NodeName, found: &Prepared) -> Check {
    let Prepared { count, oldest: (name, age) } = found;
    Check::warning(format!(
        "prepared transactions on {from}: {count}, the oldest {} for {}; they stay open, with their locks, on {to}",
        Quoted(name),
        Age(*age)
    ))
}

fn open(from: &NodeName, sessions: &Sessions) -> Option<Check> {
    (sessions.count > 0).then(|| {
        Check::warning(format!(
            "transactions that are open on {from} for longer than a second, and would be cut off: {}",
            named(sessions)
        ))
    })
}

fn reader(from: &NodeName, reader: &WalReader) -> Check {
    let WalReader { application, address, copies, behind } = reader;
    let at = address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
    Check::warning(match copies {
        true => format!("{application}{at} makes a base backup of {from}: it would be cut off"),
        false => format!(
            "{application}{at} has not confirmed {} of the WAL of {from}: the stop waits for it, until stop_fast is over",
            Size(*behind)
        ),
    })
}

fn stranded(from: &NodeName, to: &NodeName, slots: &[String]) -> Option<Check> {
    (!slots.is_empty()).then(|| {
        Check::warning(format!(
            "logical slots of {from} that {to} will not have: {}; their readers begin anew",
            slots.join(", ")
        ))
    })
}

fn replay(to: &NodeName, found: &Replay) -> Check {
    let Replay { bytes, age, delay, held_by } = found;
    let age = age.map(|age| format!(" (behind for {})", Age(age))).unwrap_or_default();
    match (held_by.count, bytes) {
        (0, 0) => Check::passed(format!("{to} has replayed all that it received")),
        (0, bytes) if *delay > 0 => Check::warning(format!(
            "{to} has {} left to replay{age}: it is delayed by {} on purpose (recovery_min_apply_delay), which its promotion \
             waits for as well",
            Size(*bytes),
            Age(*delay)
        )),
        (0, bytes) => Check::passed(format!("{to} has {} left to replay{age}", Size(*bytes))),
        _ => Check::warning(format!(
            "replay on {to} is held up with {} left{age}, by sessions that would be ended: {}",
            Size(*bytes),
            named(held_by)
        )),
    }
}

fn named(sessions: &Sessions) -> String {
    let one = |session: &OpenSession| {
        let OpenSession { pid, user, database, application, state, age } = session;
        let application = if application.is_empty() { String::new() } else { format!(", {application}") };
        format!("pid {pid} ({user} in {database}{application}, {state}, {})", Age(*age))
    };
    let mut text = sessions.named.iter().map(one).collect::<Vec<_>>().join("; ");
    let more = sessions.count.saturating_sub(sessions.named.len() as u64);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// Seconds, as people say them.
struct Age(u64);

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ ..7200 => write!(f, "{} min", seconds / 60),
            seconds @ ..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}
