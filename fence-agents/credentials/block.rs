//! The lines of one fence in a pg_hba.conf, as text. Pure.
//!
//! ```text
//! # regent fence 7 begin
//! # node db1
//! host all all 10.0.1.11/32 reject
//! host replication all 10.0.1.11/32 reject
//! # regent fence 7 end
//! ```
//!
//! They stand at the top, because PostgreSQL takes the first line that matches; `all` does not include replication.
//!
//! A block without reject lines is one that is being taken out: it stays until the server has read the file, so that a
//! run that is killed in between leaves a trace.

use crate::target::Target;
use std::fmt::Write;
use std::net::IpAddr;

fn begin(fence: u64) -> String {
    format!("# regent fence {fence} begin")
}

fn end(fence: u64) -> String {
    format!("# regent fence {fence} end")
}

fn reject_lines(address: &IpAddr) -> [String; 2] {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    ["all", "replication"].map(|database| format!("host {database} all {address}/{bits} reject"))
}

/// The file with the fence's block on top, whether or not it had one.
pub fn with(text: &str, target: &Target) -> String {
    let mut block = format!("{}\n# node {}\n", begin(target.fence), target.node);
    for line in target.addresses.iter().flat_map(reject_lines) {
        let _ = writeln!(block, "{line}");
    }
    let _ = writeln!(block, "{}", end(target.fence));
    block + &without(text, target.fence)
}

/// The file with the fence's block, if there is one, rejecting nobody any more.
pub fn emptied(text: &str, fence: u64) -> String {
    let Some(block) = blocks(text).into_iter().find(|block| block.fence == fence) else { return text.to_owned() };
    let node = block.node.map(|node| format!("# node {node}\n")).unwrap_or_default();
    format!("{}\n{node}{}\n", begin(fence), end(fence)) + &without(text, fence)
}

/// The file without the fence's block; every other byte stays as it is.
pub fn without(text: &str, fence: u64) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest: Vec<&str> = text.split_inclusive('\n').collect();
    while let Some(at) = rest.iter().position(|line| line.trim_end() == begin(fence)) {
        kept.extend(rest.drain(..at));
        let length = length(&rest);
        rest.drain(..length);
    }
    kept.extend(rest);
    kept
}

/// How many lines the block is long that begins here. One without an end was damaged by hand: of what follows, only
/// what this agent writes belongs to it, and no line of anybody else may be lost.
fn length(lines: &[&str]) -> usize {
    let mark = |line: &str| line.trim_end().strip_prefix("# regent fence ").map(str::to_owned);
    let first = lines.first().and_then(|line| mark(line)).unwrap_or_default();
    let end = first.replace(" begin", " end");
    let next = lines.iter().skip(1).position(|line| mark(line).is_some()).map(|at| at + 1);
    match next {
        Some(at) if mark(lines[at]) == Some(end) => at + 1,
        _ => 1 + lines.iter().skip(1).take_while(|line| is_ours(line.trim_end())).count(),
    }
}

/// Whether the line looks as this agent writes lines inside a block.
fn is_ours(line: &str) -> bool {
    let rest = ["host all all ", "host replication all "].iter().find_map(|start| line.strip_prefix(start));
    let address = rest.and_then(|rest| rest.strip_suffix(" reject")).and_then(|range| range.rsplit_once('/'));
    let alone = address.is_some_and(|(address, bits)| {
        address.parse::<IpAddr>().is_ok_and(|a| bits == if a.is_ipv4() { "32" } else { "128" })
    });
    alone || line.starts_with("# node ")
}

/// One fence's lines in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub fence: u64,
    pub node: Option<&'a str>,
    /// What stands between its begin and its end.
    lines: Vec<&'a str>,
}

impl Block<'_> {
    /// How many of its lines reject somebody.
    pub fn rejecting(&self) -> usize {
        self.lines.iter().filter(|line| !line.starts_with('#') && line.ends_with(" reject")).count()
    }
}

/// The blocks of all fences, as they stand.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let begun = lines.iter().enumerate().filter_map(|(at, line)| {
        let number = line.trim_end().strip_prefix("# regent fence ")?.strip_suffix(" begin")?;
        let fence = number.parse::<u64>().ok().filter(|fence| fence.to_string() == number)?;
        let inside = &lines[at + 1..at + length(&lines[at..])];
        let inside: Vec<&str> = inside.iter().map(|line| line.trim_end()).filter(|line| *line != end(fence)).collect();
        let node = inside.iter().find_map(|line| line.strip_prefix("# node ")).filter(|node| !node.is_empty());
        Some(Block { fence, node, lines: inside })
    });
    begun.collect()
}

