//! How often databases are started, copied, rewound and asked for a checkpoint at once. Nothing that fails may be done over
//! and over: every scenario is judged by it when it has passed.
//!
//! Counted is what PostgreSQL's own logs say, in every minute since the cluster of the scenario was whole. What a scenario
//! does to its databases on purpose it allows by number ([`Pace::allow`]).
//! Not here: what regent says that it did.

use crate::plan::{SECOND, SERVICE};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The settings by which a server's log tells who did what, and when. A rewind shows as its connection alone.
pub const PARAMETERS: &str = "log_line_prefix = \"%n [%p] [%a] \"\nlog_checkpoints = \"on\"\nlog_connections = \"on\"\n\
    log_replication_commands = \"on\"";

const WINDOW: Duration = Duration::from_secs(60);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Of a server, by whatever it was ended.
    Start,
    /// A base backup, whether it came to anything or not. It counts for who asked for it, as a rewind does.
    Copy,
    Rewind,
    /// At once, and whatever was written since the last. That of a copy is the copy's.
    Checkpoint,
}

/// How often each may happen to one database in a minute.
const LIMITS: [(Act, usize); 4] = [(Act::Start, 4), (Act::Copy, 1), (Act::Rewind, 1), (Act::Checkpoint, 1)];

/// One of them: a database's, and when, since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub database: String,
    pub act: Act,
    pub at: Duration,
}

/// What a scenario is judged by.
#[derive(Debug, Default)]
pub struct Pace {
    /// When its cluster was whole. Nothing is judged where there is none.
    since: Option<Duration>,
    allowed: BTreeMap<Act, usize>,
}

impl Pace {
    /// From now on it counts.
    pub fn begins(&mut self) -> Result<()> {
        self.since = Some(SystemTime::now().duration_since(UNIX_EPOCH).context("the time of day")?);
        Ok(())
    }

    /// So many in a minute are the scenario's own doing.
    pub fn allow(&mut self, act: Act, number: usize, why: &str) {
        println!("{number} times {act:?} of one database in a minute are allowed: {why}");
        self.allowed.insert(act, number);
    }

    /// Nothing is judged: faults follow one another as fast as they can be measured.
    pub fn is_not_judged(&mut self) {
        self.since = None;
    }

    /// Prints the worst minute of each kind; an error names all that are over their limit.
    pub fn judge(&self, events: &[Event]) -> Result<()> {
        let Some(since) = self.since else { return Ok(()) };
        ensure!(events.iter().any(|event| event.act == Act::Start), "no log tells of a start: nothing could be judged");
        let mut over = Vec::new();
        let databases: BTreeSet<&str> = events.iter().map(|event| event.database.as_str()).collect();
        for (act, limit) in LIMITS {
            let limit = self.allowed.get(&act).copied().unwrap_or(limit);
            for database in &databases {
                let of = |event: &&Event| event.act == act && event.database == *database && event.at >= since;
                let worst = worst_minute(events.iter().filter(of).map(|event| event.at).collect());
                if let Some((number, from)) = worst {
                    let after = from.saturating_sub(since);
                    let said = format!("{act:?} of {database}: {number} in the minute from {after:?} on");
                    println!("{said}");
                    over.extend((number > limit).then(|| format!("{said}, and {limit} may be")));
                }
            }
        }
        ensure!(over.is_empty(), "done over and over: {}", over.join("; "));
        Ok(())
    }
}

/// The largest number within one minute, and when that begins.
fn worst_minute(mut times: Vec<Duration>) -> Option<(usize, Duration)> {
    times.sort();
    let within =
        |(at, from): (usize, &Duration)| (times[at..].iter().take_while(|time| **time - *from < WINDOW).count(), *from);
    times.iter().enumerate().map(within).max_by_key(|(number, from)| (*number, std::cmp::Reverse(*from)))
}

/// What one server's log tells, oldest first. `names` are all databases of the service by the name of their node.
pub fn read(log: &str, own: &str, names: &BTreeMap<String, String>) -> Vec<Event> {
    // A copy asks for its checkpoint right after it was asked for.
    let mut copies = 0;
    let mut found = Vec::new();
    for (at, client, said) in log.lines().filter_map(line) {
        let by = |client: &str| names.get(client).cloned();
        let what = if said.starts_with("starting PostgreSQL ") {
            copies = 0;
            Some((own.to_owned(), Act::Start))
        } else if said.starts_with("received replication command: BASE_BACKUP") {
            copies += 1;
            by(client).map(|database| (database, Act::Copy))
        } else if let Some(client) = rewinds(said) {
            by(client).map(|database| (database, Act::Rewind))
        } else if is_forced(said) && copies > 0 {
            copies -= 1;
            None
        } else {
            is_forced(said).then(|| (own.to_owned(), Act::Checkpoint))
        };
        found.extend(what.map(|(database, act)| Event { database, act, at }));
    }
    found
}

/// A line as `log_line_prefix` has it: when, the client's name, and the sentence of a `LOG`.
fn line(line: &str) -> Option<(Duration, &str, &str)> {
    let (prefix, said) = line.split_once(" LOG:  ")?;
    let (at, rest) = prefix.split_once(" [")?;
    let (_, client) = rest.strip_suffix(']')?.split_once("] [")?;
    Some((Duration::try_from_secs_f64(at.parse().ok()?).ok()?, client, said))
}

/// Who connected for a rewind: nothing else of a node comes to a database under the node's name.
fn rewinds(said: &str) -> Option<&str> {
    let words = said.strip_prefix("connection authorized: ")?;
    let of = |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    of("database").filter(|database| *database == "postgres").and_then(|_| of("application_name"))
}

fn is_forced(said: &str) -> bool {
    let flags = said.strip_prefix("checkpoint starting: ").or_else(|| said.strip_prefix("restartpoint starting: "));
    let flags: Vec<&str> = flags.unwrap_or_default().split(' ').collect();
    // The newest versions say `fast`.
    flags.contains(&"force") && (flags.contains(&"immediate") || flags.contains(&"fast"))
}

/// Judges a scenario that has passed.
pub fn judge(world: &World) -> Result<()> {
    world.pace.judge(&events(world))
}

/// What the logs on the hosts' disks tell.
fn events(world: &World) -> Vec<Event> {
    let mut events = Vec::new();
    for service in [SERVICE, SECOND] {
        let names = world.hosts.keys().map(|host| (host.clone(), format!("{service} on {host}"))).collect();
        for (name, host) in &world.hosts {
            let log = host.server_log(service);
            // The older one first. What is not there has not begun.
            let log = [log.with_extension("log.1"), log].map(|path| fs::read(path).unwrap_or_default());
            events.extend(read(&String::from_utf8_lossy(&log.concat()), &format!("{service} on {name}"), &names));
        }
    }
    events
}
