//! A page as somebody follows it in a host of the lab.
//!
//! Not here: what it says (`page.rs`).

use crate::cluster::Cluster;
use crate::postgres;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// With this `regent` ends where no daemon answers.
const NO_DAEMON: i32 = 4;

/// Paths of the page, and what they are in a host of the lab. The first that fits counts.
const PLACES: [(&str, &str); 5] = [
    ("/var/lib/postgresql/15/main", "/srv/postgresql/data"),
    ("/var/lib/postgresql/15/wal", "/srv/wal"),
    ("/var/lib/postgresql/15", "/srv/postgresql"),
    ("/backup", "/srv/backup"),
    ("psql ", "psql -XAtq "),
];

impl Cluster<'_> {
    /// Does on a node's host what a block says, with `given` in place of the page's own values. Brings what the last
    /// command printed.
    pub fn follow(&self, node: &str, block: &[String], given: &[(&str, &str)]) -> Result<String> {
        let mut said = String::new();
        for command in block {
            said = self.type_in(node, command, given).with_context(|| format!("{command:?} on {node}"))?;
        }
        Ok(said)
    }

    /// `systemctl start` returns when the daemon has said that it is ready.
    fn until_ready(&self, node: &str) -> Result<String> {
        let end = Instant::now() + Duration::from_secs(30);
        while self.regent(node, &["status"])?.status.code() == Some(NO_DAEMON) {
            ensure!(Instant::now() < end, "the daemon of {node} is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(String::new())
    }

    fn type_in(&self, node: &str, command: &str, given: &[(&str, &str)]) -> Result<String> {
        let bin = postgres::bin_dir()?.display().to_string();
        let mut command = command.strip_prefix("sudo ").unwrap_or(command).replace("/usr/lib/postgresql/15/bin", &bin);
        for (there, here) in given {
            if !command.contains(there) {
                continue;
            }
            command = command.replace(there, here);
        }
        for (there, here) in PLACES {
            command = command.replace(there, here);
        }
        println!("{node}: {command}");
        let words: Vec<&str> = command.split_whitespace().collect();
        match &words[..] {
            ["systemctl", "stop", "regent"] => self.stop_daemon(node, Duration::from_secs(90)).map(|()| String::new()),
            ["systemctl", "start", "regent"] => self.start_daemon(node).and_then(|()| self.until_ready(node)),
            // A host of the lab has no manager of units: nothing but the scenario starts the daemon.
            ["systemctl", "mask" | "unmask", "regent"] => Ok(String::new()),
            // Whoever is asked types it.
            ["regent", verb @ ("reinit" | "accept" | "failover" | "fence"), words @ ..] => {
                let words: Vec<&str> = [verb].into_iter().chain(words).copied().chain(["--yes"]).collect();
                self.order(node, &words)
            }
            ["regent", words @ ..] => self.order(node, words),
            // As it stands in the host's table of file systems.
            ["mount", place] => self.host(node)?.run("mount", &["-t", "tmpfs", "-o", "size=512m", "tmpfs", place]),
            _ => self.host(node)?.run("sh", &["-c", &command]),
        }
    }
}
