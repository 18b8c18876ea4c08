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

/// The file without the fence's block; every other byte stays as it is.
pub fn without(text: &str, fence: u64) -> String {
    let (begin, end) = (begin(fence), end(fence));
    let mut inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if bare == begin {
            inside = true;
        } else if bare == end && inside {
            inside = false;
        } else if !inside {
            kept.push_str(line);
        }
    }
    // A block without an end was damaged by hand: nothing after its begin may be lost.
    if inside { text.replace(&format!("{begin}\n"), "") } else { kept }
}

/// The lines of the fence's block, when there is one.
fn lines<'a>(text: &'a str, fence: u64) -> Option<Vec<&'a str>> {
    let after = text.lines().skip_while(|line| *line != begin(fence)).skip(1);
    let found = text.lines().any(|line| line == begin(fence));
    found.then(|| after.take_while(|line| *line != end(fence)).collect())
}

/// Whether the fence's block rejects every address of the target.
pub fn rejects(text: &str, target: &Target) -> bool {
    lines(text, target.fence)
        .is_some_and(|block| target.addresses.iter().flat_map(reject_lines).all(|line| block.contains(&line.as_str())))
}

/// The fences of a node that have a block in the file.
pub fn fences_of(text: &str, node: &str) -> Vec<u64> {
    let mut fences = Vec::new();
    for line in text.lines() {
        let number = line.strip_prefix("# regent fence ").and_then(|rest| rest.strip_suffix(" begin"));
        if let Some(fence) = number.and_then(|n| n.parse().ok()) {
            let name = format!("# node {node}");
            if lines(text, fence).is_some_and(|block| block.contains(&name.as_str())) {
                fences.push(fence);
            }
        }
    }
    fences
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
    }
}
