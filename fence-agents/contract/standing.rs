//! What `in-force` prints: one line a fence that has something in force on this host.
//!
//! ```text
//! in-force fence=7 node=db1 what=chains fence_7_input (5 rules), fence_7_output (5 rules)
//! ```
//!
//! `node=-` where nobody wrote the node down. Whatever else is printed, on lines of its own, is for people.
//! Not here: where an agent looks. It must be the kernel, the file or the database itself, never a memory of its own.

use std::collections::BTreeMap;

/// What each fence has in force.
#[derive(Debug, Default)]
pub struct Standings(BTreeMap<u64, (Option<String>, Vec<String>)>);

impl Standings {
    /// Notes one thing. The node is the first that is told for the fence.
    pub fn add(&mut self, fence: u64, node: Option<&str>, what: &str) {
        let (known, list) = self.0.entry(fence).or_default();
        if known.is_none() {
            *known = node.filter(|node| is_one_word(node)).map(str::to_owned);
        }
        // A path or a role may hold anything: it stays on its line.
        list.push(what.replace(char::is_control, "?"));
    }

    /// The lines, by fence.
    pub fn lines(&self) -> Vec<String> {
        let line = |(fence, (node, what)): (&u64, &(Option<String>, Vec<String>))| {
            format!("in-force fence={fence} node={} what={}", node.as_deref().unwrap_or("-"), what.join("; "))
        };
        self.0.iter().map(line).collect()
    }
}

/// Whether a node's name can stand between blanks.
pub fn is_one_word(node: &str) -> bool {
    !node.is_empty() && !node.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fence_is_one_line_with_all_that_it_has() {
        let mut found = Standings::default();
        assert!(found.lines().is_empty());
        found.add(12, Some("db2"), "a role\nin-force fence=9 node=x what=y");
        found.add(7, None, "two chains");
        found.add(7, Some("db1"), "six lines");
        found.add(3, Some("no name"), "x");
        assert_eq!(
            found.lines(),
            [
                "in-force fence=3 node=- what=x",
                "in-force fence=7 node=db1 what=two chains; six lines",
                "in-force fence=12 node=db2 what=a role?in-force fence=9 node=x what=y",
            ]
        );
    }
}
