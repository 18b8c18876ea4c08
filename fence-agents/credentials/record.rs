//! Which fences took a role's login, as lines of the role's comment, below whatever the operator wrote there. Pure.
//!
//! ```text
//! regent fence 7 of node db1: NOLOGIN
//! ```
//!
//! The comment lives beside the role in the catalog and reaches every standby with it, so whichever of them becomes the
//! primary knows whose NOLOGIN it is and can undo it. Who may comment on a role may also give it a login: nobody gains
//! anything by forging a line.

/// The end of a line, and what stands for the name of a node that was not told.
const END: &str = ": NOLOGIN";
const NOBODY: &str = "-";

/// The fence that a line of a comment tells, and its node.
fn told(line: &str) -> Option<(u64, Option<&str>)> {
    let (number, node) = line.trim_end().strip_prefix("regent fence ")?.strip_suffix(END)?.split_once(" of node ")?;
    let fence = number.parse::<u64>().ok().filter(|fence| fence.to_string() == number)?;
    Some((fence, Some(node).filter(|node| *node != NOBODY)))
}

/// The fences that a comment tells, each with its node.
pub fn fences(comment: &str) -> Vec<(u64, Option<&str>)> {
    comment.lines().filter_map(told).collect()
}

/// The comment with the fence's line, once.
pub fn with(comment: &str, fence: u64, node: &str) -> String {
    let rest = without(comment, fence);
    let gap = if rest.is_empty() || rest.ends_with('\n') { "" } else { "\n" };
    let node = if node.is_empty() { NOBODY } else { node };
    format!("{rest}{gap}regent fence {fence} of node {node}{END}")
}

/// The comment without the fence's line.
pub fn without(comment: &str, fence: u64) -> String {
    let others = comment.lines().filter(|line| told(line).is_none_or(|(told, _)| told != fence));
    others.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_comment_stays_above_the_lines_of_the_fences() {
        let one = with("db1's role\nask ops", 1, "db1");
        assert_eq!(one, "db1's role\nask ops\nregent fence 1 of node db1: NOLOGIN");
        assert_eq!(with(&one, 1, "db1"), one, "twice is once");
        let both = with(&one, 12, "");
        assert_eq!(fences(&both), [(1, Some("db1")), (12, None)]);
        assert_eq!(without(&both, 12), one);
        assert_eq!(without(&without(&both, 1), 12), "db1's role\nask ops");
        assert_eq!(without(&with("", 7, "db1"), 7), "");
        assert_eq!(fences("regent fence 1 of node db1\nregent fence 01 of node db1: NOLOGIN"), []);
    }
}