/// Whether the fence's block rejects every address of the target.
pub fn rejects(text: &str, target: &Target) -> bool {
    blocks(text).into_iter().find(|block| block.fence == target.fence).is_some_and(|block| {
        target.addresses.iter().flat_map(reject_lines).all(|line| block.lines.contains(&line.as_str()))
    })
}

/// The fences of a node that have a block in the file.
pub fn fences_of(text: &str, node: &str) -> Vec<u64> {
    blocks(text).into_iter().filter(|block| block.node == Some(node)).map(|block| block.fence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\nlocal all all peer\nhost all all 0.0.0.0/0 md5";

    fn target(fence: u64, address: &str) -> Target {
        Target { fence, node: "db1".into(), addresses: [address.parse().expect("an address")].into() }
    }

    #[test]
    fn a_block_comes_and_goes_without_a_trace() {
        let one = target(1, "10.0.1.11");
        let cut = with(FILE, &one);
        assert!(cut.starts_with("# regent fence 1 begin\n# node db1\nhost all all 10.0.1.11/32 reject\n"));
        assert!(rejects(&cut, &one) && !rejects(FILE, &one));
        assert!(!rejects(&cut, &target(1, "10.0.1.12")), "another address");
        assert_eq!(with(&cut, &one), cut, "twice is once");
        assert_eq!(without(&cut, 1), FILE);
        assert_eq!(without(&cut, 2), cut);
    }

    #[test]
    fn two_fences_do_not_touch_each_other() {
        let (one, two) = (target(1, "10.0.1.11"), target(12, "fd00::1"));
        let both = with(&with(FILE, &one), &two);
        assert!(both.contains("host replication all fd00::1/128 reject\n"));
        assert_eq!(fences_of(&both, "db1"), [12, 1]);
        assert_eq!(fences_of(&both, "db"), [0; 0]);
        assert_eq!(without(&both, 1), with(FILE, &two));
        assert_eq!(fences_of(&without(&both, 12), "db1"), [1]);
    }

    #[test]
    fn a_block_without_an_end_loses_no_line() {
        let damaged = format!("# regent fence 1 begin\n{FILE}\n");
        assert_eq!(without(&damaged, 1), format!("{FILE}\n"));
        let mine = "host all all 10.0.0.0/8 reject\nhost all app 10.0.1.11/32 reject\n";
        let ours = "# node db1\nhost all all 10.0.1.11/32 reject\nhost replication all fd00::1/128 reject\n";
        let damaged = format!("# regent fence 1 begin\n{ours}{mine}{FILE}");
        assert_eq!(without(&damaged, 1), format!("{mine}{FILE}"), "what the fence wrote goes, and nothing else");
        let two = target(2, "10.0.1.12");
        let damaged = format!("# regent fence 1 begin\n{}", with(FILE, &two));
        assert_eq!(without(&damaged, 1), with(FILE, &two), "another fence's block is not part of it");
        assert_eq!(blocks(&damaged).iter().map(|b| (b.fence, b.rejecting())).collect::<Vec<_>>(), [(1, 0), (2, 2)]);
    }

    #[test]
    fn an_emptied_block_rejects_nobody_and_still_tells_its_fence() {
        let (one, two) = (target(1, "10.0.1.11"), target(2, "10.0.1.12"));
        let both = with(&with(FILE, &one), &two);
        let half = emptied(&both, 1);
        assert_eq!(half, format!("# regent fence 1 begin\n# node db1\n# regent fence 1 end\n{}", with(FILE, &two)));
        let told: Vec<_> = blocks(&half).iter().map(|b| (b.fence, b.node, b.rejecting())).collect();
        assert_eq!(told, [(1, Some("db1"), 0), (2, Some("db1"), 2)]);
        assert!(!rejects(&half, &one) && rejects(&half, &two));
        assert_eq!(without(&half, 1), with(FILE, &two));
        assert_eq!(emptied(FILE, 1), FILE);
        assert_eq!(blocks("# regent fence 01 begin\n# regent fence x begin\n# regent fence 2 end\n"), []);
    }
}
