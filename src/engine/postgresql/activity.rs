//! Whether anything of a server moves that answers nobody: the processor time of its sessions, and what its processes read
//! and write. A server that is slow moves; one that hangs does not.
//!
//! Processes that came since the last look count for nothing, because every try of a connection may leave one behind; nor do
//! those that wake up by themselves, as far as their time goes.
//!
//! Not here: what is done about it (`plan/keeper/silence.rs`).
//!
//! Source: proc(5), `stat` and `io`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

/// These write because somebody knocks, and not because anything gets on.
const WRITE_FOR_OTHERS: [&str; 4] = ["logger", "archiver", "stats collector", "syslogger"];
/// These wake up by themselves.
const WAKE_BY_THEMSELVES: [&str; 7] = [
    "checkpointer",
    "background writer",
    "walwriter",
    "autovacuum launcher",
    "logical replication launcher",
    "io worker",
    "slotsync worker",
];

/// What one process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    /// When it began, in clock ticks: another process with its number is another one.
    began: u64,
    ticks: u64,
    bytes: u64,
}

/// What was seen of one server while it was silent.
#[derive(Debug)]
pub struct Activity {
    seen: BTreeMap<i32, Used>,
    moved_at: Instant,
}

impl Activity {
    /// The silence begins.
    pub fn begins(now: Instant) -> Self {
        Activity { seen: BTreeMap::new(), moved_at: now }
    }

    /// For how long nothing of the server of this postmaster has moved.
    pub fn still_for(&mut self, postmaster: i32, now: Instant) -> Duration {
        let present = used(postmaster);
        if moved(&self.seen, &present) {
            self.moved_at = now;
        }
        self.seen = present;
        now.duration_since(self.moved_at)
    }
}

fn moved(before: &BTreeMap<i32, Used>, now: &BTreeMap<i32, Used>) -> bool {
    now.iter().any(|(pid, used)| before.get(pid).is_some_and(|old| old.began == used.began && old != used))
}

fn used(postmaster: i32) -> BTreeMap<i32, Used> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(|pid| Some((pid, used_by(pid)?))).collect()
}

fn used_by(pid: i32) -> Option<Used> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let (title, stat) = (read("cmdline")?, read("stat")?);
    let (began, ticks) = times(&stat)?;
    let is = |words: &[&str]| words.iter().any(|word| role(&title).starts_with(word));
    let ticks = if is(&WAKE_BY_THEMSELVES) || is(&WRITE_FOR_OTHERS) { 0 } else { ticks };
    let bytes = if is(&WRITE_FOR_OTHERS) { 0 } else { bytes(&read("io").unwrap_or_default()) };
    Some(Used { began, ticks, bytes })
}

/// "postgres: checkpointer", or with the cluster's name before it.
fn role(title: &str) -> &str {
    let own = title.trim_end_matches([char::from(0), ' ']).strip_prefix("postgres: ").unwrap_or_default();
    own.rsplit_once(": ").map_or(own, |(_, role)| role).trim_start()
}

/// When the process began, and its time in user and kernel mode, children left out. All in clock ticks.
fn times(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let field = |at: usize| rest.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some((field(19)?, field(11)? + field(12)?))
}

fn bytes(io: &str) -> u64 {
    let counted = ["rchar", "wchar", "read_bytes", "write_bytes"];
    let value = |line: &str| line.split_once(": ").filter(|(name, _)| counted.contains(name))?.1.parse::<u64>().ok();
    io.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_came_since_is_no_sign_of_life_and_one_that_worked_is() {
        let used = |began, ticks| Used { began, ticks, bytes: 10 };
        let before = BTreeMap::from([(7, used(1, 5))]);
        assert!(!moved(&before, &BTreeMap::from([(7, used(1, 5)), (8, used(2, 1))])));
        assert!(!moved(&before, &BTreeMap::from([(7, used(3, 9))])), "another process with its number");
        assert!(!moved(&before, &BTreeMap::new()));
        assert!(moved(&before, &BTreeMap::from([(7, used(1, 6))])));
    }

    #[test]
    fn the_roles_of_titles() {
        assert_eq!(role("postgres: checkpointer \0"), "checkpointer");
        assert_eq!(role("postgres: 15/main: walwriter "), "walwriter");
        assert_eq!(role("postgres: app orders [local] idle"), "app orders [local] idle");
        assert_eq!(role("/usr/lib/postgresql/15/bin/postgres\0-D"), "");
    }

    #[test]
    fn times_come_after_a_name_that_may_hold_anything() {
        let stat = "4711 (post) gres) S 1 2 3 4 5 6 7 8 9 10 40 2 13 14 15 16 17 18 990 20";
        assert_eq!(times(stat), Some((990, 42)));
        assert_eq!(times("4711"), None);
    }
}
