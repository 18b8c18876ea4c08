//! A page of `docs/` as somebody follows it: the commands of its blocks, in a host of the lab. So page and test cannot part.
//!
//! Not here: what must come of it (`scenarios/pages.rs`), and that every command is known (`tests/docs.rs`).

use crate::cluster::Cluster;
use crate::postgres;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// Paths of the page, and what they are in a host of the lab. The first that fits counts.
const PLACES: [(&str, &str); 5] = [
    ("/var/lib/postgresql/15/main", "/srv/postgresql/data"),
    ("/var/lib/postgresql/15/wal", "/srv/wal"),
    ("/var/lib/postgresql/15", "/srv/postgresql"),
    ("/backup", "/srv/backup"),
    ("psql ", "psql -XAtq "),
];

/// A page.
pub struct Page {
    text: &'static str,
}

pub const BY_HAND: Page = Page { text: include_str!("../../docs/by-hand.md") };

pub const NO_PRIMARY: Page = Page { text: include_str!("../../docs/no-primary.md") };

pub const RECOVERY: Page = Page { text: include_str!("../../docs/recovery.md") };

impl Page {
    /// The commands of all `sh` blocks below a heading, up to the next one; each block by itself.
    pub fn blocks(&self, heading: &str) -> Result<Vec<Vec<String>>> {
        let below = self
            .text
            .lines()
            .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'));
        let mut blocks: Vec<Vec<String>> = Vec::new();
        let (mut language, mut begun) = (None, String::new());
        for line in below.skip(1) {
            match (line.strip_prefix("```"), language) {
                (Some(named), None) => {
                    language = Some(named);
                    blocks.extend((named == "sh").then(Vec::new));
                }
                (Some(_), Some(_)) => language = None,
                (None, Some("sh")) => {
                    let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
                    begun += part;
                    if !goes_on {
                        let command = std::mem::take(&mut begun);
                        blocks.last_mut().context("a block has begun")?.push(command.trim().to_owned());
                    }
                }
                (None, Some(_)) => {}
                (None, None) if line.starts_with('#') => break,
                (None, None) => {}
            }
        }
        if blocks.is_empty() {
            bail!("the page has no commands below {heading:?}");
        }
        Ok(blocks)
    }

    /// One block, by its number below its heading.
    pub fn block(&self, heading: &str, number: usize) -> Result<Vec<String>> {
        let blocks = self.blocks(heading)?;
        blocks.into_iter().nth(number).with_context(|| format!("{heading:?} has no block {number}"))
    }
}

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
            ["systemctl", "start", "regent"] => self.start_daemon(node).map(|()| String::new()),
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
